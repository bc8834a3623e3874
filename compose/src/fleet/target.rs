//! Whose level: `default`, `group:eu`, `device:lamp-7`, `source:nginx`, `principal:press-4`,
//! `ip:192.0.2.7`.

use std::{fmt, net::IpAddr, str::FromStr};

use thinglog_schemas::name;

use crate::config::nearest;

/// What kinds of targets there are: as typed, and as the API spells them.
const KINDS: [(&str, &str); 6] = [
    ("default", "default"),
    ("group", "group"),
    ("device", "device"),
    ("source", "source"),
    ("principal", "principal"),
    ("ip", "source-ip"),
];

/// A target of a level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// An index of [`KINDS`].
    kind: usize,
    /// As it stands in topics; empty for the default.
    name: String,
}

impl Target {
    /// The target of a kind as the API spells it, and a name.
    pub(crate) fn of_api(kind: &str, name: &str) -> Option<Target> {
        let kind = KINDS.iter().position(|(_, api)| *api == kind)?;
        let name = name.to_owned();
        Some(Target { kind, name })
    }

    /// Kind and name as parts of a path of the API.
    pub(crate) fn path(&self) -> Vec<&str> {
        match self.kind {
            0 => vec!["default"],
            kind => vec![KINDS[kind].1, &self.name],
        }
    }

    /// Whether it may have a temporary level.
    pub(crate) fn can_be_temporary(&self) -> bool {
        matches!(KINDS[self.kind].0, "default" | "group" | "device")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            0 => f.write_str("default"),
            kind => write!(f, "{}:{}", KINDS[kind].0, self.name),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        let Some((kind, name)) = text.split_once(':') else {
            return match text {
                "default" => Ok(Target {
                    kind: 0,
                    name: String::new(),
                }),
                _ => Err(without_kind(text)),
            };
        };
        let typed = |known: &&(&str, &str)| known.0 == kind || known.1 == kind;
        let at = KINDS.iter().position(|known| typed(&known));
        match at.map(|at| (at, KINDS[at].0)) {
            None => Err(unknown_kind(kind, name)),
            Some((_, "default")) => Err("the default has no name; write just `default`".into()),
            Some((at, word)) => Ok(Target {
                kind: at,
                name: checked(word, name)?,
            }),
        }
    }
}

/// A name as it stands in topics.
fn checked(kind: &str, given: &str) -> Result<String, String> {
    if given.is_empty() {
        return Err(format!("which {kind}? Write {kind}:NAME"));
    }
    match kind {
        "ip" => match given.parse::<IpAddr>() {
            Ok(ip) => Ok(ip.to_canonical().to_string()),
            Err(_) => Err(format!("{given:?} is no IP address")),
        },
        "group" if !name::is_valid(given) => Err(format!(
            "{given:?} is no name of a group: 1-128 characters of A-Z a-z 0-9 . _ : -"
        )),
        _ => Ok(name::encode(given).into_owned()),
    }
}

fn without_kind(text: &str) -> String {
    match nearest(text, &KINDS.map(|(word, _)| word)) {
        Some("default") => "no such target; did you mean `default`?".into(),
        Some(kind) => format!("no such target; write {kind}:NAME"),
        None if text.parse::<IpAddr>().is_ok() => format!("did you mean `ip:{text}`?"),
        None => format!(
            "a target says what it is; did you mean `device:{text}` or `group:{text}`? There are \
             default, group:NAME, device:NAME, source:NAME, principal:NAME and ip:ADDRESS"
        ),
    }
}

fn unknown_kind(kind: &str, name: &str) -> String {
    match nearest(kind, &KINDS.map(|(word, _)| word)) {
        Some(near) => format!("there is no kind {kind:?} of target; did you mean `{near}:{name}`?"),
        None => format!(
            "there is no kind {kind:?} of target; there are default, group:NAME, device:NAME, \
             source:NAME, principal:NAME and ip:ADDRESS"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_one_spelling_here_and_its_path_in_the_api() {
        for (text, path) in [
            ("default", &["default"][..]),
            ("group:eu", &["group", "eu"]),
            ("device:lamp-7", &["device", "lamp-7"]),
            ("device:a:b", &["device", "a:b"]),
            ("source:nginx", &["source", "nginx"]),
            ("principal:press-4", &["principal", "press-4"]),
            ("ip:192.0.2.7", &["source-ip", "192.0.2.7"]),
            ("ip:2001:db8::7", &["source-ip", "2001:db8::7"]),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.to_string().as_str(), &*target.path()), (text, path));
            if let [kind, name] = path {
                assert_eq!(Target::of_api(kind, name), Some(target));
            }
        }
        let typed: Target = "source-ip:::ffff:192.0.2.7".parse().unwrap();
        assert_eq!(typed.to_string(), "ip:192.0.2.7");
        let written: Target = "source:my app".parse().unwrap();
        assert_eq!(written.path(), ["source", "my%20app"]);
    }

    #[test]
    fn what_is_mistyped_is_refused_with_what_was_meant() {
        for (text, meant) in [
            ("defualt", "did you mean `default`?"),
            ("lamp-7", "did you mean `device:lamp-7` or `group:lamp-7`?"),
            ("group", "write group:NAME"),
            ("192.0.2.7", "did you mean `ip:192.0.2.7`?"),
            ("gruop:eu", "did you mean `group:eu`?"),
            ("thing:eu", "there are default, group:NAME"),
            ("group:", "Write group:NAME"),
            ("default:x", "just `default`"),
            ("ip:lamp", "no IP address"),
            ("group:a/b", "1-128 characters"),
        ] {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.contains(meant), "{text}: {error}");
        }
    }

    #[test]
    fn temporary_levels_are_for_the_default_groups_and_devices() {
        for (text, can) in [
            ("default", true),
            ("group:eu", true),
            ("device:lamp-7", true),
            ("source:nginx", false),
            ("principal:press-4", false),
            ("ip:192.0.2.7", false),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().can_be_temporary(), can);
        }
    }
}
