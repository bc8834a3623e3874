//! One open log file: how far it was read, and whether it still is the file it was.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use serde::{Deserialize, Serialize};
use thinglog_schemas::hash::fnv1a;

use crate::agent::lines::{Line, Lines};

/// How many of its first bytes tell one file from another that took its inode or its place.
const FINGERPRINT: usize = 256;

/// Which file, and how far: everything below `offset` was published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) offset: u64,
    /// Length and hash of the file's first bytes.
    pub(crate) fingerprint: (usize, u64),
}

/// What reading on found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Something; there may be more.
    More,
    /// The end, for now.
    End,
    /// The file was emptied, or overwritten from its beginning.
    Replaced,
}

#[derive(Debug)]
pub(crate) struct OpenFile {
    file: File,
    device: u64,
    inode: u64,
    /// Bytes read.
    read: u64,
    fingerprint: (usize, u64),
    lines: Lines,
    /// Length and modification time when it was last looked at.
    seen: (u64, i64, i64),
}

impl OpenFile {
    /// Opens `path` to be read from `offset`.
    pub(crate) fn open(path: &Path, offset: u64) -> io::Result<OpenFile> {
        // Without waiting: opening a named pipe would, for its writer.
        let no_wait = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = File::options()
            .read(true)
            .custom_flags(no_wait)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file; read a stream with `thinglog-edge pipe`",
            ));
        }
        let mut open = OpenFile {
            device: metadata.dev(),
            inode: metadata.ino(),
            file,
            read: offset,
            fingerprint: (0, fnv1a(&[])),
            lines: Lines::default(),
            seen: (0, 0, 0),
        };
        open.take_fingerprint()?;
        Ok(open)
    }

    /// Opens `path` where `position` says, when it still is that file.
    pub(crate) fn resume(path: &Path, position: &Position) -> io::Result<Option<OpenFile>> {
        let open = OpenFile::open(path, position.offset)?;
        let same = open.device == position.device
            && open.inode == position.inode
            && open.file.metadata()?.len() >= position.offset
            && open.hash_of(position.fingerprint.0)? == Some(position.fingerprint.1);
        Ok(same.then_some(open))
    }

    /// Everything before this was given out as lines.
    pub(crate) fn position(&self) -> Position {
        Position {
            device: self.device,
            inode: self.inode,
            offset: self.read - self.lines.pending(),
            fingerprint: self.fingerprint,
        }
    }

    /// Whether `metadata` is this file's.
    pub(crate) fn is(&self, metadata: &Metadata) -> bool {
        self.device == metadata.dev() && self.inode == metadata.ino()
    }

    /// Reads once into `buffer` and gives out the lines that became complete.
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        each: impl FnMut(Line<'_>),
    ) -> io::Result<Progress> {
        if !self.is_unchanged()? {
            return Ok(Progress::Replaced);
        }
        let bytes = self.file.read_at(buffer, self.read)?;
        if bytes == 0 {
            return Ok(Progress::End);
        }
        self.read += bytes as u64;
        self.lines.feed(&buffer[..bytes], each);
        if self.fingerprint.0 < FINGERPRINT {
            self.take_fingerprint()?;
        }
        Ok(Progress::More)
    }

    /// The line that was begun and will not be finished.
    pub(crate) fn finish(&mut self, each: impl FnMut(Line<'_>)) {
        self.lines.finish(each);
    }

    /// Back to the beginning, after the file was replaced in place.
    pub(crate) fn rewind(&mut self) {
        self.read = 0;
        self.fingerprint = (0, fnv1a(&[]));
    }

    /// False when the file became shorter, or begins differently although it did not.
    fn is_unchanged(&mut self) -> io::Result<bool> {
        let metadata = self.file.metadata()?;
        if metadata.len() < self.read {
            return Ok(false);
        }
        let seen = (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        if seen == self.seen {
            return Ok(true);
        }
        self.seen = seen;
        Ok(self.hash_of(self.fingerprint.0)? == Some(self.fingerprint.1))
    }

    /// Of what was read only: later bytes may still be on their way.
    fn take_fingerprint(&mut self) -> io::Result<()> {
        let length = usize::try_from(self.read).unwrap_or(usize::MAX);
        let length = length.min(FINGERPRINT);
        if let Some(hash) = self.hash_of(length)? {
            self.fingerprint = (length, hash);
        }
        Ok(())
    }

    /// Hash of the first `length` bytes; `None` when there are fewer.
    fn hash_of(&self, length: usize) -> io::Result<Option<u64>> {
        let mut bytes = [0; FINGERPRINT];
        let Some(bytes) = bytes.get_mut(..length) else {
            return Ok(None);
        };
        match self.file.read_exact_at(bytes, 0) {
            Ok(()) => Ok(Some(fnv1a(bytes))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}
