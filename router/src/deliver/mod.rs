//! From publishes to destinations.
//!
//! One destination is one consumer and one thread. The thread takes deliveries from its inbox, has
//! them decoded, judged (duplicates, levels) and handed to the destination in chunks ([`stage`],
//! [`judge`]), and commits: the destination's data is made durable, then the state that says so, then
//! the broker gets its acknowledgements ([`worker`], [`commit`], paced by [`pace`]). The committing
//! happens on a second thread, so that the next chunk is decoded meanwhile. When anything breaks, the
//! destination starts over from its last commit, on the same way that leads back from a crash
//! ([`supervise`]).
//!
//! Destinations that deliver by requests over a network share one core, [`remote`].

#[cfg(feature = "object-store")]
pub(crate) mod archive;
pub(crate) mod batch;
pub(crate) mod commit;
pub(crate) mod judge;
pub(crate) mod pace;
pub(crate) mod remote;
pub(crate) mod share;
pub(crate) mod stage;
pub(crate) mod supervise;
pub(crate) mod tap;
pub(crate) mod worker;

use std::io;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use batch::Batch;

/// A place that takes events.
///
/// Calls come from one thread. `deliver` may keep a batch in memory; `commit` promises to make
/// everything delivered before it durable, and only then the broker is told.
pub(crate) trait Destination: Send + 'static {
    /// Takes a batch of levelled, deduplicated events.
    fn deliver(&mut self, batch: &Batch) -> Outcome;

    /// Says how what was delivered so far becomes durable.
    fn commit(&mut self) -> Promise;

    /// Called when a promise with a barrier is kept, before anything else is delivered.
    fn committed(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// When it wants to be asked for a commit although nothing more is delivered, if ever.
    fn due(&self) -> Option<Instant> {
        None
    }
}

/// What a destination says of a batch. One retrier serves all destinations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has the events.
    Delivered,
    /// It has them in hand; what became of them is told when the promise is kept.
    Taken,
    /// Not now; the same batch is offered again, not before `after` if it asks so.
    Retry {
        after: Option<Duration>,
        reason: String,
    },
    /// Never.
    Rejected { reason: String },
}

/// Makes data durable; runs on the committing thread. Gives what became of events that were taken in
/// hand.
pub(crate) type Sync = Box<dyn FnOnce() -> io::Result<Settlement> + Send>;

/// A promise of a destination that holds nothing in hand.
pub(crate) fn syncing(sync: impl FnOnce() -> io::Result<()> + Send + 'static) -> Sync {
    Box::new(move || sync().map(|()| Settlement::default()))
}

/// What became of events that a destination had taken in hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settlement {
    pub(crate) delivered: u64,
    /// The other side had them before.
    pub(crate) duplicate: u64,
    /// Refused for good.
    pub(crate) rejected: u64,
}

impl Settlement {
    pub(crate) fn add(&mut self, other: Settlement) {
        self.delivered += other.delivered;
        self.duplicate += other.duplicate;
        self.rejected += other.rejected;
    }
}

/// How a destination's data becomes durable.
#[derive(Default)]
pub(crate) struct Promise {
    /// What to run first, if anything.
    pub(crate) sync: Option<Sync>,
    /// What to remember: where the data ends.
    pub(crate) position: Option<Position>,
    /// Wait until it is kept before delivering more.
    pub(crate) barrier: bool,
}

/// The end of a destination's data in files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Which file, counted from 0 by rotation.
    pub(crate) number: u64,
    /// Bytes of it that count.
    pub(crate) length: u64,
}
