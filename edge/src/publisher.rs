//! The handle an application holds: emit, flush, figures.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use thinglog_schemas::{Severity, batch::DropReason};

use crate::{
    clock,
    config::Builder,
    marks::{MAX_PLACE, Mark},
    park,
    record::Record,
    replies::{NoRoom, Reply},
    shared::Shared,
};

/// What a thread that waits for the end allows for the farewell to the broker.
const FAREWELL: Duration = Duration::from_secs(2);

/// Carries a device's log events to its broker. Clones share everything; when the last one is gone,
/// what is still queued gets a few seconds ([`Builder::linger`]) to leave, as long as the process goes
/// on: call [`close`](Publisher::close) before it ends.
///
/// ```no_run
/// use std::time::Duration;
/// use thinglog_edge::{Publisher, Record};
/// use thinglog_schemas::Severity;
///
/// let publisher = Publisher::builder("lamp-7").start()?;
/// publisher.emit(Record::new("app", Severity::WARN, "bulb is hot").with("celsius", 91));
/// assert!(publisher.flush_blocking(Duration::from_secs(5)));
/// # Ok::<(), thinglog_edge::BuildError>(())
/// ```
#[derive(Clone)]
pub struct Publisher {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    linger: Duration,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let deadline = clock::after(clock::mono(), self.linger);
        self.shared.request_stop(deadline);
    }
}

/// What a publisher has done and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events that passed their level.
    pub accepted: u64,
    /// Events below their level.
    pub filtered: u64,
    /// Events given up for want of room or because no broker could take them. Each is declared to
    /// the broker, by count, severity and reason; but those that came after the publisher had ended,
    /// which nobody can be told about, stand here alone.
    pub dropped: u64,
    /// Events the broker acknowledged (those of an earlier process included).
    pub acknowledged: u64,
    /// Batches the broker acknowledged, and their payload bytes.
    pub batches: u64,
    /// See `batches`.
    pub payload_bytes: u64,
    /// Events queued in memory.
    pub queued_events: u64,
    /// Events in batches that are on their way to the broker.
    pub in_flight_events: u64,
    /// Memory held for queued events and batches, bytes.
    pub memory_bytes: u64,
    /// Bytes of the spool on disk.
    pub spool_bytes: u64,
    /// Damaged records of the spool that were skipped.
    pub unreadable_records: u64,
    /// Times a connection was made.
    pub connects: u64,
    /// Whether there is one now.
    pub connected: bool,
}

impl Publisher {
    /// A publisher for `device`; characters that cannot stand in a topic are percent-encoded.
    pub fn builder(device: &str) -> Builder {
        Builder::new(device)
    }

    pub(crate) fn new(shared: Arc<Shared>, linger: Duration) -> Publisher {
        Publisher {
            handle: Arc::new(Handle { shared, linger }),
        }
    }

    /// Whether an event of this severity could pass the level of any source: ask before building an
    /// expensive message.
    pub fn enabled(&self, severity: Severity) -> bool {
        self.shared().may_pass(severity)
    }

    /// Queues an event. Never waits for a disk or a network and never fails: below its level it is forgotten, and when
    /// memory is full the least grave events are dropped, counted and declared.
    pub fn emit(&self, mut record: Record) {
        let shared = self.shared();
        if !shared.may_pass(record.severity) {
            shared.turn_away();
            return;
        }
        // What is too large is cut, and what it costs reckoned, before the lock is taken.
        record.mark = None;
        record.cut_source();
        let cost = record.cut_to_limits();
        shared.clock.stamp(&mut record);
        shared.queue.push(record, cost);
    }

    /// [`emit`](Publisher::emit) of what `make` returns, which is called only when an event of this
    /// severity could pass: for events that cost something to make.
    ///
    /// ```no_run
    /// # use thinglog_edge::{Publisher, Record};
    /// # use thinglog_schemas::Severity;
    /// # let publisher = Publisher::builder("lamp-7").start()?;
    /// # let registers = [0u16; 64];
    /// publisher.emit_with(Severity::DEBUG, || {
    ///     Record::new("app", Severity::DEBUG, format!("registers: {registers:?}"))
    /// });
    /// # Ok::<(), thinglog_edge::BuildError>(())
    /// ```
    pub fn emit_with(&self, severity: Severity, make: impl FnOnce() -> Record) {
        if self.shared().may_pass(severity) {
            self.emit(make());
        } else {
            self.shared().turn_away();
        }
    }

