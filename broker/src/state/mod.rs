//! The broker's small state on disk: retained messages, sessions and what belongs to them.
//!
//! A change is durable, and its ticket settled, when the log of changes ([`log`], a journal of its
//! own) has synced its group. Now and then the log is folded into an image of everything ([`image`],
//! a sled database) and let go; opening reads the newest image and the log beyond it. So what sled
//! does around power cuts and full disks never stands between a client and its acknowledgement:
//! an image counts only after it was closed, synced and renamed, and the one before it is kept, with
//! the log since, for the case that it is damaged.
//!
//! ```text
//! in-use                     the directory was used: empty beside it means lost
//! reserve                    room for the case that the disk is full
//! log/                       changes, oldest first
//! image-<n>-<log>-<mark>/    everything below offset <mark> of the log with that id
//! image-<n>.new/             one being written; removed at the next opening
//! image-copy.new/            the copy of one that is being read; likewise
//! image-….damaged/           the last one that was set aside
//! ```
//!
//! What was lost is said loudly, and durable subscriptions made afterwards start at the oldest record
//! instead of the newest, so that a loss of cursors repeats events rather than skipping them.
//!
//! A group that cannot be stored (a full disk, an error, a failed sync, after which the log is opened
//! anew) fails its tickets; its changes stay in memory and are stored with the next group that
//! can be. While that lasts, and while the disk is nearly full, [`State::accepts`] is false and what
//! needs new room is refused before it changes anything.

mod change;
mod disk;
mod fold;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod image;
mod log;
mod recover;
mod reserve;
mod tickets;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
};

use parking_lot::Mutex;
use thinglog_journal::fs::{Fs, RealFs};
use tokio::sync::watch;
use tracing::{error, warn};

use change::Contents;
use disk::{Disk, RealDisk};
use log::Log;
use reserve::Reserve;
use tickets::Shared;
use writer::Writer;

pub(crate) use change::Kind;
pub(crate) use tickets::Outcome;

/// Offset of the durable log below which a lost session may not have read.
const LOST_BELOW: &str = "lost-below";
/// Id of the journal that the cursors point into.
const JOURNAL: &str = "journal";
/// The log of changes is folded when it has so much beyond the last image, or as much as that holds.
const FOLD_AT: u64 = 8 << 20;

/// The state cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("{path}: {source}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Log(#[from] thinglog_journal::OpenError),
    #[error("{path}: {reason}; make room on the disk and start again")]
    Full { path: PathBuf, reason: String },
}

/// What opening found, read whole: it is small.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) retained: Vec<(String, Vec<u8>)>,
    pub(crate) sessions: Vec<(String, Vec<u8>)>,
    pub(crate) cursors: HashMap<String, Vec<u8>>,
    pub(crate) groups: HashMap<String, Vec<u8>>,
    pub(crate) outgoing: HashMap<String, Vec<u8>>,
    pub(crate) inbound: HashMap<String, Vec<u8>>,
    pub(crate) wills: Vec<(String, Vec<u8>)>,
    pub(crate) marks: Option<Vec<u8>>,
    /// Journal offsets below this may have been unread by a durable session that was lost.
    pub(crate) lost_below: u64,
    /// All of it is of the journal that is there now.
    pub(crate) is_of_journal: bool,
    /// Where that journal ended when it was opened.
    pub(crate) log_end: u64,
}

/// Figures for metrics; totals count from opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    /// Groups of changes that could not be stored when they came.
    pub(crate) failed_groups: u64,
    /// Damaged places found in log and images.
    pub(crate) damaged: u64,
    /// Images written.
    pub(crate) images: u64,
    /// Bytes of the log of changes.
    pub(crate) log_bytes: u64,
}

/// Where the state is, and by what means.
struct Place<'a> {
    dir: &'a Path,
    fs: Arc<dyn Fs>,
    disk: Arc<dyn Disk>,
    reserve: u64,
    fold_at: u64,
}

