//! Puts one segment in the place of closed ones that follow each other: the same records or fewer,
//! as they are or smaller, under the same offsets. A crash at any point leaves the old ones or the
//! new one.

use std::io;

use crate::format::{self, Name, RECORD_HEADER, SEGMENT_HEADER};
use crate::fs::write_all;
use crate::index::{self, Index};
use crate::log::Segment;
use crate::recover::write_index;
use crate::shared::{Shared, Why};

/// The records that are to stand in the place of others; made by
/// [`Journal::replacement`](crate::Journal::replacement).
#[derive(Clone, Debug)]
pub struct Replacement {
    frames: Vec<u8>,
    key: u32,
    records: u64,
    /// Of the first record, and one past the last.
    first: Option<u64>,
    end: u64,
    max_time: u64,
}

impl Replacement {
    pub(crate) fn new(key: u32) -> Replacement {
        Replacement {
            frames: Vec::new(),
            key,
            records: 0,
            first: None,
            end: 0,
            max_time: 0,
        }
    }

    /// Adds a record, written by `fill` at the end of the buffer it is handed. Offsets ascend, and
    /// are those of records that are replaced.
    ///
    /// # Panics
    /// If `fill` shortens the buffer: it may only append.
    pub fn push_with(&mut self, offset: u64, time: u64, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = format::open_frame(&mut self.frames);
        fill(&mut self.frames);
        assert!(
            self.frames.len() >= start + RECORD_HEADER,
            "push_with: fill shortened the buffer"
        );
        format::close_frame(&mut self.frames, start);
        format::stamp(&mut self.frames[start..], offset, time, self.key);
        self.records += 1;
        self.first.get_or_insert(offset);
        self.end = offset + 1;
        self.max_time = self.max_time.max(time);
    }

    /// Bytes the records take, framing included.
    pub fn bytes(&self) -> usize {
        self.frames.len()
    }
}

/// Why nothing was replaced.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    /// The offsets are not the bounds of closed segments, or the records are not within them.
    #[error("{from}..{through} are not closed segments that hold these records")]
    Range {
        /// First offset.
        from: u64,
        /// One past the last.
        through: u64,
    },
    /// The old and the new segments together would be more than the journal may hold.
    #[error("no room for {bytes} bytes beside the segments they are to replace")]
    NoRoom {
        /// Bytes of the new segment.
        bytes: u64,
    },
    /// The new segment could not be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// See [`Failure::Poisoned`](crate::Failure::Poisoned).
    #[error("a sync failed; the journal takes nothing until it is opened again")]
    Poisoned,
}

pub(crate) fn replace(
    shared: &Shared,
    from: u64,
    through: u64,
    with: &Replacement,
) -> Result<(), ReplaceError> {
    let _changing = shared.changing.lock();
    if shared.pending.lock().poisoned {
        return Err(ReplaceError::Poisoned);
    }
    let within = with.first.is_none_or(|first| first >= from) && with.end <= through;
    let run = shared.log.read().run(from, through);
    let run = run.filter(|_| within);
    let run = run.ok_or(ReplaceError::Range { from, through })?;
    let name = Name {
        first: from,
        through: Some(through),
    };
    let bytes = (SEGMENT_HEADER + with.frames.len()) as u64;
    reserve(shared, bytes)?;
    if let Err(error) = write(shared, name, with).and_then(|()| forget_index(shared, name)) {
        give_back(shared, name);
        return Err(error.into());
    }
    let Shared { fs, dir, .. } = shared;
    let renamed = fs.rename(&dir.join(name.unfinished()), &dir.join(name.segment()));
    if let Err(error) = renamed {
        give_back(shared, name);
        return Err(error.into());
    }
    let synced = fs.sync_dir(dir);
    let segment = Segment {
        first: from,
        through: Some(through),
        version: 0,
        end: through,
        bytes,
        index_bytes: match synced {
            Ok(()) => make_index(shared, name, with, bytes),
            Err(_) => 0,
        },
        records: with.records,
        max_time: with.max_time,
        file: None,
    };
    let dead = {
        let mut log = shared.log.write();
        log.reserved = 0;
        log.frozen = synced.is_err();
        log.replace(run, segment)
    };
    if let Err(error) = synced {
        // Whether the new name is there after a power cut nobody knows: the old files stay, and
        // opening sorts it out.
        tracing::error!(dir = %dir.display(), %error, "a sync failed while segments were replaced");
        shared.poison();
        return Err(ReplaceError::Poisoned);
    }
    shared.log.write().dead.extend(dead);
    if let Err(error) = shared.bury(Why::Released) {
        tracing::warn!(dir = %dir.display(), %error, "replaced segments stay on disk for now");
    }
    shared.count_held();
    Ok(())
}

/// Counts the new segment before it is there, if it may be.
fn reserve(shared: &Shared, bytes: u64) -> Result<(), ReplaceError> {
    let needed = bytes + index::largest(bytes);
    let mut pending = shared.pending.lock();
    let mut log = shared.log.write();
    let waiting = shared.limits.framed(pending.bytes());
    if log.held() + waiting + needed > shared.limits.max_bytes {
        return Err(ReplaceError::NoRoom { bytes });
    }
    log.reserved = needed;
    pending.held = log.held();
    Ok(())
}

/// Nothing was replaced: what was written of the new segment goes.
fn give_back(shared: &Shared, name: Name) {
    let path = shared.dir.join(name.unfinished());
    match shared.fs.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            // It goes on being counted until the next attempt, which writes over it.
            tracing::warn!(path = %path.display(), %error, "an unfinished segment stays");
        }
        _ => shared.log.write().reserved = 0,
    }
    shared.count_held();
}

fn write(shared: &Shared, name: Name, with: &Replacement) -> io::Result<()> {
    let file = shared.fs.create(&shared.dir.join(name.unfinished()))?;
    let header = format::encode_segment_header(shared.id, name.first);
    write_all(&*file, &header, 0)?;
    write_all(&*file, &with.frames, SEGMENT_HEADER as u64)?;
    file.sync()
}

/// A segment that is replaced by one of the same name: its sidecar must not be taken for the new
/// one's.
fn forget_index(shared: &Shared, name: Name) -> io::Result<()> {
    let Shared { fs, dir, .. } = shared;
    match fs.remove(&dir.join(name.index())) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(()) => {}
    }
    let mut log = shared.log.write();
    if let Some(old) = log.segments.iter_mut().find(|s| s.name() == name) {
        old.index_bytes = 0;
    }
    drop(log);
    fs.sync_dir(dir)
}

fn make_index(shared: &Shared, name: Name, with: &Replacement, bytes: u64) -> u64 {
    let mut marks = index::Marks::default();
    let mut at = 0;
    let mut time = 0;
    while let Some(head) = with.frames.get(at..).and_then(format::Head::read) {
        marks.note(head.offset, (SEGMENT_HEADER + at) as u64, time);
        time = time.max(head.time);
        at += head.frame();
    }
    let index = Index {
        first: name.first,
        end: name.through.unwrap_or(with.end),
        bytes,
        records: with.records,
        max_time: with.max_time,
        damaged: 0,
        marks: marks.into_inner(),
    };
    write_index(&*shared.fs, &shared.dir, shared.id, name, &index)
}
