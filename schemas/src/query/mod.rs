//! The query of a dynamic group: a condition on a device, in one line.
//!
//! ```text
//! model = "x1" and version < "2.0"
//! name ~ "lamp-*" and not (online or site in ("lab", "attic"))
//! attributes.model:x1 AND thingName:lamp*
//! ```
//!
//! **Fields.** `name` is the device's name, `type` its type, `online` whether it is connected, `group`
//! each group that it is in by a membership, ancestors included. Any other word is an attribute: what
//! operators set in `config/device/<device>`, else what the device says of itself in
//! `reported/<device>`. An attribute with the name of a field, of a keyword or with other characters
//! than letters, digits, `_`, `-` and `.` is written `attributes.name`, `attributes."a b"`.
//! AWS IoT's names mean the same: `thingName`, `thingTypeName`, `connectivity.connected`,
//! `thingGroupNames`.
//!
//! **Comparisons.**
//!
//! | | true when |
//! |---|---|
//! | `model = "x1"` | it is exactly that |
//! | `model != "x1"` | it is not, or there is none |
//! | `version < "2.10"`, also `<=`, `>`, `>=` | it is before that as versions are: number by number between the dots (`2.9` is before `2.10`), `2.0-rc1` before `2.0`, letters by the alphabet |
//! | `load < 0.25` | it is a number and less; without quotes numbers compare as numbers |
//! | `model ~ "x*"` | all of it fits: `*` is any text, `?` any character |
//! | `model ~ /^x[0-9]/` | the regular expression is found in it (syntax of the crate regex) |
//! | `site in ("lab", "attic")` | it is one of them |
//! | `exists site` | there is one |
//! | `online` | it is connected; short for `online = true` |
//!
//! Without such an attribute every comparison but `!=` is false. Text in quotes takes `\"` and `\\`;
//! a word of letters, digits, `_`, `-`, `.` and `:` needs no quotes. `and`, `or`, `not` in capitals or
//! not, `and` before `or`, brackets as usual; two conditions side by side mean `and`.
//!
//! **AWS IoT's syntax** (Developer Guide, "Query syntax") for what people use of it: `field:value`
//! without regard to case and with `*` and `?`, `field:"a b"`, `field:>5`, `field:[1 TO 5]`,
//! `field:{1 TO 5}` (without its ends), `field:*` (there is one), `field:(a OR b*)`, `-field:value`,
//! `\` before a character that means something. A value without a field, shadows, violations and
//! times of connections are not there, and are errors that say so.
//!
//! **Limits.** [`MAX_LENGTH`] characters, [`MAX_CONDITIONS`] values (AWS: 12), brackets and `not`
//! [`MAX_DEPTH`] deep, a regular expression of at most 256 KiB compiled; it takes linear time.

pub mod bound;
pub mod event;
mod needle;
mod parse;
mod pattern;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;

pub use self::bound::Summary;
pub use self::event::{EventQuery, Facts, Row};
pub use self::needle::Needle;
pub use self::pattern::{Lines, LinesCache, Pattern};
use crate::config::{Attributes, Packed};
use value::{Glob, Literal};

/// Most characters of a query.
pub const MAX_LENGTH: usize = 1000;
/// Most values that a query compares with.
pub const MAX_CONDITIONS: usize = 32;
/// Most brackets and negations within each other.
pub const MAX_DEPTH: usize = 16;

/// A query that has been read.
#[derive(Clone, Debug)]
pub struct Query {
    text: String,
    root: Node,
}

/// What is wrong with a query, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("character {at}: {reason}")]
pub struct QueryError {
    /// The first character that cannot be, counted from 1; one more than there are at the end.
    pub at: usize,
    /// What is wrong and what would be right.
    pub reason: String,
}

/// Whether a value is wanted.
pub type Wanted<'a> = &'a mut dyn FnMut(&str) -> bool;

/// What queries ask of a device.
pub struct Thing<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its type.
    pub kind: Option<&'a str>,
    /// What operators say of it.
    pub operator: Option<&'a Attributes>,
    /// What it says of itself; asked for what operators do not say.
    pub reported: Option<&'a Packed>,
    /// Whether it is connected; `None` if that must not count.
    pub online: Option<bool>,
    /// Whether one of its groups is wanted.
    pub any_group: &'a dyn Fn(Wanted<'_>) -> bool,
}

impl fmt::Debug for Thing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Thing({})", self.name)
    }
}

#[derive(Clone, Debug)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Is(Field, Test),
    /// The severity of an event is one of these: bit 1 stands for 1.
    Severity(u32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Kind,
    Online,
    Group,
    /// Of the device.
    Attribute(String),
    Source,
    Level,
    Severity,
    Message,
    /// Of the event.
    OfEvent(String),
}

