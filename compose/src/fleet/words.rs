//! Words of the command line: levels, sources with levels, settings, times. Each is checked while
//! it is read, so that a mistake is wrong usage and nothing is sent.

use serde_json::{Map, Value, json};
use thinglog_schemas::{Level, config::ENV_KEYS, json::parse_time, name, units};

use crate::config::nearest;

const LEVELS: [&str; 5] = ["DISABLED", "ERROR", "WARN", "INFO", "DEBUG"];

/// A level or a setting.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Word {
    /// How much passes.
    Level(Level),
    /// A setting of devices.
    Setting(Setting),
}

/// The level of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceLevel {
    /// As it stands in topics.
    pub(crate) source: String,
    pub(crate) level: Level,
}

/// `KEY=VALUE`; an empty value takes the key away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// A setting of devices, under one of its two names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Setting {
    key: Key,
    value: Value,
}

/// The name of a setting: `THINGLOG_UPLOAD_MODE`, or the field it is in documents, `upload.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// The variable, if it was called so.
    variable: Option<&'static str>,
    /// Dotted.
    field: &'static str,
}

pub(crate) fn word(text: &str) -> Result<Word, String> {
    match text.split_once('=') {
        None => level(text).map(Word::Level),
        Some((key, value)) => setting(key, value).map(Word::Setting),
    }
}

fn level(text: &str) -> Result<Level, String> {
    text.parse().map_err(|_| {
        let near = nearest(&text.to_ascii_uppercase(), &LEVELS);
        match near {
            Some(near) => format!("there is no level {text:?}; did you mean {near}?"),
            None => format!(
                "there is no level {text:?}; there are {}",
                LEVELS.join(", ")
            ),
        }
    })
}

pub(crate) fn source_level(text: &str) -> Result<SourceLevel, String> {
    let Some((source, word)) = text.rsplit_once('=') else {
        return Err("write NAME=LEVEL, as nginx=WARN".into());
    };
    Ok(SourceLevel {
        source: name::encode(source).into_owned(),
        level: level(word)?,
    })
}

pub(crate) fn assignment(text: &str) -> Result<Assignment, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok(Assignment {
            key: key.to_owned(),
            value: value.to_owned(),
        }),
        _ => Err("write KEY=VALUE, as room=attic; KEY= takes it away".into()),
    }
}

/// Attributes as a change of them: an empty value removes one.
pub(crate) fn attributes(assignments: &[Assignment]) -> Value {
    let value = |assignment: &Assignment| match assignment.value.as_str() {
        "" => Value::Null,
        value => json!(value),
    };
    let pairs = assignments.iter();
    let pairs = pairs.map(|assignment| (assignment.key.clone(), value(assignment)));
    Value::Object(pairs.collect())
}

/// A span of time in whole seconds.
pub(crate) fn span(text: &str) -> Result<u64, String> {
    match units::millis(text) {
        Ok(millis) if millis >= 1000 && millis.is_multiple_of(1000) => Ok(millis / 1000),
        Ok(_) => Err("expected whole seconds, at least one".into()),
        Err(_) => Err("expected a time, as in 30s, 15m, 2h or 1d".into()),
    }
}

pub(crate) fn rfc3339(text: &str) -> Result<String, String> {
    match parse_time(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("expected a time such as 2026-01-02T15:04:05Z (RFC 3339)".into()),
    }
}

fn setting(key: &str, value: &str) -> Result<Setting, String> {
    if level(value).is_ok() {
        return Err(format!(
            "to set the level of a source write --source {key}={value}"
        ));
    }
    let key = setting_key(key)?;
    if value.is_empty() {
        let shown = key.variable.unwrap_or(key.field);
        return Err(format!(
            "{shown} has no value; `level delete --setting {shown}` takes it away"
        ));
    }
    let value = match key.variable {
        Some(_) => json!(value),
        None => field_value(key.field, value),
    };
    Ok(Setting { key, value })
}

pub(crate) fn setting_key(text: &str) -> Result<Key, String> {
    let variable = ENV_KEYS.iter().find(|(variable, _)| *variable == text);
    if let Some((variable, field)) = variable {
        return Ok(Key {
            variable: Some(variable),
            field,
        });
    }
    let known = ENV_KEYS.iter().find(|(_, field)| *field == text);
    if let Some((_, field)) = known {
        return Ok(Key {
            variable: None,
            field,
        });
    }
    let all = ENV_KEYS
        .iter()
        .flat_map(|(variable, field)| [*variable, *field]);
    let all: Vec<&str> = all.collect();
    if matches!(text, "level" | "THINGLOG_LEVEL") {
        return Err("the level is written alone, as in `level set default WARN`".into());
    }
    Err(match nearest(text, &all) {
        Some(near) => format!("there is no setting {text:?}; did you mean {near}?"),
        None => format!(
            "there is no setting {text:?}; there are {}",
            ENV_KEYS.map(|(variable, _)| variable).join(", ")
        ),
    })
}

/// The value of a document's field: a number or truth value if it reads as one, times of day as a
/// list, else the text itself.
fn field_value(field: &str, text: &str) -> Value {
    if field == "upload.at" {
        return text.split(',').map(str::trim).collect();
    }
    match serde_json::from_str(text) {
        // A rate without its unit is told so.
        _ if field == "limits.rate" => json!(text),
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
        _ => json!(text),
    }
}

