//! What the journal's handles, its readers and its writer thread share, and the steps that must
//! happen in one order: first the log, then what was promised, then the news of it.

use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};

use crate::fs::Fs;
use crate::log::{Log, Segment};
use crate::pending::Pending;
use crate::{Failure, Limits, Outcome};

pub(crate) type Notify = Arc<dyn Fn(u64) + Send + Sync>;
/// What is told how long a sync took.
pub(crate) type Timed = Arc<dyn Fn(Duration) + Send + Sync>;

/// What was written with one call: frames with consecutive offsets, all in one segment.
pub(crate) struct Part {
    pub(crate) first: u64,
    /// One past the last offset.
    pub(crate) end: u64,
    pub(crate) records: u64,
    pub(crate) max_time: u64,
    pub(crate) frames: Bytes,
    /// Memory the frames keep alive.
    pub(crate) cost: usize,
}

/// Why a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Room,
    Age,
    Released,
}

/// Locks are taken in the order `changing`, `pending`, `log`; callbacks run under neither.
pub(crate) struct Shared {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) dir: PathBuf,
    pub(crate) id: u64,
    pub(crate) key: u32,
    pub(crate) limits: Limits,
    pub(crate) pending: Mutex<Pending>,
    /// Something is pending.
    pub(crate) wake: Condvar,
    pub(crate) log: RwLock<Log>,
    /// Held while closed segments change; taken before the two above.
    pub(crate) changing: Mutex<()>,
    /// `log.settled`, to be read without a lock.
    pub(crate) settled: AtomicU64,
    /// Whether any offset ever failed.
    failed: AtomicBool,
    waiting: Mutex<()>,
    decided: Condvar,
    listeners: RwLock<Vec<Notify>>,
    timed: RwLock<Vec<Timed>>,
}

impl Shared {
    pub(crate) fn new(fs: Arc<dyn Fs>, dir: PathBuf, id: u64, limits: Limits, log: Log) -> Shared {
        let next = log.settled;
        let pending = Pending::new(next, log.held());
        Shared {
            fs,
            dir,
            id,
            key: crate::format::key(id),
            limits,
            pending: Mutex::new(pending),
            wake: Condvar::new(),
            log: RwLock::new(log),
            changing: Mutex::new(()),
            settled: AtomicU64::new(next),
            failed: AtomicBool::new(false),
            waiting: Mutex::new(()),
            decided: Condvar::new(),
            listeners: RwLock::new(Vec::new()),
            timed: RwLock::new(Vec::new()),
        }
    }

    pub(crate) fn outcome(&self, offset: u64) -> Outcome {
        if offset >= self.settled.load(Ordering::Acquire) {
            return Outcome::Pending;
        }
        if !self.failed.load(Ordering::Acquire) {
            return Outcome::Durable;
        }
        self.log
            .read()
            .failures
            .get(offset)
            .map_or(Outcome::Durable, Outcome::Failed)
    }

    pub(crate) fn wait(&self, offset: u64) -> Outcome {
        let mut waiting = self.waiting.lock();
        loop {
            match self.outcome(offset) {
                Outcome::Pending => self.decided.wait(&mut waiting),
                decided => return decided,
            }
        }
    }

    pub(crate) fn listen(&self, notify: Notify) {
        self.listeners.write().push(notify);
    }

    pub(crate) fn time(&self, timed: Timed) {
        self.timed.write().push(timed);
    }

    /// Forgets the callbacks: they may hold what would keep this alive.
    pub(crate) fn forget_listeners(&self) {
        self.listeners.write().clear();
        self.timed.write().clear();
    }

    /// Parts of a group are on disk, by one sync that took so long.
    pub(crate) fn publish(&self, parts: Vec<Part>, took: Duration) {
        for timed in self.timed.read().clone() {
            self.call(|| timed(took));
        }
        let bytes = parts.iter().map(|part| part.frames.len()).sum();
        let mut dropped = Vec::new();
        let settled = {
            let mut log = self.log.write();
            log.syncs += 1;
            log.sync_ns = log
                .sync_ns
                .saturating_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            for part in parts {
                log.add(part, &mut dropped);
            }
            log.settled
        };
        {
            let mut pending = self.pending.lock();
            for group in dropped {
                pending.recycle(group.frames, group.cost);
            }
        }
        self.decide(settled, bytes);
    }

