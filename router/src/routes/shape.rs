//! What a route makes of an event: attributes taken away, then set, then what is secret made unreadable.
//! Every template sees the event as it came, and the last word is the redaction's, so that nothing
//! comes back by way of a template.

use serde_json::Value;
use thinglog_schemas::Event;
use thinglog_schemas::query::Facts;
use thinglog_schemas::redact::{RedactOptions, Redactor};

use super::template::Template;
use crate::config::{ConfigError, RouteConfig};

/// What becomes of events.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    remove: Vec<String>,
    set: Vec<(Target, Template)>,
    redactor: Redactor,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Message,
    Attribute(String),
}

impl Shape {
    /// The shape that is configured, if any; an error names its key.
    pub(crate) fn new(config: &RouteConfig) -> Result<Option<Shape>, ConfigError> {
        let mut set = Vec::new();
        for (name, template) in &config.set {
            let template = Template::parse_with_device(template)
                .map_err(|reason| ConfigError::new(format!("set.{name}"), reason))?;
            let target = match name.as_str() {
                "message" => Target::Message,
                "device" | "source" | "id" | "time" | "received" | "level" | "severity" => {
                    let reason = format!(
                        "who logged what when stays as it is; an attribute of that name is \
                         attributes.{name}"
                    );
                    return Err(ConfigError::new(format!("set.{name}"), reason));
                }
                name => Target::Attribute(attribute(name)),
            };
            set.push((target, template));
        }
        let shape = Shape {
            remove: config.remove.iter().map(|name| attribute(name)).collect(),
            set,
            redactor: redactor(&config.redact)?,
        };
        let is_something =
            !shape.remove.is_empty() || !shape.set.is_empty() || !shape.redactor.is_empty();
        Ok(is_something.then_some(shape))
    }

    /// Whether a template has a place for something of the device.
    pub(crate) fn asks_for_facts(&self) -> bool {
        self.set
            .iter()
            .any(|(_, template)| template.asks_for_facts())
    }

    /// The event as it goes on.
    pub(crate) fn apply(&self, event: &Event, facts: &Facts) -> Event {
        let mut made = event.clone();
        for name in &self.remove {
            made.attributes.remove(name);
        }
        for (target, template) in &self.set {
            match (target, template.value(event, facts)) {
                (Target::Message, value) => made.message = text_of(value),
                (Target::Attribute(name), Value::Null) => drop(made.attributes.remove(name)),
                (Target::Attribute(name), value) => {
                    made.attributes.insert(name.clone(), value);
                }
            }
        }
        self.redactor.apply(&mut made.message, &mut made.attributes);
        made
    }
}

fn redactor(entries: &[RedactOptions]) -> Result<Redactor, ConfigError> {
    let named = entries.iter().map(|entry| RedactOptions {
        attribute: entry.attribute.as_deref().map(attribute),
        ..entry.clone()
    });
    Redactor::new(&named.collect::<Vec<_>>())
        .map_err(|(at, reason)| ConfigError::new(format!("redact[{at}]"), reason))
}

/// The name of an attribute, with `attributes.` before it or not.
fn attribute(name: &str) -> String {
    name.strip_prefix("attributes.").unwrap_or(name).to_owned()
}

fn text_of(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::decoded;

    fn shaped(config: &str) -> Event {
        let config: RouteConfig = serde_json::from_str(config).unwrap();
        let mut event = decoded("login of ann with password=hunter2")
            .events
            .remove(0);
        let attributes = json!({"user": "ann", "tokens": {"token": "t0", "n": 1}, "old": 5});
        event.attributes = attributes.as_object().unwrap().clone();
        let facts = Facts {
            attributes: [("model".to_owned(), "x1".to_owned())].into(),
            groups: vec!["eu".into(), "world".into()],
            ..Facts::default()
        };
        let shape = Shape::new(&config).unwrap().unwrap();
        shape.apply(&event, &facts)
    }

    #[test]
    fn attributes_are_renamed_and_enriched() {
        let event = shaped(
            r#"{"remove": ["old"], "set": {"new": "{{attributes.old}}", "model": "{{device.model}}",
                "groups": "{{groups}}", "user": "{{none.such}}", "attributes.line": "{{source}}: {{message}}"}}"#
                .replace("{{none.such}}", "{{attributes.missing}}")
                .as_str(),
        );
        let expected = json!({
            "tokens": {"token": "t0", "n": 1}, "new": 5, "model": "x1", "groups": ["eu", "world"],
            "line": "app: login of ann with password=hunter2"
        });
        assert_eq!(Value::Object(event.attributes), expected);
    }

    #[test]
    fn nothing_secret_comes_back_by_way_of_a_template() {
        let event = shaped(
            r#"{"set": {"copy": "{{message}}", "who": "{{attributes.user}}"},
                "redact": [{"pattern": "(password=)\\S+", "replace": "${1}***"}, {"attribute": "token"},
                           {"attribute": "attributes.who"}]}"#,
        );
        assert_eq!(event.message, "login of ann with password=***");
        assert_eq!(event.attributes["copy"], "login of ann with password=***");
        assert_eq!(event.attributes["who"], "[redacted]");
        assert_eq!(
            event.attributes["tokens"],
            json!({"token": "[redacted]", "n": 1})
        );
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        for (config, key) in [
            (r#"{"set": {"a": "{{devise}}"}}"#, "set.a"),
            (r#"{"set": {"device": "x"}}"#, "set.device"),
            (
                r#"{"redact": [{"attribute": "a"}, {"pattern": "("}]}"#,
                "redact[1]",
            ),
            (r#"{"redact": [{"pattern": "x*"}]}"#, "redact[0]"),
            (r#"{"redact": [{}]}"#, "redact[0]"),
        ] {
            let config: RouteConfig = serde_json::from_str(config).unwrap();
            assert_eq!(Shape::new(&config).unwrap_err().key, key);
        }
    }
}