impl Setting {
    /// Adds to the change of a document: this spelling of the setting, and no other beside it.
    pub(crate) fn add_to(&self, patch: &mut Map<String, Value>) {
        self.key.remove_in(patch);
        let (table, field) = match self.key.variable {
            Some(variable) => ("env", variable),
            None => split(self.key.field),
        };
        put(patch, table, field, self.value.clone());
    }
}

impl Key {
    /// Adds to the change of a document that no spelling of the setting remains.
    pub(crate) fn remove_in(&self, patch: &mut Map<String, Value>) {
        let spellings = ENV_KEYS.iter().filter(|(_, field)| *field == self.field);
        for (variable, _) in spellings {
            put(patch, "env", variable, Value::Null);
        }
        let (table, field) = split(self.field);
        put(patch, table, field, Value::Null);
    }
}

fn split(field: &'static str) -> (&'static str, &'static str) {
    field.split_once('.').unwrap_or(("", field))
}

fn put(patch: &mut Map<String, Value>, table: &str, field: &str, value: Value) {
    let table = patch.entry(table).or_insert_with(|| json!({}));
    if let Some(table) = table.as_object_mut() {
        table.insert(field.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_five_words_and_a_slip_is_told() {
        assert_eq!(word("debug"), Ok(Word::Level(Level::Debug)));
        assert_eq!(word("DISABLED"), Ok(Word::Level(Level::Disabled)));
        for (text, told) in [
            ("DEBGU", "did you mean DEBUG?"),
            ("wran", "did you mean WARN?"),
            ("verbose", "there are DISABLED, ERROR, WARN, INFO, DEBUG"),
        ] {
            let error = word(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
        let nginx = source_level("my app=warn").unwrap();
        assert_eq!((&*nginx.source, nginx.level), ("my%20app", Level::Warn));
        assert!(source_level("nginx").unwrap_err().contains("nginx=WARN"));
        assert!(source_level("nginx=WRAN").unwrap_err().contains("WARN?"));
    }

    fn patch(words: &[&str]) -> Value {
        let mut patch = Map::new();
        for text in words {
            match word(text).unwrap() {
                Word::Setting(setting) => setting.add_to(&mut patch),
                Word::Level(level) => drop(patch.insert("level".into(), json!(level))),
            }
        }
        Value::Object(patch)
    }

    #[test]
    fn a_setting_is_written_in_the_spelling_given_and_in_no_other() {
        let expected =
            json!({"env": {"THINGLOG_UPLOAD_MODE": "interval"}, "upload": {"mode": null}});
        assert_eq!(patch(&["THINGLOG_UPLOAD_MODE=interval"]), expected);
        let expected =
            json!({"env": {"THINGLOG_UPLOAD_MODE": null}, "upload": {"mode": "interval"}});
        assert_eq!(patch(&["upload.mode=interval"]), expected);
        let expected = json!({
            "env": {"THINGLOG_UPLOAD_AT": null, "THINGLOG_SPOOL_ENABLED": null},
            "upload": {"at": ["02:00", "14:00"]},
            "limits": {"persistent": true},
            "level": "WARN",
        });
        let words = ["WARN", "upload.at=02:00, 14:00", "limits.persistent=true"];
        assert_eq!(patch(&words), expected);
        let expected = json!({"env": {"THINGLOG_RATE": null}, "limits": {"rate": "7"}});
        assert_eq!(patch(&["limits.rate=7"]), expected);
    }

    #[test]
    fn every_spelling_of_a_setting_goes_with_it() {
        let mut patch = Map::new();
        setting_key("upload.flush_ms")
            .unwrap()
            .remove_in(&mut patch);
        let expected = json!({
            "env": {"THINGLOG_FLUSH": null, "THINGLOG_UPLOAD_FLUSH": null},
            "upload": {"flush_ms": null},
        });
        assert_eq!(Value::Object(patch), expected);
    }

    #[test]
    fn what_is_no_setting_is_refused_with_what_was_meant() {
        for (text, told) in [
            ("nginx=WARN", "--source nginx=WARN"),
            (
                "THINGLOG_UPLOAD_MOD=interval",
                "did you mean THINGLOG_UPLOAD_MODE?",
            ),
            ("upload.mod=interval", "did you mean upload.mode?"),
            ("THINGLOG_LEVEL=x", "written alone"),
            ("colour=blue", "there are THINGLOG_UPLOAD_MODE"),
            ("upload.mode=", "--setting upload.mode"),
        ] {
            let error = word(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn times_are_spans_of_whole_seconds_or_rfc_3339() {
        assert_eq!(
            (span("2s"), span("15m"), span("1d")),
            (Ok(2), Ok(900), Ok(86_400))
        );
        for text in ["0s", "1500ms", "15", "soon", "-1s"] {
            assert!(span(text).is_err(), "{text}");
        }
        assert!(rfc3339("2026-01-02T03:04:05Z").is_ok());
        assert!(rfc3339("tomorrow").unwrap_err().contains("RFC 3339"));
    }

    #[test]
    fn an_attribute_without_a_value_goes() {
        let given = ["room=attic", "model="].map(|text| assignment(text).unwrap());
        assert_eq!(attributes(&given), json!({"room": "attic", "model": null}));
        assert!(assignment("room").is_err() && assignment("=x").is_err());
    }
}
