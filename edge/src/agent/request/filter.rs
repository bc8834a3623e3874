//! Which events of the past a request asks for. Pure.

use serde_json::Value;
use thinglog_schemas::{
    Level,
    request::{Moment, Request},
};

use crate::agent::history::{Past, Span};

/// The conditions of one request.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    span: Span,
    text: Option<Text>,
    level: Level,
}

impl Filter {
    /// Of a request that arrived at `now` (ns since the Unix epoch).
    pub(super) fn new(request: &Request, now: u64) -> Filter {
        let moment = |text: &Option<String>| {
            let moment = text.as_deref().and_then(Moment::parse);
            moment.map(|moment| moment.at(now))
        };
        Filter {
            span: Span {
                from: moment(&request.from).unwrap_or(0),
                // What happens from here on is not of the past.
                to: moment(&request.to).unwrap_or(now).min(now),
                sources: request.sources.clone(),
            },
            text: request.text.as_deref().map(Text::new),
            level: request.level.unwrap_or(Level::Debug),
        }
    }

    /// What to ask histories for.
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    pub(super) fn matches(&self, past: &Past) -> bool {
        let record = &past.record;
        let time = record.time.unwrap_or(self.span.to);
        (self.span.from..=self.span.to).contains(&time)
            && self.level.passes(record.severity)
            && self.span.wants(&record.source)
            && self.text.as_ref().is_none_or(|text| {
                text.is_in(&record.message)
                    || record.attributes.values().any(|v| text.is_in_value(v))
            })
    }
}

/// Text to look for; capital letters count only if it has any.
#[derive(Clone, Debug)]
struct Text {
    text: String,
    any_case: bool,
}

impl Text {
    fn new(text: &str) -> Text {
        Text {
            any_case: !text.chars().any(char::is_uppercase),
            text: text.to_owned(),
        }
    }

    fn is_in(&self, text: &str) -> bool {
        text.contains(&self.text) || (self.any_case && text.to_lowercase().contains(&self.text))
    }

    fn is_in_value(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.is_in(text),
            other => self.is_in(&other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use thinglog_schemas::Severity;

    use super::*;
    use crate::Record;

    const HOUR: u64 = 3_600_000_000_000;

    fn filter(json: &str) -> Filter {
        Filter::new(&Request::parse(json.as_bytes()).unwrap(), 10 * HOUR)
    }

    fn past(severity: Severity, hours: u64, message: &str) -> Past {
        Past {
            record: Record::new("my app", severity, message)
                .at(hours * HOUR)
                .with("status", 502)
                .with("path", "/Login"),
            estimated: false,
        }
    }

    #[test]
    fn a_request_without_conditions_takes_all_until_now() {
        let filter = filter(r#"{"id":"r"}"#);
        assert!(filter.matches(&past(Severity::TRACE, 0, "m")));
        assert!(filter.matches(&past(Severity::TRACE, 10, "m")));
        assert!(!filter.matches(&past(Severity::TRACE, 11, "m")));
    }

    #[test]
    fn both_ends_of_the_time_count() {
        let filter = filter(r#"{"id":"r","from":"-3h","to":"-1h"}"#);
        let taken = |hours| filter.matches(&past(Severity::INFO, hours, "m"));
        assert_eq!(
            [6, 7, 8, 9, 10].map(taken),
            [false, true, true, true, false]
        );
    }

    #[test]
    fn a_level_means_it_and_what_is_worse() {
        let filter = filter(r#"{"id":"r","level":"WARN"}"#);
        let taken = |severity| filter.matches(&past(severity, 1, "m"));
        assert!(!taken(Severity::INFO) && taken(Severity::WARN) && taken(Severity::ERROR));
    }

    #[test]
    fn text_is_looked_for_in_message_and_attributes() {
        for (text, found) in [
            ("upstream", true),
            ("UPSTREAM", false),
            ("Upstream", true),
            ("502", true),
            ("login", true),
            ("Login", true),
            ("LOGIN", false),
            ("timeout", false),
        ] {
            let filter = filter(&format!(r#"{{"id":"r","text":"{text}"}}"#));
            let past = past(Severity::INFO, 1, "Upstream is down");
            assert_eq!(filter.matches(&past), found, "{text}");
        }
    }

    #[test]
    fn sources_are_named_as_in_topics() {
        let taken = |source: &str| {
            let filter = filter(&format!(r#"{{"id":"r","sources":["{source}"]}}"#));
            filter.matches(&past(Severity::INFO, 1, "m"))
        };
        assert!(taken("my%20app"));
        assert!(!taken("app"));
    }
}
