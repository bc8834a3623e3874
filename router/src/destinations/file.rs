//! NDJSON files that hold every event exactly once.
//!
//! ```text
//! <folder>/events.ndjson            what is being written; one event a line
//! <folder>/events-<number>.ndjson   rotated, oldest first
//! <folder>/state                    file number, length that counts, what was had (see `crate::state`)
//! ```
//!
//! How they are written and recovered stands in [`super::lines`].
//!
//! Rotated files are deleted, oldest first, once they exceed `keep_bytes` (16 GiB unless configured)
//! or `keep_files`; each deletion is logged and counted. The newest rotated file always stays: it may be the
//! one the state still names.

use std::io;
use std::path::{Path, PathBuf};

use prometheus::IntCounter;
use thinglog_schemas::json;

use super::lines::{self, LineFile};
use super::rotation;
use crate::config::FileConfig;
use crate::deliver::batch::Batch;
use crate::deliver::{Destination, Outcome, Position, Promise};

const EXTENSION: &str = "ndjson";

/// The file destination.
#[derive(Debug)]
pub(crate) struct FileDestination {
    folder: PathBuf,
    config: FileConfig,
    lines: LineFile,
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
        Ok(FileDestination {
            folder: folder.to_owned(),
            config,
            lines: LineFile::open(folder, EXTENSION, committed)?,
            bytes,
            deleted,
        })
    }

    fn delete_surplus(&self) -> io::Result<()> {
        let files = lines::rotated(&self.folder, EXTENSION)?;
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

impl Destination for FileDestination {
    fn deliver(&mut self, batch: &Batch) -> Outcome {
        match self.lines.write(batch.events(), json::write) {
            Ok(bytes) => {
                self.bytes.inc_by(bytes);
                Outcome::Delivered
            }
            Err(error) => Outcome::Retry {
                after: None,
                reason: format!("{}: {error}", self.lines.path().display()),
            },
        }
    }

    fn commit(&mut self) -> Promise {
        Promise {
            barrier: self.lines.end().length >= self.config.rotate_bytes,
            ..self.lines.commit()
        }
    }

    fn committed(&mut self) -> io::Result<()> {
        self.lines.rotate()?;
        self.delete_surplus()
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
