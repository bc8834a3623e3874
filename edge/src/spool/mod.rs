//! The spool on disk: batches go into a journal before they go anywhere else, and stay there until
//! the broker has acknowledged them. One group of batches is written at a time; the next one gathers
//! meanwhile, so the disk sets the size of the groups and the order is never in doubt.
//!
//! The journal is opened so that it refuses what goes over its cap. From three quarters of the cap
//! on, sources that can wait do, and of the others only WARN and above is still taken
//! ([`Spool::pressure`]); the rest is declared dropped. A journal that takes nothing at all (full,
//! failed) is gone around once everything in it has been sent: then batches go out of memory.

pub(crate) mod dir;
mod places;
pub(crate) mod record;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use thinglog_journal::{
    AppendError, Journal, OnFull, Options, Outcome, Reader, Records,
    fs::{Fs, RealFs},
};
use thinglog_schemas::batch::MAX_PAYLOAD;

use crate::{
    marks::{Mark, Marks},
    sealed::{Sealed, Sealer},
};
use dir::{SpoolDir, SpoolError};
use places::Places;

/// The smallest cap of a spool, bytes: a few segments that each hold the largest record.
pub(crate) const MIN_BYTES: u64 = 4 << 20;
/// What a record has beside its payload at most, the journal's frame included.
const RECORD_ROOM: usize = record::ROOM + 64;
/// Bytes read from the journal at a time.
const READ_BYTES: usize = 256 << 10;
/// Payload bytes appended at a time, at most (always one batch): a group that alone is more than the
/// cap leaves would be refused as a whole, and for ever.
const GROUP_BYTES: u64 = 1 << 20;
/// Lanes whose last seq is remembered to name what a damaged record held.
const REMEMBERED_LANES: usize = 4096;
/// After a refused append, unless something was released before.
const RETRY: Duration = Duration::from_secs(1);
/// How often the released offset is noted.
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// Where a spool is and how large it may grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpoolOptions {
    /// The directory; created when missing.
    pub(crate) path: PathBuf,
    /// Never exceeded; at least [`MIN_BYTES`].
    pub(crate) bytes: u64,
}

/// How much room is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// Take everything.
    None,
    /// The reserve has begun: WARN and above only.
    Reserve,
}

/// What became of the group that was being written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// On disk.
    Durable(Vec<Sealed>),
    /// Not on disk, or not all of it; to be written again.
    Failed(Vec<Sealed>),
}

/// An open spool.
pub(crate) struct Spool {
    dir: SpoolDir,
    journal: Journal,
    reader: Reader,
    cap: u64,
    /// Read, not yet in the window, with the offset to release once acknowledged.
    backlog: VecDeque<(Sealed, Option<u64>)>,
    writing: Option<(Vec<Sealed>, Range<u64>)>,
    records: Records,
    /// No append before this.
    retry_at: Option<Instant>,
    /// The next seq of each lane as read so far.
    expected: HashMap<u64, u64>,
    damaged: bool,
    unreadable: u64,
    released: u64,
    /// Payload bytes that are stored and not released; of what an earlier process left, at most.
    unreleased: u64,
    noted: (u64, Option<Instant>),
    places: Places,
    complained: bool,
}

impl Spool {
    /// Opens the spool of `device` and finds what an earlier process left. `instance` names a new
    /// one. `notify` is called from the journal's thread whenever a group is decided.
    pub(crate) fn open(
        options: &SpoolOptions,
        device: &str,
        instance: &str,
        notify: impl Fn() + Send + Sync + 'static,
    ) -> Result<Spool, SpoolError> {
        Spool::open_in(Arc::new(RealFs), options, device, instance, notify)
    }

    /// The same in a file system of the caller's.
    pub(crate) fn open_in(
        fs: Arc<dyn Fs>,
        options: &SpoolOptions,
        device: &str,
        instance: &str,
        notify: impl Fn() + Send + Sync + 'static,
    ) -> Result<Spool, SpoolError> {
        if options.bytes < MIN_BYTES {
            return Err(SpoolError::TooSmall {
                bytes: options.bytes,
                least: MIN_BYTES,
            });
        }
        let dir = SpoolDir::open(fs.clone(), &options.path, options.bytes, device, instance)?;
        let cap = options.bytes - dir::side_files(options.bytes);
        let journal_options = Options {
            segment_bytes: (cap / 8).clamp(256 << 10, 8 << 20),
            max_bytes: cap,
            max_age: None,
            on_full: OnFull::Refuse,
            tail_bytes: 1 << 20,
            pending_bytes: 4 << 20,
            max_record: MAX_PAYLOAD + RECORD_ROOM,
        };
        let (journal, recovery) = Journal::open(fs, &dir.journal(), journal_options)?;
        if recovery.torn_bytes > 0 {
            tracing::info!(bytes = recovery.torn_bytes, "cut a torn tail off the spool");
        }
        let damaged = recovery.quarantined_records;
        if damaged > 0 {
            tracing::warn!(
                places = damaged,
                "the spool is damaged; what can be read is sent"
            );
        }
        let places = Places::open(&dir, &journal).map_err(|error| SpoolError::Io {
            path: error.path,
            source: error.source,
        })?;
        journal.on_settled(move |_| notify());
        let released = dir
            .released(journal.id())
            .filter(|released| *released <= journal.next())
            .unwrap_or(0)
            .max(journal.first());
        let reader = journal.reader(released);
        Ok(Spool {
            dir,
            reader,
            cap,
            backlog: VecDeque::new(),
            writing: None,
            records: Records::new(),
            retry_at: None,
            expected: HashMap::new(),
            damaged: damaged > 0,
            unreadable: damaged,
            released,
            unreleased: match released < journal.next() {
                true => journal.stats().bytes,
                false => 0,
            },
            noted: (released, None),
            places,
            complained: false,
            journal,
        })
    }

