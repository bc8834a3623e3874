//! Which `desired/<device>` documents have to be written. Pure; time is an argument.
//!
//! A document is written only if the one that is retained has another revision and was not written
//! by a newer schema. So several routers with the same documents agree without talking. Where they
//! do not have the same (a bad document stands behind a last good one that only the older router
//! has seen), each would put right what the other wrote: so the same document is written again and
//! again only at growing intervals, and that is counted.
//!
//! A write counts when the broker sends it back. One that does not come back was refused on its way
//! and is written again.

use std::collections::{BTreeSet, HashMap};

use thinglog_schemas::config::{Desired, SCHEMA};
use thinglog_schemas::resolve::{Affected, Fleet};

/// Most devices the router writes documents for.
const DEVICES: usize = 1_000_000;
const SECOND: u64 = 1_000_000_000;
/// How long a write may take to come back from the broker, ns.
const BACK_WITHIN: u64 = 10 * SECOND;
/// Interval between the second and the third write of one document, doubled from there, ns.
const AGAIN_FROM: u64 = 10 * SECOND;
const AGAIN_UP_TO: u64 = 3600 * SECOND;
/// Writes of one document that are no accident any more.
const CONTESTED: u32 = 4;

/// What is retained, and what has to be looked at.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    /// Every device that is named, has published or has a document; with its retained document.
    devices: HashMap<String, Device>,
    dirty: BTreeSet<String>,
    /// Their retained document is not what was last written here: looked at again by
    /// [`Documents::recheck`], not at once, so that two routers do not chase each other.
    suspects: BTreeSet<String>,
    /// Written and not yet back, and when.
    on_the_way: HashMap<String, u64>,
    /// Documents written again although nothing has changed, since the last look.
    contested: u64,
}

#[derive(Debug, Default)]
struct Device {
    retained: Option<Retained>,
    written: Option<Written>,
}

/// What was written last.
#[derive(Debug)]
struct Written {
    revision: String,
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
    fn times_with(&self, revision: &str, now: u64) -> u32 {
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
    revision: String,
}

impl Documents {
    /// A new connection begins: what is retained is told anew.
    pub(crate) fn forget_retained(&mut self) {
        self.devices
            .values_mut()
            .for_each(|device| *device = Device::default());
        self.suspects.clear();
        self.on_the_way.clear();
    }

    /// A device exists.
    pub(crate) fn saw(&mut self, device: &str) {
        if !self.devices.contains_key(device) && self.devices.len() < DEVICES {
            self.devices.insert(device.to_owned(), Device::default());
            self.dirty.insert(device.to_owned());
        }
    }

    /// The broker retains this document; an empty payload means none.
    pub(crate) fn retained(&mut self, device: &str, payload: &[u8]) {
        let retained = serde_json::from_slice(payload)
            .ok()
            .map(|document: Desired| Retained {
                schema: document.schema,
                revision: document.revision,
            });
        if !self.devices.contains_key(device) && self.devices.len() >= DEVICES {
            return;
        }
        let known = self.devices.entry(device.to_owned()).or_default();
        self.on_the_way.remove(device);
        if known.retained != retained {
            known.retained = retained;
            self.suspects.insert(device.to_owned());
        }
    }

    /// Documents of the fleet have changed.
    pub(crate) fn affected(&mut self, affected: &Affected, fleet: &Fleet) {
        match affected {
            Affected::Nobody => {}
            Affected::Device(device) => {
                self.saw(device);
                self.dirty.insert(device.clone());
            }
            Affected::Group(group) => {
                for device in fleet.members(group) {
                    self.saw(&device);
                    self.dirty.insert(device);
                }
            }
            Affected::Devices(devices) => {
                for device in devices {
                    self.saw(device);
                    self.dirty.insert(device.clone());
                }
            }
            Affected::Everybody => self.everybody(fleet),
        }
    }

    /// Looks at every device again.
    pub(crate) fn everybody(&mut self, fleet: &Fleet) {
        for device in fleet.named_devices() {
            self.saw(&device);
        }
        self.dirty.extend(self.devices.keys().cloned());
    }

    /// Looks again at documents that somebody else wrote, and at writes that have not come back.
    pub(crate) fn recheck(&mut self, now: u64) {
        let suspects = std::mem::take(&mut self.suspects);
        self.dirty.extend(suspects);
        let (devices, dirty) = (&mut self.devices, &mut self.dirty);
        self.on_the_way.retain(|device, at| {
            let lost = at.saturating_add(BACK_WITHIN) <= now;
            if lost {
                if let Some(known) = devices.get_mut(device) {
                    known.retained = None;
                }
                dirty.insert(device.clone());
            }
            !lost
        });
    }

    /// How many documents were written again and again although nothing had changed, since the last
    /// call.
    pub(crate) fn take_contested(&mut self) -> u64 {
        std::mem::take(&mut self.contested)
    }

