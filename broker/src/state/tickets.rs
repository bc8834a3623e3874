//! What waits to be stored, and what became of it.

use std::{
    collections::VecDeque,
    ops::RangeInclusive,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::change::Changes;

/// Remembered ranges of failed tickets; adjacent ones are one.
const FAILURES: usize = 1024;

/// Whether a change is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Pending,
    Stored,
    Failed,
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    /// The latest value of each changed key. Bounded by the keys there can be.
    pub(super) changes: Changes,
    /// Ticket of the newest change.
    pub(super) newest: u64,
    /// Number of the latest request for every entry there is, see [`Shared::incomplete`].
    pub(super) request: u64,
    /// Every entry was given for that request, up to this ticket.
    pub(super) everything: Option<u64>,
    pub(super) closed: bool,
}

/// Between those who change the state and the thread that writes it.
pub(super) struct Shared {
    pub(super) pending: Mutex<Pending>,
    pub(super) wake: Condvar,
    /// Every ticket up to this one is decided.
    settled_to: AtomicU64,
    /// Tells of it. Not asked for it: whoever waits for a change holds its lock while it decides.
    pub(super) settled: watch::Sender<u64>,
    /// For those who wait for that in a thread.
    pub(super) decided: Mutex<()>,
    pub(super) decision: Condvar,
    failures: Mutex<Failures>,
    /// Whether what needs new room may be taken.
    pub(super) accepts: AtomicBool,
    /// What is on disk does not make up the state: those who have it must give all of it again.
    pub(super) incomplete: AtomicBool,
    pub(super) figures: Figures,
}

/// Counts, from opening.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) failed_groups: AtomicU64,
    pub(super) damaged: AtomicU64,
    pub(super) images: AtomicU64,
    pub(super) log_bytes: AtomicU64,
}

impl Shared {
    pub(super) fn new() -> Shared {
        Shared {
            pending: Mutex::default(),
            wake: Condvar::new(),
            settled_to: AtomicU64::new(0),
            settled: watch::Sender::new(0),
            decided: Mutex::default(),
            decision: Condvar::new(),
            failures: Mutex::default(),
            accepts: AtomicBool::new(true),
            incomplete: AtomicBool::new(false),
            figures: Figures::default(),
        }
    }

    pub(super) fn outcome(&self, ticket: u64) -> Outcome {
        if self.settled_to.load(Ordering::Acquire) < ticket {
            Outcome::Pending
        } else if self.failures.lock().contains(ticket) {
            Outcome::Failed
        } else {
            Outcome::Stored
        }
    }

    /// Decides the tickets of a group.
    pub(super) fn settle(&self, tickets: RangeInclusive<u64>, stored: bool) {
        let newest = *tickets.end();
        if !stored && !tickets.is_empty() {
            self.figures.failed_groups.fetch_add(1, Ordering::Relaxed);
            self.failures.lock().push(tickets);
        }
        self.settled_to.store(newest, Ordering::Release);
        self.settled.send_replace(newest);
        drop(self.decided.lock());
        self.decision.notify_all();
    }
}

#[derive(Debug, Default)]
struct Failures {
    ranges: VecDeque<RangeInclusive<u64>>,
    /// Failures up to this ticket may have been forgotten.
    forgotten: u64,
}

impl Failures {
    fn push(&mut self, tickets: RangeInclusive<u64>) {
        if let Some(last) = self.ranges.back_mut()
            && *last.end() + 1 == *tickets.start()
        {
            *last = *last.start()..=*tickets.end();
            return;
        }
        self.ranges.push_back(tickets);
        if self.ranges.len() > FAILURES
            && let Some(oldest) = self.ranges.pop_front()
        {
            self.forgotten = *oldest.end();
        }
    }

    /// A failure that may have been forgotten counts as one: to be told so wrongly makes a client
    /// repeat, to be told otherwise would lose.
    fn contains(&self, ticket: u64) -> bool {
        let at = self.ranges.partition_point(|range| *range.end() < ticket);
        ticket <= self.forgotten
            || self
                .ranges
                .get(at)
                .is_some_and(|range| range.contains(&ticket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_ticket_is_never_called_stored() {
        let shared = Shared::new();
        for n in 0..2 * FAILURES as u64 {
            shared.settle(2 * n + 1..=2 * n + 1, false);
            shared.settle(2 * n + 2..=2 * n + 2, true);
        }
        for n in 0..2 * FAILURES as u64 {
            assert_eq!(shared.outcome(2 * n + 1), Outcome::Failed);
        }
        assert_eq!(shared.outcome(4 * FAILURES as u64), Outcome::Stored);
        assert_eq!(shared.outcome(4 * FAILURES as u64 + 1), Outcome::Pending);
    }

    #[test]
    fn adjacent_failures_are_one() {
        let mut failures = Failures::default();
        failures.push(3..=4);
        failures.push(5..=9);
        assert_eq!(failures.ranges, [3..=9]);
        assert!(!failures.contains(2) && failures.contains(9) && !failures.contains(10));
    }
}
