//! One rule of who may do what: an access and a topic filter that may name the user (`%u`) and the
//! client id (`%c`). Pure; rules are shared by everybody and compared level by level with what a
//! client asks for, so that nothing is put together for a check.

/// What a client wants to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Receive a message on the topic.
    Read,
    /// Publish on the topic.
    Write,
    /// Subscribe to a filter.
    Subscribe,
}

/// What a rule says of the topics that its filter matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// They may be read.
    Read,
    /// They may be written.
    Write,
    /// Both.
    ReadWrite,
    /// Neither, whatever other rules say.
    Deny,
}

impl Access {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Access::Read => "read",
            Access::Write => "write",
            Access::ReadWrite => "readwrite",
            Access::Deny => "deny",
        }
    }

    pub(crate) fn allows(self, action: Action) -> bool {
        match self {
            Access::Read => action != Action::Write,
            Access::Write => action == Action::Write,
            Access::ReadWrite => true,
            Access::Deny => false,
        }
    }
}

/// What stands for `%u` and `%c`. A value that could change the shape of a filter, or reach topics
/// that begin with `$`, is left out; the rules that name it then do not apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names<'a> {
    user: Option<&'a str>,
    client: Option<&'a str>,
}

impl<'a> Names<'a> {
    /// `client` is the client id if it is bound to the user.
    pub(crate) fn new(user: Option<&'a str>, client: Option<&'a str>) -> Names<'a> {
        let harmless = |name: &&str| {
            !name.is_empty() && !name.starts_with('$') && !name.contains(['/', '+', '#', '\0'])
        };
        Names {
            user: user.filter(harmless),
            client: client.filter(harmless),
        }
    }
}

/// A topic filter in which `%u` and `%c` stand for names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    levels: Box<[Level]>,
    text: Box<str>,
    names_user: bool,
    names_client: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Text(Box<str>),
    Mixed(Box<[Piece]>),
    /// `+`
    Any,
    /// `#`
    Rest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    User,
    Client,
}

impl Template {
    /// A valid filter, taken as it is.
    pub(crate) fn literal(filter: &str) -> Template {
        Template::with(filter, |level| Level::Text(level.into()))
    }

    /// A valid filter in which `%u` and `%c` stand for names.
    pub(crate) fn pattern(filter: &str) -> Template {
        Template::with(filter, |level| match pieces(level) {
            Some(pieces) => Level::Mixed(pieces.into()),
            None => Level::Text(level.into()),
        })
    }

    /// The same below a root that is taken as it is.
    pub(crate) fn pattern_below(root: &str, filter: &str) -> Template {
        let own = Template::pattern(filter);
        let mut template = Template::literal(&format!("{root}/{filter}"));
        let depth = root.split('/').count();
        template.levels[depth..].clone_from_slice(&own.levels);
        Template {
            names_user: own.names_user,
            names_client: own.names_client,
            ..template
        }
    }

    fn with(filter: &str, level_of: impl Fn(&str) -> Level) -> Template {
        let levels: Box<[Level]> = filter
            .split('/')
            .map(|level| match level {
                "+" => Level::Any,
                "#" => Level::Rest,
                level => level_of(level),
            })
            .collect();
        let names = |wanted: &Piece| {
            levels.iter().any(|level| match level {
                Level::Mixed(pieces) => pieces.contains(wanted),
                _ => false,
            })
        };
        Template {
            names_user: names(&Piece::User),
            names_client: names(&Piece::Client),
            text: filter.into(),
            levels,
        }
    }

    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether the names it needs are known.
    fn applies(&self, names: &Names<'_>) -> bool {
        (!self.names_user || names.user.is_some()) && (!self.names_client || names.client.is_some())
    }

    fn starts_wild(&self) -> bool {
        matches!(self.levels.first(), Some(Level::Any | Level::Rest))
    }

    /// Whether it matches a topic (MQTT 5.0 section 4.7).
    pub(crate) fn matches(&self, topic: &str, names: &Names<'_>) -> bool {
        if !self.applies(names) || (topic.starts_with('$') && self.starts_wild()) {
            return false;
        }
        let mut asked = topic.split('/');
        for level in &self.levels {
            match (level, asked.next()) {
                (Level::Rest, _) => return true,
                (level, Some(asked)) if level.is(asked, names) => {}
                _ => return false,
            }
        }
        asked.next().is_none()
    }

