//! What routes may ask of the devices that one destination meets, each until the fleet changes.

use std::collections::HashMap;
use std::sync::Arc;

use thinglog_schemas::query::Facts;

use super::Levels;

/// Devices of which facts are kept.
const CACHED: usize = 16_384;

/// The facts of one destination's devices.
#[derive(Debug)]
pub(crate) struct FactsCache {
    levels: Arc<Levels>,
    known: HashMap<Arc<str>, (u64, Facts)>,
    /// For those who ask for nothing.
    none: Facts,
}

impl FactsCache {
    pub(crate) fn new(levels: Arc<Levels>) -> FactsCache {
        FactsCache {
            levels,
            known: HashMap::new(),
            none: Facts::default(),
        }
    }

    /// What is known of nobody.
    pub(crate) fn none(&self) -> &Facts {
        &self.none
    }

    /// What is known of a device.
    pub(crate) fn of(&mut self, device: &Arc<str>) -> &Facts {
        let version = self.levels.version();
        if self.known.len() >= CACHED && !self.known.contains_key(device) {
            self.known.clear();
        }
        let read = || self.levels.read(|fleet| fleet.facts(device));
        let known = self
            .known
            .entry(Arc::clone(device))
            .or_insert_with(|| (version, read()));
        if known.0 != version {
            *known = (version, read());
        }
        &known.1
    }
}
