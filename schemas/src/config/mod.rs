//! The documents that configure a fleet, and what devices are told and say. Documents are strict:
//! unknown fields are errors that name the field.

mod attributes;
mod desired;
mod document;
mod env;
mod settings;

pub use attributes::{
    Attributes, MAX_ATTRIBUTE_KEY, MAX_ATTRIBUTE_VALUE, MAX_ATTRIBUTES, Packed, bound_reported,
    check_attributes,
};
pub(crate) use desired::schema;
pub use desired::{Desired, Reported, SCHEMA, Temporary};
pub use document::{
    LevelDocument, MAX_BY, MAX_DESCRIPTION, MAX_ROLE, MAX_SOURCES, Member, Override,
};
pub(crate) use document::{parse_level_document, parse_member, parse_override};
pub use env::KEYS as ENV_KEYS;
pub use settings::{Limits, MAX_TIMES, TimeOfDay, Upload, UploadMode};

/// What is wrong with a document, for those who answer in codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// It cannot be read, or says what cannot be.
    Invalid,
    /// It would exceed a limit of the fleet: levels of a hierarchy, children, groups of a device.
    Limit,
    /// It cannot stand beside another document.
    Conflict,
}

/// Why a document was refused; what was there before stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{topic}: {reason}")]
pub struct ConfigError {
    /// The topic without its root: `config/device/lamp-7`.
    pub topic: String,
    /// What is wrong and what would be right.
    pub reason: String,
    /// The kind of it.
    pub fault: Fault,
}

impl ConfigError {
    /// A document that cannot be read.
    pub fn invalid(topic: impl Into<String>, reason: impl Into<String>) -> ConfigError {
        ConfigError {
            topic: topic.into(),
            reason: reason.into(),
            fault: Fault::Invalid,
        }
    }
}
