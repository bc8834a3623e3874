//! The core of every destination that delivers by requests. Whoever adds one writes an [`Encoder`]
//! (pure: events to bodies) and a [`Sink`] (sends a body, says what became of it), and nothing else;
//! `destinations/README.md` tells how.
//!
//! ```text
//! worker thread    chunk -> room in memory? -> ticket -> queue
//! sender thread    queue -> encode -> gather (count, bytes, age) -> send, retry, split -> settle
//! commit thread    every ticket up to here settled? -> dead letters synced -> state -> PUBACK
//! ```
//!
//! The broker's journal is the only buffer. A chunk is a few thousand events at most; it gets a ticket
//! ([`ledger`]), and is settled when each of its events was accepted, was there before, or stands in
//! the dead letters. A commit stands for the tickets handed out so far: it waits for them, syncs the
//! dead letters, and only then the broker is told. So a SIGKILL at any moment costs nothing: what was
//! not committed comes again, under the same ids.
//!
//! **Requests.** The encoder turns each event into a piece of bytes and tells what it costs in the
//! service's own count; a request is closed before a piece would make it too large, when it has all
//! the events it may have, or when its oldest event has waited long enough ([`form`]). A piece that
//! fits no request at all is a dead letter. Events of different keys (a tenant, a stream, a URL) never
//! share a request.
//!
//! **Order.** Where a sink promises order per device, a device belongs to one lane, a lane has one
//! request under way, and what is tried again goes before what is new. Elsewhere requests take any free
//! place.
//!
//! **Verdicts.** A sink says of a request: accepted; try again (perhaps not before); refused; refused
//! because of something in it; or for each item its own. What to do follows from that alone
//! ([`verdict`]): items to be tried again stay a request, a request refused for something in it is
//! halved until the culprit is alone, refused events become dead letters ([`letters`]) and the rest
//! goes on. Waiting times are everywhere the same: exponential, full jitter, never before the other
//! side asks; and a `Retry-After` holds for all lanes.
//!
//! **Memory.** `memory_bytes` covers the decoded events in hand and four requests a lane: one being
//! gathered, one waiting, one under way as pieces and as body. The worker stops taking when the events
//! have used up their share; it takes up again when tickets are settled.
//!
//! **The end.** When the router stops, or the destination is reconfigured, what is gathered goes at
//! once, and what is under way has five seconds; what has not been settled then comes again from the
//! broker. A destination that is down therefore never holds up the end.

pub(crate) mod carry;
pub(crate) mod form;
pub(crate) mod ledger;
pub(crate) mod letters;
pub(crate) mod look;
pub(crate) mod replay;
pub(crate) mod request;
pub(crate) mod sender;
pub(crate) mod verdict;

use std::borrow::Cow;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use thinglog_schemas::Event;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::{Destination, Outcome, Promise, Settlement};
use crate::config::Delivery;
use crate::health::Part;
use crate::telemetry::{Books, RemoteMetrics};
use ledger::Ledger;
use letters::Letters;
use request::{Item, Request};
use verdict::Verdict;

/// Turns events into bodies. Pure: the same events always give the same bytes.
pub(crate) trait Encoder: Send + 'static {
    /// What a request of this service may be at most. Configuration only lowers it.
    fn limits(&self) -> Limits;

    /// Whether a device's events arrive in their order.
    fn order(&self) -> Order {
        Order::PerDevice
    }

    /// Events of different keys never share a request. Must follow from the event alone; where order
    /// is promised, one device may have several keys, and order then holds within each.
    fn key<'a>(&self, _event: &'a Event) -> Cow<'a, str> {
        Cow::Borrowed("")
    }

    /// Appends the event's piece to `out`; gives what it adds to the request's size in the service's
    /// own count, separators included. What is said must be enough: a body is never larger than
    /// [`Limits::overhead`] and the sum of its pieces' costs.
    fn encode(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<usize, Unfit>;

    /// Puts the pieces of one request together.
    fn body(&mut self, request: &Request, out: &mut Vec<u8>);
}

/// Sends bodies. Its futures run on the destination's own thread.
pub(crate) trait Sink: Send + Sync + 'static {
    /// What makes its bodies.
    type Encoder: Encoder;

    /// Sends one request, once; says what became of it. Cancelled when the router stops.
    fn send(&self, request: &Request, body: Vec<u8>) -> impl Future<Output = Verdict>;
}

/// What a request may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Events.
    pub(crate) events: usize,
    /// Bytes, in the service's own count and before compression.
    pub(crate) bytes: usize,
    /// Bytes of an empty request.
    pub(crate) overhead: usize,
    /// Cost of one event.
    pub(crate) event_bytes: usize,
    /// Nanoseconds between the oldest and the newest event.
    pub(crate) span_ns: u64,
    /// How long an event waits for others.
    pub(crate) age: Duration,
}

impl Limits {
    /// For services that say nothing: 1,000 events, 1 MiB, a second.
    pub(crate) const USUAL: Limits = Limits {
        events: 1000,
        bytes: 1 << 20,
        overhead: 0,
        event_bytes: usize::MAX,
        span_ns: u64::MAX,
        age: Duration::from_secs(1),
    };

