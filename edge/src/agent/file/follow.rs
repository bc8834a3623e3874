//! Follows one path through rotations. The file at the path is read to its end again and again;
//! when another file takes its place, the old one is read on for a while (its writer may not have
//! noticed yet) and the new one from its start. A file that is emptied or overwritten in place is
//! read from its start. After a restart the remembered file is looked for among its rotated
//! siblings, and what came between it and the one at the path is read in order.
//!
//! Blocking file I/O, no clock: time is an argument.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use super::open::{OpenFile, Position, Progress};
use crate::agent::lines::Line;

/// How long a rotated file is read on after its last line.
const LINGER: Duration = Duration::from_secs(5);
/// Rotated files that are read at once; more rotations than this within [`LINGER`] close the oldest.
const MAX_OLD: usize = 16;
/// Bytes read at a time.
const BLOCK: usize = 256 << 10;
/// Rotated files in these formats cannot be read any more.
const COMPRESSED: [&str; 5] = ["gz", "bz2", "xz", "zst", "lz4"];

/// Where a file that was never read before is begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// With its first line.
    #[default]
    Beginning,
    /// With the next line to be written.
    End,
    /// With the first line that starts within its last so many bytes.
    Last(u64),
}

/// What one call of [`Follower::read`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Lines, or a reason to look again at once.
    More,
    /// Nothing for now.
    Nothing,
    /// There is no file at the path.
    Missing,
}

#[derive(Debug)]
struct Rotated {
    file: OpenFile,
    /// Closed when nothing came until then.
    until: Instant,
}

/// Follows one path.
#[derive(Debug)]
pub(crate) struct Follower {
    path: PathBuf,
    start: StartAt,
    old: VecDeque<Rotated>,
    current: Option<OpenFile>,
    buffer: Vec<u8>,
}

impl Follower {
    /// Begins at `start`, or goes on from the `remembered` positions (oldest file first).
    pub(crate) fn new(
        path: &Path,
        start: StartAt,
        remembered: Vec<Position>,
        now: Instant,
    ) -> Follower {
        let mut follower = Follower {
            path: path.to_owned(),
            start,
            old: VecDeque::new(),
            current: None,
            buffer: vec![0; BLOCK],
        };
        if !remembered.is_empty() {
            follower.resume(&remembered, now);
            // Whatever is at the path now came after what was remembered.
            follower.start = StartAt::Beginning;
        }
        follower
    }

    /// Where every file stands that is being read, oldest first.
    pub(crate) fn positions(&self) -> Vec<Position> {
        let old = self.old.iter().map(|rotated| &rotated.file);
        old.chain(&self.current).map(OpenFile::position).collect()
    }

    /// Reads one block, if there is one, and gives out its lines in order.
    pub(crate) fn read(
        &mut self,
        now: Instant,
        mut each: impl FnMut(Line<'_>),
    ) -> io::Result<Found> {
        if self.read_old(now, &mut each) {
            return Ok(Found::More);
        }
        let Some(current) = &mut self.current else {
            return self.open_current();
        };
        match current.read(&mut self.buffer, &mut each)? {
            Progress::More => Ok(Found::More),
            Progress::Replaced => {
                current.finish(each);
                current.rewind();
                Ok(Found::More)
            }
            Progress::End => self.look_for_another(now),
        }
    }

    /// True when a rotated file still had something.
    fn read_old(&mut self, now: Instant, each: &mut impl FnMut(Line<'_>)) -> bool {
        for rotated in &mut self.old {
            match rotated.file.read(&mut self.buffer, &mut *each) {
                Ok(Progress::More) => {
                    rotated.until = now + LINGER;
                    // Older lines first.
                    return true;
                }
                Ok(Progress::End | Progress::Replaced) => {}
                Err(error) => {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "a rotated file cannot be read on");
                    rotated.until = now;
                }
            }
        }
        let over = |rotated: &Rotated| rotated.until <= now;
        while self.old.front().is_some_and(over) || self.old.len() > MAX_OLD {
            if let Some(mut rotated) = self.old.pop_front() {
                rotated.file.finish(&mut *each);
            }
        }
        false
    }

    fn open_current(&mut self) -> io::Result<Found> {
        let opened = match self.start {
            StartAt::Beginning => OpenFile::open(&self.path, 0),
            StartAt::End => fs::metadata(&self.path)
                .and_then(|metadata| OpenFile::open(&self.path, metadata.len())),
            StartAt::Last(bytes) => start_within(&self.path, bytes),
        };
        match opened {
            Ok(file) => {
                self.current = Some(file);
                // The next file at this path is new, all of it.
                self.start = StartAt::Beginning;
                Ok(Found::More)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A file that appears later is new as well.
                self.start = StartAt::Beginning;
                Ok(Found::Missing)
            }
            Err(error) => Err(error),
        }
    }

    /// The current file is read to its end: has another one taken its place?
    fn look_for_another(&mut self, now: Instant) -> io::Result<Found> {
        let metadata = match fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            // Between rename and creation; the old file may still grow.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        let Some(current) = self.current.take_if(|current| !current.is(&metadata)) else {
            return Ok(Found::Nothing);
        };
        self.old.push_back(Rotated {
            file: current,
            until: now + LINGER,
        });
        Ok(Found::More)
    }

