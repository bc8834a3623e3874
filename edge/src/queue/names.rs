//! Which lane a source has: one of its own as long as there are not too many.

use std::sync::Arc;

use thinglog_schemas::name;

use super::{MAX_LANES, OVERFLOW, Queue, lane::Lane};
use crate::record::Record;

impl Queue {
    /// The lane of a record's source, made when it is new; true when the record has changed for it, and
    /// with that what it costs.
    pub(super) fn lane_of(&mut self, record: &mut Record) -> (usize, bool) {
        let (index, overflow) = self.find_lane(&record.source);
        if overflow {
            let original = std::mem::replace(&mut record.source, OVERFLOW.into());
            record.unpack();
            record
                .attributes
                .insert("source".into(), original.as_ref().into());
        }
        (index, overflow)
    }

    /// The lane of a source, made when it is new, and whether it is that of many.
    pub(super) fn find_lane(&mut self, source: &Arc<str>) -> (usize, bool) {
        let last = self.lanes.get(self.last_found).and_then(Option::as_ref);
        if last.is_some_and(|lane| lane.name == *source) {
            return (self.last_found, false);
        }
        if let Some(index) = self.names.get(source) {
            self.last_found = *index;
            return (*index, false);
        }
        if self.names.len() < MAX_LANES || self.forget_a_settled_lane() {
            return (self.add_lane(source.clone()), false);
        }
        match self.names.get(OVERFLOW) {
            Some(index) => (*index, true),
            None => (self.add_lane(OVERFLOW.into()), true),
        }
    }

    fn add_lane(&mut self, name: Arc<str>) -> usize {
        self.generation += 1;
        let source: Arc<str> = name::encode(&name).into();
        let level = self.levels.level(&source);
        let epoch = epoch(self.seed, self.generation);
        let lane = Lane::new(name.clone(), source, epoch, level);
        let index = match self.lanes.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.lanes.push(None);
                self.lanes.len() - 1
            }
        };
        self.lanes[index] = Some(lane);
        self.names.insert(name, index);
        index
    }

    /// Sources come and go (units, containers): a lane that owes nothing makes place for a new one.
    /// Should its source return, it gets a lane with another epoch.
    fn forget_a_settled_lane(&mut self) -> bool {
        let settled = |lane: &Option<Lane>| lane.as_ref().is_some_and(Lane::is_settled);
        let Some(index) = self.lanes.iter().position(settled) else {
            return false;
        };
        if let Some(lane) = self.lanes[index].take() {
            self.names.remove(&lane.name);
        }
        true
    }
}

/// The epoch of the `generation`th lane of a process: distinct for distinct generations (the mixer
/// of splitmix64 is a bijection), and unlike any other process's by the random seed.
pub(super) fn epoch(seed: u64, generation: u64) -> u64 {
    let mut x = seed.wrapping_add(generation.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
