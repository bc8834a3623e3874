//! The documents that configure a fleet. Strict: unknown fields are errors that name the field.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Level, hash, json, name, topic::ConfigTopic};

mod settings;

pub use settings::{Limits, MAX_TIMES, TimeOfDay, Upload, UploadMode};

/// Most entries of a document's `sources`.
pub const MAX_SOURCES: usize = 1000;
/// The version of [`Desired`] that this program writes.
pub const SCHEMA: u32 = 1;

/// `config/default|group/..|device/..|source/..|principal/..|source-ip/..`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LevelDocument {
    /// How much passes; a document without it leaves the question to the next rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// All logs off, whatever other documents say; `config/default` only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
    /// Levels of single sources where this document decides; not in `config/source/…`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, Level>,
    /// When and in what pieces devices send; `default`, `group` and `device` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload: Option<Upload>,
    /// What devices may hold; `default`, `group` and `device` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// The group this group is in; groups only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Dynamic groups, which this version does not support: a document with a query is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
}

/// `config/override/...`: a temporary level until an RFC 3339 time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// How much passes until then.
    pub level: Level,
    /// RFC 3339: events that happened before are judged by this level.
    pub until: String,
    /// Levels of single sources.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, Level>,
}

/// `desired/<device>`: the resolved configuration a device applies. Unknown fields are ignored here
/// (an older device meets a newer router), `schema` says who wrote it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    /// Version of the form, [`SCHEMA`]; a router never overwrites a newer one.
    pub schema: u32,
    /// Hash of the content (16 hex digits), see [`Desired::content_hash`].
    pub revision: String,
    /// The level of sources that `sources` does not name.
    pub level: Level,
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
    /// The level for a source outside / inside the temporary window.
    pub fn level_for(&self, source: &str, temporary_active: bool) -> Level {
        match &self.temporary {
            Some(temporary) if temporary_active => temporary
                .sources
                .get(source)
                .copied()
                .unwrap_or(temporary.level),
            _ => self.sources.get(source).copied().unwrap_or(self.level),
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

/// Why a document was refused; what was there before stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{topic}: {reason}")]
pub struct ConfigError {
    /// The topic without its root: `config/device/lamp-7`.
    pub topic: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

/// Reads a document for its topic. Every rule that needs no other document is checked here.
pub(crate) fn parse_level_document(
    topic: ConfigTopic<'_>,
    payload: &[u8],
) -> Result<LevelDocument, String> {
    let document: LevelDocument = parse(payload)?;
    let only = |given: bool, field: &str, where_: &str| {
        if given {
            Err(format!("`{field}` is for {where_} only"))
        } else {
            Ok(())
        }
    };
    let group = matches!(topic, ConfigTopic::Group(_));
    let for_devices = matches!(topic, ConfigTopic::Default | ConfigTopic::Device(_)) || group;
    let fleet = "config/default, config/group/… and config/device/…";
    only(
        document.disabled && topic != ConfigTopic::Default,
        "disabled",
        "config/default",
    )?;
    only(
        document.parent.is_some() && !group,
        "parent",
        "config/group/…",
    )?;
    only(document.upload.is_some() && !for_devices, "upload", fleet)?;
    only(document.limits.is_some() && !for_devices, "limits", fleet)?;
    if document.query.is_some() {
        return Err(
            "`query`: dynamic groups are not supported by this version; \
                    add devices with config/member/<group>/<device>"
                .into(),
        );
    }
    if matches!(topic, ConfigTopic::Source(_)) && !document.sources.is_empty() {
        return Err("`sources` has no meaning for a single source; set `level`".into());
    }
    check_sources(&document.sources)?;
    document.upload.as_ref().map_or(Ok(()), Upload::check)?;
    document.limits.as_ref().map_or(Ok(()), Limits::check)?;
    Ok(document)
}

/// Reads an override; its end in ns since the epoch.
pub(crate) fn parse_override(payload: &[u8]) -> Result<(Override, u64), String> {
    let document: Override = parse(payload)?;
    check_sources(&document.sources)?;
    let until = json::parse_time(&document.until).ok_or_else(|| {
        let until = document.until.chars().take(40).collect::<String>();
        format!("`until` {until:?} is no RFC 3339 time such as 2026-01-02T15:04:05Z")
    })?;
    Ok((document, until))
}

/// Reads a membership, which says nothing but that it is there.
pub(crate) fn parse_member(payload: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Member {}
    parse::<Member>(payload).map(|Member {}| ())
}

/// Objects only: serde would also take an array, field by field.
fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    if !payload.trim_ascii_start().starts_with(b"{") {
        return Err("it is not a JSON object, like {\"level\": \"WARN\"}".into());
    }
    serde_json::from_slice(payload).map_err(|error| error.to_string())
}

fn check_sources(sources: &BTreeMap<String, Level>) -> Result<(), String> {
    if sources.len() > MAX_SOURCES {
        return Err(format!(
            "{} entries in `sources`, at most {MAX_SOURCES}",
            sources.len()
        ));
    }
    match sources.keys().find(|source| !name::is_valid(source)) {
        None => Ok(()),
        Some(source) => Err(format!(
            "`sources`: {:?} is no source name; in topics it is written {:?}",
            source.chars().take(40).collect::<String>(),
            name::encode(source)
        )),
    }
}
