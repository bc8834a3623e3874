//! Documents in: what they replace, what they displace, whom they concern.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    Affected, Change, ConfigError, Fleet, LevelDocument, MAX_REFUSED, Problem, Window, address,
    forest::{self, Name},
    groups::Regrouped,
    members::Claim,
};
use crate::{
    config::{self, Member},
    query::Query,
    topic::ConfigTopic,
};

/// What setting one document did; topics of documents rather than their problems.
#[derive(Debug, Default)]
pub(super) struct Effect {
    affected: Option<Affected>,
    displaced: Vec<String>,
    restored: Vec<String>,
}

impl Effect {
    fn of(changed: bool, affected: impl FnOnce() -> Affected) -> Effect {
        Effect {
            affected: changed.then(affected),
            ..Effect::default()
        }
    }
}

/// AWS's alphabet for group names, narrower than that of topics (API CreateThingGroup).
fn check_group(group: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_' | b'-');
    if !group.is_empty() && group.len() <= 128 && group.bytes().all(allowed) {
        return Ok(());
    }
    let group = group.chars().take(130).collect::<String>();
    Err(format!(
        "{group:?} is no group name: 1-128 characters of a-z A-Z 0-9 : _ -"
    ))
}

impl Fleet {
    /// Applies one retained document; an empty payload removes it. A document that cannot be read
    /// changes nothing; one that cannot stand beside others is taken, and the change says which of
    /// them counts as absent.
    pub fn apply(&mut self, topic: ConfigTopic<'_>, payload: &[u8]) -> Result<Change, ConfigError> {
        let effect = match self.set(topic, payload) {
            Ok(effect) => effect,
            Err(reason) => {
                let error = ConfigError::invalid(topic.to_string(), reason);
                if self.refused.len() < MAX_REFUSED {
                    self.refused.insert(error.topic.clone(), error.clone());
                }
                return Err(error);
            }
        };
        if !self.refused.is_empty() {
            self.refused.remove(&topic.to_string());
        }
        let Some(affected) = effect.affected else {
            return Ok(Change {
                affected: Affected::Nobody,
                displaced: Vec::new(),
                restored: Vec::new(),
            });
        };
        self.changed();
        let problems = effect
            .displaced
            .iter()
            .filter_map(|topic| self.problem(topic));
        Ok(Change {
            affected,
            displaced: problems.collect(),
            restored: effect.restored,
        })
    }

    /// What changed, or why the document is refused.
    fn set(&mut self, topic: ConfigTopic<'_>, payload: &[u8]) -> Result<Effect, String> {
        match topic {
            ConfigTopic::Member { group, device } => self.set_member(group, device, payload),
            ConfigTopic::Group(group) => self.set_group(group, payload),
            ConfigTopic::Source(source) => self.set_source(source, payload),
            ConfigTopic::Device(device) => self.set_device(device, payload),
            ConfigTopic::OverrideDefault
            | ConfigTopic::OverrideGroup(_)
            | ConfigTopic::OverrideDevice(_) => self.set_override(topic, payload),
            ConfigTopic::Default | ConfigTopic::Principal(_) | ConfigTopic::SourceIp(_) => {
                self.set_target(topic, payload)
            }
        }
    }

    fn set_target(&mut self, topic: ConfigTopic<'_>, payload: &[u8]) -> Result<Effect, String> {
        let document = level_document(topic, payload)?;
        let changed = match topic {
            ConfigTopic::Principal(name) => put(&mut self.principals, name.to_owned(), document),
            ConfigTopic::SourceIp(text) => {
                let ip = address(text).ok_or_else(|| format!("{text:?} is no IP address"))?;
                let document = document.map(|document| (text.to_owned(), document));
                put(&mut self.addresses, ip, document)
            }
            _ => {
                let changed = self.default != document;
                self.default = document;
                changed
            }
        };
        Ok(Effect::of(changed, || Affected::Everybody))
    }

    fn set_source(&mut self, source: &str, payload: &[u8]) -> Result<Effect, String> {
        let document = level_document(ConfigTopic::Source(source), payload)?;
        let level = document.as_ref().and_then(|document| document.level);
        if self.source_documents.get(source) == document.as_ref() {
            return Ok(Effect::default());
        }
        match document {
            Some(document) => self.source_documents.insert(source.to_owned(), document),
            None => self.source_documents.remove(source),
        };
        let sources = Arc::make_mut(&mut self.sources);
        match level {
            Some(level) => sources.insert(source.to_owned(), level),
            None => sources.remove(source),
        };
        Ok(Effect::of(true, || Affected::Everybody))
    }

