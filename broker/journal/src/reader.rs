//! Readers: from memory at the tail, from disk in big blocks behind it. A reader takes the log's
//! lock only to look up where to read.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::ReadError;
use crate::format::SEGMENT_HEADER;
use crate::fs::FsFile;
use crate::index::{self, Mark};
use crate::log::View;
use crate::records::{Chunk, prefix, skip_to};
use crate::recover::read_index;
use crate::scan::{Run, Step, Walk};
use crate::shared::Shared;
use crate::tail::{Group, Lookup};

/// Disk reads are no smaller and no larger than this, but for records that are larger.
const LEAST_BLOCK: usize = 4 << 10;
const MOST_BLOCK: usize = 1 << 20;

/// One reader's place. Independent of every other; holds no lock between calls. It outlives its
/// journal: what was settled can still be read.
pub struct Reader {
    shared: Arc<Shared>,
    offset: u64,
    place: Place,
    /// Not yet reported.
    missed: u64,
    quarantined: u64,
}

/// Where the record at `Reader::offset` is, as far as is known from the last call.
enum Place {
    Unknown,
    /// Bytes into the group in memory that starts with this offset.
    Memory(u64, usize),
    /// In the segment with this first offset and version: its file, a position, the least offset
    /// from there on.
    Disk((u64, u64), Arc<dyn FsFile>, u64, u64),
}

enum Found {
    End,
    Memory(Group),
    Disk(View),
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, from: u64) -> Reader {
        // A cursor may lie beyond what a damaged or replaced journal holds: what comes now is new to it.
        let offset = from.min(shared.pending.lock().next);
        Reader {
            shared,
            offset,
            place: Place::Unknown,
            missed: 0,
            quarantined: 0,
        }
    }

    /// Everything below was returned, missed or never stored.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next records out of memory, when the reader is at the tail. `None`: at the end or not in
    /// memory. Touches no file.
    pub fn poll_memory(&mut self) -> Option<Chunk> {
        if self.offset >= self.shared.settled.load(Ordering::Acquire) {
            return None;
        }
        match self.find() {
            Found::Memory(group) => Some(self.take_memory(&group, usize::MAX)),
            Found::End | Found::Disk(_) => None,
        }
    }

    /// The next records, from memory or disk (blocking file reads), up to about `max_bytes`. `None`:
    /// at the end.
    ///
    /// # Errors
    /// When a file cannot be opened or read. The place is kept: the call may be repeated. Damaged
    /// records are no error, they are stepped over and counted.
    pub fn read(&mut self, max_bytes: usize) -> Result<Option<Chunk>, ReadError> {
        let mut vanished = None;
        loop {
            let view = match self.find() {
                Found::End => return Ok(None),
                Found::Memory(group) => return Ok(Some(self.take_memory(&group, max_bytes))),
                Found::Disk(view) => view,
            };
            match self.step_disk(&view, max_bytes) {
                Ok(Some(run)) => return Ok(Some(self.chunk(run))),
                Ok(None) => {}
                // Deleted between the look-up and the opening: the next look-up knows. Once only.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && vanished != Some(view.first) =>
                {
                    vanished = Some(view.first);
                    self.place = Place::Unknown;
                }
                Err(source) => {
                    return Err(ReadError {
                        path: self.shared.dir.join(view.name.segment()),
                        source,
                    });
                }
            }
        }
    }

    /// Where the next record is; steps over what was deleted or failed.
    fn find(&mut self) -> Found {
        let log = self.shared.log.read();
        let first = log.first();
        if self.offset < first {
            self.missed += log.cuts.missed(self.offset, first);
            self.offset = first;
            self.place = Place::Unknown;
        }
        match log.tail.lookup(self.offset) {
            Lookup::At(group) => return Found::Memory(group.clone()),
            Lookup::End => {
                self.offset = self.offset.max(log.settled);
                return Found::End;
            }
            Lookup::Behind => {}
        }
        match log.view(self.offset) {
            Some(view) => Found::Disk(view),
            None => {
                self.offset = self.offset.max(log.settled);
                Found::End
            }
        }
    }

    fn take_memory(&mut self, group: &Group, max_bytes: usize) -> Chunk {
        let from = match self.place {
            Place::Memory(first, at) if first == group.first => at,
            _ => 0,
        };
        let start = skip_to(&group.frames, from, self.offset);
        let mut frames = group.frames.slice(start..);
        let mut end = group.end;
        if frames.len() > max_bytes {
            let part = prefix(&frames, max_bytes);
            frames.truncate(part.bytes);
            end = part.last + 1;
        }
        self.place = Place::Memory(group.first, start + frames.len());
        self.offset = end;
        self.report(Chunk {
            frames,
            end,
            ..Chunk::default()
        })
    }

    fn report(&mut self, mut chunk: Chunk) -> Chunk {
        chunk.missed = std::mem::take(&mut self.missed);
        chunk.quarantined = std::mem::take(&mut self.quarantined);
        chunk
    }

    /// The next run of the segment; `None` when there was none to return and the offset moved on.
    fn step_disk(&mut self, view: &View, max_bytes: usize) -> io::Result<Option<Run>> {
        let (file, pos, next) = match std::mem::replace(&mut self.place, Place::Unknown) {
            Place::Disk(at, file, pos, next) if at == (view.first, view.version) => {
                (file, pos, next)
            }
            _ => {
                let file = open(&self.shared, view)?;
                let mark = match view.mark {
                    Some(mark) => mark,
                    None => marks(&self.shared, view, |marks| {
                        index::before_offset(marks, self.offset)
                    })?,
                };
                (file, mark.pos, mark.offset)
            }
        };
        let mut walk = walk(&self.shared, view, file, pos, next);
        let block = max_bytes.clamp(LEAST_BLOCK, MOST_BLOCK);
        // Damage that is met on the way to this reader's place is not its own.
        let mut met = 0;
        loop {
            match walk.step(block)? {
                Step::Run(run) if run.end > self.offset => {
                    if run.first > self.offset {
                        self.quarantined += met;
                    }
                    let at = (view.first, view.version);
                    self.place = Place::Disk(at, walk.file, walk.pos, walk.next);
                    return Ok(Some(run));
                }
                Step::Run(_) => met = 0,
                Step::Damaged { at, bytes } => {
                    met += 1;
                    self.note_damage(view, at, bytes);
                }
                Step::Torn { at, bytes } => {
                    self.note_damage(view, at, bytes);
                    self.quarantined += met + 1;
                    self.offset = view.end;
                    return Ok(None);
                }
                Step::End => {
                    self.quarantined += met;
                    self.offset = view.end;
                    return Ok(None);
                }
            }
        }
    }

    fn chunk(&mut self, run: Run) -> Chunk {
        let start = if run.first < self.offset {
            skip_to(&run.frames, 0, self.offset)
        } else {
            0
        };
        self.offset = run.end;
        self.report(Chunk {
            frames: run.frames.slice(start..),
            end: run.end,
            ..Chunk::default()
        })
    }

    fn note_damage(&self, view: &View, at: u64, bytes: u64) {
        if self.shared.log.write().note_damage(view.first, at) {
            let path = self.shared.dir.join(view.name.segment());
            tracing::warn!(path = %path.display(), at, bytes, "damaged place skipped");
        }
    }
}

