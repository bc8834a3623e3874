//! Append-only segment files: group commit, any number of readers, recovery, retention.
//! Knows nothing of MQTT or events; records are bytes.
//!
//! # Promise
//!
//! A record is [`Outcome::Durable`] only after `fdatasync` returned success for its bytes, for the
//! file's header and for the file's name. Readers see durable records only. Offsets ascend and are
//! never given twice; gaps are legal (what failed is not given again). A record that is not durable
//! when the machine stops may be there afterwards or not, whole in either case; one that was called
//! failed for want of space is not. After a failed sync nothing is acknowledged until the journal is
//! opened anew, since the kernel may have dropped the data and forgotten about it.
//!
//! # On disk
//!
//! One directory, locked by its owner (`flock`). All integers are little-endian, all checksums CRC-32
//! (ISO-HDLC).
//!
//! `journal`: the identity, written as `journal.tmp` and renamed.
//!
//! | bytes | |
//! |---|---|
//! | 8 | magic `tlog-jnl` |
//! | 4 | version, 1 |
//! | 8 | journal id, random |
//! | 4 | checksum of all before |
//!
//! `<first offset, 20 digits>.seg`: a segment. The last one is written to.
//!
//! | bytes | |
//! |---|---|
//! | 8 | magic `tlog-seg` |
//! | 4 | version, 1 |
//! | 8 | journal id |
//! | 8 | first offset: those of the records are this or higher, and below the next segment's |
//! | 4 | checksum of all before |
//! | … | records |
//!
//! Record:
//!
//! | bytes | |
//! |---|---|
//! | 4 | payload bytes `n`, at most 256 MiB |
//! | 4 | checksum of payload, offset and time in this order, XOR the checksum of the journal id |
//! | 8 | offset |
//! | 8 | time, ns since the epoch |
//! | n | payload |
//!
//! `<first offset, 20 digits>.idx`: what a closed segment holds, so that opening need not scan it;
//! made anew when it is missing, damaged or does not name the segment's length. The last segment
//! has one only after an orderly close.
//!
//! | bytes | |
//! |---|---|
//! | 8 | magic `tlog-idx` |
//! | 4 | version, 1 |
//! | 4 | marks `m` |
//! | 8 × 7 | journal id, first offset, end (last offset + 1), segment bytes, records, greatest time, damaged places |
//! | 24 × m | a record's offset, its position in the file, greatest time of the records before it; 256 KiB or more apart |
//! | 4 | checksum of all before |
//!
//! `<first offset>-<through>.seg` (20 digits each): a segment that has replaced those below
//! `through`; the layout is the same. Its records are some of theirs, as they were or smaller, with
//! their offsets. It was synced as `….new` before it got this name; segments that begin within the
//! range are leftovers, removed on opening. Never the one that is written to. `<first>-<through>.idx`
//! is its index.
//!
//! `<first offset, 20 digits>.bad`: a segment without a single intact record, set aside by recovery,
//! deleted when its room is needed.
//!
//! # Recovery
//!
//! Only segments without a valid index are read. In the last one, what follows the last intact record
//! is a torn write and is cut. Elsewhere a record that is not intact is stepped over, counted and
//! logged, and the next intact one is served; the same goes for damage met by a reader later on.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod cursor;
mod format;
pub mod fs;
#[cfg(any(test, feature = "sim"))]
pub mod fuzz;
mod index;
mod journal;
mod log;
mod pending;
mod plan;
mod reader;
mod records;
mod recover;
mod replace;
mod scan;
mod shared;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod tail;
mod writer;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

pub use journal::Journal;
pub use reader::Reader;
pub use records::{Chunk, Record, Records};
pub use replace::{ReplaceError, Replacement};

use format::{MAX_PAYLOAD, RECORD_HEADER, SEGMENT_HEADER};

/// How a journal behaves; `Options::default()` suits a broker.
///
/// Values that contradict each other are brought into range on opening: `max_bytes` is at least
/// 64 KiB, a segment and a record take at most a quarter of it.
#[derive(Clone, Debug)]
pub struct Options {
    /// A segment is closed at this size (default 64 MiB).
    pub segment_bytes: u64,
    /// All files of segments together never exceed this (default 8 GiB).
    pub max_bytes: u64,
    /// Records older than this may go, whole segments at a time (default 7 days). `None`: never by age.
    pub max_age: Option<Duration>,
    /// Of `max_bytes`, what appends leave free for [`Journal::replace`] (default 0; at most half).
    pub reserve_bytes: u64,
    /// What happens at `max_bytes`.
    pub on_full: OnFull,
    /// Recently appended groups kept in memory for readers at the tail (default 8 MiB).
    pub tail_bytes: usize,
    /// Appended but not yet written bytes at which `append` answers `Busy` (default 32 MiB).
    pub pending_bytes: usize,
    /// Largest record (default 2 MiB).
    pub max_record: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 << 20,
            max_bytes: 8 << 30,
            max_age: Some(Duration::from_secs(7 * 24 * 3600)),
            reserve_bytes: 0,
            on_full: OnFull::Cut,
            tail_bytes: 8 << 20,
            pending_bytes: 32 << 20,
            max_record: 2 << 20,
        }
    }
}

