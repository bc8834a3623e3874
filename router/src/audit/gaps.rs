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
        let before = lane.holes.len();
        lane.observe(batch, decoded, now);
        self.forgotten += lane.forget_surplus();
        if lane.holes.len() > before {
            self.waiting.push_back((now, key.clone()));
        }
        if !std::mem::replace(&mut lane.dirty, true) {
            self.dirty.push(key);
        }
    }

    /// Gaps whose grace is over at `now`, at most `limit`; each is handed out once until
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

    /// The gap could not be declared: it is due again at once.
    pub(crate) fn failed(&mut self, gap: &Gap) {
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
            self.waiting.push_front((since, gap.lane.clone()));
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
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use thinglog_schemas::batch::{Drop, DropReason};
    use thinglog_schemas::{Attributes, Event, Severity};

    use super::*;

    const GRACE: u64 = 5;

    fn batch(seqs: &[u64], drops: &[(u64, u64)]) -> Decoded {
        let event = |&seq: &u64| Event {
            device: Arc::from("lamp-7"),
            source: Arc::from("app"),
            id: EventId::Spooled { epoch: 1, seq },
            time: 0,
            time_estimated: false,
            severity: Severity::INFO,
            message: String::new(),
            truncated: false,
            attributes: Attributes::new(),
            received: 0,
        };
        let drop = |&(from, to): &(u64, u64)| Drop {
            from,
            to,
            count: to - from + 1,
            severity: Severity::INFO,
            reason: DropReason::SpoolFull,
        };
        let all = || {
            seqs.iter()
                .copied()
                .chain(drops.iter().flat_map(|&(a, b)| [a, b]))
        };
        Decoded {
            events: seqs.iter().map(event).collect(),
            lane: Some(payload::Lane {
                epoch: 1,
                first_seq: all().min().unwrap_or(0),
                last_seq: all().max().unwrap_or(0),
                drops: drops.iter().map(drop).collect(),
            }),
        }
    }

    fn observe(gaps: &mut Gaps, decoded: &Decoded, now: u64) {
        gaps.observe(&Arc::from("lamp-7"), &Arc::from("app"), decoded, now);
    }

    fn due(gaps: &mut Gaps, now: u64) -> Vec<(u64, u64)> {
        gaps.due(now, 100)
            .iter()
            .map(|gap| (gap.from, gap.to))
            .collect()
    }

    #[test]
    fn a_hole_is_declared_after_its_grace() {
        let mut gaps = Gaps::new(GRACE);
        observe(&mut gaps, &batch(&[0, 1, 2], &[]), 10);
        observe(&mut gaps, &batch(&[6, 7], &[]), 10);
        assert_eq!(due(&mut gaps, 14), []);
        assert_eq!(gaps.next_due(), Some(15));
        assert_eq!(due(&mut gaps, 15), [(3, 5)]);
        assert_eq!(due(&mut gaps, 100), [], "once");
    }

    #[test]
    fn a_declared_drop_is_no_hole() {
        let mut gaps = Gaps::new(GRACE);
        observe(&mut gaps, &batch(&[0, 1], &[]), 10);
        observe(&mut gaps, &batch(&[5, 6], &[(2, 4)]), 10);
        assert_eq!(due(&mut gaps, 100), []);
    }

    #[test]
    fn a_number_missing_inside_a_batch_is_a_hole() {
        let mut gaps = Gaps::new(GRACE);
        observe(&mut gaps, &batch(&[0, 1, 3], &[]), 10);
        assert_eq!(due(&mut gaps, 100), [(2, 2)]);
    }

    #[test]
    fn a_hole_filled_within_its_grace_is_no_loss() {
        let mut gaps = Gaps::new(GRACE);
        observe(&mut gaps, &batch(&[0], &[]), 10);
        observe(&mut gaps, &batch(&[5], &[]), 10);
        observe(&mut gaps, &batch(&[1, 2, 3, 4], &[]), 12);
        assert_eq!(due(&mut gaps, 100), []);
    }

    #[test]
    fn the_first_batch_is_the_beginning() {
        let mut gaps = Gaps::new(GRACE);
        observe(&mut gaps, &batch(&[1000, 1001], &[]), 10);
        observe(&mut gaps, &batch(&[1002], &[]), 10);
        assert_eq!(due(&mut gaps, 100), []);
    }

    #[test]
    fn a_repeated_batch_changes_nothing() {
        let mut gaps = Gaps::new(GRACE);
        for _ in 0..3 {
            observe(&mut gaps, &batch(&[0, 1, 2], &[]), 10);
        }
        observe(&mut gaps, &batch(&[3], &[]), 10);
        assert_eq!(due(&mut gaps, 100), []);
    }

    #[test]
    fn an_open_hole_survives_a_restart_and_a_declared_one_does_not() {
        let mut gaps = Gaps::new(GRACE);
        observe(&mut gaps, &batch(&[0], &[]), 10);
        observe(&mut gaps, &batch(&[5], &[]), 10);
        let gap = gaps.due(100, 1).remove(0);
        let again = |gaps: &mut Gaps| {
            let mut restarted = Gaps::new(GRACE);
            gaps.snapshot().for_each(|state| restarted.replay(&state));
            restarted.replayed();
            due(&mut restarted, 100)
        };
        assert_eq!(again(&mut gaps), [(1, 4)]);
        gaps.declared(&gap);
        assert_eq!(again(&mut gaps), []);
    }

    #[test]
    fn a_gap_that_could_not_be_declared_is_due_again() {
        let mut gaps = Gaps::new(GRACE);
        observe(&mut gaps, &batch(&[0], &[]), 10);
        observe(&mut gaps, &batch(&[5], &[]), 10);
        let gap = gaps.due(100, 1).remove(0);
        gaps.failed(&gap);
        assert_eq!(due(&mut gaps, 100), [(1, 4)]);
    }

    #[test]
    fn the_holes_of_a_lane_are_bounded() {
        let mut gaps = Gaps::new(GRACE);
        for n in 0..2 * HOLES as u64 {
            observe(&mut gaps, &batch(&[n * 2], &[]), 10);
        }
        assert!(gaps.lanes.values().all(|lane| lane.holes.len() <= HOLES));
        assert!(gaps.take_forgotten() > 0);
    }

    proptest! {
        #[test]
        fn exactly_the_missing_numbers_are_declared(
            sent in proptest::collection::vec((0u64..60, 1u64..8, any::<bool>()), 1..30),
        ) {
            let mut gaps = Gaps::new(GRACE);
            let mut spoken = BTreeSet::new();
            let mut first = None;
            for (from, length, dropped) in sent {
                // Nothing below the first batch counts.
                let from = from + first.unwrap_or(0);
                first.get_or_insert(from);
                let to = from + length - 1;
                let seqs: Vec<u64> = (from..=to).collect();
                let decoded = if dropped { batch(&[], &[(from, to)]) } else { batch(&seqs, &[]) };
                observe(&mut gaps, &decoded, 10);
                spoken.extend(from..=to);
            }
            let first = first.unwrap_or(0);
            let last = spoken.last().copied().unwrap_or(0);
            let missing: Vec<u64> = (first..=last).filter(|n| !spoken.contains(n)).collect();
            let declared: Vec<u64> = due(&mut gaps, 100).into_iter().flat_map(|(a, b)| a..=b).collect();
            prop_assert_eq!(declared, missing);
        }
    }
}