    /// Whether some topic could match both this and `filter`.
    pub(crate) fn overlaps(&self, filter: &str, names: &Names<'_>) -> bool {
        let dollar = |level: Option<&str>| level.is_some_and(|level| level.starts_with('$'));
        let wild = filter.starts_with(['+', '#']);
        if !self.applies(names)
            || (self.starts_wild() && filter.starts_with('$'))
            || (wild && dollar(self.levels.first().and_then(Level::text)))
        {
            return false;
        }
        let mut asked = filter.split('/');
        let mut levels = self.levels.iter();
        loop {
            match (levels.next(), asked.next()) {
                (Some(Level::Rest), _) | (_, Some("#")) | (None, None) => return true,
                (Some(_), Some("+")) => {}
                (Some(level), Some(asked)) if level.is(asked, names) => {}
                _ => return false,
            }
        }
    }

    /// Whether every topic that `filter` matches is matched by this.
    pub(crate) fn covers(&self, filter: &str, names: &Names<'_>) -> bool {
        if !self.applies(names) || (self.starts_wild() && filter.starts_with('$')) {
            return false;
        }
        let mut asked = filter.split('/');
        for level in &self.levels {
            match (level, asked.next()) {
                (Level::Rest, _) => return true,
                (Level::Any, Some("+")) => {}
                (_, Some("+" | "#")) => return false,
                (level, Some(asked)) if level.is(asked, names) => {}
                _ => return false,
            }
        }
        asked.next().is_none()
    }
}

impl Level {
    fn text(&self) -> Option<&str> {
        match self {
            Level::Text(text) => Some(text),
            Level::Mixed(pieces) => match pieces.first() {
                Some(Piece::Text(text)) => Some(text),
                _ => None,
            },
            Level::Any | Level::Rest => None,
        }
    }

    /// Whether it matches one level of a topic.
    fn is(&self, asked: &str, names: &Names<'_>) -> bool {
        match self {
            Level::Text(text) => **text == *asked,
            Level::Any => true,
            Level::Rest => false,
            Level::Mixed(pieces) => {
                let mut rest = Some(asked);
                for piece in pieces {
                    let piece = match piece {
                        Piece::Text(text) => Some(&**text),
                        Piece::User => names.user,
                        Piece::Client => names.client,
                    };
                    rest = rest
                        .zip(piece)
                        .and_then(|(rest, piece)| rest.strip_prefix(piece));
                }
                rest == Some("")
            }
        }
    }
}

/// The pieces of a level that names something; `None` for one that does not.
fn pieces(level: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = level;
    let next = |rest: &str| {
        [rest.find("%u"), rest.find("%c")]
            .into_iter()
            .flatten()
            .min()
    };
    while let Some(at) = next(rest) {
        if at > 0 {
            pieces.push(Piece::Text(rest[..at].into()));
        }
        let is_user = rest[at..].starts_with("%u");
        pieces.push(if is_user { Piece::User } else { Piece::Client });
        rest = &rest[at + 2..];
    }
    if pieces.is_empty() {
        return None;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.into()));
    }
    Some(pieces)
}

/// One rule and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) access: Access,
    pub(crate) filter: Template,
    /// Line of the file; 0 for what is built in.
    pub(crate) line: usize,
}

