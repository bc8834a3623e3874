//! A part's folder on disk, held by one process at a time.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::deliver::supervise::OpenError;

/// A folder with a lock on it; the lock ends with the value or with the process.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Creates the folder if need be and locks it.
    pub(crate) fn lock(path: &Path) -> Result<Folder, OpenError> {
        let io = |source| OpenError::Io {
            path: path.to_owned(),
            source,
        };
        create_durably(path).map_err(io)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join("lock"))
            .map_err(io)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Folder {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked {
                path: path.to_owned(),
            }),
            Err(errno) => Err(io(errno.into())),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// What tells this installation's folder from all others: 16 hex digits, made once and kept in it.
#[cfg(any(feature = "object-store", feature = "mqtt"))]
pub(crate) fn id(folder: &Path) -> std::io::Result<String> {
    let file = folder.join("id");
    match std::fs::read_to_string(&file) {
        Ok(id) if id.trim().len() == 16 => return Ok(id.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let id = getrandom::u64().map_err(|error| std::io::Error::other(error.to_string()))?;
    let id = format!("{id:016x}");
    let new = folder.join("id.new");
    let written = std::fs::File::create(&new)?;
    std::io::Write::write_all(&mut &written, id.as_bytes())?;
    written.sync_all()?;
    std::fs::rename(&new, &file)?;
    sync_folder_of(&file)?;
    Ok(id)
}

/// Creates a folder and its parents so that a power cut does not take them away again.
pub(crate) fn create_durably(path: &Path) -> std::io::Result<()> {
    // The parent of a relative path's first folder is written as nothing.
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_durably(parent)?;
    }
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_folder_of(path),
    }
}

/// Opens a file that is written at positions of our own keeping; creates it if need be.
pub(crate) fn open_to_write_at(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

/// Makes creations, renames and removals next to `path` durable.
pub(crate) fn sync_folder_of(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_held_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let held = Folder::lock(&path).unwrap();
        assert!(matches!(Folder::lock(&path), Err(OpenError::Locked { .. })));
        drop(held);
        assert!(Folder::lock(&path).is_ok());
    }

    #[test]
    fn a_relative_folder_is_made_in_the_working_directory() {
        let folder = tempfile::tempdir_in(".").unwrap();
        let name = Path::new(folder.path().file_name().unwrap());
        create_durably(&name.join("a/b")).unwrap();
        assert!(name.join("a/b").is_dir());
        let fresh = PathBuf::from(format!("{}-fresh", name.display()));
        create_durably(&fresh.join("c")).unwrap();
        assert!(fresh.join("c").is_dir());
        std::fs::remove_dir_all(fresh).unwrap();
    }
}
