//! From retained documents to the level of an event. A pure state machine: documents in, levels out.
//!
//! The first rule that speaks wins:
//! 1. `disabled` in `config/default`: nothing passes.
//! 2. An override that had not ended when the event happened: the device's, else its groups', else
//!    the default's.
//! 3. The document of the device, else of the principal, else of the source address.
//! 4. The documents of the device's groups.
//! 5. The document of the source, else `config/default`, else INFO.
//!
//! A document speaks for a source if its `sources` name it or if it has a `level`; the entry comes
//! before the level. Of groups, within one hierarchy the nearest ancestor that speaks decides, even
//! if it is less verbose; across hierarchies the most verbose wins. This holds for overrides alike.
//!
//! A device whose documents set `upload.mode` to `on-error` sends what is below its level only around
//! an ERROR: all of it passes, unless the level is DISABLED.

mod explain;
mod groups;
mod registry;
mod resolved;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

pub use explain::{Explanation, Outcome, Rule, RuleKind};
use groups::Groups;
pub use registry::{Document, Group};
pub use resolved::Resolved;
use resolved::{Window, Windows};

use crate::{
    Level,
    config::{
        self, Attributes, ConfigError, Desired, Fault, LevelDocument, Limits, Temporary, Upload,
        UploadMode,
    },
    topic::ConfigTopic,
};

/// How long an override is kept after its end, ns: events that a device spooled while it ran and
/// sends late are still judged by it.
pub const KEEP_ENDED: u64 = 7 * 24 * 3600 * 1_000_000_000;

/// A name that no source has: it asks for the level of sources that nobody names.
const ANY_SOURCE: &str = "";

/// All configuration documents of a fleet, the last good version of each.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    generation: u64,
    default: Option<Arc<LevelDocument>>,
    devices: HashMap<String, Arc<LevelDocument>>,
    principals: HashMap<String, Arc<LevelDocument>>,
    /// With the address as the topic has it.
    addresses: HashMap<IpAddr, (String, Arc<LevelDocument>)>,
    source_documents: BTreeMap<String, Arc<LevelDocument>>,
    /// Their levels, shared by every [`Resolved`]; copied when a source's document changes.
    sources: Arc<BTreeMap<String, Level>>,
    groups: Groups,
    overrides: Overrides,
    /// What devices report of themselves.
    reported: HashMap<String, Report>,
    /// Documents that could not be taken, by topic, and why.
    refused: BTreeMap<String, ConfigError>,
}

#[derive(Clone, Debug, Default)]
struct Overrides {
    default: Option<Arc<Window>>,
    groups: HashMap<String, Arc<Window>>,
    devices: HashMap<String, Arc<Window>>,
}

/// Whose level may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affected {
    /// The document says what it said before.
    Nobody,
    /// One device.
    Device(String),
    /// The devices of a group and of its descendants, see [`Fleet::members`].
    Group(String),
    /// These devices.
    Devices(Vec<String>),
    /// Any device.
    Everybody,
}

/// What a document changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose level, settings or groups may be other than before.
    pub affected: Affected,
    /// Documents that count as absent from now on, the new one among them if it cannot stand.
    pub displaced: Vec<Problem>,
    /// Topics of documents that counted as absent and stand from now on.
    pub restored: Vec<String>,
}

/// A document that is there and does not act, or not as it reads.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Problem {
    /// The topic without its root: `config/member/eu/lamp-7`.
    pub topic: String,
    /// Why, and what would put it right.
    pub reason: String,
    /// The kind of it.
    pub fault: Fault,
    /// True: the document could not be read and the last good one of its topic stands. False: it
    /// counts as absent.
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
    /// Its own attributes.
    pub attributes: Attributes,
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

impl Fleet {
    /// No documents: everything is INFO.
    pub fn new() -> Fleet {
        Fleet::default()
    }

