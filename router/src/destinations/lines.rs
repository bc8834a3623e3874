//! A file of lines that holds every event exactly once, over crashes.
//!
//! ```text
//! <folder>/events.<extension>            what is being written; one event a line
//! <folder>/events-<number>.<extension>   rotated, oldest first
//! ```
//!
//! Data is synced, then the state says how much of the file counts, then the broker is told. So on
//! start whatever lies beyond the recorded length was promised to nobody and is cut; it comes again.
//! Lines are written at positions of our own keeping, so a short or failed write is simply repeated.
//!
//! Rotation happens right after a commit, when nothing is uncommitted: rename, new file, folder
//! synced. If the process dies before the next commit, the state still names the old number; that its
//! file is found under the rotated name says how far the rotation had come. So the newest rotated file
//! has to stay: it may be the one the state still names.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::rotation::{self, Numbered, cut_torn_line};
use crate::deliver::{Position, Promise, syncing};
use crate::folder::{open_to_write_at, sync_folder_of};

const STEM: &str = "events";
/// Bytes written at once: what the processor's cache still holds when the kernel copies it.
const PIECE: usize = 256 << 10;

/// The file that is being written, and its place among those before.
#[derive(Debug)]
pub(crate) struct LineFile {
    folder: PathBuf,
    extension: &'static str,
    pub(super) file: Arc<File>,
    /// Where the next line goes.
    end: Position,
    /// Up to where a sync has been promised.
    promised: Position,
    buffer: Vec<u8>,
}

impl LineFile {
    /// Recovers the folder to `committed`, the position of the last commit if there was one.
    pub(crate) fn open(
        folder: &Path,
        extension: &'static str,
        committed: Option<Position>,
    ) -> io::Result<LineFile> {
        let number = current_number(folder, extension, committed)?;
        let path = current(folder, extension);
        let is_new = !path.exists();
        let file = open_to_write_at(&path)?;
        let length = match committed {
            Some(position) if position.number == number => cut_to(&file, &path, position.length)?,
            Some(_) => cut_to(&file, &path, 0)?,
            None => cut_torn_line(&file, &path)?,
        };
        if is_new || committed.is_none() {
            // Lines of somebody else's count from now on, so they have to last.
            file.sync_data()?;
            sync_folder_of(&path)?;
        }
        Ok(LineFile {
            folder: folder.to_owned(),
            extension,
            file: Arc::new(file),
            end: Position { number, length },
            promised: Position { number, length },
            buffer: Vec::new(),
        })
    }

    /// The file that is being written.
    pub(crate) fn path(&self) -> PathBuf {
        current(&self.folder, self.extension)
    }

    /// Where the next line goes.
    pub(crate) fn end(&self) -> Position {
        self.end
    }

    /// Writes lines behind the last one, each item as `line` has it; gives the bytes. After an error the
    /// same is to be written again at the same place.
    pub(crate) fn write<T>(
        &mut self,
        items: impl Iterator<Item = T>,
        mut line: impl FnMut(T, &mut Vec<u8>),
    ) -> io::Result<u64> {
        let mut at = self.end.length;
        self.buffer.clear();
        for item in items {
            line(item, &mut self.buffer);
            self.buffer.push(b'\n');
            if self.buffer.len() >= PIECE {
                self.file.write_all_at(&self.buffer, at)?;
                at += self.buffer.len() as u64;
                self.buffer.clear();
            }
        }
        self.file.write_all_at(&self.buffer, at)?;
        at += self.buffer.len() as u64;
        self.buffer.shrink_to(2 * PIECE);
        let bytes = at - self.end.length;
        self.end.length = at;
        Ok(bytes)
    }

    /// Promises to make durable what was written.
    pub(crate) fn commit(&mut self) -> Promise {
        let wrote = std::mem::replace(&mut self.promised, self.end) != self.end;
        let sync = wrote.then(|| {
            let file = Arc::clone(&self.file);
            syncing(move || file.sync_data())
        });
        Promise {
            sync,
            position: Some(self.end),
            barrier: false,
        }
    }

    /// Gives the file its number and begins the next one; everything written must be committed.
    pub(crate) fn rotate(&mut self) -> io::Result<()> {
        let current = self.path();
        let rotated = rotation::name(STEM, self.end.number, self.extension);
        std::fs::rename(&current, self.folder.join(&rotated))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&current)?;
        sync_folder_of(&current)?;
        tracing::info!(file = rotated, bytes = self.end.length, "rotated");
        self.file = Arc::new(file);
        self.end = Position {
            number: self.end.number + 1,
            length: 0,
        };
        self.promised = self.end;
        Ok(())
    }
}

fn current(folder: &Path, extension: &str) -> PathBuf {
    folder.join(format!("{STEM}.{extension}"))
}

/// The rotated files of a folder, ascending.
pub(crate) fn rotated(folder: &Path, extension: &str) -> io::Result<Vec<Numbered>> {
    rotation::list(folder, STEM, extension)
}

/// The number of the file that is being written.
fn current_number(folder: &Path, extension: &str, committed: Option<Position>) -> io::Result<u64> {
    let rotated = rotated(folder, extension)?;
    let after_last = rotated.last().map_or(0, |last| last.number + 1);
    Ok(match committed {
        // The rotation of the committed file was done, the next commit was not.
        Some(position) if rotated.iter().any(|file| file.number == position.number) => after_last,
        Some(position) => position.number,
        None => after_last,
    })
}

/// Cuts what lies beyond `length`; gives the length that remains.
fn cut_to(file: &File, path: &Path, length: u64) -> io::Result<u64> {
    let there = file.metadata()?.len();
    if there < length {
        tracing::warn!(
            path = %path.display(),
            missing = length - there,
            "the file is shorter than what was committed: somebody else truncated or replaced it"
        );
        return cut_torn_line(file, path);
    }
    if there > length {
        tracing::info!(path = %path.display(), cut = there - length, "cut what was not committed");
        file.set_len(length)?;
        file.sync_data()?;
    }
    Ok(length)
}
