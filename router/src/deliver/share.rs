//! Decoded batches, shared by the destinations of a process: whoever comes first decodes, the
//! others wait for it instead of doing it again.
//!
//! Keyed by the broker's journal and offset, so it works behind the bundled broker only. An entry goes
//! when every reader has had it, or, when readers are far apart, in the order of insertion once the
//! byte limit is reached.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;
use thinglog_schemas::payload::{Decoded, PayloadError};

use super::batch::weight;

/// Journal and offset.
pub(crate) type Place = (u64, u64);

/// Longest wait for another reader's decoding; then one decodes by oneself.
const PATIENCE: Duration = Duration::from_millis(200);

/// The cache.
#[derive(Debug)]
pub(crate) struct DecodeCache {
    state: Mutex<State>,
    decoded: Condvar,
    /// Readers that will ask for each payload.
    readers: u32,
    limit: usize,
    hits: IntCounter,
    misses: IntCounter,
}

#[derive(Debug, Default)]
struct State {
    slots: HashMap<Place, Slot>,
    /// Insertion order; may name places that are gone.
    order: VecDeque<Place>,
    bytes: usize,
}

#[derive(Debug)]
enum Slot {
    Decoding,
    Done {
        decoded: Arc<Decoded>,
        weight: usize,
        /// Readers that have not asked yet.
        left: u32,
        since: Instant,
    },
}

impl DecodeCache {
    pub(crate) fn new(readers: u32, limit: usize, hits: IntCounter, misses: IntCounter) -> Self {
        DecodeCache {
            state: Mutex::default(),
            decoded: Condvar::new(),
            readers,
            limit,
            hits,
            misses,
        }
    }

    /// The decoded payload at `place`, by `decode` if nobody has it.
    pub(crate) fn get(
        &self,
        place: Place,
        decode: impl FnOnce() -> Result<Decoded, PayloadError>,
    ) -> Result<Arc<Decoded>, PayloadError> {
        if self.readers < 2 {
            return decode().map(Arc::new);
        }
        if let Some(decoded) = self.find_or_claim(place) {
            self.hits.inc();
            return Ok(decoded);
        }
        self.misses.inc();
        let claim = Claim { cache: self, place };
        let decoded = Arc::new(decode()?);
        claim.fulfil(&decoded);
        Ok(decoded)
    }

    fn find_or_claim(&self, place: Place) -> Option<Arc<Decoded>> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock();
        loop {
            match state.slots.get_mut(&place) {
                None => {
                    state.slots.insert(place, Slot::Decoding);
                    return None;
                }
                Some(Slot::Done { decoded, left, .. }) => {
                    let decoded = Arc::clone(decoded);
                    *left = left.saturating_sub(1);
                    if *left == 0 {
                        state.remove(place);
                    }
                    return Some(decoded);
                }
                Some(Slot::Decoding) => {
                    if self.decoded.wait_until(&mut state, deadline).timed_out() {
                        return None;
                    }
                }
            }
        }
    }

    fn store(&self, place: Place, decoded: &Arc<Decoded>) {
        let weight = weight(decoded);
        let mut state = self.state.lock();
        state.remove(place);
        if weight <= self.limit {
            while state.bytes + weight > self.limit {
                match state.order.pop_front() {
                    Some(oldest) => state.remove_done(oldest),
                    None => break,
                }
            }
            let slot = Slot::Done {
                decoded: Arc::clone(decoded),
                weight,
                left: self.readers - 1,
                since: Instant::now(),
            };
            state.slots.insert(place, slot);
            state.order.push_back(place);
            state.bytes += weight;
            state.tidy();
        }
        drop(state);
        self.decoded.notify_all();
    }

    /// Forgets what some reader has not asked for in this time: it is far behind, or had it before.
    pub(crate) fn forget_older_than(&self, age: Duration) {
        let mut state = self.state.lock();
        while let Some(&oldest) = state.order.front() {
            match state.slots.get(&oldest) {
                Some(Slot::Done { since, .. }) if since.elapsed() < age => break,
                _ => state.remove_done(oldest),
            }
            state.order.pop_front();
        }
        if state.slots.is_empty() {
            state.slots.shrink_to(0);
            state.order.shrink_to(0);
        }
    }

    fn abandon(&self, place: Place) {
        let mut state = self.state.lock();
        if matches!(state.slots.get(&place), Some(Slot::Decoding)) {
            state.slots.remove(&place);
        }
        drop(state);
        self.decoded.notify_all();
    }
}

