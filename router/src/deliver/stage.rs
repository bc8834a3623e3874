//! What a worker thread does with deliveries; for a destination: judge, batch, deliver, remember.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::batch::{Batch, weight};
use super::commit::Write;
use super::judge::{Judge, Judged};
use super::tap::Tap;
use super::{Destination, Outcome, Position, Sync};
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

impl Tick {
    /// Of what wants a commit at `due`.
    pub(super) fn of(due: Option<Instant>, now: Instant) -> Tick {
        let changed = due.is_some_and(|due| due <= now);
        Tick {
            again: due.filter(|_| !changed),
            changed,
        }
    }
}

/// A stage of any kind.
impl Stage for Box<dyn Stage> {
    fn take(&mut self, delivery: &Delivery, now: u64) -> usize {
        (**self).take(delivery, now)
    }

    fn is_full(&self) -> bool {
        (**self).is_full()
    }

    fn push(&mut self) -> Pushed {
        (**self).push()
    }

    fn commit(&mut self) -> Result<Closing, StateError> {
        (**self).commit()
    }

    fn committed(&mut self) -> std::io::Result<()> {
        (**self).committed()
    }

    fn tick(&mut self, now: Instant) -> Tick {
        (**self).tick(now)
    }
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
    ledger: Ledger,
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
            ledger: Ledger::new(growth),
        }
    }
}

/// What stands between commits: where the data ended last time, how the state log grows, what became of
/// events since.
pub(super) struct Ledger {
    position: Option<Position>,
    growth: Growth,
    pub(super) tally: Tally,
}

impl Ledger {
    pub(super) fn new(growth: Growth) -> Ledger {
        Ledger {
            position: None,
            growth,
            tally: Tally::default(),
        }
    }

    /// Closes the books on what `destination` has and `table` knows.
    pub(super) fn close(
        &mut self,
        destination: &mut impl Destination,
        table: &mut Table,
    ) -> Result<Closing, StateError> {
        let promise = destination.commit();
        let position = promise.position;
        let marks = table.take_marks();
        let mut changes = Vec::new();
        if !marks.is_empty() || position != self.position {
            state::frame(&Record { position, marks }, &mut changes)?;
        }
        self.position = position;
        Ok(Closing {
            sync: promise.sync,
            state: Write::of(changes, &mut self.growth, || snapshot(table, position))?,
            tally: std::mem::take(&mut self.tally),
            barrier: promise.barrier,
        })
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
        let Some((names, judged)) = self.judge.take(delivery, now, &self.books) else {
            return 0;
        };
        let judged = self.way.routed(names, judged);
        self.ledger.tally.duplicate += judged.duplicate;
        self.ledger.tally.filtered += judged.filtered;
        let Some(keep) = judged.keep else {
            return 0;
        };
        let weight = weight(&judged.decoded);
        self.batch.push(judged.decoded, keep, weight);
        weight
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
            Outcome::Delivered => self.ledger.tally.delivered += events,
            Outcome::Taken => {}
            Outcome::Rejected { reason } => {
                tracing::error!(events, reason, "a destination refused events for good");
                self.ledger.tally.rejected += events;
            }
            Outcome::Retry { after, reason } => return Pushed::Retry { after, reason },
        }
        self.batch.clear();
        Pushed::Done
    }

    fn commit(&mut self) -> Result<Closing, StateError> {
        let Deliver {
            judge, destination, ..
        } = self;
        self.ledger.close(destination, &mut judge.table)
    }

    fn committed(&mut self) -> std::io::Result<()> {
        self.destination.committed()
    }

    fn tick(&mut self, now: Instant) -> Tick {
        Tick::of(self.destination.due(), now)
    }
}