    fn resume(&mut self, remembered: &[Position], now: Instant) {
        let siblings = siblings(&self.path);
        let mut newest = None;
        for position in remembered {
            if let Ok(Some(file)) = OpenFile::resume(&self.path, position) {
                self.current = Some(file);
                continue;
            }
            let found = siblings.iter().find_map(|(path, modified)| {
                let file = OpenFile::resume(path, position).ok()??;
                Some((file, *modified))
            });
            if let Some((file, modified)) = found {
                newest = newest.max(Some(modified));
                let until = now + LINGER;
                self.old.push_back(Rotated { file, until });
            } else {
                let path = self.path.display();
                tracing::warn!(%path, "the file was rotated away or replaced while nobody followed it; lines may be missing");
            }
        }
        if self.current.is_none()
            && let Some(newest) = newest
        {
            self.read_what_came_between(&siblings, newest, now);
        }
    }

    /// Several rotations while nobody followed: the siblings younger than the remembered file.
    fn read_what_came_between(
        &mut self,
        siblings: &[(PathBuf, SystemTime)],
        newest: SystemTime,
        now: Instant,
    ) {
        for (path, modified) in siblings {
            let Ok(metadata) = fs::metadata(path) else {
                continue;
            };
            let known = self.old.iter().any(|rotated| rotated.file.is(&metadata));
            if known || *modified < newest {
                continue;
            }
            if let Ok(file) = OpenFile::open(path, 0) {
                let until = now + LINGER;
                self.old.push_back(Rotated { file, until });
            }
        }
    }
}

/// Opens a file so that reading begins with the first line that starts within its last `bytes`.
fn start_within(path: &Path, bytes: u64) -> io::Result<OpenFile> {
    use std::os::unix::fs::FileExt;
    let file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    let mut at = length.saturating_sub(bytes);
    if at > 0 {
        // The line that straddles the place is left out; a file that is one long line begins at its
        // end.
        at -= 1;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = file.read_at(&mut buffer, at)?;
            let newline = buffer[..read].iter().position(|byte| *byte == b'\n');
            at += newline.map_or(read, |position| position + 1) as u64;
            if newline.is_some() || read == 0 {
                break;
            }
        }
    }
    OpenFile::open(path, at)
}

/// The rotated forms of a file, oldest first: files of its directory that are called as it is, or as
/// its stem is, with a number or date behind (`app.log.1`, `app.log-20260101`, `app-20260101.log`).
pub(crate) fn siblings(path: &Path) -> Vec<(PathBuf, SystemTime)> {
    let (Some(name), Some(stem)) = (path.file_name(), path.file_stem()) else {
        return Vec::new();
    };
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty());
    let Ok(entries) = fs::read_dir(directory.unwrap_or(Path::new("."))) else {
        return Vec::new();
    };
    let is_rotated = |other: &OsStr| {
        [name, stem].iter().any(|own| {
            let rest = other
                .as_encoded_bytes()
                .strip_prefix(own.as_encoded_bytes());
            matches!(rest, Some([b'.' | b'-' | b'_', b'0'..=b'9', ..]))
        })
    };
    let mut found: Vec<(PathBuf, SystemTime)> = entries
        .flatten()
        .filter(|entry| is_rotated(&entry.file_name()))
        .filter(|entry| {
            let path = entry.path();
            let extension = path.extension().and_then(|e| e.to_str());
            !extension.is_some_and(|extension| COMPRESSED.contains(&extension))
        })
        .filter_map(|entry| {
            let metadata = entry.metadata().ok().filter(|m| m.is_file())?;
            Some((entry.path(), metadata.modified().ok()?))
        })
        .collect();
    found.sort_by_key(|(_, modified)| *modified);
    found
}
