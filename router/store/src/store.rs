//! The store: its files, who writes them, and what others see of them.
//!
//! What is seen is a list of files that is replaced as a whole. A search takes it once and is not
//! disturbed by what is sealed, merged or deleted meanwhile: an open file can be read after its name is
//! gone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};
use thinglog_schemas::Event;

use crate::fresh::{self, FreshWriter};
use crate::manifest::{Manifest, SegmentName, delete_leftovers, fresh_name, segment_name};
use crate::part::{Entry, Part, named};
use crate::segment;

/// Full fresh files that may wait to be sealed; then writing waits.
const MOST_FULL: usize = 4;
/// How long writing waits for that.
const WAIT_FOR_ROOM: Duration = Duration::from_secs(2);
/// Rows that may have been seen and not committed when a process ended: their numbers do not come back.
const CUT_ROWS: u64 = 1 << 20;
/// Devices that may be cleared until what was theirs has left the files.
const MOST_CLEARED: usize = 1000;

/// How long events of a device are kept, where that differs.
pub type AgeOf = Arc<dyn Fn(&str) -> Option<Duration> + Send + Sync>;

/// How a store keeps.
#[derive(Clone)]
pub struct Options {
    /// Where its files are; nobody else's.
    pub folder: PathBuf,
    /// How long events are kept after they were received.
    pub age: Duration,
    /// The same for devices of their own. At most eight different ages.
    pub age_of: AgeOf,
    /// Events of a device that are kept beyond their age while there is room.
    pub events_per_device: u64,
    /// Bytes that all files may take together.
    pub bytes: u64,
    /// Nanoseconds since the Unix epoch.
    pub now: fn() -> u64,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Options({})", self.folder.display())
    }
}

/// A handle to read and to look after a store; clones are the same store.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    /// Taken by whoever changes the files.
    changing: Mutex<()>,
    files: RwLock<Arc<Files>>,
    /// Numbers of rows below this are to be seen.
    shown: AtomicU64,
    /// Called when more is to be seen.
    watcher: Mutex<Option<Arc<dyn Watch>>>,
    pub(crate) work: Work,
}

/// Hears of new events.
pub trait Watch: Send + Sync + 'static {
    /// There are more.
    fn changed(&self);
}

impl std::fmt::Debug for dyn Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

/// Wakes who seals, and who waits for it.
#[derive(Debug, Default)]
pub(crate) struct Work {
    state: Mutex<Waiting>,
    changed: Condvar,
    is_over: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    is_due: bool,
    failed: Option<String>,
}

impl Work {
    /// Waits until there is something to do or the time is over; `false` at the end.
    pub(crate) fn wait(&self, most: Duration) -> bool {
        let mut state = self.state.lock();
        if !state.is_due && !self.is_over() {
            self.changed.wait_for(&mut state, most);
        }
        state.is_due = false;
        !self.is_over()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    fn wake(&self) {
        self.state.lock().is_due = true;
        self.changed.notify_all();
    }

    /// What became of the work.
    pub(crate) fn done(&self, failed: Option<String>) {
        self.state.lock().failed = failed;
        self.changed.notify_all();
    }

    fn end(&self) {
        let _state = self.state.lock();
        self.is_over.store(true, Ordering::Release);
        self.changed.notify_all();
    }
}

/// The files of a store.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    next: u64,
    pub(crate) current: Arc<Fresh>,
    pub(crate) full: Vec<Arc<Fresh>>,
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Devices whose rows below a number are gone.
    pub(crate) cleared: Arc<BTreeMap<String, u64>>,
}

/// A fresh file as others see it.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) number: u64,
    path: PathBuf,
    file: Arc<File>,
    /// Of blocks that are synced. Shared, because who reads must not hold up who writes: a search may be
    /// stopped anywhere for long.
    entries: RwLock<Arc<Vec<Entry>>>,
}

impl Fresh {
    /// What it holds by now.
    pub(crate) fn part(&self) -> Part {
        let entries = Arc::clone(&self.entries.read());
        Part::new(&self.path, Arc::clone(&self.file), entries)
    }

