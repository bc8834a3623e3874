//! What a registry of devices and groups reads from a fleet, and what may be written to it.

use std::collections::BTreeSet;

use super::{ConfigError, Fleet, LevelDocument, Report, forest::Name};
use crate::{
    config::{self, Member, Override},
    query::Facts,
    topic::ConfigTopic,
};

/// One document as it stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Document<'a> {
    /// `config/default|group|device|source|principal|source-ip`
    Level(&'a LevelDocument),
    /// `config/override/…`
    Override(&'a Override),
    /// `config/member/…`
    Member(Member),
}

/// A group: one that has a document, or that a membership or a child names.
#[derive(Clone, Debug, PartialEq)]
pub struct Group<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its document, if it has one.
    pub document: Option<&'a LevelDocument>,
    /// Its devices are those that match its query.
    pub dynamic: bool,
    /// The group it is in.
    pub parent: Option<&'a str>,
    /// Parent, its parent and so on; the root is the last.
    pub ancestors: Vec<&'a str>,
    /// Groups that are directly in it, sorted.
    pub children: Vec<&'a str>,
}

/// A device that a document or a report names.
#[derive(Clone, Debug, PartialEq)]
pub struct Device<'a> {
    /// Its name.
    pub name: &'a str,
    /// `config/device/<device>`
    pub document: Option<&'a LevelDocument>,
    /// `config/override/device/<device>`
    pub temporary: Option<&'a Override>,
    /// What it reported last.
    pub report: Option<&'a Report>,
    /// Groups it is in itself by a membership, sorted.
    pub groups: Vec<&'a str>,
    /// Dynamic groups it is in, sorted.
    pub dynamic_groups: Vec<&'a str>,
}

impl Fleet {
    /// Every document that says something about levels, groups or devices, in the order of their kinds
    /// (default, group, device, source, principal, source-ip, overrides), each kind sorted by name.
    /// Memberships: see [`Fleet::direct_members`].
    pub fn documents(&self) -> Vec<(ConfigTopic<'_>, Document<'_>)> {
        let mut topics: Vec<ConfigTopic<'_>> = Vec::new();
        topics.extend(self.default.iter().map(|_| ConfigTopic::Default));
        topics.extend(
            self.forest
                .documents()
                .map(|(name, _)| ConfigTopic::Group(name)),
        );
        for (name, entry) in &self.devices {
            topics.extend(entry.document.iter().map(|_| ConfigTopic::Device(name)));
            topics.extend(
                entry
                    .window
                    .iter()
                    .map(|_| ConfigTopic::OverrideDevice(name)),
            );
        }
        topics.extend(
            self.source_documents
                .keys()
                .map(|name| ConfigTopic::Source(name)),
        );
        topics.extend(
            self.principals
                .keys()
                .map(|name| ConfigTopic::Principal(name)),
        );
        topics.extend(
            self.addresses
                .values()
                .map(|(text, _)| ConfigTopic::SourceIp(text)),
        );
        topics.extend(
            self.default_window
                .iter()
                .map(|_| ConfigTopic::OverrideDefault),
        );
        topics.extend(
            self.group_windows
                .keys()
                .map(|name| ConfigTopic::OverrideGroup(name)),
        );
        topics.sort();
        let with_document = |topic| Some((topic, self.document(topic)?));
        topics.into_iter().filter_map(with_document).collect()
    }

