//! The protobuf form, by `opentelemetry/proto/logs/v1/logs.proto` and `common/v1/common.proto`.
//!
//! ```text
//! ResourceLogs = 1 { resource = 1 { attributes = 1 }, scope_logs = 2 { scope = 1 { name = 1, version = 2 },
//!                log_records = 2 } }
//! LogRecord      { time_unix_nano = 1 fixed64, severity_number = 2, severity_text = 3, body = 5,
//!                attributes = 6, observed_time_unix_nano = 11 fixed64 }
//! KeyValue       { key = 1, value = 2 }
//! AnyValue       { string = 1 | bool = 2 | int = 3 | double = 4 | array = 5 { values = 1 }
//!                | kvlist = 6 { values = 1 } }
//! ```

use serde_json::Value;
use thinglog_schemas::{Event, EventId};

use super::encode::{ESTIMATED, SCOPE, TRUNCATED, UID, VERSION};
use crate::config::OtlpConfig;
use crate::destinations::protobuf as wire;

/// A record as field 2 of `ScopeLogs`.
pub(super) fn log_record(event: &Event, out: &mut Vec<u8>) {
    out.reserve(event.message.len() + 160);
    wire::message(2, out, |out| {
        wire::fixed64(1, event.time, out);
        wire::number(2, u64::from(event.severity.number()), out);
        wire::bytes(3, event.severity.name().as_bytes(), out);
        wire::message(5, out, |out| wire::bytes(1, event.message.as_bytes(), out));
        if event.id != EventId::None {
            attribute(6, UID, out, |out| {
                wire::message(1, out, |out| event.id.write(&event.device, out));
            });
        }
        for (key, is_set) in [
            (ESTIMATED, event.time_estimated),
            (TRUNCATED, event.truncated),
        ] {
            if is_set {
                attribute(6, key, out, |out| wire::number(2, 1, out));
            }
        }
        for (key, value) in &event.attributes {
            // Keys are unique, and the id is ours to give.
            if ![UID, ESTIMATED, TRUNCATED].contains(&key.as_str()) {
                attribute(6, key, out, |out| any_value(value, out));
            }
        }
        wire::fixed64(11, event.received, out);
    });
}

fn attribute(field: u32, key: &str, out: &mut Vec<u8>, value: impl FnOnce(&mut Vec<u8>)) {
    wire::message(field, out, |out| {
        wire::bytes(1, key.as_bytes(), out);
        wire::message(2, out, value);
    });
}

fn any_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        // A value that is there but says nothing.
        Value::Null => {}
        Value::Bool(value) => wire::number(2, u64::from(*value), out),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => wire::number(3, number as u64, out),
            (None, Some(number)) => wire::fixed64(4, number.to_bits(), out),
            (None, None) => wire::bytes(1, number.to_string().as_bytes(), out),
        },
        Value::String(text) => wire::bytes(1, text.as_bytes(), out),
        Value::Array(values) => wire::message(5, out, |out| {
            for value in values {
                wire::message(1, out, |out| any_value(value, out));
            }
        }),
        Value::Object(values) => wire::message(6, out, |out| {
            for (key, value) in values {
                attribute(1, key, out, |out| any_value(value, out));
            }
        }),
    }
}

/// Records below their resource, as field 1 of the request.
pub(super) fn resource_logs(
    extra: &[(String, String)],
    device: &str,
    source: &str,
    records: &[&[u8]],
    out: &mut Vec<u8>,
) {
    let mut resource = Vec::new();
    let own = OtlpConfig::OWN.into_iter().zip([source, device, device]);
    let extra = extra
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    wire::message(1, &mut resource, |out| {
        for (key, value) in own.chain(extra) {
            attribute(1, key, out, |out| wire::bytes(1, value.as_bytes(), out));
        }
    });
    let mut scope = Vec::new();
    wire::message(1, &mut scope, |out| {
        wire::bytes(1, SCOPE.as_bytes(), out);
        wire::bytes(2, VERSION.as_bytes(), out);
    });
    // Lengths first: the records are copied once.
    let records_length: usize = records.iter().map(|record| record.len()).sum();
    let scope_logs = scope.len() + records_length;
    let all = resource.len() + 1 + wire::varint_len(scope_logs as u64) + scope_logs;
    wire::head(1, all, out);
    out.extend_from_slice(&resource);
    wire::head(2, scope_logs, out);
    out.extend_from_slice(&scope);
    for record in records {
        out.extend_from_slice(record);
    }
}