/// The state on disk and the thread that writes it.
pub(crate) struct State {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl State {
    /// Opens or creates the state in `dir`, with `reserve` bytes of the disk for itself. `journal` is
    /// the id of the journal that cursors point into, `journal_next` where it stands, for the case
    /// that the state was lost.
    pub(crate) fn open(
        dir: &Path,
        reserve: u64,
        journal: u64,
        journal_next: u64,
    ) -> Result<(State, Loaded), OpenError> {
        let place = Place {
            dir,
            fs: Arc::new(RealFs),
            disk: Arc::new(RealDisk),
            reserve,
            fold_at: FOLD_AT,
        };
        State::open_at(place, journal, journal_next)
    }

    fn open_at(
        place: Place<'_>,
        journal: u64,
        journal_next: u64,
    ) -> Result<(State, Loaded), OpenError> {
        let dir = place.dir;
        let io = |source| OpenError::Io {
            path: dir.to_owned(),
            source,
        };
        RealFs.create_dir(dir).map_err(io)?;
        let marker = dir.join("in-use");
        let was_in_use = marker.exists();
        let mut reserve = Reserve::new(dir, place.reserve);
        if !reserve.look() {
            // Opening needs room of its own.
            reserve.give_up();
        }
        let (log, _) = Log::open(place.fs, &dir.join("log"), place.fold_at / 2)?;
        let found = recover::recover(&*place.disk, dir, &log, &reserve, was_in_use)?;
        let shared = Arc::new(Shared::new());
        let figures = &shared.figures;
        figures.damaged.store(found.damaged, Ordering::Relaxed);
        let mut contents = found.contents;
        let known = contents.get(&(Kind::Meta, JOURNAL.to_owned()));
        let is_of_journal = known.is_some_and(|id| *id == journal.to_be_bytes());
        let edits = edits(dir, &mut contents, found.lost, journal, journal_next);
        let state = State {
            shared: shared.clone(),
            writer: Mutex::default(),
        };
        shared.pending.lock().changes = edits;
        shared.pending.lock().newest = 1;
        let writer = Writer {
            shared,
            disk: place.disk,
            dir: dir.to_owned(),
            log,
            reserve,
            next_number: found.next_number,
            bases: found.bases,
            unfolded: found.unfolded,
            stored_to: found.end,
            overdue: false,
            fold_at: place.fold_at,
            image_bytes: 0,
            meta: meta(&contents),
            folding: None,
            rest_until: None,
            retry_at: None,
            tried: 0,
            again_from: None,
        };
        let thread = std::thread::Builder::new().name("broker-state".into());
        *state.writer.lock() = Some(thread.spawn(move || writer.run()).map_err(io)?);
        if state.wait(1) == Outcome::Stored && !was_in_use {
            File::create(&marker)
                .and_then(|file| file.sync_all())
                .and_then(|()| File::open(dir)?.sync_all())
                .map_err(io)?;
        }
        let loaded = Loaded {
            is_of_journal,
            log_end: journal_next,
            ..load(contents)
        };
        Ok((state, loaded))
    }

    /// Queues a change; its ticket is settled when the change, or a later one of the same key, is
    /// on disk.
    pub(crate) fn change(&self, kind: Kind, key: &str, value: Option<Vec<u8>>) -> u64 {
        let mut pending = self.shared.pending.lock();
        pending.newest += 1;
        pending.changes.insert((kind, key.to_owned()), value);
        self.shared.wake.notify_one();
        pending.newest
    }

    pub(crate) fn outcome(&self, ticket: u64) -> Outcome {
        self.shared.outcome(ticket)
    }

    /// Changes whenever tickets are settled.
    pub(crate) fn settled(&self) -> watch::Receiver<u64> {
        self.shared.settled.subscribe()
    }

    /// Whether what needs new room on the disk may be taken: false while the disk is nearly full or
    /// does not take what it is given. It becomes true again by itself.
    pub(crate) fn accepts(&self) -> bool {
        self.shared.accepts.load(Ordering::Relaxed)
    }

    /// A request for every entry there is, when the disk lost what memory still has: they have to be
    /// given again by `change`, and then [`State::gave_everything`] called with the request's number.
    pub(crate) fn wants_everything(&self) -> Option<u64> {
        let pending = self.shared.pending.lock();
        let is_open =
            self.shared.incomplete.load(Ordering::Relaxed) && pending.everything.is_none();
        is_open.then_some(pending.request)
    }

