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
        for (mut record, cost) in kept {
            let index = self.lane_of(&mut record);
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