    fn of(number: u64, part: Part) -> Fresh {
        Fresh {
            number,
            path: part.path,
            file: part.file,
            entries: RwLock::new(part.entries),
        }
    }
}

/// A sealed file.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) name: SegmentName,
    pub(crate) part: Arc<Part>,
    pub(crate) bytes: u64,
}

impl Segment {
    pub(crate) fn new(name: SegmentName, part: Part) -> io::Result<Segment> {
        Ok(Segment {
            name,
            bytes: part.file.metadata()?.len(),
            part: Arc::new(part),
        })
    }
}

impl Files {
    fn manifest(&self, rows: u64) -> Manifest {
        let mut manifest = Manifest::new(self.next, self.current.number);
        manifest.rows = rows;
        manifest.full = self.full.iter().map(|fresh| fresh.number).collect();
        manifest.segments = self.segments.iter().map(|segment| segment.name).collect();
        manifest.cleared = (*self.cleared).clone();
        manifest
    }

    /// A number that no file has.
    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Everything that can be read.
    pub(crate) fn parts(&self) -> Vec<Arc<Part>> {
        let segments = self
            .segments
            .iter()
            .map(|segment| Arc::clone(&segment.part));
        let fresh = self.full.iter().chain([&self.current]);
        segments
            .chain(fresh.map(|fresh| Arc::new(fresh.part())))
            .collect()
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        let fresh = self.full.iter().chain([&self.current]);
        let fresh = fresh.map(|fresh| fresh.part().bytes());
        let segments = self.segments.iter().map(|segment| segment.bytes);
        fresh.chain(segments).sum()
    }
}

/// Appends events. There is one.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    fresh: FreshWriter,
    number: u64,
    row: u64,
}

/// Where a store's data ends, as its writer remembers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Of the fresh file.
    pub number: u64,
    /// Bytes of it that count.
    pub length: u64,
}

impl Store {
    /// Opens or creates a store. What was written behind `committed` is cut: it will come again. Without
    /// it all that can be read counts.
    pub fn open(options: Options, committed: Option<End>) -> io::Result<(Store, Writer)> {
        let folder = options.folder.clone();
        std::fs::create_dir_all(&folder).map_err(|error| named(&folder, &error))?;
        let (manifest, is_new) = match Manifest::read(&folder)? {
            Some(manifest) => (manifest, false),
            None => (first(&folder, committed)?, true),
        };
        let (mut files, mut writer) = load(&folder, &manifest, committed)?;
        delete_leftovers(&folder, &manifest)?;
        let parts = files.parts();
        let filled = parts.iter().filter(|part| !part.entries.is_empty());
        let row = filled.map(|part| part.facts().max_row + 1).max();
        // The last ones may be gone: dropped, or cleared.
        let row = row.unwrap_or_default().max(manifest.rows);
        // What was seen and then cut had numbers, too.
        let row = if is_new { row } else { row + CUT_ROWS };
        if let Some(end) = committed.filter(|end| end.number > manifest.current) {
            // The manifest is older than what was committed: somebody else's copy.
            tracing::warn!(folder = %folder.display(), committed = end.number, current = manifest.current, "files of the store are missing");
            let number = end.number;
            files.next = files.next.max(number + 1);
            writer = FreshWriter::create(&folder.join(fresh_name(number)))?;
            let written = std::mem::replace(
                &mut files.current,
                Arc::new(current(&folder, number, &writer)),
            );
            files.full.push(written);
            files.manifest(row).write(&folder)?;
        }
        let number = files.current.number;
        let shared = Arc::new(Shared {
            options,
            changing: Mutex::new(()),
            files: RwLock::new(Arc::new(files)),
            shown: AtomicU64::new(row),
            watcher: Mutex::new(None),
            work: Work::default(),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            fresh: writer,
            number,
            row,
        };
        Ok((Store { shared }, writer))
    }

    /// Whom to tell when there is more to be seen.
    pub fn watch(&self, watcher: Arc<dyn Watch>) {
        *self.shared.watcher.lock() = Some(watcher);
    }

    /// Rows with numbers below this can be found.
    pub fn shown(&self) -> u64 {
        self.shared.shown.load(Ordering::Acquire)
    }

    /// Forgets all events of a device that can be found now.
    pub fn clear(&self, device: &str) -> io::Result<()> {
        let below = self.shown();
        self.shared.change(|files| {
            let mut cleared = (*files.cleared).clone();
            let mark = cleared.entry(device.to_owned()).or_default();
            *mark = below.max(*mark);
            if cleared.len() > MOST_CLEARED {
                let reason = format!(
                    "{MOST_CLEARED} devices were cleared of late; try again in a few minutes"
                );
                return Err(io::Error::new(io::ErrorKind::QuotaExceeded, reason));
            }
            files.cleared = Arc::new(cleared);
            Ok(())
        })?;
        self.shared.work.wake();
        Ok(())
    }

    /// How much there is.
    pub fn size(&self) -> Size {
        let files = self.shared.files();
        let parts = files.parts();
        let facts = parts.iter().map(|part| part.facts());
        Size {
            events: parts.iter().map(|part| part.rows()).sum(),
            bytes: files.bytes(),
            files: parts.len() as u64,
            oldest: facts
                .map(|facts| facts.min_received)
                .filter(|at| *at < u64::MAX)
                .min(),
        }
    }

    /// Ends the work in the background. From now on no file is changed through this store, so that it can
    /// be opened anew; what is open can still be searched.
    pub fn end(&self) {
        let _changing = self.shared.changing.lock();
        self.shared.work.end();
    }
}

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Events, cleared ones that are still in files included.
    pub events: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Files.
    pub files: u64,
    /// When the oldest event was received, ns.
    pub oldest: Option<u64>,
}

