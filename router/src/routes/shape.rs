//! What a route makes of an event: attributes taken away, then set, then what is secret made unreadable.
//! Every template sees the event as it came, and the last word is the redaction's, so that nothing
//! comes back by way of a template.

use regex::{Regex, RegexBuilder};
use serde_json::Value;
use thinglog_schemas::Event;
use thinglog_schemas::query::Facts;

use super::template::Template;
use crate::config::{ConfigError, RedactConfig, RouteConfig};

/// Stands for what was taken out, unless configured otherwise.
const REPLACEMENT: &str = "[redacted]";
/// What one compiled pattern may take, bytes.
const MAX_PATTERN: usize = 1 << 20;

/// What becomes of events.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    remove: Vec<String>,
    set: Vec<(Target, Template)>,
    patterns: Vec<(Regex, String)>,
    attributes: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Message,
    Attribute(String),
}

impl Shape {
    /// The shape that is configured, if any; an error names its key.
    pub(crate) fn new(config: &RouteConfig) -> Result<Option<Shape>, ConfigError> {
        let mut shape = Shape {
            remove: config.remove.iter().map(|name| attribute(name)).collect(),
            set: Vec::new(),
            patterns: Vec::new(),
            attributes: Vec::new(),
        };
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
            shape.set.push((target, template));
        }
        for (at, entry) in config.redact.iter().enumerate() {
            shape
                .redact(entry)
                .map_err(|reason| ConfigError::new(format!("redact[{at}]"), reason))?;
        }
        let is_something = !shape.remove.is_empty()
            || !shape.set.is_empty()
            || !shape.patterns.is_empty()
            || !shape.attributes.is_empty();
        Ok(is_something.then_some(shape))
    }

    fn redact(&mut self, entry: &RedactConfig) -> Result<(), String> {
        let replace = entry.replace.as_deref().unwrap_or(REPLACEMENT).to_owned();
        match (&entry.pattern, &entry.attribute) {
            (Some(pattern), None) => self.patterns.push((compile(pattern)?, replace)),
            (None, Some(name)) => self.attributes.push((attribute(name), replace)),
            _ => return Err("needs either `pattern` or `attribute`".to_owned()),
        }
        Ok(())
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
        if !self.patterns.is_empty() || !self.attributes.is_empty() {
            self.hide_in_text(&mut made.message);
            for (name, value) in &mut made.attributes {
                self.hide_entry(name, value);
            }
        }
        made
    }

    fn hide_entry(&self, name: &str, value: &mut Value) {
        match self.attributes.iter().find(|(secret, _)| secret == name) {
            Some((_, replace)) => *value = Value::String(replace.clone()),
            None => self.hide(value),
        }
    }

    fn hide(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.hide_in_text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.hide(item)),
            Value::Object(map) => map
                .iter_mut()
                .for_each(|(name, value)| self.hide_entry(name, value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn hide_in_text(&self, text: &mut String) {
        for (pattern, replace) in &self.patterns {
            if let std::borrow::Cow::Owned(replaced) = pattern.replace_all(text, replace) {
                *text = replaced;
            }
        }
    }
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

fn compile(pattern: &str) -> Result<Regex, String> {
    let compiled = RegexBuilder::new(pattern).size_limit(MAX_PATTERN).build();
    let compiled = compiled.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "the pattern is too large".to_owned(),
        error => error.to_string().trim().replace('\n', " "),
    })?;
    if compiled.is_match("") {
        return Err("the pattern matches the empty text, and so everywhere".to_owned());
    }
    Ok(compiled)
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
