//! Is told by the kernel (inotify(7)) when a file that was idle changes and when something appears in
//! a directory. Without that, or beyond the system's limits, files and directories are looked at in
//! turn, which the caller does anyway, only more rarely.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

/// Directories that are watched, at most.
const MAX_DIRECTORIES: usize = 1024;

/// What the kernel told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The file that is, or was, at this path has changed; it is not watched any more.
    File(PathBuf),
    /// Something appeared, was renamed or removed.
    Entry(PathBuf, OsString),
    /// More happened than could be told.
    Anything,
}

/// Which directories the kernel tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    /// All, and of all of them before.
    All,
    /// All, of some only from now on: something may have come before.
    New,
    /// Some only.
    Some,
}

#[derive(Debug)]
pub(crate) struct Watcher {
    inotify: Option<Arc<OwnedFd>>,
    files: HashMap<i32, PathBuf>,
    directories: HashMap<PathBuf, i32>,
}

impl Watcher {
    pub(crate) fn new() -> Watcher {
        let made = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC);
        let made = made.inspect_err(|error| {
            tracing::info!(%error, "no inotify; files are looked at in turn");
        });
        Watcher {
            inotify: made.ok().map(Arc::new),
            files: HashMap::new(),
            directories: HashMap::new(),
        }
    }

    /// Readable when there is something to tell.
    pub(crate) fn descriptor(&self) -> Option<Arc<OwnedFd>> {
        self.inotify.clone()
    }

    /// Tells of the next change of the file at `path`, once. False when that cannot be had.
    pub(crate) fn watch_file(&mut self, path: &Path) -> bool {
        let Some(inotify) = &self.inotify else {
            return false;
        };
        let flags = WatchFlags::MODIFY
            | WatchFlags::MOVE_SELF
            | WatchFlags::DELETE_SELF
            | WatchFlags::ONESHOT;
        match inotify::add_watch(inotify, path, flags) {
            Ok(watch) => {
                self.files.insert(watch, path.to_owned());
                true
            }
            Err(_) => false,
        }
    }

    /// Tells of changes in these directories from now on, and of no others.
    pub(crate) fn watch_directories(&mut self, directories: &BTreeSet<PathBuf>) -> Watched {
        let Some(inotify) = &self.inotify else {
            return Watched::Some;
        };
        self.directories.retain(|path, watch| {
            let keep = directories.contains(path);
            if !keep {
                // Fails when the directory is gone, and the watch with it.
                let _ = inotify::remove_watch(inotify, *watch);
            }
            keep
        });
        let flags =
            WatchFlags::CREATE | WatchFlags::MOVE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        let mut all = directories.len() <= MAX_DIRECTORIES;
        let mut new = false;
        for path in directories.iter().take(MAX_DIRECTORIES) {
            // Again each time: another directory may have taken the place of the one before.
            match inotify::add_watch(inotify, path.as_path(), flags) {
                Ok(watch) => {
                    let before = self.directories.insert(path.clone(), watch);
                    new |= before != Some(watch);
                }
                Err(_) => all = false,
            }
        }
        match (all, new) {
            (true, true) => Watched::New,
            (true, false) => Watched::All,
            (false, _) => Watched::Some,
        }
    }

    /// Gives out what happened since the last call.
    pub(crate) fn changes(&mut self, mut each: impl FnMut(Change)) {
        let Some(inotify) = &self.inotify else { return };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(inotify, &mut buffer);
        // Ends with the first error, which says that there is nothing more.
        while let Ok(event) = reader.next() {
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                each(Change::Anything);
            } else if let Some(path) = self.files.remove(&event.wd()) {
                each(Change::File(path));
            } else if let Some(name) = event.file_name() {
                let of = |(_, watch): &(&PathBuf, &i32)| **watch == event.wd();
                if let Some((directory, _)) = self.directories.iter().find(of) {
                    let name = OsStr::from_bytes(name.to_bytes()).to_owned();
                    each(Change::Entry(directory.clone(), name));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn changes(watcher: &mut Watcher) -> Vec<Change> {
        let mut out = Vec::new();
        watcher.changes(|change| out.push(change));
        out
    }

    #[test]
    fn a_file_is_told_of_once_and_a_directory_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        fs::write(&path, "").unwrap();
        let mut watcher = Watcher::new();
        let directories = BTreeSet::from([dir.path().to_owned()]);
        assert_eq!(watcher.watch_directories(&directories), Watched::New);
        assert_eq!(watcher.watch_directories(&directories), Watched::All);
        assert!(watcher.watch_file(&path));
        assert_eq!(changes(&mut watcher), []);
        fs::write(&path, "one\n").unwrap();
        fs::write(&path, "two\n").unwrap();
        assert_eq!(changes(&mut watcher), [Change::File(path.clone())]);
        for name in ["a", "b"] {
            fs::write(dir.path().join(name), "").unwrap();
            let entry = Change::Entry(dir.path().to_owned(), name.into());
            assert_eq!(changes(&mut watcher), [entry]);
        }
        assert_eq!(watcher.watch_directories(&BTreeSet::new()), Watched::All);
        fs::write(dir.path().join("c"), "").unwrap();
        assert_eq!(changes(&mut watcher), []);
        assert!(!watcher.watch_file(&dir.path().join("missing")));
        let missing = BTreeSet::from([dir.path().join("missing")]);
        assert_eq!(watcher.watch_directories(&missing), Watched::Some);
    }
}
