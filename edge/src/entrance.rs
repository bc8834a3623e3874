//! The way of events into the queue. Whoever emits leaves the event in the inbox, where no lock is, and
//! goes on when the worker comes by soon and only a few are there. Else it takes them in, if it gets the
//! queue's lock at once: who has it takes in what was left meanwhile. So neither the worker, which holds
//! the lock for as long as it takes to cut a batch, nor a thread that the system stopped while it had
//! the lock holds up one that emits; only who finds the inbox full waits.
//!
//! Nothing is forgotten in the inbox: who leaves an event looks at what may wait there after that, and who
//! releases the lock says what may and looks into the inbox after that. One of the two sees the other (both
//! stand on either side of a fence). Who has done its share and still finds too much wakes the worker. A
//! grave event (an ERROR, for which the worker may be in a hurry) makes all before it urgent until somebody
//! has taken it in.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use thinglog_schemas::batch::Entry;
use tokio::sync::Notify;

use crate::{
    inbox::Inbox,
    queue::{CLASSES, Carried, MAY_WAIT, Pushed, Queue, class},
    record::Record,
};

/// What one who emits takes in for others.
const SHARE: usize = 32;
/// Events that were given up and are freed by who releases the lock: about as many as are taken in, so that
/// no thread has to free for all.
const FREED: usize = 2 * MAY_WAIT.0;

/// What of the memory for events is the inbox's, bytes.
pub(crate) const fn inbox_bytes(memory_bytes: usize) -> usize {
    let share = memory_bytes / 8;
    if share < 1 << 20 { share } else { 1 << 20 }
}

/// The queue, its lock and its inbox.
pub(crate) struct Entrance {
    inbox: Inbox,
    /// What is in the inbox may wait there, if it is not more than `few`.
    may_wait: AtomicBool,
    /// A grave event may be in the inbox.
    urgent: AtomicBool,
    /// Events, and bytes of them: [`MAY_WAIT`], or half of a small inbox.
    few: (usize, usize),
    queue: Mutex<Queue>,
    /// The worker has something to do.
    wake: Arc<Notify>,
}

impl Entrance {
    /// Before `queue` lies an inbox; it takes `inbox_bytes`, with what waits to be freed behind it. `wake`
    /// is for the worker.
    pub(crate) fn new(queue: Queue, inbox_bytes: usize, wake: Arc<Notify>) -> Entrance {
        let inbox = Inbox::new(inbox_bytes / 8 * 7);
        let (events, bytes) = inbox.most();
        Entrance {
            few: (MAY_WAIT.0.min(events / 2), MAY_WAIT.1.min(bytes / 2)),
            inbox,
            may_wait: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
            queue: Mutex::new(queue),
            wake,
        }
    }

    /// The queue with everything in it that was emitted before, and not what others add meanwhile, which may
    /// never end. Where the system stopped a thread that is
    /// leaving an event, just then, this waits until the thread has done so.
    pub(crate) fn lock(&self) -> Locked<'_> {
        const LOOKS: u32 = 16;
        const NAP: Duration = Duration::from_micros(50);
        let mut locked = self.locked(self.queue.lock(), true);
        let end = self.inbox.end();
        let mut looks = 0;
        loop {
            locked.take_in(self.inbox.before(end));
            if self.inbox.before(end) == 0 {
                return locked;
            }
            looks += 1;
            match looks < LOOKS {
                true => std::thread::yield_now(),
                // A yield does not let threads of lower priority go on.
                false => std::thread::sleep(NAP),
            }
        }
    }

    /// Queues an event that costs `cost` bytes and that its source will not repeat; see
    /// [`Queue::push_weighed`].
    pub(crate) fn push(&self, record: Record, cost: usize) {
        let grave = class(record.severity) == CLASSES - 1;
        match self.inbox.offer(record, cost) {
            None => self.left(grave),
            Some(back) => self.push_past_a_full_inbox(back, cost, grave),
        }
    }

    /// An event was left in the inbox.
    fn left(&self, grave: bool) {
        if grave {
            self.urgent.store(true, SeqCst);
        }
        fence(SeqCst);
        if self.is_to_be_taken_in()
            && let Some(queue) = self.queue.try_lock()
        {
            self.locked(queue, true).take_in(SHARE);
        }
    }

    /// Waits for the lock, to make room in the inbox.
    #[cold]
    fn push_past_a_full_inbox(&self, mut record: Record, cost: usize, grave: bool) {
        const ATTEMPTS: usize = 4;
        for _ in 0..ATTEMPTS {
            if !self.inbox.could_hold(cost) {
                break;
            }
            self.locked(self.queue.lock(), true).take_in(SHARE);
            record = match self.inbox.offer(record, cost) {
                None => return self.left(grave),
                Some(back) => back,
            };
        }
        self.lock().push(record, cost);
    }

    /// Whether what is in the inbox cannot be left there.
    fn is_to_be_taken_in(&self) -> bool {
        let load = self.inbox.load();
        let much = load.events() >= self.few.0 || load.bytes() >= self.few.1;
        !load.is_empty() && (much || !self.may_wait.load(SeqCst) || self.urgent.load(SeqCst))
    }

    fn locked<'a>(&'a self, queue: MutexGuard<'a, Queue>, again: bool) -> Locked<'a> {
        Locked {
            queue,
            after: After {
                entrance: self,
                wake: false,
                again,
            },
            given_up: [const { None }; FREED],
        }
    }
}

