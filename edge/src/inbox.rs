//! Events on their way into the queue: a ring with a fixed number of places, which any thread writes
//! without a lock, in order, and which is capped in bytes too. Nothing here waits.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crossbeam_queue::ArrayQueue;

use crate::record::Record;

/// Most places there are.
const MOST_PLACES: usize = 512;
/// What a place takes, bytes.
const PLACE: usize = size_of::<(Record, usize)>() + size_of::<usize>();

/// Events with what they cost.
pub(crate) struct Inbox {
    events: ArrayQueue<(Record, usize)>,
    /// What is in there, or is about to be, or has just been taken: a [`Load`].
    load: AtomicU64,
    bytes: usize,
}

/// What became of an event.
#[derive(Debug, PartialEq)]
pub(crate) enum Offered {
    /// It is in there; so much is there with it.
    Left(Load),
    /// No room.
    Full(Record),
}

/// How many events, and bytes of them: in one word, so that both are known at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load(u64);

impl Load {
    const BYTES: u32 = 40;

    fn of(cost: usize) -> Load {
        Load((1 << Load::BYTES) + cost as u64)
    }

    fn and(self, other: Load) -> Load {
        Load(self.0 + other.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.events() == 0
    }

    pub(crate) fn events(self) -> usize {
        (self.0 >> Load::BYTES) as usize
    }

    pub(crate) fn bytes(self) -> usize {
        (self.0 & ((1 << Load::BYTES) - 1)) as usize
    }
}

impl Inbox {
    /// Takes at most `bytes`, its places included; always a few of them.
    pub(crate) fn new(bytes: usize) -> Inbox {
        let places = (bytes / 4 / PLACE).clamp(8, MOST_PLACES);
        Inbox {
            events: ArrayQueue::new(places),
            load: AtomicU64::new(0),
            bytes: bytes.saturating_sub(places * PLACE),
        }
    }

    /// Takes an event in when there is room; else gives it back.
    pub(crate) fn offer(&self, record: Record, cost: usize) -> Offered {
        let one = Load::of(cost);
        let load = Load(self.load.fetch_add(one.0, SeqCst)).and(one);
        if load.events() <= self.events.capacity() && load.bytes() <= self.bytes {
            match self.events.push((record, cost)) {
                Ok(()) => return Offered::Left(load),
                Err((back, _)) => {
                    self.taken(one);
                    return Offered::Full(back);
                }
            }
        }
        self.taken(one);
        Offered::Full(record)
    }

    /// Whether an event would fit if nothing else were there.
    pub(crate) fn could_hold(&self, cost: usize) -> bool {
        cost <= self.bytes
    }

    #[cfg(test)]
    pub(crate) fn places(&self) -> usize {
        self.events.capacity()
    }

    /// What is there.
    pub(crate) fn load(&self) -> Load {
        Load(self.load.load(SeqCst))
    }

    /// Hands the oldest events to `take`, at most `most`. For one thread at a time, which keeps them in
    /// order.
    pub(crate) fn take(&self, most: usize, mut take: impl FnMut(Record, usize)) {
        let mut taken = Load::default();
        while taken.events() < most
            && let Some((record, cost)) = self.events.pop()
        {
            taken = taken.and(Load::of(cost));
            take(record, cost);
        }
        if !taken.is_empty() {
            self.taken(taken);
        }
    }

    fn taken(&self, load: Load) {
        self.load.fetch_sub(load.0, SeqCst);
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
            let offered = inbox.offer(record(number), 100 * number);
            assert_eq!(offered, Offered::Left(inbox.load()));
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
        while let Offered::Left(_) = inbox.offer(record(offered), 1) {
            offered += 1;
        }
        assert_eq!(offered, MOST_PLACES);
        assert_eq!(
            inbox.offer(record("back"), 1),
            Offered::Full(record("back"))
        );
        assert_eq!(inbox.load().events(), MOST_PLACES);

        let small = Inbox::new(8 << 10);
        assert!(small.bytes < 8 << 10 && small.could_hold(small.bytes));
        assert!(!small.could_hold(small.bytes + 1));
        let left = |offered| matches!(offered, Offered::Left(_));
        assert!(left(small.offer(record("large"), small.bytes)));
        assert!(!left(small.offer(record("more"), 1)));
        assert_eq!(small.load().bytes(), small.bytes);
        assert_eq!(taken(&small, 1), ["large"]);
        assert!(left(small.offer(record("more"), 1)));
    }
}
