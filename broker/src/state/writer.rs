//! The thread that stores changes: groups go to the log of changes and are settled by its sync; what
//! fails stays and is tried again; now and then the log is folded into an image.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tracing::{error, info};

use super::{
    change::{Changes, Kind},
    disk::Disk,
    fold::{Base, Fold, FoldError},
    image::{self, Image, ImageError, Stamp},
    log::{Appended, Log},
    reserve::Reserve,
    tickets::Shared,
};

/// How often the disk is looked at, and what failed is tried again.
const LOOK: Duration = Duration::from_millis(250);
/// How long the folding of nothing may take: should sled wait for ever, nobody waits with it.
const LONGEST: Duration = Duration::from_secs(60);
/// How long a folding may take to notice that it is to stop.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest entry: far beyond what the limits on clients let grow.
const MOST_BYTES: usize = 128 << 20;
/// Pause after a folding that failed.
const REST: Duration = Duration::from_secs(10);

/// A folding under way.
pub(super) struct Folding {
    thread: JoinHandle<Result<(Image, u64), FoldError>>,
    stop: Arc<AtomicBool>,
    deadline: Instant,
}

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) log: Log,
    pub(super) reserve: Reserve,
    /// Oldest first: the last is built on, the one before it is kept for the case that
    /// the last is damaged. The log goes back to the first.
    pub(super) bases: Vec<Base>,
    /// Number of the next image; it only ascends, so that of two the newer is known.
    pub(super) next_number: u64,
    /// Bytes in the log beyond the last base.
    pub(super) unfolded: u64,
    /// Where the last record of the log ends: what an image made now stands for.
    pub(super) stored_to: u64,
    /// The log is to be folded whatever its size.
    pub(super) overdue: bool,
    /// Bytes in the log beyond the last base at which it is folded, at least.
    pub(super) fold_at: u64,
    /// Bytes of the last image.
    pub(super) image_bytes: u64,
    /// The state's own entries, to be given again with everything else.
    pub(super) meta: Vec<(String, Vec<u8>)>,
    pub(super) folding: Option<Folding>,
    pub(super) rest_until: Option<Instant>,
    /// What failed is not tried before.
    pub(super) retry_at: Option<Instant>,
    /// Tickets up to this one were tried.
    pub(super) tried: u64,
    /// Everything is being given again: the log's end when that began.
    pub(super) again_from: Option<u64>,
}

impl Writer {
    /// Runs until the state is closed.
    pub(super) fn run(mut self) {
        loop {
            let (changes, newest, closed) = self.next();
            self.look();
            if !changes.is_empty() || newest > self.tried {
                self.store(changes, newest);
            }
            self.tend_folding();
            if closed {
                self.end();
                return;
            }
        }
    }

    /// Waits for changes, for the time to try again, or for the time to look at the disk.
    fn next(&mut self) -> (Changes, u64, bool) {
        let mut pending = self.shared.pending.lock();
        if pending.newest == self.tried && !pending.closed {
            self.shared.wake.wait_for(&mut pending, LOOK);
        }
        let due = self.retry_at.is_none_or(|at| at <= Instant::now());
        if pending.newest > self.tried || due || pending.closed {
            let changes = std::mem::take(&mut pending.changes);
            (changes, pending.newest, pending.closed)
        } else {
            (Changes::new(), pending.newest, false)
        }
    }

    /// Whether there is room, and no failure that stands.
    fn look(&mut self) {
        let roomy = self.reserve.look();
        let accepts = roomy && self.retry_at.is_none();
        self.shared.accepts.store(accepts, Ordering::Relaxed);
    }

