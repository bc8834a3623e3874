//! The set of retained configuration documents, as they were written and as the fleet's rules read
//! them: one is always as new as the other.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use thinglog_schemas::config::ConfigError;
use thinglog_schemas::resolve::{Change, Fleet};
use thinglog_schemas::topic::ConfigTopic;

/// All documents.
#[derive(Clone, Debug, Default)]
pub(crate) struct Configuration {
    fleet: Fleet,
    /// The last good document of each topic, without the root: `config/device/lamp-7`.
    documents: BTreeMap<Arc<str>, Bytes>,
}

impl Configuration {
    /// The rules that the documents make.
    pub(crate) fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// For what changes the rules without a document, such as time.
    pub(crate) fn fleet_mut(&mut self) -> &mut Fleet {
        &mut self.fleet
    }

    /// Takes up one retained document; an empty payload removes it. A bad one changes nothing.
    pub(crate) fn apply(
        &mut self,
        topic: ConfigTopic<'_>,
        payload: &[u8],
    ) -> Result<Change, ConfigError> {
        let change = self.fleet.apply(topic, payload)?;
        let key: Arc<str> = Arc::from(topic.to_string());
        match payload {
            [] => self.documents.remove(&key),
            _ => self.documents.insert(key, Bytes::copy_from_slice(payload)),
        };
        Ok(change)
    }

    /// The last good document of a topic, as it was written.
    pub(crate) fn document(&self, topic: ConfigTopic<'_>) -> Option<&Bytes> {
        self.documents.get(topic.to_string().as_str())
    }

    /// Whether a document names the device.
    pub(crate) fn names(&self, device: &str) -> bool {
        let known = self.fleet.device(device);
        known.is_some_and(|known| known.document.is_some() || known.temporary.is_some())
            || !self.fleet.memberships(device).is_empty()
    }

    /// Every document, in the order of topics.
    pub(crate) fn all(&self) -> impl Iterator<Item = (ConfigTopic<'_>, &[u8])> {
        let documents = self.documents.iter();
        documents
            .filter_map(|(topic, document)| Some((ConfigTopic::parse(topic).ok()?, &**document)))
    }

    /// The documents that are others than before: topic, what it said, what it says; empty for none.
    pub(crate) fn changes_since<'a>(
        &'a self,
        before: &'a Configuration,
    ) -> impl Iterator<Item = (ConfigTopic<'a>, &'a [u8], &'a [u8])> {
        let was = |topic: ConfigTopic<'_>| before.document(topic).map_or(&[][..], |it| &**it);
        let written = self.all().map(move |(topic, is)| (topic, was(topic), is));
        let gone = before
            .all()
            .filter(|(topic, _)| self.document(*topic).is_none())
            .map(|(topic, was)| (topic, was, &[][..]));
        written.filter(|(_, was, is)| was != is).chain(gone)
    }

    /// Whether the document of a topic is this one; an empty one stands for none. Of topics that are not
    /// the configuration's it knows nothing.
    pub(crate) fn holds(&self, topic: &str, payload: &[u8]) -> bool {
        match self.documents.get(topic) {
            Some(document) => document == payload,
            None => payload.is_empty() && topic.starts_with("config/"),
        }
    }

    /// Documents from `topic` on, itself included unless `behind`, in the order of topics.
    pub(crate) fn from(
        &self,
        topic: &str,
        behind: bool,
    ) -> impl Iterator<Item = (&Arc<str>, &Bytes)> + use<'_> {
        let from = match behind {
            true => Bound::Excluded(topic),
            false => Bound::Included(topic),
        };
        self.documents.range::<str, _>((from, Bound::Unbounded))
    }
}