    /// With what the operator wants, within what the service allows.
    fn lowered(self, delivery: &Delivery) -> Limits {
        let batch = &delivery.batch;
        Limits {
            events: batch.max_events.unwrap_or(self.events).min(self.events),
            bytes: batch.max_bytes.unwrap_or(self.bytes).min(self.bytes),
            age: batch.max_age_ms.map_or(self.age, Duration::from_millis),
            ..self
        }
    }
}

/// What a destination promises about order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Events of a device arrive in their order.
    PerDevice,
    /// Any order; the service sorts by itself.
    Any,
}

/// Why an event cannot be part of any request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unfit(pub(crate) String);

/// Events with their ticket, on their way to the sender.
pub(super) struct Chunk {
    items: Vec<Item>,
}

/// What a remote destination is made from, its encoder and sink apart.
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) delivery: Delivery,
    pub(crate) letters: Arc<Letters>,
    pub(crate) books: Books,
    pub(crate) metrics: RemoteMetrics,
    pub(crate) health: Part,
    /// Cancelled when the destination has to come to an end.
    pub(crate) ending: CancellationToken,
}

/// Chunks that may wait for the sender; the room in memory ends before.
const QUEUE: usize = 64;
/// Requests of a lane that memory is set aside for.
const REQUESTS_A_LANE: usize = 4;
/// Memory for decoded events: some chunks and the largest payload.
const EVENTS: usize = 16 << 20;

/// A destination that delivers by requests.
pub(crate) struct Remote {
    ledger: Arc<Ledger>,
    letters: Arc<Letters>,
    queue: Option<mpsc::Sender<Chunk>>,
    thread: Option<JoinHandle<()>>,
    /// Bytes of decoded events.
    room: usize,
}

impl Remote {
    /// Starts the sender's thread.
    pub(crate) fn start<S: Sink>(
        encoder: S::Encoder,
        sink: S,
        plan: Plan,
    ) -> std::io::Result<Remote> {
        let limits = encoder.limits().lowered(&plan.delivery);
        let room = room(limits, &plan.delivery)?;
        let ledger = Arc::new(Ledger::default());
        let letters = Arc::clone(&plan.letters);
        let (queue, chunks) = mpsc::channel(QUEUE);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let sender = Arc::clone(&ledger);
        let thread = std::thread::Builder::new()
            .name(format!("send {}", plan.name))
            .spawn(move || {
                let guard = ledger::FailOnDrop(Arc::clone(&sender));
                let local = tokio::task::LocalSet::new();
                let sending = sender::run(encoder, sink, limits, plan, sender, chunks);
                local.block_on(&runtime, sending);
                drop(guard);
            })?;
        Ok(Remote {
            ledger,
            letters,
            queue: Some(queue),
            thread: Some(thread),
            room,
        })
    }
}

/// Whether the memory that is configured is enough for requests of these limits.
pub(crate) fn check_memory(limits: Limits, delivery: &Delivery) -> std::io::Result<()> {
    room(limits.lowered(delivery), delivery).map(drop)
}

/// Memory for decoded events, once requests have theirs.
fn room(limits: Limits, delivery: &Delivery) -> std::io::Result<usize> {
    // One more for the body that is being made.
    let requests = (delivery.concurrency * REQUESTS_A_LANE + 1) * limits.bytes;
    let memory = delivery.memory_bytes.unwrap_or(requests + EVENTS);
    memory
        .checked_sub(requests)
        .filter(|room| *room >= EVENTS / 2)
        .ok_or_else(|| {
            std::io::Error::other(format!(
                "memory_bytes = {memory} is too little for {} lanes with requests of {} bytes: at \
                 least {} are needed, or a lower concurrency or batch.max_bytes",
                delivery.concurrency,
                limits.bytes,
                requests + EVENTS / 2,
            ))
        })
}

impl Destination for Remote {
    fn deliver(&mut self, batch: &Batch) -> Outcome {
        let events = batch.len();
        let received = batch
            .events()
            .map(|event| event.received)
            .min()
            .unwrap_or(0);
        let ticket = self
            .ledger
            .take(events, batch.weight(), received, self.room);
        let items = batch.items().map(|(decoded, index)| Item {
            decoded,
            index,
            ticket,
        });
        let chunk = Chunk {
            items: items.collect(),
        };
        // A sender that is gone has failed the ledger: the next commit tells.
        if let Some(queue) = &self.queue {
            let _ = queue.blocking_send(chunk);
        }
        Outcome::Taken
    }

    fn commit(&mut self) -> Promise {
        let through = self.ledger.taken();
        let (ledger, letters) = (Arc::clone(&self.ledger), Arc::clone(&self.letters));
        let sync = move || {
            let settlement: Settlement = ledger.wait(through)?;
            letters.sync()?;
            Ok(settlement)
        };
        Promise {
            sync: Some(Box::new(sync)),
            position: None,
            barrier: false,
        }
    }
}

/// The sender ends with the destination: nobody may open the dead letters again while it writes.
impl Drop for Remote {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
