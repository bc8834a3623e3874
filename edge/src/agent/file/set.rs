//! All files of one source: finds them, and decides which is looked at when. A file that grows is
//! looked at often; one that is idle is left to the kernel's word, or without that looked at more
//! and more rarely. Blocking file I/O, no clock: time is an argument.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use thinglog_schemas::hash::fnv1a;

use super::{
    follow::{Follower, Found},
    naming::Naming,
    open::OpenFile,
    options::StartAt,
    patterns::Patterns,
    places::Places,
    position::{FileId, Position},
    siblings::{is_compressed, is_rotated_form, is_rotated_name},
    watch::{Change, Watched, Watcher},
};
use crate::agent::{entries::TextOptions, lines::Line};

/// How often a file is looked at while it grows, and for how long it counts as growing.
const ACTIVE: Duration = Duration::from_millis(100);
const ACTIVE_FOR: Duration = Duration::from_secs(1);
/// How often at most, and least, one is looked at that the kernel does not tell of.
const POLL: Duration = Duration::from_millis(250);
const MAX_POLL: Duration = Duration::from_secs(4);
/// How often one is looked at while it is being rotated.
const ROTATING: Duration = Duration::from_secs(1);
/// The kernel's word is checked, for all files at once.
const CHECK: Duration = Duration::from_secs(10);
/// How often directories are looked through: with all of them watched, and without.
const SCAN: Duration = Duration::from_secs(60);
const SCAN_UNWATCHED: Duration = Duration::from_secs(5);
/// Bytes read at a time.
pub(crate) const BLOCK: usize = 64 << 10;
/// Files of one source, at most.
const MAX_FILES: usize = 4096;

/// How a set of files is followed.
#[derive(Debug)]
pub(crate) struct SetOptions {
    pub(crate) patterns: Patterns,
    pub(crate) naming: Naming,
    pub(crate) text: Arc<TextOptions>,
    pub(crate) start: StartAt,
    pub(crate) max_open: usize,
}

/// One file of the set.
#[derive(Debug)]
struct File {
    follower: Follower,
    source: Arc<str>,
    path: Arc<str>,
    key: u64,
    /// The file that was found, until it is opened.
    found: Option<FileId>,
    look_at: Instant,
    /// When it last had something.
    last: Instant,
    pause: Duration,
    /// The kernel tells of the next change.
    watched: bool,
    complaint: Option<String>,
}

/// How much may be read.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes of a file at a time.
    pub(crate) block: usize,
    /// What is not read now, by key: something read before waits for its rate.
    pub(crate) held: HashSet<u64>,
}

impl Pace {
    /// Whether there is no rate that anything waits for.
    pub(crate) fn is_free(&self) -> bool {
        self.block >= BLOCK && self.held.is_empty()
    }
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            block: BLOCK,
            held: HashSet::new(),
        }
    }
}

/// Takes what is read.
pub(crate) trait Taker {
    /// Something that becomes one event of `source`; it reaches up to `end` in its file.
    fn take(&mut self, source: &Arc<str>, line: Line<'_>, end: u64);

    /// All that was taken since the last call is of one file.
    fn end_block(&mut self, block: Block);
}

/// Whose the lines of a block are, and what to remember with them.
pub(crate) struct Block {
    pub(crate) source: Arc<str>,
    /// The path that is followed.
    pub(crate) path: Arc<str>,
    /// Names what is followed, file and source, the same in every run.
    pub(crate) key: u64,
    /// Where everything stands that is followed under this key, behind the last line.
    pub(crate) after: Vec<Position>,
    /// The file that the lines are of, as it stood before.
    pub(crate) reading: Position,
}

/// Names a file that is followed and its source.
pub(crate) fn key(path: &Path, source: &str) -> u64 {
    let mut text = path.as_os_str().as_encoded_bytes().to_vec();
    text.push(0);
    text.extend_from_slice(source.as_bytes());
    fnv1a(&text)
}

#[derive(Debug)]
pub(crate) struct FileSet {
    options: SetOptions,
    files: BTreeMap<PathBuf, File>,
    /// Files that are being read, of all followers.
    owned: HashSet<FileId>,
    /// Files at paths that match and are read already: rotated, or another name of one that is read.
    done: HashMap<FileId, Position>,
    /// What an earlier run left, until the first look.
    remembered: Option<Places>,
    watcher: Watcher,
    scan_at: Instant,
    said: HashSet<String>,
    notes: Vec<String>,
    buffer: Vec<u8>,
    /// Who was served last.
    turn: Option<PathBuf>,
    begun: Instant,
}

impl FileSet {
    pub(crate) fn new(options: SetOptions, remembered: Places, now: Instant) -> FileSet {
        FileSet {
            options,
            files: BTreeMap::new(),
            owned: HashSet::new(),
            done: remembered.done.iter().map(|p| (p.id, *p)).collect(),
            remembered: Some(remembered),
            watcher: Watcher::new(),
            scan_at: now,
            said: HashSet::new(),
            notes: Vec::new(),
            buffer: vec![0; BLOCK],
            turn: None,
            begun: now,
        }
    }

