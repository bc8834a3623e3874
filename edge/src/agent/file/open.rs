//! One log file that is being read: how far, and whether it still is the file it was. It may be
//! closed for a while, to be opened again where it was left.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
    time::Instant,
};

use thinglog_schemas::hash::fnv1a;

use super::position::{FileId, Position};
use crate::agent::{
    entries::{Entries, TextOptions},
    lines::Line,
};

/// How many of its first bytes tell one file from another that took its inode or its place.
const FINGERPRINT: usize = 256;
/// What may be held of a line without end while nothing comes; more is read again.
const HELD: usize = 4 << 10;

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
    /// `None`: closed for a while.
    file: Option<File>,
    id: FileId,
    /// Bytes read.
    read: u64,
    fingerprint: (usize, u64),
    entries: Entries,
    /// Length and modification time (ns) when it was last looked at.
    seen: (u64, u64),
}

impl OpenFile {
    /// Opens `path` to be read from `offset`, where a line begins.
    pub(crate) fn open(path: &Path, offset: u64, text: &TextOptions) -> io::Result<OpenFile> {
        let file = open(path)?;
        let metadata = file.metadata()?;
        let mut open = OpenFile {
            id: FileId::of(&metadata),
            file: Some(file),
            read: offset,
            fingerprint: (0, fnv1a(&[])),
            entries: Entries::new(text),
            seen: (metadata.len(), modified(&metadata)),
        };
        open.go_to(offset, false)?;
        Ok(open)
    }

    /// Opens `path` where `position` says, when it still is that file.
    pub(crate) fn resume(
        path: &Path,
        position: &Position,
        text: &TextOptions,
    ) -> io::Result<Option<OpenFile>> {
        let same = |open: &OpenFile| open.id == position.id;
        OpenFile::resume_if(path, position, text, same)
    }

    /// Opens a copy of the file that `position` was in, where `position` says.
    pub(crate) fn resume_copy(
        path: &Path,
        position: &Position,
        text: &TextOptions,
    ) -> io::Result<Option<OpenFile>> {
        let told_apart = position.fingerprint.0 > 0;
        OpenFile::resume_if(path, position, text, |_| told_apart)
    }

    fn resume_if(
        path: &Path,
        position: &Position,
        text: &TextOptions,
        same: impl Fn(&OpenFile) -> bool,
    ) -> io::Result<Option<OpenFile>> {
        let mut open = OpenFile::open(path, 0, text)?;
        if !same(&open) || !open.goes_on_from(position)? {
            return Ok(None);
        }
        open.go_to(position.offset, position.passing_over)?;
        Ok(Some(open))
    }

    /// Whether it begins as the file of `position` does and is no shorter.
    fn goes_on_from(&self, position: &Position) -> io::Result<bool> {
        let (length, hash) = position.fingerprint;
        let long_enough = self.file()?.metadata()?.len() >= position.offset;
        Ok(long_enough && self.hash_of(length)? == Some(hash))
    }

    /// Whether this is the file of `position`, and not another one that was given its inode.
    pub(crate) fn is_at(&self, position: &Position) -> bool {
        let was_empty = position.fingerprint.0 == 0;
        self.id == position.id
            && matches!(self.goes_on_from(position), Ok(true))
            && (!was_empty || self.length() == Some(position.offset))
    }

    /// Everything before this was given out.
    pub(crate) fn position(&self) -> Position {
        Position {
            id: self.id,
            offset: self.entries.given(),
            passing_over: self.entries.passing_over(),
            fingerprint: self.fingerprint,
            modified: self.seen.1,
        }
    }

