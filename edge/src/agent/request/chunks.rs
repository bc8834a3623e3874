//! Events to messages of bounded size for the response topic. Pure.

use std::sync::Arc;

use thinglog_schemas::{Event, EventId, json, name, request};

use crate::{agent::history::Past, record::floor_char_boundary};

/// A chunk is closed at this size: below what small brokers take (AWS IoT: 128 KiB), and little enough
/// to be held a few times over.
const CHUNK: usize = 64 << 10;
/// An event that takes more than this is cut.
const MAX_EVENT: usize = 96 << 10;
/// What remains of the message of such an event; every byte may take six.
const CUT_MESSAGE: usize = 12 << 10;

/// Collects the events of one request.
#[derive(Debug)]
pub(super) struct Chunks {
    device: Arc<str>,
    id: String,
    /// Objects with commas between.
    events: Vec<u8>,
    number: u64,
    bytes: u64,
}

impl Chunks {
    pub(super) fn new(device: &str, id: &str) -> Chunks {
        Chunks {
            device: device.into(),
            id: id.to_owned(),
            events: Vec::new(),
            number: 0,
            bytes: 0,
        }
    }

    /// Chunks given out so far.
    pub(super) fn count(&self) -> u64 {
        self.number
    }

    /// Bytes of the events so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes an event at `now` (ns since the Unix epoch); a chunk that it does not fit into any more
    /// is given out.
    pub(super) fn add(&mut self, past: Past, now: u64) -> Option<Vec<u8>> {
        let event = self.render(past, now);
        let full = !self.events.is_empty() && self.events.len() + event.len() > CHUNK;
        let chunk = if full { self.finish(now) } else { None };
        if !self.events.is_empty() {
            self.events.push(b',');
        }
        self.bytes += event.len() as u64;
        self.events.extend_from_slice(&event);
        chunk
    }

    /// What was not given out yet.
    pub(super) fn finish(&mut self, now: u64) -> Option<Vec<u8>> {
        if self.events.is_empty() {
            return None;
        }
        let state = request::State::Chunk {
            chunk: self.number,
            events: Vec::new(),
        };
        // `…,"events":[]}`: the events are text already.
        let mut message = request::write(&self.id, now, &state);
        message.truncate(message.len() - 2);
        message.append(&mut self.events);
        message.extend_from_slice(b"]}");
        self.number += 1;
        Some(message)
    }

    fn render(&self, past: Past, now: u64) -> Vec<u8> {
        let record = past.record;
        let mut event = Event {
            device: self.device.clone(),
            source: name::encode(&record.source).as_ref().into(),
            id: EventId::None,
            time: record.time.unwrap_or(now),
            time_estimated: past.estimated,
            severity: record.severity,
            message: record.message,
            truncated: record.truncated,
            attributes: record.attributes,
            received: now,
        };
        let mut text = Vec::new();
        json::write(&event, &mut text);
        if text.len() > MAX_EVENT {
            event.truncated = true;
            event.attributes.clear();
            let end = floor_char_boundary(&event.message, CUT_MESSAGE);
            event.message.truncate(end);
            text.clear();
            json::write(&event, &mut text);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use thinglog_schemas::{
        Severity,
        request::{Response, State},
    };

    use super::*;
    use crate::Record;

    fn past(message: &str) -> Past {
        Past {
            record: Record::new("my app", Severity::WARN, message).at(1_000),
            estimated: true,
        }
    }

    fn events(chunk: &[u8]) -> (u64, Vec<Event>) {
        let response: Response = serde_json::from_slice(chunk).unwrap();
        assert_eq!(response.id, "r1");
        let State::Chunk { chunk, events } = response.state else {
            panic!("not a chunk");
        };
        let read = |event: &serde_json::Value| json::read(event.to_string().as_bytes()).unwrap();
        (chunk, events.iter().map(read).collect())
    }

    #[test]
    fn events_go_in_order_in_numbered_chunks_of_bounded_size() {
        let mut chunks = Chunks::new("lamp-7", "r1");
        let message = "x".repeat(10_000);
        let mut out: Vec<Vec<u8>> = (0..20)
            .filter_map(|i| chunks.add(past(&format!("{i} {message}")), 5))
            .collect();
        out.extend(chunks.finish(5));
        assert_eq!(chunks.count(), out.len() as u64);
        assert!(out.iter().all(|chunk| chunk.len() < CHUNK + 1000));
        let mut seen = 0;
        for (number, chunk) in out.iter().enumerate() {
            let (chunk, events) = events(chunk);
            assert_eq!(chunk, number as u64);
            for event in events {
                assert!(event.message.starts_with(&format!("{seen} ")));
                assert_eq!((&*event.device, &*event.source), ("lamp-7", "my%20app"));
                assert!(event.time_estimated && event.time == 1_000);
                seen += 1;
            }
        }
        assert_eq!(seen, 20);
        assert!(chunks.finish(5).is_none());
    }

    #[test]
    fn an_event_that_would_burst_a_chunk_is_cut_and_says_so() {
        let mut chunks = Chunks::new("lamp-7", "r1");
        let mut huge = past(&"\u{1}".repeat(256 << 10));
        huge.record = huge.record.with("k", json!("v"));
        chunks.add(huge, 5);
        let chunk = chunks.finish(5).unwrap();
        assert!(chunk.len() < MAX_EVENT);
        assert!(events(&chunk).1[0].truncated);
    }
}
