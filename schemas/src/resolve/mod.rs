//! From retained documents to the level of an event. A pure state machine: documents in, levels out.
//!
//! The first rule that speaks wins:
//! 1. `disabled` in `config/default`: nothing passes.
//! 2. An override that had not ended when the event happened: the device's, else its groups', else
//!    the default's.
//! 3. The document of the device, else of the principal, else of the source address.
//! 4. The documents of the device's groups, static and dynamic.
//! 5. The document of the source, else `config/default`, else INFO.
//!
//! A document speaks for a source if its `sources` name it or if it has a `level`; the entry comes
//! before the level. Of groups, within one hierarchy the nearest ancestor that speaks decides, even
//! if it is less verbose; across hierarchies and dynamic groups the most verbose wins. This holds for
//! overrides alike.
//!
//! A device whose documents set `upload.mode` to `on-error` sends what is below its level only around
//! an ERROR: all of it passes, unless the level is DISABLED.
//!
//! Every answer is a function of the set of documents, whatever their order of arrival. Documents that
//! can be read and cannot stand beside each other (see [`forest`], [`members`], [`dynamic`]) are all
//! kept; which of them act follows from what they say. A document that cannot be read changes nothing:
//! the last good one of its topic stands. Both are told by [`Fleet::problems`].

mod answers;
mod apply;
mod change;
mod dynamic;
mod explain;
mod explaining;
mod forest;
mod groups;
mod members;
mod refusal;
mod registry;
mod resolved;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    ops::Bound,
    sync::Arc,
};

pub use answers::Answers;
pub use change::{Affected, Change, Problem, Report, Who};
use dynamic::Dynamic;
pub use explain::{Explanation, Outcome, Rule, RuleKind, Setting};
use forest::{Forest, Name};
use members::Claims;
use refusal::Refusal;
pub use registry::{Device, Document, Group};
pub use resolved::Resolved;
use resolved::{Shared, Window};

use crate::{
    Level,
    config::{ConfigError, Fault, LevelDocument},
};

/// How long an override is kept after its end, ns: events that a device spooled while it ran and
/// sends late are still judged by it.
pub const KEEP_ENDED: u64 = 7 * 24 * 3600 * 1_000_000_000;
/// Most devices that a fleet keeps reports of.
const MAX_DEVICES: usize = 1_000_000;
/// Most unreadable documents that are remembered.
const MAX_REFUSED: usize = 10_000;

/// All configuration documents of a fleet, the last good version of each.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    generation: u64,
    /// Another one after each change: answers that were made of this one are good while it is here.
    content: Arc<()>,
    default: Option<Arc<LevelDocument>>,
    principals: HashMap<String, Arc<LevelDocument>>,
    /// With the address as the topic has it.
    addresses: HashMap<IpAddr, (String, Arc<LevelDocument>)>,
    source_documents: BTreeMap<String, Arc<LevelDocument>>,
    /// Their levels, shared by every [`Resolved`]; copied when a source's document changes.
    sources: Arc<BTreeMap<String, Level>>,
    default_window: Option<Arc<Window>>,
    group_windows: HashMap<String, Arc<Window>>,
    /// When overrides end, and how many at that time.
    ends: BTreeMap<u64, usize>,
    forest: Forest,
    dynamic: Dynamic,
    /// Every device that a document or a report names.
    devices: HashMap<Name, Entry>,
    /// Devices with memberships in a group, standing or not.
    claimed: HashMap<Name, BTreeSet<Name>>,
    /// Memberships that count as absent.
    lost_claims: usize,
    /// Each set of groups that some device is in, once.
    sets: HashSet<Arc<[Name]>>,
    /// Documents that could not be read, by topic, and why.
    refused: BTreeMap<String, ConfigError>,
}

/// What is known of a device.
#[derive(Clone, Debug, Default)]
struct Entry {
    document: Option<Arc<LevelDocument>>,
    window: Option<Arc<Window>>,
    report: Option<Arc<Report>>,
    claims: Claims,
    /// Dynamic groups whose query matches, the oldest first.
    matches: Vec<Name>,
    /// The groups it is in itself, static and dynamic, sorted; shared with all that are in the same.
    groups: Option<Arc<[Name]>>,
}

impl Fleet {
    /// No documents: everything is INFO.
    pub fn new() -> Fleet {
        Fleet::default()
    }

    /// Bumped by every change that [`Fleet::apply`], [`Fleet::report`] or [`Fleet::forget_ended`]
    /// made; cheap cache key.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn changed(&mut self) {
        self.generation += 1;
        self.content = Arc::new(());
    }

    /// Forgets overrides that ended more than [`KEEP_ENDED`] before `now` (ns since the Unix epoch);
    /// how many. To be called now and then: a running override never needs it.
    pub fn forget_ended(&mut self, now: u64) -> usize {
        let last = now.saturating_sub(KEEP_ENDED);
        let ended: usize = self.ends.range(..=last).map(|(_, count)| count).sum();
        if now < KEEP_ENDED || ended == 0 {
            return 0;
        }
        self.ends.retain(|end, _| *end > last);
        let keep = |window: &Arc<Window>| window.until > last;
        self.default_window = self.default_window.take().filter(keep);
        self.group_windows.retain(|_, window| keep(window));
        let mut bare = Vec::new();
        for (name, entry) in &mut self.devices {
            if entry.window.as_ref().is_some_and(|window| !keep(window)) {
                entry.window = None;
                bare.push(name.clone());
            }
        }
        bare.iter().for_each(|device| self.forget_if_bare(device));
        self.changed();
        ended
    }

    /// When the next running override ends (ns since the Unix epoch): `desired` documents change
    /// then without any new document.
    pub fn next_end(&self, now: u64) -> Option<u64> {
        let later = (Bound::Excluded(now), Bound::Unbounded);
        self.ends.range(later).next().map(|(end, _)| *end)
    }

    /// Keeps the book of ends when one override takes the place of another.
    fn count_ends(&mut self, before: Option<u64>, after: Option<u64>) {
        if let Some(end) = before
            && let Some(count) = self.ends.get_mut(&end)
        {
            *count -= 1;
            if *count == 0 {
                self.ends.remove(&end);
            }
        }
        if let Some(end) = after {
            *self.ends.entry(end).or_default() += 1;
        }
    }

    /// The rules for one device's events, to be cached until [`Fleet::generation`] moves.
    pub fn resolve(&self, who: &Who<'_>) -> Resolved {
        let shared = Arc::new(self.shared(&self.groups_for(who.device)));
        self.resolve_with(who, shared)
    }

    fn resolve_with(&self, who: &Who<'_>, shared: Arc<Shared>) -> Resolved {
        let entry = self.devices.get(who.device);
        let device = entry.and_then(|entry| entry.document.as_ref());
        let principal = who.principal.and_then(|name| self.principals.get(name));
        let address = who.address.and_then(|text| self.address(text));
        let speaks = |document: &&Arc<LevelDocument>| document.says_level();
        let targets = [device, principal, address.map(|(_, document)| document)];
        Resolved {
            window: entry.and_then(|entry| entry.window.clone()),
            targets: targets
                .into_iter()
                .flatten()
                .filter(speaks)
                .cloned()
                .collect(),
            sends_ring: shared.sends_ring(device.map(|document| &**document)),
            shared,
        }
    }

    fn address(&self, text: &str) -> Option<&(String, Arc<LevelDocument>)> {
        self.addresses.get(&address(text)?)
    }
}

/// An address in the one form that compares: an IPv4 address mapped into IPv6 is the IPv4 address.
fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests;
