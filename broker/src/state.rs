//! The broker's small state on disk: retained messages, sessions and cursors, in sled.
//!
//! sled's own `flush` does not survive power loss (it uses `sync_file_range`), so every group of
//! changes is flushed and then its file and directory are synced explicitly; only then are the
//! tickets of the group settled. Segments of 8 MiB keep values inside the one file that is synced.
//! A marker file beside the database tells an empty database that never held anything from one
//! that lost everything: the latter is said loudly, and durable subscriptions made afterwards start
//! at the oldest record instead of the newest, so that loss of cursors repeats events rather
//! than skipping them.

use std::{
    collections::HashMap,
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;
use tracing::{error, warn};

/// What kind of thing a key belongs to; one tree each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Retained,
    Session,
    Cursor,
    /// What is under way to a session's client.
    Outgoing,
    /// Packet ids of QoS 2 received from a session's client.
    Inbound,
    /// Last wills of connected clients.
    Will,
    /// How far `Inbound` covers the journals.
    Marks,
}

const KINDS: [Kind; 7] = [
    Kind::Retained,
    Kind::Session,
    Kind::Cursor,
    Kind::Outgoing,
    Kind::Inbound,
    Kind::Will,
    Kind::Marks,
];

impl Kind {
    const fn tree(self) -> &'static str {
        match self {
            Kind::Retained => "retained",
            Kind::Session => "sessions",
            Kind::Cursor => "cursors",
            Kind::Outgoing => "outgoing",
            Kind::Inbound => "inbound",
            Kind::Will => "wills",
            Kind::Marks => "marks",
        }
    }
}

const META: &str = "meta";
const LOST_BELOW: &str = "lost-below";
/// Set in every database that was ever opened: one without it, beside the marker, lost everything.
const IN_USE: &str = "in-use";
/// Id of the journal that the cursors point into.
const JOURNAL: &str = "journal";

/// Whether a change is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Pending,
    Stored,
    Failed,
}

/// The state cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("{path}: {source}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path}: {reason}")]
    Database { path: PathBuf, reason: String },
}

/// What opening found, read whole: it is small.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) retained: Vec<(String, Vec<u8>)>,
    pub(crate) sessions: Vec<(String, Vec<u8>)>,
    pub(crate) cursors: HashMap<String, Vec<u8>>,
    pub(crate) outgoing: HashMap<String, Vec<u8>>,
    pub(crate) inbound: HashMap<String, Vec<u8>>,
    pub(crate) wills: Vec<(String, Vec<u8>)>,
    pub(crate) marks: Option<Vec<u8>>,
    /// Journal offsets below this may have been unread by a durable session that was lost.
    pub(crate) lost_below: u64,
}

#[derive(Debug, Default)]
struct Pending {
    /// The latest value of each changed key; `None` removes. Bounded by the keys there can be.
    changes: HashMap<(Kind, String), Option<Vec<u8>>>,
    /// Ticket of the newest change.
    newest: u64,
    closed: bool,
}

struct Shared {
    pending: Mutex<Pending>,
    wake: Condvar,
    settled: watch::Sender<u64>,
    /// Tickets of groups that could not be stored, the latest few.
    failed: Mutex<Vec<std::ops::RangeInclusive<u64>>>,
}

