//! Any payload of `logs/<device>/<source>` to events: batch, JSON object, JSON array, NDJSON or
//! plain text (one event a line, INFO); else an error whose text is the quarantine reason.
//!
//! A payload that opens with `{` or `[` and parses to its end is JSON; one that does not parse is
//! plain text, every line of it, because half-parsed lines would hide what was sent. How an object
//! becomes an event stands in `object`.

mod object;

use std::sync::Arc;

use object::{Document, Element, Fields};
use serde_json::Value;

use crate::{Attributes, Event, EventId, Severity, batch, json, limits};

/// The source of thinglog's own events about a device.
pub const OWN_SOURCE: &str = "thinglog";

/// What the broker knows of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Journal id and offset; absent behind other brokers.
    pub stored: Option<(u64, u64)>,
    /// ns since the Unix epoch.
    pub received: u64,
    /// Who authenticated; absent without credentials.
    pub principal: Option<Arc<str>>,
    /// The publisher's IP address.
    pub address: Option<Arc<str>>,
}

/// What a payload says.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// In the order of the payload.
    pub events: Vec<Event>,
    /// Present for batches: what gap detection needs.
    pub lane: Option<Lane>,
}

/// Which part of its lane a batch speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Of the lane.
    pub epoch: u64,
    /// The first seq this payload speaks for.
    pub first_seq: u64,
    /// The last seq this payload speaks for, drops included.
    pub last_seq: u64,
    /// Declared drops.
    pub drops: Vec<batch::Drop>,
}

/// Why a payload holds no events; the text is the quarantine reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// It has a batch's magic, but is none.
    #[error("{0}")]
    Batch(#[from] batch::DecodeError),
    /// Bytes.
    #[error("neither batch, JSON nor UTF-8 text: byte {at} is 0x{byte:02x}")]
    NotText {
        /// Position of the first byte that is not UTF-8.
        at: usize,
        /// That byte.
        byte: u8,
    },
    /// Larger than a payload may be.
    #[error("payload of {0} bytes is over the limit of {limit}", limit = batch::MAX_PAYLOAD)]
    TooLarge(usize),
    /// More events than a payload may have.
    #[error("{0} events in one payload, over the limit of {limit}", limit = batch::MAX_EVENTS)]
    TooManyEvents(usize),
}

/// Decodes payloads; keeps scratch between calls. `device` and `source` are the topic's.
pub struct PayloadDecoder {
    batches: batch::Decoder,
}

impl Default for PayloadDecoder {
    fn default() -> PayloadDecoder {
        PayloadDecoder::new()
    }
}

impl PayloadDecoder {
    /// A decoder with empty scratch.
    pub fn new() -> PayloadDecoder {
        PayloadDecoder {
            batches: batch::Decoder::new(),
        }
    }

    /// The events of a payload; none for an empty one. Events that say no time of their own happened
    /// when they were received.
    pub fn decode(
        &mut self,
        device: &Arc<str>,
        source: &Arc<str>,
        payload: &[u8],
        stamp: &Stamp,
    ) -> Result<Decoded, PayloadError> {
        if payload.len() > batch::MAX_PAYLOAD {
            return Err(PayloadError::TooLarge(payload.len()));
        }
        if batch::is_batch(payload) {
            return Ok(from_batch(
                device,
                source,
                self.batches.decode(payload)?,
                stamp,
            ));
        }
        let text = std::str::from_utf8(payload).map_err(|error| {
            let at = error.valid_up_to();
            PayloadError::NotText {
                at,
                byte: payload[at],
            }
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut plain = Plain {
            device,
            source,
            stamp,
            events: Vec::new(),
            count: 0,
        };
        if text.trim_ascii_start().starts_with(['{', '[']) && plain.json(text).is_ok() {
            return plain.finish();
        }
        plain.events.clear();
        plain.count = 0;
        plain.text(text);
        plain.finish()
    }
}

fn from_batch(device: &Arc<str>, source: &Arc<str>, batch: batch::Batch, stamp: &Stamp) -> Decoded {
    let last_seq = batch.last_seq();
    let batch::Batch {
        epoch,
        first_seq,
        clock,
        drops,
        entries,
    } = batch;
    // Monotonic times become times by the broker's clock at the moment of sending.
    let time = |time: u64| {
        if clock.synced {
            time
        } else {
            stamp
                .received
                .saturating_sub(clock.sent_mono.saturating_sub(time))
        }
    };
    let event = |entry: batch::Entry| Event {
        device: device.clone(),
        source: source.clone(),
        id: EventId::Spooled {
            epoch,
            seq: entry.seq,
        },
        time: time(entry.time),
        time_estimated: !clock.synced,
        severity: entry.severity,
        message: entry.message,
        truncated: entry.truncated,
        attributes: entry.attributes,
        received: stamp.received,
    };
    let events = entries.into_iter().map(event).collect();
    Decoded {
        events,
        lane: Some(Lane {
            epoch,
            first_seq,
            last_seq,
            drops,
        }),
    }
}

/// The events of a payload that is not a batch, as they are found.
struct Plain<'a> {
    device: &'a Arc<str>,
    source: &'a Arc<str>,
    stamp: &'a Stamp,
    events: Vec<Event>,
    /// Found, whether or not there was room for them.
    count: usize,
}

impl Plain<'_> {
    fn finish(self) -> Result<Decoded, PayloadError> {
        if self.count > batch::MAX_EVENTS {
            return Err(PayloadError::TooManyEvents(self.count));
        }
        Ok(Decoded {
            events: self.events,
            lane: None,
        })
    }

