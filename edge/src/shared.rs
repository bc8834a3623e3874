//! What the handles and the worker share: the queue behind its entrance, what passes at all, who
//! waits for a flush or for room, and the figures.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use thinglog_schemas::{Level, Severity, units::Rate};
use tokio::sync::{Notify, oneshot, watch};

use crate::{
    clock::{self, Clock},
    entrance::Entrance,
    queue::{FlushTarget, Queue},
    replies::Replies,
};

/// Gates that nothing passes: of a publisher that is told to be silent, and of one that has ended.
const SHUT: u8 = u8::MAX;
const ENDED: u8 = SHUT - 1;

pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) pulse: Pulse,
    pub(crate) queue: Entrance,
    /// Least severity number that passes for any source: most of what is filtered never takes the lock.
    gate: AtomicU8,
    /// Most events of each source, see [`thinglog_schemas::config::Limits::rate`].
    pub(crate) rate: RwLock<Option<Rate>>,
    /// Called with the gate when it changes: who filters before us should know.
    followers: Mutex<Vec<fn(u8)>>,
    /// The worker has something to do.
    pub(crate) wake: Arc<Notify>,
    /// Those who wait for room may try again.
    pub(crate) room: Notify,
    /// Answers to requests.
    pub(crate) replies: Mutex<Replies>,
    /// Those who wait with an answer may try again.
    pub(crate) reply_room: Notify,
    waiters: Mutex<Vec<Waiter>>,
    /// One of them is in a hurry.
    hurried: AtomicBool,
    stop: Mutex<Option<Instant>>,
    stopping: AtomicBool,
    /// Somebody wants everything sent, whatever the mode of upload.
    wish: AtomicBool,
    /// True once the worker is gone.
    pub(crate) ended: watch::Sender<bool>,
    pub(crate) figures: Figures,
}

/// What the worker counts.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Below every level there is.
    pub(crate) filtered: AtomicU64,
    /// Came after the end.
    pub(crate) late: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    /// Of a batch, ns since the Unix epoch.
    pub(crate) last_acknowledged: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) payload_bytes: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) held_bytes: AtomicU64,
    pub(crate) spool_bytes: AtomicU64,
    /// Events go to disk first.
    pub(crate) spooled: AtomicBool,
    /// There is a spool, which knows where sources stand.
    pub(crate) keeps_places: AtomicBool,
    pub(crate) unreadable: AtomicU64,
    pub(crate) connects: AtomicU64,
    pub(crate) connected: AtomicBool,
}

/// When the worker was last seen at work.
pub(crate) struct Pulse {
    start: Instant,
    /// Milliseconds since `start`.
    last: AtomicU64,
}

impl Pulse {
    fn new() -> Pulse {
        Pulse {
            start: clock::mono(),
            last: AtomicU64::new(0),
        }
    }

    /// The worker is at work.
    pub(crate) fn beat(&self, now: Instant) {
        let since = now.saturating_duration_since(self.start).as_millis();
        self.last.store(since as u64, Relaxed);
    }

    /// How long ago that was.
    pub(crate) fn since(&self, now: Instant) -> Duration {
        let last = self.start + Duration::from_millis(self.last.load(Relaxed));
        now.saturating_duration_since(last)
    }
}

/// One who waits until what was emitted is durable.
struct Waiter {
    target: FlushTarget,
    hurry: bool,
    deadline: Option<Instant>,
    reply: oneshot::Sender<bool>,
}

impl Shared {
    /// Before `queue` lies an inbox of `inbox_bytes`.
    pub(crate) fn new(queue: Queue, inbox_bytes: usize, clock: Clock) -> Shared {
        let wake = Arc::new(Notify::new());
        let shared = Shared {
            clock,
            pulse: Pulse::new(),
            gate: AtomicU8::new(0),
            rate: RwLock::new(None),
            followers: Mutex::new(Vec::new()),
            queue: Entrance::new(queue, inbox_bytes, wake.clone()),
            wake,
            room: Notify::new(),
            replies: Mutex::default(),
            reply_room: Notify::new(),
            waiters: Mutex::new(Vec::new()),
            hurried: AtomicBool::new(false),
            stop: Mutex::new(None),
            stopping: AtomicBool::new(false),
            wish: AtomicBool::new(false),
            ended: watch::Sender::new(false),
            figures: Figures::default(),
        };
        shared.set_gate(shared.queue.lock().levels().most_verbose());
        shared
    }

    /// Whether an event of this severity could pass for some source.
    pub(crate) fn may_pass(&self, severity: Severity) -> bool {
        severity.number() >= self.gate.load(Relaxed)
    }

    /// The most verbose level of any source has changed.
    pub(crate) fn set_gate(&self, level: Level) {
        let least = match level {
            Level::Disabled => SHUT,
            Level::Error => Severity::ERROR.number(),
            Level::Warn => Severity::WARN.number(),
            Level::Info => Severity::INFO.number(),
            Level::Debug => 0,
        };
        self.move_gate(least);
    }