/// What is asked.
trait Subject {
    /// Whether one of the values there is wanted; `None` if that is not known yet.
    fn any(&self, field: &Field, wanted: Wanted<'_>) -> Option<bool>;

    /// Whether a pattern is found in the message; `None` if that is not known yet.
    fn finds(&self, pattern: &Pattern) -> Option<bool>;

    /// The severity, if it is known.
    fn severity(&self) -> Option<u8>;
}

#[derive(Clone, Debug)]
enum Test {
    Exists,
    Equals(Literal),
    Order(Order, Literal),
    Like(Glob),
    Found(Pattern),
}

/// `<` and its kin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Query {
    /// Reads a query.
    pub fn parse(text: &str) -> Result<Query, QueryError> {
        Ok(Query {
            text: text.to_owned(),
            root: parse::parse(text, parse::Words::OfDevices)?,
        })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a device matches.
    pub fn matches(&self, thing: &Thing<'_>) -> bool {
        self.root.decide(thing) == Some(true)
    }

    /// Whether the answer depends on the groups of the device.
    pub fn asks_for_groups(&self) -> bool {
        self.root.asks_for_groups()
    }
}

impl Node {
    /// Whether it is true; `None` if that hangs on what is not known.
    fn decide(&self, subject: &impl Subject) -> Option<bool> {
        match self {
            Node::All(nodes) => decide_all(nodes, subject, false),
            Node::Any(nodes) => decide_all(nodes, subject, true),
            Node::Not(node) => node.decide(subject).map(|it| !it),
            Node::Is(Field::Message, Test::Found(pattern)) => subject.finds(pattern),
            Node::Is(field, test) => subject.any(field, &mut |value| test.holds(value)),
            Node::Severity(wanted) => subject.severity().map(|it| wanted >> it & 1 == 1),
        }
    }

    /// What is looked for in messages.
    fn patterns(&mut self) -> Vec<&mut Pattern> {
        match self {
            Node::All(nodes) | Node::Any(nodes) => {
                nodes.iter_mut().flat_map(Node::patterns).collect()
            }
            Node::Not(node) => node.patterns(),
            Node::Is(Field::Message, Test::Found(pattern)) => vec![pattern],
            Node::Is(..) | Node::Severity(_) => Vec::new(),
        }
    }

    fn asks_for_groups(&self) -> bool {
        self.asks_for(&|field| *field == Field::Group)
    }

    fn asks_for(&self, wanted: &dyn Fn(&Field) -> bool) -> bool {
        match self {
            Node::All(nodes) | Node::Any(nodes) => nodes.iter().any(|node| node.asks_for(wanted)),
            Node::Not(node) => node.asks_for(wanted),
            Node::Is(field, _) => wanted(field),
            Node::Severity(_) => wanted(&Field::Severity),
        }
    }
}

/// The first node that says `ends` decides; else what is not known leaves it open.
fn decide_all(nodes: &[Node], subject: &impl Subject, ends: bool) -> Option<bool> {
    let mut is_known = true;
    for node in nodes {
        match node.decide(subject) {
            Some(it) if it == ends => return Some(ends),
            Some(_) => {}
            None => is_known = false,
        }
    }
    is_known.then_some(!ends)
}

impl Subject for Thing<'_> {
    fn any(&self, field: &Field, wanted: Wanted<'_>) -> Option<bool> {
        Some(match field {
            Field::Name => wanted(self.name),
            Field::Kind => self.kind.is_some_and(wanted),
            Field::Online => match self.online {
                Some(true) => wanted("true"),
                Some(false) => wanted("false"),
                None => false,
            },
            Field::Group => (self.any_group)(wanted),
            Field::Attribute(key) => {
                let operator = self.operator.and_then(|from| from.get(key));
                let operator = operator.map(String::as_str);
                let value = operator.or_else(|| self.reported?.get(key));
                value.is_some_and(wanted)
            }
            // No query of devices has these.
            Field::Source | Field::Level | Field::Severity | Field::Message | Field::OfEvent(_) => {
                false
            }
        })
    }

    fn finds(&self, _: &Pattern) -> Option<bool> {
        Some(false)
    }

    fn severity(&self) -> Option<u8> {
        None
    }
}

impl Test {
    fn holds(&self, value: &str) -> bool {
        match self {
            Test::Exists => true,
            Test::Equals(literal) => literal.equals(value),
            Test::Order(order, literal) => literal.compare(value).is_some_and(|it| match order {
                Order::Less => it.is_lt(),
                Order::AtMost => it.is_le(),
                Order::More => it.is_gt(),
                Order::AtLeast => it.is_ge(),
            }),
            Test::Like(glob) => glob.matches(value),
            Test::Found(pattern) => pattern.is_match(value),
        }
    }
}
