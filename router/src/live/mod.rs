//! Live topics: single events as JSON for whoever watches, at no cost while nobody does.
//!
//! [`interest`] follows which live filters the clients of the bundled broker have; while some filter
//! could match, a clean session reads the logs ([`worker`]) and publishes what matches. It never
//! catches up: too far behind it starts again at the tail, and what was skipped is counted.

pub(crate) mod interest;
pub(crate) mod worker;

use std::sync::Arc;
use std::time::Duration;

use thinglog_schemas::Topics;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::config::StartFrom;
use crate::deliver::judge::Reader;
use crate::deliver::share::{DecodeCache, Seat, Shared};
use crate::health::Part;
use crate::levels::{LevelCache, Levels};
use crate::mqtt::connect::LinkOptions;
use crate::mqtt::consumer::Consumer;
use crate::mqtt::inbox::Inbox;
use crate::mqtt::link::Subscription;
use crate::mqtt::outbox::Outbox;
use crate::telemetry::Telemetry;
use interest::Interest;
use worker::LiveWorker;

/// Window of the live session, bytes: it keeps up or skips.
pub(crate) const WINDOW: usize = 4 << 20;
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// The part.
pub(crate) struct Live {
    pub(crate) link: LinkOptions,
    pub(crate) topics: Topics,
    pub(crate) levels: Arc<Levels>,
    pub(crate) shared: Arc<DecodeCache>,
    pub(crate) telemetry: Telemetry,
    pub(crate) skip_behind: Duration,
    pub(crate) health: Part,
    pub(crate) interest: watch::Receiver<Arc<Interest>>,
}

impl Live {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                watched = self.interest.wait_for(|interest| interest.any()) => {
                    if watched.is_err() {
                        return;
                    }
                }
            }
            if let Err(error) = self.watched(&stop).await {
                tracing::error!(%error, "live topics cannot be served");
                tokio::time::sleep(STOP_WITHIN).await;
            }
        }
    }

    /// While somebody watches: one consumer and one thread.
    async fn watched(&mut self, stop: &CancellationToken) -> std::io::Result<()> {
        let inbox = Arc::new(Inbox::default());
        let outbox = Arc::new(Outbox::default());
        let (sender, mut ended) = oneshot::channel();
        let worker = LiveWorker::new(
            Reader::new(Shared::new(Arc::clone(&self.shared), Seat::Guest)),
            LevelCache::new(Arc::clone(&self.levels)),
            worker::Wiring {
                topics: self.topics.clone(),
                interest: self.interest.clone(),
                inbox: Arc::clone(&inbox),
                outbox: Arc::clone(&outbox),
                telemetry: self.telemetry.clone(),
                skip_behind: self.skip_behind,
            },
        );
        std::thread::Builder::new()
            .name("live".into())
            .spawn(move || {
                worker.run();
                // The part may have stopped waiting.
                let _ = sender.send(());
            })?;
        let abandon = CancellationToken::new();
        let consumer = tokio::spawn(self.consumer(&inbox, &outbox).run(abandon.clone()));
        tokio::select! {
            () = stop.cancelled() => {}
            _ = self.interest.wait_for(|interest| !interest.any()) => {}
            _ = &mut ended => {}
        }
        inbox.close();
        outbox.finish();
        if tokio::time::timeout(STOP_WITHIN, consumer).await.is_err() {
            abandon.cancel();
        }
        // Nobody watching is a fine state to be in, whatever the connection was like.
        self.health.ready();
        Ok(())
    }

    fn consumer(&self, inbox: &Arc<Inbox>, outbox: &Arc<Outbox>) -> Consumer {
        Consumer {
            link: self.link.clone(),
            subscription: Subscription {
                filter: self.topics.all_logs(),
                from: Some(StartFrom::Tail.property()),
                retained: false,
            },
            inbox: Arc::clone(inbox),
            outbox: Arc::clone(outbox),
            metrics: self.telemetry.consumer("live"),
            health: self.health.clone(),
        }
    }
}
