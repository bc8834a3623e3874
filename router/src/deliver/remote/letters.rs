//! Dead letters: events that a destination refused for good, with the reason.
//!
//! ```text
//! <folder>/letters-<number of its first letter, 20 digits>.ndjson
//! {"n":17,"refused":"2026-01-02T03:04:05.000000000Z","reason":"400: ...","event":{...}}
//! ```
//!
//! The last file is appended to; a letter is synced before the event it stands for is acknowledged.
//! Letters are numbered from 0 and keep their number. After a crash an event may be there twice, under
//! the same id: what was not committed came again. Files are rewritten when letters leave them (a new
//! file, synced, renamed over the old one), never the last one.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use prometheus::IntGauge;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thinglog_schemas::{Event, json};

use crate::config::{DeadLetterConfig, OnFull};
use crate::destinations::rotation::cut_torn_line;
use crate::folder::{create_durably, sync_folder_of};

const STEM: &str = "letters-";
const EXTENSION: &str = ".ndjson";
/// Files that all letters are spread over, so that the oldest can go.
const FILES: u64 = 16;
const LARGEST_FILE: u64 = 8 << 20;

/// One line of a file.
#[derive(Serialize, Deserialize)]
pub(crate) struct Line<'a> {
    pub(crate) n: u64,
    #[serde(borrow)]
    pub(crate) refused: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) reason: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) event: &'a RawValue,
}

/// The dead letters of one destination, open for writing.
#[derive(Debug)]
pub(crate) struct Letters {
    folder: PathBuf,
    config: DeadLetterConfig,
    /// How many there are.
    count: IntGauge,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    path: PathBuf,
    /// Bytes of the last file.
    length: u64,
    /// Bytes of all other files.
    others: u64,
    next: u64,
    unsynced: bool,
}

/// What became of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    Kept,
    /// Kept, and this many older ones are lost for it.
    Displaced(u64),
    /// Lost: there is no room.
    Lost,
    /// Not kept: there is no room, and nothing may be lost.
    Full,
}

impl Letters {
    /// Opens the folder; a torn last line is cut.
    pub(crate) fn open(
        folder: &Path,
        config: DeadLetterConfig,
        count: IntGauge,
    ) -> io::Result<Letters> {
        create_durably(folder)?;
        let mut files = list(folder)?;
        let path = files.pop().unwrap_or_else(|| folder.join(file_name(0)));
        let file = open_file(&path)?;
        let length = cut_torn_line(&file, &path)?;
        // Whatever was read must be on the disk before anybody counts on it.
        file.sync_all()?;
        sync_folder_of(&path)?;
        let (mut others, mut lines) = (0, 0);
        for file in &files {
            let text = std::fs::read(file)?;
            others += text.len() as u64;
            lines += count_lines(&text);
        }
        let text = std::fs::read(&path)?;
        let last = text
            .split(|byte| *byte == b'\n')
            .rev()
            .find(|line| !line.is_empty());
        let next = match last {
            Some(line) => parse(line, &path)?.n + 1,
            None => first_number(&path).unwrap_or(0),
        };
        count.set((lines + count_lines(&text)) as i64);
        Ok(Letters {
            folder: folder.to_owned(),
            config,
            count,
            state: Mutex::new(State {
                file,
                path,
                length,
                others,
                next,
                unsynced: false,
            }),
        })
    }

    /// Adds a letter, not synced yet. `now` is ns since the Unix epoch.
    pub(crate) fn add(&self, event: &Event, reason: &str, now: u64) -> io::Result<Added> {
        let mut state = self.state.lock();
        let mut line = Vec::new();
        write_line(&mut line, state.next, event, reason, now)?;
        let needed = line.len() as u64;
        let mut displaced = None;
        if state.length + state.others + needed > self.config.max_bytes {
            match self.config.on_full {
                OnFull::DropNewest => return Ok(Added::Lost),
                OnFull::Wait => return Ok(Added::Full),
                OnFull::DropOldest => displaced = Some(self.make_room(&mut state, needed)?),
            }
        }
        if state.length >= LARGEST_FILE.min(self.config.max_bytes / FILES) {
            self.next_file(&mut state)?;
        }
        if let Err(error) = state.file.write_all(&line) {
            // What may have been written in part must not run into the next line.
            state.file.set_len(state.length)?;
            return Err(error);
        }
        state.length += needed;
        state.next += 1;
        state.unsynced = true;
        self.count.inc();
        Ok(displaced.map_or(Added::Kept, Added::Displaced))
    }

