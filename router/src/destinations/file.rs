//! NDJSON files that hold every event exactly once.
//!
//! ```text
//! <folder>/events.ndjson            what is being written; one event a line
//! <folder>/events-<number>.ndjson   rotated, oldest first
//! <folder>/state                    file number, length that counts, what was had (see `crate::state`)
//! ```
//!
//! Data is synced, then the state says how much of the file counts, then the broker is told. So on
//! start whatever lies beyond the recorded length was promised to nobody and is cut; it comes again.
//! Lines are written at positions of our own keeping, so a short or failed write is simply repeated.
//!
//! Rotation happens right after a commit, when nothing is uncommitted: rename, new file, folder
//! synced. If the process dies before the next commit, the state still names the old number; that its
//! file is found under the rotated name says how far the rotation had come.
//!
//! Rotated files are deleted, oldest first, once they exceed `keep_bytes` (16 GiB unless configured)
//! or `keep_files`; each deletion is logged and counted. The newest rotated file always stays: it may be the
//! one the state still names.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prometheus::IntCounter;
use thinglog_schemas::json;

use super::rotation::{self, cut_torn_line};
use crate::config::FileConfig;
use crate::deliver::batch::Batch;
use crate::deliver::{Destination, Outcome, Position, Promise, syncing};
use crate::folder::{open_to_write_at, sync_folder_of};

const STEM: &str = "events";
const EXTENSION: &str = "ndjson";
const CURRENT: &str = "events.ndjson";
/// Bytes written at once: what the processor's cache still holds when the kernel copies it.
const PIECE: usize = 256 << 10;

/// The file destination.
#[derive(Debug)]
pub(crate) struct FileDestination {
    folder: PathBuf,
    config: FileConfig,
    file: Arc<File>,
    /// Where the next line goes.
    end: Position,
    /// Up to where a sync has been promised.
    promised: Position,
    buffer: Vec<u8>,
    bytes: IntCounter,
    deleted: IntCounter,
}

impl FileDestination {
    /// Recovers the folder to `committed`, the position of the last commit if there was one.
    pub(crate) fn open(
        folder: &Path,
        config: FileConfig,
        committed: Option<Position>,
        bytes: IntCounter,
        deleted: IntCounter,
    ) -> io::Result<FileDestination> {
        let number = current_number(folder, committed)?;
        let path = folder.join(CURRENT);
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
        Ok(FileDestination {
            folder: folder.to_owned(),
            config,
            file: Arc::new(file),
            end: Position { number, length },
            promised: Position { number, length },
            buffer: Vec::new(),
            bytes,
            deleted,
        })
    }

    /// Writes a batch behind the last one; gives where it ends. After an error the same is to be
    /// written again at the same place.
    fn write(&mut self, batch: &Batch) -> io::Result<u64> {
        let mut at = self.end.length;
        self.buffer.clear();
        for event in batch.events() {
            json::write(event, &mut self.buffer);
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
        Ok(at)
    }

    fn rotate(&mut self) -> io::Result<()> {
        let current = self.folder.join(CURRENT);
        let rotated = rotation::name(STEM, self.end.number, EXTENSION);
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
        self.delete_surplus()
    }

    fn delete_surplus(&self) -> io::Result<()> {
        let files = rotation::list(&self.folder, STEM, EXTENSION)?;
        let FileConfig {
            keep_bytes,
            keep_files,
            ..
        } = self.config;
        for file in rotation::surplus(&files, keep_bytes, keep_files) {
            std::fs::remove_file(&file.path)?;
            self.deleted.inc();
            tracing::warn!(file = %file.path.display(), bytes = file.bytes, "deleted to stay within keep_bytes and keep_files");
        }
        Ok(())
    }
}

/// The number of `events.ndjson`.
fn current_number(folder: &Path, committed: Option<Position>) -> io::Result<u64> {
    let rotated = rotation::list(folder, STEM, EXTENSION)?;
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

impl Destination for FileDestination {
    fn deliver(&mut self, batch: &Batch) -> Outcome {
        match self.write(batch) {
            Ok(length) => {
                self.bytes.inc_by(length - self.end.length);
                self.end.length = length;
                Outcome::Delivered
            }
            Err(error) => Outcome::Retry {
                after: None,
                reason: format!("{}: {error}", self.folder.join(CURRENT).display()),
            },
        }
    }

    fn commit(&mut self) -> Promise {
        let wrote = std::mem::replace(&mut self.promised, self.end) != self.end;
        let sync = wrote.then(|| {
            let file = Arc::clone(&self.file);
            syncing(move || file.sync_data())
        });
        Promise {
            sync,
            position: Some(self.end),
            barrier: self.end.length >= self.config.rotate_bytes,
        }
    }

    fn committed(&mut self) -> io::Result<()> {
        self.rotate()
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
