//! The way of events into the queue. Whoever emits never waits for the queue's lock while there is
//! room in the inbox: an event that finds the lock taken is left there, in order, and whoever has the
//! lock takes in what was left before and after its own work. So neither the worker, which holds the
//! lock for as long as it takes to cut a batch, nor a thread that the system stopped while it had
//! the lock holds up another one.
//!
//! Nothing is forgotten in the inbox: who leaves an event looks at the lock once more, and who
//! releases the lock looks into the inbox once more. One of the two sees the other (both stand on
//! either side of a fence). Who has done its share and still finds something wakes the worker.

use std::{
    collections::VecDeque,
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst, fence},
    },
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::{
    queue::{Pushed, Queue},
    record::Record,
};

/// Events taken out of the inbox at a time.
const HANDFUL: usize = 16;
/// What one who emits takes in for others, about.
const SHARE: usize = 32;
/// Places in the inbox that are kept when it is empty.
const KEPT: usize = 256;

/// What of the memory for events is the inbox's, bytes.
pub(crate) const fn inbox_bytes(memory_bytes: usize) -> usize {
    let share = memory_bytes / 8;
    if share < 1 << 20 { share } else { 1 << 20 }
}

/// The queue, its lock and its inbox.
pub(crate) struct Entrance {
    queue: Mutex<Queue>,
    inbox: Mutex<Inbox>,
    /// Events in the inbox.
    waiting: AtomicUsize,
    /// The worker has something to do.
    wake: Arc<Notify>,
}

/// Events that found the lock taken, with what they cost, in order.
struct Inbox {
    events: VecDeque<(Record, usize)>,
    bytes: usize,
    limit: usize,
}

impl Inbox {
    /// Takes an event when there is room, else gives it back.
    fn offer(&mut self, record: Record, cost: usize) -> Option<Record> {
        if self.bytes + cost > self.limit {
            return Some(record);
        }
        self.bytes += cost;
        self.events.push_back((record, cost));
        None
    }

    fn take(&mut self) -> Option<(Record, usize)> {
        let (record, cost) = self.events.pop_front()?;
        self.bytes -= cost;
        Some((record, cost))
    }

    /// A burst must not keep its memory for ever.
    fn give_back_memory(&mut self) {
        if self.events.is_empty() {
            self.events.shrink_to(KEPT);
        }
    }
}

impl Entrance {
    /// Before `queue` lies an inbox of `inbox_bytes`. `wake` is for the worker.
    pub(crate) fn new(queue: Queue, inbox_bytes: usize, wake: Arc<Notify>) -> Entrance {
        Entrance {
            queue: Mutex::new(queue),
            inbox: Mutex::new(Inbox {
                events: VecDeque::new(),
                bytes: 0,
                limit: inbox_bytes,
            }),
            waiting: AtomicUsize::new(0),
            wake,
        }
    }

    /// The queue with everything in it that was emitted before.
    pub(crate) fn lock(&self) -> Locked<'_> {
        let mut locked = self.locked(self.queue.lock(), true);
        let waiting = self.waiting.load(SeqCst);
        if waiting > 0 {
            locked.take_in(waiting);
            self.inbox.lock().give_back_memory();
        }
        locked
    }

    /// Queues an event that costs `cost` bytes and that its source will not repeat; see
    /// [`Queue::push_weighed`].
    pub(crate) fn push(&self, record: Record, cost: usize) {
        if self.waiting.load(SeqCst) == 0
            && let Some(queue) = self.queue.try_lock()
        {
            self.locked(queue, true).push(record, cost);
            return;
        }
        let full = {
            let mut inbox = self.inbox.lock();
            let full = inbox.offer(record, cost);
            self.waiting.store(inbox.events.len(), SeqCst);
            full
        };
        if let Some(record) = full {
            self.lock().push(record, cost);
            return;
        }
        fence(SeqCst);
        if let Some(queue) = self.queue.try_lock() {
            self.locked(queue, true).take_in(SHARE);
        }
    }

    fn locked<'a>(&'a self, queue: MutexGuard<'a, Queue>, again: bool) -> Locked<'a> {
        Locked {
            queue,
            after: After {
                entrance: self,
                wake: false,
                again,
            },
        }
    }
}

/// The queue, for one thread at a time.
pub(crate) struct Locked<'a> {
    // Released first.
    queue: MutexGuard<'a, Queue>,
    after: After<'a>,
}

impl Locked<'_> {
    fn push(&mut self, record: Record, cost: usize) {
        let pushed = self.queue.push_weighed(record, cost);
        self.after.wake |= matches!(
            pushed,
            Pushed::Queued { wake: true } | Pushed::Dropped { wake: true }
        );
    }

    /// See [`Queue::push_patient`]; gives the event back when there is no room.
    pub(crate) fn offer_patient(&mut self, record: Record) -> Option<Record> {
        match self.queue.push_patient(record) {
            Pushed::Full(back) => return Some(back),
            Pushed::Queued { wake } | Pushed::Dropped { wake } => self.after.wake |= wake,
            Pushed::Filtered => {}
        }
        None
    }

    /// Takes in what is in the inbox: about `most` events, the oldest.
    fn take_in(&mut self, most: usize) {
        let entrance = self.after.entrance;
        for _ in 0..most.div_ceil(HANDFUL) {
            if entrance.waiting.load(SeqCst) == 0 {
                return;
            }
            let events: [_; HANDFUL] = {
                let mut inbox = entrance.inbox.lock();
                let events = std::array::from_fn(|_| inbox.take());
                entrance.waiting.store(inbox.events.len(), SeqCst);
                events
            };
            for (record, cost) in events.into_iter().flatten() {
                self.push(record, cost);
            }
        }
    }
}

