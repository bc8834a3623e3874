//! Follows one path through rotations. The file at the path is read to its end again and again;
//! when another file takes its place, the old one is read on for a while (its writer may not have
//! noticed yet), then what was rotated between the two looks, then the new one from its start. A
//! file that is emptied or overwritten in place is read from its start, and before that the rest of
//! what was copied away, where the copy is found. After a restart the remembered file is looked for
//! in the same way.
//!
//! Blocking file I/O, no clock: time is an argument.

mod copies;

use std::{
    collections::{HashSet, VecDeque},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    open::{OpenFile, Progress},
    options::StartAt,
    position::{FileId, Position},
    rotation::{self, Between, Known, Last},
    siblings::siblings,
};
use crate::agent::{entries::TextOptions, lines::Line};

/// How long a file that was removed is read on after its last line.
const LINGER: Duration = Duration::from_secs(5);
/// How long one that was renamed is: whoever writes to it may take its time.
const LINGER_NAMED: Duration = Duration::from_secs(60);
/// Rotated files that are kept open to be read on; older ones are closed at their end.
const MAX_LINGERING: usize = 3;
/// Descriptors of rotated files that are not read yet; further ones are opened when their turn comes.
const MAX_OPEN: usize = 64;
/// Closed files that are known not to be new when they turn up again.
const MAX_FINISHED: usize = 64;

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
    /// Where it was found; by now it may be elsewhere.
    path: PathBuf,
    /// When it last had something.
    last: Instant,
}

/// Follows one path.
#[derive(Debug)]
pub(crate) struct Follower {
    path: PathBuf,
    /// The same without symbolic links: there its rotated forms are.
    real: PathBuf,
    text: Arc<TextOptions>,
    start: StartAt,
    old: VecDeque<Rotated>,
    current: Option<OpenFile>,
    finished: VecDeque<Position>,
    /// The file at the path is copied and truncated: the last copy that is known.
    copied: Option<Last>,
    /// How the file was when copies of what nobody read were looked for last.
    looked: Option<(u64, u64)>,
    /// There was no file at the path, and which of its rotated forms there were then.
    absent: Option<Last>,
    before: Vec<Position>,
    missing_since: Option<Instant>,
    /// When the directory had changed at the last look for a missing file.
    directory_changed: Option<SystemTime>,
    /// The file that was read from last.
    reading: Option<Position>,
    notes: Vec<String>,
}

impl Follower {
    /// Begins at `start`, or goes on from the `remembered` positions (oldest file first). `owned`:
    /// files that others follow.
    pub(crate) fn new(
        path: &Path,
        text: Arc<TextOptions>,
        start: StartAt,
        remembered: &[Position],
        owned: &HashSet<FileId>,
        now: Instant,
    ) -> Follower {
        let mut follower = Follower {
            path: path.to_owned(),
            real: fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()),
            text,
            start,
            old: VecDeque::new(),
            current: None,
            finished: VecDeque::new(),
            copied: None,
            looked: None,
            absent: None,
            before: Vec::new(),
            missing_since: None,
            directory_changed: None,
            reading: None,
            notes: Vec::new(),
        };
        if !remembered.is_empty() {
            // Whatever is at the path now came after what was remembered.
            follower.start = StartAt::Beginning;
            follower.resume(remembered, owned, now);
        }
        follower
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where every file stands that is being read, oldest first.
    pub(crate) fn positions(&self) -> Vec<Position> {
        let old = self.old.iter().map(|rotated| &rotated.file);
        old.chain(&self.current).map(OpenFile::position).collect()
    }

    /// The files that are being read.
    pub(crate) fn ids(&self) -> impl Iterator<Item = FileId> {
        let old = self.old.iter().map(|rotated| &rotated.file);
        old.chain(&self.current).map(OpenFile::id)
    }

    /// Files that were read to their end and closed, the latest last.
    pub(crate) fn finished(&self) -> impl Iterator<Item = &Position> {
        self.finished.iter()
    }

    /// Where the file at `path` ends, if it is a copy of the one that is followed.
    pub(crate) fn end_of_copy_at(&self, path: &Path) -> Option<Position> {
        let copy = OpenFile::open(path, 0, &self.text).ok()?;
        let is_copy = self.current.as_ref()?.is_copied_in(&copy);
        is_copy.then(|| copy.end().ok()).flatten()
    }

    /// The file that the last call of [`read`](Follower::read) gave out lines of, as it stood before.
    pub(crate) fn reading(&self) -> Option<Position> {
        self.reading
    }

    /// What went wrong and cannot be put right, once.
    pub(crate) fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Nothing is being read and there is nothing at the path.
    pub(crate) fn is_over(&self) -> bool {
        self.current.is_none() && self.old.is_empty()
    }

