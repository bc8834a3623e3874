//! The writer thread: takes what is pending as one group, writes it, syncs once, publishes.
//! It alone writes segments; it also makes room for them.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::format::SEGMENT_HEADER;
use crate::fs::{Lock, write_all};
use crate::index;
use crate::log::Segment;
use crate::pending::Block;
use crate::records::{Prefix, prefix};
use crate::recover::{Active, make_segment, write_index};
use crate::shared::{Part, Shared, Why};
use crate::{Failure, OnFull};

pub(crate) struct Writer {
    shared: Arc<Shared>,
    active: Active,
    /// Written to the active segment since the last sync.
    unsynced: Vec<Part>,
}

enum Work {
    Group(Vec<Block>),
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

/// The thread's body; returns when the journal is closed, and only then lets go of the directory.
pub(crate) fn run(shared: Arc<Shared>, active: Active, _lock: Lock) {
    let _guard = Unwinding(shared.clone());
    let mut writer = Writer {
        shared,
        active,
        unsynced: Vec::new(),
    };
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
    fn next(&self) -> Work {
        let mut pending = self.shared.pending.lock();
        loop {
            if let Some(before) = pending.expire.take() {
                return Work::Expire(before);
            }
            let group = pending.take();
            if !group.is_empty() {
                return Work::Group(group);
            }
            if pending.closing {
                return Work::Close;
            }
            self.shared.wake.wait(&mut pending);
        }
    }

    /// Writes and syncs a group, and tells what became of it: all of it or, when something fails,
    /// what was written before.
    fn commit(&mut self, group: Vec<Block>) {
        let room = self
            .shared
            .limits
            .segment_bytes
            .saturating_sub(SEGMENT_HEADER as u64);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let mut parts: VecDeque<Part> = group
            .into_iter()
            .flat_map(|block| parts(block, room))
            .collect();
        let end = parts.back().map_or(0, |last| last.end);
        let mut result = Ok(());
        while let Some(part) = parts.pop_front() {
            result = self.write(&part);
            if result.is_err() {
                parts.push_front(part);
                break;
            }
            self.unsynced.push(part);
        }
        // After a failed sync there is no second try: it might well succeed, with the data lost.
        if !matches!(result, Err(Fault::Poisoned(_))) {
            result = self.sync().and(result);
        }
        match result {
            Ok(()) => {}
            Err(Fault::Poisoned(error)) => self.poison(&error),
            Err(Fault::Failed(failure)) => {
                let first = parts.front().map_or(end, |part| part.first);
                let bytes = parts.iter().map(|part| part.frames.len()).sum();
                self.shared.fail(first..end, failure, bytes);
            }
        }
    }

    fn write(&mut self, part: &Part) -> Result<(), Fault> {
        let bytes = part.frames.len() as u64;
        self.place(bytes, part.first)?;
        let at = self.active.len;
        if let Err(error) = write_all(&*self.active.file, &part.frames, at) {
            tracing::warn!(dir = %self.shared.dir.display(), bytes, %error, "a group failed");
            self.take_back()?;
            return Err(Fault::Failed(kind(&error)));
        }
        self.active.len += bytes;
        Ok(())
    }

    /// Makes durable and publishes what was written.
    fn sync(&mut self) -> Result<(), Fault> {
        if self.unsynced.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        self.active.file.sync().map_err(Fault::Poisoned)?;
        self.shared
            .publish(std::mem::take(&mut self.unsynced), started.elapsed());
        Ok(())
    }

    /// Removes what was half written, durably: it will be called failed, so it must not come back.
    fn take_back(&self) -> Result<(), Fault> {
        let Active { file, len, .. } = &self.active;
        file.truncate(*len)
            .and_then(|()| file.sync())
            .map_err(Fault::Poisoned)
    }

    /// Makes room for `bytes` in the active segment, or in a new one that starts at `first`.
    fn place(&mut self, bytes: u64, first: u64) -> Result<(), Fault> {
        let limits = &self.shared.limits;
        let empty = self.active.len <= SEGMENT_HEADER as u64;
        let full = !empty && self.active.len + bytes > limits.segment_bytes;
        let mut roll = self.active.sealed || full;
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
            self.sync()?;
            self.roll(first)?;
            while self.over(bytes) && self.cut()? {}
        }
        Ok(())
    }

    /// Whether `bytes` more, and what it takes to close segments, would be too much.
    fn over(&self, bytes: u64) -> bool {
        let limits = &self.shared.limits;
        let unsynced: u64 = self
            .unsynced
            .iter()
            .map(|part| part.frames.len() as u64)
            .sum();
        let kept = limits.overhead + limits.reserve;
        self.shared.log.read().held() + unsynced + bytes + kept > limits.max_bytes
    }

    /// Deletes the oldest segment, if there is one besides the last.
    fn cut(&self) -> Result<bool, Fault> {
        self.shared.drop_oldest(Why::Room, |_| true).map_err(|error| {
            tracing::warn!(dir = %self.shared.dir.display(), %error, "the oldest segment could not be deleted");
            Fault::Failed(kind(&error))
        })
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
            len: SEGMENT_HEADER as u64,
            sealed: false,
        };
        Ok(())
    }

    fn write_index(&self) {
        let Shared {
            fs, dir, id, log, ..
        } = &*self.shared;
        let Some((name, index)) = log.read().index() else {
            return;
        };
        let bytes = write_index(&**fs, dir, *id, name, &index);
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

/// A block in pieces that fit in a segment: nearly always itself.
fn parts(block: Block, room: usize) -> Vec<Part> {
    let Block {
        frames,
        first,
        end,
        max_time,
    } = block;
    let cost = frames.capacity();
    let mut rest = Bytes::from(frames);
    if rest.len() <= room {
        return vec![Part {
            first,
            end,
            records: end - first,
            max_time,
            frames: rest,
            cost,
        }];
    }
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let Prefix {
            bytes,
            records,
            last,
            max_time,
        } = prefix(&rest, room);
        let first = last + 1 - records;
        let frames = rest.split_to(bytes);
        parts.push(Part {
            first,
            end: last + 1,
            records,
            max_time,
            frames,
            cost: bytes,
        });
    }
    parts
}

fn kind(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::WriteZero => {
            Failure::NoSpace
        }
        _ => Failure::Io,
    }
}
