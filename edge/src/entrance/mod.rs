//! The way of events into the queue. Whoever emits leaves the event in the inbox, where no lock is, and
//! goes on when the worker comes by soon and only a few are there. Else it takes them in, if it gets the
//! queue's lock at once: who has it takes in what was left meanwhile. So neither the worker, which holds
//! the lock for as long as it takes to cut a batch, nor a thread that the system stopped while it had
//! the lock holds up one that emits. Only who finds the inbox full (or emits more than it could ever hold)
//! waits, and not even that where the queue is full as well and would take the event in for none, or in the
//! place of another of its class and source: the event is refused then, counted, and declared by who takes
//! the count in.
//!
//! Nothing is forgotten in the inbox: who leaves an event (or counts one) looks at what may wait there after
//! that, and who releases the lock says what may and looks into the inbox after that. One of the two sees
//! the other (both stand on either side of a fence). Who has done its share and still finds too much wakes
//! the worker. A grave event (an ERROR, for which the worker may be in a hurry) makes all before it urgent
//! until somebody has taken it in.

mod inbox;
mod refusals;
#[cfg(test)]
mod tests;

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
use thinglog_schemas::{
    Level,
    batch::{ClockInfo, Entry},
};
use tokio::sync::Notify;

use crate::{
    levels::Levels,
    queue::{CLASSES, Carried, Cut, MAY_WAIT, Pushed, Queue, class},
    record::Record,
};
use inbox::Inbox;
use refusals::{Refusals, Rule};

/// What one who emits takes in for others.
const SHARE: usize = 8;
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
    rule: Rule,
    refusals: Refusals,
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
            rule: Rule::default(),
            refusals: Refusals::default(),
            queue: Mutex::new(queue),
            wake,
        }
    }

    /// The queue with everything in it that was emitted before, and not what others add meanwhile, which may
    /// never end. Where the system stopped a thread that is leaving an event, just then, this waits until the
    /// thread has done so.
    pub(crate) fn lock(&self) -> Locked<'_> {
        self.with_all_before(self.queue.lock())
    }

    fn with_all_before<'a>(&'a self, queue: MutexGuard<'a, Queue>) -> Locked<'a> {
        const LOOKS: u32 = 16;
        const NAP: Duration = Duration::from_micros(50);
        let mut locked = self.locked(queue, true);
        locked.take_in_refusals(true);
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

    /// Makes room in the inbox, or goes past it with what no inbox could hold.
    #[cold]
    fn push_past_a_full_inbox(&self, mut record: Record, cost: usize, grave: bool) {
        const ATTEMPTS: usize = 4;
        for _ in 0..ATTEMPTS {
            if !self.inbox.could_hold(cost) {
                break;
            }
            let Some(queue) = self.wait_or_refuse(&record, cost) else {
                return;
            };
            let mut locked = self.locked(queue, true);
            locked.take_in(SHARE);
            while self.inbox.is_ready() && !self.inbox.has_room(cost) {
                locked.take_in(SHARE);
            }
            drop(locked);
            record = match self.inbox.offer(record, cost) {
                None => return self.left(grave),
                Some(back) => back,
            };
        }
        if let Some(queue) = self.wait_or_refuse(&record, cost) {
            self.with_all_before(queue).push(record, cost);
        }
    }

    /// Waits for the lock, if somebody has it; but where the queue has no room for the event, that is refused
    /// instead.
    fn wait_or_refuse(&self, record: &Record, cost: usize) -> Option<MutexGuard<'_, Queue>> {
        if let Some(queue) = self.queue.try_lock() {
            return Some(queue);
        }
        if !self.refuse(record, cost) {
            return Some(self.queue.lock());
        }
        self.refused();
        None
    }

    /// Counts an event that the queue has no room for; false when it may have some.
    fn refuse(&self, record: &Record, cost: usize) -> bool {
        self.rule.refuses(&record.source, record.severity, cost)
            && self.refusals.count(&record.source, record.severity)
    }

    /// An event was counted. Whoever has the lock looks after it.
    fn refused(&self) {
        fence(SeqCst);
        if let Some(queue) = self.queue.try_lock() {
            self.locked(queue, true).take_in(SHARE);
        }
    }

    /// Whether what is in the inbox cannot be left there, or something was refused.
    fn is_to_be_taken_in(&self) -> bool {
        if self.refusals.are_there() {
            return true;
        }
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

/// The queue, for one thread at a time. What makes room in it is to be called by the methods here.
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

    /// See [`Queue::cut`].
    pub(crate) fn cut(&mut self, least: Option<Level>, clock: ClockInfo) -> Option<Cut> {
        if self.queue.is_due() {
            self.about_to_make_room();
        }
        self.queue.cut(least, clock)
    }

    /// See [`Queue::change_levels`].
    pub(crate) fn change_levels(&mut self, change: impl FnOnce(&mut Levels), purge: bool) {
        self.about_to_make_room();
        self.queue.change_levels(change, purge);
    }

    /// See [`Queue::set_outside`].
    pub(crate) fn set_outside(&mut self, bytes: usize) {
        if bytes < self.queue.outside() {
            self.about_to_make_room();
        }
        self.queue.set_outside(bytes);
    }

    /// What is refused from here on may find room, were it to wait until the lock is released.
    fn about_to_make_room(&self) {
        self.after.entrance.rule.set(None);
    }

    fn take_in_refusals(&mut self, all: bool) {
        let refusals = &self.after.entrance.refusals;
        refusals.take(all, |refused| {
            let (source, severity) = (&refused.source, refused.severity);
            let wake = self.queue.note_refused(source, severity, refused.count);
            self.after.wake |= wake;
        });
    }

    /// Takes in what is in the inbox: the oldest events, at most `most`.
    fn take_in(&mut self, most: usize) {
        let Entrance {
            inbox,
            may_wait,
            urgent,
            ..
        } = self.after.entrance;
        self.take_in_refusals(false);
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
        self.after.entrance.rule.set(self.queue.refuses());
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
        if entrance.is_to_be_taken_in() {
            if !self.again || std::thread::panicking() {
                // Whoever is just leaving the first event looks after it.
                self.wake |= entrance.inbox.is_ready() || entrance.refusals.are_there();
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
