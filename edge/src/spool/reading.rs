//! What is on disk is read ahead, in order, for whoever sends it; what is damaged is declared.

use thinglog_journal::Journal;

use super::{READ_BYTES, REMEMBERED_LANES, Spool, record};
use crate::{
    sealed::{Sealed, Sealer},
    window::Place,
};

impl Spool {
    /// Everything that is on disk has been read.
    pub(crate) fn is_drained(&self) -> bool {
        let settled = self.journal.as_ref().map(Journal::settled);
        self.backlog.is_empty() && settled.is_none_or(|end| self.reader.offset() >= end)
    }

    /// The next batch to send, and where it stands.
    pub(crate) fn next(&mut self, sealer: &mut Sealer) -> Option<(Sealed, Place)> {
        if self.backlog.is_empty() {
            self.read(sealer);
        }
        self.backlog.pop_front()
    }

    /// What was read and is not on its way is read again: from `from` on, or what was read ahead.
    pub(crate) fn rewind(&mut self, from: Option<u64>) {
        let ahead = self.backlog.front().map(|(_, place)| place.offset);
        let from = from.or(ahead);
        self.backlog.clear();
        if let (Some(from), Some(journal)) = (from, &self.journal) {
            self.reader = journal.reader(from);
        }
    }

    fn read(&mut self, sealer: &mut Sealer) {
        if self.is_drained() {
            return;
        }
        let chunk = match self.reader.poll_memory() {
            Some(chunk) => chunk,
            None => match self.reader.read(READ_BYTES) {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(%error, "the spool cannot be read");
                    return;
                }
            },
        };
        self.note_damage(chunk.quarantined);
        for record in chunk.records() {
            match record::read(record.payload) {
                Ok(sealed) => self.take(sealed, record.offset, sealer),
                Err(error) => {
                    tracing::warn!(%error, offset = record.offset, "skipped a record of the spool");
                    self.note_damage(1);
                }
            }
        }
    }

    pub(super) fn note_damage(&mut self, places: u64) {
        self.damaged |= places > 0;
        self.unreadable += places;
    }

    /// Queues a record; when the spool has damaged places, what is missing of its lane is declared
    /// first. (Of a lane whose first or last records are damaged nothing is left to tell it by; the
    /// places are counted in [`unreadable`](Spool::unreadable). Without damage a lane may have holes
    /// here: batches that went around a full spool.)
    fn take(&mut self, sealed: Sealed, offset: u64, sealer: &mut Sealer) {
        let expected = self.expected.get(&sealed.epoch).copied();
        if self.damaged
            && let Some(expected) = expected.filter(|expected| *expected < sealed.first_seq)
        {
            let (from, to) = (expected, sealed.first_seq - 1);
            let missing = sealer.unreadable(&sealed.source, sealed.epoch, from, to);
            let place = Place {
                offset,
                last: false,
            };
            self.backlog.extend(missing.map(|missing| (missing, place)));
        }
        if expected.is_some() || self.expected.len() < REMEMBERED_LANES {
            self.expected.insert(sealed.epoch, sealed.last_seq + 1);
        }
        self.backlog
            .push_back((sealed, Place { offset, last: true }));
    }
}
