//! From retained documents to the level of an event. A pure state machine: documents in, levels out.

use std::collections::BTreeMap;
use crate::{Level, Severity, config::{ConfigError, Desired}, topic::ConfigTopic};

/// All configuration documents of a fleet, the last good version of each.
#[derive(Clone, Debug, Default)]
pub struct Fleet { /* documents by kind */ }

/// Whose level may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affected { Nobody, Device(String), Group(String), Everybody }

impl Fleet {
    pub fn new() -> Fleet { todo!() }
    /// Applies one retained document; an empty payload removes it. A bad document changes nothing.
    pub fn apply(&mut self, topic: ConfigTopic<'_>, payload: &[u8]) -> Result<Affected, ConfigError> { todo!() }
    /// Bumped by every change that `apply` made; cheap cache key.
    pub fn generation(&self) -> u64 { todo!() }
    /// The rules for one device's events, to be cached until `generation` moves.
    pub fn resolve(&self, who: &Who<'_>) -> Resolved { todo!() }
    /// The document for `desired/<device>` at `now` (ns): pure function of the documents and, for
    /// running overrides, of `now`. The revision does not cover `for_s`.
    pub fn desired(&self, device: &str, now: u64) -> Desired { todo!() }
    /// Devices that have a document, an override or a membership of their own.
    pub fn named_devices(&self) -> Vec<String> { todo!() }
}

/// Who published, as far as level targets look at it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Who<'a> { pub device: &'a str, pub principal: Option<&'a str>, pub address: Option<&'a str> }

/// The answer for one device.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved { /* private: base level, sources, windows of overrides, disabled */ }
impl Resolved {
    /// Level for an event of `source` that happened at `time` (ns).
    pub fn level(&self, source: &str, time: u64) -> Level { todo!() }
    pub fn passes(&self, source: &str, time: u64, severity: Severity) -> bool { todo!() }
}
