//! What goes in and what comes out when a fleet changes.

use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, Fault, Packed, Reported, bound_reported};

/// Whose level, settings or groups may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affected {
    /// The document says what it said before.
    Nobody,
    /// One device.
    Device(String),
    /// The devices of a group and of its descendants, see [`super::Fleet::members`].
    Group(String),
    /// These devices, sorted.
    Devices(Vec<String>),
    /// Any device.
    Everybody,
}

/// What a document changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose level, settings or groups may be other than before; those of displaced and restored
    /// documents included.
    pub affected: Affected,
    /// Documents that count as absent from now on, the new one among them if it cannot stand.
    pub displaced: Vec<Problem>,
    /// Topics of documents that counted as absent and stand from now on.
    pub restored: Vec<String>,
}

/// A document that is there and does not act, or not as it reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The topic without its root: `config/member/eu/lamp-7`.
    pub topic: String,
    /// Why, and what would put it right.
    pub reason: String,
    /// The kind of it.
    pub fault: Fault,
    /// True: the document could not be read and the last good one of its topic stands. False: what
    /// `reason` says of it counts as absent.
    pub last_good: bool,
}

impl From<&Problem> for ConfigError {
    fn from(problem: &Problem) -> ConfigError {
        ConfigError {
            topic: problem.topic.clone(),
            reason: problem.reason.clone(),
            fault: problem.fault,
        }
    }
}

/// What a device says of itself, as far as groups go by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// It is connected.
    pub online: bool,
    /// Its own attributes, at most as [`crate::config::MAX_ATTRIBUTES`] and its neighbours say.
    pub attributes: Packed,
}

impl From<&Reported> for Report {
    fn from(reported: &Reported) -> Report {
        Report {
            online: reported.online,
            attributes: bound_reported(&reported.attributes).collect(),
        }
    }
}

/// Who published, as far as level targets look at it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Who<'a> {
    /// The topic's.
    pub device: &'a str,
    /// As the broker stamped it.
    pub principal: Option<&'a str>,
    /// An IP address, as the broker stamped it.
    pub address: Option<&'a str>,
}