    /// Makes everything added durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.unsynced) {
            state.file.sync_data()?;
        }
        Ok(())
    }

    /// Deletes the oldest files; gives how many letters went with them.
    fn make_room(&self, state: &mut State, needed: u64) -> io::Result<u64> {
        let mut lost = 0;
        if state.length + needed > self.config.max_bytes {
            self.next_file(state)?;
        }
        for path in list(&self.folder)? {
            if state.length + state.others + needed <= self.config.max_bytes || path == state.path {
                break;
            }
            let text = std::fs::read(&path)?;
            std::fs::remove_file(&path)?;
            state.others -= text.len() as u64;
            lost += count_lines(&text);
        }
        self.count.sub(lost as i64);
        Ok(lost)
    }

    fn next_file(&self, state: &mut State) -> io::Result<()> {
        state.file.sync_data()?;
        let path = self.folder.join(file_name(state.next));
        state.file = open_file(&path)?;
        sync_folder_of(&path)?;
        state.others += state.length;
        state.length = 0;
        state.path = path;
        state.unsynced = false;
        Ok(())
    }

    /// Begins a new file unless the last one is empty; gives all files with letters, oldest first.
    /// They change no more except by [`Letters::remove`].
    pub(crate) fn settled_files(&self) -> io::Result<Vec<PathBuf>> {
        let mut state = self.state.lock();
        if state.length > 0 {
            self.next_file(&mut state)?;
        }
        let mut files = list(&self.folder)?;
        files.retain(|file| *file != state.path);
        Ok(files)
    }

    /// Takes letters out of a file; gives how many.
    pub(crate) fn remove(&self, path: &Path, numbers: &BTreeSet<u64>) -> io::Result<u64> {
        let mut state = self.state.lock();
        let text = match std::fs::read(path) {
            // Newer letters took the room.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            text => text?,
        };
        let mut kept = Vec::with_capacity(text.len());
        let mut removed = 0;
        for line in lines(&text) {
            if numbers.contains(&parse(line, path)?.n) {
                removed += 1;
            } else {
                kept.extend_from_slice(line);
                kept.push(b'\n');
            }
        }
        if kept.is_empty() {
            std::fs::remove_file(path)?;
        } else if removed > 0 {
            let temporary = path.with_extension("new");
            let mut file = File::create(&temporary)?;
            file.write_all(&kept)?;
            file.sync_all()?;
            std::fs::rename(&temporary, path)?;
        }
        sync_folder_of(path)?;
        state.others -= (text.len() - kept.len()) as u64;
        self.count.sub(removed as i64);
        Ok(removed)
    }

    /// Where they are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
}

fn write_line(out: &mut Vec<u8>, n: u64, event: &Event, reason: &str, now: u64) -> io::Result<()> {
    let mut time = Vec::new();
    json::write_time(now, &mut time);
    let mut text = Vec::new();
    json::write(event, &mut text);
    let event = RawValue::from_string(String::from_utf8_lossy(&text).into_owned())?;
    let line = Line {
        n,
        refused: String::from_utf8_lossy(&time),
        reason: reason.into(),
        event: &event,
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.push(b'\n');
    Ok(())
}

fn file_name(first: u64) -> String {
    format!("{STEM}{first:020}{EXTENSION}")
}

fn first_number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_prefix(STEM)?.strip_suffix(EXTENSION)?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().ok()).flatten()
}

/// The files of a folder, oldest first; none if there is no folder.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if first_number(&path).is_some() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The whole lines of a file.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end = text
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    text[..end]
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
}

/// A line's parts; an error names the file.
pub(crate) fn parse<'a>(line: &'a [u8], path: &Path) -> io::Result<Line<'a>> {
    serde_json::from_slice(line).map_err(|error| {
        let reason = format!("{}: not a dead letter: {error}", path.display());
        io::Error::new(io::ErrorKind::InvalidData, reason)
    })
}

fn count_lines(text: &[u8]) -> u64 {
    lines(text).count() as u64
}

#[cfg(test)]
#[path = "letters_tests.rs"]
mod tests;
