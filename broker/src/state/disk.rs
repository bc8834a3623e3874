//! What the images of the state ask of the disk, beyond what sled does by itself: a seam, so that
//! tests cut the power around every step.

use std::{fs::File, io, path::Path};

/// Syncs and names.
pub(crate) trait Disk: Send + Sync {
    /// Makes everything below `dir` durable: contents, lengths and names.
    fn sync_tree(&self, dir: &Path) -> io::Result<()>;

    /// Renames, durably.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
}

/// The disk of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn sync_tree(&self, dir: &Path) -> io::Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                self.sync_tree(&entry.path())?;
            } else {
                File::open(entry.path())?.sync_all()?;
            }
        }
        File::open(dir)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)?;
        match to.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    }
}
