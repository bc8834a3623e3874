//! Blocks: up to [`ROWS`] events in columns, compressed. The one form in which events lie on disk.
//!
//! ```text
//! block    magic u32 ("TLB1"), CRC-32 u32 of all behind it, rows u32,
//!          3 × (length u32, raw length u32): numbers, messages, attributes;
//!          the three columns, each a zstd frame                          (integers little-endian)
//! ```
//!
//! | column | holds, one after the other |
//! |---|---|
//! | numbers | devices (name, rows), sources (name), lanes (kind, number); then for each row: source, grade, time, received, row number, id |
//! | messages | the length of each, then all texts |
//! | attributes | the length of each, then all as JSON objects; a length of 0 stands for none |
//!
//! Numbers are those of [`crate::varint`]. Rows of a device stand side by side. Times are counted in the
//! coarsest unit that keeps them exact, as differences; an id is a difference to the last one of its
//! lane. Messages are a column of their own because a search reads nothing else of most blocks.

mod build;
mod read;
#[cfg(test)]
mod tests;

pub(crate) use build::{Builder, Facts};
pub(crate) use read::{Messages, Numbers, Unpack, head, length, raw_texts};

use thinglog_schemas::EventId;

/// Most events of a block.
pub(crate) const ROWS: usize = 8192;
/// Bytes of messages and attributes from which a block is complete.
pub(crate) const BYTES: usize = 1 << 20;
/// Bytes before the columns.
pub(crate) const HEAD: usize = 36;
const MAGIC: u32 = u32::from_le_bytes(*b"TLB1");
/// Bytes that a column may have uncompressed: one event of the largest size more than a block takes.
const MAX_RAW: usize = 16 << 20;

/// Severity and flags of a row in one byte.
const ESTIMATED: u8 = 0x40;
const TRUNCATED: u8 = 0x80;
const SEVERITY: u8 = 0x1f;

/// An event as it stands in a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Row<'a> {
    pub(crate) device: &'a str,
    pub(crate) source: &'a str,
    /// Severity and flags.
    pub(crate) grade: u8,
    /// By the device's clock, ns.
    pub(crate) time: u64,
    /// ns.
    pub(crate) received: u64,
    /// In the order of arrival, over the whole store.
    pub(crate) row: u64,
    pub(crate) id: EventId,
    pub(crate) message: &'a str,
    /// A JSON object, or nothing.
    pub(crate) attributes: &'a str,
}

impl Row<'_> {
    /// When it counts as logged.
    pub(crate) fn at(&self) -> u64 {
        at(self.time, self.received)
    }
}

/// When an event counts as logged: by its own clock, but never after it was received.
pub(crate) fn at(time: u64, received: u64) -> u64 {
    time.min(received)
}

/// Severity and flags as one byte.
pub(crate) fn grade(event: &thinglog_schemas::Event) -> u8 {
    let estimated = if event.time_estimated { ESTIMATED } else { 0 };
    let truncated = if event.truncated { TRUNCATED } else { 0 };
    event.severity.number() | estimated | truncated
}

/// The number of the severity.
pub(crate) fn severity(grade: u8) -> u8 {
    grade & SEVERITY
}

pub(crate) fn is_estimated(grade: u8) -> bool {
    grade & ESTIMATED != 0
}

pub(crate) fn is_truncated(grade: u8) -> bool {
    grade & TRUNCATED != 0
}

/// What is the same for the ids of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    None,
    Spooled(u64),
    Stored(u64),
    Gap(u64),
}

impl Lane {
    fn of(id: &EventId) -> Lane {
        match *id {
            EventId::Spooled { epoch, .. } => Lane::Spooled(epoch),
            EventId::Stored { journal, .. } => Lane::Stored(journal),
            EventId::Gap { epoch, .. } => Lane::Gap(epoch),
            EventId::None => Lane::None,
        }
    }

    fn parts(self) -> (u64, u64) {
        match self {
            Lane::None => (0, 0),
            Lane::Spooled(epoch) => (1, epoch),
            Lane::Stored(journal) => (2, journal),
            Lane::Gap(epoch) => (3, epoch),
        }
    }

    fn from_parts(kind: u64, number: u64) -> Option<Lane> {
        Some(match kind {
            0 => Lane::None,
            1 => Lane::Spooled(number),
            2 => Lane::Stored(number),
            3 => Lane::Gap(number),
            _ => return None,
        })
    }
}
