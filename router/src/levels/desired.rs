//! Which `desired/<device>` documents have to be written. Pure; time is an argument.
//!
//! A document is written only if the one that is retained has another revision and was not written
//! by a newer schema. So several routers with the same documents agree without talking. Where they
//! do not have the same (a bad document stands behind a last good one that only the older router
//! has seen), each would put right what the other wrote: so the same document is written again and
//! again only at growing intervals, and that is counted.
//!
//! A document that somebody removed is not written anew at once either: it may be the first step of the
//! device's deletion, which every router sees step by step.
//!
//! A write counts when the broker sends it back. One that does not come back was refused on its way
//! and is written again.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use thinglog_schemas::config::{Desired, SCHEMA};
use thinglog_schemas::resolve::{Affected, Answers, Fleet};

/// Most devices the router writes documents for.
const DEVICES: usize = 1_000_000;
const SECOND: u64 = 1_000_000_000;
/// How long a write may take to come back from the broker, ns.
const BACK_WITHIN: u64 = 10 * SECOND;
/// How long a removed document is left alone, ns: a deletion takes its further steps meanwhile.
const REMOVED_FOR: u64 = 2 * SECOND;
/// Interval between the second and the third write of one document, doubled from there, ns.
const AGAIN_FROM: u64 = 10 * SECOND;
const AGAIN_UP_TO: u64 = 3600 * SECOND;
/// Writes of one document that are no accident any more.
const CONTESTED: u32 = 4;

/// What is retained, and what has to be looked at.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    /// Every device that is named, has published or has a document; with its retained document.
    devices: HashMap<Arc<str>, Device>,
    /// To be looked at, each once.
    dirty: VecDeque<Arc<str>>,
    /// Their retained document is not what was last written here: looked at again by
    /// [`Documents::recheck`], not at once, so that two routers do not chase each other.
    suspects: BTreeSet<Arc<str>>,
    /// Written and not yet back, and when.
    on_the_way: HashMap<Arc<str>, u64>,
    /// Documents written again although nothing has changed, since the last look.
    contested: u64,
    /// What devices in the same groups are told.
    answers: Answers,
}

#[derive(Debug, Default)]
struct Device {
    retained: Option<Retained>,
    written: Option<Written>,
    /// It waits in `dirty`.
    dirty: bool,
    /// The connection before had a document of it.
    before: bool,
    /// When its document was removed, if it was.
    removed: Option<u64>,
}

/// What was written last.
#[derive(Debug)]
struct Written {
    revision: u64,
    /// How often in a row.
    times: u32,
    at: u64,
}

impl Written {
    /// When the same may be written again.
    fn again_at(&self) -> u64 {
        let wait = match self.times {
            0 | 1 => 0,
            times => AGAIN_FROM
                .saturating_mul(1 << (times - 2).min(20))
                .min(AGAIN_UP_TO),
        };
        self.at.saturating_add(wait)
    }