    /// Readable when it is worth another [`round`](FileSet::round).
    pub(crate) fn descriptor(&self) -> Option<Arc<OwnedFd>> {
        self.watcher.descriptor()
    }

    /// Where everything stands. `held`: where something stands, by key, of which not all that was read
    /// has left yet.
    pub(crate) fn places(&self, held: impl Fn(u64) -> Option<Vec<Position>>) -> Places {
        let files = self.files.iter().filter_map(|(path, file)| {
            let positions = held(file.key).unwrap_or_else(|| file.follower.positions());
            (!positions.is_empty()).then(|| (path.clone(), positions))
        });
        Places {
            files: files.collect(),
            done: self.done.values().copied().collect(),
        }
    }

    /// Files at their paths that have a descriptor.
    #[cfg(test)]
    pub(crate) fn open_files(&self) -> usize {
        self.files
            .values()
            .filter(|file| file.follower.is_open())
            .count()
    }

    /// What went wrong and cannot be put right, once each.
    pub(crate) fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Looks at whatever is due, but for what is held, and reads one block of each file that has
    /// something, until there are about `enough` events. Returns when to come again, which may be now.
    pub(crate) fn round(
        &mut self,
        now: Instant,
        enough: usize,
        pace: &Pace,
        taker: &mut impl Taker,
    ) -> Instant {
        self.hear(now);
        let mut count = 0;
        let block = pace.block.clamp(1, BLOCK);
        for path in self.due(now, pace) {
            if count >= enough {
                return now;
            }
            let Some(file) = self.files.get_mut(&path) else {
                continue;
            };
            let before = count;
            let source = &file.source;
            let found =
                file.follower
                    .read(now, &mut self.buffer[..block], &self.owned, |line, end| {
                        count += 1;
                        taker.take(source, line, end);
                    });
            if let Some(reading) = file.follower.reading().filter(|_| count > before) {
                taker.end_block(Block {
                    source: file.source.clone(),
                    path: file.path.clone(),
                    key: file.key,
                    after: file.follower.positions(),
                    reading,
                });
            }
            self.after(&path, found, now);
            self.turn = Some(path);
        }
        // Behind those that are known: a copy may be of one of them.
        if self.scan_at <= now {
            self.scan(now);
        }
        self.save_descriptors();
        let free = self
            .files
            .values()
            .filter(|file| !pace.held.contains(&file.key));
        let looks = free.map(|file| file.look_at);
        looks.chain([self.scan_at]).min().unwrap_or(now)
    }

    /// The files that are due, the one served last at the end.
    fn due(&self, now: Instant, pace: &Pace) -> Vec<PathBuf> {
        let is_due = |file: &File| file.look_at <= now && !pace.held.contains(&file.key);
        let due = self.files.iter().filter(|(_, file)| is_due(file));
        let mut due: Vec<PathBuf> = due.map(|(path, _)| path.clone()).collect();
        if let Some(turn) = &self.turn {
            let at = due.partition_point(|path| path <= turn);
            due.rotate_left(at);
        }
        due
    }

    /// What the kernel has to tell.
    fn hear(&mut self, now: Instant) {
        let FileSet {
            watcher,
            files,
            options,
            scan_at,
            ..
        } = self;
        watcher.changes(|change| match change {
            Change::File(path) => {
                if let Some(file) = files.get_mut(&path) {
                    file.watched = false;
                    file.look_at = now;
                }
            }
            Change::Entry(directory, name) => {
                let path = directory.join(name);
                let mut rotated = false;
                for (followed, file) in files.iter_mut() {
                    if *followed == path || is_rotated_form(&path, followed) {
                        file.look_at = now;
                        rotated = true;
                    }
                }
                if !rotated && (options.patterns.matches(&path) || path.is_dir()) {
                    *scan_at = now;
                }
            }
            Change::Anything => {
                for file in files.values_mut() {
                    file.look_at = now;
                }
                *scan_at = now;
            }
        });
    }