    fn store(&mut self, mut changes: Changes, newest: u64) {
        let tickets = self.tried + 1..=newest;
        self.tried = newest;
        let given = changes.len();
        changes.retain(|key, value| fits(key, value.as_deref()));
        let all_fit = changes.len() == given;
        let mut appended = self.log.append(&changes);
        if matches!(appended, Appended::Failed { full: true, .. }) && self.reserve.give_up() {
            appended = self.log.append(&changes);
        }
        match appended {
            Appended::Stored { bytes, end } => {
                if self.retry_at.take().is_some() {
                    info!(path = %self.dir.display(), "the broker's state is stored again");
                }
                self.unfolded += bytes;
                self.stored_to = end.unwrap_or(self.stored_to);
                self.shared.settle(tickets, all_fit);
            }
            Appended::Failed { reason, .. } => {
                if self.retry_at.is_none() {
                    error!(path = %self.dir.display(), reason, "the broker's state cannot be stored; it is tried again until it can");
                }
                self.retry_at = Some(Instant::now() + LOOK);
                self.shared.accepts.store(false, Ordering::Relaxed);
                let mut pending = self.shared.pending.lock();
                for (key, value) in changes {
                    // What was changed since is newer.
                    pending.changes.entry(key).or_insert(value);
                }
                drop(pending);
                self.shared.settle(tickets, false);
            }
        }
        let figures = &self.shared.figures;
        figures.log_bytes.store(self.log.bytes(), Ordering::Relaxed);
    }

    fn tend_folding(&mut self) {
        if let Some(folding) = self.folding.take_if(|folding| folding.thread.is_finished()) {
            self.folded(folding.thread.join());
        }
        let is_late = |folding: &mut Folding| folding.deadline <= Instant::now();
        if let Some(folding) = self.folding.take_if(is_late) {
            // Whatever the thread waits for: nobody waits for it.
            folding.stop.store(true, Ordering::Relaxed);
            self.cannot_fold("it takes too long");
        }
        self.take_again();
        let rests = self.rest_until.is_some_and(|until| Instant::now() < until);
        let due = self.overdue || self.unfolded >= self.fold_at.max(self.image_bytes);
        let whole = !self.shared.incomplete.load(Ordering::Relaxed);
        // A full disk keeps what room there is for the log.
        let room = self.shared.accepts.load(Ordering::Relaxed);
        if due && !rests && whole && room && self.folding.is_none() {
            self.fold();
        }
    }