    /// Rotated files are being read on.
    pub(crate) fn is_rotating(&self) -> bool {
        !self.old.is_empty() || self.missing_since.is_some()
    }

    /// Whether the file at the path has a descriptor.
    pub(crate) fn is_open(&self) -> bool {
        self.current.as_ref().is_some_and(|file| !file.is_closed())
    }

    /// Gives the descriptor back while nothing comes.
    pub(crate) fn close(&mut self) {
        if let Some(current) = &mut self.current {
            current.close();
        }
    }

    /// When something that is held becomes complete by waiting.
    pub(crate) fn due(&self) -> Option<Instant> {
        let old = self.old.iter().map(|rotated| &rotated.file);
        old.chain(&self.current).filter_map(OpenFile::due).min()
    }

    /// Reads one block, if there is one, and gives out what became complete, in order, and how far
    /// each reaches in its file. All of it is of one file.
    pub(crate) fn read(
        &mut self,
        now: Instant,
        buffer: &mut [u8],
        owned: &HashSet<FileId>,
        mut each: impl FnMut(Line<'_>, u64),
    ) -> io::Result<Found> {
        if self.read_old(now, buffer, &mut each) {
            return Ok(Found::More);
        }
        if self.current.is_none() {
            return self.open_current(now, owned);
        }
        if !self.is_open() {
            return self.reopen_current(now, owned);
        }
        let Some(current) = &mut self.current else {
            return Ok(Found::More);
        };
        let Some(bytes) = current.fetch(buffer)? else {
            self.replaced(now, owned, each);
            return Ok(Found::More);
        };
        // What was copied away before this was written comes first.
        if self.was_copied_unread(bytes > 0, owned, now) {
            return Ok(Found::More);
        }
        let Some(current) = &mut self.current else {
            return Ok(Found::More);
        };
        self.reading = Some(current.position());
        let mut given = false;
        let progress = current.take(&buffer[..bytes], now, |line, end| {
            given = true;
            each(line, end);
        })?;
        match progress {
            Progress::End if !given => self.look_for_another(now, owned, each),
            _ => Ok(Found::More),
        }
    }

    /// True when a rotated file still had something.
    fn read_old(
        &mut self,
        now: Instant,
        buffer: &mut [u8],
        each: &mut impl FnMut(Line<'_>, u64),
    ) -> bool {
        for at in 0..self.old.len() {
            let rotated = &mut self.old[at];
            if rotated.file.is_closed()
                && !rotation::reopen(&mut rotated.file, &mut rotated.path, &self.real)
            {
                let path = rotated.path.display();
                self.notes.push(format!(
                    "{path} was removed before it could be read: lines are missing"
                ));
                self.old.remove(at);
                return true;
            }
            self.reading = Some(rotated.file.position());
            let mut given = false;
            let progress = rotated.file.read(buffer, now, |line, end| {
                given = true;
                each(line, end);
            });
            match progress {
                // Older lines first.
                Ok(Progress::More) => {
                    rotated.last = now;
                    return true;
                }
                Ok(Progress::End | Progress::Replaced) if given => return true,
                Ok(Progress::End | Progress::Replaced) => {}
                Err(error) => {
                    let path = rotated.path.display();
                    self.notes.push(format!(
                        "{path} was rotated and cannot be read on: {error}; lines may be missing"
                    ));
                    let position = rotated.file.position();
                    self.old.remove(at);
                    // It is not found anew for as long as it is there.
                    self.retire(position);
                    return true;
                }
            }
        }
        self.close_oldest(now, each)
    }

    /// All rotated files are read to their end: closes the oldest when it is time. True when there
    /// may be more of them.
    fn close_oldest(&mut self, now: Instant, each: &mut impl FnMut(Line<'_>, u64)) -> bool {
        let too_many = self.old.len() > MAX_LINGERING;
        let over = self.old.front().is_some_and(|rotated| {
            let linger = match rotated.file.has_name() {
                true => LINGER_NAMED,
                false => LINGER,
            };
            too_many || now.saturating_duration_since(rotated.last) >= linger
        });
        if !over {
            return false;
        }
        let Some(mut rotated) = self.old.pop_front() else {
            return false;
        };
        self.reading = Some(rotated.file.position());
        rotated.file.finish(now, each);
        self.retire(rotated.file.position());
        true
    }

    fn retire(&mut self, position: Position) {
        self.finished.push_back(position);
        if self.finished.len() > MAX_FINISHED {
            self.finished.pop_front();
        }
    }

    fn open_current(&mut self, now: Instant, owned: &HashSet<FileId>) -> io::Result<Found> {
        let old = self.old.back().map(|rotated| rotated.file.position());
        let last = old.or_else(|| self.finished.back().copied());
        if let Some(last) = last.map(Last::from).or(self.absent) {
            return self.take_up(last, now, owned);
        }
        let opened = match self.start {
            StartAt::Beginning => OpenFile::open(&self.path, 0, &self.text),
            StartAt::End => fs::metadata(&self.path)
                .and_then(|metadata| OpenFile::open(&self.path, metadata.len(), &self.text)),
            StartAt::Last(bytes) => rotation::start_within(&self.path, bytes)
                .and_then(|at| OpenFile::open(&self.path, at, &self.text)),
        };
        self.have(opened)
    }

    fn have(&mut self, opened: io::Result<OpenFile>) -> io::Result<Found> {
        match opened {
            Ok(file) => {
                self.current = Some(file);
                // The next file at this path is new, all of it.
                self.start = StartAt::Beginning;
                self.missing_since = None;
                if let Ok(real) = fs::canonicalize(&self.path) {
                    self.real = real;
                }
                self.expect_copies();
                Ok(Found::More)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A file that appears later is new as well, and what is made of it meanwhile.
                self.start = StartAt::Beginning;
                if self.absent.is_none() {
                    self.absent = Some(Last::nothing());
                    self.know_what_is_beside();
                }
                Ok(Found::Missing)
            }
            Err(error) => Err(error),
        }
    }

    /// The file was closed to save its descriptor: has it anything new?
    fn reopen_current(&mut self, now: Instant, owned: &HashSet<FileId>) -> io::Result<Found> {
        let Some(current) = &mut self.current else {
            return Ok(Found::More);
        };
        match fs::metadata(&self.path) {
            Ok(metadata) if current.is_as_seen(&metadata) => return Ok(Found::Nothing),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if !matches!(current.reopen(&self.path), Ok(true)) {
            let position = current.position();
            self.current = None;
            self.resume(&[position], owned, now);
        }
        Ok(Found::More)
    }

    /// The current file is read to its end: has another one taken its place?
    fn look_for_another(
        &mut self,
        now: Instant,
        owned: &HashSet<FileId>,
        each: impl FnMut(Line<'_>, u64),
    ) -> io::Result<Found> {
        let metadata = match fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(self.missing(now, owned, each));
            }
            Err(error) => return Err(error),
        };
        self.missing_since = None;
        let Some(mut current) = self.current.take_if(|current| !current.is(&metadata)) else {
            return Ok(Found::Nothing);
        };
        // The next file's lines are none of this one's last event.
        current.flush(each);
        let last = current.position();
        self.put_to_old(current, self.path.clone(), now);
        self.take_up(last.into(), now, owned)
    }

    /// Between rename and creation, or for good; the file may still grow.
    fn missing(
        &mut self,
        now: Instant,
        owned: &HashSet<FileId>,
        each: impl FnMut(Line<'_>, u64),
    ) -> Found {
        let since = *self.missing_since.get_or_insert(now);
        let over = now.saturating_duration_since(since) >= LINGER;
        let between = match over && !self.has_directory_changed() {
            true => Between::default(),
            false => self.came_and_went(owned),
        };
        if let Some(mut current) = self.current.take_if(|_| !between.files.is_empty()) {
            current.flush(each);
            self.put_to_old(current, self.path.clone(), now);
            self.read_between(between, now);
            return Found::More;
        }
        let gone = |current: &mut OpenFile| over && !current.has_name();
        let Some(mut current) = self.current.take_if(gone) else {
            return Found::Nothing;
        };
        current.finish(now, each);
        self.retire(current.position());
        Found::More
    }

    /// Whether something came to the directory, or left it, since the last look; true when that is not known.
    fn has_directory_changed(&mut self) -> bool {
        let directory = self.path.parent().map(fs::metadata);
        let changed = directory.and_then(|it| it.ok()?.modified().ok());
        let before = std::mem::replace(&mut self.directory_changed, changed);
        changed.is_none() || changed != before
    }

    /// What was at the path after the file that is followed, and is rotated itself by now.
    fn came_and_went(&self, owned: &HashSet<FileId>) -> Between {
        let mut between = Between::default();
        if let Some(current) = &self.current {
            self.look_between(&mut between, &current.position().into(), None, owned);
            let files = &mut between.files;
            files.retain(|(file, _)| !current.is_copied_in(file));
        }
        between
    }

    fn put_to_old(&mut self, mut file: OpenFile, path: PathBuf, now: Instant) {
        if self.old.len() >= MAX_OPEN {
            file.close();
        }
        self.old.push_back(Rotated {
            file,
            path,
            last: now,
        });
    }

    /// Opens what is at the path now, and before it what was there between `last` and that.
    fn take_up(&mut self, last: Last, now: Instant, owned: &HashSet<FileId>) -> io::Result<Found> {
        const TRIES: usize = 8;
        let mut opened = OpenFile::open(&self.path, 0, &self.text);
        let mut between = Between::default();
        for _ in 0..TRIES {
            self.look_between(&mut between, &last, opened.as_ref().ok(), owned);
            // It may have been rotated away meanwhile, and stand among the others by now.
            let still = match (&opened, fs::metadata(&self.path)) {
                (Ok(file), Ok(metadata)) => file.is(&metadata),
                (Err(_), Err(_)) => true,
                _ => false,
            };
            if still {
                break;
            }
            opened = OpenFile::open(&self.path, 0, &self.text);
        }
        let more = !between.files.is_empty();
        self.read_between(between, now);
        let known = |file: &OpenFile| self.ids().any(|id| id == file.id());
        if opened.as_ref().is_ok_and(known) {
            return Ok(Found::More);
        }
        let found = self.have(opened)?;
        Ok(if more { Found::More } else { found })
    }

    /// Files that were rotated after `last`, in their order; copies of `current` are none.
    fn read_what_came_between(
        &mut self,
        last: &Last,
        current: Option<&OpenFile>,
        owned: &HashSet<FileId>,
        now: Instant,
    ) {
        let mut between = Between::default();
        self.look_between(&mut between, last, current, owned);
        self.read_between(between, now);
    }

    fn look_between(
        &self,
        between: &mut Between,
        last: &Last,
        current: Option<&OpenFile>,
        owned: &HashSet<FileId>,
    ) {
        let mut known = self.known(owned);
        known.open.extend(current.map(OpenFile::id));
        between.look(&self.real, last, &known, current, &self.text);
    }

    fn read_between(&mut self, between: Between, now: Instant) {
        if between.overtaken {
            let path = self.path.display();
            self.notes.push(format!(
                "{path} was rotated several times between two looks, and what followed on the last file known may be gone: lines may be missing"
            ));
        }
        self.notes.extend(between.unreadable);
        for (file, sibling) in between.files {
            if let Some(copied) = &mut self.copied {
                *copied = Last::from(file.position());
            }
            self.put_to_old(file, sibling.path, now);
        }
    }

    /// What is no news: read by whomever, or read to its end.
    fn known(&self, owned: &HashSet<FileId>) -> Known {
        let closed = self.before.iter().chain(&self.finished);
        Known {
            open: owned.iter().copied().chain(self.ids()).collect(),
            closed: closed.map(|position| (position.id, *position)).collect(),
        }
    }

    fn resume(&mut self, remembered: &[Position], owned: &HashSet<FileId>, now: Instant) {
        let beside = siblings(&self.real);
        for (n, position) in remembered.iter().enumerate() {
            if let Ok(Some(file)) = OpenFile::resume(&self.path, position, &self.text) {
                if file.is_unread() {
                    // Any file is one that nothing is known of; it may be a later one.
                    self.copied = Some(Last::before(position));
                }
                self.current = Some(file);
                continue;
            }
            let mut candidates = beside
                .readable
                .iter()
                .filter(|sibling| sibling.id == position.id);
            let found = candidates.find_map(|sibling| {
                let file = OpenFile::resume(&sibling.path, position, &self.text).ok()??;
                Some((file, sibling.path.clone()))
            });
            let known = self.known(owned);
            let copy = || rotation::find_copy(&self.real, position, &known, &self.text);
            if let Some((file, path)) = found.or_else(copy) {
                self.put_to_old(file, path, now);
            } else if n + 1 == remembered.len() {
                self.lost(position, beside.compressed.len());
            }
        }
        if let Some(last) = remembered.last().filter(|_| self.current.is_none()) {
            // A copy has another id than the file it was made of.
            let last = self
                .old
                .back()
                .map_or(*last, |rotated| rotated.file.position());
            if let Err(error) = self.take_up(last.into(), now, owned) {
                tracing::debug!(path = %self.path.display(), %error, "cannot be opened yet");
            }
        }
    }

    fn lost(&mut self, position: &Position, compressed: usize) {
        let path = self.path.display();
        let compressed = match compressed {
            0 => String::new(),
            n => format!(" ({n} rotated files are compressed and cannot be read)"),
        };
        self.notes.push(format!(
            "{path} was rotated away or replaced at byte {} while nobody followed it{compressed}: lines may be missing",
            position.offset
        ));
        // Neither it nor what was there before it is new.
        self.retire(*position);
    }
}