    /// The document that is there for a topic; of one that cannot be read the last good one.
    pub fn document(&self, topic: ConfigTopic<'_>) -> Option<Document<'_>> {
        match topic {
            ConfigTopic::Member { group, device } => {
                let claim = self.devices.get(device)?.claims.get(group)?;
                Some(Document::Member(claim.document()))
            }
            ConfigTopic::OverrideDefault
            | ConfigTopic::OverrideGroup(_)
            | ConfigTopic::OverrideDevice(_) => {
                let window = self.window(topic)?;
                Some(Document::Override(&window.document))
            }
            _ => self.level_document(topic).map(Document::Level),
        }
    }

    /// The same for the kinds that have levels.
    pub fn level_document(&self, topic: ConfigTopic<'_>) -> Option<&LevelDocument> {
        match topic {
            ConfigTopic::Default => self.default.as_deref(),
            ConfigTopic::Group(name) => self.forest.document(name).map(|it| &**it),
            ConfigTopic::Device(name) => self.devices.get(name)?.document.as_deref(),
            ConfigTopic::Source(name) => self.source_documents.get(name).map(|it| &**it),
            ConfigTopic::Principal(name) => self.principals.get(name).map(|it| &**it),
            ConfigTopic::SourceIp(text) => self.address(text).map(|(_, it)| &**it),
            _ => None,
        }
    }

    /// Groups that have a document or that something names, sorted.
    pub fn groups(&self) -> Vec<&str> {
        let named = self.forest.names().chain(self.claimed.keys());
        let named: BTreeSet<&str> = named.map(|name| &**name).collect();
        named.into_iter().collect()
    }

    /// A group, if anything names it.
    pub fn group<'a>(&'a self, name: &'a str) -> Option<Group<'a>> {
        if !self.forest.exists(name) && !self.claimed.contains_key(name) {
            return None;
        }
        let ancestors: Vec<&str> = self.forest.chain(name).skip(1).collect();
        Some(Group {
            name,
            document: self.forest.document(name).map(|document| &**document),
            dynamic: self.forest.is_dynamic(name),
            parent: ancestors.first().copied(),
            ancestors,
            children: self.forest.children(name).map(|child| &**child).collect(),
        })
    }

    /// The devices that are in the group itself, not in those below it, sorted.
    pub fn direct_members<'a>(&'a self, group: &'a str) -> Vec<&'a str> {
        let members: BTreeSet<&str> = self.direct(group).map(|device| &**device).collect();
        members.into_iter().collect()
    }

    /// The devices of a group and of its descendants, sorted.
    pub fn members(&self, group: &str) -> Vec<String> {
        let members = self.member_names(group);
        members.iter().map(ToString::to_string).collect()
    }

    /// The groups that the device is in itself, without their ancestors, sorted.
    pub fn direct_groups(&self, device: &str) -> Vec<String> {
        let groups = self.groups_for(device);
        groups.iter().map(ToString::to_string).collect()
    }

    /// The groups of a device, ancestors included, sorted.
    pub fn groups_of(&self, device: &str) -> Vec<String> {
        let direct = self.groups_for(device);
        let groups = direct.iter().flat_map(|group| self.forest.chain(group));
        let groups: BTreeSet<&str> = groups.collect();
        groups.into_iter().map(str::to_owned).collect()
    }

    /// Whether there is a membership, standing or not.
    pub fn is_member(&self, group: &str, device: &str) -> bool {
        let entry = self.devices.get(device);
        entry.is_some_and(|entry| entry.claims.get(group).is_some())
    }

    /// Every membership of a device and whether it stands, by name of the group.
    pub fn memberships(&self, device: &str) -> Vec<(&str, bool)> {
        let entry = self.devices.get(device).into_iter();
        let claims = entry.flat_map(|entry| entry.claims.iter());
        let mut all: Vec<_> = claims.map(|claim| (&*claim.group, claim.stands)).collect();
        all.sort_unstable();
        all
    }

    /// Every membership in a group, standing or not, sorted by device: what has to go with the group.
    pub fn claims_on(&self, group: &str) -> Vec<&str> {
        let claimed = self.claimed.get(group).into_iter().flatten();
        claimed.map(|device| &**device).collect()
    }

    /// Devices that have a document, an override, a membership or a report of their own, sorted.
    pub fn named_devices(&self) -> Vec<String> {
        let mut named: Vec<String> = self.devices.keys().map(ToString::to_string).collect();
        named.sort_unstable();
        named
    }

    /// A device, if a document or a report names it.
    pub fn device(&self, name: &str) -> Option<Device<'_>> {
        let (name, entry) = self.devices.get_key_value(name)?;
        let all = entry.groups.as_deref().unwrap_or_default();
        let dynamic = |group: &&Name| self.forest.is_dynamic(group);
        let names = |wanted: bool| {
            let of_kind = all.iter().filter(|group| dynamic(group) == wanted);
            of_kind.map(|group| &**group).collect()
        };
        Some(Device {
            name,
            document: entry.document.as_deref(),
            temporary: entry.window.as_deref().map(|window| &window.document),
            report: entry.report.as_deref(),
            groups: names(false),
            dynamic_groups: names(true),
        })
    }