    /// What one read means for the next.
    fn after(&mut self, path: &Path, found: io::Result<Found>, now: Instant) {
        let Some(file) = self.files.get_mut(path) else {
            return;
        };
        self.notes.extend(file.follower.take_notes());
        match found {
            Ok(Found::More) => {
                file.complaint = None;
                file.found = None;
                file.last = now;
                file.look_at = now;
                file.pause = POLL;
                self.own();
                return;
            }
            Ok(Found::Nothing) => file.complaint = None,
            Ok(Found::Missing) => {
                if file.complaint.replace(String::new()).is_none() {
                    tracing::info!(path = %path.display(), "no such file yet; waiting for it");
                }
            }
            Err(error) => {
                let complaint = error.to_string();
                if file.complaint.as_ref() != Some(&complaint) {
                    tracing::warn!(path = %path.display(), %error, "the file cannot be read; trying again");
                }
                file.complaint = Some(complaint);
            }
        }
        self.schedule(path, now);
    }

    /// There is nothing for now: when to look again.
    fn schedule(&mut self, path: &Path, now: Instant) {
        let check = self.next_check(now);
        let Some(file) = self.files.get_mut(path) else {
            return;
        };
        let quiet = now.saturating_duration_since(file.last);
        let mut next = if quiet < ACTIVE_FOR {
            now + ACTIVE
        } else if file.watched {
            check
        } else if self.watcher.watch_file(path) {
            file.watched = true;
            // Something may have come before the watch.
            now
        } else {
            let pause = file.pause;
            file.pause = (pause * 2).min(MAX_POLL);
            now + pause
        };
        if file.follower.is_rotating() {
            next = next.min(now + ROTATING);
        }
        if let Some(due) = file.follower.due() {
            next = next.min(due.max(now + Duration::from_millis(1)));
        }
        file.look_at = next;
    }

    /// Idle files are looked at together, so that they cost one wake.
    fn next_check(&self, now: Instant) -> Instant {
        let since = now.saturating_duration_since(self.begun);
        let checks = since.as_millis() / CHECK.as_millis() + 1;
        self.begun + CHECK * u32::try_from(checks).unwrap_or(u32::MAX)
    }

    /// Closes files that have been idle for longest when too many are open.
    fn save_descriptors(&mut self) {
        let open = self.files.values().filter(|file| file.follower.is_open());
        let mut idle: Vec<(Instant, PathBuf)> = match open.clone().count() {
            count if count <= self.options.max_open => return,
            _ => open
                .filter(|file| file.look_at > file.last)
                .map(|file| (file.last, file.follower.path().to_owned()))
                .collect(),
        };
        let over = self.files.values().filter(|f| f.follower.is_open()).count();
        idle.sort();
        for (_, path) in idle.into_iter().take(over - self.options.max_open) {
            if let Some(file) = self.files.get_mut(&path) {
                file.follower.close();
            }
        }
    }

    fn own(&mut self) {
        let ids = self.files.values().flat_map(|file| {
            let found = file.found.filter(|_| file.follower.is_over());
            file.follower.ids().chain(found)
        });
        self.owned = ids.collect();
    }

    /// Looks through the directories for files that are new, and forgets those that are gone.
    fn scan(&mut self, now: Instant) {
        let first = self.remembered.is_some();
        let mut walk = self.options.patterns.walk();
        for (path, error) in &walk.unreadable {
            self.say_once(format!(
                "{} cannot be looked through: {error}",
                path.display()
            ));
        }
        if walk.too_many {
            self.say_once("there are too many files and directories to look through them all: make the patterns narrower".to_owned());
        }
        let remembered = self.remembered.take().unwrap_or_default();
        // They may have been rotated away with lines that nobody read.
        let missing = remembered.files.keys();
        let missing = missing.filter(|path| self.options.patterns.matches(path));
        walk.found.extend(missing.cloned());
        let mut seen = HashSet::new();
        for path in &walk.found {
            self.consider(path, &walk.found, first, &remembered, &mut seen, now);
        }
        self.forget(&walk.found);
        self.done.retain(|id, _| seen.contains(id));
        let pause = match self.watcher.watch_directories(&walk.directories) {
            Watched::All => SCAN,
            Watched::New => Duration::ZERO,
            Watched::Some => SCAN_UNWATCHED,
        };
        self.scan_at = now + pause;
    }

