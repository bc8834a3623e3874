//! The life of a consumer part: open what is on disk, connect, work; and when something breaks,
//! again from the start. One way in, whether the process is new, was killed, or met a failed sync.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::commit::{Committer, Parts};
use super::stage::Stage;
use super::worker::{Exit, Worker};
use crate::backoff::{Backoff, Jitter};
use crate::health::Part;
use crate::mqtt::connect::LinkOptions;
use crate::mqtt::consumer::Consumer;
use crate::mqtt::inbox::Inbox;
use crate::mqtt::link::Subscription;
use crate::mqtt::outbox::Outbox;
use crate::state::{StateError, StateLog};
use crate::telemetry::{Books, ConsumerMetrics};

const AGAIN_FROM: Duration = Duration::from_millis(500);
const AGAIN_UP_TO: Duration = Duration::from_secs(30);
/// How long a part may take to bring in what it has in hand when the router stops.
pub(crate) const STOP_WITHIN: Duration = Duration::from_secs(10);

/// A part's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("{path}: {source}")]
    Io {
        path: std::path::PathBuf,
        source: io::Error,
    },
    #[error("{path} is in use by another router; stop it, or give this one another data directory")]
    Locked { path: std::path::PathBuf },
    #[error("destinations.{name}: {reason}")]
    Destination { name: String, reason: String },
    #[error("{part}: {reason}")]
    Part { part: &'static str, reason: String },
    #[error(transparent)]
    State(#[from] StateError),
}

/// Makes a stage from what is on disk. Called again after a failure.
pub(crate) trait Open: Send + std::marker::Sync + 'static {
    type Stage: Stage;

    /// Recovers the part's files. When `ending` is cancelled the stage has to come to an end.
    fn open(&self, ending: &CancellationToken) -> Result<(Self::Stage, StateLog), OpenError>;
}

/// Everything about a consumer part but its files.
pub(crate) struct Supervised {
    pub(crate) name: String,
    pub(crate) link: LinkOptions,
    pub(crate) subscription: Subscription,
    pub(crate) books: Books,
    pub(crate) metrics: ConsumerMetrics,
    /// Readiness of the connection, and of the work behind it.
    pub(crate) connected: Part,
    pub(crate) working: Part,
}

impl Supervised {
    /// Runs until `stop`; then brings in what is in hand.
    pub(crate) async fn run<O: Open>(self, opener: Arc<O>, stop: CancellationToken) {
        let mut backoff = Backoff::new(AGAIN_FROM, AGAIN_UP_TO, Jitter::from_system());
        while !stop.is_cancelled() {
            let begun = std::time::Instant::now();
            let reason = match self.live(&opener, &stop).await {
                Exit::Stopped => return,
                Exit::Broken(reason) if stop.is_cancelled() => {
                    tracing::warn!(part = self.name, reason, "what was in hand comes again");
                    return self.books.give_back();
                }
                Exit::Broken(reason) => reason,
            };
            if begun.elapsed() > AGAIN_UP_TO {
                backoff.succeeded();
            }
            self.books.restarts.inc();
            self.books.give_back();
            let wait = backoff.failed(None);
            tracing::error!(
                part = self.name,
                reason,
                "starting over from the last commit"
            );
            self.working.not_ready(reason);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// One life: from opening the files to the end of the thread.
    async fn live<O: Open>(&self, opener: &Arc<O>, stop: &CancellationToken) -> Exit {
        let inbox = Arc::new(Inbox::default());
        let outbox = Arc::new(Outbox::default());
        let ending = stop.child_token();
        let _ended = ending.clone().drop_guard();
        let opened = {
            let opener = Arc::clone(opener);
            tokio::task::spawn_blocking(move || opener.open(&ending)).await
        };
        let (stage, log) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return Exit::Broken(error.to_string()),
            Err(panic) => return Exit::Broken(panic.to_string()),
        };
        let mut ended = match self.start_thread(stage, log, &inbox, &outbox) {
            Ok(ended) => ended,
            Err(error) => return Exit::Broken(format!("cannot start a thread: {error}")),
        };
        let abandon = CancellationToken::new();
        let consumer = self.consumer(&inbox, &outbox);
        let consumer = tokio::spawn(consumer.run(abandon.clone()));
        let exit = tokio::select! {
            exit = &mut ended => exit,
            () = stop.cancelled() => {
                inbox.close();
                match tokio::time::timeout(STOP_WITHIN, ended).await {
                    Ok(exit) => exit,
                    Err(_) => {
                        tracing::warn!(part = self.name, "did not stop in time; what was in hand comes again");
                        Ok(Exit::Stopped)
                    }
                }
            }
        };
        inbox.close();
        outbox.finish();
        if tokio::time::timeout(Duration::from_secs(3), consumer)
            .await
            .is_err()
        {
            abandon.cancel();
        }
        exit.unwrap_or_else(|_| Exit::Broken("its thread panicked".into()))
    }

    fn start_thread<S: Stage>(
        &self,
        stage: S,
        log: StateLog,
        inbox: &Arc<Inbox>,
        outbox: &Arc<Outbox>,
    ) -> io::Result<oneshot::Receiver<Exit>> {
        let parts = Parts {
            log,
            inbox: Arc::clone(inbox),
            outbox: Arc::clone(outbox),
            books: self.books.clone(),
        };
        let committer = Committer::start(&self.name, parts)?;
        let (books, working) = (self.books.clone(), self.working.clone());
        let worker = Worker::new(stage, Arc::clone(inbox), committer, books, working);
        let (sender, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name(format!("work {}", self.name))
            .spawn(move || {
                // Nobody listens any more when the router gave up waiting.
                let _ = sender.send(worker.run());
            })?;
        Ok(ended)
    }

    fn consumer(&self, inbox: &Arc<Inbox>, outbox: &Arc<Outbox>) -> Consumer {
        Consumer {
            link: self.link.clone(),
            subscription: self.subscription.clone(),
            inbox: Arc::clone(inbox),
            outbox: Arc::clone(outbox),
            metrics: self.metrics.clone(),
            health: self.connected.clone(),
        }
    }
}
