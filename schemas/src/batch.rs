//! The compact payload of `logs/<device>/<source>`: byte layout (to be written out in full here).
//!
//! One batch holds events of ONE lane: one source of one device. `seq` counts within a lane and a
//! lane has an epoch of its own, so a hole is visible the moment the next batch arrives.
//!
//! ```text
//! magic   4  FF 74 6C 67          ("\xFFtlg", never valid UTF-8)
//! version 1  01
//! flags   1  bit 0: body is a zstd frame
//! header     MessagePack array: [epoch u64, first_seq u64, count u32, base_time u64, time_unit u64,
//!             boot u64, sent_mono u64, clock u8 (0 unsynced, 1 synced), body_len u32 (uncompressed),
//!             drops [[from, to, count, severity, reason], ...]]
//! body       MessagePack array of columns: [seq steps ([] when all are 1), times (deltas in time_unit
//!             from the previous, first from base_time), severities (bin), messages,
//!             attributes [[index, map], ...], truncated [index, ...]]
//! ```

use crate::{Attributes, Severity};

pub const MAGIC: [u8; 4] = [0xFF, b't', b'l', b'g'];
/// Largest payload accepted, bytes.
pub const MAX_PAYLOAD: usize = 1 << 20;
/// Largest body after decompression, bytes; checked while decompressing.
pub const MAX_BODY: usize = 8 << 20;
/// Longest message, bytes; longer ones are cut on a character boundary and flagged.
pub const MAX_MESSAGE: usize = 256 << 10;
pub const MAX_ATTRIBUTES: usize = 128;
/// Most events of one batch, so that a small payload cannot grow into gigabytes.
pub const MAX_EVENTS: usize = 65_536;
/// Bodies from this size up are compressed.
pub const COMPRESS_FROM: usize = 1 << 10;

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
    /// First and last seq of the range, inclusive; `count` of them were dropped, of this severity.
    pub from: u64,
    pub to: u64,
    pub count: u64,
    pub severity: Severity,
    pub reason: DropReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason { SpoolFull = 0, Expired = 1, RateLimited = 2, Unreadable = 3, TooLarge = 4 }

/// One event on its way out: what the spool holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub seq: u64,
    /// ns since the Unix epoch, or monotonic ns where `ClockInfo::synced` is false.
    pub time: u64,
    pub severity: Severity,
    pub message: String,
    pub truncated: bool,
    pub attributes: Attributes,
}

/// A decoded (or to be encoded) batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    pub epoch: u64,
    /// The first seq this batch speaks for: of its first event or of an earlier declared drop.
    pub first_seq: u64,
    pub clock: ClockInfo,
    pub drops: Vec<Drop>,
    /// Ascending by seq.
    pub entries: Vec<Entry>,
}

/// Encodes batches; keeps its compressor and buffers between calls.
pub struct Encoder { /* zstd context, scratch */ }
impl Encoder {
    pub fn new() -> Encoder { todo!() }
    /// Appends the payload. Errors when limits are exceeded (too many events, body or payload too
    /// large): the caller splits the batch.
    pub fn encode(&mut self, batch: &Batch, out: &mut Vec<u8>) -> Result<(), EncodeError> { todo!() }
}

/// Decodes batches; keeps its decompressor and scratch between calls.
pub struct Decoder { /* zstd context, scratch */ }
impl Decoder {
    pub fn new() -> Decoder { todo!() }
    pub fn decode(&mut self, payload: &[u8]) -> Result<Batch, DecodeError> { todo!() }
}

pub fn is_batch(payload: &[u8]) -> bool { payload.starts_with(&MAGIC) }

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError { #[error("batch too large: {0}")] TooLarge(String) }
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError { #[error("malformed batch: {0}")] Malformed(String), #[error("unknown batch version {0}")] Version(u8), #[error("over the limit: {0}")] Limit(String) }