    /// A path that matches: is there a file that is not read yet?
    fn consider(
        &mut self,
        path: &Path,
        found: &BTreeSet<PathBuf>,
        first: bool,
        remembered: &Places,
        seen: &mut HashSet<FileId>,
        now: Instant,
    ) {
        let metadata = fs::metadata(path);
        let id = metadata.as_ref().ok().map(FileId::of);
        seen.extend(id);
        let named = self.options.patterns.names(path);
        if self.files.contains_key(path) {
            return;
        }
        if !named {
            let is_part = |other: &PathBuf| is_rotated_name(path, other);
            if found.iter().any(is_part) || self.files.keys().any(is_part) {
                return;
            }
            if is_compressed(path) {
                self.say_once(format!("{} is compressed and is not read", path.display()));
                return;
            }
        }
        let known = remembered.files.get(path);
        let (Some(id), Ok(metadata)) = (id, metadata) else {
            if named || known.is_some() {
                let known = known.map_or(&[][..], Vec::as_slice);
                self.add(path, None, known, first, now);
            }
            return;
        };
        if !metadata.is_file() && !named {
            if !metadata.is_dir() {
                self.say_once(format!(
                    "{} is no regular file and is not read",
                    path.display()
                ));
            }
            return;
        }
        if self.is_read(path, id, metadata.len()) {
            return;
        }
        let position = self.done.remove(&id);
        let known = known
            .map(Vec::as_slice)
            .or(position.as_ref().map(std::slice::from_ref));
        self.add(path, Some(id), known.unwrap_or_default(), first, now);
    }

    /// Whether what is at a new path is read under another one, or was, to its end.
    fn is_read(&mut self, path: &Path, id: FileId, length: u64) -> bool {
        if self.owned.contains(&id) {
            return true;
        }
        let mut finished = self
            .files
            .values()
            .flat_map(|file| file.follower.finished());
        if let Some(position) = finished.find(|position| position.id == id) {
            self.done.insert(id, *position);
        }
        if let Some(position) = self.done.get(&id) {
            let file = OpenFile::open(path, 0, &self.options.text);
            match file.is_ok_and(|file| file.is_at(position)) {
                true if length <= position.offset => return true,
                true => {}
                // Another file has its inode.
                false => _ = self.done.remove(&id),
            }
        }
        // A copy that rotation made of a file that is read.
        let mut others = self.files.values().map(|file| &file.follower);
        let copied = others.find_map(|other| {
            let of = is_rotated_form(path, other.path());
            of.then(|| other.end_of_copy_at(path)).flatten()
        });
        if let Some(end) = copied {
            self.done.insert(id, end);
        }
        copied.is_some()
    }

    fn add(
        &mut self,
        path: &Path,
        found: Option<FileId>,
        known: &[Position],
        first: bool,
        now: Instant,
    ) {
        if self.files.len() >= MAX_FILES {
            self.say_once(format!(
                "there are more than {MAX_FILES} files; {} and others are not followed",
                path.display()
            ));
            return;
        }
        let start = match first {
            true => self.options.start,
            // What appears later is new, all of it.
            false => StartAt::Beginning,
        };
        let text = self.options.text.clone();
        let follower = Follower::new(path, text, start, known, &self.owned, now);
        let source = self.options.naming.source(path);
        let file = File {
            follower,
            key: key(path, &source),
            source,
            path: path.to_string_lossy().into(),
            found,
            look_at: now,
            last: now,
            pause: POLL,
            watched: false,
            complaint: None,
        };
        self.files.insert(path.to_owned(), file);
        self.own();
    }

    /// Files that a pattern found and that are gone.
    fn forget(&mut self, found: &BTreeSet<PathBuf>) {
        let patterns = &self.options.patterns;
        self.files.retain(|path, file| {
            let gone = file.follower.is_over() && !found.contains(path);
            !gone || patterns.names(path)
        });
    }

    fn say_once(&mut self, what: String) {
        if self.said.len() < MAX_FILES && self.said.insert(what.clone()) {
            tracing::warn!("{what}");
        }
    }
}
