//! When lanes are due: by count, by bytes, by age; and how much may wait before the queue until the
//! worker comes by.

use std::time::{Duration, Instant};

use super::{
    Queue,
    lane::{Lane, State},
    ring::Ring,
};
use crate::clock;

/// What may wait before the queue while the worker is to come anyway: events and bytes, about.
pub(crate) const MAY_WAIT: (usize, usize) = (8, 8 << 10);

impl Queue {
    /// Notes that a lane has something; true when the worker should look.
    pub(super) fn arm(&mut self, index: usize) -> bool {
        let (events, bytes) = (self.options.batch_events, self.options.batch_bytes);
        let Some(lane) = self.lanes[index].as_mut() else {
            return false;
        };
        if lane.state == State::Due {
            return false;
        }
        let (has_events, has_bytes) = (lane.events(), lane.bytes());
        if has_events >= events || has_bytes >= bytes {
            lane.state = State::Due;
            self.due.push_back(index);
            self.look_for_the_fullest();
            return true;
        }
        self.fullest.0 = self.fullest.0.max(has_events);
        self.fullest.1 = self.fullest.1.max(has_bytes);
        if lane.state == State::Idle {
            lane.state = State::Fresh;
            self.fresh.push(index);
            return true;
        }
        false
    }

    /// Looks at the clock: new lanes begin to age, aged ones become due, temporary levels end.
    /// True when levels changed.
    pub(crate) fn tick(&mut self, now: Instant) -> bool {
        let before = self.ticked.replace(now).filter(|_| self.waited);
        self.waited = false;
        let since = before.unwrap_or(now);
        for index in self.fresh.drain(..) {
            if let Some(lane) = self.lanes[index].as_mut()
                && lane.state == State::Fresh
            {
                lane.state = State::Aging(since);
                self.aging.push_back((index, since));
            }
        }
        let age = self.flush_age();
        while let Some(&(index, since)) = self.aging.front() {
            let lane = self.lanes[index].as_mut();
            match lane.filter(|lane| lane.state == State::Aging(since)) {
                Some(_) if clock::after(since, age) > now => break,
                Some(lane) => {
                    lane.state = State::Due;
                    self.due.push_back(index);
                    self.round = self.together.is_some();
                }
                None => {}
            }
            self.aging.pop_front();
        }
        if self.round {
            self.make_all_due();
        }
        if let Some(ring) = &mut self.ring {
            ring.tick(now);
        }
        let changed = self.levels.tick(now);
        if changed {
            self.refresh_levels();
        }
        changed
    }

    /// When [`tick`](Queue::tick) has something to do next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let age = self
            .aging
            .front()
            .map(|(_, since)| clock::after(*since, self.flush_age()));
        let ring = self.ring.as_ref().and_then(Ring::deadline);
        let others = self.levels.next_change().into_iter().chain(ring);
        age.into_iter().chain(others).min()
    }

    /// Whether a few events ([`MAY_WAIT`]) may wait before the queue: the worker comes by no later than it
    /// would for them, and they make no lane due by count or bytes.
    pub(crate) fn may_wait(&self) -> bool {
        let ages = !self.fresh.is_empty() || !self.aging.is_empty();
        // Where nothing can be cut, nothing could be cut of them either; but a patient lane may be held
        // alone.
        let is_due = !self.due.is_empty() && !self.hold_patient;
        (ages || is_due) && !self.is_nearly_due()
    }

    /// Events are put in that have waited, no longer than since the last [`tick`](Queue::tick): lanes
    /// that begin to age with them have done so since then.
    pub(crate) fn note_waited(&mut self) {
        self.waited = true;
    }

    fn is_nearly_due(&self) -> bool {
        let (events, bytes) = self.fullest;
        events + MAY_WAIT.0 >= self.options.batch_events
            || bytes + MAY_WAIT.1 >= self.options.batch_bytes
    }

    /// A lane is due or has been cut: how full the others are is looked up anew, where it matters.
    pub(super) fn look_for_the_fullest(&mut self) {
        let (events, bytes) = MAY_WAIT;
        let matters = self.options.batch_events > events && self.options.batch_bytes > bytes;
        if !matters || !self.is_nearly_due() {
            return;
        }
        let not_due = |lane: &&Lane| matches!(lane.state, State::Fresh | State::Aging(_));
        let lanes = self.lanes.iter().flatten().filter(not_due);
        self.fullest = lanes.fold((0, 0), |(events, bytes), lane| {
            (events.max(lane.events()), bytes.max(lane.bytes()))
        });
    }

    /// Whether something may be cut.
    pub(crate) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// With an age: when a lane has waited long enough, at least that, all that have something are due
    /// with it.
    pub(crate) fn set_together(&mut self, age: Option<Duration>) {
        self.together = age;
    }

    fn flush_age(&self) -> Duration {
        let least = self.together.unwrap_or_default();
        self.options.flush_age.max(least)
    }

    /// Whether lanes have become due together since the last time.
    pub(crate) fn take_round(&mut self) -> bool {
        std::mem::take(&mut self.round)
    }
}