    /// Queues an event, waiting for room instead of dropping anything: for sources that can be read
    /// later (files, pipes, a benchmark). Nothing of a source that is fed this way is ever dropped
    /// for want of room. Returns false when the publisher has ended.
    pub async fn emit_waiting(&self, mut record: Record) -> bool {
        let shared = self.shared();
        if !self.shared().figures.keeps_places.load(Relaxed) {
            record.mark = None;
        }
        if !shared.may_pass(record.severity) && record.mark.is_none() {
            return shared.turn_away();
        }
        record.cut_source();
        shared.clock.stamp(&mut record);
        // There nearly always is room.
        if *shared.ended.borrow() {
            return false;
        }
        match self.push_patient(record) {
            None => return true,
            Some(back) => record = back,
        }
        loop {
            let room = shared.room.notified();
            tokio::pin!(room);
            // Registered before the attempt, so that room made right after it is not missed.
            room.as_mut().enable();
            if *shared.ended.borrow() {
                return false;
            }
            match self.push_patient(record) {
                None => return true,
                Some(back) => record = back,
            }
            shared.wake.notify_one();
            room.await;
        }
    }

    /// Gives it back when there is no room.
    fn push_patient(&self, record: Record) -> Option<Record> {
        self.shared().queue.lock().offer_patient(record)
    }

    /// Where the source stands that `key` names, if events of it were marked
    /// ([`Record::marked`]) in this process or are what an earlier one left in the spool: everything
    /// before this place is in the hands of the publisher, nothing behind it. Only with a spool on
    /// disk.
    pub fn kept_place(&self, key: u64) -> Option<Vec<u8>> {
        self.shared().queue.lock().place(key)
    }

    /// Whether there is a spool on disk, which keeps places as well: configured here, or switched on by
    /// the remote configuration ([`Builder::spool_allowed`]).
    pub fn keeps_places(&self) -> bool {
        self.shared().figures.keeps_places.load(Relaxed)
    }

    /// The source that `key` names has come to `place` (at most 4 KiB) with something that makes no
    /// event of `source`, because a filter or rule took it. It is remembered once everything emitted
    /// before is durable, and now and then written down: after a crash some of what was filtered
    /// may be read again.
    pub fn pass_place(&self, source: &str, key: u64, place: impl Into<Arc<[u8]>>) {
        let place = place.into();
        if self.shared().figures.keeps_places.load(Relaxed) && place.len() <= MAX_PLACE {
            let mut queue = self.shared().queue.lock();
            queue.note_place(source, Mark { key, place });
        }
    }

    /// Declares `count` events of `source` lost that the caller does not emit, for instance because
    /// the source is too noisy: the receiver is told, by count, severity and reason, as of events
    /// that were dropped here, and they are counted so. Below the level of the source nothing
    /// happens.
    pub fn declare(&self, source: &str, severity: Severity, reason: DropReason, count: u64) {
        let declared = {
            let mut queue = self.shared().queue.lock();
            queue.declare(source, severity, reason, count)
        };
        if declared {
            self.shared().wake.notify_one();
        }
    }

    /// [`emit_waiting`](Publisher::emit_waiting) for threads without a runtime.
    pub fn emit_blocking(&self, record: Record) -> bool {
        park::block_on(self.emit_waiting(record))
    }

    /// Sends what has gathered now, whatever the mode of upload ([`Builder::upload`]): an upload on
    /// request. Returns at once; while there is no connection it waits for one.
    pub fn upload_now(&self) {
        self.shared().wish_upload();
    }

    /// Sends what is queued without waiting for more to come, whatever the mode of upload, and returns whether everything emitted
    /// before is durable: on disk (synced) when there is a spool, else acknowledged by the broker.
    /// False after `deadline`, or when something had to be dropped meanwhile; what was dropped before
    /// the call stands in [`counters`](Publisher::counters).
    pub async fn flush(&self, deadline: Duration) -> bool {
        self.shared().wish_upload();
        let durable = self.shared().wait_durable(true, Some(deadline));
        durable.await.unwrap_or(false)
    }

    /// [`flush`](Publisher::flush) for threads without a runtime. On the thread that runs the worker
    /// (see [`Builder::attach`](crate::Builder::attach)) it waits in vain and returns false.
    pub fn flush_blocking(&self, deadline: Duration) -> bool {
        let until = clock::after(clock::mono(), deadline);
        park::block_on_until(self.flush(deadline), until).unwrap_or(false)
    }

    /// Waits without hurrying anything, for as long as it takes, until everything emitted before is
    /// durable; false when something of it was dropped or the publisher ended. Whoever reads from
    /// something that can be read again (a file, a journal) notes its position after this.
    pub fn settled(&self) -> impl Future<Output = bool> + Send + use<> {
        let durable = self.shared().wait_durable(false, None);
        async move { durable.await.unwrap_or(false) }
    }

