//! One request from its first attempt until each of its events is settled.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::ledger::{Fate, Ledger};
use super::letters::{Added, Letters};
use super::replay::{Replay, TICKETS};
use super::request::{Item, Request};
use super::verdict::{self, Verdict, Wait};
use super::{Encoder, Limits, Sink};
use crate::backoff::{Backoff, Jitter};
use crate::clock;
use crate::config::RetryConfig;
use crate::health::Part;
use crate::telemetry::{Books, RemoteMetrics};

/// Between looks whether there is room for dead letters again.
const ROOM_EVERY: Duration = Duration::from_secs(1);

/// What all requests of a destination share.
pub(super) struct Carrier<S: Sink> {
    pub(super) sink: S,
    pub(super) encoder: Rc<RefCell<S::Encoder>>,
    pub(super) limits: Limits,
    pub(super) retry: RetryConfig,
    pub(super) ledger: Arc<Ledger>,
    pub(super) letters: Arc<Letters>,
    pub(super) books: Books,
    pub(super) metrics: RemoteMetrics,
    pub(super) health: Part,
    pub(super) ending: CancellationToken,
    pub(super) replay: RefCell<Replay>,
    /// No request goes before: the service asked for it.
    pub(super) pause: Cell<Instant>,
}

/// Sends a request, as often and in as many parts as it takes.
pub(super) async fn carry<S: Sink>(carrier: &Carrier<S>, request: Request) {
    let (from, max) = (carrier.retry.from_ms, carrier.retry.max_ms);
    let (from, max) = (Duration::from_millis(from), Duration::from_millis(max));
    let mut backoff = Backoff::new(from, max, Jitter::from_system());
    let mut failing_since = None;
    // The next one is the last.
    let mut parts = vec![request];
    while let Some(part) = parts.pop() {
        let verdict = carrier.attempt(&part).await;
        let applied = verdict::apply(part, verdict);
        carrier.settle(applied.accepted, Fate::Accepted);
        carrier.settle(applied.duplicate, Fate::Duplicate);
        carrier.refuse(applied.refused).await;
        parts.extend(applied.rest.into_iter().rev());
        let Some(wait) = applied.wait else {
            carrier.metrics.requests_done.inc();
            carrier.health.ready();
            backoff.succeeded();
            failing_since = None;
            continue;
        };
        let since = *failing_since.get_or_insert_with(Instant::now);
        carrier.note(&wait);
        if carrier.gives_up(since) {
            let part = parts.pop().map(Request::into_items).unwrap_or_default();
            let reason = format!(
                "given up after {} s: {}",
                since.elapsed().as_secs(),
                wait.reason
            );
            let refused = part.into_iter().map(|item| (item, reason.clone()));
            carrier.refuse(refused.collect()).await;
            failing_since = None;
            continue;
        }
        carrier.wait(backoff.failed(wait.after), wait.after).await;
    }
}

impl<S: Sink> Carrier<S> {
    async fn attempt(&self, request: &Request) -> Verdict {
        while let Some(rest) = self.pause.get().checked_duration_since(Instant::now())
            && !rest.is_zero()
        {
            tokio::time::sleep(rest).await;
        }
        let mut body = Vec::with_capacity(self.limits.overhead + request.joined().len());
        self.encoder.borrow_mut().body(request, &mut body);
        let bytes = body.len() as u64;
        self.metrics.requests.inc();
        let verdict = self.sink.send(request, body).await;
        if !matches!(verdict, Verdict::Retry { .. }) {
            self.books.bytes.inc_by(bytes);
        }
        verdict
    }

    fn note(&self, wait: &Wait) {
        self.books.retries.inc();
        tracing::warn!(
            destination = self.health.name(),
            reason = wait.reason,
            "a destination wants a retry"
        );
        self.health.not_ready(wait.reason.clone());
    }

    fn gives_up(&self, since: Instant) -> bool {
        let limit = self.retry.give_up_s.map(Duration::from_secs);
        limit.is_some_and(|limit| since.elapsed() >= limit)
    }

    /// Waits out a backoff. The end of the destination shortens it once, unless the service asked for
    /// the time.
    async fn wait(&self, wait: Duration, asked: Option<Duration>) {
        if let Some(asked) = asked {
            let until = Instant::now() + asked;
            self.pause.set(self.pause.get().max(until));
        }
        let was_ending = self.ending.is_cancelled() || asked.is_some();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.ending.cancelled(), if !was_ending => {}
        }
    }

    /// Puts events among the dead letters and settles them.
    pub(super) async fn refuse(&self, refused: Vec<(Item, String)>) {
        let Some((_, reason)) = refused.first() else {
            return;
        };
        tracing::error!(
            destination = self.health.name(),
            events = refused.len(),
            reason,
            "events were refused for good; see thinglog dlq list"
        );
        for (item, reason) in refused {
            // A letter that is sent again and refused again stays where it is.
            if item.ticket < TICKETS
                && let Err(error) = self.keep(&item, &reason).await
            {
                return self.ledger.fail(format!("dead letters: {error}"));
            }
            self.settle([item], Fate::Refused);
        }
    }

    async fn keep(&self, item: &Item, reason: &str) -> io::Result<()> {
        let lost = loop {
            match self.letters.add(item.event(), reason, clock::now_ns())? {
                Added::Kept => break 0,
                Added::Displaced(lost) => break lost,
                Added::Lost => break 1,
                Added::Full => {}
            }
            let reason = "no room for dead letters; drop some: thinglog dlq drop";
            self.health.not_ready(reason);
            tokio::time::sleep(ROOM_EVERY).await;
        };
        if lost > 0 {
            self.metrics.letters_lost.inc_by(lost);
            tracing::error!(
                destination = self.health.name(),
                events = lost,
                "dead letters are lost: dead_letters.max_bytes is used up"
            );
        }
        Ok(())
    }
}