impl State {
    fn remove(&mut self, place: Place) {
        if let Some(Slot::Done { weight, .. }) = self.slots.remove(&place) {
            self.bytes -= weight;
        }
    }

    fn remove_done(&mut self, place: Place) {
        if matches!(self.slots.get(&place), Some(Slot::Done { .. })) {
            self.remove(place);
        }
    }

    /// Drops names of entries that every reader has had.
    fn tidy(&mut self) {
        while let Some(front) = self.order.front() {
            if self.slots.contains_key(front) {
                break;
            }
            self.order.pop_front();
        }
        if self.order.len() > 2 * self.slots.len() + 1024 {
            let slots = &self.slots;
            self.order.retain(|place| slots.contains_key(place));
        }
    }
}

/// The promise to decode a place; given back when decoding fails or panics.
struct Claim<'a> {
    cache: &'a DecodeCache,
    place: Place,
}

impl Claim<'_> {
    fn fulfil(self, decoded: &Arc<Decoded>) {
        self.cache.store(self.place, decoded);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.cache.abandon(self.place);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use thinglog_schemas::{Event, EventId, Severity};

    use super::*;

    fn cache(readers: u32, limit: usize) -> DecodeCache {
        let counter = |name| IntCounter::new(name, "test").unwrap();
        DecodeCache::new(readers, limit, counter("hits"), counter("misses"))
    }

    fn decoded(message: &str) -> Decoded {
        let event = Event {
            device: Arc::from("lamp-7"),
            source: Arc::from("app"),
            id: EventId::None,
            time: 0,
            time_estimated: false,
            severity: Severity::INFO,
            message: message.into(),
            truncated: false,
            attributes: thinglog_schemas::Attributes::new(),
            received: 0,
        };
        Decoded {
            events: vec![event],
            lane: None,
        }
    }

    #[test]
    fn every_reader_gets_the_same_payload_decoded_once() {
        let cache = cache(3, 1 << 20);
        let count = AtomicU32::new(0);
        for _ in 0..3 {
            let found = cache.get((1, 1), || {
                count.fetch_add(1, Ordering::Relaxed);
                Ok(decoded("hello"))
            });
            assert_eq!(found.unwrap().events[0].message, "hello");
        }
        assert_eq!(count.into_inner(), 1);
        assert!(cache.state.lock().slots.is_empty(), "all readers had it");
    }

    #[test]
    fn a_failure_is_not_kept() {
        let cache = cache(2, 1 << 20);
        let failed = cache.get((1, 1), || Err(PayloadError::TooLarge(9)));
        assert_eq!(failed, Err(PayloadError::TooLarge(9)));
        assert!(cache.get((1, 1), || Ok(decoded("now"))).is_ok());
    }

    #[test]
    fn the_oldest_make_room_within_the_limit() {
        let cache = cache(2, 2000);
        for offset in 0..100 {
            cache.get((1, offset), || Ok(decoded("hello"))).unwrap();
            assert!(cache.state.lock().bytes <= 2000);
        }
        let state = cache.state.lock();
        assert!(state.slots.contains_key(&(1, 99)));
        assert!(!state.slots.contains_key(&(1, 0)));
        assert!(state.order.len() < 2000);
    }

    #[test]
    fn a_second_reader_waits_for_the_first() {
        let cache = Arc::new(cache(2, 1 << 20));
        let other = Arc::clone(&cache);
        let (claimed, wait) = std::sync::mpsc::sync_channel(1);
        let (go_on, release) = std::sync::mpsc::sync_channel::<()>(1);
        let first = std::thread::spawn(move || {
            other.get((1, 1), || {
                claimed.send(()).unwrap();
                release.recv().unwrap();
                Ok(decoded("first"))
            })
        });
        wait.recv().unwrap();
        go_on.send(()).unwrap();
        let second = cache.get((1, 1), || Ok(decoded("second"))).unwrap();
        assert_eq!(second.events[0].message, "first");
        assert!(first.join().unwrap().is_ok());
    }
}