    /// Every entry was given since [`State::wants_everything`] asked with this number. What was given
    /// for an earlier request does not count for a later one.
    pub(crate) fn gave_everything(&self, request: u64) {
        let mut pending = self.shared.pending.lock();
        if pending.request == request && self.shared.incomplete.load(Ordering::Relaxed) {
            pending.everything = Some(pending.newest);
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let figures = &self.shared.figures;
        Stats {
            failed_groups: figures.failed_groups.load(Ordering::Relaxed),
            damaged: figures.damaged.load(Ordering::Relaxed),
            images: figures.images.load(Ordering::Relaxed),
            log_bytes: figures.log_bytes.load(Ordering::Relaxed),
        }
    }

    /// Writes what is queued and stops.
    pub(crate) fn close(&self) {
        self.shared.pending.lock().closed = true;
        self.shared.wake.notify_one();
        if let Some(writer) = self.writer.lock().take()
            && writer.join().is_err()
        {
            error!("the thread that writes the broker's state has panicked");
        }
    }

    /// Blocks until a ticket is decided.
    fn wait(&self, ticket: u64) -> Outcome {
        let mut decided = self.shared.decided.lock();
        loop {
            match self.outcome(ticket) {
                Outcome::Pending => self.shared.decision.wait(&mut decided),
                outcome => return outcome,
            }
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.close();
    }
}

/// What opening changes: a mark of a loss, the journal that is read, cursors into another one.
fn edits(
    dir: &Path,
    contents: &mut Contents,
    lost: bool,
    journal: u64,
    journal_next: u64,
) -> change::Changes {
    let mut edits = change::Changes::new();
    if lost {
        error!(path = %dir.display(), "retained messages, sessions or cursors that were stored may be gone; \
            durable subscriptions made from now on start at the oldest record");
        let key = (Kind::Meta, LOST_BELOW.to_owned());
        edits.insert(key, Some(journal_next.to_be_bytes().to_vec()));
    }
    let key = (Kind::Meta, JOURNAL.to_owned());
    let id = journal.to_be_bytes().to_vec();
    if contents.get(&key).is_some_and(|before| *before != id) {
        warn!(path = %dir.display(), "the durable log is another one than before; its subscriptions start at its oldest record");
        let is_cursor = |kind: Kind| matches!(kind, Kind::Cursor | Kind::Group);
        let cursors = contents.keys().filter(|(kind, _)| is_cursor(*kind));
        edits.extend(cursors.map(|key| (key.clone(), None)));
    }
    edits.insert(key, Some(id));
    for (key, value) in &edits {
        match value {
            Some(value) => drop(contents.insert(key.clone(), value.clone())),
            None => drop(contents.remove(key)),
        }
    }
    edits
}

/// The state's own entries.
fn meta(contents: &Contents) -> Vec<(String, Vec<u8>)> {
    let entries = contents.iter().filter(|((kind, _), _)| *kind == Kind::Meta);
    entries
        .map(|((_, key), value)| (key.clone(), value.clone()))
        .collect()
}

fn load(contents: Contents) -> Loaded {
    let mut loaded = Loaded::default();
    for ((kind, key), value) in contents {
        match kind {
            Kind::Retained => loaded.retained.push((key, value)),
            Kind::Session => loaded.sessions.push((key, value)),
            Kind::Cursor => drop(loaded.cursors.insert(key, value)),
            Kind::Group => drop(loaded.groups.insert(key, value)),
            Kind::Outgoing => drop(loaded.outgoing.insert(key, value)),
            Kind::Inbound => drop(loaded.inbound.insert(key, value)),
            Kind::Will => loaded.wills.push((key, value)),
            Kind::Marks => loaded.marks = Some(value),
            Kind::Meta => {
                if key == LOST_BELOW
                    && let Ok(bytes) = <[u8; 8]>::try_from(value)
                {
                    loaded.lost_below = u64::from_be_bytes(bytes);
                }
            }
        }
    }
    loaded
}
