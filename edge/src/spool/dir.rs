//! The spool directory and the small files beside the journal.
//!
//! ```text
//! spool.json    whose events these are: {"version":2,"device":"lamp-7","instance":"5f3a09c1"}
//! desired.json  the last configuration: {"received":ns,"desired":{…}}
//! released      16 hex digits journal id, space, 16 hex digits offset, newline: everything below is
//!               acknowledged. A hint, written now and then without a sync: when it is old or gone,
//!               acknowledged events are sent once more under the same ids.
//! marks         where sources that can be read again stood, see `marks.rs`; synced before a
//!               segment goes that has a later place than this file
//! damaged       as `released`: of the records below that offset some were damaged, and are left out
//!               where they were rewritten; gone once all of them are acknowledged
//! reserve       room for one segment, see `reserve.rs`
//! journal/      the segments
//! ```
//!
//! The directory is locked (flock) by the process that uses it. Each small file is replaced by
//! rename, so a crash leaves the old one or the new one. Each has a limit, so that all of them and
//! the journal stay below the spool's cap, also while one is being replaced.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thinglog_journal::fs::{Fs, Lock, RealFs, read_block, write_all};
use thinglog_schemas::config::Desired;

use super::reserve::reserve_bytes;
use crate::marks::Marks;

/// What goes wrong with a spool directory.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The file system said no.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Too little for a few of the largest batches.
    #[error("a spool of {bytes} bytes is too small; allow it at least {least}")]
    TooSmall {
        /// Configured.
        bytes: u64,
        /// The least that works.
        least: u64,
    },
    /// Two processes must not share a spool.
    #[error(
        "{path}: another process uses this spool; stop it or choose another directory",
        path = path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The events inside would be sent under a wrong name.
    #[error(
        "{path}: the spool holds events of device {found:?}, not {wanted:?}; \
         send them as that device first, or choose another directory",
        path = path.display()
    )]
    OtherDevice {
        /// The identity file.
        path: PathBuf,
        /// In the file.
        found: String,
        /// Configured.
        wanted: String,
    },
    /// A file that this version cannot read.
    #[error("{path}: {reason}; move the directory away to start with an empty spool", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The journal could not be opened.
    #[error("spool journal: {0}")]
    Journal(#[from] thinglog_journal::OpenError),
}

#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    version: u32,
    device: String,
    instance: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptDesired {
    received: u64,
    desired: Desired,
}

const VERSION: u32 = 2;
/// The most each file takes, bytes; twice while it is replaced.
const MAX_IDENTITY: usize = 4 << 10;
const MAX_RELEASED: usize = 64;
/// What the others take together, at most, and slack for the journal's sidecars.
const FILES: u64 = 80 << 10;

/// The most that `desired.json` takes in a spool of `cap` bytes.
const fn max_desired(cap: u64) -> u64 {
    let share = cap / 256;
    if share < 24 << 10 {
        24 << 10
    } else if share > 256 << 10 {
        256 << 10
    } else {
        share
    }
}

/// The most that `marks` takes in a spool of `cap` bytes.
pub(crate) const fn max_marks(cap: u64) -> u64 {
    let share = cap / 256;
    if share < 64 << 10 {
        64 << 10
    } else if share > 1 << 20 {
        1 << 20
    } else {
        share
    }
}

/// What of a cap is kept for the files beside the journal.
pub(crate) const fn side_files(cap: u64) -> u64 {
    FILES + 2 * max_desired(cap) + 2 * max_marks(cap) + reserve_bytes(cap)
}

/// A locked spool directory.
pub(crate) struct SpoolDir {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    instance: String,
    max_desired: usize,
    max_marks: u64,
    _lock: Lock,
}

impl fmt::Debug for SpoolDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpoolDir")
            .field("path", &self.path)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

