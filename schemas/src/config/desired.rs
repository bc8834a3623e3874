//! What a router tells a device, and what a device says of itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Limits, Upload, UploadMode, settings};
use crate::{Level, hash};

/// The newest version of [`Desired`] that this program writes; each document has the oldest that says all of
/// it, so that it does not change where nothing is new.
pub const SCHEMA: u32 = 2;
/// The version of documents with [`Desired::unset`], and of those without.
pub(crate) const fn schema(unset: bool) -> u32 {
    if unset { SCHEMA } else { 1 }
}

/// `desired/<device>`: the resolved configuration a device applies. Unknown fields are ignored here
/// (an older device meets a newer router), `schema` says who wrote it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    /// Version of the form, at most [`SCHEMA`] if written here; a router never overwrites a newer one.
    pub schema: u32,
    /// Hash of the content (16 hex digits), see [`Desired::content_hash`].
    pub revision: String,
    /// The level of sources that `sources` does not name.
    pub level: Level,
    /// Nobody has said a level: `level` is what passes then, and a device that is configured to send less
    /// by itself does so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unset: bool,
    /// Levels of single sources.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, Level>,
    /// The override that runs, if any.
    #[serde(default, rename = "override", skip_serializing_if = "Option::is_none")]
    pub temporary: Option<Temporary>,
    /// When and in what pieces to send.
    #[serde(default, deserialize_with = "settings::lenient")]
    pub upload: Upload,
    /// What may be held.
    #[serde(default, deserialize_with = "settings::lenient")]
    pub limits: Limits,
}

/// A temporary level inside `desired`: ends at the earlier of `until` (clock synced) and receipt +
/// `for_s`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Temporary {
    /// The level of sources that `sources` does not name.
    pub level: Level,
    /// Levels of single sources.
    #[serde(default)]
    pub sources: BTreeMap<String, Level>,
    /// RFC 3339.
    pub until: String,
    /// Seconds that remained when the document was written.
    pub for_s: u64,
}

impl Desired {
    /// The level of sources that `sources` does not name, outside the temporary window, of a device whose
    /// own is `own`.
    pub fn lasting(&self, own: Level) -> Level {
        match self.unset {
            true => self.level.min(own),
            false => self.level,
        }
    }

    /// The level for a source outside / inside the temporary window, of a device whose own is `own`.
    pub fn level_for(&self, source: &str, temporary_active: bool, own: Level) -> Level {
        match &self.temporary {
            Some(temporary) if temporary_active => temporary
                .sources
                .get(source)
                .copied()
                .unwrap_or(temporary.level),
            _ => {
                let named = self.sources.get(source).copied();
                named.unwrap_or_else(|| self.lasting(own))
            }
        }
    }

    /// What `revision` is: 64-bit FNV-1a over the JSON of everything but `revision` and `for_s`,
    /// as 16 hex digits. Two routers that resolve the same documents get the same.
    pub fn content_hash(&self) -> String {
        let mut content = self.clone();
        content.revision.clear();
        if let Some(temporary) = &mut content.temporary {
            temporary.for_s = 0;
        }
        // Fields in the order of the struct, maps sorted: one content has one text. A struct of
        // strings and numbers always serialises.
        let text = serde_json::to_vec(&content).unwrap_or_default();
        format!("{:016x}", hash::fnv1a(&text))
    }
}

/// `reported/<device>`: what a device says of itself; also its last will with `online: false`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reported {
    /// False in the last will.
    pub online: bool,
    /// Of the publisher.
    pub version: String,
    /// Of the configuration in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Events waiting to be acknowledged.
    pub spool_events: u64,
    /// Bytes of them.
    pub spool_bytes: u64,
    /// Events dropped since the publisher started.
    pub dropped: u64,
    /// The same by level and reason: `{"INFO": {"spool_full": 12}}`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped_by: BTreeMap<String, BTreeMap<String, u64>>,
    /// When the device sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload: Option<UploadMode>,
    /// Whether events are written to flash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent: Option<bool>,
    /// Whether the device knows the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_synced: Option<bool>,
    /// What the device says of itself: model, version, …
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}
