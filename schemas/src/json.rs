//! The JSON form of an event: one object, one line, keys in a fixed order. Written by the file
//! destination, the live topics and the log emitter alike:
//! `{"id","time","received","device","source","level","severity","message"[,"attributes"][,"time_estimated":true][,"truncated":true]}`
//! `time`/`received` are RFC 3339 in UTC with nine decimals, `level` is AWS's word, `severity` the
//! OpenTelemetry number. `id` is absent when the event has none.

use std::{borrow::Cow, sync::Arc};

use serde_json::Value;

pub use crate::time::{parse_time, write_time};
use crate::{Attributes, Event, EventId, Severity, text};

/// Appends the object without a newline. Fast path of the file destination: no intermediate values.
pub fn write(event: &Event, out: &mut Vec<u8>) {
    out.reserve(event.message.len() + 256);
    out.push(b'{');
    if event.id != EventId::None {
        out.extend_from_slice(b"\"id\":");
        write_id(event, out);
        out.push(b',');
    }
    out.extend_from_slice(b"\"time\":\"");
    write_time(event.time, out);
    out.extend_from_slice(b"\",\"received\":\"");
    write_time(event.received, out);
    out.extend_from_slice(b"\",\"device\":");
    text::push_json_string(&event.device, out);
    out.extend_from_slice(b",\"source\":");
    text::push_json_string(&event.source, out);
    out.extend_from_slice(b",\"level\":\"");
    out.extend_from_slice(event.severity.level().name().as_bytes());
    out.extend_from_slice(b"\",\"severity\":");
    text::push_number(u64::from(event.severity.number()), out);
    out.extend_from_slice(b",\"message\":");
    text::push_json_string(&event.message, out);
    if !event.attributes.is_empty() {
        out.extend_from_slice(b",\"attributes\":");
        write_object(&event.attributes, out);
    }
    if event.time_estimated {
        out.extend_from_slice(b",\"time_estimated\":true");
    }
    if event.truncated {
        out.extend_from_slice(b",\"truncated\":true");
    }
    out.push(b'}');
}

/// Appends the event's id as a JSON string; nothing where it has none.
pub fn write_id(event: &Event, out: &mut Vec<u8>) {
    if event.id == EventId::None {
        return;
    }
    if crate::name::is_valid(&event.device) {
        out.push(b'"');
        event.id.write(&event.device, out);
        out.push(b'"');
    } else if let Some(id) = event.id.text(&event.device) {
        text::push_json_string(&id, out);
    }
}

fn write_object(object: &Attributes, out: &mut Vec<u8>) {
    out.push(b'{');
    for (index, (key, value)) in object.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        text::push_json_string(key, out);
        out.push(b':');
        write_value(value, out);
    }
    out.push(b'}');
}

/// Appends a JSON string with its quotes.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    text::push_json_string(text, out);
}

/// Appends a decimal number.
pub fn write_number(number: u64, out: &mut Vec<u8>) {
    text::push_number(number, out);
}

/// Appends an object's members in compact form, with its braces.
pub fn write_attributes(attributes: &Attributes, out: &mut Vec<u8>) {
    write_object(attributes, out);
}

/// Appends a JSON value in compact form.
pub fn write_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => match number.as_u64() {
            Some(number) => text::push_number(number, out),
            None => out.extend_from_slice(number.to_string().as_bytes()),
        },
        Value::String(string) => text::push_json_string(string, out),
        Value::Array(values) => {
            out.push(b'[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(value, out);
            }
            out.push(b']');
        }
        Value::Object(object) => write_object(object, out),
    }
}

/// Reads the form back (tests, tools, replay). Unknown keys are ignored, so that a newer writer is
/// understood.
pub fn read(line: &[u8]) -> Result<Event, ReadError> {
    let form: Form<'_> = serde_json::from_slice(line).map_err(|e| ReadError(e.to_string()))?;
    let time = |key: &str, text: &str| {
        parse_time(text).ok_or_else(|| ReadError(format!("{key} {text:?} is no RFC 3339 time")))
    };
    let id = match &form.id {
        None => EventId::None,
        Some(id) => match EventId::parse(id) {
            Some((device, id)) if device == form.device || device.is_empty() => id,
            _ => {
                return Err(ReadError(format!(
                    "id {id:?} is not one of device {:?}",
                    form.device
                )));
            }
        },
    };
    let severity = Severity::new(form.severity)
        .ok_or_else(|| ReadError(format!("severity {} is not 1-24", form.severity)))?;
    Ok(Event {
        id,
        time: time("time", &form.time)?,
        received: time("received", &form.received)?,
        device: Arc::from(form.device),
        source: Arc::from(form.source),
        severity,
        message: form.message,
        attributes: form.attributes,
        time_estimated: form.time_estimated,
        truncated: form.truncated,
    })
}

/// `level` is not read: `severity` implies it.
#[derive(serde::Deserialize)]
struct Form<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    received: Cow<'a, str>,
    #[serde(borrow)]
    device: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    severity: u8,
    message: String,
    #[serde(default)]
    attributes: Attributes,
    #[serde(default)]
    time_estimated: bool,
    #[serde(default)]
    truncated: bool,
}

/// Why a line is not an event.
#[derive(Debug, thiserror::Error)]
#[error("not an event: {0}")]
pub struct ReadError(String);

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
