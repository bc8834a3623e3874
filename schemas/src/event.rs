//! A log event as every part of thinglog sees it.

use std::sync::Arc;
use crate::Severity;

/// Key–value pairs of an event; values are JSON.
pub type Attributes = serde_json::Map<String, serde_json::Value>;

/// What makes an event the same event after any redelivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventId {
    /// From an embedded publisher: `<device>/<epoch as 16 hex digits>/<seq>`.
    Spooled { epoch: u64, seq: u64 },
    /// From a plain MQTT client, numbered by the broker's journal: `<device>/@<journal hex>/<offset>/<index>`.
    Stored { journal: u64, offset: u64, index: u32 },
    /// A hole nobody declared: `gap/<epoch>/<from>-<to>` (inclusive).
    Gap { epoch: u64, from: u64, to: u64 },
    /// A plain event behind a broker that numbers nothing: at-least-once, no id.
    None,
}

impl EventId {
    /// The text form with its device (`gap/...` has none), or `None` for `EventId::None`.
    pub fn text(&self, device: &str) -> Option<String> { todo!() }
    /// Parses the text form; gives device (empty for gaps) and id.
    pub fn parse(text: &str) -> Option<(&str, EventId)> { todo!() }
}

/// One log event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub device: Arc<str>,
    pub source: Arc<str>,
    pub id: EventId,
    /// Nanoseconds since the Unix epoch, by the device's clock (or estimated, see below).
    pub time: u64,
    /// The device's clock was not synchronised; `time` was derived from the broker's.
    pub time_estimated: bool,
    pub severity: Severity,
    pub message: String,
    /// The message was longer than 256 KiB and has been cut.
    pub truncated: bool,
    pub attributes: Attributes,
    /// Nanoseconds since the Unix epoch when the broker (else the router) received it.
    pub received: u64,
}
