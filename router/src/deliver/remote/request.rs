//! A request: events with their pieces, before they are put together into a body.

use std::sync::Arc;

use thinglog_schemas::Event;
use thinglog_schemas::payload::Decoded;

/// One event on its way.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// The payload it came with, shared.
    pub(crate) decoded: Arc<Decoded>,
    /// Its place there.
    pub(crate) index: u32,
    /// The chunk it belongs to.
    pub(crate) ticket: u64,
}

impl Item {
    /// The event.
    pub(crate) fn event(&self) -> &Event {
        &self.decoded.events[self.index as usize]
    }
}

/// Events that go together, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    key: Box<str>,
    items: Vec<Item>,
    pieces: Vec<u8>,
    /// End and cost of each piece.
    marks: Vec<(usize, usize)>,
    cost: usize,
}

impl Request {
    /// A request without events.
    pub(crate) fn new(key: &str) -> Request {
        Request {
            key: key.into(),
            ..Request::default()
        }
    }

    /// Appends an event with its piece, which costs `cost`.
    pub(crate) fn push(&mut self, item: Item, piece: &[u8], cost: usize) {
        self.items.push(item);
        self.pieces.extend_from_slice(piece);
        self.marks.push((self.pieces.len(), cost));
        self.cost += cost;
    }

    /// What all its events have in common, see `Encoder::key`.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Number of events.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// The sum of its pieces' costs.
    pub(crate) fn cost(&self) -> usize {
        self.cost
    }

    /// Its events, in order.
    pub(crate) fn events(&self) -> impl ExactSizeIterator<Item = &Event> {
        self.items.iter().map(Item::event)
    }

    /// The pieces, in order.
    pub(crate) fn pieces(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.marks.len()).map(|at| self.piece(at))
    }

    /// All pieces, one behind the other.
    pub(crate) fn joined(&self) -> &[u8] {
        &self.pieces
    }

    fn piece(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.marks[before].0);
        &self.pieces[start..self.marks[at].0]
    }

    /// Gives up the pieces.
    pub(crate) fn into_items(self) -> Vec<Item> {
        self.items
    }

    /// Takes apart by what `sort` says of each event: the first are those where it says true.
    pub(crate) fn partition(self, mut sort: impl FnMut(usize) -> bool) -> (Request, Request) {
        let (mut yes, mut no) = (Request::new(&self.key), Request::new(&self.key));
        for at in 0..self.items.len() {
            let side = if sort(at) { &mut yes } else { &mut no };
            side.push(self.items[at].clone(), self.piece(at), self.marks[at].1);
        }
        (yes, no)
    }

    /// Both halves, in order; the first is the larger one.
    pub(crate) fn halves(self) -> (Request, Request) {
        let middle = self.len().div_ceil(2);
        self.partition(|at| at < middle)
    }
}