    /// What conditions on events may ask of a device.
    pub fn facts(&self, device: &str) -> Facts {
        let entry = self.devices.get(device);
        let document = entry.and_then(|entry| entry.document.as_deref());
        let report = entry.and_then(|entry| entry.report.as_deref());
        let mut attributes = report.map(|it| it.attributes.clone()).unwrap_or_default();
        attributes.extend(document.into_iter().flat_map(|it| it.attributes.clone()));
        Facts {
            kind: document.and_then(|document| document.kind.clone()),
            attributes,
            groups: self.groups_of(device),
            online: report.is_some_and(|report| report.online),
        }
    }

    /// What the device reported last.
    pub fn reported(&self, device: &str) -> Option<&Report> {
        self.devices.get(device)?.report.as_deref()
    }

    /// Whether documents could be published one after the other: what [`Fleet::apply`] would refuse,
    /// and what would leave some document that does not act although it acts now or is new, is
    /// refused.
    pub fn check(&self, changes: &[(ConfigTopic<'_>, &[u8])]) -> Result<(), ConfigError> {
        let mut trial = self.part(changes);
        let before = trial.conflicts();
        for (topic, payload) in changes {
            trial.apply(*topic, payload)?;
        }
        let own: Vec<String> = changes.iter().map(|(topic, _)| topic.to_string()).collect();
        let conflicts = trial.conflicts();
        let mut new = conflicts.iter().filter(|it| !before.contains(it));
        match (new.next(), own.first()) {
            (Some(problem), _) if own.contains(&problem.topic) => Err(problem.into()),
            (Some(problem), Some(topic)) => Err(ConfigError {
                topic: topic.clone(),
                reason: format!(
                    "{} could not stand beside it: {}",
                    problem.topic, problem.reason
                ),
                fault: problem.fault,
            }),
            _ => Ok(()),
        }
    }

    /// A fleet of no more than what the changes can displace: the hierarchies they are about, and the
    /// devices in them.
    fn part(&self, changes: &[(ConfigTopic<'_>, &[u8])]) -> Fleet {
        let (mut groups, mut devices) = (Vec::new(), BTreeSet::new());
        for (topic, payload) in changes {
            match topic {
                ConfigTopic::Group(group) => {
                    groups.push(self.group_name(group));
                    let document = config::parse_level_document(*topic, payload).ok();
                    let parent = document.and_then(|document| document.parent);
                    groups.extend(parent.map(|parent| self.group_name(&parent)));
                }
                ConfigTopic::Member { group, device } => {
                    groups.push(self.group_name(group));
                    devices.insert(self.name(device));
                }
                _ => {}
            }
        }
        if changes
            .iter()
            .any(|(topic, _)| matches!(topic, ConfigTopic::Group(_)))
        {
            let forest = self.forest.part(groups.iter().cloned());
            let all = forest.names().chain(&groups);
            devices.extend(
                all.filter_map(|group| self.claimed.get(group))
                    .flatten()
                    .cloned(),
            );
        }
        let mut part = Fleet {
            dynamic: self.dynamic.part(),
            ..Fleet::default()
        };
        for device in devices {
            let Some(entry) = self.devices.get(&device) else {
                continue;
            };
            for claim in entry.claims.iter() {
                groups.push(claim.group.clone());
                let claimed = part.claimed.entry(claim.group.clone()).or_default();
                claimed.insert(device.clone());
                part.lost_claims += usize::from(!claim.stands);
            }
            part.devices.insert(device, entry.clone());
        }
        part.forest = self.forest.part(groups.into_iter());
        part
    }
}
