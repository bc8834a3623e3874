//! The store as a destination: events go into files that can be searched ([`thinglog_store`]).
//!
//! What was committed is remembered as a place in the store's newest file, as with the file destination:
//! after a crash the file is cut there, and what comes again is written once. Whoever searches finds the
//! store through its [`Shelf`], which outlives restarts of the destination.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::RwLock;
use thinglog_schemas::Event;
use thinglog_store::{End, Options, Store, Watch, Writer};
use tokio::sync::watch;

use crate::clock;
use crate::config::StoreConfig;
use crate::deliver::batch::Batch;
use crate::deliver::supervise::OpenError;
use crate::deliver::{Destination, Outcome, Position, Promise, syncing};
use crate::folder::Folder;
use crate::levels::Levels;

/// Where a store is to be found while it is open.
#[derive(Debug)]
pub(crate) struct Shelf {
    store: RwLock<Option<Store>>,
    /// Rows that can be found.
    shown: watch::Sender<u64>,
}

impl Default for Shelf {
    fn default() -> Shelf {
        Shelf {
            store: RwLock::new(None),
            shown: watch::Sender::new(0),
        }
    }
}

impl Shelf {
    /// The store, if it is open.
    pub(crate) fn store(&self) -> Option<Store> {
        self.store.read().clone()
    }

    /// There is no store any more.
    pub(crate) fn clear(&self) {
        *self.store.write() = None;
    }

    /// Tells when more can be found.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shown.subscribe()
    }
}

/// Tells a shelf's followers.
struct Teller(Arc<Shelf>);

impl Watch for Teller {
    fn changed(&self) {
        let shown = self.0.store.read().as_ref().map(Store::shown);
        self.0.shown.send_replace(shown.unwrap_or_default());
    }
}

/// The destination.
pub(crate) struct StoreDestination {
    writer: Writer,
    store: Store,
    promised: Option<End>,
    keeper: Option<JoinHandle<()>>,
    bytes: prometheus::IntCounter,
    /// Of the run before nothing is left when this is taken.
    _lock: Folder,
}

impl StoreDestination {
    pub(crate) fn open(
        folder: &Path,
        config: &StoreConfig,
        committed: Option<Position>,
        levels: Arc<Levels>,
        shelf: &Arc<Shelf>,
        bytes: prometheus::IntCounter,
    ) -> Result<StoreDestination, OpenError> {
        let ages = config.group_age_s.clone();
        let age_of = move |device: &str| {
            if ages.is_empty() {
                return None;
            }
            let groups = levels.read(|fleet| fleet.facts(device)).groups;
            let ages = groups.iter().filter_map(|group| ages.get(group));
            ages.max().map(|age| Duration::from_secs(*age))
        };
        let folder = folder.join("events");
        let lock = Folder::lock(&folder)?;
        let failed = |source| OpenError::Io {
            path: folder.clone(),
            source,
        };
        let options = Options {
            folder: folder.clone(),
            age: Duration::from_secs(config.age_s),
            age_of: Arc::new(age_of),
            events_per_device: config.events_per_device,
            bytes: config.bytes,
            now: clock::now_ns,
        };
        let committed = committed.map(|position| End {
            number: position.number,
            length: position.length,
        });
        let (store, writer) = Store::open(options, committed).map_err(failed)?;
        store.watch(Arc::new(Teller(Arc::clone(shelf))));
        let keeping = store.clone();
        let keeper = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || keeping.keep())
            .map_err(failed)?;
        *shelf.store.write() = Some(store.clone());
        shelf.shown.send_replace(store.shown());
        Ok(StoreDestination {
            writer,
            store,
            promised: None,
            keeper: Some(keeper),
            bytes,
            _lock: lock,
        })
    }
}

impl Drop for StoreDestination {
    fn drop(&mut self) {
        self.store.end();
        if let Some(keeper) = self.keeper.take() {
            // It has told what went wrong.
            let _ = keeper.join();
        }
    }
}

impl Destination for StoreDestination {
    fn deliver(&mut self, batch: &Batch) -> Outcome {
        let events: Vec<&Event> = batch.events().collect();
        let before = self.writer.end();
        match self.writer.append(&events) {
            Ok(()) => {
                self.bytes.inc_by(self.writer.end().length - before.length);
                Outcome::Delivered
            }
            Err(error) => Outcome::Retry {
                after: None,
                reason: error.to_string(),
            },
        }
    }

    fn commit(&mut self) -> Promise {
        let end = self.writer.end();
        let wrote = self.promised.replace(end) != Some(end);
        Promise {
            sync: wrote.then(|| syncing(self.writer.commit())),
            position: Some(Position {
                number: end.number,
                length: end.length,
            }),
            barrier: self.writer.wants_to_roll(),
        }
    }

    fn committed(&mut self) -> io::Result<()> {
        self.writer.roll()
    }
}
