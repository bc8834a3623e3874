//! The spool on disk: batches go into a journal before they go anywhere else, and stay there until
//! the broker has acknowledged them. One group of batches is written at a time; the next one gathers
//! meanwhile, so the disk sets the size of the groups and the order is never in doubt.
//!
//! The journal is opened so that it refuses what goes over its cap. From three quarters of the cap
//! on, sources that can wait do ([`Spool::is_tight`]). When it is full and nothing is acknowledged,
//! graver events take the place of less grave ones ([`Spool::give_up`]). A journal whose sync failed
//! is opened again. One that takes nothing at all (full, failed) is gone around once everything in it
//! has been sent: then batches go out of memory.

pub(crate) mod dir;
mod places;
mod reading;
pub(crate) mod record;
mod reserve;
mod room;
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
    AppendError, Failure, Journal, OnFull, OpenError, Options, Outcome, Reader, Records, Recovery,
    fs::{Fs, RealFs},
};
use thinglog_schemas::batch::MAX_PAYLOAD;

use crate::{
    marks::{Mark, Marks},
    sealed::{Classes, Sealed},
    window::Place,
};
use dir::{SpoolDir, SpoolError};
use places::Places;
use reserve::{Reserve, reserve_bytes};

/// The smallest cap of a spool, bytes: a few segments that each hold the largest record.
pub const MIN_BYTES: u64 = 4 << 20;
/// What a record has beside its payload at most, the journal's frame included.
const RECORD_ROOM: usize = record::ROOM + 64;
/// Bytes read from the journal at a time.
const READ_BYTES: usize = 256 << 10;
/// Payload bytes appended at a time, at most (always one batch): a group that alone is more than the
/// cap leaves would be refused as a whole, and for ever.
const GROUP_BYTES: u64 = 1 << 20;
/// Of the cap, what only declarations of drops may use: they are small, and must not wait for room
/// that nothing makes.
const DECLARATIONS: u64 = 64 << 10;
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
    /// Batches are written together once they have so many bytes, or have waited so long.
    pub(crate) block: Block,
}

/// How much is written at a time: flash is worn by the page, and by the sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Payload bytes.
    pub(crate) bytes: usize,
    /// The longest anything waits for others.
    pub(crate) age: Duration,
}

impl Default for Block {
    fn default() -> Block {
        Block {
            bytes: 64 << 10,
            age: Duration::from_secs(1),
        }
    }
}

/// What became of the group that was being written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// On disk.
    Durable(Vec<Sealed>),
    /// Not on disk, or not all of it; to be written again.
    Failed(Vec<Sealed>),
}

type Notify = Arc<dyn Fn() + Send + Sync>;

