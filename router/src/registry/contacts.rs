//! When each device was last heard of, whatever it speaks: its events, its reports, its connections.
//!
//! The broker retains nothing of a device that only publishes, so this is kept on disk, by `audit`: it
//! sees every event exactly as often as it must, its commits are synced anyway, and its cursor stands
//! still until they are, so that a crash forgets no contact. What is written is a device and a time, once
//! in [`KEEP_EVERY_S`] for a device that goes on talking.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::devices::MOST;

/// A contact is kept on disk when the one that is kept there is so much older, seconds.
pub(crate) const KEEP_EVERY_S: u64 = 60;

/// A device and when it was heard of (s since the Unix epoch); 0: it was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    device: Arc<str>,
    at: u64,
}

/// Last contacts of all devices.
#[derive(Debug, Default)]
pub(crate) struct Contacts {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<Arc<str>, Contact>,
    /// To be kept at the next commit.
    unkept: Vec<Arc<str>>,
    deleted: Vec<Arc<str>>,
}

#[derive(Debug, Default)]
struct Contact {
    at: u64,
    kept: u64,
    waits: bool,
    /// The router has noted that the device exists.
    noted: bool,
}

impl Contacts {
    /// A device was heard of at `at` (s since the Unix epoch). True until the router has noted that it
    /// exists, see [`Contacts::noted`].
    pub(crate) fn touch(&self, device: &Arc<str>, at: u64) -> bool {
        let mut state = self.state.lock();
        let State { known, unkept, .. } = &mut *state;
        if let Some(contact) = known.get_mut(&**device) {
            contact.at = contact.at.max(at);
            if !contact.waits && contact.at >= contact.kept.saturating_add(KEEP_EVERY_S) {
                contact.waits = true;
                unkept.push(Arc::clone(device));
            }
            return !contact.noted;
        }
        if known.len() >= MOST {
            return false;
        }
        let contact = Contact {
            at,
            waits: true,
            ..Contact::default()
        };
        known.insert(Arc::clone(device), contact);
        unkept.push(Arc::clone(device));
        true
    }

    /// The router has noted that the device exists.
    pub(crate) fn noted(&self, device: &str) {
        if let Some(contact) = self.state.lock().known.get_mut(device) {
            contact.noted = true;
        }
    }

    /// When the device was last heard of, s since the Unix epoch.
    pub(crate) fn of(&self, device: &str) -> Option<u64> {
        let state = self.state.lock();
        let contact = state.known.get(device);
        contact.map(|contact| contact.at).filter(|at| *at > 0)
    }

    /// A device was deleted.
    pub(crate) fn forget(&self, device: &str) {
        let mut state = self.state.lock();
        if let Some((device, _)) = state.known.remove_entry(device) {
            state.deleted.push(device);
        }
    }

    /// What has to be kept on disk since the last time.
    pub(crate) fn take_changes(&self) -> Vec<Kept> {
        let mut state = self.state.lock();
        let State {
            known,
            unkept,
            deleted,
        } = &mut *state;
        let mut changes: Vec<Kept> = deleted
            .drain(..)
            .map(|device| Kept { device, at: 0 })
            .collect();
        for device in unkept.drain(..) {
            if let Some(contact) = known.get_mut(&device) {
                (contact.kept, contact.waits) = (contact.at, false);
                let at = contact.at;
                changes.push(Kept { device, at });
            }
        }
        changes
    }

    /// Whether something has to be kept.
    pub(crate) fn has_changes(&self) -> bool {
        let state = self.state.lock();
        !state.unkept.is_empty() || !state.deleted.is_empty()
    }

    /// Everything, for a state that is written anew.
    pub(crate) fn snapshot(&self) -> Vec<Kept> {
        let state = self.state.lock();
        let kept = |(device, contact): (&Arc<str>, &Contact)| Kept {
            device: Arc::clone(device),
            at: contact.at,
        };
        state.known.iter().map(kept).collect()
    }

    /// Takes up what was kept, oldest first.
    pub(crate) fn replay(&self, kept: &Kept) {
        let mut state = self.state.lock();
        if kept.at == 0 {
            state.known.remove(&kept.device);
            return;
        }
        if state.known.len() >= MOST && !state.known.contains_key(&kept.device) {
            return;
        }
        let contact = state.known.entry(Arc::clone(&kept.device)).or_default();
        contact.at = contact.at.max(kept.at);
        contact.kept = contact.at;
    }

    /// Names of all devices that were ever heard of and not deleted.
    pub(crate) fn devices(&self) -> Vec<Arc<str>> {
        self.state.lock().known.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lamp() -> Arc<str> {
        Arc::from("lamp-7")
    }

    #[test]
    fn a_device_that_goes_on_talking_is_kept_once_a_minute() {
        let contacts = Contacts::default();
        assert!(contacts.touch(&lamp(), 1000));
        contacts.noted("lamp-7");
        assert_eq!(contacts.take_changes().len(), 1);
        assert!(!contacts.touch(&lamp(), 1000 + KEEP_EVERY_S - 1));
        assert!(!contacts.has_changes());
        assert!(!contacts.touch(&lamp(), 1000 + KEEP_EVERY_S));
        contacts.touch(&lamp(), 1001 + KEEP_EVERY_S);
        assert_eq!(contacts.take_changes().len(), 1);
        assert_eq!(contacts.of("lamp-7"), Some(1001 + KEEP_EVERY_S));
    }

    #[test]
    fn what_was_kept_comes_back_and_what_was_deleted_does_not() {
        let contacts = Contacts::default();
        contacts.touch(&lamp(), 1000);
        contacts.touch(&Arc::from("lamp-8"), 1001);
        let mut kept = contacts.take_changes();
        contacts.forget("lamp-7");
        assert!(contacts.has_changes());
        kept.extend(contacts.take_changes());
        let again = Contacts::default();
        kept.iter().for_each(|kept| again.replay(kept));
        assert_eq!((again.of("lamp-7"), again.of("lamp-8")), (None, Some(1001)));
        assert!(!again.has_changes());
        assert!(again.touch(&lamp(), 2000), "it is noted anew");
    }
}