impl Rule {
    /// Whether it speaks of `topic`, a filter when the action is to subscribe: one that allows does
    /// when some topic could match both, one that denies when it matches all that the filter does.
    pub(crate) fn speaks_of(&self, action: Action, topic: &str, names: &Names<'_>) -> bool {
        match (action, self.access) {
            (Action::Subscribe, Access::Deny) => self.filter.covers(topic, names),
            (Action::Subscribe, _) => self.filter.overlaps(topic, names),
            (Action::Read | Action::Write, _) => self.filter.matches(topic, names),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use thinglog_schemas::topic::{matches, overlap, valid_filter};

    fn names<'a>(user: &'a str, client: &'a str) -> Names<'a> {
        Names::new(Some(user), Some(client))
    }

    #[test]
    fn placeholders_stand_for_names_anywhere_in_a_level() {
        let rule = Template::pattern("a/x-%u-%c/%c/#");
        let me = names("lamp", "lamp-1");
        assert!(rule.matches("a/x-lamp-lamp-1/lamp-1/z", &me));
        assert!(!rule.matches("a/x-lamp-lamp-2/lamp-1/z", &me));
        assert!(!rule.matches("a/x-lamp-lamp-1y/lamp-1", &me));
    }

    #[test]
    fn a_rule_that_names_what_is_unknown_or_harmful_does_not_apply() {
        let rule = Template::pattern("%u/#");
        for bad in ["", "a/b", "+", "#", "a+", "a#", "$SYS", "a\0"] {
            let me = Names::new(Some(bad), None);
            for topic in ["a/b", "a", "$SYS/x", bad] {
                assert!(!rule.matches(topic, &me), "{bad:?} {topic:?}");
                assert!(!rule.overlaps(topic, &me), "{bad:?} {topic:?}");
                assert!(!rule.covers(topic, &me), "{bad:?} {topic:?}");
            }
        }
        assert!(!Template::pattern("x/%c").matches("x/y", &Names::new(Some("y"), None)));
    }

    #[test]
    fn a_literal_filter_takes_percent_signs_as_they_are() {
        let rule = Template::literal("a/%u");
        assert!(rule.matches("a/%u", &names("x", "x")));
        assert!(!rule.matches("a/x", &names("x", "x")));
    }

    #[test]
    fn covering_is_for_whole_filters() {
        let me = Names::default();
        for (rule, filter, covers) in [
            ("a/#", "a/#", true),
            ("a/#", "a", true),
            ("a/#", "a/+/c", true),
            ("a/+", "a/+", true),
            ("a/+", "a/#", false),
            ("a/+", "a/b", true),
            ("a/b", "a/+", false),
            ("#", "#", true),
            ("#", "+/x", true),
            ("#", "$SYS/#", false),
            ("$SYS/#", "#", false),
            ("+", "#", false),
        ] {
            assert_eq!(
                Template::literal(rule).covers(filter, &me),
                covers,
                "{rule} {filter}"
            );
        }
    }

    fn level() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("a".to_owned()),
            Just("b".to_owned()),
            Just(String::new()),
            Just("$x".to_owned())
        ]
    }

    fn filter() -> impl Strategy<Value = String> {
        let wild = prop_oneof![3 => level(), 1 => Just("+".to_owned())];
        (proptest::collection::vec(wild, 1..4), any::<bool>()).prop_map(|(levels, hash)| {
            let joined = levels.join("/");
            if hash { joined + "/#" } else { joined }
        })
    }

    proptest! {
        #[test]
        fn a_literal_template_is_the_filter(rule in filter(), other in filter(), topic in proptest::collection::vec(level(), 1..5)) {
            let topic = topic.join("/");
            let template = Template::literal(&rule);
            let me = Names::default();
            prop_assert_eq!(template.matches(&topic, &me), matches(&rule, &topic));
            prop_assert_eq!(template.overlaps(&other, &me), overlap(&rule, &other));
            if template.covers(&other, &me) && matches(&other, &topic) {
                prop_assert!(template.matches(&topic, &me), "{} covers {} but not {}", rule, other, topic);
            }
        }

        #[test]
        fn names_never_widen_a_pattern(user in ".{0,12}", client in ".{0,12}", topic in proptest::collection::vec(level(), 1..5)) {
            // What a pattern matches with names filled in is what the filled-in filter matches, and
            // that has as many levels and wildcards as the pattern.
            let topic = topic.join("/");
            let me = names(&user, &client);
            let filled = format!("a/{user}/x{client}");
            let rule = Template::pattern("a/%u/x%c");
            if rule.matches(&filled, &me) {
                prop_assert!(valid_filter(&filled));
                prop_assert_eq!(filled.split('/').count(), 3);
                prop_assert!(!filled.contains(['+', '#']));
            }
            if rule.matches(&topic, &me) {
                prop_assert_eq!(topic, filled);
            }
        }
    }
}
