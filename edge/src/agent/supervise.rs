//! Runs sources side by side. Each has a task of its own: one that fails or breaks down is started
//! again after a pause that doubles, and costs the others nothing. A changed configuration starts
//! what is new, ends what is gone, and leaves alone what stayed the same.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    Catalogue, Readable, RuleError, Sink, SinkCounters,
    sink::Figures,
    source::{Kind, SourceOptions, Surroundings},
};
use crate::{Publisher, backoff::Backoff, clock};

/// The pauses before a source is started again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A source that ran for so long was well: the next pause is short again.
const WELL_AFTER: Duration = Duration::from_secs(60);
/// What a source gets to end, beyond the time in which its events may become durable.
const TO_END: Duration = Duration::from_secs(3);

/// The sources that run.
pub struct Supervisor {
    publisher: Publisher,
    around: Surroundings,
    running: BTreeMap<String, Running>,
    board: Board,
    catalogue: Catalogue,
}

/// Where it stands how the sources fare. Clones show the same.
#[derive(Clone, Default)]
pub struct Board(Arc<Mutex<BTreeMap<String, Post>>>);

/// The kind of a source, and what is known of it.
type Post = (&'static str, Arc<Watch>);

impl Board {
    /// How they fare.
    pub fn report(&self) -> BTreeMap<String, SourceReport> {
        let report = |(name, (kind, watch)): (&String, &Post)| {
            let report = SourceReport {
                kind,
                is_running: watch.is_running.load(Relaxed),
                counters: watch.figures.counters(),
                restarts: watch.starts.load(Relaxed).saturating_sub(1),
                failures: watch.failures.load(Relaxed),
                last_failure: watch.last_failure.lock().clone(),
            };
            (name.clone(), report)
        };
        self.0.lock().iter().map(report).collect()
    }
}

struct Running {
    options: SourceOptions,
    sink: Sink,
    watch: Arc<Watch>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

/// What is known of a source from outside.
#[derive(Debug, Default)]
struct Watch {
    figures: Arc<Figures>,
    starts: AtomicU64,
    failures: AtomicU64,
    is_running: AtomicBool,
    last_failure: Mutex<Option<String>>,
}

/// How a source fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceReport {
    /// What kind it is.
    pub kind: &'static str,
    /// It runs; otherwise it waits to be started again, or is at its end.
    pub is_running: bool,
    /// What it brought.
    pub counters: SinkCounters,
    /// How often it was started again.
    pub restarts: u64,
    /// How often it failed.
    pub failures: u64,
    /// Why it failed last.
    pub last_failure: Option<String>,
}

/// Rules of a source that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("source.{name}.{error}")]
pub struct BadRules {
    /// The source.
    pub name: String,
    /// What is wrong.
    pub error: RuleError,
}

/// What a new configuration meant for the sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Started.
    pub added: Vec<String>,
    /// Ended.
    pub removed: Vec<String>,
    /// Ended and started with other options.
    pub changed: Vec<String>,
}

impl Supervisor {
    /// No sources yet; they will put what they have into `publisher`. Needs a tokio runtime around
    /// it from now on.
    pub fn new(publisher: Publisher, around: Surroundings) -> Supervisor {
        Supervisor {
            publisher,
            around,
            running: BTreeMap::new(),
            board: Board::default(),
            catalogue: Catalogue::default(),
        }
    }

    /// How the sources fare, now and later.
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// The sources whose past can be read, now and later.
    pub fn catalogue(&self) -> Catalogue {
        self.catalogue.clone()
    }