    /// Applies one retained document; an empty payload removes it. A bad document changes nothing.
    pub fn apply(&mut self, topic: ConfigTopic<'_>, payload: &[u8]) -> Result<Change, ConfigError> {
        let name = topic.to_string();
        let changed = match self.set(topic, payload) {
            Ok(changed) => changed,
            Err(reason) => {
                let error = ConfigError::invalid(&name, reason);
                self.refused.insert(name, error.clone());
                return Err(error);
            }
        };
        self.refused.remove(&name);
        let affected = match changed {
            true => affected(topic),
            false => Affected::Nobody,
        };
        self.generation += u64::from(changed);
        Ok(Change {
            affected,
            displaced: Vec::new(),
            restored: Vec::new(),
        })
    }

    /// Whether anything changed, or why the document is refused.
    fn set(&mut self, topic: ConfigTopic<'_>, payload: &[u8]) -> Result<bool, String> {
        match topic {
            ConfigTopic::Member { group, device } => self.set_member(group, device, payload),
            ConfigTopic::Group(group) => self.set_group(group, payload),
            ConfigTopic::Source(source) => self.set_source(source, payload),
            ConfigTopic::OverrideDefault
            | ConfigTopic::OverrideGroup(_)
            | ConfigTopic::OverrideDevice(_) => self.set_override(topic, payload),
            ConfigTopic::Default
            | ConfigTopic::Device(_)
            | ConfigTopic::Principal(_)
            | ConfigTopic::SourceIp(_) => self.set_target(topic, payload),
        }
    }

    fn set_target(&mut self, topic: ConfigTopic<'_>, payload: &[u8]) -> Result<bool, String> {
        let document = match payload {
            [] => None,
            _ => Some(Arc::new(config::parse_level_document(topic, payload)?)),
        };
        match topic {
            ConfigTopic::Device(name) => Ok(put(&mut self.devices, name.to_owned(), document)),
            ConfigTopic::Principal(name) => {
                Ok(put(&mut self.principals, name.to_owned(), document))
            }
            ConfigTopic::SourceIp(text) => {
                let ip = address(text).ok_or_else(|| format!("{text:?} is no IP address"))?;
                let document = document.map(|document| (text.to_owned(), document));
                Ok(put(&mut self.addresses, ip, document))
            }
            _ => {
                let changed = self.default != document;
                self.default = document;
                Ok(changed)
            }
        }
    }

    fn set_source(&mut self, source: &str, payload: &[u8]) -> Result<bool, String> {
        let document = match payload {
            [] => None,
            _ => Some(config::parse_level_document(
                ConfigTopic::Source(source),
                payload,
            )?),
        };
        let level = document.as_ref().and_then(|document| document.level);
        match document {
            Some(document) => self
                .source_documents
                .insert(source.to_owned(), Arc::new(document)),
            None => self.source_documents.remove(source),
        };
        if self.sources.get(source).copied() == level {
            return Ok(false);
        }
        let sources = Arc::make_mut(&mut self.sources);
        match level {
            Some(level) => sources.insert(source.to_owned(), level),
            None => sources.remove(source),
        };
        Ok(true)
    }

    fn set_group(&mut self, group: &str, payload: &[u8]) -> Result<bool, String> {
        let before = self.groups.document(group).cloned();
        if payload.is_empty() {
            self.groups.remove(group);
            return Ok(before.is_some());
        }
        let document = config::parse_level_document(ConfigTopic::Group(group), payload)?;
        if before.is_some_and(|before| *before == document) {
            return Ok(false);
        }
        self.groups.set(group, document)?;
        Ok(true)
    }

    fn set_member(&mut self, group: &str, device: &str, payload: &[u8]) -> Result<bool, String> {
        let member = self.groups.is_member(group, device);
        if payload.is_empty() {
            self.groups.leave(group, device);
            return Ok(member);
        }
        config::parse_member(payload)?;
        if !member {
            self.groups.join(group, device)?;
        }
        Ok(!member)
    }

