//! Settings under the names that a device knows them by in its environment: `THINGLOG_UPLOAD_MODE`
//! is `upload.mode`, and values are written as they are there (`1h`, `64MiB`). A document may use
//! either spelling, not both for one setting.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Limits, Upload};
use crate::units;

/// How the text of a variable becomes the value of a field.
#[derive(Clone, Copy)]
enum Kind {
    Word,
    Flag,
    Number,
    Bytes,
    Seconds,
    Millis,
    Times,
}

/// Variable, table and field of a document, form of the value.
type Key = (&'static str, &'static str, &'static str, Kind);

const TABLE: [Key; 14] = [
    ("THINGLOG_UPLOAD_MODE", "upload", "mode", Kind::Word),
    (
        "THINGLOG_UPLOAD_EVERY",
        "upload",
        "interval_s",
        Kind::Seconds,
    ),
    ("THINGLOG_UPLOAD_AT", "upload", "at", Kind::Times),
    (
        "THINGLOG_UPLOAD_SPREAD",
        "upload",
        "spread_s",
        Kind::Seconds,
    ),
    (
        "THINGLOG_UPLOAD_ERRORS_AT_ONCE",
        "upload",
        "errors_at_once",
        Kind::Flag,
    ),
    ("THINGLOG_UPLOAD_RING", "upload", "ring_bytes", Kind::Bytes),
    ("THINGLOG_UPLOAD_AFTER", "upload", "after_s", Kind::Seconds),
    ("THINGLOG_UPLOAD_FLUSH", "upload", "flush_ms", Kind::Millis),
    ("THINGLOG_FLUSH", "upload", "flush_ms", Kind::Millis),
    (
        "THINGLOG_UPLOAD_BATCH_EVENTS",
        "upload",
        "batch_events",
        Kind::Number,
    ),
    (
        "THINGLOG_UPLOAD_BATCH_BYTES",
        "upload",
        "batch_bytes",
        Kind::Bytes,
    ),
    ("THINGLOG_SPOOL_BYTES", "limits", "spool_bytes", Kind::Bytes),
    ("THINGLOG_SPOOL_ENABLED", "limits", "persistent", Kind::Flag),
    ("THINGLOG_RATE", "limits", "rate", Kind::Word),
];

/// Every variable that a document may name, and the field it stands for (`upload.mode`), in the order
/// of the agent's example configuration.
pub const KEYS: [(&str, &str); 14] = {
    let mut keys = [("", ""); 14];
    let fields = [
        "upload.mode",
        "upload.interval_s",
        "upload.at",
        "upload.spread_s",
        "upload.errors_at_once",
        "upload.ring_bytes",
        "upload.after_s",
        "upload.flush_ms",
        "upload.flush_ms",
        "upload.batch_events",
        "upload.batch_bytes",
        "limits.spool_bytes",
        "limits.persistent",
        "limits.rate",
    ];
    let mut at = 0;
    while at < keys.len() {
        keys[at] = (TABLE[at].0, fields[at]);
        at += 1;
    }
    keys
};

/// What the variables say, checked; `upload` and `limits` are what the document says beside them.
pub(super) fn read(
    env: &BTreeMap<String, String>,
    upload: Option<&Upload>,
    limits: Option<&Limits>,
) -> Result<(Upload, Limits), String> {
    let said = [
        ("upload", upload.map_or(Value::Null, to_value)),
        ("limits", limits.map_or(Value::Null, to_value)),
    ];
    let mut tables = [
        ("upload", Value::Object(Default::default())),
        ("limits", Value::Object(Default::default())),
    ];
    let mut named: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for (variable, text) in env {
        let Some(&(variable, table, field, kind)) = TABLE.iter().find(|key| key.0 == variable)
        else {
            return Err(unknown(variable));
        };
        if said
            .iter()
            .any(|(name, value)| *name == table && !value[field].is_null())
        {
            return Err(format!(
                "`env.{variable}` and `{table}.{field}` are one setting; give one of them"
            ));
        }
        if let Some(other) = named.insert((table, field), variable) {
            return Err(format!(
                "`env.{variable}` and `env.{other}` are one setting; give one of them"
            ));
        }
        let value = value_of(kind, text).map_err(|reason| format!("`env.{variable}`: {reason}"))?;
        for (name, object) in &mut tables {
            if *name == table {
                object[field] = value.clone();
            }
        }
    }
    let [(_, upload), (_, limits)] = tables;
    let upload: Upload =
        serde_json::from_value(upload).map_err(|error| format!("`env`: {error}"))?;
    let limits: Limits =
        serde_json::from_value(limits).map_err(|error| format!("`env`: {error}"))?;
    Ok((upload, limits))
}

fn to_value(settings: impl serde::Serialize) -> Value {
    serde_json::to_value(settings).unwrap_or_default()
}

fn value_of(kind: Kind, text: &str) -> Result<Value, String> {
    let text = text.trim();
    match kind {
        Kind::Word => Ok(text.into()),
        Kind::Flag => text
            .parse::<bool>()
            .map(Value::from)
            .map_err(|_| "expected true or false".to_owned()),
        Kind::Number => text
            .parse::<u32>()
            .map(Value::from)
            .map_err(|_| "expected a whole number".to_owned()),
        Kind::Bytes => units::bytes(text).map(Value::from),
        Kind::Seconds => match units::millis(text)? {
            millis if millis.is_multiple_of(1000) => Ok((millis / 1000).into()),
            _ => Err("expected whole seconds".to_owned()),
        },
        Kind::Millis => units::millis(text).map(Value::from),
        Kind::Times => {
            let list = text
                .trim_start_matches('[')
                .trim_end_matches(']')
                .split(',');
            let times = list.map(|time| time.trim().trim_matches('"').into());
            Ok(Value::Array(times.collect()))
        }
    }
}

fn unknown(variable: &str) -> String {
    let shown: String = variable.chars().take(60).collect();
    let all: Vec<&str> = TABLE.iter().map(|key| key.0).collect();
    let all = all.join(", ");
    match variable {
        "THINGLOG_LEVEL" => "`env.THINGLOG_LEVEL`: the level is the field `level`".into(),
        _ => format!("`env`: {shown:?} is no setting that documents can make; these are: {all}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<(Upload, Limits), String> {
        let env = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        read(&env.collect(), None, None)
    }

    #[test]
    fn every_variable_is_a_field_with_the_units_of_the_device() {
        let (upload, limits) = of(&[
            ("THINGLOG_UPLOAD_MODE", "schedule"),
            ("THINGLOG_UPLOAD_EVERY", "1h"),
            ("THINGLOG_UPLOAD_AT", r#"["02:00", "14:30"]"#),
            ("THINGLOG_UPLOAD_SPREAD", "10m"),
            ("THINGLOG_UPLOAD_ERRORS_AT_ONCE", "true"),
            ("THINGLOG_UPLOAD_RING", "64KiB"),
            ("THINGLOG_UPLOAD_AFTER", "5s"),
            ("THINGLOG_FLUSH", "200ms"),
            ("THINGLOG_UPLOAD_BATCH_EVENTS", "100"),
            ("THINGLOG_UPLOAD_BATCH_BYTES", "1MiB"),
            ("THINGLOG_SPOOL_BYTES", "8MiB"),
            ("THINGLOG_SPOOL_ENABLED", "false"),
            ("THINGLOG_RATE", "500/s"),
        ])
        .unwrap();
        let upload = serde_json::to_value(upload).unwrap();
        let expected = serde_json::json!({"mode": "schedule", "interval_s": 3600,
            "at": ["02:00", "14:30"], "spread_s": 600, "errors_at_once": true, "ring_bytes": 65536,
            "after_s": 5, "flush_ms": 200, "batch_events": 100, "batch_bytes": 1_048_576});
        assert_eq!(upload, expected);
        assert_eq!(
            (limits.spool_bytes, limits.persistent),
            (Some(8 << 20), Some(false))
        );
        assert_eq!(limits.rate, "500/s".parse().ok());
        for (variable, field) in KEYS {
            let (table, field) = field.split_once('.').unwrap();
            assert!(
                TABLE
                    .iter()
                    .any(|key| (key.0, key.1, key.2) == (variable, table, field))
            );
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (variable, text, reason) in [
            ("THINGLOG_LEVEL", "DEBUG", "the field `level`"),
            ("THINGLOG_BROKER", "x", "these are: THINGLOG_UPLOAD_MODE"),
            ("THINGLOG_UPLOAD_MODE", "daily", "unknown variant `daily`"),
            ("THINGLOG_UPLOAD_EVERY", "1500ms", "whole seconds"),
            ("THINGLOG_UPLOAD_EVERY", "soon", "expected a time"),
            ("THINGLOG_UPLOAD_AT", "2:00", "such as 02:00"),
            ("THINGLOG_SPOOL_ENABLED", "yes", "true or false"),
            ("THINGLOG_UPLOAD_BATCH_EVENTS", "many", "whole number"),
            ("THINGLOG_RATE", "100", "expected a rate"),
        ] {
            let error = of(&[(variable, text)]).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        let error = of(&[("THINGLOG_FLUSH", "1s"), ("THINGLOG_UPLOAD_FLUSH", "1s")]).unwrap_err();
        assert!(error.contains("are one setting"), "{error}");
        let upload = Upload {
            flush_ms: Some(1),
            ..Upload::default()
        };
        let env = BTreeMap::from([("THINGLOG_FLUSH".to_owned(), "1s".to_owned())]);
        let error = read(&env, Some(&upload), None).unwrap_err();
        assert!(
            error.contains("`upload.flush_ms` are one setting"),
            "{error}"
        );
    }
}
