//! Events to messages of RFC 5424. Pure.

use serde_json::Value;
use thinglog_schemas::{Event, json};

use crate::deliver::remote::request::Request;
use crate::deliver::remote::{Encoder, Limits, Unfit};

/// Longest APP-NAME (section 6).
const APP_NAME: usize = 48;
/// Longest SD-NAME (section 6).
const SD_NAME: usize = 32;
/// Bytes of a time down to microseconds, the smallest that there are (section 6.2.3.1).
const MICROSECONDS: usize = "2026-01-02T03:04:05.678901".len();

/// Encodes events as configured.
pub(crate) struct SyslogEncoder {
    pub(super) facility: u8,
    pub(super) enterprise: u32,
    /// Most bytes of a message.
    pub(super) most: usize,
    /// Whether messages have their length in front.
    pub(super) is_counted: bool,
}

impl Encoder for SyslogEncoder {
    fn limits(&self) -> Limits {
        Limits::USUAL
    }

    fn encode(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<usize, Unfit> {
        let mut message = self.head(event, None);
        if message.len() + 1 + event.message.len() > self.most {
            message = self.head(event, Some(event.message.len()));
        }
        let Some(room) = self.most.checked_sub(message.len() + 1) else {
            return Err(Unfit(format!(
                "{} bytes without its text; max_message_bytes is {}",
                message.len(),
                self.most
            )));
        };
        message.push(b' ');
        message.extend_from_slice(cut(&event.message, room).as_bytes());
        if self.is_counted {
            out.extend_from_slice(format!("{} ", message.len()).as_bytes());
        }
        out.extend_from_slice(&message);
        Ok(out.len())
    }

    fn body(&mut self, request: &Request, out: &mut Vec<u8>) {
        out.extend_from_slice(request.joined());
    }
}

impl SyslogEncoder {
    /// Everything before the text. `whole`: bytes of a text that does not fit.
    fn head(&self, event: &Event, whole: Option<usize>) -> Vec<u8> {
        let priority = self.facility * 8 + event.severity.to_syslog();
        let mut out = format!("<{priority}>1 ").into_bytes();
        let mut time = Vec::new();
        json::write_time(event.time, &mut time);
        out.extend_from_slice(&time[..MICROSECONDS]);
        let (name, source) = (&event.device, &event.source);
        let app = cut(source, APP_NAME);
        out.extend_from_slice(format!("Z {name} {app} - - ").as_bytes());

        out.extend_from_slice(format!("[thinglog@{}", self.enterprise).as_bytes());
        if let Some(id) = event.id.text(name) {
            parameter("id", &id, &mut out);
        }
        parameter("severity", &event.severity.number().to_string(), &mut out);
        if app.len() < source.len() {
            parameter("source", source, &mut out);
        }
        if event.time_estimated {
            parameter("time_estimated", "true", &mut out);
        }
        if event.truncated {
            parameter("truncated", "true", &mut out);
        }
        if let Some(bytes) = whole {
            parameter("cut_from_bytes", &bytes.to_string(), &mut out);
        }
        out.push(b']');
        self.attributes(event, &mut out);
        out
    }

    fn attributes(&self, event: &Event, out: &mut Vec<u8>) {
        if event.attributes.is_empty() {
            return;
        }
        out.extend_from_slice(format!("[attributes@{}", self.enterprise).as_bytes());
        for (name, value) in &event.attributes {
            match value {
                Value::String(text) => parameter(name, text, out),
                value => {
                    let mut text = Vec::new();
                    json::write_value(value, &mut text);
                    parameter(name, &String::from_utf8_lossy(&text), out);
                }
            }
        }
        out.push(b']');
    }
}

/// The beginning of a text: whole characters, at most so many bytes.
fn cut(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Appends ` name="value"` (section 6.3.3).
fn parameter(name: &str, value: &str, out: &mut Vec<u8>) {
    out.push(b' ');
    let start = out.len();
    let allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '=' | ']' | '"');
    let name = name.chars().take(SD_NAME);
    let name = name.map(|c| if allowed(c) { c as u8 } else { b'_' });
    out.extend(name);
    if out.len() == start {
        out.push(b'_');
    }
    out.extend_from_slice(b"=\"");
    for byte in value.bytes() {
        if matches!(byte, b'"' | b'\\' | b']') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}