/// What happens when a journal is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// Drop the oldest segment.
    Cut,
    /// Refuse appends until `release` frees a segment.
    Refuse,
}

/// Options in range.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) segment_bytes: u64,
    pub(crate) max_bytes: u64,
    pub(crate) reserve: u64,
    /// ns.
    pub(crate) max_age: Option<u64>,
    pub(crate) on_full: OnFull,
    pub(crate) tail_bytes: usize,
    pub(crate) pending_bytes: usize,
    pub(crate) max_record: usize,
    /// Kept free for closing the last segment and making another.
    pub(crate) overhead: u64,
}

impl Limits {
    fn new(options: &Options) -> Limits {
        let max_bytes = options.max_bytes.max(64 << 10);
        let segment_bytes = options.segment_bytes.clamp(1 << 10, max_bytes / 4);
        let frame = usize::try_from(max_bytes / 4).unwrap_or(usize::MAX);
        let max_record = options
            .max_record
            .min(MAX_PAYLOAD)
            .min(frame - RECORD_HEADER - SEGMENT_HEADER);
        let age = |age: Duration| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        let largest = segment_bytes.max(max_record as u64);
        Limits {
            segment_bytes,
            max_bytes,
            reserve: options.reserve_bytes.min(max_bytes / 2),
            max_age: options.max_age.map(age),
            on_full: options.on_full,
            tail_bytes: options.tail_bytes,
            pending_bytes: options.pending_bytes,
            max_record,
            overhead: 2 * (SEGMENT_HEADER as u64 + index::largest(largest)),
        }
    }

    /// Bytes that `frames` bytes of records take at most, with the segments made for them.
    fn framed(&self, frames: usize) -> u64 {
        let frames = frames as u64;
        // Two segments that follow each other hold more than one's worth.
        let segments = 1 + 2 * frames / self.segment_bytes;
        frames + segments * self.overhead
    }
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not decided yet.
    Pending,
    /// On disk.
    Durable,
    /// Not acknowledged, and never will be.
    Failed(Failure),
}

/// Why a record is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The disk is full. The next append tries again.
    NoSpace,
    /// The disk refused the write. The next append tries again.
    Io,
    /// A sync failed: nothing is ever acknowledged again until the journal is opened anew. The record
    /// may be there then, or not.
    Poisoned,
}

/// A segment that is no longer written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Offsets of its records are this or higher.
    pub first: u64,
    /// And below this.
    pub end: u64,
    /// Bytes on disk, its sidecar included.
    pub bytes: u64,
}

/// Figures for metrics; totals count from opening.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Bytes on disk.
    pub bytes: u64,
    /// Segment files.
    pub segments: u64,
    /// Oldest offset held.
    pub first: u64,
    /// Next offset to be given.
    pub next: u64,
    /// Bytes appended and not decided.
    pub pending_bytes: u64,
    /// Damaged places found by recovery and by readers.
    pub quarantined_records: u64,
    /// Records deleted by retention.
    pub cut_records: u64,
    /// Groups synced.
    pub syncs: u64,
    /// Time spent in those syncs, ns.
    pub sync_ns_total: u64,
    /// Whether a sync failed.
    pub poisoned: bool,
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Bytes of a torn write that were cut.
    pub torn_bytes: u64,
    /// Damaged places that readers will not see.
    pub quarantined_records: u64,
    /// Segments without a single intact record, renamed to `.bad`.
    pub quarantined_segments: u64,
    /// Oldest offset held.
    pub first: u64,
    /// Next offset to be given.
    pub next: u64,
}

/// Why nothing was appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// `Options::pending_bytes` are waiting: try again after the next group.
    #[error("too much is waiting for the disk")]
    Busy,
    /// A record is too large to ever fit.
    #[error("record of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// Bytes of the record.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// At `max_bytes` with [`OnFull::Refuse`]: `release` makes room.
    #[error("the journal is full ({bytes} bytes)")]
    Full {
        /// Bytes held.
        bytes: u64,
    },
    /// See [`Failure::Poisoned`].
    #[error("a sync failed; the journal takes nothing until it is opened again")]
    Poisoned,
}

/// Why a journal was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or directory could not be used.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what it should be, and no repair would be safe.
    #[error("{path}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Another process, or another part of this one, has it open.
    #[error("{path}: in use by another process; stop it, or use another directory")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
}

/// A file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: std::io::Error,
}