    fn set_device(&mut self, device: &str, payload: &[u8]) -> Result<Effect, String> {
        let document = level_document(ConfigTopic::Device(device), payload)?;
        let known = self.devices.get(device);
        if known.and_then(|entry| entry.document.as_ref()) == document.as_ref() {
            return Ok(Effect::default());
        }
        let name = self.name(device);
        self.devices.entry(name.clone()).or_default().document = document;
        self.ask_queries(&name);
        self.forget_if_bare(&name);
        Ok(Effect::of(true, || Affected::Device(device.to_owned())))
    }

    fn set_override(&mut self, topic: ConfigTopic<'_>, payload: &[u8]) -> Result<Effect, String> {
        let window = match payload {
            [] => None,
            _ => {
                let (document, until) = config::parse_override(payload)?;
                Some(Arc::new(Window { document, until }))
            }
        };
        let end = |window: Option<&Arc<Window>>| window.map(|window| window.until);
        let (before, after) = (self.window(topic), window.as_ref());
        let (before_end, after_end) = (end(before), end(after));
        let changed = before != after;
        let affected = match topic {
            ConfigTopic::OverrideDevice(device) => {
                if changed {
                    let name = self.name(device);
                    self.devices.entry(name.clone()).or_default().window = window;
                    self.ask_queries(&name);
                    self.forget_if_bare(&name);
                }
                Affected::Device(device.to_owned())
            }
            ConfigTopic::OverrideGroup(group) => {
                check_group(group)?;
                put(&mut self.group_windows, group.to_owned(), window);
                Affected::Group(group.to_owned())
            }
            _ => {
                self.default_window = window;
                Affected::Everybody
            }
        };
        self.count_ends(before_end, after_end);
        Ok(Effect::of(changed, || affected))
    }

    /// The override that stands at a topic.
    pub(super) fn window(&self, topic: ConfigTopic<'_>) -> Option<&Arc<Window>> {
        match topic {
            ConfigTopic::OverrideDefault => self.default_window.as_ref(),
            ConfigTopic::OverrideGroup(group) => self.group_windows.get(group),
            ConfigTopic::OverrideDevice(device) => self.devices.get(device)?.window.as_ref(),
            _ => None,
        }
    }

    fn set_member(&mut self, group: &str, device: &str, payload: &[u8]) -> Result<Effect, String> {
        let document = match payload {
            [] => None,
            _ => {
                let document = config::parse_member(payload)?;
                check_group(group)?;
                Some(document)
            }
        };
        let (group, device) = (self.group_name(group), self.name(device));
        let (changed, regrouped) = self.claim(&group, &device, document);
        let mut effect = Effect::of(changed, || Affected::Device(device.to_string()));
        effect.take(regrouped);
        let own = member_topic(&group, &device);
        // The document that is new is not restored, and is displaced whatever it was before.
        effect.restored.retain(|topic| *topic != own);
        effect.displaced.retain(|topic| *topic != own);
        let entry = self.devices.get(&device);
        let claim = entry.and_then(|entry| entry.claims.get(&group));
        if changed && claim.is_some_and(|claim| !claim.stands) {
            effect.displaced.insert(0, own);
        }
        self.forget_if_bare(&device);
        Ok(effect)
    }

    /// Takes a membership in, or out, and settles the device's.
    fn claim(
        &mut self,
        group: &Name,
        device: &Name,
        document: Option<Member>,
    ) -> (bool, Regrouped) {
        let claim = document.map(|document| Claim::new(group.clone(), document));
        let is_there = claim.is_some();
        let is_new = !self.devices.contains_key(device);
        let entry = self.devices.entry(device.clone()).or_default();
        let before = entry.claims.get(group);
        self.lost_claims -= usize::from(before.is_some_and(|claim| !claim.stands));
        let changed = entry.claims.set(group, claim);
        let after = entry.claims.get(group);
        self.lost_claims += usize::from(after.is_some_and(|claim| !claim.stands));
        if is_there {
            let devices = self.claimed.entry(group.clone()).or_default();
            devices.insert(device.clone());
        } else if let Some(devices) = self.claimed.get_mut(group) {
            devices.remove(device);
            if devices.is_empty() {
                self.claimed.remove(group);
            }
        }
        let mut regrouped = Regrouped::default();
        if changed {
            self.settle_device(device, &mut regrouped);
        }
        if is_new {
            self.ask_queries(device);
        }
        (changed, regrouped)
    }