/// The queue, for one thread at a time.
pub(crate) struct Locked<'a> {
    // Released first.
    queue: MutexGuard<'a, Queue>,
    after: After<'a>,
    /// Freed last: that may take a while.
    given_up: [Option<Entry<Carried>>; FREED],
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

    /// Takes in what is in the inbox: the oldest events, at most `most`.
    fn take_in(&mut self, most: usize) {
        let Entrance {
            inbox,
            may_wait,
            urgent,
            ..
        } = self.after.entrance;
        if !inbox.is_ready() {
            return;
        }
        if may_wait.load(Relaxed) {
            self.queue.note_waited();
        }
        let is_urgent = urgent.swap(false, SeqCst);
        inbox.take(most, |record, cost| self.push(record, cost));
        if is_urgent && !inbox.load().is_empty() {
            // The grave event may be among those that are left.
            urgent.store(true, SeqCst);
        }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        for place in &mut self.given_up {
            *place = self.queue.take_given_up();
        }
        let may_wait = self.queue.may_wait();
        self.after.entrance.may_wait.store(may_wait, SeqCst);
    }
}

impl std::ops::Deref for Locked<'_> {
    type Target = Queue;
    fn deref(&self) -> &Queue {
        &self.queue
    }
}

impl std::ops::DerefMut for Locked<'_> {
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
        let entrance = self.entrance;
        if entrance.is_to_be_taken_in() && !std::thread::panicking() {
            if !self.again {
                // Whoever is just leaving the first event looks after it.
                self.wake |= entrance.inbox.is_ready();
            } else if let Some(queue) = entrance.queue.try_lock() {
                entrance.locked(queue, false).take_in(SHARE);
            }
            // Else another has the lock, and looks as we do.
        }
        if self.wake {
            entrance.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use thinglog_schemas::{Level, Severity, batch::ClockInfo};

    use super::*;
    use crate::{clock, levels::Levels, park, queue::QueueOptions};

    const COST: usize = 200;
    const CLOCK: ClockInfo = ClockInfo {
        boot: 1,
        sent_mono: 0,
        synced: true,
    };

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
        cut_all(&mut entrance.queue.lock())
    }

    fn cut_all(queue: &mut Queue) -> Vec<String> {
        queue.start_flush();
        let mut messages = Vec::new();
        while let Some(cut) = queue.cut(None, CLOCK) {
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

    /// Pushes from a thread of its own while the queue is locked.
    fn push_beside_the_lock(entrance: &Entrance, range: std::ops::Range<u32>) {
        let locked = entrance.lock();
        let most = range.len();
        thread::scope(|scope| {
            let emit = || range.for_each(|number| push(entrance, number));
            scope.spawn(emit).join().unwrap();
        });
        assert_eq!(entrance.inbox.load().events(), most);
        drop(locked);
    }

    #[test]
    fn the_first_event_wakes_the_worker_and_a_few_more_wait_until_somebody_looks() {
        let entrance = entrance(1 << 20);
        push(&entrance, 0);
        assert!(is_woken(&entrance) && entrance.queue.lock().depth().0 == 1);
        for number in 1..MAY_WAIT.0 as u32 {
            push(&entrance, number);
        }
        assert_eq!(entrance.queue.lock().depth().0, 1);
        assert_eq!(entrance.lock().depth().0, MAY_WAIT.0 as u64);
        for number in 8..12 {
            push(&entrance, number);
        }
        push(&entrance, "x".repeat(100));
        let grave = Record::new("app", Severity::ERROR, "grave");
        entrance.push(grave, COST);
        assert!(entrance.inbox.load().is_empty());
        assert!(!is_woken(&entrance));
        let all = queued(&entrance);
        assert_eq!((all.len(), &*all[13]), (14, "grave"));
    }

    #[test]
    fn a_lane_is_due_with_the_event_that_makes_it_so() {
        let entrance = entrance(1 << 20);
        for number in 0..999 {
            push(&entrance, number);
        }
        let due = |entrance: &Entrance| {
            let mut queue = entrance.queue.lock();
            queue.cut(None, CLOCK).map(|cut| cut.batch.entries.len())
        };
        assert!(is_woken(&entrance) && due(&entrance).is_none());
        push(&entrance, 999);
        assert!(is_woken(&entrance));
        assert_eq!(due(&entrance), Some(1000));
    }

    #[test]
    fn who_emits_does_not_wait_for_the_lock_and_who_has_it_takes_the_events_in() {
        let entrance = entrance(1 << 20);
        push(&entrance, 0);
        push_beside_the_lock(&entrance, 1..10);
        assert_eq!(queued(&entrance), numbers(0..10));
    }

    #[test]
    fn what_is_too_much_to_take_in_at_once_wakes_the_worker_who_finds_all_of_it() {
        let entrance = entrance(1 << 20);
        push(&entrance, 0);
        assert!(is_woken(&entrance));
        push_beside_the_lock(&entrance, 1..200);
        assert!(entrance.inbox.load().events() > MAY_WAIT.0 && is_woken(&entrance));
        // One more goes behind them.
        push(&entrance, 200);
        assert_eq!(entrance.lock().depth().0, 201);
        assert_eq!(queued(&entrance), numbers(0..201));
    }

    fn grave(entrance: &Entrance) {
        let record = Record::new("app", Severity::ERROR, "grave");
        entrance.push(record, COST);
    }

    /// An entrance whose worker is in a hurry for errors, knows of one event and comes by late.
    fn hurried() -> Entrance {
        let entrance = entrance(1 << 20);
        entrance.lock().set_hasten_errors(true);
        push(&entrance, 0);
        assert!(is_woken(&entrance));
        entrance
    }

    #[test]
    fn a_grave_event_that_meets_the_lock_wakes_the_worker_all_the_same() {
        let entrance = hurried();
        let locked = entrance.lock();
        thread::scope(|scope| {
            scope.spawn(|| grave(&entrance)).join().unwrap();
        });
        drop(locked);
        assert!(is_woken(&entrance));
        assert_eq!(queued(&entrance), ["0", "grave"]);
    }

    #[test]
    fn a_grave_event_behind_what_one_takes_in_at_once_wakes_the_worker_all_the_same() {
        let entrance = hurried();
        // Fewer are left than may wait.
        let before = SHARE as u32 + 1;
        let locked = entrance.lock();
        thread::scope(|scope| {
            let emit = || {
                (0..before).for_each(|number| push(&entrance, number));
                grave(&entrance);
            };
            scope.spawn(emit).join().unwrap();
        });
        drop(locked);
        assert!(is_woken(&entrance));
        assert_eq!(entrance.lock().depth().0, 2 + u64::from(before));
        assert!(is_woken(&entrance));
    }

    #[test]
    fn who_has_a_place_and_is_slow_to_use_it_is_waited_for_by_who_needs_all() {
        let entrance = entrance(1 << 20);
        let ticket = entrance.inbox.ticket(COST).unwrap();
        push(&entrance, 1);
        assert!(!is_woken(&entrance), "there is nothing to take in");
        thread::scope(|scope| {
            let all = scope.spawn(|| cut_all(&mut entrance.lock()));
            while !entrance.queue.is_locked() {
                thread::yield_now();
            }
            let first = Record::new("app", Severity::INFO, "0");
            entrance.inbox.leave(ticket, first, COST);
            assert_eq!(all.join().unwrap(), numbers(0..2));
        });
    }

    #[test]
    fn a_full_inbox_makes_one_wait_and_loses_nothing() {
        let entrance = entrance(8 << 10);
        let places = entrance.inbox.most().0;
        thread::scope(|scope| {
            let locked = entrance.lock();
            let emit = || (0..100).for_each(|number| push(&entrance, number));
            let emitting = scope.spawn(emit);
            while entrance.inbox.load().events() < places {
                thread::yield_now();
            }
            drop(locked);
            emitting.join().unwrap();
        });
        drop(entrance.lock());
        assert_eq!(queued(&entrance), numbers(0..100));
    }

    #[test]
    fn what_no_inbox_could_hold_goes_behind_what_is_there() {
        let entrance = entrance(8 << 10);
        (0..3).for_each(|number| push(&entrance, number));
        let large = Record::new("app", Severity::INFO, "3");
        entrance.push(large, 8 << 10);
        assert_eq!(queued(&entrance), numbers(0..4));
    }

    /// The worker looks when it is woken, and never else: were an event forgotten, it would wait in
    /// vain.
    #[test]
    fn many_threads_lose_and_forget_nothing_and_each_keeps_its_order() {
        const THREADS: usize = 8;
        const EVENTS: u32 = 4000;
        let entrance = entrance(100 * COST);
        let barrier = Barrier::new(THREADS);
        let mut seen = Vec::new();
        thread::scope(|scope| {
            let emit = |thread: usize| {
                barrier.wait();
                for number in 0..EVENTS {
                    push(&entrance, format!("{thread} {number}"));
                    if number % 64 == 0 {
                        thread::yield_now();
                    }
                }
            };
            for thread in 0..THREADS {
                scope.spawn(move || emit(thread));
            }
            while seen.len() < THREADS * EVENTS as usize {
                let until = clock::mono() + Duration::from_secs(30);
                let woken = park::block_on_until(entrance.wake.notified(), until);
                assert!(woken.is_some(), "{} events seen", seen.len());
                let mut queue = entrance.lock();
                queue.tick(clock::mono());
                seen.extend(cut_all(&mut queue));
            }
        });
        assert!(entrance.inbox.load().is_empty());
        for thread in 0..THREADS {
            let prefix = format!("{thread} ");
            let of_thread = seen.iter().filter_map(|text| text.strip_prefix(&prefix));
            assert!(of_thread.eq(numbers(0..EVENTS).iter()), "{thread}");
        }
    }
}