    fn fold(&mut self) {
        let Some(base) = self.bases.last().cloned() else {
            return;
        };
        let Some(reader) = self.log.reader(base.stamp().mark) else {
            return;
        };
        let stamp = Stamp {
            log: self.log.id(),
            mark: self.stored_to,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let fold = Fold {
            disk: self.disk.clone(),
            dir: self.dir.clone(),
            next: (self.next_number, stamp),
            base,
            reader,
            stop: stop.clone(),
        };
        // At the least speed that a disk may have: 1 MiB/s.
        let bytes = self.image_bytes + self.unfolded;
        let deadline = Instant::now() + LONGEST + Duration::from_secs(bytes >> 20);
        self.next_number += 1;
        self.unfolded = 0;
        self.overdue = false;
        let thread = std::thread::Builder::new().name("broker-state-fold".into());
        match thread.spawn(move || fold.run()) {
            Ok(thread) => {
                self.folding = Some(Folding {
                    thread,
                    stop,
                    deadline,
                });
            }
            Err(error) => self.cannot_fold(&error.to_string()),
        }
    }

    fn folded(&mut self, outcome: std::thread::Result<Result<(Image, u64), FoldError>>) {
        match outcome {
            Ok(Ok((image, bytes))) => {
                self.image_bytes = bytes;
                self.shared.figures.images.fetch_add(1, Ordering::Relaxed);
                self.bases.push(Base::Image(image));
                while self.bases.len() > 2 {
                    if let Base::Image(oldest) = self.bases.remove(0) {
                        image::remove(&oldest.path);
                    }
                }
                if let Some(oldest) = self.bases.first() {
                    self.log.release(oldest.stamp().mark);
                }
            }
            Ok(Err(FoldError::Base(cause))) => self.leave_base(&cause),
            Ok(Err(FoldError::Log(records))) => {
                let figures = &self.shared.figures;
                figures.damaged.fetch_add(records, Ordering::Relaxed);
                self.ask_for_everything(&FoldError::Log(records).to_string());
            }
            Ok(Err(error)) => self.cannot_fold(&error.to_string()),
            Err(_) => self.cannot_fold("the thread panicked"),
        }
    }

    fn cannot_fold(&mut self, reason: &str) {
        error!(path = %self.dir.display(), reason, "an image of the broker's state cannot be written; its log of changes goes on growing");
        self.rest_until = Some(Instant::now() + REST);
        self.overdue = true;
    }

    /// The last image cannot be read: the one before it and a longer piece of the log hold the same.
    fn leave_base(&mut self, cause: &ImageError) {
        self.shared.figures.damaged.fetch_add(1, Ordering::Relaxed);
        if let Some(Base::Image(image)) = self.bases.pop() {
            error!(path = %image.path.display(), %cause, "an image of the broker's state is damaged and is set aside");
            image::set_aside(&*self.disk, &image.path);
        }
        if self.bases.is_empty() {
            self.begin_anew();
        }
        self.overdue = true;
    }

    /// Without any image there is the log, if it goes back to the beginning.
    fn begin_anew(&mut self) {
        if self.log.range().is_some_and(|range| range.start == 0) {
            let log = self.log.id();
            self.bases.push(Base::Empty(Stamp { log, mark: 0 }));
        } else {
            self.ask_for_everything("no image is left");
        }
    }

    /// What is on disk does not make up the state any more; memory does.
    fn ask_for_everything(&mut self, reason: &str) {
        error!(path = %self.dir.display(), reason, "the broker's state on disk is damaged and is written again from memory");
        self.again_from = None;
        let mut pending = self.shared.pending.lock();
        pending.request += 1;
        pending.everything = None;
        self.shared.incomplete.store(true, Ordering::Relaxed);
    }

    /// Goes on from the place in the log where everything begins that was given again.
    fn take_again(&mut self) {
        if !self.shared.incomplete.load(Ordering::Relaxed) {
            return;
        }
        let from = *self.again_from.get_or_insert(self.stored_to);
        let mut pending = self.shared.pending.lock();
        let given = pending
            .everything
            .is_some_and(|ticket| ticket <= self.tried)
            && self.retry_at.is_none();
        if !given {
            return;
        }
        pending.everything = None;
        self.shared.incomplete.store(false, Ordering::Relaxed);
        for (key, value) in &self.meta {
            let key = (Kind::Meta, key.clone());
            pending.changes.entry(key).or_insert(Some(value.clone()));
        }
        pending.newest += 1;
        drop(pending);
        // The images before it go when the next one is written.
        self.bases.push(Base::Empty(Stamp {
            log: self.log.id(),
            mark: from,
        }));
        self.again_from = None;
        self.overdue = true;
    }

    /// Stops; what could not be stored is named.
    fn end(mut self) {
        if self.retry_at.is_some() {
            error!(path = %self.dir.display(), "the broker stops with changes of its state that could not be stored");
        }
        let Some(folding) = self.folding.take() else {
            return;
        };
        folding.stop.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + PATIENCE;
        while !folding.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if !folding.thread.is_finished() {
            error!(path = %self.dir.display(), "an image of the broker's state is still being written; it is left unfinished");
        }
    }
}

/// Whether a change can be stored at all.
fn fits((kind, key): &(Kind, String), value: Option<&[u8]>) -> bool {
    let bytes = key.len() + value.map_or(0, <[u8]>::len);
    if bytes > MOST_BYTES {
        error!(
            ?kind,
            key,
            bytes,
            most = MOST_BYTES,
            "an entry of the broker's state is too large to be stored"
        );
    }
    bytes <= MOST_BYTES
}
