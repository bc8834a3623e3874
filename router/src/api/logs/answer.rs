//! Searches on behalf of requests: who sees what, how long they may take, how many run at once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use thinglog_schemas::json;
use thinglog_schemas::query::Facts;
use thinglog_store::{Counts, DeviceCounts, Fleet, Found, Page, Search, Store};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use super::question::{Counting, place_text};
use super::thread::{self, Seat, Share};
use crate::destinations::store::Shelf;
use crate::levels::Levels;
use crate::registry::{Caller, Code, Refusal, Registry};

/// Searches at once; others wait for their turn.
const AT_ONCE: usize = 3;
/// Longest wait for a turn.
const TURN_WITHIN: Duration = Duration::from_secs(10);
/// Time after which a search ends where it can be gone on with.
const ENOUGH: Duration = Duration::from_secs(5);
/// Bytes of answers from which a request with several searches begins no other.
const MOST_ANSWERED: usize = 8 << 20;
/// Devices of which it is remembered whether they may be seen.
const REMEMBERED: usize = 16_384;

/// What handlers search with.
#[derive(Clone)]
pub(crate) struct Library {
    registry: Registry,
    levels: Arc<Levels>,
    turns: Arc<Semaphore>,
    /// Of the processors.
    share: Share,
    /// Of a request with several searches.
    shared: Option<Arc<Shared>>,
}

/// What the searches of one request share.
#[derive(Default)]
struct Shared {
    /// One at a time: a request has one turn, however often it asks.
    one: Mutex<()>,
    /// When the time of all of them is over.
    until: OnceLock<Instant>,
    /// Bytes of what was answered so far.
    answered: AtomicUsize,
}

/// What one search knows of the fleet.
struct Asking {
    library: Library,
    caller: Caller,
    stopped: Arc<AtomicBool>,
    until: Instant,
    seat: Seat,
    seen: RefCell<HashMap<String, bool>>,
}

/// Stops a search when nobody waits for it any more.
pub(super) struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Fleet for Asking {
    fn facts(&self, device: &str) -> Arc<Facts> {
        Arc::new(self.library.levels.read(|fleet| fleet.facts(device)))
    }

    fn may_see(&self, device: &str) -> bool {
        if self.caller.is_unlimited() {
            return true;
        }
        let mut seen = self.seen.borrow_mut();
        if let Some(may) = seen.get(device) {
            return *may;
        }
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        let may = self
            .library
            .registry
            .read(|view| self.caller.sees_device(&view, device));
        let may = may.unwrap_or(false);
        seen.insert(device.to_owned(), may);
        may
    }

    fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }

    fn is_given_up(&self) -> bool {
        // Between two blocks another search may go first.
        self.seat.pass();
        self.stopped.load(Ordering::Relaxed)
    }
}

fn too_large() -> Refusal {
    let reason = "what this request has found is too large; ask for less at once";
    Refusal::new(Code::LimitExceeded, reason)
}

impl Library {
    pub(crate) fn new(registry: Registry, levels: Arc<Levels>) -> Library {
        Library {
            registry,
            levels,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            share: Share::new(),
            shared: None,
        }
    }

    /// The same for one request with several searches.
    #[cfg(feature = "graphql")]
    pub(super) fn one_after_the_other(&self) -> Library {
        Library {
            shared: Some(Arc::default()),
            ..self.clone()
        }
    }

    /// Notes that so many bytes were found for a request with several searches, and refuses what is far too
    /// much: a page by itself never is.
    #[cfg(feature = "graphql")]
    pub(in crate::api) fn answered(&self, bytes: usize) -> Result<(), Refusal> {
        let Some(shared) = &self.shared else {
            return Ok(());
        };
        let before = shared.answered.fetch_add(bytes, Ordering::Relaxed);
        match before.saturating_add(bytes) > 2 * MOST_ANSWERED {
            true => Err(too_large()),
            false => Ok(()),
        }
    }

    /// The fleet's registry.
    pub(in crate::api) fn registry(&self) -> &Registry {
        &self.registry
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let turn = Arc::clone(&self.turns).acquire_owned();
        match tokio::time::timeout(TURN_WITHIN, turn).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Refusal::new(
                Code::Throttling,
                "too many searches at once; try again in a moment",
            )),
        }
    }

    /// Runs a search off the async threads. It is given up when the future is.
    async fn run<T: Send + 'static>(
        &self,
        caller: &Caller,
        shelf: &Shelf,
        work: impl FnOnce(&Store, &dyn Fleet) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Refusal> {
        caller.may_look()?;
        // Groups decide what is seen: not before they are known.
        self.registry.read(|_| ())?;
        let store = opened(shelf)?;
        let shared = self.shared.as_deref();
        let _one = match shared {
            Some(shared) => Some(shared.one.lock().await),
            None => None,
        };
        if shared.is_some_and(|shared| shared.answered.load(Ordering::Relaxed) > MOST_ANSWERED) {
            return Err(too_large());
        }
        let turn = self.turn().await?;
        let fresh = Instant::now() + ENOUGH;
        let until = shared.map_or(fresh, |shared| *shared.until.get_or_init(|| fresh));
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Stop(Arc::clone(&stopped));
        let asking = Asking {
            library: self.clone(),
            caller: caller.clone(),
            stopped,
            until,
            seat: self.share.seat(),
            seen: RefCell::default(),
        };
        let done = thread::run(move || {
            let _turn = turn;
            work(&store, &asking)
        });
        let done = done.await;
        drop(stop);
        let found = done.and_then(|found| found);
        found.map_err(|error| {
            tracing::error!(%error, "a search failed");
            Refusal::new(Code::ServiceUnavailable, format!("the store: {error}"))
        })
    }

    pub(super) async fn page(
        &self,
        caller: &Caller,
        shelf: &Shelf,
        search: Search,
    ) -> Result<Page, Refusal> {
        self.run(caller, shelf, move |store, fleet| {
            store.search(&search, fleet)
        })
        .await
    }

    pub(super) async fn counts(
        &self,
        caller: &Caller,
        shelf: &Shelf,
        asked: Counting,
    ) -> Result<Counts, Refusal> {
        self.run(caller, shelf, move |store, fleet| {
            store.count(&asked.search, asked.step, asked.most, fleet)
        })
        .await
    }

    pub(super) async fn device_counts(
        &self,
        caller: &Caller,
        shelf: &Shelf,
        asked: Counting,
    ) -> Result<DeviceCounts, Refusal> {
        self.run(caller, shelf, move |store, fleet| {
            store.count_devices(&asked.search, asked.step, asked.most, fleet)
        })
        .await
    }
}

/// The store behind a shelf.
pub(super) fn opened(shelf: &Shelf) -> Result<Store, Refusal> {
    let reason = "the store is not open yet; what is wrong stands in /readyz";
    shelf
        .store()
        .ok_or_else(|| Refusal::new(Code::ServiceUnavailable, reason))
}

/// Appends an event with its place: the form of all other JSON, and one key more.
pub(in crate::api) fn write(found: &Found, out: &mut Vec<u8>) {
    json::write(&found.event, out);
    out.pop();
    out.extend_from_slice(b",\"place\":\"");
    out.extend_from_slice(place_text(found.place).as_bytes());
    out.extend_from_slice(b"\"}");
}