impl Deref for Locked<'_> {
    type Target = Queue;
    fn deref(&self) -> &Queue {
        &self.queue
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Queue {
        &mut self.queue
    }
}

/// What is to be done once the lock is released.
struct After<'a> {
    entrance: &'a Entrance,
    /// The queue has something for the worker.
    wake: bool,
    /// The inbox is looked at once more.
    again: bool,
}

impl Drop for After<'_> {
    fn drop(&mut self) {
        fence(SeqCst);
        if self.entrance.waiting.load(SeqCst) > 0 {
            if !self.again {
                self.wake = true;
            } else if let Some(queue) = self.entrance.queue.try_lock() {
                self.entrance.locked(queue, false).take_in(SHARE);
            }
            // Else another has the lock, and looks as we do.
        }
        if self.wake {
            self.entrance.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread, time::Duration};

    use thinglog_schemas::{Level, Severity, batch::ClockInfo};

    use super::*;
    use crate::{clock, levels::Levels, park, queue::QueueOptions};

    const COST: usize = 200;

    fn entrance(inbox_bytes: usize) -> Entrance {
        let options = QueueOptions {
            memory_bytes: 64 << 20,
            batch_events: 1000,
            batch_bytes: 1 << 20,
            flush_age: Duration::ZERO,
        };
        let queue = Queue::new(options, Levels::new(Level::Info), 7);
        Entrance::new(queue, inbox_bytes, Arc::new(Notify::new()))
    }

    fn push(entrance: &Entrance, message: impl ToString) {
        let record = Record::new("app", Severity::INFO, message.to_string());
        entrance.push(record, COST);
    }

    /// The messages in the queue, without a look into the inbox.
    fn queued(entrance: &Entrance) -> Vec<String> {
        let mut queue = entrance.queue.lock();
        queue.start_flush();
        let mut messages = Vec::new();
        let clock = ClockInfo {
            boot: 1,
            sent_mono: 0,
            synced: true,
        };
        while let Some(cut) = queue.cut(None, clock) {
            messages.extend(cut.batch.entries.into_iter().map(|entry| entry.message));
        }
        messages
    }

    fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
        range.map(|number| number.to_string()).collect()
    }

    fn is_woken(entrance: &Entrance) -> bool {
        park::block_on_until(entrance.wake.notified(), clock::mono()).is_some()
    }

    #[test]
    fn who_emits_does_not_wait_for_the_lock_and_who_has_it_takes_the_event_in() {
        let entrance = entrance(1 << 20);
        push(&entrance, 0);
        let locked = entrance.lock();
        thread::scope(|scope| {
            let emit = || (1..10).for_each(|number| push(&entrance, number));
            scope.spawn(emit).join().unwrap();
        });
        assert_eq!(entrance.waiting.load(SeqCst), 9);
        drop(locked);
        assert_eq!(queued(&entrance), numbers(0..10));
    }

    #[test]
    fn what_is_too_much_to_take_in_at_once_wakes_the_worker_who_finds_all_of_it() {
        let entrance = entrance(1 << 20);
        let locked = entrance.lock();
        thread::scope(|scope| {
            let emit = || (0..200).for_each(|number| push(&entrance, number));
            scope.spawn(emit).join().unwrap();
        });
        assert!(!is_woken(&entrance));
        drop(locked);
        assert!(entrance.waiting.load(SeqCst) > 0 && is_woken(&entrance));
        // One more goes behind them.
        push(&entrance, 200);
        assert_eq!(entrance.lock().depth().0, 201);
        assert_eq!(queued(&entrance), numbers(0..201));
        assert!(entrance.inbox.lock().events.capacity() <= KEPT);
    }

    #[test]
    fn a_full_inbox_makes_one_wait_and_loses_nothing() {
        let entrance = entrance(10 * COST);
        thread::scope(|scope| {
            let locked = entrance.lock();
            let emit = || (0..100).for_each(|number| push(&entrance, number));
            let emitting = scope.spawn(emit);
            while entrance.waiting.load(SeqCst) < 10 {
                thread::yield_now();
            }
            assert_eq!(entrance.inbox.lock().bytes, 10 * COST);
            drop(locked);
            emitting.join().unwrap();
        });
        drop(entrance.lock());
        assert_eq!(queued(&entrance), numbers(0..100));
    }

    #[test]
    fn many_threads_lose_nothing_and_each_keeps_its_order() {
        const THREADS: usize = 8;
        const EVENTS: u32 = 4000;
        let entrance = entrance(100 * COST);
        let barrier = Barrier::new(THREADS);
        let mut seen = Vec::new();
        thread::scope(|scope| {
            let emit = |thread: usize| {
                barrier.wait();
                (0..EVENTS).for_each(|number| push(&entrance, format!("{thread} {number}")));
            };
            let emitting: Vec<_> = (0..THREADS)
                .map(|thread| scope.spawn(move || emit(thread)))
                .collect();
            // The worker cuts meanwhile.
            while emitting.iter().any(|thread| !thread.is_finished()) {
                seen.extend(queued(&entrance));
            }
        });
        // Nobody is left who would look: it is in the queue, or the worker was told.
        assert!(entrance.waiting.load(SeqCst) == 0 || is_woken(&entrance));
        drop(entrance.lock());
        seen.extend(queued(&entrance));
        for thread in 0..THREADS {
            let prefix = format!("{thread} ");
            let of_thread = seen.iter().filter_map(|text| text.strip_prefix(&prefix));
            assert!(of_thread.eq(numbers(0..EVENTS).iter()), "{thread}");
        }
    }
}