    fn move_gate(&self, least: u8) {
        if self.gate.swap(least, Relaxed) != least {
            let followers = self.followers.lock().clone();
            followers.iter().for_each(|follow| follow(least));
        }
    }

    /// Calls `follow` with the gate, now and whenever it changes.
    pub(crate) fn follow_gate(&self, follow: fn(u8)) {
        self.followers.lock().push(follow);
        follow(self.gate.load(Relaxed));
    }

    /// Counts an event that [`may_pass`](Shared::may_pass) turned away. False when that is because
    /// the publisher has ended.
    #[cold]
    pub(crate) fn turn_away(&self) -> bool {
        let ended = self.gate.load(Relaxed) == ENDED;
        let figure = if ended {
            &self.figures.late
        } else {
            &self.figures.filtered
        };
        figure.fetch_add(1, Relaxed);
        !ended
    }

    /// Starts a flush, or with `hurry` false only waits for one to happen by itself.
    pub(crate) fn wait_durable(
        &self,
        hurry: bool,
        deadline: Option<Duration>,
    ) -> oneshot::Receiver<bool> {
        let (reply, answer) = oneshot::channel();
        let (target, durable) = {
            let mut queue = self.queue.lock();
            let mut target = if hurry {
                queue.start_flush()
            } else {
                queue.mark()
            };
            let durable = queue.poll_flush(&mut target);
            (target, durable)
        };
        let mut waiters = self.waiters.lock();
        if *self.ended.borrow() {
            let nothing_late = self.figures.late.load(Relaxed) == 0;
            let _ = reply.send(durable == Some(true) && nothing_late);
            return answer;
        }
        if let Some(durable) = durable {
            let _ = reply.send(durable);
            return answer;
        }
        self.hurried.fetch_or(hurry, Relaxed);
        waiters.push(Waiter {
            target,
            hurry,
            deadline: deadline.map(|deadline| clock::after(clock::mono(), deadline)),
            reply,
        });
        drop(waiters);
        self.wake.notify_one();
        answer
    }

    /// Answers who waits no longer; returns the next deadline.
    pub(crate) fn poll_waiters(&self, now: Instant) -> Option<Instant> {
        let mut waiters = self.waiters.lock();
        if waiters.is_empty() {
            return None;
        }
        let queue = self.queue.lock();
        let mut waiting = Vec::with_capacity(waiters.len());
        for mut waiter in waiters.drain(..) {
            let overdue = waiter.deadline.is_some_and(|deadline| deadline <= now);
            match queue.poll_flush(&mut waiter.target) {
                Some(durable) => drop(waiter.reply.send(durable)),
                None if overdue => drop(waiter.reply.send(false)),
                None if waiter.reply.is_closed() => {}
                None => waiting.push(waiter),
            }
        }
        let hurried = waiting.iter().any(|waiter| waiter.hurry);
        self.hurried.store(hurried, Relaxed);
        *waiters = waiting;
        waiters.iter().filter_map(|waiter| waiter.deadline).min()
    }

    /// Whether somebody waits for what is queued to become durable soon.
    pub(crate) fn is_hurried(&self) -> bool {
        self.hurried.load(Relaxed) || self.stopping.load(Relaxed)
    }

    /// Asks for everything to be sent now.
    pub(crate) fn wish_upload(&self) {
        self.wish.store(true, Relaxed);
        self.wake.notify_one();
    }

    /// Whether somebody asked since the last time.
    pub(crate) fn take_wish(&self) -> bool {
        self.wish.load(Relaxed) && self.wish.swap(false, Relaxed)
    }

    /// Wakes the worker as long as there is one.
    pub(crate) fn waker(shared: &Arc<Shared>) -> impl Fn() + Send + Sync + 'static {
        let shared = Arc::downgrade(shared);
        move || {
            if let Some(shared) = shared.upgrade() {
                shared.wake.notify_one();
            }
        }
    }

    /// Asks the worker to end: at once when everything is durable, else at `deadline`.
    pub(crate) fn request_stop(&self, deadline: Instant) {
        let mut stop = self.stop.lock();
        *stop = Some(stop.map_or(deadline, |earlier| earlier.min(deadline)));
        self.stopping.store(true, Relaxed);
        self.wake.notify_one();
    }

    pub(crate) fn stop_deadline(&self) -> Option<Instant> {
        self.stopping.load(Relaxed).then(|| *self.stop.lock())?
    }

    /// The worker is gone, however it ended: nobody may wait for it any more.
    pub(crate) fn end(&self) {
        self.move_gate(ENDED);
        self.ended.send_replace(true);
        self.waiters.lock().clear();
        self.figures.connected.store(false, Relaxed);
        self.room.notify_waiters();
        self.reply_room.notify_waiters();
    }
}
