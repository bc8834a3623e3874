//! What a registry of devices and groups reads from a fleet.

use std::sync::Arc;

use super::{Affected, Change, Fleet, Problem, Report, Window};
use crate::{
    config::{ConfigError, LevelDocument, Override},
    topic::ConfigTopic,
};

/// One document as it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Document<'a> {
    /// `config/default|group|device|source|principal|source-ip`
    Level(&'a LevelDocument),
    /// `config/override/…`
    Override(&'a Override),
}

/// A group: one that has a document, or that a membership or a child names.
#[derive(Clone, Debug, PartialEq)]
pub struct Group<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its document, if it has one.
    pub document: Option<&'a LevelDocument>,
    /// The group it is in.
    pub parent: Option<&'a str>,
    /// Parent, its parent and so on; the root is the last.
    pub ancestors: Vec<&'a str>,
    /// Groups that are directly in it, sorted.
    pub children: Vec<&'a str>,
}

impl Fleet {
    /// Every document that says something about levels, groups or devices, in the order of their kinds
    /// (default, group, device, source, principal, source-ip, overrides), each kind sorted by name.
    /// Memberships: see [`Fleet::direct_members`].
    pub fn documents(&self) -> Vec<(ConfigTopic<'_>, Document<'_>)> {
        fn sorted<'a>(
            documents: impl Iterator<Item = (&'a String, &'a Arc<LevelDocument>)>,
            topic: fn(&'a str) -> ConfigTopic<'a>,
        ) -> Vec<(ConfigTopic<'a>, Document<'a>)> {
            let documents =
                documents.map(|(name, document)| (topic(name), Document::Level(document)));
            let mut documents: Vec<_> = documents.collect();
            documents.sort_by_key(|(topic, _)| *topic);
            documents
        }
        fn windows<'a>(
            windows: impl Iterator<Item = (&'a String, &'a Arc<Window>)>,
            topic: fn(&'a str) -> ConfigTopic<'a>,
        ) -> Vec<(ConfigTopic<'a>, Document<'a>)> {
            let windows =
                windows.map(|(name, window)| (topic(name), Document::Override(&window.document)));
            let mut windows: Vec<_> = windows.collect();
            windows.sort_by_key(|(topic, _)| *topic);
            windows
        }
        let default = self.default.as_deref();
        let mut all: Vec<_> = default
            .map(|document| (ConfigTopic::Default, Document::Level(document)))
            .into_iter()
            .collect();
        all.extend(sorted(self.groups.documents(), ConfigTopic::Group));
        all.extend(sorted(self.devices.iter(), ConfigTopic::Device));
        all.extend(sorted(self.source_documents.iter(), ConfigTopic::Source));
        all.extend(sorted(self.principals.iter(), ConfigTopic::Principal));
        all.extend(sorted(
            self.addresses
                .values()
                .map(|(name, document)| (name, document)),
            ConfigTopic::SourceIp,
        ));
        let default = self.overrides.default.as_deref();
        all.extend(default.map(|window| {
            (
                ConfigTopic::OverrideDefault,
                Document::Override(&window.document),
            )
        }));
        all.extend(windows(
            self.overrides.groups.iter(),
            ConfigTopic::OverrideGroup,
        ));
        all.extend(windows(
            self.overrides.devices.iter(),
            ConfigTopic::OverrideDevice,
        ));
        all
    }

    /// The document that stands at a topic; `None` for memberships, see [`Fleet::is_member`].
    pub fn document(&self, topic: ConfigTopic<'_>) -> Option<Document<'_>> {
        match topic {
            ConfigTopic::Default => self.default.as_deref().map(Document::Level),
            ConfigTopic::Group(name) => self.groups.document(name).map(|it| Document::Level(it)),
            ConfigTopic::Device(name) => self.devices.get(name).map(|it| Document::Level(it)),
            ConfigTopic::Source(name) => self
                .source_documents
                .get(name)
                .map(|it| Document::Level(it)),
            ConfigTopic::Principal(name) => self.principals.get(name).map(|it| Document::Level(it)),
            ConfigTopic::SourceIp(text) => {
                let (_, document) = self.addresses.get(&super::address(text)?)?;
                Some(Document::Level(document))
            }
            ConfigTopic::OverrideDefault => {
                let window = self.overrides.default.as_deref()?;
                Some(Document::Override(&window.document))
            }
            ConfigTopic::OverrideGroup(name) => {
                let window = self.overrides.groups.get(name)?;
                Some(Document::Override(&window.document))
            }
            ConfigTopic::OverrideDevice(name) => {
                let window = self.overrides.devices.get(name)?;
                Some(Document::Override(&window.document))
            }
            ConfigTopic::Member { .. } => None,
        }
    }
    /// Groups that have a document or that something names, sorted.
    pub fn groups(&self) -> Vec<&str> {
        self.groups.names()
    }

    /// A group, if anything names it.
    pub fn group<'a>(&'a self, name: &'a str) -> Option<Group<'a>> {
        if !self.groups.exists(name) {
            return None;
        }
        let ancestors: Vec<&str> = self.groups.chain(name).skip(1).collect();
        Some(Group {
            name,
            document: self.groups.document(name).map(|document| &**document),
            parent: ancestors.first().copied(),
            ancestors,
            children: self.groups.children(name).collect(),
        })
    }

    /// The devices that are in the group itself, not in those below it, sorted.
    pub fn direct_members(&self, group: &str) -> Vec<&str> {
        self.groups.direct_members(group).collect()
    }

    /// The groups that the device is in itself, without their ancestors, sorted.
    pub fn direct_groups(&self, device: &str) -> Vec<&str> {
        self.groups.of_device(device).collect()
    }

    /// Whether `config/member/<group>/<device>` is there.
    pub fn is_member(&self, group: &str, device: &str) -> bool {
        self.groups.is_member(group, device)
    }

    /// Whether the documents could be published one after the other: what [`Fleet::apply`] would
    /// refuse, and what would leave some document standing that does not act, is refused. Says what
    /// they would change.
    pub fn check(&self, changes: &[(ConfigTopic<'_>, &[u8])]) -> Result<Vec<Change>, ConfigError> {
        let mut trial = self.clone();
        let mut taken = Vec::with_capacity(changes.len());
        for (topic, payload) in changes {
            let change = trial.apply(*topic, payload)?;
            if let Some(problem) = change.displaced.first() {
                return Err(ConfigError {
                    topic: topic.to_string(),
                    reason: problem.reason.clone(),
                    fault: problem.fault,
                });
            }
            taken.push(change);
        }
        Ok(taken)
    }

    /// What a device reports of itself (`reported/<device>`), or that it has published; `None`: it
    /// reports nothing any more. Its dynamic groups follow.
    pub fn report(&mut self, device: &str, report: Option<Report>) -> Affected {
        match report {
            Some(report) => self.reported.insert(device.to_owned(), report),
            None => self.reported.remove(device),
        };
        Affected::Nobody
    }

    /// What the device reported last.
    pub fn reported(&self, device: &str) -> Option<&Report> {
        self.reported.get(device)
    }

    /// Every document that is there and does not act as it reads, by topic.
    pub fn problems(&self) -> Vec<Problem> {
        let refused = self.refused.values().map(|error| Problem {
            topic: error.topic.clone(),
            reason: error.reason.clone(),
            fault: error.fault,
            last_good: true,
        });
        refused.collect()
    }
}
