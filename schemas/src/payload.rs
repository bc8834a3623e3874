//! Any payload of `logs/<device>/<source>` to events: batch, JSON object, JSON array, NDJSON or
//! plain text (one event a line, INFO); else an error whose text is the quarantine reason.

use std::sync::Arc;
use crate::{Event, batch};

/// What the broker knows of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Journal id and offset; absent behind other brokers.
    pub stored: Option<(u64, u64)>,
    /// ns since the Unix epoch.
    pub received: u64,
    pub principal: Option<Arc<str>>,
    pub address: Option<Arc<str>>,
}

/// What a payload says.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub events: Vec<Event>,
    /// Present for batches: what gap detection needs.
    pub lane: Option<Lane>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    pub epoch: u64,
    pub first_seq: u64,
    /// The last seq this payload speaks for, drops included.
    pub last_seq: u64,
    pub drops: Vec<batch::Drop>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    #[error("{0}")]
    Batch(#[from] batch::DecodeError),
    #[error("neither batch, JSON nor UTF-8 text: byte {at} is 0x{byte:02x}")]
    NotText { at: usize, byte: u8 },
    #[error("payload of {0} bytes is over the limit of {limit}", limit = batch::MAX_PAYLOAD)]
    TooLarge(usize),
}

/// Decodes payloads; keeps scratch between calls. `device` and `source` are the topic's.
pub struct PayloadDecoder { batches: batch::Decoder }
impl PayloadDecoder {
    pub fn new() -> PayloadDecoder { todo!() }
    pub fn decode(&mut self, device: &Arc<str>, source: &Arc<str>, payload: &[u8], stamp: &Stamp) -> Result<Decoded, PayloadError> { todo!() }
}
