//! What a worker thread does with deliveries; for a destination: judge, batch, deliver, remember.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::batch::{Batch, weight};
use super::commit::Write;
use super::judge::{Judge, Judged, Verdict};
use super::tap::Tap;
use super::{Destination, Outcome, Position, Sync};
use crate::clock;
use crate::dedup::table::{Mark, Table};
use crate::levels::facts::FactsCache;
use crate::mqtt::Delivery;
use crate::mqtt::names::Names;
use crate::routes::Routes;
use crate::state::{self, Growth, StateError};
use crate::telemetry::{Books, Tally};

/// Events after which a chunk is handed on.
const CHUNK_EVENTS: usize = 8192;
/// Memory after which a chunk is handed on, bytes.
const CHUNK_WEIGHT: usize = 4 << 20;
/// Marks of one record of a snapshot.
const SNAPSHOT_MARKS: usize = 4096;
/// Seconds between searches for idle lanes.
const FORGET_EVERY_S: u64 = 3600;

/// The work of one consumer's thread. Calls come in the order: any number of `take`, `push` until it
/// is done, and only then perhaps `commit`.
pub(crate) trait Stage: Send + 'static {
    /// Takes a delivery into the chunk; `now` is seconds since the Unix epoch. Gives the bytes it
    /// brings, roughly: what the next commit has to make durable.
    fn take(&mut self, delivery: &Delivery, now: u64) -> usize;

    /// Whether the chunk should be pushed on before more is taken.
    fn is_full(&self) -> bool;

    /// Pushes the chunk on; called again after `Retry`.
    fn push(&mut self) -> Pushed;

    /// Closes the books on everything pushed.
    fn commit(&mut self) -> Result<Closing, StateError>;

    /// The commit with a barrier stands.
    fn committed(&mut self) -> std::io::Result<()>;

    /// Does what time demands.
    fn tick(&mut self, _now: Instant) -> Tick {
        Tick::default()
    }
}

/// What a tick has brought.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tick {
    /// When the next one is due, if before the next delivery.
    pub(crate) again: Option<Instant>,
    /// Something changed that a commit should record.
    pub(crate) changed: bool,
}

/// Whether the chunk is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    Done,
    Retry {
        after: Option<Duration>,
        reason: String,
    },
}

/// A commit, without the acknowledgements it stands for.
pub(crate) struct Closing {
    pub(crate) sync: Option<Sync>,
    pub(crate) state: Write,
    pub(crate) tally: Tally,
    pub(crate) barrier: bool,
}

/// What a destination's state log holds, one per commit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) position: Option<Position>,
    pub(crate) marks: Vec<Mark>,
}

/// Rebuilds table and position from a state log.
pub(crate) fn replay(records: &[Record]) -> (Table, Option<Position>) {
    let mut table = Table::default();
    let mut position = None;
    for record in records {
        position = record.position.or(position);
        record.marks.iter().for_each(|mark| table.replay(mark));
    }
    (table, position)
}

/// What stands between the judge and the destination.
pub(crate) struct Way {
    pub(crate) routes: Arc<Routes>,
    pub(crate) facts: FactsCache,
    pub(crate) tap: Arc<Tap>,
}

impl Way {
    /// What routes leave of judged events.
    fn routed(&mut self, names: &Names, judged: Judged) -> Judged {
        let Some(keep) = judged.keep else {
            return judged;
        };
        if self.routes.is_open() {
            let keep = Some(keep);
            return Judged { keep, ..judged };
        }
        let facts = match self.routes.asks_for_facts() {
            true => self.facts.of(&names.device),
            false => self.facts.none(),
        };
        let of = (&*names.device, &*names.source);
        let routed = self
            .routes
            .route(of, Arc::clone(&judged.decoded), keep, facts);
        let (decoded, keep) = match routed.rest {
            Some((decoded, keep)) => (decoded, Some(keep)),
            None => (judged.decoded, None),
        };
        Judged {
            decoded,
            keep,
            duplicate: judged.duplicate,
            filtered: judged.filtered + routed.filtered,
        }
    }
}

/// The stage of a destination.
pub(crate) struct Deliver<D> {
    judge: Judge,
    way: Way,
    destination: D,
    batch: Batch,
    books: Books,
    growth: Growth,
    tally: Tally,
    position: Option<Position>,
    forget_at: u64,
}

