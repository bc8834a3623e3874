//! Finds events that were lost without a word. Pure; time is seconds since the Unix epoch.
//!
//! A batch speaks for a range of its lane: every number in it is an event or was declared dropped, and
//! the next batch must begin where it ended. A number nobody spoke for is a hole. A hole may still be
//! filled by a batch that was sent again out of turn, so it is declared only when it has been open for
//! a grace time.
//!
//! The first batch of a lane is its beginning, whatever its number: the router may have come later
//! than the device, or have forgotten the lane after a week of silence. So there are no false alarms
//! after such a start, and a loss before it goes unseen.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thinglog_schemas::payload::Decoded;
use thinglog_schemas::{EventId, payload};

/// Most lanes kept; beyond it the longest idle are forgotten.
const LANES: usize = 1_000_000;
/// Idle time after which a lane is forgotten.
const IDLE_S: u64 = 7 * 24 * 3600;
/// Most holes of a lane; beyond it the lowest are forgotten undeclared, and counted.
const HOLES: usize = 1024;

/// Wait before a gap that the broker would not take is offered again, seconds.
const RETRY_S: u64 = 5;

/// One source of one device in one spool lifetime.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LaneKey {
    pub(crate) device: Arc<str>,
    pub(crate) epoch: u64,
}

/// A loss to declare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) lane: LaneKey,
    pub(crate) source: Arc<str>,
    /// First and last missing number.
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Gap {
    pub(crate) fn id(&self) -> EventId {
        EventId::Gap {
            epoch: self.lane.epoch,
            from: self.from,
            to: self.to,
        }
    }

    pub(crate) fn count(&self) -> u64 {
        (self.to - self.from).saturating_add(1)
    }
}

/// A lane as the state log keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LaneState {
    device: Arc<str>,
    source: Arc<str>,
    epoch: u64,
    next: u64,
    /// From, to, open since.
    holes: Vec<(u64, u64, u64)>,
    used: u64,
}

#[derive(Debug)]
struct Lane {
    source: Arc<str>,
    /// The number the next batch must begin with.
    next: u64,
    holes: Vec<Hole>,
    used: u64,
    dirty: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hole {
    from: u64,
    to: u64,
    since: u64,
    /// Handed out as a gap, not yet acknowledged.
    declared: bool,
}

/// All lanes.
#[derive(Debug)]
pub(crate) struct Gaps {
    lanes: HashMap<LaneKey, Lane>,
    grace_s: u64,
    /// Lanes with a hole, by the time it opened.
    waiting: VecDeque<(u64, LaneKey)>,
    dirty: Vec<LaneKey>,
    /// Numbers forgotten undeclared since the last look.
    forgotten: u64,
}

impl Gaps {
    pub(crate) fn new(grace_s: u64) -> Gaps {
        Gaps {
            lanes: HashMap::new(),
            grace_s,
            waiting: VecDeque::new(),
            dirty: Vec::new(),
            forgotten: 0,
        }
    }

    /// A batch of `device` and `source` arrived.
    pub(crate) fn observe(
        &mut self,
        device: &Arc<str>,
        source: &Arc<str>,
        decoded: &Decoded,
        now: u64,
    ) {
        let Some(batch) = &decoded.lane else { return };
        let key = LaneKey {
            device: Arc::clone(device),
            epoch: batch.epoch,
        };
        if !self.lanes.contains_key(&key) {
            self.make_room();
        }
        let lane = self.lanes.entry(key.clone()).or_insert_with(|| Lane {
            source: Arc::clone(source),
            next: batch.first_seq,
            holes: Vec::new(),
            used: now,
            dirty: false,
        });
        lane.used = now;
        let beginning = lane.next;
        lane.observe(batch, decoded, now);
        self.forgotten += lane.forget_surplus();
        // Holes ascend, and only a new one lies beyond what the lane had reached.
        if lane.holes.last().is_some_and(|hole| hole.from >= beginning) {
            self.waiting.push_back((now, key.clone()));
        }
        if !std::mem::replace(&mut lane.dirty, true) {
            self.dirty.push(key);
        }
    }

