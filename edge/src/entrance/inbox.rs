//! Events on their way into the queue: a ring with a fixed number of places, capped in bytes too. Any
//! thread leaves an event there without waiting: it takes a ticket, and the place of its ticket is its own
//! until somebody takes the event out. One thread at a time does that, in the order of tickets. It stops
//! where somebody has a ticket and has not left the event yet (a hole); who was stopped by the system just
//! there looks after what it held up as soon as it goes on.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};

use parking_lot::Mutex;

use crate::record::Record;

/// Most places there are; a power of two, as all numbers of places.
const MOST_PLACES: usize = 1024;
const FEWEST_PLACES: usize = 8;

/// Events with what they cost.
pub(super) struct Inbox {
    front: Front,
    /// The ticket that is taken out next.
    next: AtomicU64,
    places: Box<[Place]>,
    bytes: usize,
}

/// What everybody who leaves an event writes: one line of a processor's cache.
#[repr(align(64))]
#[derive(Default)]
struct Front {
    /// What is in there, or is about to be: a [`Load`].
    load: AtomicU64,
    /// The ticket that is given next.
    tickets: AtomicU64,
}

/// Used by one thread at a time: its lock is never waited for.
#[derive(Default)]
struct Place {
    is_full: AtomicBool,
    event: Mutex<Option<(Record, usize)>>,
}

/// The right to one place.
#[derive(Debug)]
pub(super) struct Ticket(u64);

/// How many events, and bytes of them: in one word, so that both are known at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load(u64);

impl Load {
    const BYTES: u32 = 40;

    fn of(cost: usize) -> Load {
        Load((1 << Load::BYTES) + cost as u64)
    }

    pub(super) fn is_empty(self) -> bool {
        self.events() == 0
    }

    pub(super) fn events(self) -> usize {
        (self.0 >> Load::BYTES) as usize
    }

    pub(super) fn bytes(self) -> usize {
        (self.0 & ((1 << Load::BYTES) - 1)) as usize
    }
}

impl Inbox {
    /// Takes at most `bytes`, its places included; always a few of them.
    pub(super) fn new(bytes: usize) -> Inbox {
        let fit = (bytes / 4 / size_of::<Place>()).clamp(FEWEST_PLACES, MOST_PLACES);
        let places = 1 << fit.ilog2();
        Inbox {
            front: Front::default(),
            next: AtomicU64::new(0),
            places: (0..places).map(|_| Place::default()).collect(),
            bytes: bytes.saturating_sub(places * size_of::<Place>()),
        }
    }

    /// Takes an event in when there is room; else gives it back.
    pub(super) fn offer(&self, record: Record, cost: usize) -> Option<Record> {
        match self.ticket(cost) {
            Some(ticket) => {
                self.leave(ticket, record, cost);
                None
            }
            None => Some(record),
        }
    }

    /// A place for an event, if there is one. Who has one leaves an event there.
    pub(super) fn ticket(&self, cost: usize) -> Option<Ticket> {
        if !self.could_hold(cost) {
            return None;
        }
        let one = Load::of(cost).0;
        let load = Load(self.front.load.fetch_add(one, SeqCst) + one);
        if load.events() > self.places.len() || load.bytes() > self.bytes {
            self.front.load.fetch_sub(one, SeqCst);
            return None;
        }
        Some(Ticket(self.front.tickets.fetch_add(1, SeqCst)))
    }

    /// Leaves the event for which there is a ticket.
    pub(super) fn leave(&self, Ticket(number): Ticket, record: Record, cost: usize) {
        // No more tickets are out than there are places: who had this one before is done with it.
        let place = self.place(number);
        *place.event.lock() = Some((record, cost));
        place.is_full.store(true, Release);
    }

    fn place(&self, number: u64) -> &Place {
        &self.places[number as usize & (self.places.len() - 1)]
    }

    /// Whether an event would fit if nothing else were there.
    pub(super) fn could_hold(&self, cost: usize) -> bool {
        cost <= self.bytes
    }

    /// Whether an event would fit now.
    pub(super) fn has_room(&self, cost: usize) -> bool {
        let load = self.load();
        load.events() < self.places.len() && load.bytes() + cost <= self.bytes
    }

    /// What it takes at most: events, and bytes of them.
    pub(super) fn most(&self) -> (usize, usize) {
        (self.places.len(), self.bytes)
    }