    /// Flushes, says goodbye to the broker and ends the worker. Returns what
    /// [`flush`](Publisher::flush) returns. With a spool, what is safe on disk is still sent as far as
    /// there is a connection, the mode of upload lets it go, and `deadline` allows. Events emitted afterwards go nowhere.
    pub async fn close(&self, deadline: Duration) -> bool {
        let deadline_at = clock::after(clock::mono(), deadline);
        let durable = match self.shared().figures.spooled.load(Relaxed) {
            // What is on disk may wait there for its time.
            true => self.shared().wait_durable(true, Some(deadline)).await,
            false => Ok(self.flush(deadline).await),
        };
        let durable = durable.unwrap_or(false);
        let mut ended = self.shared().ended.subscribe();
        self.shared().request_stop(deadline_at);
        // Fails only when the worker is gone already.
        let _ = ended.wait_for(|ended| *ended).await;
        durable
    }

    /// [`close`](Publisher::close) for threads without a runtime. On the thread that runs the worker
    /// it waits in vain and returns false; the worker ends all the same once it runs.
    pub fn close_blocking(&self, deadline: Duration) -> bool {
        let until = clock::after(clock::mono(), deadline.saturating_add(FAREWELL));
        let closed = park::block_on_until(self.close(deadline), until);
        self.shared().request_stop(until);
        closed.unwrap_or(false)
    }

    /// Events that are neither acknowledged nor, with a spool, on disk: what would be lost now.
    pub fn undelivered(&self) -> u64 {
        let counters = self.counters();
        if self.shared().figures.spooled.load(Relaxed) {
            counters.queued_events
        } else {
            counters.queued_events + counters.in_flight_events
        }
    }

    /// How long ago the worker was last seen at work, and asks it to show itself again. One that is well
    /// does so within milliseconds; one that idles sleeps for up to a minute. So a watchdog that calls
    /// this every ten seconds and gets more than thirty knows that the worker hangs (or has ended).
    pub fn pulse(&self) -> Duration {
        let shared = self.shared();
        shared.wake.notify_one();
        shared.pulse.since(clock::mono())
    }

    /// The figures.
    pub fn counters(&self) -> Counters {
        let shared = self.shared();
        let figures = &shared.figures;
        let late = figures.late.load(Relaxed);
        let (queued_events, queued_bytes, counted) = {
            let queue = shared.queue.lock();
            let (events, bytes) = queue.depth();
            (events, bytes, queue.counters())
        };
        Counters {
            accepted: counted.accepted - counted.purged + late,
            filtered: figures.filtered.load(Relaxed)
                + counted.filtered
                + counted.purged
                + counted.forgotten,
            dropped: counted.dropped + late,
            acknowledged: figures.acknowledged.load(Relaxed),
            batches: figures.batches.load(Relaxed),
            payload_bytes: figures.payload_bytes.load(Relaxed),
            queued_events,
            in_flight_events: figures.in_flight.load(Relaxed),
            memory_bytes: queued_bytes as u64 + figures.held_bytes.load(Relaxed),
            spool_bytes: figures.spool_bytes.load(Relaxed),
            unreadable_records: figures.unreadable.load(Relaxed),
            connects: figures.connects.load(Relaxed),
            connected: figures.connected.load(Relaxed),
        }
    }

    /// Calls `follow` with the least severity number that passes anywhere (255: none does), now and
    /// whenever it changes.
    pub(crate) fn follow_gate(&self, follow: fn(u8)) {
        self.shared().follow_gate(follow);
    }

    /// What is kept for the case of an error, oldest first; `None` when the mode of upload keeps
    /// nothing.
    pub(crate) fn ring(&self) -> Option<Vec<Record>> {
        self.shared().queue.lock().ring_records()
    }

    /// Queues a message for `response/<device>/<id>`, which is sent until the broker acknowledges it;
    /// false when too many are waiting already.
    pub(crate) fn answer(&self, id: &str, payload: Vec<u8>) -> bool {
        let reply = Reply {
            id: id.to_owned(),
            payload: payload.into(),
        };
        let taken = self.shared().replies.lock().offer(reply).is_ok();
        self.shared().wake.notify_one();
        taken
    }

    /// Whether answers wait that were not handed to a connection yet.
    pub(crate) fn answers_wait(&self) -> bool {
        self.shared().replies.lock().is_waiting()
    }

    /// [`answer`](Publisher::answer), waiting for room; false when the publisher has ended.
    pub(crate) async fn answer_waiting(&self, id: &str, payload: Vec<u8>) -> bool {
        let shared = self.shared();
        let mut reply = Reply {
            id: id.to_owned(),
            payload: payload.into(),
        };
        loop {
            let room = shared.reply_room.notified();
            tokio::pin!(room);
            // Registered before the attempt, so that room made right after it is not missed.
            room.as_mut().enable();
            if *shared.ended.borrow() {
                return false;
            }
            let offered = shared.replies.lock().offer(reply);
            shared.wake.notify_one();
            match offered {
                Ok(()) => return true,
                Err(NoRoom(back)) => reply = back,
            }
            room.await;
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.handle.shared
    }
}
