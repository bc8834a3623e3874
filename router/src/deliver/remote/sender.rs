//! The sender's thread: encodes what the worker hands over, gathers it into requests, sends them.
//!
//! One task decides; each request under way is a task of its own on the same thread, with all its
//! attempts ([`super::carry`]).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thinglog_schemas::hash;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::carry::{Carrier, carry};
use super::form::{Form, Offered};
use super::ledger::{Fate, Ledger};
use super::replay::Replay;
use super::request::{Item, Request};
use super::{Chunk, Encoder, Limits, Order, Plan, Sink};
use crate::clock;

/// How long what is under way may take when the destination comes to its end.
const DRAIN: Duration = Duration::from_secs(5);
const ENDED: &str = "not everything was delivered when the destination came to its end";
/// Between looks for orders and at the lag.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs until the worker is gone, or the end has come and nothing is left to send.
pub(super) async fn run<S: Sink>(
    encoder: S::Encoder,
    sink: S,
    limits: Limits,
    plan: Plan,
    ledger: Arc<Ledger>,
    mut chunks: mpsc::Receiver<Chunk>,
) {
    let ending = plan.ending.clone();
    let mut sender = Sender::new(encoder, sink, limits, plan, Arc::clone(&ledger));
    let reason = sender.work(&mut chunks, &ending).await;
    sender.flying.abort_all();
    ledger.fail(reason);
}

struct Sender<S: Sink> {
    encoder: Rc<RefCell<S::Encoder>>,
    carrier: Rc<Carrier<S>>,
    ledger: Arc<Ledger>,
    lanes: Vec<Lane>,
    order: Order,
    /// Requests of one lane that may be under way.
    places: usize,
    /// Events that are to be encoded next.
    items: VecDeque<Item>,
    /// Requests under way; each gives the lane it is of.
    flying: JoinSet<usize>,
    look_at: Instant,
    is_ending: bool,
}

/// Where requests follow each other.
struct Lane {
    form: Form,
    /// Closed, not yet under way.
    ready: Option<Request>,
    flying: usize,
}

impl<S: Sink> Sender<S> {
    fn new(
        encoder: S::Encoder,
        sink: S,
        limits: Limits,
        plan: Plan,
        ledger: Arc<Ledger>,
    ) -> Sender<S> {
        let order = encoder.order();
        let concurrency = plan.delivery.concurrency;
        let (lanes, places) = match order {
            Order::PerDevice => (concurrency, 1),
            Order::Any => (1, concurrency),
        };
        let lane = |_| Lane {
            form: Form::new(limits),
            ready: None,
            flying: 0,
        };
        let encoder = Rc::new(RefCell::new(encoder));
        let replay = Replay::new(Arc::clone(&plan.letters));
        let carrier = Carrier {
            sink,
            encoder: Rc::clone(&encoder),
            limits,
            retry: plan.delivery.retry.clone(),
            ledger: Arc::clone(&ledger),
            letters: plan.letters,
            books: plan.books,
            metrics: plan.metrics,
            health: plan.health,
            ending: plan.ending,
            replay: RefCell::new(replay),
            pause: Cell::new(Instant::now()),
        };
        Sender {
            encoder,
            carrier: Rc::new(carrier),
            ledger,
            lanes: (0..lanes).map(lane).collect(),
            order,
            places,
            items: VecDeque::new(),
            flying: JoinSet::new(),
            look_at: Instant::now(),
            is_ending: false,
        }
    }

    /// Gives why it ended.
    async fn work(
        &mut self,
        chunks: &mut mpsc::Receiver<Chunk>,
        ending: &CancellationToken,
    ) -> String {
        let mut deadline = None;
        loop {
            self.advance();
            let until = self.wake_at(deadline);
            tokio::select! {
                biased;
                () = ending.cancelled(), if !self.is_ending => {
                    self.is_ending = true;
                    self.ledger.end();
                    deadline = Some(Instant::now() + DRAIN);
                }
                Some(done) = self.flying.join_next(), if !self.flying.is_empty() => {
                    let lane = match done {
                        Ok(lane) => lane,
                        Err(error) => return format!("a request ended unexpectedly: {error}"),
                    };
                    self.lanes[lane].flying -= 1;
                    if self.carrier.replay.borrow().is_under_way() {
                        self.look_at = Instant::now();
                    }
                }
                chunk = chunks.recv(), if self.items.is_empty() => match chunk {
                    Some(chunk) => self.items.extend(chunk.items),
                    // Nobody is left to commit anything.
                    None => return ENDED.into(),
                },
                () = tokio::time::sleep_until(until.into()) => {}
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return ENDED.into();
            }
            if let Some(reason) = self.ledger.failure() {
                return reason;
            }
        }
    }

