//! What sources remember between runs: small JSON documents in a directory, each replaced as a whole.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use thinglog_schemas::hash::fnv1a;

use crate::spool::dir::replace;

/// A directory of remembered places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Creates the directory where needed.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<StateDir> {
        let path = path.into();
        fs::create_dir_all(&path)?;
        Ok(StateDir { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was remembered under `name`. A document that cannot be read counts as none: the source
    /// then starts as if it were new.
    pub(crate) fn load<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.file(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "a remembered place cannot be read");
                }
                return None;
            }
        };
        let parsed = serde_json::from_slice(&bytes);
        parsed
            .inspect_err(|error| {
                tracing::warn!(path = %path.display(), %error, "a remembered place is damaged");
            })
            .ok()
    }

    /// Remembers `value` under `name`.
    pub(crate) fn store<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        replace(&self.file(name), &serde_json::to_vec(value)?, true)
    }

    /// The names under which something is remembered that begin with `prefix` and a hyphen.
    pub(crate) fn names(&self, prefix: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.path) else {
            return Vec::new();
        };
        let name = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let name = name.strip_suffix(".json")?;
            let own = name.strip_prefix(prefix)?.starts_with('-');
            own.then(|| name.to_owned())
        };
        entries.flatten().filter_map(name).collect()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.json"))
    }
}

/// A file name for whatever text, the same for the same text.
pub(crate) fn key(prefix: &str, text: &[u8]) -> String {
    format!("{prefix}-{:016x}", fnv1a(text))
}
