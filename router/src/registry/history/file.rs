//! The history on disk, one JSON line an entry:
//!
//! ```text
//! <data>/router/history/history-<number>.jsonl   oldest first, at most 8 MiB each, the newest two
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Entry;
use crate::destinations::rotation::{self, cut_torn_line};
use crate::folder::{open_to_write_at, sync_folder_of};

const STEM: &str = "history";
const EXTENSION: &str = "jsonl";
const MOST_A_FILE: u64 = 8 << 20;
const FILES: u32 = 2;

/// The newest file; clones write to the same.
#[derive(Clone, Debug)]
pub(super) struct HistoryFile {
    folder: PathBuf,
    number: u64,
    file: Arc<File>,
    length: u64,
}

impl HistoryFile {
    /// Opens the newest file of the folder, and reads what all of them hold, oldest first. A torn last
    /// line is cut; a line that cannot be read is passed over.
    pub(super) fn open(folder: &Path) -> io::Result<(HistoryFile, Vec<Entry>)> {
        let files = rotation::list(folder, STEM, EXTENSION)?;
        let number = files.last().map_or(0, |last| last.number);
        let path = folder.join(rotation::name(STEM, number, EXTENSION));
        let file = open_to_write_at(&path)?;
        sync_folder_of(&path)?;
        let length = cut_torn_line(&file, &path)?;
        let mut entries: Vec<Entry> = Vec::new();
        for file in &files {
            let text = String::from_utf8_lossy(&std::fs::read(&file.path)?).into_owned();
            let mut bad = 0;
            for line in text.lines() {
                let entry = serde_json::from_str(line).ok();
                let entry = entry.and_then(|kept| Entry::of_kept(&kept));
                match entry {
                    Some(entry) if entries.last().is_none_or(|it| it.number < entry.number) => {
                        entries.push(entry);
                    }
                    // Written twice, because the first write was not known to have ended.
                    Some(_) => {}
                    None => bad += 1,
                }
            }
            if bad > 0 {
                tracing::warn!(file = %file.path.display(), lines = bad,
                    "lines of the history of changes cannot be read and are passed over");
            }
        }
        let opened = HistoryFile {
            folder: folder.to_owned(),
            number,
            file: Arc::new(file),
            length,
        };
        Ok((opened, entries))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes and syncs entries. After an error all of them are to be written again.
    pub(super) fn write(&mut self, entries: &[Arc<Entry>]) -> io::Result<()> {
        if self.length >= MOST_A_FILE {
            self.rotate()?;
        }
        let mut lines = String::new();
        for entry in entries {
            lines.push_str(&entry.kept().to_string());
            lines.push('\n');
        }
        self.file.write_all_at(lines.as_bytes(), self.length)?;
        self.file.sync_data()?;
        self.length += lines.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let path = self
            .folder
            .join(rotation::name(STEM, self.number + 1, EXTENSION));
        let file = open_to_write_at(&path)?;
        sync_folder_of(&path)?;
        self.number += 1;
        self.file = Arc::new(file);
        self.length = 0;
        let files = rotation::list(&self.folder, STEM, EXTENSION)?;
        for file in rotation::surplus(&files, u64::MAX, Some(FILES)) {
            std::fs::remove_file(&file.path)?;
        }
        Ok(())
    }
}
