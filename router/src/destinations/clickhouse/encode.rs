//! Events to lines of JSONEachRow. Pure.

use serde_json::Value;
use thinglog_schemas::{Event, json};

use crate::deliver::remote::request::Request;
use crate::deliver::remote::{Encoder, Limits, Order, Unfit};

/// The last moment that DateTime64(9) has: 2262-04-11.
const LAST: u64 = i64::MAX as u64;

/// Encodes events as rows.
#[derive(Default)]
pub(crate) struct RowEncoder {
    /// Memory for what is put together.
    text: Vec<u8>,
}

impl Encoder for RowEncoder {
    /// ClickHouse wants few, large inserts: each makes a part.
    fn limits(&self) -> Limits {
        Limits {
            events: 10_000,
            bytes: 4 << 20,
            ..Limits::USUAL
        }
    }

    fn order(&self) -> Order {
        Order::Any
    }

    fn encode(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<usize, Unfit> {
        if event.time > LAST || event.received > LAST {
            return Err(Unfit(
                "its time is after 2262, where DateTime64(9) ends".into(),
            ));
        }
        out.reserve(event.message.len() + 320);
        out.extend_from_slice(b"{\"id\":");
        let id = event.id.text(&event.device).unwrap_or_default();
        json::write_string(&id, out);
        for (key, time) in [
            (",\"time\":\"", event.time),
            ("\",\"received\":\"", event.received),
        ] {
            out.extend_from_slice(key.as_bytes());
            json::write_time(time, out);
        }
        out.extend_from_slice(b"\",\"severity\":");
        json::write_number(u64::from(event.severity.number()), out);
        for (key, text) in [
            (",\"device\":", &*event.device),
            (",\"source\":", &*event.source),
            (",\"level\":", event.severity.level().name()),
            (",\"message\":", &*event.message),
        ] {
            out.extend_from_slice(key.as_bytes());
            json::write_string(text, out);
        }
        out.extend_from_slice(b",\"attributes\":{");
        for (at, (name, value)) in event.attributes.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            json::write_string(name, out);
            out.push(b':');
            self.write_text(value, out);
        }
        out.extend_from_slice(b"},\"time_estimated\":");
        out.extend_from_slice(truth(event.time_estimated));
        out.extend_from_slice(b",\"truncated\":");
        out.extend_from_slice(truth(event.truncated));
        out.extend_from_slice(b"}\n");
        Ok(out.len())
    }

    fn body(&mut self, request: &Request, out: &mut Vec<u8>) {
        out.extend_from_slice(request.joined());
    }
}

impl RowEncoder {
    /// A text as it is, any other value as its JSON.
    fn write_text(&mut self, value: &Value, out: &mut Vec<u8>) {
        match value {
            Value::String(text) => json::write_string(text, out),
            other => {
                self.text.clear();
                json::write_value(other, &mut self.text);
                json::write_string(&String::from_utf8_lossy(&self.text), out);
            }
        }
    }
}

fn truth(is: bool) -> &'static [u8] {
    match is {
        true => b"true",
        false => b"false",
    }
}
