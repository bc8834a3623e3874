//! The compact payload of `logs/<device>/<source>`, version 1, byte by byte.
//!
//! One batch holds events of ONE lane: one source of one device. `seq` counts within a lane and a
//! lane has an epoch of its own, so a hole is visible the moment the next batch arrives.
//!
//! ```text
//! magic    4  FF 74 6C 67        "\xFFtlg", never valid UTF-8
//! version  1  01
//! flags    1  bit 0: the body is one zstd frame; the other bits are 0
//! header      MessagePack array of 10:
//!               epoch      uint   random, of the lane
//!               first_seq  uint   first seq the batch speaks for
//!               count      uint   events, at most 65,536
//!               base_time  uint   time of the first event, ns; 0 without events
//!               time_unit  uint   1, 1_000, 1_000_000 or 1_000_000_000 ns
//!               boot       uint   random, of the boot
//!               sent_mono  uint   monotonic ns at sending
//!               clock      uint   1: times are ns since the Unix epoch; 0: monotonic ns
//!               body_len   uint   of the body before compression, at most 8 MiB
//!               drops      array of [from, to, count, severity, reason], at most 4,096;
//!                          from and to are seqs, both included; reason as in `DropReason`
//! body        MessagePack array of 6 columns, to the end of the payload:
//!               seqs        array: [] when the seqs are first_seq, first_seq + 1, …; else for each
//!                           event its distance from the seq before it, the first from first_seq
//!               times       array: for each event the signed distance from the time before it, the
//!                           first from base_time, in time_unit (64 bits, wrapping)
//!               severities  bin: one byte an event, OpenTelemetry numbers
//!               messages    array of str
//!               attributes  array of [index, map]: the events that have any, ascending by index;
//!                           keys are str, values nil, bool, integer, float 64, str, array, map
//!               truncated   array of indices, ascending: events whose message was cut
//! ```
//!
//! Invariants: seqs ascend and stay below 2^64 − 1; a batch speaks for at least one seq; a message
//! has at most 256 KiB, an event at most 128 attributes, a batch at most 262,144 attribute values,
//! nested at most 32 deep. The time unit is the largest that loses nothing. Bodies from 1 KiB up
//! are compressed when that makes them smaller. Columns rather than events, because like next to
//! like compresses best and decodes without a branch per field.
//!
//! A payload comes from anyone: every count is held against the bytes that are really there before
//! anything is allocated for it, and decompression cannot write past `body_len`.

mod decode;
mod encode;
mod fields;
mod stamp;
mod value;

pub use decode::Decoder;
pub use encode::Encoder;
pub use fields::{Attributed, Fields, Form};
pub use stamp::restamp;

pub use crate::limits::{MAX_ATTRIBUTES, MAX_DEPTH, MAX_MESSAGE};
use crate::{Attributes, Severity, limits};

/// What every batch begins with.
pub const MAGIC: [u8; 4] = [0xFF, b't', b'l', b'g'];
/// Largest payload accepted, bytes.
pub const MAX_PAYLOAD: usize = 1 << 20;
/// Largest body after decompression, bytes; checked while decompressing.
pub const MAX_BODY: usize = 8 << 20;
/// Most events of one batch, so that a small payload cannot grow into gigabytes.
pub const MAX_EVENTS: usize = 65_536;
/// Most declared drops of one batch.
pub const MAX_DROPS: usize = 4096;
/// Most attribute values of one batch, containers and what is in them counted alike.
pub const MAX_NODES: usize = 262_144;
/// Bodies from this size up are compressed.
pub const COMPRESS_FROM: usize = 1 << 10;

const VERSION: u8 = 1;
const FLAG_ZSTD: u8 = 1;
/// Coarsest first.
const TIME_UNITS: [u64; 4] = [1_000_000_000, 1_000_000, 1_000, 1];

/// What a publisher knows of its clock when it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockInfo {
    /// Random per boot: monotonic times of different boots do not compare.
    pub boot: u64,
    /// Monotonic ns at sending.
    pub sent_mono: u64,
    /// False: event times of the batch are monotonic ns, not since the Unix epoch.
    pub synced: bool,
}

/// Events that entered the spool and left it unsent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drop {
    /// First seq of the range.
    pub from: u64,
    /// Last seq of the range, included.
    pub to: u64,
    /// How many of the range were dropped.
    pub count: u64,
    /// Of the dropped events.
    pub severity: Severity,
    /// Why.
    pub reason: DropReason,
}