/// The database and the thread that writes it.
pub(crate) struct State {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl State {
    /// Opens or creates the database in `dir`. `journal` is the id of the journal that cursors
    /// point into, `journal_next` where it stands, for the case that the state was lost.
    pub(crate) fn open(
        dir: &Path,
        journal: u64,
        journal_next: u64,
    ) -> Result<(State, Loaded), OpenError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        std::fs::create_dir_all(dir).map_err(io(dir))?;
        let database = dir.join("sled");
        let marker = dir.join("in-use");
        let (db, mut lost) = open_or_set_aside(&database, dir)?;
        let reason = |error: sled::Error| OpenError::Database {
            path: database.clone(),
            reason: error.to_string(),
        };
        let meta = db.open_tree(META).map_err(reason)?;
        lost |= marker.exists() && !meta.contains_key(IN_USE).map_err(reason)?;
        if lost {
            error!(path = %dir.display(), "the broker's state was lost: retained messages, sessions and cursors are gone; \
                durable subscriptions will start at the oldest record");
            meta.insert(LOST_BELOW, &journal_next.to_be_bytes())
                .map_err(reason)?;
        }
        meta.insert(IN_USE, &[1]).map_err(reason)?;
        let before = meta
            .insert(JOURNAL, &journal.to_be_bytes())
            .map_err(reason)?;
        if before.is_some_and(|before| *before != journal.to_be_bytes()) {
            warn!(path = %dir.display(), "the durable log is another one than before; its subscriptions start at its oldest record");
            let cursors = db.open_tree(Kind::Cursor.tree()).map_err(reason)?;
            cursors.clear().map_err(reason)?;
        }
        let loaded = load(&db, &meta).map_err(reason)?;
        let sync_dir = || {
            File::open(dir)
                .and_then(|dir| dir.sync_all())
                .map_err(io(dir))
        };
        db.flush().map_err(reason)?;
        sync_database(&database).map_err(io(&database))?;
        sync_dir()?;
        if !marker.exists() {
            File::create(&marker)
                .and_then(|file| file.sync_all())
                .map_err(io(&marker))?;
            sync_dir()?;
        }
        let shared = Arc::new(Shared {
            pending: Mutex::default(),
            wake: Condvar::new(),
            settled: watch::Sender::new(0),
            failed: Mutex::default(),
        });
        let writer = {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name("broker-state".into())
                .spawn(move || write_groups(&shared, &db, &database))
                .map_err(io(dir))?
        };
        Ok((
            State {
                shared,
                writer: Mutex::new(Some(writer)),
            },
            loaded,
        ))
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
        if *self.shared.settled.borrow() < ticket {
            return Outcome::Pending;
        }
        let failed = self
            .shared
            .failed
            .lock()
            .iter()
            .any(|range| range.contains(&ticket));
        if failed {
            Outcome::Failed
        } else {
            Outcome::Stored
        }
    }

    /// Changes whenever tickets are settled.
    pub(crate) fn settled(&self) -> watch::Receiver<u64> {
        self.shared.settled.subscribe()
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
}

impl Drop for State {
    fn drop(&mut self) {
        self.close();
    }
}

/// Opens the database; one that cannot be opened, or panics, is set aside and replaced. The flag
/// says that it was.
fn open_or_set_aside(database: &Path, dir: &Path) -> Result<(sled::Db, bool), OpenError> {
    let failure = match try_open(database) {
        Ok(db) => return Ok((db, false)),
        Err(reason) => reason,
    };
    if failure.contains("could not acquire lock") {
        return Err(OpenError::Database {
            path: database.to_owned(),
            reason: "in use by another process; stop it or choose another data directory".into(),
        });
    }
    let aside = (0..)
        .map(|n| dir.join(format!("sled.damaged-{n}")))
        .find(|path| !path.exists())
        .unwrap_or_default();
    error!(path = %database.display(), aside = %aside.display(), reason = failure, "the broker's state cannot be read and is set aside");
    std::fs::rename(database, &aside).map_err(|source| OpenError::Io {
        path: database.to_owned(),
        source,
    })?;
    try_open(database)
        .map(|db| (db, true))
        .map_err(|reason| OpenError::Database {
            path: database.to_owned(),
            reason,
        })
}

fn try_open(database: &Path) -> Result<sled::Db, String> {
    let config = sled::Config::new()
        .path(database)
        .segment_size(8 << 20)
        .cache_capacity(8 << 20)
        .flush_every_ms(None);
    match catch_unwind(AssertUnwindSafe(|| config.open())) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the database panicked while it was opened".into()),
    }
}

fn load(db: &sled::Db, meta: &sled::Tree) -> Result<Loaded, sled::Error> {
    let mut loaded = Loaded::default();
    if let Some(value) = meta.get(LOST_BELOW)?
        && let Ok(bytes) = <[u8; 8]>::try_from(&*value)
    {
        loaded.lost_below = u64::from_be_bytes(bytes);
    }
    for kind in KINDS {
        let name = kind.tree();
        for entry in db.open_tree(name)?.iter() {
            let (key, value) = entry?;
            let Ok(key) = String::from_utf8(key.to_vec()) else {
                warn!(
                    tree = name,
                    "a key of the broker's state is not UTF-8 and is left out"
                );
                continue;
            };
            match kind {
                Kind::Retained => loaded.retained.push((key, value.to_vec())),
                Kind::Session => loaded.sessions.push((key, value.to_vec())),
                Kind::Cursor => drop(loaded.cursors.insert(key, value.to_vec())),
                Kind::Outgoing => drop(loaded.outgoing.insert(key, value.to_vec())),
                Kind::Inbound => drop(loaded.inbound.insert(key, value.to_vec())),
                Kind::Will => loaded.wills.push((key, value.to_vec())),
                Kind::Marks => loaded.marks = Some(value.to_vec()),
            }
        }
    }
    Ok(loaded)
}

