//! Which containers are carried. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::agent::pattern::like;

/// A pattern of containers: a name with `*` for anything (`web-*`), or `label:KEY`, `label:KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum ContainerPattern {
    /// Its name, without the slash.
    Name(String),
    /// A label it has, perhaps with this value.
    Label(String, Option<String>),
}

impl From<String> for ContainerPattern {
    fn from(text: String) -> ContainerPattern {
        let Some(label) = text.strip_prefix("label:") else {
            return ContainerPattern::Name(text);
        };
        match label.split_once('=') {
            Some((key, value)) => ContainerPattern::Label(key.into(), Some(value.into())),
            None => ContainerPattern::Label(label.into(), None),
        }
    }
}

impl ContainerPattern {
    /// Whether a container is meant.
    pub(super) fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        match self {
            ContainerPattern::Name(pattern) => like(pattern, name),
            ContainerPattern::Label(key, value) => {
                let found = labels.get(key);
                found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        ContainerPattern::from(pattern.to_owned()).matches(name, &labels)
    }

    #[test]
    fn names_may_have_stars() {
        for (pattern, name) in [
            ("web", "web"),
            ("*", ""),
            ("web-*", "web-"),
            ("*-web", "my-web"),
            ("a*b*c", "a-b-b-c"),
            ("*b*", "abc"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("web", "web-1"),
            ("web-*", "web"),
            ("a*b*c", "acb"),
            ("a*a", "a"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn labels_are_had_or_have_a_value() {
        assert!(matches("label:app", "x"));
        assert!(matches("label:app=web", "x"));
        assert!(!matches("label:app=db", "x"));
        assert!(!matches("label:other", "x"));
    }
}
