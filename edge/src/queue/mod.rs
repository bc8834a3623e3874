//! What waits in memory: one lane for each source, capped in bytes together, lowest severity given
//! up first, cut into batches by count, bytes and age. Pure: no I/O, no clock, no randomness.
//!
//! Numbers: every lane has an epoch, derived from the random seed of this process and a counter, and
//! numbers its events when they are sealed into a batch, in the order they came. What was given up
//! before is numbered and declared in that same batch, so a lane's batches follow on each other
//! without a hole: each starts where the last one ended. A new process has new epochs, so nothing
//! about numbers needs to be kept, and what an ended process never sealed is no hole either: it
//! never had a number.

mod carried;
mod due;
mod flush;
mod lane;
mod names;
mod places;
mod ring;
mod room;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use thinglog_schemas::{
    Level, Severity,
    batch::{Batch, ClockInfo, DropReason, Entry},
    name,
};

use crate::{
    drops::Drops,
    levels::Levels,
    marks::{Mark, Marks},
    record::Record,
};
pub(crate) use carried::Carried;
use carried::entry;
pub(crate) use due::MAY_WAIT;
pub(crate) use flush::FlushTarget;
pub(crate) use lane::{CLASSES, MARK_BYTES, class, name_hash};
use lane::{Lane, Sealing, State};
use places::Loose;
use ring::Ring;
pub(crate) use ring::RingOptions;
pub(crate) use room::Refuses;
use room::Tight;

/// Sources that may be alive at once; events of further ones share the lane [`OVERFLOW`].
pub(crate) const MAX_LANES: usize = 1024;
/// The lane of sources beyond [`MAX_LANES`]; such events carry their source as an attribute.
pub(crate) const OVERFLOW: &str = "other";
/// The places of sources that are remembered, bytes (about twice what they take).
const PLACES_BYTES: usize = 1 << 20;

/// How the queue behaves.
#[derive(Clone, Debug)]
pub(crate) struct QueueOptions {
    /// Bytes that queued events and unacknowledged batches may take together.
    pub(crate) memory_bytes: usize,
    /// A lane is due at this many events; a batch holds no more.
    pub(crate) batch_events: usize,
    /// A lane is due at this many bytes; a batch holds about as much (uncompressed).
    pub(crate) batch_bytes: usize,
    /// A lane is due this long after its first event.
    pub(crate) flush_age: Duration,
}

/// What became of an event.
#[derive(Debug, PartialEq)]
pub(crate) enum Pushed {
    /// Taken; `wake` when the worker has something new to do.
    Queued {
        /// A lane began to age or became due.
        wake: bool,
    },
    /// Below the level of its source.
    Filtered,
    /// No room, and nothing less grave to give up for it: counted and to be declared.
    Dropped {
        /// A lane began to age or became due.
        wake: bool,
    },
    /// No room now; only for those who wait.
    Full(Record),
}

/// What would become of an event of a source, as far as levels go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Its level lets it pass.
    pub(crate) passes: bool,
    /// The remote configuration has an entry for its source, which stands above a local level.
    pub(crate) named: bool,
}

/// Names a lane as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LaneKey {
    index: usize,
    epoch: u64,
}

