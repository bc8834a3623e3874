//! Makes room in a full spool: the least grave events on disk are given up for graver ones that
//! wait, and declared.
//!
//! Segments are rewritten in place, the oldest that holds the class first: the batches stay where
//! they are in the order, without the events that go, under the same offsets and seqs, with their
//! declaration. So nothing has to be moved, numbered or merged in order, and a crash leaves the old
//! segment or the new one. Small segments are joined with the one before them, so that their number
//! stays small. The journal keeps room for one segment below its cap free for this (its reserve); should others
//! have filled the disk, the reserve file makes room there.
//!
//! A class goes completely from all closed segments before the next graver one is touched. Nothing
//! of sources that wait is given up, nothing that is on its way to the broker, and nothing for an
//! event that is not graver.

use std::{collections::HashMap, io::ErrorKind, ops::Range, time::Instant};

use thinglog_journal::{Closed, Journal, ReadError, ReplaceError};

use super::{READ_BYTES, Spool, record};
use crate::sealed::{Classes, Sealed, Sealer, Thinned};

/// Segments read at most to find out what is in them, in one go.
const SURVEYS: usize = 8;

/// What was given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GivenUp {
    /// Events that are declared dropped now.
    pub(crate) events: u64,
    /// There is more room than before.
    pub(crate) freed: bool,
    /// Not everything was looked at.
    pub(crate) more: bool,
}

/// A stored batch, where it stands and when it was stored.
struct Stored {
    offset: u64,
    time: u64,
    sealed: Sealed,
}

impl Spool {
    /// The least grave class that could be given up, as far as is known.
    pub(crate) fn floor(&self) -> Option<usize> {
        let contents = self.contents.values().filter_map(|classes| classes.least());
        contents.min()
    }

    /// Whether looking for something less grave than class `below` could find anything.
    pub(crate) fn may_give_up(&self, below: usize) -> bool {
        let closed = self.journal.as_ref().map(Journal::closed);
        let mut closed = closed.unwrap_or_default();
        closed.retain(|segment| segment.end > self.released);
        let candidate = |segment: &Closed| {
            let known = self.contents.get(&segment.first);
            known.is_none_or(|classes| classes.least().is_some_and(|least| least < below))
        };
        closed.iter().any(candidate)
    }

    /// Gives up events of the least grave class below `below` that there is, out of one segment.
    /// Whatever stands in the window must have been told by [`rewind`](Spool::rewind) or is left
    /// alone.
    pub(crate) fn give_up(&mut self, below: usize, sealer: &mut Sealer, now: Instant) -> GivenUp {
        let mut given = GivenUp::default();
        if self.writing.is_some() {
            return given;
        }
        let Some(closed) = self.survey(&mut given.more) else {
            return given;
        };
        if given.more {
            self.room_wanted = true;
            return given;
        }
        for class in 0..below {
            for (at, segment) in closed.iter().enumerate() {
                let bits = self.contents.get(&segment.first).map_or(0, |c| c.0);
                if bits & ((2 << class) - 1) == 0 {
                    continue;
                }
                let rewritten = self.rewrite(&closed, at, class + 1, sealer);
                let rewritten = rewritten.or_else(|error| {
                    match error.is_full_disk() && self.reserve.give_up(now) {
                        true => self.rewrite(&closed, at, class + 1, sealer),
                        false => Err(error),
                    }
                });
                match rewritten {
                    Ok(0) => {}
                    Ok(events) => {
                        given.events = events;
                        given.freed = true;
                        return given;
                    }
                    Err(error) => {
                        self.complain(&error);
                        return given;
                    }
                }
            }
        }
        given
    }

    /// The closed segments that hold something, once it is known what.
    fn survey(&mut self, more: &mut bool) -> Option<Vec<Closed>> {
        let journal = self.journal.as_ref()?;
        let mut closed = journal.closed();
        closed.retain(|segment| segment.end > self.released);
        let held = |first: &u64| closed.binary_search_by_key(first, |s| s.first).is_ok();
        self.contents.retain(|first, _| held(first));
        let mut surveys = 0;
        for segment in &closed {
            if self.contents.contains_key(&segment.first) {
                continue;
            }
            if surveys == SURVEYS {
                *more = true;
                break;
            }
            surveys += 1;
            let range = segment.first.max(self.released)..segment.end;
            match read(journal, range) {
                Ok((stored, _)) => {
                    let classes = stored.iter().map(|s| evictable(&s.sealed));
                    let classes = classes.fold(Classes::default(), Classes::with);
                    self.contents.insert(segment.first, classes);
                }
                Err(error) => {
                    tracing::error!(%error, "the spool cannot be read");
                    return None;
                }
            }
        }
        Some(closed)
    }

