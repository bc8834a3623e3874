//! The thread of a consumer: takes deliveries in bulk, runs its stage over them in chunks, retries
//! what wants to be retried, commits at the pace of `pace`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::commit::{Committer, Job};
use super::pace::{Advice, Pace};
use super::stage::{Pushed, Stage};
use crate::backoff::{Backoff, Jitter};
use crate::clock;
use crate::health::Part;
use crate::mqtt::inbox::{Inbox, Taken};
use crate::mqtt::{Delivery, Settled};
use crate::telemetry::Books;

const RETRY_FROM: Duration = Duration::from_millis(200);
const RETRY_UP_TO: Duration = Duration::from_secs(30);
/// Deliveries between looks at the clock and at the commit's pace.
const STRIDE: usize = 1024;
/// Room for deliveries kept between bulks.
const KEEP_ITEMS: usize = 4096;

/// Why the thread ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The inbox was closed; what was pushed is committed.
    Stopped,
    /// Start over from the last commit.
    Broken(String),
}

/// The thread's own data.
pub(crate) struct Worker<S> {
    pub(crate) stage: S,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) committer: Committer,
    pub(crate) books: Books,
    pub(crate) health: Part,
    state: Progress,
}

struct Progress {
    pace: Pace,
    backoff: Backoff,
    /// The last delivery that was pushed.
    pushed: Option<Settled>,
    /// Bytes the chunk brings, roughly.
    chunk: usize,
}

impl<S: Stage> Worker<S> {
    pub(crate) fn new(
        stage: S,
        inbox: Arc<Inbox>,
        committer: Committer,
        books: Books,
        health: Part,
    ) -> Worker<S> {
        Worker {
            stage,
            inbox,
            committer,
            books,
            health,
            state: Progress {
                pace: Pace::default(),
                backoff: Backoff::new(RETRY_FROM, RETRY_UP_TO, Jitter::from_system()),
                pushed: None,
                chunk: 0,
            },
        }
    }

    /// Runs until the inbox is closed or something breaks.
    pub(crate) fn run(mut self) -> Exit {
        self.health.ready();
        let exit = self.work();
        let finished = self.committer.finish();
        match (exit, finished) {
            (Exit::Stopped, Err(reason)) => Exit::Broken(reason),
            (exit, _) => exit,
        }
    }

    fn work(&mut self) -> Exit {
        let mut items = Vec::new();
        // Time may demand something before the first delivery.
        let mut wake = Some(Instant::now());
        loop {
            match self.inbox.take(&mut items, wake) {
                Taken::Closed => return self.stop(),
                Taken::Nothing => {}
                Taken::Deliveries { generation } => {
                    let done = self.process(&items, generation);
                    items.clear();
                    items.shrink_to(KEEP_ITEMS);
                    if let Err(exit) = done {
                        return exit;
                    }
                }
            }
            let now = Instant::now();
            let tick = self.stage.tick(now);
            if tick.changed {
                self.state.pace.took(0, now);
            }
            match self.pace(true) {
                Ok(deadline) => wake = [tick.again, deadline].into_iter().flatten().min(),
                Err(exit) => return exit,
            }
        }
    }

    /// Runs the stage over deliveries of one connection.
    fn process(&mut self, items: &[Delivery], generation: u64) -> Result<(), Exit> {
        for stride in items.chunks(STRIDE) {
            let now = clock::now_s();
            for delivery in stride {
                self.state.chunk += self.stage.take(delivery, now);
                if self.stage.is_full() {
                    self.push(delivery, generation)?;
                    self.pace(false)?;
                    if self.inbox.is_closed() {
                        return Ok(());
                    }
                }
            }
            if let Some(last) = stride.last() {
                self.push(last, generation)?;
                self.note_lag(last);
            }
            self.pace(false)?;
            if self.inbox.is_closed() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Pushes the chunk that ends with `last`, as often as it takes.
    fn push(&mut self, last: &Delivery, generation: u64) -> Result<(), Exit> {
        loop {
            match self.stage.push() {
                Pushed::Done => break,
                Pushed::Retry { after, reason } => self.wait_to_retry(after, reason)?,
            }
        }
        if self.state.backoff.failures() > 0 {
            self.state.backoff.succeeded();
            self.health.ready();
        }
        let bytes = std::mem::take(&mut self.state.chunk);
        self.state.pace.took(bytes, Instant::now());
        self.state.pushed = Some(Settled {
            generation,
            number: last.number,
        });
        Ok(())
    }

    /// Waits out a backoff. When the router stops meanwhile, the chunk in hand was not delivered,
    /// so nothing of it may be committed: everything since the last commit goes back.
    fn wait_to_retry(&mut self, after: Option<Duration>, reason: String) -> Result<(), Exit> {
        self.books.retries.inc();
        let wait = self.state.backoff.failed(after);
        tracing::warn!(
            reason,
            wait_ms = wait.as_millis() as u64,
            "a destination wants a retry"
        );
        self.health.not_ready(reason);
        if self.inbox.wait_closed(Instant::now() + wait) {
            return Err(Exit::Stopped);
        }
        Ok(())
    }

    /// Commits if it is time; gives the time to look again.
    fn pace(&mut self, idle: bool) -> Result<Option<Instant>, Exit> {
        if let Some(took) = self.committer.took() {
            self.state.pace.ended(took);
            if let Some(reason) = self.committer.failure() {
                return Err(Exit::Broken(reason));
            }
        }
        let now = Instant::now();
        match self.state.pace.advice(now, idle, self.committer.is_busy()) {
            Advice::Rest => {
                self.books.lag_ms.set(0);
                Ok(None)
            }
            Advice::Wait(deadline) => Ok(deadline),
            Advice::Commit | Advice::CommitOrBlock => self.commit(now).map(|()| None),
        }
    }

    fn commit(&mut self, now: Instant) -> Result<(), Exit> {
        if !self.hand_in(now)? {
            return Ok(());
        }
        self.committer.wait_idle();
        if let Some(reason) = self.committer.failure() {
            return Err(Exit::Broken(reason));
        }
        self.stage
            .committed()
            .map_err(|error| Exit::Broken(error.to_string()))?;
        // Where the data goes on is recorded at once: until then only the files themselves tell, and
        // somebody may take away one that is complete.
        self.hand_in(now).map(drop)
    }

    /// Hands a commit to its thread; says whether it is a barrier.
    fn hand_in(&mut self, now: Instant) -> Result<bool, Exit> {
        let closing = self
            .stage
            .commit()
            .map_err(|error| Exit::Broken(error.to_string()))?;
        self.state.pace.begun(now);
        self.committer.submit(Job {
            sync: closing.sync,
            state: closing.state,
            settled: self.state.pushed,
            tally: closing.tally,
        });
        Ok(closing.barrier)
    }

    /// Commits what was pushed.
    fn stop(&mut self) -> Exit {
        let now = Instant::now();
        let done = match self.state.pace.advice(now, true, false) {
            Advice::Rest => Ok(()),
            _ => self.commit(now),
        };
        done.map_or_else(|exit| exit, |()| Exit::Stopped)
    }

    fn note_lag(&self, last: &Delivery) {
        let lag = clock::now_ns().saturating_sub(last.stamp.received) / 1_000_000;
        self.books
            .lag_ms
            .set(i64::try_from(lag).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
