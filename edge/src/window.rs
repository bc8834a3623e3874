//! The batches between "handed to the connection" and "released": sent in order, acknowledged in
//! any order, released in order. After a reconnect everything unacknowledged goes out again, in the
//! same order, as the same bytes. Pure.

use std::collections::VecDeque;

use crate::sealed::Sealed;

/// What stands in the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The batch.
    pub(crate) sealed: Sealed,
    /// The spool may release everything below this once the slot is done; `None` when the batch
    /// never was on disk or when it shares its record with a later slot.
    pub(crate) release: Option<u64>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    /// Handed to the connection as its nth batch; it has not said yet which packet id it took.
    Handed(u64),
    Sent(u16),
    Done,
}

/// The window. Its limit counts from the oldest unacknowledged batch, not the unacknowledged ones:
/// so two packets of one connection never need the same packet id.
#[derive(Debug)]
pub(crate) struct Window {
    slots: VecDeque<Slot>,
    limit: usize,
    /// Payload bytes of all slots.
    bytes: usize,
    /// Batches ever handed to a connection.
    handed: u64,
}

impl Window {
    /// At most `limit` batches (at least one).
    pub(crate) fn new(limit: usize) -> Window {
        Window {
            slots: VecDeque::new(),
            limit: limit.max(1),
            bytes: 0,
            handed: 0,
        }
    }

    /// Whether another batch may enter.
    pub(crate) fn has_room(&self) -> bool {
        self.slots.len() < self.limit
    }

    /// Nothing is unacknowledged.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Events and payload bytes inside.
    pub(crate) fn depth(&self) -> (u64, usize) {
        let unacknowledged = self.slots.iter().filter(|slot| slot.state != State::Done);
        let events = unacknowledged.map(|slot| u64::from(slot.sealed.events));
        (events.sum(), self.bytes)
    }

    /// Appends a batch. The caller looks at [`has_room`](Window::has_room); the pieces of a split
    /// batch may go over the limit together.
    pub(crate) fn push(&mut self, sealed: Sealed, release: Option<u64>) {
        self.bytes += sealed.payload.len();
        self.slots.push_back(Slot {
            sealed,
            release,
            state: State::Waiting,
        });
    }

    /// The next batch to send while at most `limit` are between the oldest unacknowledged one and
    /// it (the server's receive maximum).
    pub(crate) fn next_waiting(&self, limit: usize) -> Option<&Sealed> {
        let reach = self.slots.iter().take(limit.max(1));
        reach
            .into_iter()
            .find(|slot| slot.state == State::Waiting)
            .map(|slot| &slot.sealed)
    }

    /// The batch of [`next_waiting`](Window::next_waiting) was handed to the connection.
    pub(crate) fn handed(&mut self) {
        let nth = self.handed;
        if let Some(slot) = self.find(State::Waiting) {
            slot.state = State::Handed(nth);
            self.handed += 1;
        }
    }

    /// The batch of [`next_waiting`](Window::next_waiting) cannot be sent as it is: others take its
    /// place, in order. The last of them inherits what it releases.
    pub(crate) fn replace_waiting(&mut self, with: VecDeque<Sealed>) {
        let waiting = |slot: &Slot| slot.state == State::Waiting;
        let Some(at) = self.slots.iter().position(waiting) else {
            return;
        };
        self.replace_at(at, with);
    }

    fn replace_at(&mut self, at: usize, with: VecDeque<Sealed>) {
        let Some(old) = self.slots.remove(at) else {
            return;
        };
        self.bytes -= old.sealed.payload.len();
        let count = with.len();
        for (i, sealed) in with.into_iter().enumerate() {
            self.bytes += sealed.payload.len();
            let slot = Slot {
                sealed,
                release: old.release.filter(|_| i + 1 == count),
                state: State::Waiting,
            };
            self.slots.insert(at + i, slot);
        }
    }

    /// The connection took `pkid` for the oldest batch handed to it.
    pub(crate) fn assigned(&mut self, pkid: u16) {
        let order = |slot: &&mut Slot| match slot.state {
            State::Handed(nth) => nth,
            _ => u64::MAX,
        };
        let oldest = self.slots.iter_mut().min_by_key(order);
        if let Some(slot) = oldest
            && matches!(slot.state, State::Handed(_))
        {
            slot.state = State::Sent(pkid);
        }
    }

    /// `pkid` was acknowledged. False when no batch has that id.
    pub(crate) fn acknowledged(&mut self, pkid: u16) -> bool {
        let slot = self.find(State::Sent(pkid));
        let known = slot.is_some();
        if let Some(slot) = slot {
            slot.state = State::Done;
        }
        known
    }

    /// `pkid` was refused for now: it waits to be sent again, before anything that is not yet sent.
    pub(crate) fn refused(&mut self, pkid: u16) -> Option<&Sealed> {
        let slot = self.find(State::Sent(pkid))?;
        slot.state = State::Waiting;
        Some(&slot.sealed)
    }

    /// The batch that has `pkid`.
    pub(crate) fn sent(&self, pkid: u16) -> Option<&Sealed> {
        let mut slots = self.slots.iter();
        let slot = slots.find(|slot| slot.state == State::Sent(pkid))?;
        Some(&slot.sealed)
    }

    /// `pkid` was refused for good: `with` takes its place.
    pub(crate) fn replace_sent(&mut self, pkid: u16, with: Sealed) {
        let sent = |slot: &Slot| slot.state == State::Sent(pkid);
        if let Some(at) = self.slots.iter().position(sent) {
            self.replace_at(at, VecDeque::from([with]));
        }
    }

    /// The connection is gone: everything unacknowledged waits again.
    pub(crate) fn reset(&mut self) {
        for slot in &mut self.slots {
            if slot.state != State::Done {
                slot.state = State::Waiting;
            }
        }
    }

    /// Takes out the oldest batch when it is done.
    pub(crate) fn pop_done(&mut self) -> Option<Slot> {
        if self.slots.front()?.state != State::Done {
            return None;
        }
        let slot = self.slots.pop_front()?;
        self.bytes -= slot.sealed.payload.len();
        Some(slot)
    }

    fn find(&mut self, state: State) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.state == state)
    }
}
