//! What was read, as records: each with where its file stands behind it, so that a spool remembers
//! the place in one piece with the event.

use std::sync::Arc;

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
    },
};

pub(super) struct Taken {
    recogniser: Recogniser,
    /// The places are of use.
    marking: bool,
    records: Vec<Record>,
    /// Where each record of the block ends that is not complete yet.
    ends: Vec<u64>,
    passed: Vec<(Arc<str>, u64, Vec<u8>)>,
}

impl Taken {
    pub(super) fn new(lines: LineOptions, marking: bool) -> Taken {
        Taken {
            recogniser: Recogniser::new(OWN, Severity::INFO).reading(lines),
            marking,
            records: Vec::new(),
            ends: Vec::new(),
            passed: Vec::new(),
        }
    }

    /// One that stands in no file.
    pub(super) fn add(&mut self, record: Record) {
        self.records.push(record);
    }

    /// Gives the records away.
    pub(super) fn records(&mut self) -> impl Iterator<Item = Record> {
        self.records.drain(..)
    }

    /// The sources that were read from, with key and place: of use where no event of them was taken.
    pub(super) fn passed(&mut self) -> impl Iterator<Item = (Arc<str>, u64, Vec<u8>)> {
        self.passed.drain(..)
    }
}

impl Taker for Taken {
    fn take(&mut self, source: &Arc<str>, line: Line<'_>, end: u64) {
        let mut record = self.recogniser.record(line);
        record.source = source.clone();
        self.records.push(record);
        if self.marking {
            self.ends.push(end);
        }
    }

    fn end_block(&mut self, block: Block) {
        if !self.marking {
            return;
        }
        let after = position::encode(&block.after);
        let (mut before, at) = with(&block.after, block.reading);
        let first = self.records.len() - self.ends.len();
        let last = self.ends.len().saturating_sub(1);
        for (n, end) in self.ends.drain(..).enumerate() {
            let place = if n == last {
                after.as_slice()
            } else {
                position::set_offset(&mut before, at, end);
                before.as_slice()
            };
            let record = &mut self.records[first + n];
            record.mark(block.key, place);
        }
        self.passed.push((block.source, block.key, after));
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
