//! The stage of an archive: payloads as they came. Nothing is decoded, and no level, role, condition or
//! route is asked, so that an archive also has what a level kept from every other destination and what
//! nobody could read. The books count payloads.
//!
//! A payload is recognised by its offset in the broker's journal. Behind brokers that number nothing one
//! that comes again is kept again.

use super::stage::{Closing, Ledger, Pushed, Stage, Tick};
use super::{Destination, Outcome};
use crate::dedup::table::Table;
use crate::mqtt::Delivery;
use crate::state::{Growth, StateError};
use crate::telemetry::Books;

/// Payloads after which a chunk is handed on.
const CHUNK_PAYLOADS: usize = 4096;
/// Bytes after which it is.
const CHUNK_BYTES: usize = 4 << 20;
/// What a payload takes beside its bytes, roughly.
const PAYLOAD: usize = 200;

/// A place that takes payloads; commits are those of a destination.
pub(crate) trait Archive: Destination {
    /// Takes payloads, in receive order.
    fn keep(&mut self, payloads: &[Delivery]) -> Outcome;
}

/// What stands between deliveries and an archive.
pub(crate) struct Keep<A> {
    table: Table,
    archive: A,
    chunk: Vec<Delivery>,
    bytes: usize,
    books: Books,
    ledger: Ledger,
}

impl<A: Archive> Keep<A> {
    pub(crate) fn new(table: Table, archive: A, books: Books, growth: Growth) -> Keep<A> {
        Keep {
            table,
            archive,
            chunk: Vec::new(),
            bytes: 0,
            books,
            ledger: Ledger::new(growth),
        }
    }
}

impl<A: Archive> Stage for Keep<A> {
    fn take(&mut self, delivery: &Delivery, _now: u64) -> usize {
        let stamp = &delivery.stamp;
        if let Some(place) = stamp.stored
            && !self.table.admit(place, stamp.received)
        {
            self.books.redelivered.inc();
            return 0;
        }
        self.books.take(1, 0);
        let bytes = PAYLOAD + delivery.payload.len();
        self.chunk.push(delivery.clone());
        self.bytes += bytes;
        bytes
    }

    fn is_full(&self) -> bool {
        self.chunk.len() >= CHUNK_PAYLOADS || self.bytes >= CHUNK_BYTES
    }

    fn push(&mut self) -> Pushed {
        if self.chunk.is_empty() {
            return Pushed::Done;
        }
        let payloads = self.chunk.len() as u64;
        match self.archive.keep(&self.chunk) {
            Outcome::Delivered => self.ledger.tally.delivered += payloads,
            Outcome::Taken => {}
            Outcome::Rejected { reason } => {
                tracing::error!(payloads, reason, "an archive refused payloads for good");
                self.ledger.tally.rejected += payloads;
            }
            Outcome::Retry { after, reason } => return Pushed::Retry { after, reason },
        }
        self.chunk.clear();
        self.bytes = 0;
        Pushed::Done
    }

    fn commit(&mut self) -> Result<Closing, StateError> {
        self.ledger.close(&mut self.archive, &mut self.table)
    }

    fn committed(&mut self) -> std::io::Result<()> {
        self.archive.committed()
    }

    fn tick(&mut self, now: std::time::Instant) -> Tick {
        Tick::of(self.archive.due(), now)
    }
}
