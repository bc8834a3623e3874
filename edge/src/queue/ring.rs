//! The ring of mode `on-error`: what is below its level is kept here, the newest of it, and goes when
//! an ERROR happens; for a while after that everything passes. It is part of the memory that the
//! queue may hold, and the first to give way: what was never meant to leave is no loss.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use thinglog_schemas::{Level, Severity};

use super::{
    Pushed, Queue, entry,
    lane::{CLASSES, class},
};
use crate::{clock, record::Record};

/// How the ring behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingOptions {
    /// What it may take, bytes.
    pub(crate) bytes: usize,
    /// How long everything passes after an ERROR.
    pub(crate) after: Duration,
}

/// Whether everything passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    No,
    /// An ERROR came; the clock has not been looked at since.
    Triggered,
    Until(Instant),
}

#[derive(Debug)]
pub(super) struct Ring {
    options: RingOptions,
    kept: VecDeque<(Record, usize)>,
    bytes: usize,
    open: Open,
}

impl Ring {
    fn forget_oldest(&mut self) -> bool {
        match self.kept.pop_front() {
            Some((_, cost)) => {
                self.bytes -= cost;
                true
            }
            None => false,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Starts and ends the time in which everything passes.
    pub(super) fn tick(&mut self, now: Instant) {
        match self.open {
            Open::Triggered => self.open = Open::Until(clock::after(now, self.options.after)),
            Open::Until(until) if until <= now => self.open = Open::No,
            Open::Until(_) | Open::No => {}
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.open {
            Open::Until(until) => Some(until),
            Open::Triggered | Open::No => None,
        }
    }
}

impl Queue {
    /// Begins or ends to keep a ring; what is in it is forgotten when it ends.
    pub(crate) fn set_ring(&mut self, options: Option<RingOptions>) {
        match (&mut self.ring, options) {
            (Some(ring), Some(options)) => {
                ring.options = options;
                self.forget_from_ring(|ring| ring.bytes > ring.options.bytes);
            }
            (ring @ None, Some(options)) => {
                *ring = Some(Ring {
                    options,
                    kept: VecDeque::new(),
                    bytes: 0,
                    open: Open::No,
                });
            }
            (_, None) => {
                self.forget_from_ring(|_| true);
                self.ring = None;
            }
        }
    }

    /// The most verbose level of anything that is of use here: with a ring that is DEBUG.
    pub(crate) fn wanted(&self) -> Level {
        match self.levels.most_verbose() {
            level if self.ring.is_none() || level == Level::Disabled => level,
            _ => Level::Debug,
        }
    }

    /// Whether an event goes on although its level says no.
    pub(super) fn is_around_an_error(&self, level: Level) -> bool {
        let ring = self.ring.as_ref();
        level != Level::Disabled && ring.is_some_and(|ring| ring.open != Open::No)
    }

    /// An event that is below the level of its source.
    pub(super) fn keep_in_ring(&mut self, mut record: Record, level: Level) -> Pushed {
        let Some(ring) = self.ring.as_mut().filter(|_| level != Level::Disabled) else {
            self.counters.filtered += 1;
            return Pushed::Filtered;
        };
        let cost = record.cut_to_limits();
        ring.bytes += cost;
        ring.kept.push_back((record, cost));
        self.forget_from_ring(|ring| ring.bytes > ring.options.bytes);
        let most = self.options.memory_bytes;
        let others = self.bytes + self.outside;
        self.forget_from_ring(|ring| others + ring.bytes > most);
        Pushed::Queued { wake: false }
    }

    /// Makes room for `cost` bytes of what is meant to leave.
    pub(super) fn squeeze_ring(&mut self, cost: usize, limit: usize) {
        let others = self.bytes + self.outside + cost;
        self.forget_from_ring(|ring| others + ring.bytes > limit);
    }

    /// What is in the ring, oldest first; `None` without one.
    pub(crate) fn ring_records(&self) -> Option<Vec<Record>> {
        let ring = self.ring.as_ref()?;
        let records = ring.kept.iter().map(|(record, _)| {
            let mut record = record.clone();
            record.unpack();
            record
        });
        Some(records.collect())
    }

    fn forget_from_ring(&mut self, too_much: impl Fn(&Ring) -> bool) {
        let Some(ring) = &mut self.ring else { return };
        while too_much(ring) && ring.forget_oldest() {
            self.counters.forgotten += 1;
        }
    }

    /// An event passed. When it is an ERROR, what is in the ring goes ahead of it. True when the worker
    /// should look.
    pub(super) fn trigger_ring(&mut self, severity: Severity) -> bool {
        if class(severity) < CLASSES - 1 {
            return false;
        }
        self.errors += 1;
        let Some(ring) = &mut self.ring else {
            return self.hasten_errors;
        };
        ring.open = Open::Triggered;
        let kept = std::mem::take(&mut ring.kept);
        ring.bytes = 0;
        // What was kept is less grave than much that is here.
        self.tight = None;
        for (mut record, cost) in kept {
            let (index, _) = self.lane_of(&mut record);
            self.counters.accepted += 1;
            self.bytes += cost;
            self.events += 1;
            if let Some(lane) = self.lanes[index].as_mut() {
                let monotonic = record.monotonic;
                lane.push(entry(record), cost, None, monotonic);
                self.arm(index);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use thinglog_schemas::batch::ClockInfo;

    use super::*;
    use crate::{levels::Levels, queue::QueueOptions};

    const MEMORY: usize = 64 << 10;
    const AFTER: Duration = Duration::from_secs(10);
    const CLOCK: ClockInfo = ClockInfo {
        boot: 1,
        sent_mono: 0,
        synced: true,
    };

    fn queue(level: Level, ring_bytes: usize) -> Queue {
        let options = QueueOptions {
            memory_bytes: MEMORY,
            batch_events: 10_000,
            batch_bytes: 1 << 20,
            flush_age: Duration::ZERO,
        };
        let mut queue = Queue::new(options, Levels::new(level), 7);
        queue.set_ring(Some(RingOptions {
            bytes: ring_bytes,
            after: AFTER,
        }));
        queue
    }

    fn record(severity: Severity, message: &str) -> Record {
        Record::new("app", severity, message)
    }

    fn debug(message: &str) -> Record {
        record(Severity::DEBUG, message)
    }

    /// What would leave now.
    fn leaves(queue: &mut Queue) -> Vec<String> {
        queue.start_flush();
        let mut messages = Vec::new();
        while let Some(cut) = queue.cut(None, CLOCK) {
            messages.extend(cut.batch.entries.into_iter().map(|entry| entry.message));
        }
        messages
    }

    #[test]
    fn what_is_below_its_level_leaves_ahead_of_an_error_and_for_a_while_after_it() {
        let mut queue = queue(Level::Warn, 16 << 10);
        let start = Instant::now();
        queue.tick(start);
        queue.push(debug("before"));
        queue.push_patient(record(Severity::INFO, "just before"));
        queue.push(record(Severity::WARN, "ordinary"));
        assert_eq!(leaves(&mut queue), ["ordinary"]);
        assert_eq!(
            queue.push(record(Severity::ERROR, "error")),
            Pushed::Queued { wake: true }
        );
        queue.push(debug("after"));
        assert_eq!(
            leaves(&mut queue),
            ["before", "just before", "error", "after"]
        );
        queue.tick(start);
        queue.tick(start + AFTER - Duration::from_millis(1));
        queue.push(debug("still"));
        assert_eq!(queue.deadline(), Some(start + AFTER));
        queue.tick(start + AFTER);
        queue.push(debug("no more"));
        assert_eq!(leaves(&mut queue), ["still"]);
    }

    #[test]
    fn the_newest_stay_within_the_rings_bytes_and_the_others_count_as_filtered() {
        let mut queue = queue(Level::Warn, 8 << 10);
        for number in 0..100 {
            queue.push(debug(&format!("{number:02} {}", "x".repeat(500))));
        }
        let kept = 100 - queue.counters().forgotten;
        assert!((10..16).contains(&kept), "{kept}");
        queue.push(record(Severity::ERROR, "error"));
        let left = leaves(&mut queue);
        let oldest = format!("{:02}", 100 - kept);
        assert!(left[0].starts_with(&oldest) && left.len() as u64 == kept + 1);
        assert_eq!(queue.counters().dropped, 0);
        assert_eq!(queue.counters().accepted, kept + 1);
    }

    #[test]
    fn the_ring_gives_way_to_what_is_meant_to_leave() {
        let mut queue = queue(Level::Warn, MEMORY);
        let text = "x".repeat(1000);
        for _ in 0..100 {
            queue.push(debug(&text));
            assert!(queue.used() <= MEMORY);
        }
        let mut taken = 0;
        while queue.counters().dropped == 0 {
            queue.push(record(Severity::WARN, &text));
            assert!(queue.used() <= MEMORY);
            taken += 1;
        }
        assert!(taken > MEMORY / 1300, "{taken}");
    }

    #[test]
    fn a_disabled_source_keeps_nothing_and_a_ring_that_ends_forgets() {
        let mut disabled = queue(Level::Disabled, 8 << 10);
        assert_eq!(disabled.push(debug("off")), Pushed::Filtered);
        assert_eq!(disabled.wanted(), Level::Disabled);
        let mut queue = queue(Level::Warn, 8 << 10);
        assert_eq!(queue.wanted(), Level::Debug);
        queue.push(debug("kept"));
        queue.set_ring(None);
        assert_eq!(queue.wanted(), Level::Warn);
        queue.push(record(Severity::ERROR, "error"));
        assert_eq!(leaves(&mut queue), ["error"]);
        assert_eq!(queue.counters().forgotten, 1);
    }

    #[test]
    fn what_leaves_the_ring_may_need_the_lane_that_the_error_was_meant_for() {
        let mut queue = queue(Level::Warn, MEMORY / 2);
        for number in 0..super::super::MAX_LANES {
            let mut one = debug("m");
            one.source = format!("source-{number}").into();
            one.severity = Severity::WARN;
            queue.push(one);
        }
        leaves(&mut queue);
        let mut stranger = debug("from a new source");
        stranger.source = "stranger".into();
        queue.push(stranger);
        let mut error = record(Severity::ERROR, "error");
        error.source = "source-0".into();
        queue.push(error);
        let left = leaves(&mut queue);
        assert!(left.contains(&"error".to_owned()), "{left:?}");
        assert!(left.contains(&"from a new source".to_owned()), "{left:?}");
    }
}