    /// Where it ends now, as if all of it had been given out.
    pub(crate) fn end(&self) -> io::Result<Position> {
        let metadata = self.file()?.metadata()?;
        let known = FINGERPRINT.min(usize::try_from(metadata.len()).unwrap_or(FINGERPRINT));
        let hash = self.hash_of(known)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Position {
            id: self.id,
            offset: metadata.len(),
            passing_over: false,
            fingerprint: (known, hash),
            modified: modified(&metadata),
        })
    }

    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    /// Whether this is the file that `metadata` speaks of.
    pub(crate) fn is(&self, metadata: &Metadata) -> bool {
        self.id == FileId::of(metadata)
    }

    /// Whether the file is as it was when it was last looked at.
    pub(crate) fn is_as_seen(&self, metadata: &Metadata) -> bool {
        self.is(metadata) && self.seen == (metadata.len(), modified(metadata))
    }

    /// Whether there is something behind what was read.
    pub(crate) fn has_more(&self) -> bool {
        self.length().is_some_and(|length| length > self.read)
    }

    /// Whether nothing of it was read.
    pub(crate) fn is_unread(&self) -> bool {
        self.read == 0
    }

    /// Length and modification time; they change with whatever is done to it.
    pub(crate) fn stamp(&self) -> Option<(u64, u64)> {
        let metadata = self.file.as_ref()?.metadata().ok()?;
        Some((metadata.len(), modified(&metadata)))
    }

    /// Whether `other` is a copy of this file as it is, or was until it was truncated just now. Files
    /// that only begin alike are none.
    pub(crate) fn is_copied_in(&self, other: &OpenFile) -> bool {
        let (Some(length), Some(copied)) = (self.length(), other.length()) else {
            return false;
        };
        if length < self.read {
            let (known, hash) = self.fingerprint;
            return copied >= self.read && matches!(other.hash_of(known), Ok(Some(h)) if h == hash);
        }
        let part = copied.min(FINGERPRINT as u64);
        copied <= length
            && self.is_alike(other, 0, part)
            && self.is_alike(other, copied - part, part)
    }

    fn is_alike(&self, other: &OpenFile, at: u64, length: u64) -> bool {
        let read = |from: &OpenFile| {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            from.file().ok()?.read_exact_at(&mut bytes, at).ok()?;
            Some(bytes)
        };
        let (own, others) = (read(self), read(other));
        own.is_some() && own == others
    }

    fn length(&self) -> Option<u64> {
        Some(self.stamp()?.0)
    }

    /// Whether a name is left that leads to the file, as far as that is known.
    pub(crate) fn has_name(&self) -> bool {
        let metadata = self.file.as_ref().map(File::metadata);
        matches!(metadata, Some(Ok(metadata)) if metadata.nlink() > 0)
    }

    /// Gives its descriptor back.
    pub(crate) fn close(&mut self) {
        self.file = None;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.file.is_none()
    }

    /// Opens it again; false when another file is at `path`.
    pub(crate) fn reopen(&mut self, path: &Path) -> io::Result<bool> {
        let file = open(path)?;
        if FileId::of(&file.metadata()?) != self.id {
            return Ok(false);
        }
        let before = self.fingerprint;
        self.file = Some(file);
        // The inode may be another file's by now.
        if self.hash_of(before.0)? != Some(before.1) {
            self.file = None;
            return Ok(false);
        }
        Ok(true)
    }

    /// Reads one block, for [`take`](OpenFile::take), and says how long it is; nothing changes yet.
    /// `None`: the file was emptied, or overwritten from its beginning.
    pub(crate) fn fetch(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if !self.is_unchanged()? {
            return Ok(None);
        }
        let bytes = self.file()?.read_at(buffer, self.read)?;
        // It may have been overwritten in between.
        let known = self.fingerprint;
        let still = bytes == 0 || self.hash_of(known.0)? == Some(known.1);
        Ok(still.then_some(bytes))
    }

    /// Gives out what became complete with a block that was fetched.
    pub(crate) fn take(
        &mut self,
        block: &[u8],
        now: Instant,
        mut each: impl FnMut(Line<'_>, u64),
    ) -> io::Result<Progress> {
        if block.is_empty() {
            if self.entries.held_of_line() > HELD {
                self.read -= self.entries.forget_line() as u64;
            }
            self.entries.poll(now, each);
            return Ok(Progress::End);
        }
        if self.read == 0 {
            // By what was read, not by what is there now.
            let length = block.len().min(FINGERPRINT);
            self.fingerprint = (length, fnv1a(&block[..length]));
        }
        self.read += block.len() as u64;
        self.entries.feed(block, now, &mut each);
        if self.fingerprint.0 < FINGERPRINT {
            self.take_fingerprint()?;
        }
        if self.entries.is_between_lines() && block.iter().all(|byte| *byte == 0) {
            self.skip_hole()?;
        }
        Ok(Progress::More)
    }

    /// Both at once.
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        now: Instant,
        each: impl FnMut(Line<'_>, u64),
    ) -> io::Result<Progress> {
        match self.fetch(buffer)? {
            Some(bytes) => self.take(&buffer[..bytes], now, each),
            None => Ok(Progress::Replaced),
        }
    }

    /// When something that is held becomes complete by waiting.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.entries.due()
    }

    /// The event that was begun will not go on.
    pub(crate) fn flush(&mut self, each: impl FnMut(Line<'_>, u64)) {
        self.entries.flush(each);
    }

    /// Nor will the line.
    pub(crate) fn finish(&mut self, now: Instant, each: impl FnMut(Line<'_>, u64)) {
        self.entries.finish(now, each);
    }

    /// Back to the beginning, after the file was replaced in place.
    pub(crate) fn rewind(&mut self) {
        self.read = 0;
        self.entries.continue_at(0, &[], false);
        self.fingerprint = (0, fnv1a(&[]));
    }

    fn go_to(&mut self, offset: u64, passing_over: bool) -> io::Result<()> {
        let mut head = [0; crate::agent::encoding::LONGEST_MARK];
        let read = self.file()?.read_at(&mut head, 0)?;
        self.entries
            .continue_at(offset, &head[..read], passing_over);
        self.read = offset;
        self.take_fingerprint()
    }

    /// A file that was emptied under a writer that goes on where it was begins with a hole, which may
    /// be of any size.
    fn skip_hole(&mut self) -> io::Result<()> {
        let file = self.file()?;
        let data = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(self.read)) {
            Ok(data) => data,
            // Nothing but hole is left.
            Err(rustix::io::Errno::NXIO) => file.metadata()?.len(),
            // The file system does not know; the bytes are read.
            Err(_) => return Ok(()),
        };
        let hole = data.saturating_sub(self.read);
        self.read += hole;
        self.entries.skip(hole);
        Ok(())
    }

    /// False when the file became shorter, or begins differently although it did not.
    fn is_unchanged(&mut self) -> io::Result<bool> {
        let metadata = self.file()?.metadata()?;
        if metadata.len() < self.read {
            return Ok(false);
        }
        let seen = (metadata.len(), modified(&metadata));
        if seen == self.seen {
            return Ok(true);
        }
        let unchanged = self.hash_of(self.fingerprint.0)? == Some(self.fingerprint.1);
        if unchanged {
            self.seen = seen;
        }
        Ok(unchanged)
    }

    /// Of what was read only: later bytes may still be on their way. It only ever grows: a file that
    /// begins otherwise by now is another one.
    fn take_fingerprint(&mut self) -> io::Result<()> {
        let length = usize::try_from(self.read).unwrap_or(usize::MAX);
        let length = length.min(FINGERPRINT);
        let (known, hash) = self.fingerprint;
        if length > known
            && let Some(longer) = self.hash_of(length)?
            && self.hash_of(known)? == Some(hash)
        {
            self.fingerprint = (length, longer);
        }
        Ok(())
    }

    /// Hash of the first `length` bytes; `None` when there are fewer.
    fn hash_of(&self, length: usize) -> io::Result<Option<u64>> {
        let mut bytes = [0; FINGERPRINT];
        let Some(bytes) = bytes.get_mut(..length) else {
            return Ok(None);
        };
        match self.file()?.read_exact_at(bytes, 0) {
            Ok(()) => Ok(Some(fnv1a(bytes))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn file(&self) -> io::Result<&File> {
        let closed = || io::Error::other("the file is closed");
        self.file.as_ref().ok_or_else(closed)
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Without waiting: opening a named pipe would, for its writer.
    let no_wait = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options()
        .read(true)
        .custom_flags(no_wait)
        .open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(refused(
            "a directory; name its files, as in /var/log/app/*.log",
        ));
    }
    if !kind.is_file() {
        return Err(refused(
            "not a regular file; read a stream with `thinglog-edge pipe`",
        ));
    }
    Ok(file)
}

fn refused(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

/// Nanoseconds since the epoch.
pub(crate) fn modified(metadata: &Metadata) -> u64 {
    let seconds = u64::try_from(metadata.mtime()).unwrap_or(0);
    let nanos = u64::try_from(metadata.mtime_nsec()).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}