/// An open spool.
pub(crate) struct Spool {
    dir: SpoolDir,
    fs: Arc<dyn Fs>,
    options: Options,
    notify: Notify,
    /// `None` only while one whose sync failed cannot be opened again.
    journal: Option<Journal>,
    reader: Reader,
    block: Block,
    /// Of the journal, for batches that carry events.
    usable: u64,
    segment_bytes: u64,
    /// Read, not yet in the window.
    backlog: VecDeque<(Sealed, Place)>,
    writing: Option<(Vec<Sealed>, Range<u64>)>,
    records: Records,
    /// No append before this.
    retry_at: Option<Instant>,
    /// The last append found no room under the cap.
    full: bool,
    /// A smaller cap, of what is not acknowledged; and the last append would have exceeded it.
    cap: Option<u64>,
    over: bool,
    /// The disk had no room for what was to be written last.
    disk_full: bool,
    /// Nobody has tried to make room since.
    room_wanted: bool,
    reserve: Reserve,
    /// What could be given up in closed segments, by their first offset, as far as was looked.
    contents: HashMap<u64, Classes>,
    /// The next seq of each lane as read so far.
    expected: HashMap<u64, u64>,
    damaged: bool,
    /// Below this offset damaged records were left out of segments that were rewritten, perhaps by an
    /// earlier process.
    damaged_below: Option<u64>,
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
        let notify: Notify = Arc::new(notify);
        let block = options.block;
        let reserve = reserve_bytes(options.bytes);
        let options = journal_options(options.bytes - dir::side_files(options.bytes));
        let (journal, recovery) = open_journal(&fs, &dir, &options, &notify)?;
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
        let released = dir
            .released(journal.id())
            .filter(|released| *released <= journal.next())
            .unwrap_or(0)
            .max(journal.first());
        let damaged_below = dir.damaged(journal.id());
        Ok(Spool {
            reserve: Reserve::open(fs.clone(), dir.reserve(), reserve),
            reader: journal.reader(released),
            usable: options.max_bytes - options.reserve_bytes - DECLARATIONS,
            segment_bytes: options.segment_bytes,
            block,
            dir,
            fs,
            options,
            notify,
            backlog: VecDeque::new(),
            writing: None,
            records: Records::new(),
            retry_at: None,
            full: false,
            cap: None,
            over: false,
            disk_full: false,
            room_wanted: false,
            contents: HashMap::new(),
            expected: HashMap::new(),
            damaged: damaged > 0 || damaged_below.is_some_and(|end| released < end),
            damaged_below,
            unreadable: damaged,
            released,
            unreleased: match released < journal.next() {
                true => journal.stats().bytes,
                false => 0,
            },
            noted: (released, None),
            places,
            complained: false,
            journal: Some(journal),
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
        let journal = self.journal.as_ref();
        journal.map_or(0, |journal| journal.stats().bytes)
    }

    /// How much is written at a time.
    pub(crate) fn block(&self) -> Block {
        self.block
    }

    /// The largest payload a record can hold.
    pub(crate) fn max_payload(&self) -> usize {
        self.options.max_record - RECORD_ROOM
    }

    /// Sources that can wait should, and leave the rest of the cap, or of a smaller one that was
    /// configured since, to the others. The smaller one counts what is not acknowledged: the last
    /// segment stays on disk until it is full, and may be larger than that.
    pub(crate) fn is_tight(&self, configured: Option<u64>) -> bool {
        let over = configured.is_some_and(|cap| self.unreleased >= cap.max(4) / 4 * 3);
        over || self.bytes() >= self.usable / 4 * 3
    }

    /// There is no room, or no more than was configured since.
    pub(crate) fn is_full(&self, configured: Option<u64>) -> bool {
        self.full || self.over || self.disk_full || self.is_over(configured)
    }

    /// Whether the disk was found full since the last time, or there is more to look at.
    pub(crate) fn take_room_wanted(&mut self) -> bool {
        std::mem::take(&mut self.room_wanted)
    }

    /// As much is stored as a smaller cap allows.
    pub(crate) fn is_over(&self, configured: Option<u64>) -> bool {
        configured.is_some_and(|cap| self.unreleased >= cap)
    }

    /// From now on, no more is stored than `cap` says of what is not acknowledged, payload bytes.
    pub(crate) fn set_cap(&mut self, cap: Option<u64>) {
        if self.cap != cap {
            self.cap = cap;
            self.over = false;
        }
    }

    /// Waits until what is being written is decided.
    #[cfg(test)]
    pub(crate) fn wait_until_decided(&self) {
        if let (Some(journal), Some((_, offsets))) = (&self.journal, &self.writing) {
            journal.wait(offsets.end - 1);
        }
    }

    /// The batches that are durable and not acknowledged.
    #[cfg(test)]
    pub(crate) fn contents(&self) -> Vec<Sealed> {
        let Some(journal) = &self.journal else {
            return Vec::new();
        };
        let mut reader = journal.reader(self.released);
        let chunks = std::iter::from_fn(|| reader.read(READ_BYTES).unwrap());
        let records = chunks.flat_map(|chunk| chunk.records());
        records.map(|r| record::read(r.payload).unwrap()).collect()
    }

    /// Nothing is being written.
    pub(crate) fn is_idle(&self) -> bool {
        self.writing.is_none()
    }

    /// Whether a group may be appended now.
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        self.writing.is_none() && self.retry_at.is_none_or(|at| at <= now)
    }