/// The manifest of a store that is new.
fn first(folder: &Path, committed: Option<End>) -> io::Result<Manifest> {
    if has_segments(folder)? {
        let reason = "there are segments and no manifest.json that names them; restore it, or move the folder away to start with an empty store";
        let error = io::Error::new(io::ErrorKind::InvalidData, reason);
        return Err(named(folder, &error));
    }
    let number = committed.map_or(0, |end| end.number);
    FreshWriter::create(&folder.join(fresh_name(number)))?;
    let manifest = Manifest::new(number + 1, number);
    manifest.write(folder)?;
    Ok(manifest)
}

fn has_segments(folder: &Path) -> io::Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        if entry?.path().extension().is_some_and(|it| it == "segment") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A damaged segment is left out, loudly, and kept under another name: it would keep all others from being
/// found for ever.
fn set_aside(path: &Path, error: io::Error) -> io::Result<Option<Arc<Segment>>> {
    if error.kind() != io::ErrorKind::InvalidData && error.kind() != io::ErrorKind::NotFound {
        return Err(error);
    }
    tracing::error!(%error, "a segment of the store is left out: its events are lost");
    if error.kind() == io::ErrorKind::InvalidData {
        std::fs::rename(path, path.with_extension("damaged"))?;
    }
    Ok(None)
}

fn load(
    folder: &Path,
    manifest: &Manifest,
    committed: Option<End>,
) -> io::Result<(Files, FreshWriter)> {
    let open = |number| {
        let length = committed.and_then(|end| match end.number {
            // Begun behind the last commit.
            last if number > last => Some(0),
            last if number == last => Some(end.length),
            _ => None,
        });
        let (writer, part) = fresh::open(&folder.join(fresh_name(number)), length)?;
        Ok::<_, io::Error>((writer, Fresh::of(number, part)))
    };
    let full = manifest
        .full
        .iter()
        .map(|number| Ok(Arc::new(open(*number)?.1)));
    let full = full.collect::<io::Result<Vec<_>>>()?;
    let (writer, current) = open(manifest.current)?;
    let segments = manifest.segments.iter().filter_map(|name| {
        let path = folder.join(segment_name(name.number));
        let opened = segment::open(&path).and_then(|part| Segment::new(*name, part));
        opened
            .map(Arc::new)
            .map(Some)
            .or_else(|error| set_aside(&path, error))
            .transpose()
    });
    let files = Files {
        next: manifest.next,
        current: Arc::new(current),
        full,
        segments: segments.collect::<io::Result<_>>()?,
        cleared: Arc::new(manifest.cleared.clone()),
    };
    Ok((files, writer))
}