    fn set_override(&mut self, topic: ConfigTopic<'_>, payload: &[u8]) -> Result<bool, String> {
        let window = match payload {
            [] => None,
            _ => {
                let (document, until) = config::parse_override(payload)?;
                Some(Arc::new(Window { document, until }))
            }
        };
        match topic {
            ConfigTopic::OverrideDevice(name) => {
                Ok(put(&mut self.overrides.devices, name.to_owned(), window))
            }
            ConfigTopic::OverrideGroup(name) => {
                groups::check_name(name)?;
                Ok(put(&mut self.overrides.groups, name.to_owned(), window))
            }
            _ => {
                let changed = self.overrides.default != window;
                self.overrides.default = window;
                Ok(changed)
            }
        }
    }

    /// Bumped by every change that [`Fleet::apply`] or [`Fleet::forget_ended`] made; cheap cache key.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Forgets overrides that ended more than [`KEEP_ENDED`] before `now` (ns since the Unix epoch);
    /// how many. To be called now and then: a running override never needs it.
    pub fn forget_ended(&mut self, now: u64) -> usize {
        let Overrides {
            default,
            groups,
            devices,
        } = &mut self.overrides;
        let keep = |window: &Arc<Window>| window.until.saturating_add(KEEP_ENDED) > now;
        let count = |default: &Option<_>, groups: &HashMap<_, _>, devices: &HashMap<_, _>| {
            usize::from(default.is_some()) + groups.len() + devices.len()
        };
        let before = count(default, groups, devices);
        *default = default.take().filter(keep);
        groups.retain(|_, window| keep(window));
        devices.retain(|_, window| keep(window));
        let forgotten = before - count(default, groups, devices);
        self.generation += u64::from(forgotten > 0);
        forgotten
    }

    /// When the next running override ends (ns since the Unix epoch): `desired` documents change
    /// then without any new document.
    pub fn next_end(&self, now: u64) -> Option<u64> {
        let Overrides {
            default,
            groups,
            devices,
        } = &self.overrides;
        let windows = default
            .iter()
            .chain(groups.values())
            .chain(devices.values());
        windows
            .map(|window| window.until)
            .filter(|until| *until > now)
            .min()
    }

    /// The rules for one device's events, to be cached until [`Fleet::generation`] moves.
    pub fn resolve(&self, who: &Who<'_>) -> Resolved {
        let principal = who.principal.and_then(|name| self.principals.get(name));
        let address = who
            .address
            .and_then(address)
            .and_then(|ip| self.addresses.get(&ip))
            .map(|(_, document)| document);
        let targets = [self.devices.get(who.device), principal, address];
        let chains = |group| self.groups.chain(group);
        let speaks = |document: &&Arc<LevelDocument>| {
            document.level.is_some() || !document.sources.is_empty()
        };
        let documents = self.groups.of_device(who.device).map(|group| {
            let documents = chains(group).filter_map(|group| self.groups.document(group));
            documents.filter(speaks).cloned().collect::<Vec<_>>()
        });
        Resolved {
            disabled: self
                .default
                .as_ref()
                .is_some_and(|document| document.disabled),
            windows: self.windows(who.device),
            targets: targets.into_iter().flatten().cloned().collect(),
            groups: documents.filter(|chain| !chain.is_empty()).collect(),
            sources: self.sources.clone(),
            default: self.default.clone(),
            sends_ring: self.settings(who.device).0.mode == Some(UploadMode::OnError),
        }
    }

    fn windows(&self, device: &str) -> Windows {
        let Overrides {
            default,
            groups,
            devices,
        } = &self.overrides;
        let chains = self.groups.of_device(device).map(|group| {
            let chain = self.groups.chain(group);
            chain
                .filter_map(|group| groups.get(group).cloned())
                .collect::<Vec<_>>()
        });
        Windows {
            device: devices.get(device).cloned(),
            groups: chains.filter(|chain| !chain.is_empty()).collect(),
            default: default.clone(),
        }
    }