    /// Makes `wanted` the sources that run. With an error, nothing has changed.
    pub async fn apply(
        &mut self,
        wanted: BTreeMap<String, SourceOptions>,
    ) -> Result<Changes, BadRules> {
        let mut fresh = Vec::new();
        for (name, options) in &wanted {
            if self
                .running
                .get(name)
                .is_some_and(|running| running.options == *options)
            {
                continue;
            }
            let sink = Sink::new(self.publisher.clone()).with_rules(&options.rules);
            let sink = sink.map_err(|error| BadRules {
                name: name.clone(),
                error,
            })?;
            fresh.push((name.clone(), options.clone(), sink));
        }
        let mut changes = Changes::default();
        let (staying, ending) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|(name, running)| wanted.get(name) == Some(&running.options));
        self.running = staying;
        let mut watches = BTreeMap::new();
        for (name, running) in &ending {
            if wanted.contains_key(name) {
                watches.insert(name.clone(), running.watch.clone());
            } else {
                changes.removed.push(name.clone());
            }
        }
        end(ending, self.around.drain + TO_END).await;
        for (name, options, sink) in fresh {
            let watch = watches.remove(&name);
            let names = match &watch {
                Some(_) => &mut changes.changed,
                None => &mut changes.added,
            };
            names.push(name.clone());
            self.start(name, options, sink, watch.unwrap_or_default());
        }
        self.publish();
        Ok(changes)
    }

    /// Tells board and catalogue what runs now.
    fn publish(&self) {
        let posted = |(name, running): (&String, &Running)| {
            let kind = running.options.kind.name();
            (name.clone(), (kind, running.watch.clone()))
        };
        *self.board.0.lock() = self.running.iter().map(posted).collect();
        let readable = |(name, running): (&String, &Running)| Readable {
            history: running.options.kind.history(name),
            sink: running.sink.clone(),
        };
        self.catalogue
            .set(self.running.iter().map(readable).collect());
    }

    fn start(&mut self, name: String, options: SourceOptions, sink: Sink, watch: Arc<Watch>) {
        let sink = sink.counted_in(watch.figures.clone());
        let cancel = CancellationToken::new();
        let life = Life {
            name: name.clone(),
            kind: options.kind.clone(),
            sink: sink.clone(),
            around: self.around.clone(),
            watch: watch.clone(),
            cancel: cancel.clone(),
        };
        let running = Running {
            options,
            sink,
            watch,
            cancel,
            task: tokio::spawn(life.run()),
        };
        self.running.insert(name, running);
    }

    /// Ends all sources in order, but waits for none longer than it takes its last events to become
    /// durable.
    pub async fn stop(&mut self) {
        let all = std::mem::take(&mut self.running);
        end(all, self.around.drain + TO_END).await;
    }
}

/// Ends sources side by side; whoever takes too long is cut off.
async fn end(sources: BTreeMap<String, Running>, within: Duration) {
    for source in sources.values() {
        source.cancel.cancel();
    }
    let deadline = tokio::time::Instant::now() + within;
    for (name, mut source) in sources {
        let ended = tokio::time::timeout_at(deadline, &mut source.task).await;
        if ended.is_err() {
            tracing::warn!(source = name, "a source did not end in time and is cut off");
            source.task.abort();
        }
    }
}

/// One source through all its starts.
struct Life {
    name: String,
    kind: Kind,
    sink: Sink,
    around: Surroundings,
    watch: Arc<Watch>,
    cancel: CancellationToken,
}

/// Takes a task along when whoever waits for it goes.
struct Along<T>(JoinHandle<T>);
impl<T> Drop for Along<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Life {
    async fn run(self) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let started = clock::mono();
            self.watch.starts.fetch_add(1, Relaxed);
            self.watch.is_running.store(true, Relaxed);
            let ended = self.once().await;
            self.watch.is_running.store(false, Relaxed);
            if self.cancel.is_cancelled() {
                return;
            }
            let reason = match ended {
                Ok(()) if self.kind.may_end() => return,
                Ok(()) => "it ended by itself".to_owned(),
                Err(reason) => reason,
            };
            self.watch.failures.fetch_add(1, Relaxed);
            tracing::error!(
                source = self.name,
                reason,
                "a source failed; it is started again"
            );
            *self.watch.last_failure.lock() = Some(reason);
            if started.elapsed() >= WELL_AFTER {
                backoff.reset();
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next(crate::random())) => {}
                () = self.cancel.cancelled() => return,
            }
        }
    }

    /// From a start to the end, in a task: a panic ends no more than that.
    async fn once(&self) -> Result<(), String> {
        let (name, kind) = (self.name.clone(), self.kind.clone());
        let (sink, around) = (self.sink.clone(), self.around.clone());
        let cancel = self.cancel.child_token();
        let task = tokio::spawn(async move { kind.run(&name, sink, around, cancel).await });
        match (&mut Along(task).0).await {
            Ok(ended) => ended.map_err(|error| error.to_string()),
            Err(broken) => Err(format!("it broke down: {broken}")),
        }
    }
}