    /// When [`is_ready`](Spool::is_ready) changes without anything else happening.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at.filter(|_| self.writing.is_none())
    }

    /// What waits has become smaller.
    pub(crate) fn try_again(&mut self) {
        self.retry_at = None;
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
        if self.is_broken() {
            self.reopen(now);
        }
        let Some(journal) = &self.journal else { return };
        self.records.clear();
        let most = GROUP_BYTES.min(self.segment_bytes);
        let room = self.cap.map(|cap| cap.saturating_sub(self.unreleased));
        let (mut count, mut bytes) = (0, 0);
        for sealed in group.iter() {
            bytes += sealed.payload.len() as u64;
            if count > 0 && bytes > most || room.is_some_and(|room| bytes > room) {
                break;
            }
            self.records.push_with(|out| record::write(sealed, out));
            count += 1;
        }
        self.over = count == 0 && !group.is_empty();
        if self.over {
            self.retry_at = Some(now + RETRY);
            return;
        }
        let declares = group.iter().take(count).all(|sealed| sealed.events == 0);
        let bytes = journal.stats().bytes;
        let appended = if declares || bytes + self.records.bytes() as u64 <= self.usable {
            journal.append(wall, &self.records)
        } else {
            Err(AppendError::Full { bytes })
        };
        match appended {
            Ok(offsets) => {
                self.retry_at = None;
                self.full &= declares;
                self.writing = Some((group.drain(..count).collect(), offsets));
            }
            Err(error) => {
                self.full = matches!(error, AppendError::Full { .. });
                self.retry_at = Some(now + RETRY);
                if !self.full {
                    self.complain(&error);
                }
            }
        }
        self.records.clear();
    }

    fn complain(&mut self, error: &dyn std::fmt::Display) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(%error, "the spool takes no events for now; they wait in memory");
        }
    }

    /// A sync failed: the journal acknowledges nothing any more.
    fn is_broken(&self) -> bool {
        let journal = self.journal.as_ref();
        journal.is_none_or(|journal| journal.stats().poisoned)
    }

    /// Opens the journal again after a sync failed: what is on disk is what then can be read.
    fn reopen(&mut self, now: Instant) {
        // Lets go of the directory first.
        self.journal = None;
        let opened = open_journal(&self.fs, &self.dir, &self.options, &self.notify);
        match opened {
            Ok((journal, recovery)) => {
                tracing::warn!("the spool was opened again after a sync had failed");
                self.note_damage(recovery.quarantined_records);
                let from = self.backlog.front().map(|(_, place)| place.offset);
                self.backlog.clear();
                self.reader = journal.reader(from.unwrap_or(self.reader.offset()));
                self.contents.clear();
                self.journal = Some(journal);
            }
            Err(error) => {
                self.retry_at = Some(now + RETRY);
                self.complain(&error);
            }
        }
    }

    /// The group that was being written, once it is decided.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Group> {
        let journal = self.journal.as_ref()?;
        let (_, offsets) = self.writing.as_ref()?;
        if journal.settled() < offsets.end {
            return None;
        }
        // A group that spans segments may be stored in part: then all of it is written again, and
        // what was there already goes out twice under the same ids.
        let failure = offsets
            .clone()
            .find_map(|offset| match journal.outcome(offset) {
                Outcome::Failed(failure) => Some(failure),
                Outcome::Durable | Outcome::Pending => None,
            });
        let (group, offsets) = self.writing.take()?;
        let Some(failure) = failure else {
            self.complained = false;
            self.disk_full = false;
            self.places.stored(&group, offsets.end);
            let bytes = group.iter().map(|sealed| sealed.payload.len() as u64);
            self.unreleased += bytes.sum::<u64>();
            return Some(Group::Durable(group));
        };
        self.disk_full = failure == Failure::NoSpace;
        self.room_wanted = self.disk_full;
        self.retry_at = Some(now + RETRY);
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(?failure, "writing the spool failed; events wait in memory");
        }
        Some(Group::Failed(group))
    }

    /// The offset behind everything that was ever appended.
    pub(crate) fn end(&self) -> u64 {
        self.journal.as_ref().map_or(self.released, Journal::next)
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
        let Some(journal) = &self.journal else { return };
        self.unreleased = match self.released < journal.next() {
            true => self.unreleased.saturating_sub(bytes),
            false => 0,
        };
        let first = journal.first();
        if std::mem::take(&mut self.over) {
            self.retry_at = None;
        }
        self.forget_damage();
        self.delete_released();
        let journal = self.journal.as_ref();
        if journal.is_some_and(|journal| journal.first() > first) {
            // There is room again.
            self.has_room_again();
        }
    }

    /// What was damaged is behind us: a later gap is none of that.
    fn forget_damage(&mut self) {
        if self.damaged_below.is_some_and(|end| end <= self.released) {
            self.damaged_below = None;
            if let Err(error) = self.dir.forget_damaged() {
                tracing::debug!(%error, "the note of damaged records stays");
            }
        }
    }

    fn has_room_again(&mut self) {
        self.retry_at = None;
        self.full = false;
        self.over = false;
        self.disk_full = false;
    }

    /// Deletes the segments below the released offset; the places that only they hold are noted
    /// first. When the disk is too full for that, they go all the same and make the room: should
    /// the process be killed between, some events of those sources are read twice.
    fn delete_released(&mut self) {
        let Some(journal) = &self.journal else { return };
        let closed = journal.closed().into_iter();
        let Some(end) = closed
            .map(|segment| segment.end)
            .take_while(|end| *end <= self.released)
            .last()
        else {
            return;
        };
        let noted = self.places.before_release(end, &self.dir, journal);
        if let Err(error) = journal.release(self.released) {
            tracing::warn!(%error, "acknowledged segments of the spool stay on disk");
        }
        if noted.is_err()
            && let Err(error) = self.places.note(&self.dir, journal)
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
        if !self.disk_full && !last {
            self.reserve.make(now);
        }
        let Some(journal) = &self.journal else { return };
        let due = self.places.due().is_some_and(|due| due <= now);
        if (due || last && self.places.is_behind())
            && let Err(error) = self.places.note(&self.dir, journal)
        {
            tracing::warn!(%error, "the places of sources could not be noted");
            self.places.put_off(now + NOTE_EVERY);
        }
        let (noted, when) = self.noted;
        let early = when.is_some_and(|when| now < when + NOTE_EVERY);
        if noted == self.released || (early && !last) {
            return;
        }
        self.noted = (self.released, Some(now));
        if let Err(error) = self.dir.note_released(journal.id(), self.released) {
            tracing::warn!(%error, "the acknowledged offset could not be noted");
        }
    }
}

