//! Where sources stand: the last place each one gave, and the places that no event carries because
//! what was read before them did not pass.

use std::sync::Arc;

use super::{LaneKey, Queue};
use crate::marks::{Mark, Marks};

/// Places without an event that are remembered at a time.
const MAX_LOOSE: usize = 4096;

/// A place that holds once its lane is durable up to what had arrived before.
#[derive(Debug)]
pub(super) struct Loose {
    lane: LaneKey,
    through: u64,
    place: Arc<[u8]>,
}

impl Queue {
    /// What an earlier process left of its sources' places.
    pub(crate) fn restore_places(&mut self, kept: &Marks) {
        for mark in kept.all() {
            self.places.set(mark);
        }
    }

    /// The last place of a key: of this process, else of an earlier one.
    pub(crate) fn place(&self, key: u64) -> Option<Vec<u8>> {
        self.places.get(key).map(|place| place.to_vec())
    }

    /// A source has come to a place without an event.
    pub(crate) fn note_place(&mut self, source: &str, mark: Mark) {
        let (index, _) = self.find_lane(&source.into());
        self.pass_by(index, mark);
    }

    pub(super) fn pass_by(&mut self, index: usize, mark: Mark) {
        let Some(lane) = self.lanes[index].as_ref() else {
            return;
        };
        self.places.set(mark.clone());
        if self.loose.len() >= MAX_LOOSE && !self.loose.contains_key(&mark.key) {
            return;
        }
        let loose = Loose {
            lane: LaneKey {
                index,
                epoch: lane.epoch,
            },
            through: lane.arrivals(),
            place: mark.place,
        };
        self.loose.insert(mark.key, loose);
    }

    /// The places without an event before which everything is durable.
    pub(crate) fn take_settled_places(&mut self) -> Vec<Mark> {
        let lanes = &self.lanes;
        let mut settled = Vec::new();
        self.loose.retain(|key, loose| {
            let lane = lanes.get(loose.lane.index).and_then(Option::as_ref);
            let waits = lane.is_some_and(|lane| {
                lane.epoch == loose.lane.epoch && lane.settled() < loose.through
            });
            if !waits {
                settled.push(Mark {
                    key: *key,
                    place: loose.place.clone(),
                });
            }
            waits
        });
        settled
    }
}
