//! The documents that operators write, and how they are read and written. A document that is read
//! and written again says the same; its JSON has the fields in one order and leaves out what is not
//! said.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Attributes, Limits, Upload, check_attributes, env};
use crate::{Level, json, name, topic::ConfigTopic};

/// Most entries of a document's `sources`.
pub const MAX_SOURCES: usize = 1000;
/// Longest `by`, characters.
pub const MAX_BY: usize = 256;
/// Longest `description`, characters: AWS IoT's for thing groups (API ThingGroupProperties).
pub const MAX_DESCRIPTION: usize = 2028;
/// Longest `role`, characters: AWS's for role ARNs (API LoggingOptionsPayload names no other).
pub const MAX_ROLE: usize = 2048;
/// Longest `type`, characters: AWS IoT's for thing types (API CreateThingType).
const MAX_TYPE: usize = 128;

/// `config/default|group/..|device/..|source/..|principal/..|source-ip/..`. A document without a
/// level and settings only declares its device or group.
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
    /// The same settings as `upload` and `limits` under the names of a device's environment, see
    /// [`super::ENV_KEYS`]; where those are allowed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// What the router may deliver to: an AWS role ARN as it was given; `config/default` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The group this group is in; groups only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Makes the group dynamic: its devices are those that match; groups only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// What the group is for; groups only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What operators say of the group or device; these two only.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: Attributes,
    /// The device's type; devices only.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// When the group or device was created, RFC 3339; these two only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Counts the updates of a group or device that was created, from 1; these two only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Who wrote the document, as whoever wrote it for them says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When it was written, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
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
    /// Who wrote it, see [`LevelDocument::by`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When it was written, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// `config/member/<group>/<device>`: says by being there that the device is in the group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Member {
    /// Who wrote it, see [`LevelDocument::by`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When it was written, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

impl LevelDocument {
    /// Whether it says a level, for everything or for single sources.
    pub fn says_level(&self) -> bool {
        self.level.is_some() || self.disabled || !self.sources.is_empty()
    }

    /// Whether it says nothing at all but who wrote it and when. Of a device or a group such a
    /// document still declares that it exists.
    pub fn is_empty(&self) -> bool {
        let unsigned = LevelDocument {
            by: None,
            at: None,
            ..self.clone()
        };
        unsigned == LevelDocument::default()
    }

    /// Takes the level part away: level, sources, disabled and settings. What declares and describes
    /// stays.
    pub fn without_level(self) -> LevelDocument {
        LevelDocument {
            level: None,
            disabled: false,
            sources: BTreeMap::new(),
            upload: None,
            limits: None,
            env: BTreeMap::new(),
            ..self
        }
    }

    /// `upload` and `limits` with what `env` says of them.
    pub fn settings(&self) -> (Upload, Limits) {
        let mut upload = self.upload.clone().unwrap_or_default();
        let mut limits = self.limits.clone().unwrap_or_default();
        // What was read has been checked; what was put together otherwise may be wrong, and is then
        // refused when it is read.
        if !self.env.is_empty()
            && let Ok((more, most)) = env::read(&self.env, None, None)
        {
            upload.fill_from(&more);
            limits.fill_from(&most);
        }
        (upload, limits)
    }

    /// Whether it makes settings of devices.
    pub fn has_settings(&self) -> bool {
        self.upload.is_some() || self.limits.is_some() || !self.env.is_empty()
    }

    /// The retained payload.
    pub fn to_json(&self) -> Vec<u8> {
        write(self)
    }
}

impl Override {
    /// The retained payload.
    pub fn to_json(&self) -> Vec<u8> {
        write(self)
    }
}

impl Member {
    /// The retained payload.
    pub fn to_json(&self) -> Vec<u8> {
        write(self)
    }
}

/// Structs of strings and numbers always serialise.
fn write(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}

