//! Room on the disk that is the state's own: a file of zeros that is given up when the disk is full,
//! and a floor of free bytes below which nothing new is taken, so that what is under way can be
//! finished and the broker can be opened again.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tracing::{info, warn};

/// The reserve of one directory.
pub(super) struct Reserve {
    dir: PathBuf,
    /// Size of the file, and the floor; 0 keeps neither.
    bytes: u64,
    held: bool,
    low: bool,
}

impl Reserve {
    pub(super) fn new(dir: &Path, bytes: u64) -> Reserve {
        let mut reserve = Reserve {
            dir: dir.to_owned(),
            bytes,
            held: false,
            low: false,
        };
        let length = reserve.path().metadata().map_or(0, |file| file.len());
        reserve.held = bytes > 0 && length == bytes;
        if length > 0 && !reserve.held {
            // Another size was configured before.
            reserve.remove();
        }
        reserve
    }

    fn path(&self) -> PathBuf {
        self.dir.join("reserve")
    }

    /// Free bytes of the file system, for those who are not root.
    pub(super) fn free(&self) -> u64 {
        match statvfs(&self.dir) {
            Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
            Err(error) => {
                warn!(path = %self.dir.display(), %error, "cannot tell how full the disk is");
                u64::MAX
            }
        }
    }

    /// Whether there is room for new things. Takes the reserve back when there is room for it.
    pub(super) fn look(&mut self) -> bool {
        if self.bytes == 0 {
            return true;
        }
        let mut free = self.free();
        if !self.held && free >= self.bytes.saturating_mul(3) {
            self.take();
            free = self.free();
        }
        // It takes more to be called roomy again than not to be called full, so that a disk at the
        // edge does not change its mind with every publish.
        let least = if self.low { 2 * self.bytes } else { self.bytes };
        let low = !self.held || free < least;
        if low != self.low {
            self.low = low;
            if low {
                warn!(path = %self.dir.display(), free, "the disk is full: new publishes are refused until there is room");
            } else {
                info!(path = %self.dir.display(), free, "there is room on the disk again");
            }
        }
        !low
    }

    fn take(&mut self) {
        match self.fill() {
            Ok(()) => self.held = true,
            Err(error) => {
                warn!(path = %self.path().display(), %error, "cannot reserve room on the disk");
                self.remove();
            }
        }
    }

    /// Writes zeros where the file system cannot just allocate.
    fn fill(&self) -> io::Result<()> {
        let mut file = File::create(self.path())?;
        if fallocate(&file, FallocateFlags::empty(), 0, self.bytes).is_err() {
            let zeros = vec![0; 1 << 16];
            let mut left = self.bytes;
            while left > 0 {
                let some = left.min(zeros.len() as u64);
                file.write_all(&zeros[..some as usize])?;
                left -= some;
            }
        }
        file.sync_all()
    }

    /// Gives the room up; false when there is none to give.
    pub(super) fn give_up(&mut self) -> bool {
        let had = std::mem::take(&mut self.held);
        if had {
            warn!(path = %self.path().display(), "the disk is full: the reserve is given up");
            self.remove();
        }
        had
    }

    fn remove(&self) {
        if let Err(error) = std::fs::remove_file(self.path())
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(path = %self.path().display(), %error, "cannot remove the reserve");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_kept_given_up_and_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::new(dir.path(), 1 << 20);
        assert!(reserve.look());
        assert_eq!(reserve.path().metadata().unwrap().len(), 1 << 20);
        assert!(
            Reserve::new(dir.path(), 1 << 20).held,
            "it outlives the process"
        );
        assert!(reserve.give_up());
        assert!(!reserve.path().exists());
        assert!(!reserve.give_up());
        assert!(reserve.look());
        assert!(reserve.path().exists());
    }

    #[test]
    fn more_than_the_disk_has_is_not_reserved_and_nothing_new_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::new(dir.path(), 1 << 60);
        assert!(!reserve.look());
        assert!(!reserve.path().exists());
    }
}