    /// What is there, or is about to be.
    pub(super) fn load(&self) -> Load {
        Load(self.front.load.load(SeqCst))
    }

    /// Whether an event can be taken out now.
    pub(super) fn is_ready(&self) -> bool {
        let next = self.next.load(Relaxed);
        self.place(next).is_full.load(Acquire)
    }

    /// The ticket behind all that were given.
    pub(super) fn end(&self) -> u64 {
        self.front.tickets.load(SeqCst)
    }

    /// How many tickets before this one were given and their events not taken out yet.
    pub(super) fn before(&self, end: u64) -> usize {
        end.saturating_sub(self.next.load(Relaxed)) as usize
    }

    /// Hands the oldest events to `take`, at most `most`, up to a hole. For one thread at a time.
    pub(super) fn take(&self, most: usize, mut take: impl FnMut(Record, usize)) {
        for _ in 0..most {
            let next = self.next.load(Relaxed);
            let place = self.place(next);
            if !place.is_full.load(Acquire) {
                return;
            }
            let event = place.event.lock().take();
            place.is_full.store(false, Relaxed);
            self.next.store(next + 1, Relaxed);
            if let Some((record, cost)) = event {
                // The place may be another's from now on.
                self.front.load.fetch_sub(Load::of(cost).0, SeqCst);
                take(record, cost);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use thinglog_schemas::Severity;

    use super::*;

    fn record(message: impl ToString) -> Record {
        Record::new("app", Severity::INFO, message.to_string())
    }

    fn taken(inbox: &Inbox, most: usize) -> Vec<String> {
        let mut messages = Vec::new();
        inbox.take(most, |record, _| messages.push(record.message));
        messages
    }

    #[test]
    fn what_is_offered_comes_out_in_order_and_the_load_says_how_much_it_is() {
        let inbox = Inbox::new(1 << 20);
        for number in 1..=3 {
            assert_eq!(inbox.offer(record(number), 100 * number), None);
            assert_eq!(inbox.load().events(), number);
        }
        assert_eq!(inbox.load().bytes(), 600);
        assert_eq!(taken(&inbox, 2), ["1", "2"]);
        assert_eq!((inbox.load().events(), inbox.load().bytes()), (1, 300));
        assert_eq!(taken(&inbox, 2), ["3"]);
        assert!(inbox.load().is_empty() && taken(&inbox, 2).is_empty());
    }

    #[test]
    fn neither_its_places_nor_its_bytes_are_exceeded_and_what_does_not_fit_comes_back() {
        let inbox = Inbox::new(1 << 20);
        let mut offered = 0;
        while inbox.offer(record(offered), 1).is_none() {
            offered += 1;
        }
        assert_eq!(offered, inbox.most().0);
        assert_eq!(inbox.offer(record("back"), 1), Some(record("back")));
        assert_eq!(inbox.load().events(), offered);

        let small = Inbox::new(8 << 10);
        assert!(small.bytes < 8 << 10 && small.could_hold(small.bytes));
        assert!(small.offer(record("large"), small.bytes + 1).is_some());
        assert!(small.load().is_empty());
        assert!(small.offer(record("large"), small.bytes).is_none());
        assert!(small.offer(record("more"), 1).is_some());
        assert_eq!(small.load().bytes(), small.bytes);
        assert_eq!(taken(&small, 1), ["large"]);
        assert!(small.offer(record("more"), 1).is_none());
    }

    #[test]
    fn nothing_passes_a_hole() {
        let inbox = Inbox::new(1 << 20);
        let ticket = inbox.ticket(10).unwrap();
        assert_eq!(inbox.offer(record("second"), 10), None);
        assert_eq!((inbox.load().events(), inbox.is_ready()), (2, false));
        assert!(taken(&inbox, 9).is_empty());
        assert_eq!(inbox.before(inbox.end()), 2);
        inbox.leave(ticket, record("first"), 10);
        assert!(inbox.is_ready());
        assert_eq!(taken(&inbox, 9), ["first", "second"]);
        assert_eq!((inbox.before(inbox.end()), inbox.is_ready()), (0, false));
    }

    #[test]
    fn places_are_used_over_and_over() {
        let inbox = Inbox::new(8 << 10);
        let mut seen = Vec::new();
        for number in 0..1000 {
            assert_eq!(inbox.offer(record(number), 1), None);
            if number % 5 == 4 {
                seen.extend(taken(&inbox, 5));
            }
        }
        let all: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
        assert_eq!(seen, all);
    }
}