impl LaneKey {
    /// The lane's epoch.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// A batch on its way out, with what to tell the queue once it is durable.
#[derive(Debug)]
pub(crate) struct Cut {
    /// Topic level.
    pub(crate) source: Arc<str>,
    /// The numbered events.
    pub(crate) batch: Batch<Carried>,
    /// Whose it is, and how far it gets the lane.
    pub(crate) lane: LaneKey,
    /// Arrivals of the lane that are accounted for once this batch is.
    pub(crate) through: u64,
    /// Fed by a source that waits: nothing of it is given up for want of room.
    pub(crate) patient: bool,
    /// Where the source stood after an event, with the event's seq, in order.
    pub(crate) marks: Vec<(u64, Mark)>,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueCounters {
    /// Taken or turned away, levels passed.
    pub(crate) accepted: u64,
    /// Below the level after they had been queued (a document arrived before the first batch left).
    pub(crate) purged: u64,
    /// Given up for want of room, or because they could not be sent at all.
    pub(crate) dropped: u64,
    /// The same by level and reason, once declared; without those that could not be sent at all.
    pub(crate) declared: Drops,
    /// Below the level of their source.
    pub(crate) filtered: u64,
    /// The same, after they had been kept in the ring for a while.
    pub(crate) forgotten: u64,
}

/// The lanes and their common limits.
#[derive(Debug)]
pub(crate) struct Queue {
    options: QueueOptions,
    levels: Levels,
    seed: u64,
    generation: u64,
    names: HashMap<Arc<str>, usize>,
    lanes: Vec<Option<Lane>>,
    /// The lane of the last event, which most often is that of the next one.
    last_found: usize,
    fresh: Vec<usize>,
    aging: VecDeque<(usize, Instant)>,
    due: VecDeque<usize>,
    /// No lane that is not due holds more events, and none more bytes.
    fullest: (usize, usize),
    /// When the clock was looked at last; whether events that have waited were put in since.
    ticked: Option<Instant>,
    waited: bool,
    /// Queued here; held elsewhere on behalf of events that left.
    bytes: usize,
    outside: usize,
    /// The spool on disk is nearly full: who can wait, waits.
    hold_patient: bool,
    /// When one lane has aged, and no earlier than this, all are due: they are written as one.
    together: Option<Duration>,
    /// That has just happened.
    round: bool,
    events: u64,
    /// Set once memory was full, for as long as it says the truth.
    tight: Option<Tight>,
    /// For each class, the lane that gives up next, and for how many events.
    victims: [Option<(usize, u32)>; CLASSES],
    /// Given up and not freed yet.
    given_up: VecDeque<Entry<Carried>>,
    /// Lost although a flush waited for them.
    flush_losses: u64,
    counters: QueueCounters,
    ring: Option<Ring>,
    /// Events of level ERROR so far; whether the worker is woken by each.
    errors: u64,
    hasten_errors: bool,
    /// The last place of every source that gave any; those that no event carries.
    places: Marks,
    loose: HashMap<u64, Loose>,
}

impl Queue {
    /// An empty queue. `seed` is random and new for every process.
    pub(crate) fn new(options: QueueOptions, levels: Levels, seed: u64) -> Queue {
        Queue {
            options,
            levels,
            seed,
            generation: 0,
            names: HashMap::new(),
            lanes: Vec::new(),
            last_found: 0,
            fresh: Vec::new(),
            aging: VecDeque::new(),
            due: VecDeque::new(),
            fullest: (0, 0),
            ticked: None,
            waited: false,
            bytes: 0,
            outside: 0,
            hold_patient: false,
            together: None,
            round: false,
            events: 0,
            tight: None,
            victims: [None; CLASSES],
            given_up: VecDeque::new(),
            flush_losses: 0,
            counters: QueueCounters::default(),
            ring: None,
            errors: 0,
            hasten_errors: false,
            places: Marks::new(PLACES_BYTES),
            loose: HashMap::new(),
        }
    }

    /// Takes an event that its source will not repeat: when there is no room, the least grave goes.
    #[cfg(test)]
    pub(crate) fn push(&mut self, mut record: Record) -> Pushed {
        record.mark = None;
        let cost = record.cut_to_limits();
        self.push_weighed(record, cost)
    }

    /// Takes an event that its source will not repeat, that has no mark and costs `cost` bytes (see
    /// [`Record::cut_to_limits`]): when there is no room, the least grave goes.
    pub(crate) fn push_weighed(&mut self, record: Record, cost: usize) -> Pushed {
        self.enter(record, cost, false)
    }

    /// Takes an event of a source that can wait. Such a source gets three quarters of the memory and
    /// nothing of it is ever given up.
    pub(crate) fn push_patient(&mut self, mut record: Record) -> Pushed {
        let cost = record.cut_to_limits();
        self.enter(record, cost, true)
    }

