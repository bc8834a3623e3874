//! The events a destination is given at once: decoded payloads, shared with other destinations,
//! and which of their events remain after deduplication and levels.

use std::sync::Arc;

use thinglog_schemas::Event;
use thinglog_schemas::payload::Decoded;

/// Events to deliver, in receive order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    parts: Vec<Part>,
    events: usize,
    /// Rough size of the events in memory, bytes.
    weight: usize,
}

#[derive(Debug)]
struct Part {
    decoded: Arc<Decoded>,
    keep: Keep,
}

/// Which events of a payload remain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    All,
    /// Indices, ascending; not empty.
    Some(Vec<u32>),
}

impl Batch {
    /// Adds what remains of a payload of `weight` bytes.
    pub(crate) fn push(&mut self, decoded: Arc<Decoded>, keep: Keep, weight: usize) {
        self.events += match &keep {
            Keep::All => decoded.events.len(),
            Keep::Some(indices) => indices.len(),
        };
        self.weight += weight;
        self.parts.push(Part { decoded, keep });
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = &Event> {
        self.parts.iter().flat_map(Part::events)
    }

    /// The events as places in the payloads they came with.
    pub(crate) fn items(&self) -> impl Iterator<Item = (Arc<Decoded>, u32)> {
        self.parts.iter().flat_map(|part| {
            let places: Box<dyn Iterator<Item = u32>> = match &part.keep {
                Keep::All => Box::new(0..part.decoded.events.len() as u32),
                Keep::Some(indices) => Box::new(indices.iter().copied()),
            };
            places.map(|index| (Arc::clone(&part.decoded), index))
        })
    }

    /// Number of events.
    pub(crate) fn len(&self) -> usize {
        self.events
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    /// Empties the batch, keeping its memory.
    pub(crate) fn clear(&mut self) {
        self.parts.clear();
        self.events = 0;
        self.weight = 0;
    }
}

impl Part {
    fn events(&self) -> impl Iterator<Item = &Event> {
        let (all, some) = match &self.keep {
            Keep::All => (&self.decoded.events[..], &[][..]),
            Keep::Some(indices) => (&[][..], &indices[..]),
        };
        let chosen = some
            .iter()
            .filter_map(|at| self.decoded.events.get(*at as usize));
        all.iter().chain(chosen)
    }
}

/// Rough memory of decoded events, bytes.
pub(crate) fn weight(decoded: &Decoded) -> usize {
    /// An event's own fields and the overhead of its message.
    const EVENT: usize = 160;
    /// An attribute with key, value and its share of the map.
    const ATTRIBUTE: usize = 120;
    let of = |event: &Event| EVENT + event.message.len() + ATTRIBUTE * event.attributes.len();
    decoded.events.iter().map(of).sum()
}