impl<D: Destination> Deliver<D> {
    pub(crate) fn new(
        judge: Judge,
        way: Way,
        destination: D,
        books: Books,
        growth: Growth,
    ) -> Deliver<D> {
        Deliver {
            judge,
            way,
            destination,
            batch: Batch::default(),
            books,
            growth,
            tally: Tally::default(),
            position: None,
            forget_at: clock::now_s() + FORGET_EVERY_S,
        }
    }

    fn framed(&mut self, position: Option<Position>) -> Result<Write, StateError> {
        let marks = self.judge.table.take_marks();
        if self.growth.wants_rewrite() {
            let framed = snapshot(&self.judge.table, position)?;
            self.growth.rewritten(framed.len());
            return Ok(Write::Rewrite(framed));
        }
        if marks.is_empty() && position == self.position {
            return Ok(Write::Nothing);
        }
        let mut framed = Vec::new();
        state::frame(&Record { position, marks }, &mut framed)?;
        self.growth.appended(framed.len());
        Ok(Write::Append(framed))
    }
}

/// The whole table as framed records.
fn snapshot(table: &Table, position: Option<Position>) -> Result<Vec<u8>, StateError> {
    let mut framed = Vec::new();
    let mut marks = Vec::with_capacity(SNAPSHOT_MARKS.min(table.len()));
    for mark in table.snapshot() {
        marks.push(mark);
        if marks.len() == SNAPSHOT_MARKS {
            let marks = std::mem::take(&mut marks);
            state::frame(&Record { position, marks }, &mut framed)?;
        }
    }
    state::frame(&Record { position, marks }, &mut framed)?;
    Ok(framed)
}

impl<D: Destination> Stage for Deliver<D> {
    fn take(&mut self, delivery: &Delivery, now: u64) -> usize {
        if now >= self.forget_at {
            self.forget_at = now + FORGET_EVERY_S;
            self.judge.table.forget_idle(now);
        }
        match self.judge.judge(delivery, now) {
            Verdict::Redelivered => self.books.redelivered.inc(),
            Verdict::Unreadable => self.books.unreadable.inc(),
            Verdict::Events(judged) => {
                self.books.take(judged.decoded.events.len() as u64, 0);
                let judged = match &delivery.topic.logs {
                    Ok(names) => self.way.routed(names, judged),
                    Err(_) => judged,
                };
                self.tally.duplicate += judged.duplicate;
                self.tally.filtered += judged.filtered;
                if let Some(keep) = judged.keep {
                    let weight = weight(&judged.decoded);
                    self.batch.push(judged.decoded, keep, weight);
                    return weight;
                }
            }
        }
        0
    }

    fn is_full(&self) -> bool {
        self.batch.len() >= CHUNK_EVENTS || self.batch.weight() >= CHUNK_WEIGHT
    }

    fn push(&mut self) -> Pushed {
        if self.batch.is_empty() {
            return Pushed::Done;
        }
        let events = self.batch.len() as u64;
        self.way.tap.show(&self.batch);
        match self.destination.deliver(&self.batch) {
            Outcome::Delivered => self.tally.delivered += events,
            Outcome::Taken => {}
            Outcome::Rejected { reason } => {
                tracing::error!(events, reason, "a destination refused events for good");
                self.tally.rejected += events;
            }
            Outcome::Retry { after, reason } => return Pushed::Retry { after, reason },
        }
        self.batch.clear();
        Pushed::Done
    }

    fn commit(&mut self) -> Result<Closing, StateError> {
        let promise = self.destination.commit();
        let state = self.framed(promise.position)?;
        self.position = promise.position;
        Ok(Closing {
            sync: promise.sync,
            state,
            tally: std::mem::take(&mut self.tally),
            barrier: promise.barrier,
        })
    }

    fn committed(&mut self) -> std::io::Result<()> {
        self.destination.committed()
    }

    fn tick(&mut self, now: Instant) -> Tick {
        let due = self.destination.due();
        let changed = due.is_some_and(|due| due <= now);
        Tick {
            again: due.filter(|_| !changed),
            changed,
        }
    }
}