    /// The document for `desired/<device>` at `now` (ns): pure function of the documents and, for
    /// running overrides, of `now`. The revision does not cover `for_s`. Principal and address
    /// are unknown here: what they decide, the router applies.
    pub fn desired(&self, device: &str, now: u64) -> Desired {
        let resolved = self.resolve(&Who {
            device,
            principal: None,
            address: None,
        });
        let level = resolved.lasting(ANY_SOURCE);
        let named = resolved.named_sources().into_iter();
        let sources = named.map(|source| (source.to_owned(), resolved.lasting(source)));
        let (upload, limits) = self.settings(device);
        let mut desired = Desired {
            schema: config::SCHEMA,
            revision: String::new(),
            level,
            sources: sources.filter(|(_, other)| *other != level).collect(),
            temporary: temporary(&resolved, now),
            upload,
            limits,
        };
        desired.revision = desired.content_hash();
        desired
    }

    /// Upload and limits, field by field from the first document that has it: the device's, its
    /// groups' (nearest first; hierarchies by name of the device's group), the default.
    fn settings(&self, device: &str) -> (Upload, Limits) {
        let groups = self
            .groups
            .of_device(device)
            .flat_map(|group| self.groups.chain(group));
        let groups = groups.filter_map(|group| self.groups.document(group));
        let documents = self
            .devices
            .get(device)
            .into_iter()
            .chain(groups)
            .chain(&self.default);
        let (mut upload, mut limits) = (Upload::default(), Limits::default());
        for document in documents {
            if document.has_settings() {
                let (more, most) = document.settings();
                upload.fill_from(&more);
                limits.fill_from(&most);
            }
        }
        (upload, limits)
    }

    /// Devices that have a document, an override or a membership of their own, sorted.
    pub fn named_devices(&self) -> Vec<String> {
        let devices = self
            .devices
            .keys()
            .chain(self.overrides.devices.keys())
            .map(String::as_str);
        let named: BTreeSet<&str> = devices.chain(self.groups.devices()).collect();
        named.into_iter().map(str::to_owned).collect()
    }

    /// The devices of a group and of its descendants, sorted.
    pub fn members(&self, group: &str) -> Vec<String> {
        self.groups
            .members(group)
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    /// The groups of a device, ancestors included, sorted.
    pub fn groups_of(&self, device: &str) -> Vec<String> {
        let groups = self
            .groups
            .of_device(device)
            .flat_map(|group| self.groups.chain(group));
        let groups: BTreeSet<&str> = groups.collect();
        groups.into_iter().map(str::to_owned).collect()
    }
}

fn affected(topic: ConfigTopic<'_>) -> Affected {
    match topic {
        ConfigTopic::Device(device)
        | ConfigTopic::OverrideDevice(device)
        | ConfigTopic::Member { device, .. } => Affected::Device(device.to_owned()),
        ConfigTopic::Group(group) | ConfigTopic::OverrideGroup(group) => {
            Affected::Group(group.to_owned())
        }
        ConfigTopic::Default
        | ConfigTopic::OverrideDefault
        | ConfigTopic::Source(_)
        | ConfigTopic::Principal(_)
        | ConfigTopic::SourceIp(_) => Affected::Everybody,
    }
}

/// The override in force at `now`. Where several hierarchies decide together it ends with the
/// first of them: the router writes the document anew then.
fn temporary(resolved: &Resolved, now: u64) -> Option<Temporary> {
    if resolved.disabled {
        return None;
    }
    let first_end = resolved
        .windows
        .deciding(now)
        .min_by_key(|window| window.until)?;
    let level = resolved.level(ANY_SOURCE, now);
    let deciding = resolved.windows.deciding(now);
    let named: BTreeSet<&String> = deciding
        .flat_map(|window| window.document.sources.keys())
        .collect();
    let sources = named
        .into_iter()
        .map(|source| (source.clone(), resolved.level(source, now)));
    Some(Temporary {
        level,
        sources: sources.filter(|(_, other)| *other != level).collect(),
        until: first_end.document.until.clone(),
        for_s: (first_end.until - now).div_ceil(1_000_000_000),
    })
}

/// An address in the one form that compares: an IPv4 address mapped into IPv6 is the IPv4 address.
fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
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

#[cfg(test)]
mod tests;
