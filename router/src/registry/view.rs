//! The fleet as it is at one moment, for whoever asks and for [`super::plan`]. Borrowed under the
//! registry's locks, so what takes long is asked piece by piece.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use thinglog_schemas::config::Fault;
use thinglog_schemas::resolve::Fleet;
use thinglog_schemas::topic::ConfigTopic;

use super::change::Target;
use super::devices::Devices;
use super::refusal::{Code, Refusal};
use crate::levels::configuration::Configuration;

/// Everything that is known of the fleet.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub(super) configuration: &'a Configuration,
    pub(super) devices: &'a Devices,
    /// The time, ns since the Unix epoch.
    pub now: u64,
}

/// A document's fields.
pub type Document = Map<String, Value>;

impl<'a> View<'a> {
    /// The rules that the documents make.
    pub fn fleet(&self) -> &'a Fleet {
        self.configuration.fleet()
    }

    /// The document of a topic, the last good one.
    pub fn document(&self, topic: ConfigTopic<'_>) -> Option<Document> {
        read(self.configuration.document(topic)?)
    }

    /// The documents below a topic prefix such as `config/group/`, behind `after` (a whole topic),
    /// in the order of topics.
    pub fn documents(
        &self,
        prefix: &'a str,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&'a str, Document)> + use<'a> {
        let documents = match after {
            Some(after) => self.configuration.from(after, true),
            None => self.configuration.from(prefix, false),
        };
        documents
            .take_while(move |(topic, _)| topic.starts_with(prefix))
            .filter_map(|(topic, payload)| Some((&**topic, read(payload)?)))
    }

    /// Every level document: a target and its fields. Documents that only declare come too.
    pub fn targets(&self) -> impl Iterator<Item = (Target, Document)> + use<'a> {
        let documents = self.documents("config/", None);
        documents.filter_map(|(topic, document)| Some((target_of(topic)?, document)))
    }

    /// Whether a document could stand beside all others.
    pub(super) fn check(&self, topic: ConfigTopic<'_>, payload: &[u8]) -> Result<(), Refusal> {
        let meets_others = matches!(topic, ConfigTopic::Group(_) | ConfigTopic::Member { .. });
        let checked = match meets_others {
            true => self.fleet().check(&[(topic, payload)]),
            false => Fleet::new().check(&[(topic, payload)]),
        };
        checked.map(drop).map_err(|error| {
            let code = match error.fault {
                Fault::Invalid => Code::InvalidRequest,
                Fault::Limit => Code::LimitExceeded,
                Fault::Conflict => Code::Conflict,
            };
            Refusal::new(code, error.to_string())
        })
    }

    /// The group and its ancestors, nearest first.
    pub fn chain(&self, group: &str) -> Vec<String> {
        let mut chain = vec![group.to_owned()];
        // What is retained is without cycles: the fleet takes no other.
        while let Some(parent) = chain.last().and_then(|group| self.parent(group)) {
            if chain.contains(&parent) {
                break;
            }
            chain.push(parent);
        }
        chain
    }

    fn parent(&self, group: &str) -> Option<String> {
        let document = self.document(ConfigTopic::Group(group))?;
        Some(document.get("parent")?.as_str()?.to_owned())
    }

    /// Whether the group exists: it has a document or a member, or is somebody's parent.
    pub fn group_exists(&self, group: &str) -> bool {
        self.configuration
            .document(ConfigTopic::Group(group))
            .is_some()
            || self.members(group, None).next().is_some()
            || self.children(group).next().is_some()
    }

    /// The groups whose parent it is, sorted.
    pub fn children(&self, group: &str) -> impl Iterator<Item = &'a str> {
        let documents = self.documents("config/group/", None);
        documents.filter_map(move |(topic, document)| {
            let parent = document.get("parent")?.as_str()?;
            (parent == group).then(|| last_level(topic))
        })
    }

    /// Devices that a membership document puts into the group, behind `after`, sorted.
    pub fn members(&self, group: &str, after: Option<&str>) -> impl Iterator<Item = &'a str> {
        let prefix = format!("config/member/{group}/");
        let after = after.map(|device| format!("{prefix}{device}"));
        let from = after.as_deref().unwrap_or(&prefix);
        let documents = self.configuration.from(from, after.is_some());
        let documents = documents.take_while(move |(topic, _)| topic.starts_with(&prefix));
        documents.map(|(topic, _)| last_level(topic))
    }

    /// Whether a membership document puts the device into the group.
    pub fn is_member(&self, group: &str, device: &str) -> bool {
        let topic = ConfigTopic::Member { group, device };
        self.configuration.document(topic).is_some()
    }

    /// The groups that a membership document puts the device into, sorted; ancestors not included.
    pub fn memberships(&self, device: &str) -> Vec<&'a str> {
        const ALL: &str = "config/member/";
        let mut groups = Vec::new();
        let mut from = ALL.to_owned();
        // From group to group: each look finds the first document of the next one.
        while let Some((topic, _)) = self.configuration.from(&from, false).next() {
            let Some((group, _)) = topic
                .strip_prefix(ALL)
                .and_then(|rest| rest.split_once('/'))
            else {
                break;
            };
            if self.is_member(group, device) {
                groups.push(group);
            }
            // `0` comes right behind `/`.
            from = format!("{ALL}{group}0");
        }
        groups
    }

    /// The groups of a device that may grant somebody access to it, ancestors included.
    pub fn groups_that_grant(&self, device: &str) -> BTreeSet<String> {
        self.fleet().groups_of(device).into_iter().collect()
    }

    /// Whether the device exists: it was seen, or a document names it.
    pub fn device_exists(&self, device: &str) -> bool {
        let named = [
            ConfigTopic::Device(device),
            ConfigTopic::OverrideDevice(device),
        ];
        self.devices.contains(device)
            || named
                .into_iter()
                .any(|topic| self.configuration.document(topic).is_some())
            || !self.memberships(device).is_empty()
    }
}

/// The target of a level document's topic.
fn target_of(topic: &str) -> Option<Target> {
    let rest = topic.strip_prefix("config/")?;
    if rest == "default" {
        return Some(Target::Default);
    }
    let (kind, name) = rest.split_once('/')?;
    Target::of(kind, name).ok().filter(|_| !name.contains('/'))
}

fn last_level(topic: &str) -> &str {
    topic.rsplit_once('/').map_or(topic, |(_, name)| name)
}

fn read(payload: &[u8]) -> Option<Document> {
    serde_json::from_slice(payload).ok()
}
