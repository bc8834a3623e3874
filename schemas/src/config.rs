//! The documents that configure a fleet. Strict: unknown fields are errors that name the field.

use std::collections::BTreeMap;
use serde::{Deserialize, Serialize};
use crate::Level;

/// `config/default|group/..|device/..|source/..|principal/..|source-ip/..`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LevelDocument {
    #[serde(skip_serializing_if = "Option::is_none")] pub level: Option<Level>,
    /// All logs off; `config/default` only.
    #[serde(skip_serializing_if = "std::ops::Not::not")] pub disabled: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")] pub sources: BTreeMap<String, Level>,
    #[serde(skip_serializing_if = "Option::is_none")] pub upload: Option<Upload>,
    #[serde(skip_serializing_if = "Option::is_none")] pub limits: Option<Limits>,
    /// Groups only.
    #[serde(skip_serializing_if = "Option::is_none")] pub parent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")] pub query: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upload {
    #[serde(skip_serializing_if = "Option::is_none")] pub flush_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")] pub batch_events: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")] pub batch_bytes: Option<u32>,
}
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    #[serde(skip_serializing_if = "Option::is_none")] pub spool_bytes: Option<u64>,
}

/// `config/override/...`: a temporary level until an RFC 3339 time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override { pub level: Level, pub until: String, #[serde(default, skip_serializing_if = "BTreeMap::is_empty")] pub sources: BTreeMap<String, Level> }

/// `desired/<device>`: the resolved configuration a device applies. Unknown fields are ignored here
/// (an older device meets a newer router), `schema` says who wrote it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    pub schema: u32,
    /// Hash of the content (16 hex digits).
    pub revision: String,
    pub level: Level,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")] pub sources: BTreeMap<String, Level>,
    #[serde(default, rename = "override", skip_serializing_if = "Option::is_none")] pub temporary: Option<Temporary>,
    #[serde(default)] pub upload: Upload,
    #[serde(default)] pub limits: Limits,
}
/// A temporary level inside `desired`: ends at the earlier of `until` (clock synced) and receipt + `for_s`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Temporary { pub level: Level, #[serde(default)] pub sources: BTreeMap<String, Level>, pub until: String, pub for_s: u64 }

impl Desired {
    /// The level for a source outside / inside the temporary window.
    pub fn level_for(&self, source: &str, temporary_active: bool) -> Level { todo!() }
}

/// `reported/<device>`: what a device says of itself; also its last will with `online: false`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reported {
    pub online: bool,
    pub version: String,
    #[serde(skip_serializing_if = "Option::is_none")] pub revision: Option<String>,
    pub spool_events: u64,
    pub spool_bytes: u64,
    pub dropped: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")] pub attributes: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{topic}: {reason}")]
pub struct ConfigError { pub topic: String, pub reason: String }
