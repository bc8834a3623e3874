//! Which `desired/<device>` documents have to be written. Pure; time is an argument.
//!
//! A document is written only if the one that is retained has another revision and was not written
//! by a newer schema. So several routers with the same documents agree without talking.

use std::collections::{BTreeSet, HashMap};

use thinglog_schemas::config::{Desired, SCHEMA};
use thinglog_schemas::resolve::{Affected, Fleet};

/// Most devices the router writes documents for.
const DEVICES: usize = 1_000_000;

/// What is retained, and what has to be looked at.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    /// Every device that is named, has published or has a document; with its retained document.
    devices: HashMap<String, Option<Retained>>,
    dirty: BTreeSet<String>,
    /// Their retained document is not what was last written here: looked at again by
    /// [`Documents::recheck`], not at once, so that two routers do not chase each other.
    suspects: BTreeSet<String>,
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
            .for_each(|retained| *retained = None);
        self.suspects.clear();
    }

    /// A device exists.
    pub(crate) fn saw(&mut self, device: &str) {
        if !self.devices.contains_key(device) && self.devices.len() < DEVICES {
            self.devices.insert(device.to_owned(), None);
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
        if *known != retained {
            *known = retained;
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

    /// Looks again at documents that somebody else wrote.
    pub(crate) fn recheck(&mut self) {
        let suspects = std::mem::take(&mut self.suspects);
        self.dirty.extend(suspects);
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
            let newer = known.as_ref().is_some_and(|known| known.schema > SCHEMA);
            if newer || known.as_ref() == Some(&wanted) {
                continue;
            }
            *known = Some(wanted);
            return Some((device, desired));
        }
        None
    }

    /// The document could not be handed on: it has to be written after all.
    pub(crate) fn not_written(&mut self, device: String) {
        self.devices.insert(device.clone(), None);
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
        let affected = fleet.apply(topic, br#"{"level":"ERROR"}"#).unwrap();
        documents.affected(&affected, &fleet);
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
        documents.recheck();
        assert_eq!(written(&mut documents, &fleet), ["lamp-7"]);
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