/// A journal that may take `cap` bytes.
fn journal_options(cap: u64) -> Options {
    let max_record = (cap / 10).clamp(384 << 10, MAX_PAYLOAD as u64);
    let max_record = usize::try_from(max_record).unwrap_or(MAX_PAYLOAD) + RECORD_ROOM;
    let segment_bytes = (cap / 16).clamp(128 << 10, 1 << 20);
    Options {
        segment_bytes,
        max_bytes: cap,
        max_age: None,
        // A segment that is rewritten is there twice for a moment.
        reserve_bytes: segment_bytes.max(max_record as u64) + (8 << 10),
        on_full: OnFull::Refuse,
        tail_bytes: 1 << 20,
        pending_bytes: 4 << 20,
        max_record,
    }
}

fn open_journal(
    fs: &Arc<dyn Fs>,
    dir: &SpoolDir,
    options: &Options,
    notify: &Notify,
) -> Result<(Journal, Recovery), OpenError> {
    let (journal, recovery) = Journal::open(fs.clone(), &dir.journal(), options.clone())?;
    if recovery.torn_bytes > 0 {
        tracing::info!(bytes = recovery.torn_bytes, "cut a torn tail off the spool");
    }
    let notify = notify.clone();
    journal.on_settled(move |_| notify());
    Ok((journal, recovery))
}