    /// The rest of a group, of so many bytes, is not stored and never will be.
    pub(crate) fn fail(&self, range: Range<u64>, failure: Failure, bytes: usize) {
        let end = range.end;
        {
            let mut log = self.log.write();
            log.failures.push(range, failure);
            log.settled = end;
        }
        self.failed.store(true, Ordering::Release);
        self.decide(end, bytes);
    }

    /// Nothing undecided and nothing later is ever durable.
    pub(crate) fn poison(&self) {
        let end = {
            let mut pending = self.pending.lock();
            pending.poisoned = true;
            pending.drop_all();
            pending.next
        };
        {
            let mut log = self.log.write();
            let from = log.settled;
            if from < end {
                log.failures.push(from..end, Failure::Poisoned);
                log.settled = end;
            }
        }
        self.failed.store(true, Ordering::Release);
        self.announce(end);
    }

    fn decide(&self, settled: u64, bytes: usize) {
        {
            let mut pending = self.pending.lock();
            pending.in_flight = pending.in_flight.saturating_sub(bytes);
            pending.held = self.log.read().held();
        }
        self.announce(settled);
    }

    fn announce(&self, settled: u64) {
        self.settled.store(settled, Ordering::Release);
        drop(self.waiting.lock());
        self.decided.notify_all();
        // Called without the lock, so that a callback may register another.
        let listeners = self.listeners.read().clone();
        for notify in listeners {
            self.call(|| notify(settled));
        }
    }

    /// One callback's bug must neither end the writer nor keep the news from the others.
    fn call(&self, callback: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(callback)).is_err() {
            tracing::error!(dir = %self.dir.display(), "a callback panicked");
        }
    }

    /// Deletes the oldest segment that is not being written to, if `goes` says so; whether anything
    /// was deleted.
    pub(crate) fn drop_oldest(
        &self,
        why: Why,
        goes: impl FnOnce(&Segment) -> bool,
    ) -> io::Result<bool> {
        let _changing = self.changing.lock();
        let buried = self.bury(why)?;
        {
            let mut log = self.log.write();
            let Some(segment) = log.take_oldest(goes) else {
                return Ok(buried);
            };
            if why != Why::Released {
                log.cut_records += segment.records;
            }
            log.dead.extend(segment.dead());
            tracing::debug!(dir = %self.dir.display(), first = segment.first,
                records = segment.records, ?why, "segment deleted");
        }
        self.bury(why)?;
        Ok(true)
    }

    /// Deletes the segments whose records are all older than `before`, ns.
    pub(crate) fn drop_expired(&self, before: u64) -> io::Result<()> {
        while self.drop_oldest(Why::Age, |segment| segment.max_time < before)? {}
        Ok(())
    }

    /// Removes dead files; whether there were any. What cannot be removed stays dead, still counts,
    /// and is tried again the next time.
    pub(crate) fn bury(&self, why: Why) -> io::Result<bool> {
        let mut dead = self.log.read().dead.clone();
        dead.retain(|file| !file.evidence || why == Why::Room);
        if dead.is_empty() {
            return Ok(false);
        }
        let mut result = Ok(());
        dead.retain(|file| match self.fs.remove(&self.dir.join(&file.name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                result = Err(error);
                false
            }
            _ => true,
        });
        self.log
            .write()
            .dead
            .retain(|file| dead.iter().all(|gone| gone.name != file.name));
        self.count_held();
        result?;
        self.fs.sync_dir(&self.dir)?;
        Ok(true)
    }

    /// Tells appenders what is on disk now. The sum is taken under their lock, so that an older one
    /// never overwrites a newer one.
    pub(crate) fn count_held(&self) {
        let mut pending = self.pending.lock();
        pending.held = self.log.read().held();
    }
}
