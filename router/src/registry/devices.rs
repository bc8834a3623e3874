//! The devices that are known, whatever made them known.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Most devices.
pub(crate) const MOST: usize = 1_000_000;

/// Every device, by name.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    known: BTreeMap<Arc<str>, Device>,
}

/// What is known of one.
#[derive(Debug, Default)]
pub(crate) struct Device {}

impl Devices {
    /// A device exists.
    pub(crate) fn saw(&mut self, device: &str) {
        if !self.known.contains_key(device) && self.known.len() < MOST {
            self.known.insert(Arc::from(device), Device::default());
        }
    }

    pub(crate) fn contains(&self, device: &str) -> bool {
        self.known.contains_key(device)
    }
}