    /// Rewrites a segment without the events below class `least`. Returns how many those were; none
    /// when nothing would be gained.
    fn rewrite(
        &mut self,
        closed: &[Closed],
        at: usize,
        least: usize,
        sealer: &mut Sealer,
    ) -> Result<u64, RewriteError> {
        let Some(journal) = self.journal.as_ref() else {
            return Ok(0);
        };
        let segment = closed[at];
        let sent = self.reader.offset();
        let (mut stored, mut damaged) =
            read(journal, segment.first.max(self.released)..segment.end)?;
        let mut before = payload(&stored);
        let (mut events, mut dropped) = (0, Vec::new());
        for stored in stored.iter_mut().filter(|stored| stored.offset >= sent) {
            // A batch that cannot be read is left to those who send it.
            if let Ok(Some(Thinned { sealed, drops })) = sealer.thin(&stored.sealed, least)
                && sealed.payload.len() < stored.sealed.payload.len()
            {
                stored.sealed = sealed;
                events += drops.iter().map(|drop| drop.count).sum::<u64>();
                dropped.extend(drops);
            }
        }
        // What remains of the class is on its way, or would take more room in its declaration.
        let remaining = |stored: &[Stored]| {
            let classes = stored.iter().map(|s| evictable(&s.sealed));
            classes.fold(Classes::default(), Classes::with)
        };
        if events == 0 {
            let waits = stored.iter().any(|s| s.offset < sent);
            if !waits {
                self.contents.insert(segment.first, Classes::default());
            }
            return Ok(0);
        }
        stored = join(stored, sent, sealer);
        let mut run = segment.first..segment.end;
        let mut old = segment.bytes;
        // Doubling, so that a segment is joined a few times in its life only.
        for left in closed[..at].iter().rev() {
            let bytes = frames(&stored);
            let small = left.bytes <= 2 * bytes && left.bytes + bytes <= self.segment_bytes;
            if left.end != run.start || !small {
                break;
            }
            let (mut both, more) = read(journal, left.first.max(self.released)..left.end)?;
            damaged += more;
            before += payload(&both);
            both.append(&mut stored);
            stored = join(both, sent, sealer);
            run.start = left.first;
            old += left.bytes;
        }
        if frames(&stored) >= old {
            self.contents.insert(segment.first, Classes::default());
            return Ok(0);
        }
        if run.start < self.released {
            // The places of what is left out because it was acknowledged.
            let noted = self.places.before_release(run.end, &self.dir, journal);
            noted.map_err(ReplaceError::Io)?;
        }
        let mut with = journal.replacement();
        for stored in &stored {
            with.push_with(stored.offset, stored.time, |out| {
                record::write(&stored.sealed, out);
            });
        }
        if damaged > 0 {
            // Nothing of them is left to be met by a later process.
            let below = self.damaged_below.unwrap_or(0).max(run.end);
            let noted = self.dir.note_damaged(journal.id(), below);
            noted.map_err(ReplaceError::Io)?;
            self.damaged_below = Some(below);
        }
        journal.replace(run.start, run.end, &with)?;
        sealer.note_dropped(&dropped);
        self.contents.retain(|first, _| !run.contains(first));
        self.contents.insert(run.start, remaining(&stored));
        self.unreleased = self.unreleased.saturating_sub(before - payload(&stored));
        self.note_damage(damaged);
        self.has_room_again();
        Ok(events)
    }
}

/// The classes of a batch that may be given up.
fn evictable(sealed: &Sealed) -> Classes {
    if sealed.patient {
        Classes::default()
    } else {
        sealed.classes
    }
}

/// Why a segment stays as it is.
#[derive(Debug, thiserror::Error)]
enum RewriteError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Replace(#[from] ReplaceError),
}

impl RewriteError {
    /// Others have filled the disk.
    fn is_full_disk(&self) -> bool {
        let RewriteError::Replace(ReplaceError::Io(error)) = self else {
            return false;
        };
        matches!(
            error.kind(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::WriteZero
        )
    }
}

/// The batches of closed segments, and how many places of them were damaged.
fn read(journal: &Journal, range: Range<u64>) -> Result<(Vec<Stored>, u64), ReadError> {
    let mut reader = journal.reader(range.start);
    let (mut stored, mut damaged) = (Vec::new(), 0);
    while reader.offset() < range.end
        && let Some(chunk) = reader.read(READ_BYTES)?
    {
        damaged += chunk.quarantined;
        for found in chunk.records().filter(|found| found.offset < range.end) {
            match record::read(found.payload) {
                Ok(sealed) => stored.push(Stored {
                    offset: found.offset,
                    time: found.time,
                    sealed,
                }),
                Err(_) => damaged += 1,
            }
        }
    }
    Ok((stored, damaged))
}

/// Puts declarations together with what comes before or after them in their lane; each lane stays in
/// order. What is `sent` up to stays as it is.
fn join(stored: Vec<Stored>, sent: u64, sealer: &mut Sealer) -> Vec<Stored> {
    let mut joined: Vec<Option<Stored>> = Vec::with_capacity(stored.len());
    let mut last: HashMap<u64, usize> = HashMap::new();
    for mut next in stored {
        let before = last.get(&next.sealed.epoch).copied();
        if next.offset >= sent
            && let Some(before) = before
            && let Some(earlier) = &joined[before]
            && earlier.offset >= sent
            && let Ok(Some(both)) = sealer.join(&earlier.sealed, &next.sealed)
        {
            next.sealed = both;
            joined[before] = None;
        }
        last.insert(next.sealed.epoch, joined.len());
        joined.push(Some(next));
    }
    joined.into_iter().flatten().collect()
}

fn payload(stored: &[Stored]) -> u64 {
    let bytes = stored.iter().map(|s| s.sealed.payload.len() as u64);
    bytes.sum()
}

/// What batches take in a segment, about.
fn frames(stored: &[Stored]) -> u64 {
    const FRAME: usize = 64;
    let bytes = |s: &Stored| {
        let marks: usize = s
            .sealed
            .marks
            .iter()
            .map(|mark| mark.place.len() + 12)
            .sum();
        s.sealed.payload.len() + s.sealed.source.len() + marks + FRAME
    };
    stored.iter().map(bytes).sum::<usize>() as u64
}

#[cfg(test)]
#[path = "room_tests.rs"]
mod tests;