    fn set_group(&mut self, group: &str, payload: &[u8]) -> Result<Effect, String> {
        let document = level_document(ConfigTopic::Group(group), payload)?;
        if let Some(document) = &document {
            check_group(group)?;
            document.parent.as_deref().map_or(Ok(()), check_group)?;
        }
        let before = self.forest.document(group).cloned();
        if before == document {
            return Ok(Effect::default());
        }
        let name = self.group_name(group);
        let was_dynamic = self.forest.is_dynamic(group);
        let query = document.as_deref().and_then(query_of);
        let moved = self.forest.set(&name, document);
        let mut effect = Effect::of(true, || Affected::Group(group.to_owned()));
        let group_topic = |group: &Name| ConfigTopic::Group(group).to_string();
        effect
            .displaced
            .extend(moved.displaced.iter().map(group_topic));
        effect
            .restored
            .extend(moved.restored.iter().map(group_topic));
        let mut concerned: BTreeSet<Name> = BTreeSet::new();
        let flips = was_dynamic != query.is_some();
        let mut groups = moved.groups;
        let elsewhere = flips || groups.iter().any(|moved| *moved != name);
        if flips {
            groups.push(name.clone());
        }
        if !groups.is_empty() {
            let mut regrouped = self.settle_below(&groups);
            concerned.append(&mut regrouped.devices);
            effect.take(regrouped);
        }
        let mut asked = false;
        if was_dynamic || query.is_some() {
            asked = self.requery(&name, query, &mut concerned, &mut effect.displaced);
        }
        if elsewhere || asked || !effect.displaced.is_empty() || !effect.restored.is_empty() {
            concerned.extend(self.member_names(&name));
            let concerned = concerned.iter().map(ToString::to_string);
            effect.affected = Some(Affected::Devices(concerned.collect()));
        }
        Ok(effect)
    }

    /// The query of a group may be another: asks it of every device where it is. Whether it was.
    fn requery(
        &mut self,
        group: &Name,
        query: Option<(u64, Arc<Query>)>,
        concerned: &mut BTreeSet<Name>,
        displaced: &mut Vec<String>,
    ) -> bool {
        let same = match (self.dynamic.query(group), &query) {
            (Some(before), Some((age, query))) => {
                before.text() == query.text() && self.dynamic.age(group) == Some(*age)
            }
            (None, None) => true,
            _ => false,
        };
        if same {
            return false;
        }
        let lost: BTreeSet<Name> = self.dynamic.lost().cloned().collect();
        for group in self.dynamic.set(group, query) {
            self.ask_devices(&group, concerned);
        }
        let now = self.dynamic.lost().filter(|now| !lost.contains(*now));
        displaced.extend(now.map(|group| ConfigTopic::Group(group).to_string()));
        true
    }

    /// The problem of one document, if it has one.
    pub(super) fn problem(&self, topic: &str) -> Option<Problem> {
        let refusal = match ConfigTopic::parse(topic).ok()? {
            ConfigTopic::Group(group) => self.group_refusal(group)?,
            ConfigTopic::Member { group, device } => self.member_refusal(group, device)?,
            _ => return None,
        };
        Some(refusal.problem(topic.to_owned()))
    }
}

impl Effect {
    fn take(&mut self, regrouped: Regrouped) {
        let topic = |(group, device): &(Name, Name)| member_topic(group, device);
        self.displaced.extend(regrouped.displaced.iter().map(topic));
        self.restored.extend(regrouped.restored.iter().map(topic));
    }
}

pub(super) fn member_topic(group: &str, device: &str) -> String {
    ConfigTopic::Member { group, device }.to_string()
}

/// The query of a group's document with the document's age. It was read when the document was.
fn query_of(document: &LevelDocument) -> Option<(u64, Arc<Query>)> {
    let query = Query::parse(document.query.as_deref()?).ok()?;
    let age = forest::age(document.created.as_deref(), document.at.as_deref());
    Some((age, Arc::new(query)))
}

fn level_document(
    topic: ConfigTopic<'_>,
    payload: &[u8],
) -> Result<Option<Arc<LevelDocument>>, String> {
    match payload {
        [] => Ok(None),
        _ => config::parse_level_document(topic, payload).map(|document| Some(Arc::new(document))),
    }
}

/// Inserts or removes; whether that changed anything.
fn put<K: std::hash::Hash + Eq, V: PartialEq>(
    map: &mut HashMap<K, V>,
    key: K,
    value: Option<V>,
) -> bool {
    match value {
        Some(value) => {
            let changed = map.get(&key) != Some(&value);
            map.insert(key, value);
            changed
        }
        None => map.remove(&key).is_some(),
    }
}