impl SpoolDir {
    /// Creates the directory where needed, locks it and checks whose it is. `instance` is what a new
    /// spool is named; an old one keeps its name. All of it may take `cap` bytes.
    pub(crate) fn open(
        fs: Arc<dyn Fs>,
        path: &Path,
        cap: u64,
        device: &str,
        instance: &str,
    ) -> Result<SpoolDir, SpoolError> {
        let io = |source| SpoolError::Io {
            path: path.to_owned(),
            source,
        };
        fs.create_dir(path).map_err(io)?;
        let lock = fs.lock(path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => SpoolError::Locked {
                path: path.to_owned(),
            },
            _ => io(error),
        })?;
        let mut dir = SpoolDir {
            fs,
            path: path.to_owned(),
            instance: instance.to_owned(),
            max_desired: usize::try_from(max_desired(cap)).unwrap_or(usize::MAX),
            max_marks: max_marks(cap),
            _lock: lock,
        };
        dir.remove_leftovers().map_err(io)?;
        dir.check_identity(device)?;
        Ok(dir)
    }

    /// Files that were being replaced when an earlier process ended.
    fn remove_leftovers(&self) -> io::Result<()> {
        for entry in self.fs.list(&self.path)? {
            if entry.name.ends_with(NEW) {
                self.fs.remove(&self.path.join(entry.name))?;
            }
        }
        Ok(())
    }

    fn check_identity(&mut self, device: &str) -> Result<(), SpoolError> {
        let path = self.path.join("spool.json");
        if let Some(identity) = self.read_json::<Identity>(&path, MAX_IDENTITY)? {
            if identity.version != VERSION {
                return Err(SpoolError::Unreadable {
                    path,
                    reason: format!(
                        "its layout has version {}, this program reads {VERSION}",
                        identity.version
                    ),
                });
            }
            if identity.device != device {
                return Err(SpoolError::OtherDevice {
                    path,
                    found: identity.device,
                    wanted: device.to_owned(),
                });
            }
            self.instance = identity.instance;
            return Ok(());
        }
        let identity = Identity {
            version: VERSION,
            device: device.to_owned(),
            instance: self.instance.clone(),
        };
        let bytes = serde_json::to_vec(&identity).unwrap_or_default();
        self.replace(&path, &bytes, MAX_IDENTITY, true)
            .map_err(|source| SpoolError::Io { path, source })
    }

    /// The stable part of the client id of whoever uses this spool.
    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    /// Where the segments are.
    pub(crate) fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// The configuration that was last in force and when it had arrived (ns since the epoch). A file
    /// that cannot be read counts as none: the broker has the document.
    pub(crate) fn desired(&self) -> Option<(Desired, u64)> {
        let path = self.path.join("desired.json");
        match self.read_json::<KeptDesired>(&path, self.max_desired) {
            Ok(kept) => kept.map(|kept| (kept.desired, kept.received)),
            Err(error) => {
                tracing::warn!(%error, "the kept configuration is ignored");
                None
            }
        }
    }

    /// Keeps the configuration for the next start; `None` removes it.
    pub(crate) fn keep_desired(&self, desired: Option<&Desired>, received: u64) -> io::Result<()> {
        let path = self.path.join("desired.json");
        let Some(desired) = desired else {
            return match self.fs.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        };
        // A retained document comes again with every connection: flash is not worn for that, and a
        // temporary level keeps the time of its first receipt.
        if self.desired().is_some_and(|(kept, _)| kept == *desired) {
            return Ok(());
        }
        let kept = KeptDesired {
            received,
            desired: desired.clone(),
        };
        let bytes = serde_json::to_vec(&kept)?;
        self.replace(&path, &bytes, self.max_desired, true)
    }

    /// The offset below which everything of journal `id` is acknowledged, as far as was noted.
    pub(crate) fn released(&self, id: u64) -> Option<u64> {
        self.read_offset(RELEASED, id)
    }

    /// Notes that everything below `offset` of journal `id` is acknowledged.
    pub(crate) fn note_released(&self, id: u64, offset: u64) -> io::Result<()> {
        self.note_offset(RELEASED, id, offset, false)
    }

    /// The offset below which records of journal `id` were damaged, and may be gone by now.
    pub(crate) fn damaged(&self, id: u64) -> Option<u64> {
        self.read_offset(DAMAGED, id)
    }

    /// Notes that below `offset` of journal `id` some records were damaged; synced.
    pub(crate) fn note_damaged(&self, id: u64, offset: u64) -> io::Result<()> {
        self.note_offset(DAMAGED, id, offset, true)
    }

    /// The damaged records have no traces left.
    pub(crate) fn forget_damaged(&self) -> io::Result<()> {
        match self.fs.remove(&self.path.join(DAMAGED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The file that keeps room.
    pub(crate) fn reserve(&self) -> PathBuf {
        self.path.join("reserve")
    }

    fn read_offset(&self, name: &str, id: u64) -> Option<u64> {
        let text = self.read(&self.path.join(name), MAX_RELEASED);
        let text = String::from_utf8(text.ok()?).ok()?;
        let (journal, offset) = text.strip_suffix('\n')?.split_once(' ')?;
        let number = |hex: &str| (hex.len() == 16).then(|| u64::from_str_radix(hex, 16).ok())?;
        (number(journal)? == id).then(|| number(offset))?
    }

    fn note_offset(&self, name: &str, id: u64, offset: u64, sync: bool) -> io::Result<()> {
        let text = format!("{id:016x} {offset:016x}\n");
        self.replace(&self.path.join(name), text.as_bytes(), MAX_RELEASED, sync)
    }

    /// The places of sources that were noted for journal `id`, and below which offset of it.
    pub(crate) fn marks(&self, id: u64) -> (Marks, u64) {
        let limit = usize::try_from(self.max_marks).unwrap_or(usize::MAX);
        let mut marks = Marks::new(limit);
        // One of a larger spool may be longer.
        let text = self.read(&self.path.join("marks"), 2 << 20);
        let through = match text.map(String::from_utf8) {
            Ok(Ok(text)) => marks.read_text(&text, id),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(0),
            _ => None,
        };
        if through.is_none() {
            tracing::warn!(
                "the noted places of sources cannot be read; those in the spool's records count"
            );
        }
        (marks, through.unwrap_or(0))
    }

    /// Notes the places of sources in all records of journal `id` below `through`; synced.
    pub(crate) fn note_marks(&self, marks: &Marks, id: u64, through: u64) -> io::Result<()> {
        let text = marks.to_text(id, through);
        let limit = usize::try_from(self.max_marks).unwrap_or(usize::MAX);
        self.replace(&self.path.join("marks"), text.as_bytes(), limit, true)
    }

    fn read_json<T: DeserializeOwned>(
        &self,
        path: &Path,
        limit: usize,
    ) -> Result<Option<T>, SpoolError> {
        let bytes = match self.read(path, limit) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                let path = path.to_owned();
                return Err(SpoolError::Io { path, source });
            }
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| SpoolError::Unreadable {
                path: path.to_owned(),
                reason: error.to_string(),
            })
    }

    /// A small file; of a larger one its beginning.
    fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        let file = self.fs.open(path, false)?;
        read_block(&*file, 0, limit)
    }

    fn replace(&self, path: &Path, bytes: &[u8], limit: usize, sync: bool) -> io::Result<()> {
        if bytes.len() > limit {
            return Err(io::Error::other(format!(
                "{} bytes are more than the {limit} that a spool keeps of it",
                bytes.len()
            )));
        }
        replace_in(&*self.fs, path, bytes, sync)
    }
}