    fn enter(&mut self, mut record: Record, mut cost: usize, patient: bool) -> Pushed {
        let (mut index, changed) = self.lane_of(&mut record);
        if changed {
            cost = record.cut_to_limits();
        }
        let level = self.lanes[index].as_ref().map(|lane| lane.level);
        let level = level.unwrap_or(Level::Disabled);
        if !level.passes(record.severity) && !self.is_around_an_error(level) {
            if let Some(mark) = record.mark.take() {
                self.pass_by(index, mark);
            }
            return self.keep_in_ring(record, level);
        }
        if patient {
            let limit = self.options.memory_bytes / 4 * 3;
            self.squeeze_ring(cost, limit);
            let used = self.used();
            if self.hold_patient || (used > 0 && used + cost > limit) {
                return Pushed::Full(record);
            }
            if let Some(lane) = self.lanes[index].as_mut() {
                lane.patient = true;
            }
        } else if !self.find_room(cost, lane::class(record.severity)) {
            let wake = self.turn_away(index, record.severity, DropReason::SpoolFull, 1);
            return Pushed::Dropped { wake };
        }
        let hasten = self.trigger_ring(record.severity);
        if hasten {
            // What left the ring may have taken the place of a lane that owed nothing.
            index = self.lane_of(&mut record).0;
        }
        self.counters.accepted += 1;
        self.bytes += cost;
        self.events += 1;
        let (mark, monotonic) = (record.mark.take(), record.monotonic);
        if let Some(mark) = &mark {
            self.loose.remove(&mark.key);
            self.places.set(mark.clone());
        }
        let wake = match self.lanes[index].as_mut() {
            Some(lane) => {
                lane.push(entry(record), cost, mark, monotonic);
                self.arm(index)
            }
            None => false,
        };
        Pushed::Queued {
            wake: wake || hasten,
        }
    }

    /// Events of `source` that whoever emits them does not let through: they are counted and declared
    /// as if they had been dropped here. Nothing happens when they are below the level. True when the
    /// worker has something new to do.
    pub(crate) fn declare(
        &mut self,
        source: &str,
        severity: Severity,
        reason: DropReason,
        count: u64,
    ) -> bool {
        match self.lane_that_lets(&source.into(), severity) {
            Some(index) if count > 0 => self.turn_away(index, severity, reason, count),
            _ => false,
        }
    }

    /// Events that were refused before they came here, because [`refuses`](Queue::refuses) said so. True when
    /// the worker has something new to do.
    pub(crate) fn note_refused(
        &mut self,
        source: &Arc<str>,
        severity: Severity,
        count: u64,
    ) -> bool {
        if let Some(index) = self.lane_that_lets(source, severity) {
            return self.turn_away(index, severity, DropReason::SpoolFull, count);
        }
        self.counters.filtered += count;
        false
    }

    /// The lane of a source, if its level lets the severity pass.
    fn lane_that_lets(&mut self, source: &Arc<str>, severity: Severity) -> Option<usize> {
        let (index, _) = self.find_lane(source);
        let lane = self.lanes[index].as_ref();
        lane.filter(|lane| lane.level.passes(severity))?;
        Some(index)
    }

    fn turn_away(
        &mut self,
        index: usize,
        severity: Severity,
        reason: DropReason,
        count: u64,
    ) -> bool {
        self.counters.accepted += count;
        self.counters.dropped += count;
        if let Some(lane) = self.lanes[index].as_mut() {
            lane.turn_away(severity, reason, count);
        }
        self.arm(index)
    }

    /// Cuts the next batch off a due lane; lanes take turns. What is less grave than `least` is
    /// given up instead (a spool that keeps its last room for what matters).
    pub(crate) fn cut(&mut self, least: Option<Level>, clock: ClockInfo) -> Option<Cut> {
        let least = match least {
            Some(Level::Error) => 3,
            Some(Level::Warn) => 2,
            Some(Level::Info) => 1,
            _ => 0,
        };
        for _ in 0..self.due.len() {
            let Some(index) = self.due.pop_front() else {
                break;
            };
            let Some(lane) = self.lanes[index].as_mut() else {
                continue;
            };
            if lane.patient && self.hold_patient {
                self.due.push_back(index);
                continue;
            }
            lane.state = State::Idle;
            if lane.is_empty() {
                continue;
            }
            let patient = lane.patient;
            let least = if patient { 0 } else { least };
            let before = lane.events() as u64;
            let (events, bytes) = (self.options.batch_events, self.options.batch_bytes);
            let sealing = lane.seal(events.max(1), bytes, least, clock);
            let Sealing { batch, cost, .. } = sealing;
            let taken = before - lane.events() as u64;
            self.flush_losses += sealing.awaited;
            self.counters.dropped += taken - batch.entries.len() as u64;
            self.counters.declared.note(&batch.drops);
            self.bytes -= cost;
            self.events -= taken;
            if !lane.is_empty() {
                lane.state = State::Due;
                self.due.push_back(index);
            }
            let cut = Cut {
                source: lane.source.clone(),
                lane: LaneKey {
                    index,
                    epoch: lane.epoch,
                },
                batch,
                through: sealing.through,
                patient,
                marks: sealing.marks,
            };
            self.look_for_the_fullest();
            return Some(cut);
        }
        None
    }

