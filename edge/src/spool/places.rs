//! The places of sources in a spool: gathered from the records as they become durable, and noted in
//! a file beside the journal before the records that hold them go.

use std::{
    io,
    time::{Duration, Instant},
};

use thinglog_journal::{Journal, ReadError};

use super::{READ_BYTES, dir::SpoolDir, record};
use crate::{
    marks::{Mark, Marks},
    sealed::Sealed,
};

/// Places that no record holds wait so long for others before the file is written.
const NOTE_LOOSE: Duration = Duration::from_secs(300);
/// The same for those of events that were acknowledged without ever being on disk.
const NOTE_SENT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Places {
    marks: Marks,
    /// The places of all durable records below this are in `marks`; and in the file.
    through: u64,
    noted: u64,
    /// Places that stand in no record: when to note them.
    due: Option<Instant>,
}

impl Places {
    /// What was noted, and what the records after it say.
    pub(super) fn open(dir: &SpoolDir, journal: &Journal) -> Result<Places, ReadError> {
        let (marks, noted) = dir.marks(journal.id());
        let mut places = Places {
            marks,
            through: noted,
            noted,
            due: None,
        };
        let mut reader = journal.reader(noted.max(journal.first()));
        while let Some(chunk) = reader.read(READ_BYTES)? {
            // What cannot be read is met again, and counted, on the way out.
            let records = chunk.records().filter_map(|r| record::read(r.payload).ok());
            for mark in records.flat_map(|sealed| sealed.marks) {
                places.marks.set(mark);
            }
        }
        places.through = reader.offset();
        Ok(places)
    }

    pub(super) fn marks(&self) -> &Marks {
        &self.marks
    }

    /// A group that ends at `end` is durable.
    pub(super) fn stored(&mut self, group: &[Sealed], end: u64) {
        for mark in group.iter().flat_map(|sealed| &sealed.marks) {
            self.marks.set(mark.clone());
        }
        self.through = end;
    }

    /// Everything before these places has passed without a record: it was filtered.
    pub(super) fn passed(&mut self, marks: Vec<Mark>, now: Instant) {
        self.take(marks, now + NOTE_LOOSE);
    }

    /// Everything before these places was acknowledged without ever being on disk.
    pub(super) fn sent(&mut self, marks: Vec<Mark>, now: Instant) {
        self.take(marks, now + NOTE_SENT);
    }

    fn take(&mut self, marks: Vec<Mark>, due: Instant) {
        for mark in marks {
            if self.marks.set(mark) {
                self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
            }
        }
    }

    /// When [`note`](Places::note) has something to do by itself.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The file does not say all: the next start would read records to know the rest.
    pub(super) fn is_behind(&self) -> bool {
        self.due.is_some() || self.noted < self.through
    }

    /// Writes the file before the records below `end` go. Nothing when it holds their places.
    pub(super) fn before_release(
        &mut self,
        end: u64,
        dir: &SpoolDir,
        journal: &Journal,
    ) -> io::Result<()> {
        if end <= self.noted {
            return Ok(());
        }
        // Without any source that gives places there is no file.
        if self.marks.is_empty() {
            self.noted = self.through;
            return Ok(());
        }
        self.note(dir, journal)
    }

    /// Writes the file.
    pub(super) fn note(&mut self, dir: &SpoolDir, journal: &Journal) -> io::Result<()> {
        dir.note_marks(&self.marks, journal.id(), self.through)?;
        self.noted = self.through;
        self.due = None;
        Ok(())
    }

    /// The file could not be written.
    pub(super) fn put_off(&mut self, until: Instant) {
        self.due = self.due.map(|due| due.max(until));
    }
}