const RELEASED: &str = "released";
const DAMAGED: &str = "damaged";
/// What a file is called while it replaces another one.
const NEW: &str = ".new";

/// Replaces a small file as a whole; with `sync` it survives a power cut from now on.
pub(crate) fn replace(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    replace_in(&RealFs, path, bytes, sync)
}

fn replace_in(fs: &dyn Fs, path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(NEW);
    let new = PathBuf::from(new);
    let written = fs.create(&new).and_then(|file| {
        write_all(&*file, bytes, 0)?;
        if sync { file.sync() } else { Ok(()) }
    });
    if let Err(error) = written {
        // What is left of it would take room.
        let _ = fs.remove(&new);
        return Err(error);
    }
    fs.rename(&new, path)?;
    match path.parent() {
        Some(parent) if sync => fs.sync_dir(parent),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn open(path: &Path, device: &str, instance: &str) -> Result<SpoolDir, SpoolError> {
        SpoolDir::open(Arc::new(RealFs), path, 4 << 20, device, instance)
    }

    #[test]
    fn two_processes_cannot_share_a_spool() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), "lamp-7", "a").unwrap();
        let error = open(dir.path(), "lamp-7", "a").unwrap_err();
        assert!(matches!(error, SpoolError::Locked { .. }), "{error}");
        drop(first);
        open(dir.path(), "lamp-7", "a").unwrap();
    }

    #[test]
    fn a_spool_of_another_device_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), "lamp-7", "a").unwrap());
        let error = open(dir.path(), "lamp-8", "a").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("lamp-7") && text.contains("lamp-8"), "{text}");
    }

    #[test]
    fn the_instance_is_stable_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), "lamp-7", "first").unwrap());
        let again = open(dir.path(), "lamp-7", "second").unwrap();
        assert_eq!(again.instance(), "first");
    }

    #[test]
    fn the_released_hint_counts_for_its_own_journal_only() {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path(), "lamp-7", "a").unwrap();
        assert_eq!(spool.released(1), None);
        spool.note_released(1, 42).unwrap();
        assert_eq!(spool.released(1), Some(42));
        assert_eq!(spool.released(2), None);
        fs::write(dir.path().join("released"), "0000000000000001 00000").unwrap();
        assert_eq!(spool.released(1), None);
    }

    #[test]
    fn the_last_configuration_is_kept_and_a_damaged_one_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path(), "lamp-7", "a").unwrap();
        assert!(spool.desired().is_none());
        let json = r#"{"schema":1,"revision":"ab","level":"ERROR"}"#;
        let desired: Desired = serde_json::from_str(json).unwrap();
        spool.keep_desired(Some(&desired), 5).unwrap();
        assert_eq!(spool.desired(), Some((desired, 5)));
        fs::write(dir.path().join("desired.json"), "{").unwrap();
        assert!(spool.desired().is_none());
        spool.keep_desired(None, 5).unwrap();
        assert!(!dir.path().join("desired.json").exists());
    }

    #[test]
    fn a_long_configuration_is_kept_where_there_is_room_and_else_refused_by_its_size() {
        let document = |revision: &str| {
            let source = |n| format!(r#""unit-{n}.service":"DEBUG""#);
            let sources: Vec<String> = (0..5000).map(source).collect();
            let sources = sources.join(",");
            let json = format!(
                r#"{{"schema":1,"revision":"{revision}","level":"ERROR","sources":{{{sources}}}}}"#
            );
            assert!(json.len() > 100 << 10);
            serde_json::from_str::<Desired>(&json).unwrap()
        };
        let large = tempfile::tempdir().unwrap();
        let spool = SpoolDir::open(Arc::new(RealFs), large.path(), 64 << 20, "lamp-7", "a");
        let spool = spool.unwrap();
        spool.keep_desired(Some(&document("a")), 5).unwrap();
        assert_eq!(spool.desired(), Some((document("a"), 5)));

        let small = tempfile::tempdir().unwrap();
        let spool = open(small.path(), "lamp-7", "a").unwrap();
        let error = spool.keep_desired(Some(&document("a")), 5).unwrap_err();
        assert!(error.to_string().contains("more than the 24576"), "{error}");
        assert!(spool.desired().is_none());
    }
}