/// Why events left a spool unsent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// The spool was at its cap.
    SpoolFull = 0,
    /// Older than the publisher keeps events.
    Expired = 1,
    /// The source was too noisy.
    RateLimited = 2,
    /// The spool's bytes did not check.
    Unreadable = 3,
    /// No payload could carry the event.
    TooLarge = 4,
}

impl DropReason {
    /// Every reason, by number.
    pub const ALL: [DropReason; 5] = [
        DropReason::SpoolFull,
        DropReason::Expired,
        DropReason::RateLimited,
        DropReason::Unreadable,
        DropReason::TooLarge,
    ];

    /// As in logs and metrics: `spool_full`, `expired`, `rate_limited`, `unreadable`, `too_large`.
    pub const fn name(self) -> &'static str {
        match self {
            DropReason::SpoolFull => "spool_full",
            DropReason::Expired => "expired",
            DropReason::RateLimited => "rate_limited",
            DropReason::Unreadable => "unreadable",
            DropReason::TooLarge => "too_large",
        }
    }

    /// The reason of that number.
    pub fn from_number(number: u8) -> Option<DropReason> {
        DropReason::ALL.get(usize::from(number)).copied()
    }
}

/// One event on its way out: what the spool holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<A = Attributes> {
    /// Within the lane.
    pub seq: u64,
    /// ns since the Unix epoch, or monotonic ns where [`ClockInfo::synced`] is false.
    pub time: u64,
    /// How bad.
    pub severity: Severity,
    /// At most [`MAX_MESSAGE`] bytes.
    pub message: String,
    /// The message was cut.
    pub truncated: bool,
    /// Within the limits of [`limits`].
    pub attributes: A,
}

impl Entry {
    /// Applies the limits of one event: cuts the message and flags it, bounds the attributes. An
    /// entry that went through here always fits a batch of its own.
    pub fn fit(&mut self) {
        self.truncated |= limits::cut_message(&mut self.message);
        limits::bound_attributes(&mut self.attributes);
    }
}

/// A decoded (or to be encoded) batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch<A = Attributes> {
    /// Of the lane.
    pub epoch: u64,
    /// The first seq this batch speaks for: of its first event or of an earlier declared drop.
    pub first_seq: u64,
    /// What the publisher knew of its clock when it sent.
    pub clock: ClockInfo,
    /// Declared drops.
    pub drops: Vec<Drop>,
    /// Ascending by seq.
    pub entries: Vec<Entry<A>>,
}

impl<A> Batch<A> {
    /// The last seq this batch speaks for, drops included; `first_seq` for an empty batch, which no
    /// encoder makes and no decoder returns.
    pub fn last_seq(&self) -> u64 {
        let last = self.entries.last().map(|entry| entry.seq);
        let dropped = self.drops.iter().map(|drop| drop.to);
        dropped
            .chain(last)
            .max()
            .unwrap_or(self.first_seq)
            .max(self.first_seq)
    }
}

/// Whether a payload says that it is a batch, of whatever version.
pub fn is_batch(payload: &[u8]) -> bool {
    payload.starts_with(&MAGIC)
}

/// The header as it stands in the payload: a MessagePack array in this order.
#[derive(serde::Serialize, serde::Deserialize)]
struct Header {
    epoch: u64,
    first_seq: u64,
    count: u32,
    base_time: u64,
    time_unit: u64,
    boot: u64,
    sent_mono: u64,
    clock: u8,
    body_len: u32,
    drops: Vec<(u64, u64, u64, u8, u8)>,
}

/// Why a batch was not encoded. Nothing was appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Over a limit of the whole batch: split it.
    #[error("batch too large: {0}")]
    TooLarge(String),
    /// No batch can say this: a bug of the caller, or an entry that did not go through
    /// [`Entry::fit`].
    #[error("invalid batch: {0}")]
    Invalid(String),
}

/// Why a payload is not a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes do not have the documented form.
    #[error("malformed batch: {0}")]
    Malformed(String),
    /// Written by a newer publisher than this program understands.
    #[error("unknown batch version {0}")]
    Version(u8),
    /// Larger than a batch may be.
    #[error("over the limit: {0}")]
    Limit(String),
}

#[cfg(test)]
mod tests;
