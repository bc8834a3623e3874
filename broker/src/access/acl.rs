//! The ACL file, in mosquitto's syntax:
//!
//! ```text
//! # What stands before the first `user` holds for clients without a name.
//! topic read weather/#
//!
//! user alice
//! topic readwrite home/alice/#
//! topic deny home/alice/safe/#
//!
//! # Patterns hold for everybody; %u is the user's name, %c the client id.
//! pattern write sensors/%u/#
//! ```
//!
//! Without an access a rule means readwrite. `deny` wins over every other rule, wherever it stands,
//! and over what a role allows. A rule of a user whose name (or client id) holds `/`, `+` or `#`, or
//! begins with `$`, does not apply where it names it. `%c` applies only to a client id that is the
//! user's own name: any other could be anybody's.

use std::{collections::HashMap, path::Path, sync::Arc};

use thinglog_schemas::topic::valid_filter;

use super::{
    file::{self, FileError},
    rules::{Access, Rule, Template},
};

/// The rules of an ACL file.
#[derive(Debug, Default)]
pub(crate) struct Acl {
    /// For clients without a name.
    pub(crate) anonymous: Arc<[Rule]>,
    users: HashMap<String, Arc<[Rule]>>,
    /// For everybody.
    pub(crate) patterns: Vec<Rule>,
}

impl Acl {
    /// Reads a file's text; `path` is for complaints.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Acl, FileError> {
        let mut users: HashMap<Option<String>, Vec<Rule>> = HashMap::new();
        let mut patterns = Vec::new();
        let mut user = None;
        for (number, line) in file::lines(text) {
            let wrong = |reason: String| FileError::at(path, number, reason);
            let (word, rest) = split(line);
            match word {
                "user" if rest.is_empty() => {
                    return Err(wrong("names no user; write: user NAME".into()));
                }
                "user" => user = Some(rest.to_owned()),
                "topic" => {
                    let rule = rule(word, rest, number).map_err(wrong)?;
                    users.entry(user.clone()).or_default().push(rule);
                }
                "pattern" => patterns.push(rule(word, rest, number).map_err(wrong)?),
                _ => {
                    return Err(wrong(format!(
                        "{word:?} begins no rule; write: user NAME, topic ACCESS FILTER or pattern ACCESS FILTER"
                    )));
                }
            }
        }
        let mut acl = Acl {
            patterns,
            ..Acl::default()
        };
        for (user, rules) in users {
            match user {
                Some(user) => drop(acl.users.insert(user, rules.into())),
                None => acl.anonymous = rules.into(),
            }
        }
        Ok(acl)
    }

    /// The rules that stand below a user's name.
    pub(crate) fn of_user(&self, user: &str) -> Arc<[Rule]> {
        self.users.get(user).cloned().unwrap_or_default()
    }
}

/// The first word of a line and what follows it.
fn split(line: &str) -> (&str, &str) {
    match line.split_once([' ', '\t']) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (line, ""),
    }
}

/// What follows `topic` or `pattern`: an access, if any, and a filter, which may hold spaces.
fn rule(word: &str, rest: &str, line: usize) -> Result<Rule, String> {
    let access = |word: &str| match word {
        "read" => Some(Access::Read),
        "write" => Some(Access::Write),
        "readwrite" => Some(Access::ReadWrite),
        "deny" => Some(Access::Deny),
        _ => None,
    };
    let (first, after) = split(rest);
    let (access, filter) = match access(first) {
        Some(access) => (access, after),
        None => (Access::ReadWrite, rest),
    };
    if filter.is_empty() {
        return Err(format!(
            "names no topic; write: {word} read|write|readwrite|deny FILTER"
        ));
    }
    if !valid_filter(filter) {
        return Err(format!(
            "{:?} is no topic filter: + and # stand alone in their level, and # is the last one",
            filter.chars().take(200).collect::<String>()
        ));
    }
    let filter = match word {
        "pattern" => Template::pattern(filter),
        _ => Template::literal(filter),
    };
    Ok(Rule {
        access,
        filter,
        line,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Acl, FileError> {
        Acl::parse(Path::new("acl"), text)
    }

    #[test]
    fn rules_belong_to_the_user_above_them_and_patterns_to_everybody() {
        let acl = parse(
            "topic read a\n\n# words\nuser alice smith\r\ntopic write b c\n  topic d\npattern deny %u/#\nuser bob\ntopic deny e\nuser alice smith\ntopic read f\n",
        )
        .unwrap();
        let shown = |rules: &[Rule]| {
            let shown = |rule: &Rule| {
                format!(
                    "{}:{} {}",
                    rule.line,
                    rule.access.word(),
                    rule.filter.text()
                )
            };
            rules.iter().map(shown).collect::<Vec<_>>()
        };
        assert_eq!(shown(&acl.anonymous), ["1:read a"]);
        assert_eq!(
            shown(&acl.of_user("alice smith")),
            ["5:write b c", "6:readwrite d", "11:read f"]
        );
        assert_eq!(shown(&acl.of_user("bob")), ["9:deny e"]);
        assert_eq!(shown(&acl.patterns), ["7:deny %u/#"]);
        assert!(acl.of_user("carol").is_empty());
    }

    #[test]
    fn a_bad_line_is_named_with_what_would_be_right() {
        for (text, said) in [
            ("user\n", "acl:1: names no user; write: user NAME"),
            ("\ntopic\n", "acl:2: names no topic"),
            ("topic deny", "acl:1: names no topic"),
            ("topic read a/#/b", "is no topic filter"),
            ("pattern %u#", "is no topic filter"),
            ("allow a", "\"allow\" begins no rule"),
            ("use\u{301}r x", "begins no rule"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(user|topic|pattern|deny|read|[ \\t\\n%ucab/+#$]|.){0,60}") {
            let _ = parse(&text);
        }
    }
}
