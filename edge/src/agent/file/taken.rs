//! What was read, as records: each with where its file stands behind it, so that a spool remembers
//! the place in one piece with the event.

use std::{collections::VecDeque, sync::Arc};

use thinglog_schemas::Severity;

use super::{
    OWN,
    position::{self, Position},
    set::{Block, Taker},
};
use crate::{
    Record,
    agent::{
        lines::Line,
        recognise::{LineOptions, Recogniser},
        sink::Sink,
    },
};

pub(super) struct Taken {
    recogniser: Recogniser,
    /// Where the records go.
    sink: Sink,
    scratch: Vec<u8>,
    /// The places are of use.
    marking: bool,
    records: Vec<Record>,
    /// Where each record ends.
    ends: Vec<u64>,
    batches: Vec<Batch>,
}

/// What was read of one file at a time, in order.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) source: Arc<str>,
    /// Names what is followed.
    pub(super) key: u64,
    /// The path that is followed.
    pub(super) path: Arc<str>,
    /// Each with the place behind it.
    pub(super) records: VecDeque<(Record, Vec<u8>)>,
    /// Where everything stands that has left; as positions are encoded.
    pub(super) stands: Vec<u8>,
    /// The same when nothing is left.
    pub(super) after: Vec<u8>,
}

impl Taken {
    pub(super) fn new(sink: &Sink, lines: LineOptions, marking: bool) -> Taken {
        Taken {
            recogniser: Recogniser::new(OWN, Severity::INFO).reading(lines),
            sink: sink.clone(),
            scratch: Vec::new(),
            marking,
            records: Vec::new(),
            ends: Vec::new(),
            batches: Vec::new(),
        }
    }

    /// Whether the places of what is read from now on are of use.
    pub(super) fn mark(&mut self, marking: bool) {
        self.marking = marking;
    }

    /// How much that is.
    pub(super) fn events(&self) -> usize {
        self.batches.iter().map(|batch| batch.records.len()).sum()
    }

    /// Gives away what was read.
    pub(super) fn batches(&mut self) -> impl Iterator<Item = Batch> {
        self.batches.drain(..)
    }
}

impl Taker for Taken {
    fn take(&mut self, source: &Arc<str>, line: Line<'_>, end: u64) {
        let mut record = self.recogniser.record(line);
        record.source = source.clone();
        self.sink.prepare(&mut record, &mut self.scratch);
        self.records.push(record);
        self.ends.push(end);
    }

    fn end_block(&mut self, block: Block) {
        let records = self.records.drain(..).zip(self.ends.drain(..));
        let (mut stands, mut after, mut at) = (Vec::new(), Vec::new(), 0);
        if self.marking {
            after = position::encode(&block.after);
            (stands, at) = with(&block.after, block.reading);
        }
        let mut before = stands.clone();
        let placed = records.map(|(record, end)| {
            position::set_offset(&mut before, at, end);
            (record, before.clone())
        });
        let mut records: VecDeque<(Record, Vec<u8>)> = placed.collect();
        if let Some((_, place)) = records.back_mut() {
            place.clone_from(&after);
        }
        self.batches.push(Batch {
            source: block.source,
            key: block.key,
            path: block.path,
            records,
            stands,
            after,
        });
    }
}

/// `after` with one file as it stood before, encoded, and where it stands among them.
fn with(after: &[Position], reading: Position) -> (Vec<u8>, usize) {
    let mut before = after.to_vec();
    let known = before.iter().position(|position| position.id == reading.id);
    let reading = Position {
        passing_over: false,
        ..reading
    };
    match known {
        Some(at) => before[at] = reading,
        // It was closed, which the oldest is first.
        None => before.insert(0, reading),
    }
    (position::encode(&before), known.unwrap_or(0))
}
