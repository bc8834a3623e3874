//! The handle: what the rest of a program sees of a journal.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use crate::fs::Fs;
use crate::reader::{self, Reader};
use crate::shared::{Shared, Why};
use crate::{
    AppendError, Closed, Failure, Limits, OnFull, OpenError, Options, Outcome, ReadError, Records,
    Recovery, ReplaceError, Replacement, Stats, recover, replace, writer,
};

/// A journal, open for appending. Clones share it. Owns one writer thread that writes and syncs
/// groups; dropping the last clone flushes and joins it.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Opens or creates the journal in `dir`; recovers a torn tail. Options out of range are brought
    /// into it, see [`Options`].
    ///
    /// # Errors
    /// When the directory cannot be read or written, is in use, or holds what is not this journal's.
    pub fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        options: Options,
    ) -> Result<(Journal, Recovery), OpenError> {
        let limits = Limits::new(&options);
        let opened = recover::open(&*fs, dir, limits.tail_bytes)?;
        let shared = Arc::new(Shared::new(
            fs,
            dir.to_owned(),
            opened.id,
            limits,
            opened.log,
        ));
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn({
                let shared = shared.clone();
                move || writer::run(shared, opened.active, opened.lock)
            });
        let thread = thread.map_err(|source| OpenError::Io {
            path: dir.to_owned(),
            source,
        })?;
        let inner = Inner {
            shared,
            thread: Some(thread),
        };
        Ok((
            Journal {
                inner: Arc::new(inner),
            },
            opened.recovery,
        ))
    }

    /// Random, made when the journal was created.
    pub fn id(&self) -> u64 {
        self.inner.shared.id
    }

    /// Queues records (all stamped `time`, ns since the epoch) for the next group; returns their
    /// offsets at once. They are durable when `outcome(last)` says so. Never blocks on the disk.
    /// All of one call share a fate, unless they are more than a segment holds.
    ///
    /// # Errors
    /// Nothing was queued: see [`AppendError`].
    pub fn append(&self, time: u64, records: &Records) -> Result<Range<u64>, AppendError> {
        let Shared {
            limits,
            pending,
            key,
            wake,
            ..
        } = &*self.inner.shared;
        if records.largest() > limits.max_record {
            return Err(AppendError::TooLarge {
                size: records.largest(),
                limit: limits.max_record,
            });
        }
        let frames = records.frames();
        let mut pending = pending.lock();
        if pending.poisoned {
            return Err(AppendError::Poisoned);
        }
        let waiting = pending.bytes();
        if waiting > 0 && waiting + frames.len() > limits.pending_bytes {
            return Err(AppendError::Busy);
        }
        if limits.on_full == OnFull::Refuse {
            let bytes = pending.held + limits.framed(waiting + frames.len());
            if bytes + limits.reserve > limits.max_bytes {
                return Err(AppendError::Full {
                    bytes: pending.held,
                });
            }
        }
        if records.is_empty() {
            return Ok(pending.next..pending.next);
        }
        let range = pending.push(frames, records.len(), time, *key);
        drop(pending);
        wake.notify_one();
        Ok(range)
    }

    /// Every offset below this is decided: durable or failed.
    pub fn settled(&self) -> u64 {
        self.inner.shared.settled.load(Ordering::Acquire)
    }

    /// What became of `offset`. Below the first offset of this opening it is `Durable`. Only the last
    /// some thousand separate failures are remembered; older offsets are called failed then.
    pub fn outcome(&self, offset: u64) -> Outcome {
        self.inner.shared.outcome(offset)
    }

    /// Calls `notify` from the writer thread after every group, with the new `settled()`. Any number
    /// may be registered. It must be quick, and must not own the journal or it is never closed.
    pub fn on_settled(&self, notify: impl Fn(u64) + Send + Sync + 'static) {
        self.inner.shared.listen(Arc::new(notify));
    }

    /// Calls `timed` from the writer thread after every sync of a group, with how long it took. The same
    /// rules hold.
    pub fn on_synced(&self, timed: impl Fn(Duration) + Send + Sync + 'static) {
        self.inner.shared.time(Arc::new(timed));
    }

    /// Blocks until `offset`, which must have been given by `append`, is decided.
    pub fn wait(&self, offset: u64) -> Outcome {
        self.inner.shared.wait(offset)
    }

    /// Oldest offset still held.
    pub fn first(&self) -> u64 {
        self.inner.shared.log.read().first()
    }

    /// Next offset to be given.
    pub fn next(&self) -> u64 {
        self.inner.shared.pending.lock().next
    }

    /// Gives no offset below `offset` from now on; those between are called failed. For who knows that
    /// they were given before, to records that are lost. Before the first append.
    pub fn skip_to(&self, offset: u64) {
        let skipped = {
            let mut pending = self.inner.shared.pending.lock();
            let skipped = pending.next..offset;
            pending.next = pending.next.max(offset);
            skipped
        };
        if !skipped.is_empty() {
            self.inner.shared.fail(skipped, Failure::Io, 0);
        }
    }

    /// First settled offset whose record's time is at or after `time`; `settled()` when there is none.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn offset_at(&self, time: u64) -> Result<u64, ReadError> {
        reader::offset_at(&self.inner.shared, time)
    }

    /// Reads settled durable records from `from` on. What was deleted before `first` is reported as
    /// missed; a `from` beyond `next` is taken for `next`.
    pub fn reader(&self, from: u64) -> Reader {
        Reader::new(self.inner.shared.clone(), from)
    }

    /// Deletes whole segments below `offset`.
    ///
    /// # Errors
    /// When a file cannot be removed; it is tried again with the next deletion.
    pub fn release(&self, offset: u64) -> Result<(), std::io::Error> {
        while self
            .inner
            .shared
            .drop_oldest(Why::Released, |segment| segment.end <= offset)?
        {}
        Ok(())
    }

    /// The segments that are no longer written to, oldest first.
    pub fn closed(&self) -> Vec<Closed> {
        let log = self.inner.shared.log.read();
        let closed = log.segments.len().saturating_sub(1);
        let segments = log.segments.iter().take(closed);
        segments
            .map(|segment| Closed {
                first: segment.first,
                end: segment.end,
                bytes: segment.bytes + segment.index_bytes,
            })
            .collect()
    }

    /// For the records that are to stand in the place of others, see [`replace`](Journal::replace).
    pub fn replacement(&self) -> Replacement {
        Replacement::new(self.inner.shared.key)
    }

    /// Replaces the closed segments between `from` and `through` (the first one's `first` and the
    /// last one's `end`) by one that holds `with`, durably (blocking file writes). The caller has
    /// seen to it that what is left out is not wanted any more. Readers go on with the new records.
    ///
    /// # Errors
    /// Nothing was replaced, and it may be tried again unless the journal is poisoned.
    pub fn replace(&self, from: u64, through: u64, with: &Replacement) -> Result<(), ReplaceError> {
        replace::replace(&self.inner.shared, from, through, with)
    }

    /// Applies retention by age at `now` (ns); by bytes it is applied as segments are added.
    ///
    /// # Errors
    /// When a file cannot be removed; it is tried again with the next deletion.
    pub fn retain(&self, now: u64) -> Result<(), std::io::Error> {
        let Shared {
            limits,
            pending,
            wake,
            log,
            ..
        } = &*self.inner.shared;
        let Some(before) = limits.max_age.and_then(|age| now.checked_sub(age)) else {
            return Ok(());
        };
        self.inner.shared.drop_expired(before)?;
        let last = log
            .read()
            .segments
            .back()
            .is_some_and(|s| s.records > 0 && s.max_time < before);
        if last {
            pending.lock().expire = Some(before);
            wake.notify_one();
        }
        Ok(())
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        let (next, pending_bytes, poisoned) = {
            let pending = self.inner.shared.pending.lock();
            (pending.next, pending.bytes() as u64, pending.poisoned)
        };
        let log = self.inner.shared.log.read();
        Stats {
            bytes: log.held(),
            segments: log.segments.len() as u64,
            first: log.first(),
            next,
            pending_bytes,
            quarantined_records: log.quarantined,
            cut_records: log.cut_records,
            syncs: log.syncs,
            sync_ns_total: log.sync_ns,
            poisoned,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.pending.lock().closing = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && !is_current(thread.thread())
            && thread.join().is_err()
        {
            tracing::error!(dir = %self.shared.dir.display(), "the writer thread panicked");
        }
        self.shared.forget_listeners();
    }
}

/// A callback that drops the last handle runs on the thread itself, which cannot wait for its own end.
fn is_current(thread: &Thread) -> bool {
    thread.id() == std::thread::current().id()
}
