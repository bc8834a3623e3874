//! What nobody is to read: patterns in messages and attributes, and attributes by name. A device applies
//! it before an event is queued, so that nothing of it reaches memory that is kept, or a disk; a
//! route before an event is delivered.

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Attributes;

/// Stands for what was taken out, unless configured otherwise.
const REPLACEMENT: &str = "[redacted]";
/// What one compiled pattern may take, bytes.
const MAX_PATTERN: usize = 1 << 20;

/// One entry of `redact`: a `pattern` or an `attribute`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedactOptions {
    /// A regular expression; what it matches in messages and in texts of attributes is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The value of this attribute is replaced as a whole, at whatever depth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribute: Option<String>,
    /// What stands there instead; `$1` and `${name}` are groups of the pattern. Default
    /// `[redacted]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replace: Option<String>,
}

/// All entries, ready to use.
#[derive(Clone, Debug, Default)]
pub struct Redactor {
    patterns: Vec<(Regex, String)>,
    attributes: Vec<(String, String)>,
}

impl Redactor {
    /// Else which entry cannot be used, counted from 0, and why.
    pub fn new(entries: &[RedactOptions]) -> Result<Redactor, (usize, String)> {
        let mut redactor = Redactor::default();
        for (at, entry) in entries.iter().enumerate() {
            let replace = entry.replace.as_deref().unwrap_or(REPLACEMENT).to_owned();
            match (&entry.pattern, &entry.attribute) {
                (Some(pattern), None) => {
                    let pattern = compile(pattern).map_err(|reason| (at, reason))?;
                    redactor.patterns.push((pattern, replace));
                }
                (None, Some(attribute)) => {
                    redactor.attributes.push((attribute.clone(), replace));
                }
                _ => return Err((at, "needs either `pattern` or `attribute`".to_owned())),
            }
        }
        Ok(redactor)
    }

    /// Whether there is nothing to hide.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty() && self.attributes.is_empty()
    }

    /// Makes a message and its attributes unreadable where they are to be.
    pub fn apply(&self, message: &mut String, attributes: &mut Attributes) {
        if self.is_empty() {
            return;
        }
        self.text(message);
        for (key, value) in attributes {
            self.entry(key, value);
        }
    }

    fn entry(&self, key: &str, value: &mut Value) {
        match self.attributes.iter().find(|(name, _)| name == key) {
            Some((_, replace)) => *value = Value::String(replace.clone()),
            None => self.value(value),
        }
    }

    fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(map) => map
                .iter_mut()
                .for_each(|(key, value)| self.entry(key, value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn text(&self, text: &mut String) {
        for (pattern, replace) in &self.patterns {
            if let std::borrow::Cow::Owned(replaced) = pattern.replace_all(text, replace) {
                *text = replaced;
            }
        }
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

    struct Record {
        message: String,
        attributes: Attributes,
    }

    impl Record {
        fn new(message: &str) -> Record {
            Record {
                message: message.to_owned(),
                attributes: Attributes::new(),
            }
        }

        fn with(mut self, key: &str, value: impl Into<Value>) -> Record {
            self.attributes.insert(key.to_owned(), value.into());
            self
        }
    }

    fn redactor(entries: Value) -> Redactor {
        let entries: Vec<RedactOptions> = serde_json::from_value(entries).unwrap();
        Redactor::new(&entries).unwrap()
    }

    fn redacted(entries: Value, record: Record) -> Record {
        let mut record = record;
        redactor(entries).apply(&mut record.message, &mut record.attributes);
        record
    }

    #[test]
    fn a_pattern_is_replaced_wherever_text_stands() {
        let record = Record::new("login token=abc123 and token=def")
            .with("url", "/?token=ghi")
            .with("deep", json!({"list": ["token=jkl", 7]}));
        let entries = json!([{"pattern": r"token=\w+", "replace": "token=…"}]);
        let record = redacted(entries, record);
        assert_eq!(record.message, "login token=… and token=…");
        assert_eq!(record.attributes["url"], "/?token=…");
        assert_eq!(record.attributes["deep"], json!({"list": ["token=…", 7]}));
    }

    #[test]
    fn an_attribute_is_replaced_by_its_name_at_any_depth() {
        let record = Record::new("m")
            .with("password", 1234)
            .with("user", json!({"name": "eve", "password": "secret"}));
        let record = redacted(json!([{"attribute": "password"}]), record);
        assert_eq!(record.attributes["password"], "[redacted]");
        let user = json!({"name": "eve", "password": "[redacted]"});
        assert_eq!(record.attributes["user"], user);
    }

    #[test]
    fn groups_can_stay() {
        let entries = json!([{"pattern": r"(\d{4})-\d{4}-\d{4}-(\d{4})", "replace": "$1-…-$2"}]);
        let record = Record::new("card 1234-5678-9012-3456");
        assert_eq!(redacted(entries, record).message, "card 1234-…-3456");
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_place() {
        let cases = [
            (
                json!([{"pattern": "a"}, {"pattern": "("}]),
                1,
                "unclosed group",
            ),
            (json!([{"pattern": "a*"}]), 0, "empty"),
            (json!([{"replace": "x"}]), 0, "either"),
            (json!([{"pattern": "a", "attribute": "b"}]), 0, "either"),
            (json!([{"pattern": "((a{99}){99}){99}"}]), 0, "too large"),
        ];
        for (entries, place, reason) in cases {
            let parsed: Vec<RedactOptions> = serde_json::from_value(entries.clone()).unwrap();
            let (at, why) = Redactor::new(&parsed).unwrap_err();
            assert_eq!(at, place, "{entries}");
            assert!(why.contains(reason), "{entries}: {why}");
        }
    }
}
