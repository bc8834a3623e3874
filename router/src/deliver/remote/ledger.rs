//! What is in hand and what has become of it: a ticket for each chunk, in the order they were taken.
//!
//! A ticket is settled when nothing of its chunk is left; a commit waits for all tickets up to its
//! own. Settling happens in any order, so that one slow request holds up commits but not other
//! requests. The memory of a chunk is free again when its ticket is settled.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::deliver::Settlement;

/// The tickets of one destination.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the first ticket that no commit stands for.
    first: u64,
    open: VecDeque<Ticket>,
    /// Bytes of tickets that are not settled.
    used: usize,
    /// Why nothing is settled any more.
    failed: Option<String>,
    /// Nothing has to be waited for: the destination comes to its end.
    ending: bool,
}

#[derive(Debug)]
struct Ticket {
    left: usize,
    weight: usize,
    /// When the broker received the oldest of its events, ns since the Unix epoch.
    received: u64,
    settlement: Settlement,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Accepted,
    /// The service had it before.
    Duplicate,
    /// It is among the dead letters, or lost for want of room there.
    Refused,
}

impl Ledger {
    /// Takes a chunk into hand; waits while more than `room` bytes would be used. One chunk is always
    /// taken, and after the end has begun nobody waits. `received`: of its oldest event, ns.
    pub(crate) fn take(&self, events: usize, weight: usize, received: u64, room: usize) -> u64 {
        let mut state = self.state.lock();
        while state.used > 0 && state.used + weight > room && !state.ending {
            self.changed.wait(&mut state);
        }
        let weight = if events == 0 { 0 } else { weight };
        state.used += weight;
        state.open.push_back(Ticket {
            left: events,
            weight,
            received,
            settlement: Settlement::default(),
        });
        state.first + state.open.len() as u64 - 1
    }

    /// The ticket that the next chunk gets.
    pub(crate) fn taken(&self) -> u64 {
        let state = self.state.lock();
        state.first + state.open.len() as u64
    }

    /// Notes what became of events of these tickets.
    pub(crate) fn settle(&self, tickets: impl IntoIterator<Item = u64>, fate: Fate) {
        let mut state = self.state.lock();
        let mut ended = false;
        for number in tickets {
            ended |= state.settle(number, fate);
        }
        drop(state);
        if ended {
            self.changed.notify_all();
        }
    }

    /// Waits until every ticket before `through` is settled; gives what became of their events.
    pub(crate) fn wait(&self, through: u64) -> io::Result<Settlement> {
        let mut state = self.state.lock();
        let mut settlement = Settlement::default();
        while state.first < through {
            match state.open.front() {
                Some(ticket) if ticket.left == 0 => {
                    settlement.add(ticket.settlement);
                    state.open.pop_front();
                    state.first += 1;
                }
                _ => {
                    if let Some(reason) = state.failed.clone() {
                        return Err(io::Error::other(reason));
                    }
                    self.changed.wait(&mut state);
                }
            }
        }
        Ok(settlement)
    }

    /// Nothing is settled any more; the first reason counts.
    pub(crate) fn fail(&self, reason: impl Into<String>) {
        let mut state = self.state.lock();
        state.ending = true;
        state.failed.get_or_insert(reason.into());
        drop(state);
        self.changed.notify_all();
    }

    /// The end has begun: whoever waits for room goes on.
    pub(crate) fn end(&self) {
        self.state.lock().ending = true;
        self.changed.notify_all();
    }

    /// Why nothing is settled any more, if so.
    pub(crate) fn failure(&self) -> Option<String> {
        self.state.lock().failed.clone()
    }

    /// When the broker received the oldest event that is not settled, ns since the Unix epoch.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let state = self.state.lock();
        let open = state.open.iter().find(|ticket| ticket.left > 0);
        open.map(|ticket| ticket.received)
    }

    /// Bytes of events in hand.
    pub(crate) fn used(&self) -> usize {
        self.state.lock().used
    }
}

impl State {
    /// Says whether the ticket is settled now.
    fn settle(&mut self, number: u64, fate: Fate) -> bool {
        let at = number.checked_sub(self.first).map(|at| at as usize);
        let Some(ticket) = at.and_then(|at| self.open.get_mut(at)) else {
            return false;
        };
        match fate {
            Fate::Accepted => ticket.settlement.delivered += 1,
            Fate::Duplicate => ticket.settlement.duplicate += 1,
            Fate::Refused => ticket.settlement.rejected += 1,
        }
        ticket.left = ticket.left.saturating_sub(1);
        if ticket.left == 0 {
            self.used -= std::mem::take(&mut ticket.weight);
        }
        ticket.left == 0
    }
}

/// Whatever ends the sender's thread: nobody may wait for it for ever.
pub(crate) struct FailOnDrop(pub(crate) Arc<Ledger>);

impl Drop for FailOnDrop {
    fn drop(&mut self) {
        self.0.fail("the sender has ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_stands_for_what_was_taken_before_it() {
        let ledger = Ledger::default();
        let first = ledger.take(2, 10, 0, 100);
        let through = ledger.taken();
        let second = ledger.take(1, 10, 0, 100);
        ledger.settle([second], Fate::Accepted);
        ledger.settle([first], Fate::Refused);
        ledger.settle([first], Fate::Duplicate);
        let settlement = ledger.wait(through).unwrap();
        let expected = Settlement {
            delivered: 0,
            duplicate: 1,
            rejected: 1,
        };
        assert_eq!(settlement, expected);
        assert_eq!(ledger.wait(ledger.taken()).unwrap().delivered, 1);
        assert_eq!(ledger.used(), 0);
    }

    #[test]
    fn what_is_not_settled_is_not_committed() {
        let ledger = Ledger::default();
        let first = ledger.take(1, 10, 0, 100);
        ledger.take(1, 10, 0, 100);
        ledger.settle([first], Fate::Accepted);
        ledger.fail("stopped");
        assert_eq!(ledger.wait(1).unwrap().delivered, 1);
        assert_eq!(ledger.wait(2).unwrap_err().to_string(), "stopped");
    }

    #[test]
    fn room_is_waited_for_and_one_chunk_always_fits() {
        let ledger = Arc::new(Ledger::default());
        let large = ledger.take(1, 1000, 0, 100);
        let other = Arc::clone(&ledger);
        let waiting = std::thread::spawn(move || other.take(1, 50, 0, 100));
        ledger.settle([large], Fate::Accepted);
        assert_eq!(waiting.join().unwrap(), 1);
        assert_eq!(ledger.used(), 50);
    }
}
