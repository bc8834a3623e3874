//! Append-only segment files: group commit, any number of readers, recovery, retention.
//! Knows nothing of MQTT or events; records are bytes. (The on-disk layout is to be written out here.)

pub mod cursor;
pub mod fs;

use std::{ops::Range, path::Path, sync::Arc, time::Duration};
use bytes::Bytes;

/// How a journal behaves; `Options::default()` suits a broker.
#[derive(Clone, Debug)]
pub struct Options {
    /// A segment is closed at this size (default 64 MiB).
    pub segment_bytes: u64,
    /// All segments together never exceed this (default 8 GiB).
    pub max_bytes: u64,
    /// Records older than this may go, whole segments at a time (default 7 days). `None`: never by age.
    pub max_age: Option<Duration>,
    /// What happens at `max_bytes`.
    pub on_full: OnFull,
    /// Recently appended groups kept in memory for readers at the tail (default 8 MiB).
    pub tail_bytes: usize,
    /// Appended but not yet written bytes at which `append` answers `Busy` (default 32 MiB).
    pub pending_bytes: usize,
    /// Largest record (default 2 MiB).
    pub max_record: usize,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull { /** Drop the oldest segment. */ Cut, /** Refuse appends until `release` frees a segment. */ Refuse }

/// Records to append together; a reusable buffer.
#[derive(Default)]
pub struct Records { /* buf, ends */ }
impl Records {
    pub fn new() -> Records { todo!() }
    /// Adds one record, written by `fill` into the buffer.
    pub fn push_with(&mut self, fill: impl FnOnce(&mut Vec<u8>)) { todo!() }
    pub fn push(&mut self, payload: &[u8]) { todo!() }
    pub fn len(&self) -> usize { todo!() }
    pub fn bytes(&self) -> usize { todo!() }
    pub fn is_empty(&self) -> bool { todo!() }
    pub fn clear(&mut self) { todo!() }
}

/// A journal, open for appending. Clones share it. Owns one writer thread that writes and syncs
/// groups; dropping the last clone flushes and joins it.
#[derive(Clone)]
pub struct Journal { inner: Arc<()> }

impl Journal {
    /// Opens or creates the journal in `dir`; recovers a torn tail.
    pub fn open(fs: Arc<dyn fs::Fs>, dir: &Path, options: Options) -> Result<(Journal, Recovery), OpenError> { todo!() }
    /// Random, made when the journal was created.
    pub fn id(&self) -> u64 { todo!() }
    /// Queues records (all stamped `time`, ns since the epoch) for the next group; returns their
    /// offsets at once. They are durable when `outcome(last)` says so. Never blocks on the disk.
    pub fn append(&self, time: u64, records: &Records) -> Result<Range<u64>, AppendError> { todo!() }
    /// Every offset below this is decided: durable or failed.
    pub fn settled(&self) -> u64 { todo!() }
    pub fn outcome(&self, offset: u64) -> Outcome { todo!() }
    /// Called from the writer thread after every group, with the new `settled()`.
    pub fn on_settled(&self, notify: impl Fn(u64) + Send + Sync + 'static) { todo!() }
    /// Blocks until `offset` is decided.
    pub fn wait(&self, offset: u64) -> Outcome { todo!() }
    /// Oldest offset still held; next offset to be given.
    pub fn first(&self) -> u64 { todo!() }
    pub fn next(&self) -> u64 { todo!() }
    /// First offset whose record's time is at or after `time`.
    pub fn offset_at(&self, time: u64) -> Result<u64, ReadError> { todo!() }
    /// Reads settled durable records from `from` on (clamped to `first`, the difference is reported as missed).
    pub fn reader(&self, from: u64) -> Reader { todo!() }
    /// Deletes whole segments below `offset`.
    pub fn release(&self, offset: u64) -> Result<(), std::io::Error> { todo!() }
    /// Applies retention by age at `now` (ns); by bytes it is applied as segments are added.
    pub fn retain(&self, now: u64) -> Result<(), std::io::Error> { todo!() }
    pub fn stats(&self) -> Stats { todo!() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome { Pending, Durable, /** Not stored; never will be. */ Failed(Failure) }
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure { NoSpace, Io, /** A sync failed earlier: nothing is ever acknowledged again until restart. */ Poisoned }

#[derive(Clone, Debug, Default)]
pub struct Stats { pub bytes: u64, pub segments: u64, pub first: u64, pub next: u64, pub pending_bytes: u64, pub quarantined_records: u64, pub cut_records: u64, pub syncs: u64, pub sync_ns_total: u64, pub poisoned: bool }

/// What opening found.
#[derive(Clone, Debug, Default)]
pub struct Recovery { pub torn_bytes: u64, pub quarantined_records: u64, pub first: u64, pub next: u64 }

/// One reader's place. Independent of every other; holds no lock between calls.
pub struct Reader { /* offset, open segment */ }
impl Reader {
    pub fn offset(&self) -> u64 { todo!() }
    /// The next records out of memory, when the reader is at the tail. `None`: at the end or not in memory.
    pub fn poll_memory(&mut self) -> Option<Chunk> { todo!() }
    /// The next records, from memory or disk (blocking file reads), up to about `max_bytes`. `None`: at the end.
    pub fn read(&mut self, max_bytes: usize) -> Result<Option<Chunk>, ReadError> { todo!() }
}

/// Consecutive records. Iterating copies nothing: payloads are slices of one shared buffer.
#[derive(Clone)]
pub struct Chunk { /* bytes, first.. */ /** Records that retention cut before the reader came. */ pub missed: u64 }
#[derive(Clone, Debug)]
pub struct Record { pub offset: u64, /** ns since the epoch */ pub time: u64, pub payload: Bytes }
impl Chunk {
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ { std::iter::empty() }
    /// One past the last offset.
    pub fn end(&self) -> u64 { todo!() }
    pub fn bytes(&self) -> usize { todo!() }
}

#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("too much is waiting for the disk")] Busy,
    #[error("record of {size} bytes is over the limit of {limit}")] TooLarge { size: usize, limit: usize },
    #[error("the journal is full ({bytes} bytes)")] Full { bytes: u64 },
    #[error("no space left on the device")] NoSpace,
    #[error("a sync failed; the journal takes nothing until it is opened again")] Poisoned,
}
#[derive(Debug, thiserror::Error)]
pub enum OpenError { #[error("{path}: {source}")] Io { path: std::path::PathBuf, source: std::io::Error }, #[error("{path}: {reason}")] Damaged { path: std::path::PathBuf, reason: String } }
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct ReadError { pub path: std::path::PathBuf, pub source: std::io::Error }