/// Reads a document for its topic. Every rule that needs no other document is checked here.
pub(crate) fn parse_level_document(
    topic: ConfigTopic<'_>,
    payload: &[u8],
) -> Result<LevelDocument, String> {
    let document: LevelDocument = parse(payload)?;
    check_place(topic, &document)?;
    if matches!(topic, ConfigTopic::Source(_)) && !document.sources.is_empty() {
        return Err("`sources` has no meaning for a single source; set `level`".into());
    }
    check_sources(&document.sources)?;
    document.upload.as_ref().map_or(Ok(()), Upload::check)?;
    document.limits.as_ref().map_or(Ok(()), Limits::check)?;
    if !document.env.is_empty() {
        let (upload, limits) = env::read(
            &document.env,
            document.upload.as_ref(),
            document.limits.as_ref(),
        )?;
        upload.check()?;
        limits.check()?;
    }
    if let Some(query) = &document.query {
        let shown: String = query.chars().take(40).collect();
        return Err(format!(
            "`query` {shown:?}: dynamic groups are not supported by this version; add devices with \
             config/member/<group>/<device>"
        ));
    }
    check_attributes(&document.attributes)?;
    check_text("role", document.role.as_deref(), MAX_ROLE)?;
    check_text(
        "description",
        document.description.as_deref(),
        MAX_DESCRIPTION,
    )?;
    check_text("type", document.kind.as_deref(), MAX_TYPE)?;
    check_time("created", document.created.as_deref())?;
    check_signature(document.by.as_deref(), document.at.as_deref())?;
    Ok(document)
}

/// Fields that have a meaning in some documents only.
fn check_place(topic: ConfigTopic<'_>, document: &LevelDocument) -> Result<(), String> {
    let default = topic == ConfigTopic::Default;
    let group = matches!(topic, ConfigTopic::Group(_));
    let device = matches!(topic, ConfigTopic::Device(_));
    let fleet = "config/default, config/group/… and config/device/…";
    let declared = "config/group/… and config/device/…";
    let fields = [
        ("disabled", document.disabled, default, "config/default"),
        ("role", document.role.is_some(), default, "config/default"),
        ("parent", document.parent.is_some(), group, "config/group/…"),
        ("query", document.query.is_some(), group, "config/group/…"),
        (
            "description",
            document.description.is_some(),
            group,
            "config/group/…",
        ),
        ("type", document.kind.is_some(), device, "config/device/…"),
        (
            "attributes",
            !document.attributes.is_empty(),
            group || device,
            declared,
        ),
        (
            "created",
            document.created.is_some(),
            group || device,
            declared,
        ),
        (
            "version",
            document.version.is_some(),
            group || device,
            declared,
        ),
        (
            "upload",
            document.upload.is_some(),
            default || group || device,
            fleet,
        ),
        (
            "limits",
            document.limits.is_some(),
            default || group || device,
            fleet,
        ),
        (
            "env",
            !document.env.is_empty(),
            default || group || device,
            fleet,
        ),
    ];
    match fields
        .iter()
        .find(|(_, given, allowed, _)| *given && !*allowed)
    {
        None => Ok(()),
        Some((field, _, _, place)) => Err(format!("`{field}` is for {place} only")),
    }
}

/// Reads an override; its end in ns since the epoch.
pub(crate) fn parse_override(payload: &[u8]) -> Result<(Override, u64), String> {
    let document: Override = parse(payload)?;
    check_sources(&document.sources)?;
    check_signature(document.by.as_deref(), document.at.as_deref())?;
    let until =
        json::parse_time(&document.until).ok_or_else(|| no_time("until", &document.until))?;
    Ok((document, until))
}

/// Reads a membership.
pub(crate) fn parse_member(payload: &[u8]) -> Result<Member, String> {
    let document: Member = parse(payload)?;
    check_signature(document.by.as_deref(), document.at.as_deref())?;
    Ok(document)
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

fn check_signature(by: Option<&str>, at: Option<&str>) -> Result<(), String> {
    check_text("by", by, MAX_BY)?;
    check_time("at", at)
}

fn check_text(field: &str, text: Option<&str>, most: usize) -> Result<(), String> {
    match text.map(|text| (text, text.chars().count())) {
        Some((_, length)) if length > most => {
            Err(format!("`{field}` has {length} characters, at most {most}"))
        }
        Some((text, _)) if text.contains(char::is_control) => {
            Err(format!("`{field}` has control characters"))
        }
        _ => Ok(()),
    }
}

fn check_time(field: &str, text: Option<&str>) -> Result<(), String> {
    match text {
        Some(text) if json::parse_time(text).is_none() => Err(no_time(field, text)),
        _ => Ok(()),
    }
}

fn no_time(field: &str, text: &str) -> String {
    let text = text.chars().take(40).collect::<String>();
    format!("`{field}` {text:?} is no RFC 3339 time such as 2026-01-02T15:04:05Z")
}