    /// Gaps whose grace is over at `now`, at most `limit` of them; each is handed out once until
    /// [`Gaps::failed`].
    pub(crate) fn due(&mut self, now: u64, limit: usize) -> Vec<Gap> {
        let mut gaps = Vec::new();
        while gaps.len() < limit {
            if self.next_due().is_none_or(|due| due > now) {
                break;
            }
            let Some((since, key)) = self.waiting.pop_front() else {
                break;
            };
            let Some(lane) = self.lanes.get_mut(&key) else {
                continue;
            };
            let open = |hole: &&mut Hole| !hole.declared && hole.since <= since;
            for hole in lane.holes.iter_mut().filter(open) {
                if gaps.len() == limit {
                    self.waiting.push_front((since, key));
                    return gaps;
                }
                hole.declared = true;
                gaps.push(Gap {
                    lane: key.clone(),
                    source: Arc::clone(&lane.source),
                    from: hole.from,
                    to: hole.to,
                });
            }
        }
        gaps
    }

    /// When the next hole's grace is over.
    pub(crate) fn next_due(&self) -> Option<u64> {
        let (since, _) = self.waiting.front()?;
        Some(since.saturating_add(self.grace_s))
    }

    /// The gap stands in the log: the hole is closed.
    pub(crate) fn declared(&mut self, gap: &Gap) {
        let Some(lane) = self.lanes.get_mut(&gap.lane) else {
            return;
        };
        lane.cover(gap.from, gap.to);
        if !std::mem::replace(&mut lane.dirty, true) {
            self.dirty.push(gap.lane.clone());
        }
    }

    /// The gap could not be declared: it is due again after [`RETRY_S`].
    pub(crate) fn failed(&mut self, gap: &Gap, now: u64) {
        let Some(lane) = self.lanes.get_mut(&gap.lane) else {
            return;
        };
        let mut since = None;
        for hole in &mut lane.holes {
            if hole.declared && gap.from <= hole.from && hole.to <= gap.to {
                hole.declared = false;
                since = since.max(Some(hole.since));
            }
        }
        if let Some(since) = since {
            let retry = now.saturating_add(RETRY_S).saturating_sub(self.grace_s);
            let since = since.max(retry);
            let at = self.waiting.partition_point(|(other, _)| *other <= since);
            self.waiting.insert(at, (since, gap.lane.clone()));
        }
    }

    /// Lanes that changed since the last call.
    pub(crate) fn take_changes(&mut self) -> Vec<LaneState> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty
            .iter()
            .filter_map(|key| {
                let lane = self.lanes.get_mut(key)?;
                lane.dirty = false;
                Some(lane.state(key))
            })
            .collect()
    }

