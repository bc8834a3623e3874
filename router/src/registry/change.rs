//! What can be changed about a fleet. [`super::plan()`] turns a change into documents.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};
use thinglog_schemas::topic::ConfigTopic;
use thinglog_schemas::{Level, name};

use super::refusal::Refusal;

/// Whose level a document sets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// Every device: `config/default`.
    Default,
    /// A thing group.
    Group(String),
    /// A device; AWS's CLIENT_ID.
    Device(String),
    /// A source on every device; AWS's event type.
    Source(String),
    /// Whoever authenticates so; percent-encoded as in topics.
    Principal(String),
    /// Whoever connects from there.
    SourceIp(String),
}

impl Target {
    /// The target of a kind, as the paths of the API spell it: `group`, `device`, `source`,
    /// `principal` or `source-ip`. Names of sources and principals are percent-encoded as publishers
    /// do it; the others must be valid as they are.
    pub fn of(kind: &str, name: &str) -> Result<Target, Refusal> {
        match kind {
            "group" => valid(name, "group").map(Target::Group),
            "device" => valid(name, "device").map(Target::Device),
            "source" => Ok(Target::Source(name::encode(name).into_owned())),
            "principal" => Ok(Target::Principal(name::encode(name).into_owned())),
            "source-ip" => valid(name, "address").map(Target::SourceIp),
            _ => Err(Refusal::invalid(format!(
                "{kind:?} is no kind of target: group, device, source, principal or source-ip"
            ))),
        }
    }

    /// The document's topic.
    pub fn topic(&self) -> ConfigTopic<'_> {
        match self {
            Target::Default => ConfigTopic::Default,
            Target::Group(name) => ConfigTopic::Group(name),
            Target::Device(name) => ConfigTopic::Device(name),
            Target::Source(name) => ConfigTopic::Source(name),
            Target::Principal(name) => ConfigTopic::Principal(name),
            Target::SourceIp(ip) => ConfigTopic::SourceIp(ip),
        }
    }

    /// The target whose document stands on a topic.
    pub fn of_topic(topic: ConfigTopic<'_>) -> Option<Target> {
        match topic {
            ConfigTopic::Default => Some(Target::Default),
            ConfigTopic::Group(name) => Some(Target::Group(name.into())),
            ConfigTopic::Device(name) => Some(Target::Device(name.into())),
            ConfigTopic::Source(name) => Some(Target::Source(name.into())),
            ConfigTopic::Principal(name) => Some(Target::Principal(name.into())),
            ConfigTopic::SourceIp(ip) => Some(Target::SourceIp(ip.into())),
            _ => None,
        }
    }

    /// `default`, `group`, `device`, `source`, `principal` or `source-ip`.
    pub fn kind(&self) -> &'static str {
        match self {
            Target::Default => "default",
            Target::Group(_) => "group",
            Target::Device(_) => "device",
            Target::Source(_) => "source",
            Target::Principal(_) => "principal",
            Target::SourceIp(_) => "source-ip",
        }
    }

    /// Its name, as it stands in topics; none for the default.
    pub fn name(&self) -> Option<&str> {
        match self {
            Target::Default => None,
            Target::Group(name)
            | Target::Device(name)
            | Target::Source(name)
            | Target::Principal(name)
            | Target::SourceIp(name) => Some(name),
        }
    }
}

impl fmt::Display for Target {
    /// `the default`, `group "eu"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            None => f.write_str("the default"),
            Some(name) => write!(f, "{} {name:?}", self.kind()),
        }
    }
}

/// A name as it must be to stand in a topic.
pub fn valid(name: &str, what: &str) -> Result<String, Refusal> {
    if name::is_valid(name) {
        return Ok(name.to_owned());
    }
    let shown: String = name.chars().take(130).collect();
    Err(Refusal::invalid(format!(
        "{shown:?} is no name of a {what}: 1-128 characters of A-Z a-z 0-9 . _ : -"
    )))
}

/// Attributes to set; `None` removes one.
pub type Attributes = BTreeMap<String, Option<String>>;

/// What a new group is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewGroup {
    /// The group it is in; static groups only.
    pub parent: Option<String>,
    /// Which devices are in it; makes the group a dynamic one.
    pub query: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// For people and programs.
    pub attributes: BTreeMap<String, String>,
}