    /// Everything that can be done without waiting.
    fn advance(&mut self) {
        let now = Instant::now();
        if self.look_at <= now {
            self.look_at = now + LOOK_EVERY;
            self.look();
        }
        loop {
            let mut moved = self.fill(now);
            for lane in 0..self.lanes.len() {
                moved |= self.launch(lane, now);
            }
            if !moved {
                return;
            }
        }
    }

    /// Takes up letters that somebody wants sent again, and shows how far behind this is.
    fn look(&mut self) {
        let lag = self.ledger.oldest().map_or(0, |oldest| {
            clock::now_ns().saturating_sub(oldest) / 1_000_000
        });
        self.carrier
            .books
            .lag_ms
            .set(i64::try_from(lag).unwrap_or(i64::MAX));
        let used = i64::try_from(self.ledger.used()).unwrap_or(i64::MAX);
        self.carrier.metrics.memory.set(used);
        if self.is_ending || !self.items.is_empty() {
            return;
        }
        match self.carrier.replay.borrow_mut().next() {
            Ok(items) => {
                self.carrier.books.take(0, items.len() as u64);
                self.items.extend(items);
            }
            Err(error) => tracing::error!("dead letters cannot be taken up again: {error}"),
        }
    }

    /// Encodes events until there are none, or one's lane has a request waiting.
    fn fill(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some(item) = self.items.front() {
            let at = lane_of(item, self.order, self.lanes.len());
            let lane = &mut self.lanes[at];
            if lane.ready.is_some() {
                break;
            }
            let Some(item) = self.items.pop_front() else {
                break;
            };
            moved = true;
            match lane.form.offer(&mut *self.encoder.borrow_mut(), item, now) {
                Offered::Taken(closed) => lane.ready = closed,
                Offered::Unfit(item, unfit) => {
                    let carrier = Rc::clone(&self.carrier);
                    lane.flying += 1;
                    self.flying.spawn_local(async move {
                        carrier.refuse(vec![(item, unfit.0)]).await;
                        at
                    });
                }
            }
        }
        moved
    }

    /// Sends a lane's next request if one is due and may go.
    fn launch(&mut self, at: usize, now: Instant) -> bool {
        let lane = &mut self.lanes[at];
        if lane.flying >= self.places {
            return false;
        }
        let request = lane.ready.take().or_else(|| match self.is_ending {
            true => lane.form.any(),
            false => lane.form.due(now),
        });
        let Some(request) = request else {
            return false;
        };
        lane.flying += 1;
        let carrier = Rc::clone(&self.carrier);
        self.flying.spawn_local(async move {
            carry(&carrier, request).await;
            at
        });
        true
    }

    /// When something is due although nothing happens.
    fn wake_at(&self, deadline: Option<Instant>) -> Instant {
        let free = self.lanes.iter().filter(|lane| lane.flying < self.places);
        let due = free.filter_map(|lane| lane.form.next_due());
        due.chain(deadline)
            .chain([self.look_at])
            .min()
            .unwrap_or(self.look_at)
    }
}

/// The lane of an event: always the same for a device where order is promised.
fn lane_of(item: &Item, order: Order, lanes: usize) -> usize {
    match order {
        Order::Any => 0,
        Order::PerDevice => (hash::fnv1a(item.event().device.as_bytes()) % lanes as u64) as usize,
    }
}

/// What became of events, told to whoever has to know.
impl<S: Sink> Carrier<S> {
    pub(super) fn settle(&self, items: impl IntoIterator<Item = Item>, fate: Fate) {
        let (mut tickets, mut replayed) = (Vec::new(), Vec::new());
        for item in items {
            match item.ticket >= super::replay::TICKETS {
                true => replayed.push(item.ticket),
                false => tickets.push(item.ticket),
            }
        }
        for ticket in &replayed {
            self.replay.borrow_mut().settle(*ticket, fate);
        }
        self.books.settle_generated(replayed.len() as u64, fate);
        self.ledger.settle(tickets, fate);
    }
}
