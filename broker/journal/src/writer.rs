//! The writer thread: takes what is pending as one group, writes it with one call, syncs, publishes.
//! It alone writes segments; it also makes room for them.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::format::SEGMENT_HEADER;
use crate::fs::write_all;
use crate::index;
use crate::log::Segment;
use crate::records::{Prefix, prefix};
use crate::recover::{Active, make_segment, write_index};
use crate::shared::{Pending, Shared, Why};
use crate::{Failure, OnFull};

pub(crate) struct Writer {
    shared: Arc<Shared>,
    active: Active,
}

/// What was pending when the disk became idle.
struct Group {
    buf: Vec<u8>,
    first: u64,
    end: u64,
    max_time: u64,
}

enum Work {
    Group(Group),
    /// Close the last segment if it is older than this, ns.
    Expire(u64),
    Close,
}

/// Why a part was not stored.
enum Fault {
    Failed(Failure),
    /// A sync failed, or what was half written cannot be taken back.
    Poisoned(io::Error),
}

/// Fails everything if the writer thread ever unwinds, so that nobody waits for it.
struct Unwinding(Arc<Shared>);

impl Drop for Unwinding {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison();
        }
    }
}

/// The thread's body; returns when the journal is closed.
pub(crate) fn run(shared: Arc<Shared>, active: Active) {
    let _guard = Unwinding(shared.clone());
    let mut writer = Writer { shared, active };
    loop {
        match writer.next() {
            Work::Group(group) => writer.commit(group),
            Work::Expire(before) => writer.expire(before),
            Work::Close => break,
        }
    }
    writer.close();
}

impl Writer {
    /// Waits for something to do. The buffer is swapped for a new one: the old one goes on living as
    /// the group in memory.
    fn next(&self) -> Work {
        let mut pending = self.shared.pending.lock();
        loop {
            if let Some(before) = pending.expire.take() {
                return Work::Expire(before);
            }
            if !pending.buf.is_empty() {
                return Work::Group(take_group(&mut pending));
            }
            if pending.closing {
                return Work::Close;
            }
            self.shared.wake.wait(&mut pending);
        }
    }

    fn commit(&mut self, group: Group) {
        let mut spare = group.buf.capacity();
        let mut rest = Bytes::from(group.buf);
        let mut first = group.first;
        while !rest.is_empty() {
            let part = self.part(&rest, first, group.end, group.max_time);
            if let Err(fault) = self.store(&rest[..part.bytes], first) {
                match fault {
                    Fault::Failed(failure) => {
                        self.shared.fail(first..group.end, failure, rest.len())
                    }
                    Fault::Poisoned(error) => self.poison(&error),
                }
                return;
            }
            let frames = rest.split_to(part.bytes);
            let cost = if rest.is_empty() { spare } else { part.bytes };
            spare = spare.saturating_sub(part.bytes);
            self.shared.publish(first, part, frames, cost);
            first = part.last + 1;
        }
    }

    /// As much of a group as goes into one segment: nearly always all of it.
    fn part(&self, rest: &Bytes, first: u64, end: u64, max_time: u64) -> Prefix {
        let whole = rest.len() as u64 + SEGMENT_HEADER as u64 <= self.shared.limits.segment_bytes;
        if whole {
            return Prefix {
                bytes: rest.len(),
                records: end - first,
                last: end - 1,
                max_time,
            };
        }
        let room = self
            .shared
            .limits
            .segment_bytes
            .saturating_sub(SEGMENT_HEADER as u64);
        prefix(rest, usize::try_from(room).unwrap_or(usize::MAX))
    }

    fn store(&mut self, frames: &[u8], first: u64) -> Result<(), Fault> {
        let at = self.place(frames.len() as u64, first)?;
        if let Err(error) = write_all(&*self.active.file, frames, at) {
            tracing::warn!(dir = %self.shared.dir.display(), bytes = frames.len(), %error, "a group failed");
            self.take_back(at)?;
            return Err(Fault::Failed(kind(&error)));
        }
        let started = Instant::now();
        self.active.file.sync().map_err(Fault::Poisoned)?;
        let took = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut log = self.shared.log.write();
        log.syncs += 1;
        log.sync_ns = log.sync_ns.saturating_add(took);
        Ok(())
    }

    /// Removes a half-written group, durably: it will be called failed, so it must not come back.
    fn take_back(&self, len: u64) -> Result<(), Fault> {
        let file = &self.active.file;
        file.truncate(len)
            .and_then(|()| file.sync())
            .map_err(Fault::Poisoned)
    }

