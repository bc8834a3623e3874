//! The JSON form, by "OTLP Specification, JSON Protobuf Encoding": keys in lowerCamelCase, 64-bit
//! integers as text, enumerations as numbers.

use serde_json::Value;
use thinglog_schemas::{Event, EventId, json};

use super::encode::{ESTIMATED, SCOPE, TRUNCATED, UID, VERSION};
use crate::config::OtlpConfig;

/// A record.
pub(super) fn log_record(event: &Event, out: &mut Vec<u8>) {
    out.reserve(event.message.len() + 320);
    out.extend_from_slice(b"{\"timeUnixNano\":\"");
    json::write_number(event.time, out);
    out.extend_from_slice(b"\",\"observedTimeUnixNano\":\"");
    json::write_number(event.received, out);
    out.extend_from_slice(b"\",\"severityNumber\":");
    json::write_number(u64::from(event.severity.number()), out);
    out.extend_from_slice(b",\"severityText\":");
    json::write_string(event.severity.name(), out);
    out.extend_from_slice(b",\"body\":{\"stringValue\":");
    json::write_string(&event.message, out);
    out.extend_from_slice(b"},\"attributes\":[");
    let start = out.len();
    if event.id != EventId::None {
        begin_attribute(start, UID, out);
        out.extend_from_slice(b"{\"stringValue\":");
        json::write_id(event, out);
        out.extend_from_slice(b"}}");
    }
    for (key, is_set) in [
        (ESTIMATED, event.time_estimated),
        (TRUNCATED, event.truncated),
    ] {
        if is_set {
            attribute(start, key, &Value::Bool(true), out);
        }
    }
    for (key, value) in &event.attributes {
        // Keys are unique, and the id is ours to give.
        if ![UID, ESTIMATED, TRUNCATED].contains(&key.as_str()) {
            attribute(start, key, value, out);
        }
    }
    out.extend_from_slice(b"]}");
}

/// `start` is where the list begins.
fn begin_attribute(start: usize, key: &str, out: &mut Vec<u8>) {
    if out.len() > start {
        out.push(b',');
    }
    out.extend_from_slice(b"{\"key\":");
    json::write_string(key, out);
    out.extend_from_slice(b",\"value\":");
}

fn attribute(start: usize, key: &str, value: &Value, out: &mut Vec<u8>) {
    begin_attribute(start, key, out);
    any_value(value, out);
    out.push(b'}');
}

fn any_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"{}"),
        Value::Bool(true) => out.extend_from_slice(b"{\"boolValue\":true}"),
        Value::Bool(false) => out.extend_from_slice(b"{\"boolValue\":false}"),
        Value::Number(number) if number.is_i64() => {
            out.extend_from_slice(b"{\"intValue\":\"");
            json::write_value(value, out);
            out.extend_from_slice(b"\"}");
        }
        Value::Number(_) => {
            out.extend_from_slice(b"{\"doubleValue\":");
            json::write_value(value, out);
            out.push(b'}');
        }
        Value::String(text) => {
            out.extend_from_slice(b"{\"stringValue\":");
            json::write_string(text, out);
            out.push(b'}');
        }
        Value::Array(values) => {
            out.extend_from_slice(b"{\"arrayValue\":{\"values\":[");
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                any_value(value, out);
            }
            out.extend_from_slice(b"]}}");
        }
        Value::Object(values) => {
            out.extend_from_slice(b"{\"kvlistValue\":{\"values\":[");
            let start = out.len();
            for (key, value) in values {
                attribute(start, key, value, out);
            }
            out.extend_from_slice(b"]}}");
        }
    }
}

/// Records below their resource.
pub(super) fn resource_logs(
    extra: &[(String, String)],
    device: &str,
    source: &str,
    records: &[&[u8]],
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"resource\":{\"attributes\":[");
    let start = out.len();
    let own = OtlpConfig::OWN.into_iter().zip([source, device, device]);
    let extra = extra
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    for (key, value) in own.chain(extra) {
        begin_attribute(start, key, out);
        out.extend_from_slice(b"{\"stringValue\":");
        json::write_string(value, out);
        out.extend_from_slice(b"}}");
    }
    out.extend_from_slice(b"]},\"scopeLogs\":[{\"scope\":{\"name\":\"");
    out.extend_from_slice(SCOPE.as_bytes());
    out.extend_from_slice(b"\",\"version\":\"");
    out.extend_from_slice(VERSION.as_bytes());
    out.extend_from_slice(b"\"},\"logRecords\":[");
    for (at, record) in records.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(record);
    }
    out.extend_from_slice(b"]}]}");
}
