//! Events to push requests. Pure.
//!
//! ```text
//! piece      varint length of labels, labels, EntryAdapter as field 2 of a StreamAdapter
//! body       snappy (PushRequest { streams: [StreamAdapter { labels = 1, entries = 2 }] = 1 })
//! entry      { timestamp = 1 { seconds = 1, nanos = 2 }, line = 2, metadata = 3 [{ name = 1, value = 2 }] }
//! ```

use std::collections::HashMap;

use serde_json::Value;
use thinglog_schemas::{Attributes, Event, EventId, hash, json};

use crate::config::{LokiConfig, LokiLine};
use crate::deliver::remote::request::Request;
use crate::deliver::remote::{Encoder, Limits, Unfit};
use crate::destinations::protobuf as wire;
use crate::routes::template::Template;

/// Attributes that are metadata of their own. Loki takes 128 an entry (`max_structured_metadata_entries_count`).
const MOST_ATTRIBUTES: usize = 100;
const NS: u64 = 1_000_000_000;

/// Encodes events as configured.
pub(crate) struct LokiEncoder {
    labels: Vec<(String, Template)>,
    line: LokiLine,
    metadata: bool,
    max_line_bytes: usize,
    /// Memory for what is put together.
    text: Vec<u8>,
    raw: Vec<u8>,
    snappy: snap::raw::Encoder,
}

impl LokiEncoder {
    pub(super) fn new(config: &LokiConfig) -> Result<LokiEncoder, String> {
        let labels = config.labels.iter().map(|(name, text)| {
            let template = Template::parse(text);
            let template = template.map_err(|reason| format!("labels.{name}: {reason}"))?;
            Ok((name.clone(), template))
        });
        Ok(LokiEncoder {
            labels: labels.collect::<Result<_, String>>()?,
            line: config.line,
            metadata: config.metadata,
            max_line_bytes: config.max_line_bytes,
            text: Vec::new(),
            raw: Vec::new(),
            snappy: snap::raw::Encoder::new(),
        })
    }