    /// Changes the levels. With `purge`, queued events that no longer pass are forgotten as if they
    /// had never been emitted: right before the first batch has left, when a level that was set long
    /// ago has only just become known.
    pub(crate) fn change_levels(&mut self, change: impl FnOnce(&mut Levels), purge: bool) {
        change(&mut self.levels);
        self.refresh_levels();
        if !purge {
            return;
        }
        for lane in self.lanes.iter_mut().flatten() {
            let (events, bytes) = lane.purge();
            self.bytes -= bytes;
            self.events -= events;
            self.counters.purged += events;
        }
    }

    fn refresh_levels(&mut self) {
        for lane in self.lanes.iter_mut().flatten() {
            lane.level = self.levels.level(&lane.source);
        }
    }

    /// Whether an event of a source would pass, and whether the document names the source.
    pub(crate) fn standing(&self, source: &Arc<str>, severity: Severity) -> Standing {
        let (level, named) = self.level_of(source);
        Standing {
            passes: level.passes(severity),
            named,
        }
    }

    /// The level of a source, and whether the document names the source.
    pub(crate) fn level_of(&self, source: &Arc<str>) -> (Level, bool) {
        let lane = self
            .names
            .get(source)
            .and_then(|lane| self.lanes[*lane].as_ref());
        match lane {
            Some(lane) => (lane.level, self.levels.names(&lane.source)),
            None => {
                let source = name::encode(source);
                (self.levels.level(&source), self.levels.names(&source))
            }
        }
    }

    /// The levels in force.
    pub(crate) fn levels(&self) -> &Levels {
        &self.levels
    }

    /// Changes batch sizes and age; zero is raised to one.
    pub(crate) fn set_batching(&mut self, change: impl FnOnce(&mut QueueOptions)) {
        change(&mut self.options);
        self.options.batch_events = self.options.batch_events.max(1);
        self.options.batch_bytes = self.options.batch_bytes.max(1);
    }

    /// See [`set_outside`](Queue::set_outside).
    pub(crate) fn outside(&self) -> usize {
        self.outside
    }

    /// Bytes held elsewhere for events that left the queue; they count against the same cap.
    pub(crate) fn set_outside(&mut self, bytes: usize) {
        self.outside = bytes;
    }

    /// Makes sources that can wait do so, whatever room there is in memory.
    pub(crate) fn set_hold_patient(&mut self, hold: bool) {
        self.hold_patient = hold;
    }

    /// The gravest class of events here, but for those of sources that wait.
    pub(crate) fn gravest(&self) -> Option<usize> {
        let lanes = self.lanes.iter().flatten().filter(|lane| !lane.patient);
        lanes.filter_map(Lane::gravest).max()
    }

    /// Events that were durable had to go for graver ones; they were declared in their place.
    pub(crate) fn count_given_up(&mut self, events: u64) {
        self.counters.dropped += events;
    }

    /// Whether one who waits for room should try again.
    pub(crate) fn has_room(&self) -> bool {
        !self.hold_patient && self.bytes + self.outside <= self.options.memory_bytes / 2
    }

    /// What counts against the cap, bytes.
    fn used(&self) -> usize {
        self.bytes + self.outside + self.ring.as_ref().map_or(0, Ring::bytes)
    }

    /// Whether the worker is woken by every ERROR.
    pub(crate) fn set_hasten_errors(&mut self, hasten: bool) {
        self.hasten_errors = hasten;
    }

    /// Events of level ERROR so far.
    pub(crate) fn errors(&self) -> u64 {
        self.errors
    }

    /// Events and bytes queued here.
    pub(crate) fn depth(&self) -> (u64, usize) {
        (self.events, self.bytes)
    }

    /// Counts since the start.
    pub(crate) fn counters(&self) -> QueueCounters {
        self.counters
    }
}
