//! The fleet as it is at one moment, for whoever asks and for [`super::plan()`]. Borrowed under the
//! registry's locks, so what takes long is asked piece by piece.

use serde_json::{Map, Value};
use thinglog_schemas::config::Fault;
use thinglog_schemas::resolve::Fleet;
use thinglog_schemas::topic::ConfigTopic;

use super::change::Target;
use super::contacts::Contacts;
use super::devices::{Device, Devices};
use super::refusal::{Code, Refusal};
use crate::levels::configuration::Configuration;

/// Everything that is known of the fleet.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub(super) configuration: &'a Configuration,
    pub(super) devices: &'a Devices,
    pub(super) contacts: &'a Contacts,
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

    /// Level documents behind the topic `after`, in the order of topics: topic, target and fields. Those
    /// that only declare come too.
    pub fn level_documents(
        &self,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a str, Target, Document)> + use<'a> {
        // In the order of topics.
        const KINDS: [&str; 6] = [
            "config/default",
            "config/device/",
            "config/group/",
            "config/principal/",
            "config/source-ip/",
            "config/source/",
        ];
        let documents = self.kinds(&KINDS, after);
        documents.filter_map(|(topic, document)| {
            let parsed = ConfigTopic::parse(topic).ok()?;
            Some((topic, Target::of_topic(parsed)?, document))
        })
    }

    /// Overrides behind the topic `after`, likewise; ended ones come too.
    pub fn overrides(
        &self,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a str, Target, Document)> + use<'a> {
        let documents = self.kinds(&["config/override/"], after);
        documents.filter_map(|(topic, document)| {
            let target = match ConfigTopic::parse(topic).ok()? {
                ConfigTopic::OverrideDefault => Target::Default,
                ConfigTopic::OverrideGroup(name) => Target::Group(name.into()),
                ConfigTopic::OverrideDevice(name) => Target::Device(name.into()),
                _ => return None,
            };
            Some((topic, target, document))
        })
    }

    fn kinds(
        &self,
        kinds: &'static [&'static str],
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a str, Document)> + use<'a> {
        let view = *self;
        // A kind all of whose topics come before `after` is passed over.
        let left = kinds.iter().filter(move |kind| {
            after.is_none_or(|after| after.starts_with(**kind) || **kind > after)
        });
        left.flat_map(move |kind| {
            let after = after.filter(|after| after.starts_with(*kind));
            view.documents(kind, after)
        })
    }

    /// Whether a document could stand beside all others.
    pub(super) fn check(&self, topic: ConfigTopic<'_>, payload: &[u8]) -> Result<(), Refusal> {
        let checked = self.fleet().check(&[(topic, payload)]);
        checked.map_err(|error| {
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
        let all = self.fleet().memberships(device).into_iter();
        all.map(|(group, _)| group).collect()
    }

    /// Whether the device exists: it was seen, or a document names it.
    pub fn device_exists(&self, device: &str) -> bool {
        self.devices.contains(device) || self.configuration.names(device)
    }

    /// What a device and the broker say of it.
    pub(crate) fn device(&self, device: &str) -> Option<&'a Device> {
        self.devices.get(device)
    }

    /// Devices behind `after`, sorted: those that were seen, and those that a document names.
    pub(crate) fn devices(&self, after: Option<&str>) -> impl Iterator<Item = &'a str> {
        self.devices.names(after).map(|name| &**name)
    }

    /// When a device was last heard of, ns since the Unix epoch.
    pub fn last_contact(&self, device: &str) -> Option<u64> {
        let connected = self.devices.get(device).and_then(Device::connected);
        let since = connected.and_then(|connected| connected.since);
        let heard = self.contacts.of(device).map(|at| at * 1_000_000_000);
        since.max(heard)
    }
}

fn last_level(topic: &str) -> &str {
    topic.rsplit_once('/').map_or(topic, |(_, name)| name)
}

fn read(payload: &[u8]) -> Option<Document> {
    serde_json::from_slice(payload).ok()
}
