//! The devices that are known, whatever made them known.

use std::collections::BTreeMap;
use std::ops::Bound;
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

    /// Their names behind `after`, sorted.
    pub(crate) fn names(&self, after: Option<&str>) -> impl Iterator<Item = &Arc<str>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let known = self.known.range::<str, _>((from, Bound::Unbounded));
        known.map(|(name, _)| name)
    }
}