/// Syncs what must be on disk for sled's state to be there: its file, and the names in its folder.
fn sync_database(database: &Path) -> std::io::Result<()> {
    File::open(database.join("db"))?.sync_data()?;
    File::open(database)?.sync_all()
}

fn write_groups(shared: &Shared, db: &sled::Db, database: &Path) {
    let mut settled = 0;
    loop {
        let (changes, newest, closed) = {
            let mut pending = shared.pending.lock();
            while pending.changes.is_empty() && !pending.closed {
                shared.wake.wait(&mut pending);
            }
            (
                std::mem::take(&mut pending.changes),
                pending.newest,
                pending.closed,
            )
        };
        if !changes.is_empty() {
            if let Err(reason) = write_group(db, database, changes) {
                error!(reason, "the broker's state could not be stored");
                let mut failed = shared.failed.lock();
                failed.push(settled + 1..=newest);
                let excess = failed.len().saturating_sub(64);
                failed.drain(..excess);
            }
            settled = newest;
            shared.settled.send_replace(newest);
        }
        if closed {
            return;
        }
    }
}

fn write_group(
    db: &sled::Db,
    database: &Path,
    changes: HashMap<(Kind, String), Option<Vec<u8>>>,
) -> Result<(), String> {
    let mut batches: HashMap<Kind, sled::Batch> = HashMap::new();
    for ((kind, key), value) in changes {
        let batch = batches.entry(kind).or_default();
        match value {
            Some(value) => batch.insert(key.as_bytes(), value),
            None => batch.remove(key.as_bytes()),
        }
    }
    for kind in KINDS {
        if let Some(batch) = batches.remove(&kind) {
            db.open_tree(kind.tree())
                .and_then(|tree| tree.apply_batch(batch))
                .map_err(|error| error.to_string())?;
        }
    }
    db.flush().map_err(|error| error.to_string())?;
    sync_database(database).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn stored(state: &State, ticket: u64) {
        let mut settled = state.settled();
        settled
            .wait_for(|settled| *settled >= ticket)
            .await
            .unwrap();
        assert_eq!(state.outcome(ticket), Outcome::Stored);
    }

    #[tokio::test]
    async fn what_is_settled_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let (state, loaded) = State::open(dir.path(), 1, 0).unwrap();
        assert!(loaded.retained.is_empty());
        state.change(Kind::Retained, "a", Some(b"1".to_vec()));
        state.change(Kind::Retained, "b", Some(b"2".to_vec()));
        let ticket = state.change(Kind::Retained, "a", None);
        stored(&state, ticket).await;
        drop(state);
        let (_state, loaded) = State::open(dir.path(), 1, 0).unwrap();
        assert_eq!(loaded.retained, [("b".to_owned(), b"2".to_vec())]);
        assert_eq!(loaded.lost_below, 0);
    }

    #[test]
    fn an_emptied_database_is_recognised_as_loss() {
        let dir = tempfile::tempdir().unwrap();
        drop(State::open(dir.path(), 1, 0).unwrap());
        std::fs::remove_dir_all(dir.path().join("sled")).unwrap();
        let (_state, loaded) = State::open(dir.path(), 1, 42).unwrap();
        assert_eq!(loaded.lost_below, 42);
    }

    #[test]
    fn cursors_into_another_journal_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (state, _) = State::open(dir.path(), 1, 0).unwrap();
        state.change(Kind::Cursor, "reader", Some(vec![1]));
        drop(state);
        let (state, loaded) = State::open(dir.path(), 1, 0).unwrap();
        assert_eq!(loaded.cursors.len(), 1);
        drop(state);
        for round in 0..2 {
            let (_state, loaded) = State::open(dir.path(), 2, 0).unwrap();
            assert!(loaded.cursors.is_empty(), "round {round}");
        }
    }

    #[test]
    fn a_damaged_database_counts_as_loss() {
        let dir = tempfile::tempdir().unwrap();
        drop(State::open(dir.path(), 1, 0).unwrap());
        let file = dir.path().join("sled/db");
        let length = std::fs::metadata(&file).unwrap().len() as usize;
        std::fs::write(&file, vec![0xA5; length]).unwrap();
        let (_state, loaded) = State::open(dir.path(), 1, 7).unwrap();
        assert_eq!(loaded.lost_below, 7);
    }
}