    /// Every lane.
    pub(crate) fn snapshot(&self) -> impl Iterator<Item = LaneState> + '_ {
        self.lanes.iter().map(|(key, lane)| lane.state(key))
    }

    /// Takes lanes from the state log, oldest record first; [`Gaps::replayed`] ends it.
    pub(crate) fn replay(&mut self, state: &LaneState) {
        let key = LaneKey {
            device: Arc::clone(&state.device),
            epoch: state.epoch,
        };
        let hole = |&(from, to, since): &(u64, u64, u64)| Hole {
            from,
            to,
            since,
            declared: false,
        };
        let lane = Lane {
            source: Arc::clone(&state.source),
            next: state.next,
            holes: state.holes.iter().map(hole).collect(),
            used: state.used,
            dirty: false,
        };
        self.lanes.insert(key, lane);
    }

    /// All lanes are back: holes wait for their grace again.
    pub(crate) fn replayed(&mut self) {
        let open = self
            .lanes
            .iter()
            .flat_map(|(key, lane)| lane.holes.iter().map(move |hole| (hole.since, key.clone())));
        let mut waiting: Vec<(u64, LaneKey)> = open.collect();
        waiting.sort_by_key(|(since, _)| *since);
        self.waiting = waiting.into();
    }

    /// Forgets lanes idle for a week.
    pub(crate) fn forget_idle(&mut self, now: u64) {
        let oldest = now.saturating_sub(IDLE_S);
        self.lanes.retain(|_, lane| lane.used >= oldest);
    }

    /// Numbers forgotten undeclared since the last call, because a lane had too many holes.
    pub(crate) fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
    }

    fn make_room(&mut self) {
        if self.lanes.len() < LANES {
            return;
        }
        let mut ages: Vec<u64> = self.lanes.values().map(|lane| lane.used).collect();
        let (_, &mut oldest, _) = ages.select_nth_unstable(LANES / 16);
        let mut left = LANES / 16;
        self.lanes.retain(|_, lane| {
            let go = left > 0 && lane.used <= oldest;
            left -= usize::from(go);
            !go
        });
    }
}

impl Lane {
    fn observe(&mut self, batch: &payload::Lane, decoded: &Decoded, now: u64) {
        let seq = |event: &thinglog_schemas::Event| match event.id {
            EventId::Spooled { seq, .. } => Some(seq),
            _ => None,
        };
        let whole = batch.last_seq.wrapping_sub(batch.first_seq).wrapping_add(1);
        if self.holes.is_empty()
            && batch.first_seq == self.next
            && whole == decoded.events.len() as u64
        {
            self.next = batch.last_seq.saturating_add(1);
            return;
        }
        if batch.last_seq >= self.next {
            self.holes.push(Hole {
                from: self.next,
                to: batch.last_seq,
                since: now,
                declared: false,
            });
            self.next = batch.last_seq.saturating_add(1);
        }
        let runs = decoded
            .events
            .chunk_by(|a, b| seq(a).zip(seq(b)).is_some_and(|(a, b)| a + 1 == b));
        for run in runs {
            if let (Some(from), Some(to)) = (run.first().and_then(seq), run.last().and_then(seq)) {
                self.cover(from, to);
            }
        }
        for dropped in &batch.drops {
            self.cover(dropped.from, dropped.to);
        }
    }

    /// Somebody has spoken for a range.
    fn cover(&mut self, from: u64, to: u64) {
        if self
            .holes
            .iter()
            .all(|hole| hole.to < from || to < hole.from)
        {
            return;
        }
        let pieces = self.holes.iter().flat_map(|hole| {
            let below = (hole.from < from).then(|| Hole {
                to: hole.to.min(from.saturating_sub(1)),
                ..*hole
            });
            let above = (hole.to > to).then(|| Hole {
                from: hole.from.max(to.saturating_add(1)),
                ..*hole
            });
            // A hole the range does not touch is its own lower or upper piece.
            let untouched = hole.to < from || to < hole.from;
            if untouched {
                [Some(*hole), None]
            } else {
                [below, above]
            }
        });
        self.holes = pieces.flatten().collect();
    }

    fn forget_surplus(&mut self) -> u64 {
        let surplus = self.holes.len().saturating_sub(HOLES);
        let size = |hole: Hole| (hole.to - hole.from).saturating_add(1);
        self.holes
            .drain(..surplus)
            .map(size)
            .fold(0, u64::saturating_add)
    }

    fn state(&self, key: &LaneKey) -> LaneState {
        LaneState {
            device: Arc::clone(&key.device),
            source: Arc::clone(&self.source),
            epoch: key.epoch,
            next: self.next,
            holes: self
                .holes
                .iter()
                .map(|hole| (hole.from, hole.to, hole.since))
                .collect(),
            used: self.used,
        }
    }
}

#[cfg(test)]
#[path = "gaps_tests.rs"]
mod tests;