    /// `{device="lamp-7", job="thinglog"}`; a label without a value is left out, as Loki would.
    fn write_labels(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<(), Unfit> {
        out.push(b'{');
        for (name, template) in &self.labels {
            self.text.clear();
            template.write(event, &mut self.text);
            if self.text.is_empty() {
                continue;
            }
            if out.len() > 1 {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(name.as_bytes());
            out.push(b'=');
            json::write_string(&String::from_utf8_lossy(&self.text), out);
        }
        out.push(b'}');
        match out.len() {
            2 => Err(Unfit("no label has a value for it".into())),
            _ => Ok(()),
        }
    }

    fn write_entry(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<(), Unfit> {
        self.text.clear();
        let line = match self.line {
            LokiLine::Message => event.message.as_bytes(),
            LokiLine::Json => {
                json::write(event, &mut self.text);
                &self.text
            }
        };
        if line.len() > self.max_line_bytes {
            let (length, most) = (line.len(), self.max_line_bytes);
            return Err(Unfit(format!(
                "its line has {length} bytes, more than max_line_bytes = {most}"
            )));
        }
        wire::message(2, out, |out| {
            let time = time(event);
            wire::message(1, out, |out| {
                wire::number(1, time / NS, out);
                wire::number(2, time % NS, out);
            });
            wire::bytes(2, line, out);
            if self.metadata {
                self.write_metadata(event, out);
            }
        });
        Ok(())
    }

    fn write_metadata(&self, event: &Event, out: &mut Vec<u8>) {
        let mut number = Vec::new();
        json::write_number(u64::from(event.severity.number()), &mut number);
        let mut id = Vec::new();
        event.id.write(&event.device, &mut id);
        let level = event.severity.level().topic_name();
        let own: [(&str, &[u8]); 5] = [
            ("device", event.device.as_bytes()),
            ("source", event.source.as_bytes()),
            ("level", level.as_bytes()),
            ("severity_number", &number),
            ("id", &id),
        ];
        for (name, value) in own {
            if !value.is_empty() && !self.is_label(name) {
                pair(name, value, out);
            }
        }
        if !event.attributes.is_empty() {
            let mut taken: Vec<String> = own.iter().map(|(name, _)| (*name).to_owned()).collect();
            taken.push("attributes".to_owned());
            self.write_attributes(&event.attributes, &mut taken, out);
        }
    }

    fn write_attributes(&self, all: &Attributes, taken: &mut Vec<String>, out: &mut Vec<u8>) {
        let mut value = Vec::new();
        for (name, attribute) in all.iter().take(MOST_ATTRIBUTES) {
            let mut name = metadata_name(name);
            while taken.contains(&name) || self.is_label(&name) {
                name.push_str("_extracted");
            }
            value.clear();
            match attribute {
                Value::String(text) => value.extend_from_slice(text.as_bytes()),
                other => json::write_value(other, &mut value),
            }
            pair(&name, &value, out);
            taken.push(name);
        }
        if all.len() > MOST_ATTRIBUTES {
            let rest = all.iter().skip(MOST_ATTRIBUTES);
            let rest: Attributes = rest.map(|(k, v)| (k.clone(), v.clone())).collect();
            value.clear();
            json::write_attributes(&rest, &mut value);
            pair("attributes", &value, out);
        }
    }

    fn is_label(&self, name: &str) -> bool {
        self.labels.iter().any(|(label, _)| label == name)
    }
}

fn pair(name: &str, value: &[u8], out: &mut Vec<u8>) {
    wire::message(3, out, |out| {
        wire::bytes(1, name.as_bytes(), out);
        wire::bytes(2, value, out);
    });
}

/// A name that can be asked for: `[a-zA-Z_][a-zA-Z0-9_]*`.
fn metadata_name(name: &str) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let mut out: String = name.chars().map(word).collect();
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

/// The event's time, ns, as Loki gets it: whole microseconds get three digits more, so that equal lines
/// of one moment stay apart and in order.
pub(super) fn time(event: &Event) -> u64 {
    if !event.time.is_multiple_of(1000) {
        return event.time;
    }
    let number = match event.id {
        EventId::Spooled { seq, .. } => seq,
        EventId::Stored { offset, index, .. } => offset.wrapping_mul(31) + u64::from(index),
        EventId::Gap { from, .. } => from,
        EventId::None => return event.time,
    };
    let device = hash::fnv1a(event.device.as_bytes());
    event.time + (device % 1000 + number % 1000) % 1000
}

/// The labels of a piece, and its entry.
pub(super) fn split(piece: &[u8]) -> (&[u8], &[u8]) {
    let mut length = 0usize;
    for (at, byte) in piece.iter().enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return piece[at + 1..].split_at(length);
        }
    }
    (&[], &[])
}

impl Encoder for LokiEncoder {
    fn limits(&self) -> Limits {
        Limits {
            events: 10_000,
            // A snappy block of what cannot be compressed is a little larger than it was.
            overhead: 64,
            ..Limits::USUAL
        }
    }

    fn encode(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<usize, Unfit> {
        let mut labels = std::mem::take(&mut self.raw);
        labels.clear();
        let written = self.write_labels(event, &mut labels);
        wire::varint(labels.len() as u64, out);
        out.extend_from_slice(&labels);
        self.raw = labels;
        written?;
        self.write_entry(event, out)?;
        // Should it be alone in its stream: the fields around labels and entry; and what snappy adds.
        Ok(out.len() + out.len() / 6 + 12)
    }

    fn body(&mut self, request: &Request, out: &mut Vec<u8>) {
        // Streams in the order of their first events, entries of each in order.
        let mut streams: Vec<(&[u8], Vec<&[u8]>)> = Vec::new();
        let mut places: HashMap<&[u8], usize> = HashMap::new();
        for (labels, entry) in request.pieces().map(split) {
            let place = *places.entry(labels).or_insert_with(|| {
                streams.push((labels, Vec::new()));
                streams.len() - 1
            });
            streams[place].1.push(entry);
        }
        self.raw.clear();
        for (labels, entries) in streams {
            let entries_length: usize = entries.iter().map(|entry| entry.len()).sum();
            let labels_length = 1 + wire::varint_len(labels.len() as u64) + labels.len();
            wire::head(1, labels_length + entries_length, &mut self.raw);
            wire::bytes(1, labels, &mut self.raw);
            for entry in entries {
                self.raw.extend_from_slice(entry);
            }
        }
        out.resize(snap::raw::max_compress_len(self.raw.len()), 0);
        // Fails only where `out` is too short, or beyond 4 GiB, which no request reaches.
        let written = self.snappy.compress(&self.raw, out).unwrap_or(0);
        out.truncate(written);
    }
}
