//! Events to records: a piece is the time, eight bytes, then key, id, level and value, each with its
//! length (four bytes) in front. Pure.

use std::borrow::Cow;

use thinglog_schemas::{Event, json};

use crate::deliver::remote::request::Request;
use crate::deliver::remote::{Encoder, Limits, Unfit};
use crate::routes::template::Template;

/// Most bytes of a topic's name.
const LONGEST_TOPIC: usize = 249;
/// Bytes of a record batch before its records (the protocol guide, "Record Batch").
const BATCH_HEAD: usize = 61;
/// What a record has besides key, id, level and value, its variable numbers at their longest: length 5,
/// attributes 1, time 10, offset 5, lengths of key and value 10, number of headers 1, the headers `id` and
/// `level` with their lengths 8 and 11.
const RECORD_HEAD: usize = 51;

/// Encodes events as configured.
pub(crate) struct KafkaEncoder {
    pub(super) topic: Template,
}

impl Encoder for KafkaEncoder {
    /// A batch of all events of a request is never larger than brokers take unless configured otherwise
    /// (`message.max.bytes`, 1,048,588).
    fn limits(&self) -> Limits {
        Limits {
            overhead: BATCH_HEAD,
            ..Limits::USUAL
        }
    }

    /// The topic. What no name may have becomes `_`, so that no event chooses one that was not meant.
    fn key<'a>(&self, event: &'a Event) -> Cow<'a, str> {
        let mut topic = Vec::new();
        self.topic.write(event, &mut topic);
        for byte in &mut topic {
            if !byte.is_ascii_alphanumeric() && !b"._-".contains(byte) {
                *byte = b'_';
            }
        }
        topic.truncate(LONGEST_TOPIC);
        Cow::Owned(String::from_utf8_lossy(&topic).into_owned())
    }

    fn encode(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<usize, Unfit> {
        let topic = self.key(event);
        if matches!(&*topic, "" | "." | "..") {
            return Err(Unfit(format!("its topic would be called {topic:?}")));
        }
        let time = i64::try_from(event.time / 1_000_000).unwrap_or(i64::MAX);
        out.extend_from_slice(&time.to_be_bytes());
        put(out, event.device.as_bytes());
        put(
            out,
            event.id.text(&event.device).unwrap_or_default().as_bytes(),
        );
        put(out, event.severity.level().name().as_bytes());
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        json::write(event, out);
        let length = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        // Less the time and four lengths, which a record has in its own form.
        Ok(out.len() - 24 + RECORD_HEAD)
    }

    fn body(&mut self, request: &Request, out: &mut Vec<u8>) {
        out.extend_from_slice(request.joined());
    }
}

fn put(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&(text.len() as u32).to_be_bytes());
    out.extend_from_slice(text);
}

/// A piece taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    /// Milliseconds since the Unix epoch.
    pub(super) time: i64,
    pub(super) key: &'a [u8],
    /// Empty: none.
    pub(super) id: &'a [u8],
    pub(super) level: &'a [u8],
    pub(super) value: &'a [u8],
}

impl Parts<'_> {
    pub(super) fn of(piece: &[u8]) -> Option<Parts<'_>> {
        let (time, rest) = piece.split_first_chunk::<8>()?;
        let (key, rest) = text(rest)?;
        let (id, rest) = text(rest)?;
        let (level, rest) = text(rest)?;
        let (value, _) = text(rest)?;
        Some(Parts {
            time: i64::from_be_bytes(*time),
            key,
            id,
            level,
            value,
        })
    }
}

fn text(piece: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = piece.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}