    /// One document, or several one after the other (NDJSON).
    fn json(&mut self, text: &str) -> Result<(), serde_json::Error> {
        for document in serde_json::Deserializer::from_str(text).into_iter::<Document>() {
            match document? {
                Document::One(element) => self.element(element),
                Document::Array { elements, count } => {
                    let beyond = count - elements.len();
                    elements
                        .into_iter()
                        .for_each(|element| self.element(element));
                    self.count += beyond;
                }
            }
        }
        Ok(())
    }

    fn element(&mut self, element: Element) {
        match element {
            Element::Object(fields) => self.object(fields),
            Element::Text(text) => self.line(&text),
            Element::Other(value) => {
                let mut text = Vec::new();
                json::write_value(&value, &mut text);
                self.line(&String::from_utf8(text).unwrap_or_default());
            }
        }
    }

    fn object(&mut self, mut fields: Fields) {
        let gap = own_id(self.source, &mut fields.attributes);
        limits::bound_attributes(&mut fields.attributes);
        self.push(|event| {
            event.id = gap.unwrap_or(event.id);
            event.time = fields.time.unwrap_or(event.time);
            event.severity = fields.severity.unwrap_or(event.severity);
            event.message = fields.message;
            event.truncated = fields.truncated;
            event.attributes = fields.attributes;
        });
    }

    fn text(&mut self, text: &str) {
        let lines = text.lines().filter(|line| !line.trim_ascii().is_empty());
        lines.for_each(|line| self.line(line));
    }

    fn line(&mut self, line: &str) {
        let (message, truncated) = limits::cut(line);
        self.push(|event| {
            event.message = message.to_owned();
            event.truncated = truncated;
        });
    }

    /// Counts an event and, while there is room, makes it: `fill` changes the defaults.
    fn push(&mut self, fill: impl FnOnce(&mut Event)) {
        let index = self.count;
        self.count += 1;
        if index >= batch::MAX_EVENTS {
            return;
        }
        let id = match self.stamp.stored {
            Some((journal, offset)) => EventId::Stored {
                journal,
                offset,
                index: index as u32,
            },
            None => EventId::None,
        };
        let mut event = Event {
            device: self.device.clone(),
            source: self.source.clone(),
            id,
            time: self.stamp.received,
            time_estimated: false,
            severity: Severity::INFO,
            message: String::new(),
            truncated: false,
            attributes: Attributes::new(),
            received: self.stamp.received,
        };
        fill(&mut event);
        self.events.push(event);
    }
}

/// The router publishes what it found missing as JSON events of source [`OWN_SOURCE`], whose id has
/// to stay the same for every destination. Anywhere else `id` is an attribute like others.
fn own_id(source: &str, attributes: &mut Attributes) -> Option<EventId> {
    if source != OWN_SOURCE {
        return None;
    }
    let (_, gap) = attributes
        .get("id")
        .and_then(Value::as_str)
        .and_then(EventId::parse)?;
    if !matches!(gap, EventId::Gap { .. }) {
        return None;
    }
    attributes.remove("id");
    Some(gap)
}

#[cfg(test)]
mod tests;
