//! A look at what a destination is being sent. Whoever looks gets events as far as it keeps up, and how
//! many it missed; the destination never waits for it.
//!
//! What is handed on are shares of the events themselves, so that a look costs the destination next to
//! nothing. A watcher has at most [`CHUNKS`] portions waiting of at most [`PORTION`] events each, and
//! of a larger chunk every second event, every third, and so on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use thinglog_schemas::Event;
use thinglog_schemas::payload::Decoded;
use tokio::sync::mpsc;

use super::batch::Batch;

/// Watchers of one destination at once.
const WATCHERS: usize = 4;
/// Portions that wait for a watcher.
const CHUNKS: usize = 4;
/// Events of a portion.
const PORTION: usize = 512;

/// Where watchers of one destination come.
#[derive(Debug, Default)]
pub(crate) struct Tap {
    /// How many there are: the only thing a destination asks when there are none.
    count: AtomicUsize,
    watchers: Mutex<Vec<Sender>>,
}

#[derive(Debug)]
struct Sender {
    portions: mpsc::Sender<Portion>,
    missed: Arc<AtomicU64>,
}

/// Some of the events of a chunk.
#[derive(Debug)]
pub(crate) struct Portion(Vec<(Arc<Decoded>, u32)>);

impl Portion {
    /// The events.
    pub(crate) fn events(&self) -> impl Iterator<Item = &Event> {
        self.0
            .iter()
            .filter_map(|(decoded, index)| decoded.events.get(*index as usize))
    }
}

/// Somebody who looks, until it is dropped.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) portions: mpsc::Receiver<Portion>,
    missed: Arc<AtomicU64>,
}

impl Watcher {
    /// Events that were not shown since it was asked last.
    pub(crate) fn missed(&self) -> u64 {
        self.missed.swap(0, Ordering::Relaxed)
    }
}

impl Tap {
    /// Begins to look; `None` if too many do.
    pub(crate) fn watch(&self) -> Option<Watcher> {
        let mut watchers = self.watchers.lock();
        watchers.retain(|watcher| !watcher.portions.is_closed());
        let watcher = (watchers.len() < WATCHERS).then(|| {
            let (sender, portions) = mpsc::channel(CHUNKS);
            let missed = Arc::default();
            watchers.push(Sender {
                portions: sender,
                missed: Arc::clone(&missed),
            });
            Watcher { portions, missed }
        });
        self.count.store(watchers.len(), Ordering::Release);
        watcher
    }

    /// Shows what is being delivered to whoever looks.
    pub(crate) fn show(&self, batch: &Batch) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut watchers = self.watchers.lock();
        watchers.retain(|watcher| !watcher.portions.is_closed());
        self.count.store(watchers.len(), Ordering::Release);
        let events = batch.len();
        let every = events.div_ceil(PORTION).max(1);
        for watcher in &*watchers {
            let missed = match watcher.portions.try_reserve() {
                Ok(place) => {
                    let shown: Vec<_> = batch.items().step_by(every).collect();
                    let missed = events - shown.len();
                    place.send(Portion(shown));
                    missed
                }
                Err(_) => events,
            };
            watcher.missed.fetch_add(missed as u64, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::batch::Keep;
    use crate::testing::decoded;

    fn batch(events: usize) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..events {
            batch.push(Arc::new(decoded("x")), Keep::All, 0);
        }
        batch
    }

    #[test]
    fn who_looks_sees_what_it_keeps_up_with_and_hears_what_it_missed() {
        let tap = Tap::default();
        tap.show(&batch(1));
        let mut watcher = tap.watch().unwrap();
        let mut sent = 0;
        for _ in 0..CHUNKS + 3 {
            tap.show(&batch(PORTION + 1));
            sent += PORTION as u64 + 1;
        }
        let mut seen = 0;
        while let Ok(portion) = watcher.portions.try_recv() {
            assert!(portion.events().count() <= PORTION);
            seen += portion.events().count() as u64;
        }
        assert!(seen > 0);
        assert_eq!(seen + watcher.missed(), sent);
        assert_eq!(watcher.missed(), 0);
    }

    #[test]
    fn a_look_that_has_ended_costs_nothing_and_makes_room() {
        let tap = Tap::default();
        let watchers: Vec<_> = (0..WATCHERS).map(|_| tap.watch().unwrap()).collect();
        assert!(tap.watch().is_none());
        drop(watchers);
        assert!(tap.watch().is_some());
        tap.show(&batch(1));
        assert_eq!(tap.count.load(Ordering::Relaxed), 0);
    }
}
