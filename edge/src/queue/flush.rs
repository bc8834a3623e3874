//! Who waits until what was emitted is durable, and what tells them.

use super::{
    LaneKey, Queue,
    lane::{Lane, State},
};

/// What a flush waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FlushTarget {
    lanes: Vec<(LaneKey, u64)>,
    losses: u64,
}

impl Queue {
    /// A batch is durable: its lane is accounted for up to `through`.
    pub(crate) fn settle(&mut self, key: LaneKey, through: u64) {
        if let Some(lane) = self.lane_mut(key) {
            lane.settle(through);
        }
    }

    /// Events that were cut but can never be sent; the worker declared them in their place.
    pub(crate) fn count_undeliverable(&mut self, events: u64) {
        self.counters.dropped += events;
        self.flush_losses += events;
    }

    /// Makes everything queued due and says what to wait for until all of it is accounted for.
    pub(crate) fn start_flush(&mut self) -> FlushTarget {
        self.make_all_due();
        self.mark()
    }

    /// Makes everything queued due and says what is there, without waiting for it: what is given up
    /// of it is nobody's disappointment.
    pub(crate) fn start_upload(&mut self) -> FlushTarget {
        self.make_all_due();
        let lanes = self.lanes.iter().enumerate();
        let unsettled = lanes.filter_map(|(index, lane)| {
            let lane = lane
                .as_ref()
                .filter(|lane| lane.settled() < lane.arrivals())?;
            let epoch = lane.epoch;
            Some((LaneKey { index, epoch }, lane.arrivals()))
        });
        FlushTarget {
            lanes: unsettled.collect(),
            losses: self.flush_losses,
        }
    }

    pub(super) fn make_all_due(&mut self) {
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if let Some(lane) = lane
                && !lane.is_empty()
                && lane.state != State::Due
            {
                lane.state = State::Due;
                self.due.push_back(index);
            }
        }
    }

    /// What to wait for until all that is here is accounted for, without hurrying anything.
    pub(crate) fn mark(&mut self) -> FlushTarget {
        let mut lanes = Vec::new();
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let Some(lane) = lane else { continue };
            if lane.settled() < lane.arrivals() {
                let epoch = lane.epoch;
                lanes.push((LaneKey { index, epoch }, lane.mark()));
            }
        }
        FlushTarget {
            lanes,
            losses: self.flush_losses,
        }
    }

    /// How a flush stands: `None` while it waits, else whether everything became durable.
    pub(crate) fn poll_flush(&self, target: &mut FlushTarget) -> Option<bool> {
        target.lanes.retain(|(key, through)| {
            let lane = self.lanes.get(key.index).and_then(Option::as_ref);
            lane.is_some_and(|lane| lane.epoch == key.epoch && lane.settled() < *through)
        });
        let done = target.lanes.is_empty();
        done.then_some(self.flush_losses == target.losses)
    }

    fn lane_mut(&mut self, key: LaneKey) -> Option<&mut Lane> {
        let lane = self.lanes.get_mut(key.index)?.as_mut()?;
        (lane.epoch == key.epoch).then_some(lane)
    }
}