/// What changes about a group; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupPatch {
    /// `Some(None)` removes it.
    pub description: Option<Option<String>>,
    /// Attributes to set or remove.
    pub attributes: Attributes,
    /// Whether attributes that are not named go.
    pub replace_attributes: bool,
    /// Dynamic groups only.
    pub query: Option<String>,
    /// Refused unless the group has this version.
    pub expected_version: Option<u64>,
}

/// What changes about a device; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DevicePatch {
    /// `Some(None)` removes it.
    pub device_type: Option<Option<String>>,
    /// Attributes to set or remove.
    pub attributes: Attributes,
    /// Whether attributes that are not named go.
    pub replace_attributes: bool,
    /// Refused unless the device has this version.
    pub expected_version: Option<u64>,
}

/// A change of the fleet.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Sets the whole level part of a target's document ([`LEVEL_PART`]): what `settings` does not
    /// name is gone, whatever else the document says stays.
    SetLevel {
        /// Whose.
        target: Target,
        /// Fields of a level document.
        settings: Map<String, Value>,
    },
    /// Sets the given fields of the level part; `null` removes one.
    PatchLevel {
        /// Whose.
        target: Target,
        /// Fields of a level document.
        patch: Map<String, Value>,
    },
    /// Removes the level part.
    DeleteLevel {
        /// Whose.
        target: Target,
    },
    /// The fleet's logging options, as AWS's SetV2LoggingOptions; what is `None` stays.
    SetOptions {
        /// What the router may deliver to; opaque.
        role: Option<String>,
        /// The level of the default.
        level: Option<Level>,
        /// All logs off.
        disabled: Option<bool>,
    },
    /// A temporary level of the default, a group or a device.
    SetOverride {
        /// Whose.
        target: Target,
        /// How much passes.
        level: Level,
        /// Its end, ns since the Unix epoch.
        until: u64,
        /// Levels of single sources.
        sources: BTreeMap<String, Level>,
    },
    /// Ends a temporary level now.
    DeleteOverride {
        /// Whose.
        target: Target,
    },
    /// Makes a group. The same group once more changes nothing and is no error.
    CreateGroup {
        /// Its name.
        name: String,
        /// What it is.
        group: NewGroup,
    },
    /// Changes what a group says of itself.
    UpdateGroup {
        /// Its name.
        name: String,
        /// What changes.
        patch: GroupPatch,
    },
    /// Removes a group with its memberships, level and override; refused while it has children.
    DeleteGroup {
        /// Its name.
        name: String,
        /// Refused unless the group has this version.
        expected_version: Option<u64>,
    },
    /// Puts a device into a group. A device that is in it already is no error.
    Join {
        /// The group.
        group: String,
        /// The device.
        device: String,
    },
    /// Takes a device out of a group. A device that is not in it is no error.
    Leave {
        /// The group.
        group: String,
        /// The device.
        device: String,
    },
    /// Declares a device. The same once more changes nothing and is no error.
    CreateDevice {
        /// Its name.
        name: String,
        /// Its type, for people and programs.
        device_type: Option<String>,
        /// What an operator says of it.
        attributes: BTreeMap<String, String>,
    },
    /// Changes what an operator says of a device; declares one that was only seen.
    UpdateDevice {
        /// Its name.
        name: String,
        /// What changes.
        patch: DevicePatch,
    },
    /// Removes everything that is retained of a device: its document, memberships and override, what
    /// it should do and what it reported. It is there again when it is seen again.
    DeleteDevice {
        /// Its name.
        name: String,
        /// Refused unless the device has this version.
        expected_version: Option<u64>,
    },
}

/// Fields that are a document's level part: what PUT replaces and DELETE removes.
pub const LEVEL_PART: [&str; 6] = ["level", "sources", "disabled", "upload", "limits", "env"];

impl Change {
    /// Whose level or override it sets or removes; `None` for every other change.
    pub fn level_target(&self) -> Option<&Target> {
        match self {
            Change::SetLevel { target, .. }
            | Change::PatchLevel { target, .. }
            | Change::DeleteLevel { target }
            | Change::SetOverride { target, .. }
            | Change::DeleteOverride { target } => Some(target),
            Change::SetOptions { .. } => Some(&Target::Default),
            _ => None,
        }
    }
}
