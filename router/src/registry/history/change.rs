//! What changed between two versions of a document, in words. Pure.

use std::collections::BTreeMap;

use serde_json::Value;
use thinglog_schemas::topic::ConfigTopic;

/// Longest description, characters.
const LONGEST: usize = 400;

/// What changed; an empty payload is no document.
pub(super) fn described(topic: ConfigTopic<'_>, before: &[u8], after: &[u8]) -> String {
    let (there, gone) = (before.is_empty(), after.is_empty());
    if let ConfigTopic::Member { group, .. } = topic {
        return match (there, gone) {
            (_, true) => format!("left group {group}"),
            (true, _) => format!("joined group {group}"),
            _ => format!("signed anew in group {group}"),
        };
    }
    let temporary = match topic {
        ConfigTopic::OverrideDefault
        | ConfigTopic::OverrideGroup(_)
        | ConfigTopic::OverrideDevice(_) => "temporary: ",
        _ => "",
    };
    let (before, after) = (fields(before), fields(after));
    let mut parts = Vec::new();
    for (field, value) in &after {
        match before.get(field) {
            Some(was) if was == value => {}
            Some(was) => parts.push(format!("{field} {value} (was {was})")),
            None => parts.push(format!("{field} {value}")),
        }
    }
    let removed = before
        .iter()
        .filter(|(field, _)| !after.contains_key(*field));
    parts.extend(removed.map(|(field, was)| format!("no {field} (was {was})")));
    let text = match (parts.is_empty(), there, gone) {
        (true, true, _) => "created".to_owned(),
        (true, _, true) => "removed".to_owned(),
        (true, ..) => "written anew".to_owned(),
        _ => parts.join(", "),
    };
    cut(&format!("{temporary}{text}"))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// What a document says, as `level`, `sources.nginx`, without who wrote it and when.
fn fields(document: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let document: Value = serde_json::from_slice(document).unwrap_or_default();
    for (field, value) in document.as_object().into_iter().flatten() {
        match value {
            _ if matches!(field.as_str(), "by" | "at" | "created" | "version") => {}
            Value::Object(inner) => {
                let inner = inner.iter();
                fields.extend(inner.map(|(key, value)| (format!("{field}.{key}"), text(value))));
            }
            value => drop(fields.insert(field.clone(), text(value))),
        }
    }
    fields
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}
