//! The spool directory and the small files beside the journal.
//!
//! ```text
//! lock          held exclusively (flock) by the process that uses the directory
//! spool.json    whose events these are: {"version":1,"device":"lamp-7","instance":"5f3a09c1"}
//! desired.json  the last configuration: {"received":ns,"desired":{…}}
//! released      16 hex digits journal id, space, 16 hex digits offset, newline: everything below is
//!               acknowledged. A hint, written now and then without a sync: when it is old or gone,
//!               acknowledged events are sent once more under the same ids.
//! journal/      the segments
//! positions/    where the agent stands in files and in the system journal
//! ```
//!
//! Each small file is replaced by rename, so a crash leaves the old one or the new one.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thinglog_schemas::config::Desired;

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
        /// The lock file.
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

const VERSION: u32 = 1;

/// A locked spool directory.
#[derive(Debug)]
pub(crate) struct SpoolDir {
    path: PathBuf,
    instance: String,
    /// Held for its lock.
    _lock: File,
}

impl SpoolDir {
    /// Creates the directory where needed, locks it and checks whose it is. `instance` is what a new
    /// spool is named; an old one keeps its name.
    pub(crate) fn open(path: &Path, device: &str, instance: &str) -> Result<SpoolDir, SpoolError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| SpoolError::Io { path, source }
        };
        fs::create_dir_all(path).map_err(io(path))?;
        let lock_path = path.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(io(&lock_path))?;
        let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        match rustix::fs::flock(&lock, exclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(SpoolError::Locked { path: lock_path });
            }
            Err(errno) => return Err(io(&lock_path)(errno.into())),
        }
        let mut dir = SpoolDir {
            path: path.to_owned(),
            instance: instance.to_owned(),
            _lock: lock,
        };
        dir.check_identity(device)?;
        Ok(dir)
    }

    fn check_identity(&mut self, device: &str) -> Result<(), SpoolError> {
        let path = self.path.join("spool.json");
        if let Some(identity) = read_json::<Identity>(&path)? {
            if identity.version != VERSION {
                return Err(SpoolError::Unreadable {
                    path,
                    reason: format!("version {} is unknown", identity.version),
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
        replace(&path, &bytes, true).map_err(|source| SpoolError::Io { path, source })
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
        match read_json::<KeptDesired>(&path) {
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
            return match fs::remove_file(&path) {
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
        replace(&path, &bytes, true)
    }

    /// The offset below which everything of journal `id` is acknowledged, as far as was noted.
    pub(crate) fn released(&self, id: u64) -> Option<u64> {
        let text = fs::read_to_string(self.path.join("released")).ok()?;
        let (journal, offset) = text.strip_suffix('\n')?.split_once(' ')?;
        let number = |hex: &str| (hex.len() == 16).then(|| u64::from_str_radix(hex, 16).ok())?;
        (number(journal)? == id).then(|| number(offset))?
    }

    /// Notes that everything below `offset` of journal `id` is acknowledged.
    pub(crate) fn note_released(&self, id: u64, offset: u64) -> io::Result<()> {
        let text = format!("{id:016x} {offset:016x}\n");
        replace(&self.path.join("released"), text.as_bytes(), false)
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, SpoolError> {
    let bytes = match fs::read(path) {
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

/// Replaces a small file as a whole; with `sync` it survives a power cut from now on.
pub(crate) fn replace(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    if sync {
        file.sync_all()?;
    }
    fs::rename(&new, path)?;
    if sync && let Some(parent) = path.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_cannot_share_a_spool() {
        let dir = tempfile::tempdir().unwrap();
        let first = SpoolDir::open(dir.path(), "lamp-7", "a").unwrap();
        let error = SpoolDir::open(dir.path(), "lamp-7", "a").unwrap_err();
        assert!(matches!(error, SpoolError::Locked { .. }), "{error}");
        drop(first);
        SpoolDir::open(dir.path(), "lamp-7", "a").unwrap();
    }

    #[test]
    fn a_spool_of_another_device_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        drop(SpoolDir::open(dir.path(), "lamp-7", "a").unwrap());
        let error = SpoolDir::open(dir.path(), "lamp-8", "a").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("lamp-7") && text.contains("lamp-8"), "{text}");
    }

    #[test]
    fn the_instance_is_stable_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        drop(SpoolDir::open(dir.path(), "lamp-7", "first").unwrap());
        let again = SpoolDir::open(dir.path(), "lamp-7", "second").unwrap();
        assert_eq!(again.instance(), "first");
    }

    #[test]
    fn the_released_hint_counts_for_its_own_journal_only() {
        let dir = tempfile::tempdir().unwrap();
        let spool = SpoolDir::open(dir.path(), "lamp-7", "a").unwrap();
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
        let spool = SpoolDir::open(dir.path(), "lamp-7", "a").unwrap();
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
}
