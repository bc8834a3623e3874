//! Filters as the broker asks them: does a topic match, may it be durable, must it be.

use std::sync::Arc;

use thinglog_schemas::topic::{matches, overlap};

/// A filter in the form that is quickest to test.
#[derive(Debug)]
pub(crate) enum Matcher {
    /// `a/b/#` without other wildcards: the text before `#`.
    Below(String),
    General(String),
}

impl Matcher {
    pub(crate) fn new(filter: &str) -> Matcher {
        match filter.strip_suffix('#') {
            Some(prefix) if !prefix.is_empty() && !prefix.contains('+') => {
                Matcher::Below(prefix.into())
            }
            _ => Matcher::General(filter.into()),
        }
    }

    pub(crate) fn matches(&self, topic: &str) -> bool {
        match self {
            Matcher::Below(prefix) => {
                topic.starts_with(prefix.as_str()) || prefix.strip_suffix('/') == Some(topic)
            }
            Matcher::General(filter) => matches(filter, topic),
        }
    }
}

/// Whether some topic could match both the filter and a durable one.
pub(crate) fn may_be_durable(filter: &str, durable: &[String]) -> bool {
    durable.iter().any(|other| overlap(filter, other))
}

/// Whether all topics that match the filter are durable.
pub(crate) fn is_all_durable(filter: &str, durable: &[String]) -> bool {
    durable.iter().any(|other| covers(other, filter))
}

/// Whether `filter` matches nothing that `wide` does not.
fn covers(wide: &str, filter: &str) -> bool {
    let (mut wide, mut narrow) = (wide.split('/'), filter.split('/'));
    loop {
        match (wide.next(), narrow.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(left), Some(right)) if left == right => {}
            _ => return false,
        }
    }
}

/// Whether a topic is durable, by the compiled filters.
#[derive(Debug, Clone)]
pub(crate) struct DurableTopics(Arc<[Matcher]>);

impl DurableTopics {
    pub(crate) fn new(filters: &[String]) -> DurableTopics {
        DurableTopics(filters.iter().map(|filter| Matcher::new(filter)).collect())
    }

    pub(crate) fn contains(&self, topic: &str) -> bool {
        self.0.iter().any(|filter| filter.matches(topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matcher_agrees_with_the_filter_rules() {
        for filter in ["a/#", "a/+/#", "#", "a/b", "+/b"] {
            let matcher = Matcher::new(filter);
            for topic in ["a", "a/b", "ab", "ab/c", "a/b/c", "b", "$SYS/b"] {
                assert_eq!(
                    matcher.matches(topic),
                    matches(filter, topic),
                    "{filter} {topic}"
                );
            }
        }
    }

    #[test]
    fn a_filter_is_all_durable_only_when_nothing_else_matches_it() {
        let durable = ["t/logs/#".to_owned(), "t/out/+/x".to_owned()];
        for filter in ["t/logs/#", "t/logs", "t/logs/+/y", "t/out/+/x", "t/out/a/x"] {
            assert!(is_all_durable(filter, &durable), "{filter}");
        }
        for filter in ["#", "+/logs/#", "t/+", "t/#", "t/out/#", "t/out/+/+", "+/+"] {
            assert!(!is_all_durable(filter, &durable), "{filter}");
        }
    }
}