fn current(folder: &Path, number: u64, writer: &FreshWriter) -> Fresh {
    let part = Part::new(
        &folder.join(fresh_name(number)),
        writer.file(),
        Arc::default(),
    );
    Fresh::of(number, part)
}

/// What is answered to who would change the files of a store that is ending.
pub(crate) fn ending() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "the store is ending")
}

impl Shared {
    /// The files as they are now.
    pub(crate) fn files(&self) -> Arc<Files> {
        Arc::clone(&self.files.read())
    }

    /// Changes the files: what the manifest says is seen. With an error nothing changes.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut Files) -> io::Result<T>,
    ) -> io::Result<T> {
        let _changing = self.changing.lock();
        if self.work.is_over() {
            return Err(ending());
        }
        let mut files = (*self.files()).clone();
        let result = change(&mut files)?;
        let rows = self.shown.load(Ordering::Acquire);
        files.manifest(rows).write(&self.options.folder)?;
        *self.files.write() = Arc::new(files);
        Ok(result)
    }
}

impl Writer {
    /// Writes events, in the order of their arrival. They last once what [`Writer::commit`] gives has
    /// been called. After an error none of them counts and the same may be written again.
    pub fn append(&mut self, events: &[&Event]) -> io::Result<()> {
        self.fresh.append(events, self.row)?;
        self.row += events.len() as u64;
        Ok(())
    }

    /// Where the data ends.
    pub fn end(&self) -> End {
        End {
            number: self.number,
            length: self.fresh.length(),
        }
    }

    /// Makes what was written last, and seen, when it is called.
    pub fn commit(&mut self) -> impl FnOnce() -> io::Result<()> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        let file = self.fresh.file();
        let (entries, row) = (self.fresh.take_entries(), self.row);
        let fresh = Arc::clone(&shared.files().current);
        move || {
            file.sync_data()?;
            Arc::make_mut(&mut fresh.entries.write()).extend(entries);
            shared.shown.store(row, Ordering::Release);
            let watcher = shared.watcher.lock().clone();
            if let Some(watcher) = watcher {
                watcher.changed();
            }
            Ok(())
        }
    }

    /// Whether the next commit should be followed by [`Writer::roll`].
    pub fn wants_to_roll(&self) -> bool {
        let options = &self.shared.options;
        let age = u64::try_from(options.age.as_nanos()).unwrap_or(u64::MAX) / 8;
        let is_old = |first: u64| first.saturating_add(age) < (options.now)();
        self.fresh.is_full() || self.fresh.first_received().is_some_and(is_old)
    }

    /// Goes on in a new file; to be called when all commits are through. While too many files wait to be
    /// sealed it goes on in the same one, and if sealing fails that is an error.
    pub fn roll(&mut self) -> io::Result<()> {
        if !self.has_room()? {
            return Ok(());
        }
        let folder = &self.shared.options.folder;
        let (number, writer) = self.shared.change(|files| {
            let number = files.number();
            let writer = FreshWriter::create(&folder.join(fresh_name(number)))?;
            let fresh = Arc::new(current(folder, number, &writer));
            let full = std::mem::replace(&mut files.current, fresh);
            files.full.push(full);
            Ok((number, writer))
        })?;
        (self.number, self.fresh) = (number, writer);
        self.shared.work.wake();
        Ok(())
    }

    /// Whether another file may wait to be sealed, after waiting a while for that.
    fn has_room(&self) -> io::Result<bool> {
        let work = &self.shared.work;
        let until = Instant::now() + WAIT_FOR_ROOM;
        let mut state = work.state.lock();
        while self.shared.files().full.len() >= MOST_FULL {
            if let Some(reason) = &state.failed {
                return Err(io::Error::other(reason.clone()));
            }
            if work.is_over() {
                return Err(ending());
            }
            if work.changed.wait_until(&mut state, until).timed_out() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