    /// The next document to write at `now` (ns since the Unix epoch). Counts as retained from now on.
    pub(crate) fn next(&mut self, fleet: &Fleet, now: u64) -> Option<(String, Desired)> {
        while let Some(device) = self.dirty.pop_first() {
            let Some(known) = self.devices.get_mut(&device) else {
                continue;
            };
            let desired = fleet.desired(&device, now);
            let wanted = Retained {
                schema: SCHEMA,
                revision: desired.revision.clone(),
            };
            let retained = known.retained.as_ref();
            if retained.is_some_and(|there| there.schema > SCHEMA || *there == wanted) {
                continue;
            }
            let revision = wanted.revision.clone();
            let before = known.written.as_ref();
            if before.is_some_and(|it| it.revision == revision && now < it.again_at()) {
                self.suspects.insert(device);
                continue;
            }
            let times = before.map_or(1, |it| it.times_with(&revision, now));
            self.contested += u64::from(times >= CONTESTED);
            known.retained = Some(wanted);
            known.written = Some(Written {
                revision,
                times,
                at: now,
            });
            self.on_the_way.insert(device.clone(), now);
            return Some((device, desired));
        }
        None
    }

    /// The document could not be handed on: it has to be written after all.
    pub(crate) fn not_written(&mut self, device: String) {
        self.on_the_way.remove(&device);
        self.devices.insert(device.clone(), Device::default());
        self.dirty.insert(device);
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

    fn written(documents: &mut Documents, fleet: &Fleet) -> Vec<String> {
        std::iter::from_fn(|| documents.next(fleet, 0))
            .map(|(device, _)| device)
            .collect()
    }

    fn retained(documents: &mut Documents, fleet: &Fleet, device: &str, schema: u32) {
        let mut desired = fleet.desired(device, 0);
        desired.schema = schema;
        documents.retained(device, &serde_json::to_vec(&desired).unwrap());
    }

    #[test]
    fn a_new_device_gets_a_document_once() {
        let (mut documents, fleet) = (Documents::default(), Fleet::new());
        documents.saw("lamp-7");
        assert_eq!(written(&mut documents, &fleet), ["lamp-7"]);
        documents.saw("lamp-7");
        documents.everybody(&fleet);
        assert!(written(&mut documents, &fleet).is_empty());
    }

    #[test]
    fn what_is_retained_already_is_not_written() {
        let (mut documents, fleet) = (Documents::default(), Fleet::new());
        retained(&mut documents, &fleet, "lamp-7", SCHEMA);
        documents.everybody(&fleet);
        assert!(written(&mut documents, &fleet).is_empty());
    }

    #[test]
    fn a_newer_schema_is_never_overwritten() {
        let (mut documents, mut fleet) = (Documents::default(), Fleet::new());
        retained(&mut documents, &fleet, "lamp-7", SCHEMA + 1);
        fleet
            .apply(ConfigTopic::Default, br#"{"level":"DEBUG"}"#)
            .unwrap();
        documents.everybody(&fleet);
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
        documents.everybody(&fleet);
        assert!(written(&mut documents, &fleet).is_empty());
    }

    #[test]
    fn a_foreign_document_is_put_right_at_the_next_check() {
        let (mut documents, fleet) = (Documents::default(), Fleet::new());
        documents.saw("lamp-7");
        written(&mut documents, &fleet);
        documents.retained("lamp-7", b"nonsense");
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
        routers.iter_mut().for_each(|router| router.saw("lamp-7"));
        let mut writes = 0;
        for look in 0..720 {
            let now = look * 5 * SECOND;
            for (at, fleet) in fleets.iter().enumerate() {
                routers[at].recheck(now);
                while let Some((device, desired)) = routers[at].next(fleet, now) {
                    writes += 1;
                    let payload = serde_json::to_vec(&desired).unwrap();
                    for router in &mut routers {
                        router.retained(&device, &payload);
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
        assert!(routers[0].next(&fleets[0], 3600 * SECOND).is_some());
    }

    #[test]
    fn a_write_that_does_not_come_back_is_written_again() {
        let (mut documents, fleet) = (Documents::default(), Fleet::new());
        documents.saw("lamp-7");
        assert_eq!(written(&mut documents, &fleet), ["lamp-7"]);
        documents.recheck(BACK_WITHIN - 1);
        assert!(documents.next(&fleet, BACK_WITHIN - 1).is_none());
        documents.recheck(BACK_WITHIN);
        assert!(documents.next(&fleet, BACK_WITHIN).is_some());
        retained(&mut documents, &fleet, "lamp-7", SCHEMA);
        documents.recheck(10 * BACK_WITHIN);
        assert!(documents.next(&fleet, 10 * BACK_WITHIN).is_none());
    }

    #[test]
    fn a_document_nobody_took_is_written_later() {
        let (mut documents, fleet) = (Documents::default(), Fleet::new());
        documents.saw("lamp-7");
        let (device, _) = documents.next(&fleet, 0).unwrap();
        documents.not_written(device);
        assert_eq!(written(&mut documents, &fleet), ["lamp-7"]);
    }
}