/// The open file of a segment, shared with the other readers in it.
fn open(shared: &Shared, view: &View) -> io::Result<Arc<dyn FsFile>> {
    if let Some(file) = &view.file {
        return Ok(file.clone());
    }
    let file = shared
        .fs
        .open(&shared.dir.join(view.name.segment()), false)?;
    shared.log.write().share(view, &file);
    Ok(file)
}

/// A mark out of the segment's sidecar; its start when there is none.
fn marks(
    shared: &Shared,
    view: &View,
    pick: impl FnOnce(&[Mark]) -> Option<Mark>,
) -> io::Result<Mark> {
    let start = Mark {
        offset: view.first,
        pos: SEGMENT_HEADER as u64,
        time: 0,
    };
    if view.index_bytes == 0 {
        return Ok(start);
    }
    let index = read_index(
        &*shared.fs,
        &shared.dir,
        shared.id,
        view.name,
        view.index_bytes,
    )?;
    Ok(index
        .filter(|index| index.bytes == view.bytes)
        .and_then(|index| pick(&index.marks))
        .unwrap_or(start))
}

fn walk(shared: &Shared, view: &View, file: Arc<dyn FsFile>, pos: u64, next: u64) -> Walk {
    Walk {
        file,
        key: shared.key,
        pos,
        limit: view.bytes,
        next,
        bound: view.end,
    }
}

/// The first offset whose record's time is at or after `time`; the end when there is none.
pub(crate) fn offset_at(shared: &Shared, time: u64) -> Result<u64, ReadError> {
    let mut after = 0;
    loop {
        let view = {
            let log = shared.log.read();
            match log.view_at(after, time) {
                Some(view) => view,
                None => return Ok(log.settled),
            }
        };
        match search(shared, &view, time) {
            Ok(Some(offset)) => return Ok(offset),
            Ok(None) => after = view.end,
            Err(error) if error.kind() == io::ErrorKind::NotFound && after < view.end => {
                after = view.end
            }
            Err(source) => {
                return Err(ReadError {
                    path: shared.dir.join(view.name.segment()),
                    source,
                });
            }
        }
    }
}

fn search(shared: &Shared, view: &View, time: u64) -> io::Result<Option<u64>> {
    let file = open(shared, view)?;
    let mark = match view.mark {
        Some(mark) => mark,
        None => marks(shared, view, |marks| index::before_time(marks, time))?,
    };
    let mut walk = walk(shared, view, file, mark.pos, mark.offset);
    loop {
        match walk.step(MOST_BLOCK)? {
            Step::Run(run) if run.max_time >= time => {
                let chunk = Chunk {
                    frames: run.frames,
                    ..Chunk::default()
                };
                return Ok(chunk
                    .records()
                    .find(|record| record.time >= time)
                    .map(|record| record.offset));
            }
            Step::Run(_) | Step::Damaged { .. } => {}
            Step::Torn { .. } | Step::End => return Ok(None),
        }
    }
}
