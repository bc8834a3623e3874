//! What can be said of many events at once: whether a condition holds for all, for none, or for some.

use super::needle::{Needle, Needs};
use super::{EventQuery, Field, Node, Pattern, Test};

/// What is known of a number of events together. What is not known is left to the default.
pub trait Summary {
    /// The severities among them: bit 1 stands for 1.
    fn severities(&self) -> u32;

    /// Their sources, if they are known.
    fn sources(&self) -> Option<Vec<&str>>;

    /// The devices they are of, if they are known.
    fn devices(&self) -> Option<Vec<&str>>;

    /// Whether one of them may have this text in its message.
    fn may_contain(&self, needle: &Needle) -> bool;
}

impl EventQuery {
    /// The answer for every event of a number of them; `None` if it differs or is not known.
    pub fn bound(&self, of: &impl Summary) -> Option<bool> {
        bound(&self.root, of)
    }

    /// A pattern that is found in the message of whatever matches.
    pub fn pattern(&self) -> Option<&Pattern> {
        pattern(&self.root)
    }

    /// The devices that a match can be of, if the query names them.
    pub fn devices(&self) -> Option<Vec<&str>> {
        named(&self.root)
    }
}

fn bound(node: &Node, of: &impl Summary) -> Option<bool> {
    match node {
        Node::All(nodes) => join(nodes, of, false),
        Node::Any(nodes) => join(nodes, of, true),
        Node::Not(node) => bound(node, of).map(|it| !it),
        Node::Severity(wanted) => all_or_none(
            of.severities() & wanted != 0,
            of.severities() & !wanted == 0,
        ),
        Node::Is(Field::Source, test) => of_names(test, of.sources()?),
        Node::Is(Field::Name, test) => of_names(test, of.devices()?),
        Node::Is(Field::Message, test) => {
            let may = needs(test).may_be(&|needle| of.may_contain(needle));
            (!may).then_some(false)
        }
        Node::Is(..) => None,
    }
}

fn join(nodes: &[Node], of: &impl Summary, ends: bool) -> Option<bool> {
    let mut is_known = true;
    for node in nodes {
        match bound(node, of) {
            Some(it) if it == ends => return Some(ends),
            Some(_) => {}
            None => is_known = false,
        }
    }
    is_known.then_some(!ends)
}

fn of_names(test: &Test, names: Vec<&str>) -> Option<bool> {
    let holds = names.iter().filter(|name| test.holds(name)).count();
    all_or_none(holds > 0, holds == names.len())
}

fn all_or_none(some: bool, all: bool) -> Option<bool> {
    (all || !some).then_some(all)
}

/// What a message has to contain for a test to hold.
fn needs(test: &Test) -> Needs {
    match test {
        Test::Exists | Test::Order(..) => Needs::nothing(),
        Test::Equals(literal) => literal.needs(),
        Test::Like(glob) => glob.needs(),
        Test::Found(pattern) => pattern.needs().clone(),
    }
}

fn pattern(node: &Node) -> Option<&Pattern> {
    match node {
        Node::Is(Field::Message, Test::Found(pattern)) => Some(pattern),
        Node::All(nodes) => nodes.iter().find_map(pattern),
        _ => None,
    }
}

fn named(node: &Node) -> Option<Vec<&str>> {
    match node {
        Node::Is(Field::Name, Test::Equals(literal)) => literal.exactly().map(|name| vec![name]),
        Node::All(nodes) => nodes.iter().find_map(named),
        Node::Any(nodes) => {
            let each: Option<Vec<Vec<&str>>> = nodes.iter().map(named).collect();
            Some(each?.concat())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Severity;

    struct Block;

    impl Summary for Block {
        fn severities(&self) -> u32 {
            1 << Severity::INFO.number() | 1 << Severity::WARN.number()
        }

        fn sources(&self) -> Option<Vec<&str>> {
            Some(vec!["app", "nginx"])
        }

        fn devices(&self) -> Option<Vec<&str>> {
            None
        }

        fn may_contain(&self, needle: &Needle) -> bool {
            needle.text == "timeout"
        }
    }

    #[test]
    fn what_holds_for_all_or_none_is_known() {
        for (text, expected) in [
            ("level >= INFO", Some(true)),
            ("level = ERROR", Some(false)),
            ("level = WARN", None),
            ("not level = ERROR", Some(true)),
            ("source in (app, nginx)", None),
            ("source ~ /p|x/", Some(true)),
            ("source = kernel", Some(false)),
            ("source = app", None),
            ("device = lamp-7", None),
            ("message ~ /timeout/", None),
            ("not message ~ /timeout/", None),
            ("message ~ /broken/", Some(false)),
            ("message ~ \"*broken*\"", Some(false)),
            ("message = broken", Some(false)),
            ("message:Timeout", None),
            ("not message ~ /broken/", Some(true)),
            ("message ~ /broken/ or source = app", None),
            ("user = ann and level = ERROR", Some(false)),
            ("exists user", None),
        ] {
            let query = EventQuery::parse(text).unwrap();
            assert_eq!(query.bound(&Block), expected, "{text}");
        }
    }

    #[test]
    fn named_devices_are_found() {
        for (text, expected) in [
            ("device = a", Some(vec!["a"])),
            ("device in (a, b) and level = WARN", Some(vec!["a", "b"])),
            ("device = a or level = WARN", None),
            ("not device = a", None),
            ("device:a", None),
            ("level = WARN", None),
        ] {
            let query = EventQuery::parse(text).unwrap();
            assert_eq!(query.devices(), expected, "{text}");
        }
    }
}
