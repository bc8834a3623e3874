//! Events to lines of `_bulk`: a piece is an action and its document. Pure.

use serde_json::Value;
use thinglog_schemas::{Attributes, Event, EventId, json};

use crate::deliver::remote::request::Request;
use crate::deliver::remote::{Encoder, Limits, Order, Unfit};
use crate::destinations::names::IndexName;

/// The version of ECS that the fields are of.
const ECS: &str = "8.11.0";

/// Encodes events as configured.
pub(crate) struct BulkEncoder {
    index: IndexName,
    /// Memory for what is put together.
    text: Vec<u8>,
}

impl BulkEncoder {
    pub(super) fn new(index: &str) -> Result<BulkEncoder, String> {
        let index = IndexName::parse(index).map_err(|reason| format!("index: {reason}"))?;
        Ok(BulkEncoder {
            index,
            text: Vec::new(),
        })
    }
}

impl Encoder for BulkEncoder {
    fn limits(&self) -> Limits {
        Limits {
            events: 5000,
            ..Limits::USUAL
        }
    }

    fn order(&self) -> Order {
        Order::Any
    }

    fn encode(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<usize, Unfit> {
        out.reserve(event.message.len() + 480);
        out.extend_from_slice(b"{\"create\":{\"_index\":\"");
        self.index.write(event, out);
        out.push(b'"');
        if event.id != EventId::None {
            out.extend_from_slice(b",\"_id\":");
            json::write_id(event, out);
        }
        out.extend_from_slice(b"}}\n");
        write_document(event, &mut self.text, out);
        out.push(b'\n');
        Ok(out.len())
    }

    fn body(&mut self, request: &Request, out: &mut Vec<u8>) {
        out.extend_from_slice(request.joined());
    }
}

fn write_document(event: &Event, text: &mut Vec<u8>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"@timestamp\":\"");
    json::write_time(event.time, out);
    out.extend_from_slice(b"\",\"message\":");
    json::write_string(&event.message, out);
    out.extend_from_slice(b",\"log.level\":\"");
    out.extend_from_slice(event.severity.level().topic_name().as_bytes());
    out.extend_from_slice(b"\",\"event.severity\":");
    json::write_number(u64::from(event.severity.number()), out);
    if event.id != EventId::None {
        out.extend_from_slice(b",\"event.id\":");
        json::write_id(event, out);
    }
    if let Some(sequence) = sequence(event.id) {
        out.extend_from_slice(b",\"event.sequence\":");
        json::write_number(sequence, out);
    }
    out.extend_from_slice(b",\"event.created\":\"");
    json::write_time(event.received, out);
    for (key, value) in [
        ("\",\"host.name\":", &event.device),
        (",\"device.id\":", &event.device),
        (",\"service.name\":", &event.source),
    ] {
        out.extend_from_slice(key.as_bytes());
        json::write_string(value, out);
    }
    if !event.attributes.is_empty() {
        out.extend_from_slice(b",\"labels\":{");
        write_labels(&event.attributes, text, out);
        out.push(b'}');
    }
    write_tags(event, out);
    out.extend_from_slice(b",\"ecs.version\":\"");
    out.extend_from_slice(ECS.as_bytes());
    out.extend_from_slice(b"\"}");
}

/// What sorts events of one moment.
fn sequence(id: EventId) -> Option<u64> {
    match id {
        EventId::Spooled { seq, .. } => Some(seq),
        EventId::Stored { offset, .. } => Some(offset),
        EventId::Gap { .. } | EventId::None => None,
    }
}

/// All values are text, and no name has a dot, which would be an object, or stands twice, which
/// would be refused.
fn write_labels(attributes: &Attributes, text: &mut Vec<u8>, out: &mut Vec<u8>) {
    let mut renamed: Vec<String> = Vec::new();
    for (at, (name, value)) in attributes.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        match name.is_empty() || name.contains(['.', '*', '\\']) {
            false => json::write_string(name, out),
            true => {
                let mut name = name.replace(['.', '*', '\\'], "_");
                while name.is_empty() || attributes.contains_key(&name) || renamed.contains(&name) {
                    name.push('_');
                }
                json::write_string(&name, out);
                renamed.push(name);
            }
        }
        out.push(b':');
        match value {
            Value::String(value) => json::write_string(value, out),
            other => {
                text.clear();
                json::write_value(other, text);
                json::write_string(&String::from_utf8_lossy(text), out);
            }
        }
    }
}

fn write_tags(event: &Event, out: &mut Vec<u8>) {
    let tags: &[u8] = match (event.time_estimated, event.truncated) {
        (false, false) => return,
        (true, false) => b",\"tags\":[\"time_estimated\"]",
        (false, true) => b",\"tags\":[\"truncated\"]",
        (true, true) => b",\"tags\":[\"time_estimated\",\"truncated\"]",
    };
    out.extend_from_slice(tags);
}