    /// Makes room for `bytes` and returns where in the active segment they go.
    fn place(&mut self, bytes: u64, first: u64) -> Result<u64, Fault> {
        let limits = &self.shared.limits;
        let (used, empty) = self.used();
        let mut roll = self.active.sealed || (!empty && used + bytes > limits.segment_bytes);
        while self.over(bytes) {
            if limits.on_full == OnFull::Refuse {
                return Err(Fault::Failed(Failure::NoSpace));
            }
            if !self.cut()? {
                // Only the segment that is written to is left: it goes once it is not the last.
                roll |= !empty;
                break;
            }
        }
        if roll {
            self.roll(first)?;
            while self.over(bytes) && self.cut()? {}
        }
        Ok(self.used().0)
    }

    /// Whether `bytes` more, and what it takes to close segments, would be too much.
    fn over(&self, bytes: u64) -> bool {
        let limits = &self.shared.limits;
        self.shared.log.read().held() + bytes + limits.overhead > limits.max_bytes
    }

    /// Deletes the oldest segment, if there is one besides the last.
    fn cut(&self) -> Result<bool, Fault> {
        self.shared.drop_oldest(Why::Room, |_| true).map_err(|error| {
            tracing::warn!(dir = %self.shared.dir.display(), %error, "the oldest segment could not be deleted");
            Fault::Failed(kind(&error))
        })
    }

    /// Bytes in the active segment, and whether it has no record.
    fn used(&self) -> (u64, bool) {
        let log = self.shared.log.read();
        log.segments
            .back()
            .map_or((0, true), |s| (s.bytes, s.bytes <= SEGMENT_HEADER as u64))
    }

    /// Closes the active segment and makes the one that starts at `first`.
    fn roll(&mut self, first: u64) -> Result<(), Fault> {
        self.write_index();
        let Shared { fs, dir, id, .. } = &*self.shared;
        let made = make_segment(&**fs, dir, *id, first).map_err(|error| {
            tracing::warn!(dir = %dir.display(), %error, "a new segment could not be made");
            Fault::Failed(kind(&error))
        })?;
        let file = made.map_err(Fault::Poisoned)?;
        let mut log = self.shared.log.write();
        log.segments.push_back(Segment::empty(first, &file));
        log.marks = index::Marks::default();
        drop(log);
        self.active = Active {
            file,
            sealed: false,
        };
        Ok(())
    }

    fn write_index(&self) {
        let Shared {
            fs, dir, id, log, ..
        } = &*self.shared;
        let Some(index) = log.read().index() else {
            return;
        };
        let bytes = write_index(&**fs, dir, *id, &index);
        if let Some(last) = log.write().segments.back_mut() {
            last.index_bytes = bytes;
        }
    }

    /// Closes the last segment and deletes it when all its records are older than `before`.
    fn expire(&mut self, before: u64) {
        let due = self
            .shared
            .log
            .read()
            .segments
            .back()
            .is_some_and(|s| s.records > 0 && s.max_time < before);
        if !due || self.shared.pending.lock().poisoned {
            return;
        }
        let first = self.shared.log.read().settled;
        match self.roll(first) {
            Ok(()) => {
                if let Err(error) = self.shared.drop_expired(before) {
                    tracing::warn!(dir = %self.shared.dir.display(), %error, "an expired segment stays");
                }
            }
            Err(Fault::Failed(_)) => {}
            Err(Fault::Poisoned(error)) => self.poison(&error),
        }
    }

    fn poison(&self, error: &io::Error) {
        tracing::error!(dir = %self.shared.dir.display(), %error,
            "a sync failed: nothing more is acknowledged until the journal is opened again");
        self.active.file.forget_cache();
        self.shared.poison();
    }

    /// Leaves an index behind, so that the next opening need not scan.
    fn close(&self) {
        if !self.shared.pending.lock().poisoned && !self.active.sealed {
            self.write_index();
        }
    }
}

fn take_group(pending: &mut Pending) -> Group {
    let spare = Vec::with_capacity(pending.buf.len().next_power_of_two().clamp(512, 1 << 20));
    let buf = std::mem::replace(&mut pending.buf, spare);
    pending.in_flight = buf.len();
    let group = Group {
        buf,
        first: pending.first,
        end: pending.next,
        max_time: pending.max_time,
    };
    pending.max_time = 0;
    group
}

fn kind(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::WriteZero => {
            Failure::NoSpace
        }
        _ => Failure::Io,
    }
}