    /// How often in a row `revision` has been written when it is at `now`.
    fn times_with(&self, revision: u64, now: u64) -> u32 {
        let long_ago = now.saturating_sub(self.at) > 2 * AGAIN_UP_TO;
        match self.revision == revision && !long_ago {
            true => self.times.saturating_add(1),
            false => 1,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Retained {
    schema: u32,
    /// `None`: one that no router has written.
    revision: Option<u64>,
}

/// A revision as it is kept; `None` for what is none.
fn number(revision: &str) -> Option<u64> {
    u64::from_str_radix(revision, 16)
        .ok()
        .filter(|number| format!("{number:016x}") == revision)
}

impl Documents {
    /// A new connection begins: what is retained is told anew.
    pub(crate) fn forget_retained(&mut self) {
        for (name, device) in &mut self.devices {
            // One that is still on its way may never have arrived.
            device.before = device.retained.is_some() && !self.on_the_way.contains_key(name);
            (device.retained, device.written) = (None, None);
        }
        self.suspects.clear();
        self.on_the_way.clear();
    }

    /// A device exists; whether that is new.
    pub(crate) fn saw(&mut self, device: &str) -> bool {
        if self.devices.contains_key(device) || self.devices.len() >= DEVICES {
            return false;
        }
        self.devices.insert(Arc::from(device), Device::default());
        self.touch(device);
        true
    }

    /// Whether a device exists.
    pub(crate) fn knows(&self, device: &str) -> bool {
        self.devices.contains_key(device)
    }

    /// Whether the broker has no document of anybody.
    fn lost(&self) -> bool {
        self.devices
            .values()
            .all(|device| device.retained.is_none())
    }

    /// A device's document has to be looked at.
    pub(crate) fn touch(&mut self, device: &str) {
        let Some((name, _)) = self.devices.get_key_value(device) else {
            return;
        };
        let name = Arc::clone(name);
        let known = self.devices.get_mut(device);
        if known.is_some_and(|known| !std::mem::replace(&mut known.dirty, true)) {
            self.dirty.push_back(name);
        }
    }

    /// A device was deleted.
    pub(crate) fn forget(&mut self, device: &str) {
        self.devices.remove(device);
        self.on_the_way.remove(device);
        self.suspects.remove(device);
    }

    /// Whether a device's document was removed and nobody has written it since.
    pub(crate) fn was_removed(&self, device: &str) -> bool {
        let known = self.devices.get(device);
        known.is_some_and(|known| known.removed.is_some())
    }

    /// The broker retains this document since `now`; an empty payload means none.
    pub(crate) fn retained(&mut self, device: &str, payload: &[u8], now: u64) {
        let retained = serde_json::from_slice(payload)
            .ok()
            .map(|document: Desired| Retained {
                schema: document.schema,
                revision: number(&document.revision),
            });
        if !self.devices.contains_key(device) {
            if self.devices.len() >= DEVICES {
                return;
            }
            self.devices.insert(Arc::from(device), Device::default());
        }
        self.on_the_way.remove(device);
        let Some((name, _)) = self.devices.get_key_value(device) else {
            return;
        };
        let name = Arc::clone(name);
        if let Some(known) = self.devices.get_mut(device) {
            known.removed = payload.is_empty().then_some(now);
            if known.retained != retained {
                known.retained = retained;
                self.suspects.insert(name);
            }
        }
    }

    /// Documents of the fleet have changed.
    pub(crate) fn affected(&mut self, affected: &Affected, fleet: &Fleet) {
        match affected {
            Affected::Nobody => {}
            Affected::Device(device) => self.changed(device),
            Affected::Group(group) => {
                let members = fleet.members(group);
                members.iter().for_each(|device| self.changed(device));
            }
            Affected::Devices(devices) => devices.iter().for_each(|device| self.changed(device)),
            Affected::Everybody => self.everybody(),
        }
    }

    fn changed(&mut self, device: &str) {
        if !self.saw(device) {
            self.touch(device);
        }
    }

    /// Looks at every device again.
    pub(crate) fn everybody(&mut self) {
        for (name, device) in &mut self.devices {
            if !std::mem::replace(&mut device.dirty, true) {
                self.dirty.push_back(Arc::clone(name));
            }
        }
    }

    /// A connection's set of documents is complete: looks at every device. Gives those that were
    /// deleted meanwhile: their document is gone and nothing names them; `heard` are others that were
    /// once heard of. A broker that has no document at all has lost them; then nobody was deleted.
    pub(crate) fn complete(
        &mut self,
        names: impl Fn(&str) -> bool,
        heard: Vec<Arc<str>>,
    ) -> Vec<Arc<str>> {
        let lost = self.lost();
        let gone = |(name, device): &(&Arc<str>, &Device)| {
            !lost && device.before && device.retained.is_none() && !names(name)
        };
        let deleted = self.devices.iter().filter(gone);
        let mut deleted: Vec<Arc<str>> = deleted.map(|(name, _)| Arc::clone(name)).collect();
        deleted.iter().for_each(|device| self.forget(device));
        match lost {
            true => heard.iter().for_each(|device| self.changed(device)),
            false => deleted.extend(heard.into_iter().filter(|device| !self.knows(device))),
        }
        self.everybody();
        deleted
    }

    /// Looks again at documents that somebody else wrote, and at writes that have not come back.
    pub(crate) fn recheck(&mut self, now: u64) {
        let suspects = std::mem::take(&mut self.suspects);
        suspects.iter().for_each(|device| self.touch(device));
        let lost = |at: &u64| at.saturating_add(BACK_WITHIN) <= now;
        let late = self.on_the_way.iter().filter(|(_, at)| lost(at));
        let late: Vec<Arc<str>> = late.map(|(device, _)| Arc::clone(device)).collect();
        for device in late {
            self.on_the_way.remove(&device);
            if let Some(known) = self.devices.get_mut(&device) {
                known.retained = None;
            }
            self.touch(&device);
        }
    }

    /// How many documents were written again and again although nothing had changed, since the last
    /// call.
    pub(crate) fn take_contested(&mut self) -> u64 {
        std::mem::take(&mut self.contested)
    }

    /// The next document to write at `now` (ns since the Unix epoch). Counts as retained from now on.
    /// Looks at as many devices as `budget` says, and takes what it looked at from it; `None` with some
    /// of it left means that there is nothing to write.
    pub(crate) fn next(
        &mut self,
        fleet: &Fleet,
        now: u64,
        budget: &mut usize,
    ) -> Option<(Arc<str>, Arc<Desired>)> {
        while *budget > 0 {
            let device = self.dirty.pop_front()?;
            *budget -= 1;
            let Some(known) = self.devices.get_mut(&device) else {
                continue;
            };
            known.dirty = false;
            let removed = known.removed.map(|at| at.saturating_add(REMOVED_FOR));
            if removed.is_some_and(|until| now < until) {
                self.suspects.insert(device);
                continue;
            }
            let desired = fleet.desired_with(&mut self.answers, &device, now);
            let revision = number(&desired.revision).unwrap_or_default();
            let wanted = Retained {
                schema: desired.schema,
                revision: Some(revision),
            };
            let retained = known.retained.as_ref();
            if retained.is_some_and(|there| there.schema > SCHEMA || *there == wanted) {
                continue;
            }
            let before = known.written.as_ref();
            if before.is_some_and(|it| it.revision == revision && now < it.again_at()) {
                self.suspects.insert(device);
                continue;
            }
            let times = before.map_or(1, |it| it.times_with(revision, now));
            self.contested += u64::from(times >= CONTESTED);
            known.retained = Some(wanted);
            known.removed = None;
            known.written = Some(Written {
                revision,
                times,
                at: now,
            });
            self.on_the_way.insert(Arc::clone(&device), now);
            return Some((device, desired));
        }
        None
    }

    /// The document could not be handed on: it has to be written after all.
    pub(crate) fn not_written(&mut self, device: &str) {
        self.on_the_way.remove(device);
        if let Some(known) = self.devices.get_mut(device) {
            (known.retained, known.written) = (None, None);
        }
        self.touch(device);
    }

    /// Whether something waits to be written.
    pub(crate) fn has_work(&self) -> bool {
        !self.dirty.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use thinglog_schemas::topic::ConfigTopic;

    use super::*;

    const ALL: usize = usize::MAX;

    fn written(documents: &mut Documents, fleet: &Fleet) -> Vec<String> {
        std::iter::from_fn(|| documents.next(fleet, 0, &mut ALL.clone()))
            .map(|(device, _)| device.to_string())
            .collect()
    }

    fn retained(documents: &mut Documents, fleet: &Fleet, device: &str, schema: u32) {
        let mut desired = fleet.desired(device, 0);
        desired.schema = schema;
        documents.retained(device, &serde_json::to_vec(&desired).unwrap(), 0);
    }

    #[test]
    fn a_new_device_gets_a_document_once() {
        let (mut documents, fleet) = (Documents::default(), Fleet::new());
        documents.saw("lamp-7");
        assert_eq!(written(&mut documents, &fleet), ["lamp-7"]);
        documents.saw("lamp-7");
        documents.everybody();
        assert!(written(&mut documents, &fleet).is_empty());
    }

    #[test]
    fn what_is_retained_already_is_not_written() {
        let (mut documents, fleet) = (Documents::default(), Fleet::new());
        retained(&mut documents, &fleet, "lamp-7", SCHEMA);
        documents.everybody();
        assert!(written(&mut documents, &fleet).is_empty());
    }

    #[test]
    fn what_was_removed_is_left_alone_until_it_is_clear_that_the_device_stays() {
        let (mut documents, mut fleet) = (Documents::default(), Fleet::new());
        let topic = ConfigTopic::Device("lamp-7");
        let change = fleet.apply(topic, br#"{"level":"ERROR"}"#).unwrap();
        documents.affected(&change.affected, &fleet);
        assert_eq!(written(&mut documents, &fleet), ["lamp-7"]);
        documents.retained("lamp-7", b"", 5);
        assert!(documents.was_removed("lamp-7"));
        // The device's document goes next: no reason to write.
        let change = fleet.apply(topic, b"").unwrap();
        documents.affected(&change.affected, &fleet);
        documents.recheck(REMOVED_FOR);
        assert!(written(&mut documents, &fleet).is_empty());
        documents.recheck(5 + REMOVED_FOR);
        let next = documents.next(&fleet, 5 + REMOVED_FOR, &mut ALL.clone());
        assert_eq!(&*next.unwrap().0, "lamp-7");
        assert!(!documents.was_removed("lamp-7"));
    }

    #[test]
    fn a_newer_schema_is_never_overwritten() {
        let (mut documents, mut fleet) = (Documents::default(), Fleet::new());
        retained(&mut documents, &fleet, "lamp-7", SCHEMA + 1);
        fleet
            .apply(ConfigTopic::Default, br#"{"level":"DEBUG"}"#)
            .unwrap();
        documents.everybody();
        assert!(written(&mut documents, &fleet).is_empty());
    }

    #[test]
    fn a_change_writes_only_what_differs() {
        let (mut documents, mut fleet) = (Documents::default(), Fleet::new());
        documents.saw("lamp-7");
        documents.saw("lamp-8");
        written(&mut documents, &fleet);
        let topic = ConfigTopic::Device("lamp-8");
        let change = fleet.apply(topic, br#"{"level":"ERROR"}"#).unwrap();
        documents.affected(&change.affected, &fleet);
        assert_eq!(written(&mut documents, &fleet), ["lamp-8"]);
        documents.everybody();
        assert!(written(&mut documents, &fleet).is_empty());
    }

    #[test]
    fn a_foreign_document_is_put_right_at_the_next_check() {
        let (mut documents, fleet) = (Documents::default(), Fleet::new());
        documents.saw("lamp-7");
        written(&mut documents, &fleet);
        documents.retained("lamp-7", b"nonsense", 0);
        assert!(written(&mut documents, &fleet).is_empty());
        documents.recheck(0);
        assert_eq!(written(&mut documents, &fleet), ["lamp-7"]);
    }

    #[test]
    fn routers_that_disagree_do_not_write_without_end() {
        let mut fleets = [Fleet::new(), Fleet::new()];
        fleets[0]
            .apply(ConfigTopic::Default, br#"{"level":"DEBUG"}"#)
            .unwrap();
        let mut routers = [Documents::default(), Documents::default()];
        routers
            .iter_mut()
            .for_each(|router| router.changed("lamp-7"));
        let mut writes = 0;
        for look in 0..720 {
            let now = look * 5 * SECOND;
            for (at, fleet) in fleets.iter().enumerate() {
                routers[at].recheck(now);
                while let Some((device, desired)) = routers[at].next(fleet, now, &mut ALL.clone()) {
                    writes += 1;
                    let payload = serde_json::to_vec(&desired).unwrap();
                    for router in &mut routers {
                        router.retained(&device, &payload, 0);
                    }
                }
            }
        }
        assert!(writes < 30, "{writes} writes in an hour");
        assert!(routers[0].take_contested() > 0);
        // A change of the configuration is written at once all the same.
        let change = fleets[0]
            .apply(ConfigTopic::Default, br#"{"level":"WARN"}"#)
            .unwrap();
        routers[0].affected(&change.affected, &fleets[0]);
        assert!(
            routers[0]
                .next(&fleets[0], 3600 * SECOND, &mut ALL.clone())
                .is_some()
        );
    }

    #[test]
    fn a_write_that_does_not_come_back_is_written_again() {
        let (mut documents, fleet) = (Documents::default(), Fleet::new());
        documents.saw("lamp-7");
        assert_eq!(written(&mut documents, &fleet), ["lamp-7"]);
        documents.recheck(BACK_WITHIN - 1);
        assert!(
            documents
                .next(&fleet, BACK_WITHIN - 1, &mut ALL.clone())
                .is_none()
        );
        documents.recheck(BACK_WITHIN);
        assert!(
            documents
                .next(&fleet, BACK_WITHIN, &mut ALL.clone())
                .is_some()
        );
        retained(&mut documents, &fleet, "lamp-7", SCHEMA);
        documents.recheck(10 * BACK_WITHIN);
        assert!(
            documents
                .next(&fleet, 10 * BACK_WITHIN, &mut ALL.clone())
                .is_none()
        );
    }

    #[test]
    fn a_document_nobody_took_is_written_later() {
        let (mut documents, fleet) = (Documents::default(), Fleet::new());
        documents.saw("lamp-7");
        let (device, _) = documents.next(&fleet, 0, &mut ALL.clone()).unwrap();
        documents.not_written(&device);
        assert_eq!(written(&mut documents, &fleet), ["lamp-7"]);
    }

    #[test]
    fn a_walk_through_a_large_fleet_is_made_in_pieces() {
        let (mut documents, fleet) = (Documents::default(), Fleet::new());
        (0..10).for_each(|n| documents.changed(&format!("lamp-{n}")));
        assert_eq!(written(&mut documents, &fleet).len(), 10);
        documents.everybody();
        let mut budget = 4;
        assert!(documents.next(&fleet, 0, &mut budget).is_none());
        assert!(documents.has_work(), "four were looked at, six are left");
    }

    #[test]
    fn a_device_that_was_deleted_while_the_connection_was_gone_is_forgotten() {
        let (mut documents, fleet) = (Documents::default(), Fleet::new());
        for device in ["lamp-7", "lamp-8", "lamp-9"] {
            retained(&mut documents, &fleet, device, SCHEMA);
        }
        documents.forget_retained();
        retained(&mut documents, &fleet, "lamp-8", SCHEMA);
        let deleted = documents.complete(|device| device == "lamp-9", Vec::new());
        assert_eq!(deleted, [Arc::from("lamp-7")]);
        assert_eq!(written(&mut documents, &fleet), ["lamp-9"]);
        // A broker that has lost everything has deleted nobody.
        documents.forget_retained();
        let heard = vec![Arc::from("lamp-1")];
        assert!(documents.complete(|_| false, heard.clone()).is_empty());
        assert_eq!(written(&mut documents, &fleet).len(), 3);
        // One of before this start that has no document any more was deleted meanwhile.
        let (mut documents, fleet) = (Documents::default(), Fleet::new());
        retained(&mut documents, &fleet, "lamp-8", SCHEMA);
        assert_eq!(documents.complete(|_| false, heard.clone()), heard);
    }
}