    /// The directory and the files beside the journal.
    pub(crate) fn dir(&self) -> &SpoolDir {
        &self.dir
    }

    /// Where the sources stood whose events are, or were, in here.
    pub(crate) fn places(&self) -> &Marks {
        self.places.marks()
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.journal.stats().bytes
    }

    /// The largest payload a record can hold.
    pub(crate) fn max_payload(&self) -> usize {
        let frame = usize::try_from(self.cap / 4).unwrap_or(usize::MAX);
        MAX_PAYLOAD.min(frame - RECORD_ROOM)
    }

    /// How much room is left below the cap, or below a smaller one that was configured since. The
    /// smaller one counts what is not acknowledged: the last segment stays on disk until it is full,
    /// and may be larger than that.
    pub(crate) fn pressure(&self, configured: Option<u64>) -> Pressure {
        let over = configured.is_some_and(|cap| self.unreleased >= cap.max(4) / 4 * 3);
        if over || self.bytes() >= self.cap / 4 * 3 {
            Pressure::Reserve
        } else {
            Pressure::None
        }
    }

    /// Whether a group may be appended now.
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        self.writing.is_none() && self.retry_at.is_none_or(|at| at <= now)
    }

    /// When [`is_ready`](Spool::is_ready) changes without anything else happening.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at.filter(|_| self.writing.is_none())
    }

    /// The last append was refused and nothing is being written.
    pub(crate) fn is_stuck(&self) -> bool {
        self.retry_at.is_some() && self.writing.is_none()
    }

    /// Payload bytes of the group that is being written.
    pub(crate) fn writing_bytes(&self) -> usize {
        let group = self.writing.iter().flat_map(|(group, _)| group);
        group.map(|sealed| sealed.payload.len()).sum()
    }

    /// Hands what comes first in `group` to the journal, stamped `wall` (ns since the epoch). What it
    /// refuses stays in `group`.
    pub(crate) fn append(&mut self, group: &mut VecDeque<Sealed>, wall: u64, now: Instant) {
        self.records.clear();
        let most = GROUP_BYTES.min(self.cap / 16);
        let (mut count, mut bytes) = (0, 0);
        for sealed in group.iter() {
            bytes += sealed.payload.len() as u64;
            if count > 0 && bytes > most {
                break;
            }
            self.records.push_with(|out| record::write(sealed, out));
            count += 1;
        }
        match self.journal.append(wall, &self.records) {
            Ok(offsets) => {
                self.retry_at = None;
                self.writing = Some((group.drain(..count).collect(), offsets));
            }
            Err(error) => {
                self.retry_at = Some(now + RETRY);
                self.complain(&error);
            }
        }
        self.records.clear();
    }

    fn complain(&mut self, error: &AppendError) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(%error, "the spool takes no events for now; they wait in memory");
        }
    }

    /// The group that was being written, once it is decided.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Group> {
        let (_, offsets) = self.writing.as_ref()?;
        if self.journal.settled() < offsets.end {
            return None;
        }
        // A group that spans segments may be stored in part: then all of it is written again, and
        // what was there already goes out twice under the same ids.
        let failure = offsets
            .clone()
            .find_map(|offset| match self.journal.outcome(offset) {
                Outcome::Failed(failure) => Some(failure),
                Outcome::Durable | Outcome::Pending => None,
            });
        let (group, offsets) = self.writing.take()?;
        let Some(failure) = failure else {
            self.complained = false;
            self.places.stored(&group, offsets.end);
            let bytes = group.iter().map(|sealed| sealed.payload.len() as u64);
            self.unreleased += bytes.sum::<u64>();
            return Some(Group::Durable(group));
        };
        self.retry_at = Some(now + RETRY);
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(?failure, "writing the spool failed; events wait in memory");
        }
        Some(Group::Failed(group))
    }

    /// Everything that is on disk has been read.
    pub(crate) fn is_drained(&self) -> bool {
        self.backlog.is_empty() && self.reader.offset() >= self.journal.settled()
    }

    /// The next batch to send and the offset to release once it is acknowledged.
    pub(crate) fn next(&mut self, sealer: &mut Sealer) -> Option<(Sealed, Option<u64>)> {
        if self.backlog.is_empty() {
            self.read(sealer);
        }
        self.backlog.pop_front()
    }

    fn read(&mut self, sealer: &mut Sealer) {
        if self.reader.offset() >= self.journal.settled() {
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
                Ok(sealed) => self.take(sealed, record.offset + 1, sealer),
                Err(error) => {
                    tracing::warn!(%error, offset = record.offset, "skipped a record of the spool");
                    self.note_damage(1);
                }
            }
        }
    }

    fn note_damage(&mut self, places: u64) {
        self.damaged |= places > 0;
        self.unreadable += places;
    }

    /// Queues a record; when the spool has damaged places, what is missing of its lane is declared
    /// first. (Of a lane whose first or last records are damaged nothing is left to tell it by; the
    /// places are counted in [`unreadable`](Spool::unreadable). Without damage a lane may have holes
    /// here: batches that went around a full spool.)
    fn take(&mut self, sealed: Sealed, next: u64, sealer: &mut Sealer) {
        let expected = self.expected.get(&sealed.epoch).copied();
        if self.damaged
            && let Some(expected) = expected.filter(|expected| *expected < sealed.first_seq)
        {
            let (from, to) = (expected, sealed.first_seq - 1);
            let missing = sealer.unreadable(&sealed.source, sealed.epoch, from, to);
            self.backlog.extend(missing.map(|missing| (missing, None)));
        }
        if expected.is_some() || self.expected.len() < REMEMBERED_LANES {
            self.expected.insert(sealed.epoch, sealed.last_seq + 1);
        }
        self.backlog.push_back((sealed, Some(next)));
    }

    /// The offset behind everything that was ever appended.
    pub(crate) fn end(&self) -> u64 {
        self.journal.next()
    }

    /// Whether everything below `offset` is acknowledged.
    pub(crate) fn is_released(&self, offset: u64) -> bool {
        self.released >= offset
    }

    /// Damaged places met since opening, and records of newer versions.
    pub(crate) fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// Everything below `offset` is acknowledged, `bytes` of payload since the last time.
    pub(crate) fn release(&mut self, offset: u64, bytes: u64) {
        self.released = self.released.max(offset);
        self.unreleased = match self.released < self.journal.next() {
            true => self.unreleased.saturating_sub(bytes),
            false => 0,
        };
        let first = self.journal.first();
        self.delete_released();
        if self.journal.first() > first {
            // There is room again.
            self.retry_at = None;
        }
    }

    /// Deletes the segments below the released offset; the places that only they hold are noted
    /// first. When the disk is too full for that, they go all the same and make the room: should
    /// the process be killed between, some events of those sources are read twice.
    fn delete_released(&mut self) {
        let closed = self.journal.closed().into_iter();
        let Some(end) = closed
            .map(|segment| segment.end)
            .take_while(|end| *end <= self.released)
            .last()
        else {
            return;
        };
        let noted = self.places.before_release(end, &self.dir, &self.journal);
        if let Err(error) = self.journal.release(self.released) {
            tracing::warn!(%error, "acknowledged segments of the spool stay on disk");
        }
        if noted.is_err()
            && let Err(error) = self.places.note(&self.dir, &self.journal)
        {
            tracing::warn!(%error, "the places of sources could not be noted");
        }
    }

    /// Sources have come to these places with events that were filtered.
    pub(crate) fn pass_places(&mut self, marks: Vec<Mark>, now: Instant) {
        self.places.passed(marks, now);
    }

    /// Sources have come to these places with events that were acknowledged but never on disk.
    pub(crate) fn sent_places(&mut self, marks: Vec<Mark>, now: Instant) {
        self.places.sent(marks, now);
    }

    /// Notes the released offset and places without a record now and then, so that a restart repeats
    /// little; `last` on the way out.
    pub(crate) fn note(&mut self, now: Instant, last: bool) {
        let due = self.places.due().is_some_and(|due| due <= now);
        if (due || last && self.places.is_behind())
            && let Err(error) = self.places.note(&self.dir, &self.journal)
        {
            tracing::warn!(%error, "the places of sources could not be noted");
            self.places.put_off(now + NOTE_EVERY);
        }
        self.note_released(now, last);
    }

    fn note_released(&mut self, now: Instant, last: bool) {
        let (noted, when) = self.noted;
        let early = when.is_some_and(|when| now < when + NOTE_EVERY);
        if noted == self.released || (early && !last) {
            return;
        }
        self.noted = (self.released, Some(now));
        if let Err(error) = self.dir.note_released(self.journal.id(), self.released) {
            tracing::warn!(%error, "the acknowledged offset could not be noted");
        }
    }
}
