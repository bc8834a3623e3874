//! The log of changes: a journal of its own, whose durability is that of an acknowledgement.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use thinglog_journal::{
    AppendError, Failure, Journal, OnFull, OpenError, Options, Outcome, Reader, Records, Recovery,
    fs::Fs,
};
use tracing::{error, info};

use super::change::{Changes, encode};
use crate::clock;

/// The log is refused beyond this: images that keep failing cannot fill the disk with it.
const MOST: u64 = 1 << 30;
/// A group is one record up to this many bytes.
const MOST_TOGETHER: usize = 32 << 20;

fn options(segment_bytes: u64) -> Options {
    Options {
        segment_bytes,
        max_bytes: MOST,
        max_age: None,
        reserve_bytes: 0,
        on_full: OnFull::Refuse,
        tail_bytes: 0,
        // Groups go one by one, each as large as it is.
        pending_bytes: usize::MAX,
        max_record: usize::MAX,
    }
}

/// The log, and how to open it again.
pub(super) struct Log {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    segment_bytes: u64,
    /// `None` after a failed sync, until it could be opened again.
    journal: Option<Journal>,
    id: u64,
}

/// What became of a group of changes.
pub(super) enum Appended {
    /// Durable.
    Stored {
        /// Bytes it took.
        bytes: u64,
        /// Where its last record ends; `None` when there was nothing to store.
        end: Option<u64>,
    },
    /// Not durable. It may be there after a restart, or not.
    Failed {
        reason: String,
        /// The disk is full.
        full: bool,
    },
}

impl Log {
    pub(super) fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        segment_bytes: u64,
    ) -> Result<(Log, Recovery), OpenError> {
        let (journal, recovery) = Journal::open(fs.clone(), dir, options(segment_bytes))?;
        if recovery.torn_bytes > 0 {
            info!(path = %dir.display(), bytes = recovery.torn_bytes, "a change of the broker's state that was never finished is cut off");
        }
        let log = Log {
            fs,
            dir: dir.to_owned(),
            segment_bytes,
            id: journal.id(),
            journal: Some(journal),
        };
        Ok((log, recovery))
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Oldest offset held, and the next to be given; `None` while the log is not open. The next one
    /// is no mark of what is stored: it lies beyond what failed or was torn, and falls back to where the
    /// last record ends when the log is opened again before anything was appended.
    pub(super) fn range(&self) -> Option<std::ops::Range<u64>> {
        let journal = self.journal.as_ref()?;
        Some(journal.first()..journal.next())
    }

    pub(super) fn reader(&self, from: u64) -> Option<Reader> {
        Some(self.journal.as_ref()?.reader(from))
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.journal
            .as_ref()
            .map_or(0, |journal| journal.stats().bytes)
    }

    /// Lets go of what lies before `offset`.
    pub(super) fn release(&self, offset: u64) {
        if let Some(journal) = &self.journal
            && let Err(error) = journal.release(offset)
        {
            error!(path = %self.dir.display(), %error, "the log of changes cannot be shortened");
        }
    }

    /// Appends a group and waits for its sync. After a failed one the log is opened again first: the
    /// system may go on showing what never reached the disk.
    pub(super) fn append(&mut self, changes: &Changes) -> Appended {
        let journal = match self.journal.take() {
            Some(journal) => journal,
            None => match Journal::open(self.fs.clone(), &self.dir, options(self.segment_bytes)) {
                Ok((journal, _)) if journal.id() == self.id => journal,
                Ok(_) => {
                    return Appended::Failed {
                        reason: "its files are not there any more".into(),
                        full: false,
                    };
                }
                Err(error) => {
                    return Appended::Failed {
                        reason: error.to_string(),
                        full: false,
                    };
                }
            },
        };
        let records = records(changes);
        let failed = |reason: &str, full| Appended::Failed {
            reason: reason.into(),
            full,
        };
        let outcome = match journal.append(clock::now(), &records) {
            Ok(offsets) if offsets.is_empty() => Ok(None),
            // A part that fails fails all after it, so the last record speaks for all.
            Ok(offsets) => match journal.wait(offsets.end - 1) {
                Outcome::Durable => Ok(Some(offsets.end)),
                Outcome::Failed(Failure::NoSpace) => Err(failed("no space", true)),
                Outcome::Failed(Failure::Poisoned) => {
                    return failed("a sync failed", false);
                }
                Outcome::Failed(Failure::Io) | Outcome::Pending => {
                    Err(failed("the disk refused the write", false))
                }
            },
            Err(AppendError::Poisoned) => return failed("a sync failed", false),
            Err(error @ AppendError::Full { .. }) => Err(failed(&error.to_string(), true)),
            Err(error) => Err(failed(&error.to_string(), false)),
        };
        self.journal = Some(journal);
        match outcome {
            Ok(end) => Appended::Stored {
                bytes: records.bytes() as u64,
                end,
            },
            Err(failed) => failed,
        }
    }
}

/// One record for the group, unless it is larger than records may be. Marks go last: they may rest
/// on all that stands before them.
fn records(changes: &Changes) -> Records {
    let mut sorted: Vec<_> = changes.iter().collect();
    sorted.sort_unstable_by_key(|((kind, _), _)| kind.code());
    let mut left = sorted.as_slice();
    let mut records = Records::new();
    while !left.is_empty() {
        records.push_with(|out| {
            let start = out.len();
            while let Some(((key, value), rest)) = left.split_first()
                && out.len() - start < MOST_TOGETHER
            {
                encode(key, value.as_deref(), out);
                left = rest;
            }
        });
    }
    records
}
