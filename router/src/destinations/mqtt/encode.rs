//! Events to PUBLISH packets. Pure.
//!
//! A body is the packets themselves, one behind the other, with packet identifier 0: the connection
//! puts in its own ([`number`]).

use std::borrow::Cow;

use serde_json::Value;
use thinglog_schemas::{Event, Topic, Topics, json};

use crate::config::MqttFormat;
use crate::deliver::remote::request::Request;
use crate::deliver::remote::{Encoder, Limits, Unfit};
use crate::routes::template::Template;

/// Longest topic, bytes (section 1.5.4).
const LONGEST_TOPIC: usize = u16::MAX as usize;
/// Bytes of a PUBLISH besides topic, properties and payload, at most: the fixed header, the length of
/// the topic, the packet identifier.
const FRAME: usize = 5 + 2 + 2;

/// The key that says by which destinations an event went.
const VIA: &str = "via";
/// Most of them.
const MOST_VIA: usize = 16;

/// Where an event is published.
pub(super) enum Place {
    /// `<root>/out/<route>/<device>`
    Out { topics: Topics, route: String },
    /// By a template.
    Template(Template),
}

impl Place {
    fn topic(&self, event: &Event) -> String {
        match self {
            Place::Out { topics, route } => topics.format(Topic::Out {
                route,
                device: &event.device,
            }),
            Place::Template(template) => {
                let mut out = Vec::new();
                template.write(event, &mut out);
                String::from_utf8_lossy(&out).into_owned()
            }
        }
    }
}

/// Encodes events as configured.
pub(crate) struct MqttEncoder {
    pub(super) place: Place,
    /// Which destination this is; none where nothing can come back from.
    pub(super) id: Option<String>,
    pub(super) format: MqttFormat,
    pub(super) retain: bool,
    /// Of each PUBLISH, with their length.
    pub(super) properties: Vec<u8>,
}

impl Encoder for MqttEncoder {
    fn limits(&self) -> Limits {
        Limits {
            overhead: FRAME + self.properties.len(),
            ..Limits::USUAL
        }
    }

    fn key<'a>(&self, event: &'a Event) -> Cow<'a, str> {
        match self.format {
            MqttFormat::Json => Cow::Borrowed(""),
            MqttFormat::Ndjson => Cow::Owned(self.place.topic(event)),
        }
    }

    fn encode(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<usize, Unfit> {
        let topic = self.place.topic(event);
        if topic.is_empty() || topic.len() > LONGEST_TOPIC {
            let reason = format!("its topic has {} bytes, not 1-65535", topic.len());
            return Err(Unfit(reason));
        }
        let mut payload = Vec::new();
        json::write(event, &mut payload);
        if let Some(id) = &self.id {
            payload.pop();
            write_via(event, id, &mut payload)?;
            payload.push(b'}');
        }
        match self.format {
            MqttFormat::Json => {
                self.publish(&topic, &payload, out);
                Ok(out.len())
            }
            MqttFormat::Ndjson => {
                out.extend_from_slice(&payload);
                // The topic stands in the message once; that is not known here.
                Ok(out.len() + 1 + topic.len())
            }
        }
    }

    fn body(&mut self, request: &Request, out: &mut Vec<u8>) {
        match self.format {
            MqttFormat::Json => out.extend_from_slice(request.joined()),
            MqttFormat::Ndjson => {
                let lines: Vec<&[u8]> = request.pieces().collect();
                self.publish(request.key(), &lines.join(&b'\n'), out);
            }
        }
    }
}

impl MqttEncoder {
    /// Appends a PUBLISH of QoS 1 (section 3.3) with packet identifier 0.
    fn publish(&self, topic: &str, payload: &[u8], out: &mut Vec<u8>) {
        let length = 2 + topic.len() + 2 + self.properties.len() + payload.len();
        out.reserve(FRAME + length);
        out.push(0x32 | u8::from(self.retain));
        let mut rest = length;
        loop {
            let more = if rest > 0x7F { 0x80 } else { 0 };
            out.push((rest & 0x7F) as u8 | more);
            rest >>= 7;
            if rest == 0 {
                break;
            }
        }
        out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
        out.extend_from_slice(topic.as_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&self.properties);
        out.extend_from_slice(payload);
    }
}

/// Appends by which destinations an event went, this one at last.
fn write_via(event: &Event, id: &str, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let via = event.attributes.get(VIA).and_then(Value::as_array);
    let via: Vec<&str> = via
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if via.contains(&id) || via.len() >= MOST_VIA {
        return Err(Unfit(
            "it was published by this destination before, or by too many others, and has come back: \
             topics lead in a circle"
                .into(),
        ));
    }
    out.extend_from_slice(b",\"via\":[");
    for before in via {
        json::write_string(before, out);
        out.push(b',');
    }
    json::write_string(id, out);
    out.push(b']');
    Ok(())
}

/// Gives the packets of a body identifiers from 1 on; gives the end of each.
pub(super) fn number(body: &mut [u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while let Some((start, end)) = extent(body, at) {
        let topic = usize::from(u16::from_be_bytes([body[start], body[start + 1]]));
        let id = (ends.len() + 1) as u16;
        body[start + 2 + topic..][..2].copy_from_slice(&id.to_be_bytes());
        ends.push(end);
        at = end;
    }
    ends
}

/// Where the variable header of the packet at `at` begins, and where the packet ends.
fn extent(body: &[u8], at: usize) -> Option<(usize, usize)> {
    let header = crate::mqtt::frame::header(body.get(at..)?, usize::MAX).ok()??;
    Some((at + header.length, at + header.total))
}
