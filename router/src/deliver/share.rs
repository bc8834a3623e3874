//! Decoded batches, shared by the destinations of a process: whoever comes first decodes, the
//! others wait for it instead of doing it again.
//!
//! Keyed by the broker's journal and offset, so it works behind the bundled broker only. An entry goes
//! when every reader has had it, or, when readers are far apart, in the order of insertion once the
//! byte limit is reached. So that they are not far apart without need, a reader that is in no hurry
//! takes a seat behind: it lets the others decode for a moment before it does so itself.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;
use thinglog_schemas::payload::{Decoded, PayloadError};

use super::batch::weight;

/// Journal and offset.
pub(crate) type Place = (u64, u64);

/// Longest wait for another reader's decoding; then one decodes by oneself.
const PATIENCE: Duration = Duration::from_millis(200);
/// Longest wait of a reader behind for another one to begin.
const LET_OTHERS: Duration = Duration::from_millis(20);
/// How long a reader behind waits for nobody after it has waited in vain.
const SULK: Duration = Duration::from_secs(1);

/// How a reader takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    /// Reads every payload, as soon as it can.
    Front,
    /// Reads every payload, preferably after others have decoded it.
    Behind,
    /// Reads now and then; nothing is kept for it.
    Guest,
}

/// One reader's place at the cache.
#[derive(Debug)]
pub(crate) struct Shared {
    cache: Arc<DecodeCache>,
    seat: Seat,
    /// Until when it waits for nobody.
    sulks_until: Option<Instant>,
}

/// The cache.
#[derive(Debug)]
pub(crate) struct DecodeCache {
    state: Mutex<State>,
    decoded: Condvar,
    /// Readers that will ask for each payload: those in front and behind.
    readers: AtomicU32,
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
    /// The place stored last: whoever is behind it waits for nobody.
    newest: Option<Place>,
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
            readers: AtomicU32::new(readers),
            limit,
            hits,
            misses,
        }
    }

    /// From now on this many readers will ask for each payload. What the others leave goes with time.
    pub(crate) fn read_by(&self, readers: usize) {
        let readers = u32::try_from(readers).unwrap_or(u32::MAX);
        self.readers.store(readers, Ordering::Relaxed);
    }

    fn store(&self, place: Place, decoded: &Arc<Decoded>, left: u32) {
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
                left,
                since: Instant::now(),
            };
            state.slots.insert(place, slot);
            state.order.push_back(place);
            state.bytes += weight;
            state.tidy();
        }
        state.newest = Some(place);
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

impl Shared {
    pub(crate) fn new(cache: Arc<DecodeCache>, seat: Seat) -> Shared {
        Shared {
            cache,
            seat,
            sulks_until: None,
        }
    }

    /// The decoded payload at `place`, by `decode` if nobody has it.
    pub(crate) fn get(
        &mut self,
        place: Place,
        decode: impl FnOnce() -> Result<Decoded, PayloadError>,
    ) -> Result<Arc<Decoded>, PayloadError> {
        let readers = self.cache.readers.load(Ordering::Relaxed);
        if readers < 2 {
            return decode().map(Arc::new);
        }
        if let Some(decoded) = self.find_or_claim(place) {
            self.cache.hits.inc();
            return Ok(decoded);
        }
        self.cache.misses.inc();
        let claim = Claim {
            cache: &self.cache,
            place,
        };
        let decoded = Arc::new(decode()?);
        let myself = u32::from(self.seat != Seat::Guest);
        claim.fulfil(&decoded, readers.saturating_sub(myself));
        Ok(decoded)
    }

    /// The payload if somebody has it or is about to; else the caller has claimed it.
    fn find_or_claim(&mut self, place: Place) -> Option<Arc<Decoded>> {
        let begun = Instant::now();
        let mut state = self.cache.state.lock();
        loop {
            let patience = match state.slots.get(&place) {
                Some(Slot::Done { .. }) => return state.take(place, self.seat),
                Some(Slot::Decoding) => PATIENCE,
                None if self.lets_others(&state, place, begun) => LET_OTHERS,
                None => {
                    state.slots.insert(place, Slot::Decoding);
                    return None;
                }
            };
            let waited = self.cache.decoded.wait_until(&mut state, begun + patience);
            if waited.timed_out() && patience == LET_OTHERS {
                self.sulks_until = Some(begun + SULK);
            } else if waited.timed_out() {
                return None;
            }
        }
    }

    fn lets_others(&self, state: &State, place: Place, now: Instant) -> bool {
        let passed = |(journal, offset)| journal == place.0 && offset >= place.1;
        self.seat == Seat::Behind
            && !state.newest.is_some_and(passed)
            && self.sulks_until.is_none_or(|until| until <= now)
    }
}

impl State {
    fn take(&mut self, place: Place, seat: Seat) -> Option<Arc<Decoded>> {
        let Some(Slot::Done { decoded, left, .. }) = self.slots.get_mut(&place) else {
            return None;
        };
        let decoded = Arc::clone(decoded);
        if seat != Seat::Guest {
            *left = left.saturating_sub(1);
        }
        if *left == 0 {
            self.remove(place);
        }
        Some(decoded)
    }

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
    fn fulfil(self, decoded: &Arc<Decoded>, left: u32) {
        self.cache.store(self.place, decoded, left);
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

    use super::*;
    use crate::testing::decoded;

    fn cache(readers: u32, limit: usize) -> Arc<DecodeCache> {
        let counter = |name| IntCounter::new(name, "test").unwrap();
        let (hits, misses) = (counter("hits"), counter("misses"));
        Arc::new(DecodeCache::new(readers, limit, hits, misses))
    }

    fn front(cache: &Arc<DecodeCache>) -> Shared {
        Shared::new(Arc::clone(cache), Seat::Front)
    }

    #[test]
    fn every_reader_gets_the_same_payload_decoded_once() {
        let cache = cache(3, 1 << 20);
        let count = AtomicU32::new(0);
        for _ in 0..3 {
            let found = front(&cache).get((1, 1), || {
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
        let failed = front(&cache).get((1, 1), || Err(PayloadError::TooLarge(9)));
        assert_eq!(failed, Err(PayloadError::TooLarge(9)));
        assert!(front(&cache).get((1, 1), || Ok(decoded("now"))).is_ok());
    }

    #[test]
    fn the_oldest_make_room_within_the_limit() {
        let cache = cache(2, 2000);
        for offset in 0..100 {
            front(&cache)
                .get((1, offset), || Ok(decoded("hello")))
                .unwrap();
            assert!(cache.state.lock().bytes <= 2000);
        }
        let state = cache.state.lock();
        assert!(state.slots.contains_key(&(1, 99)));
        assert!(!state.slots.contains_key(&(1, 0)));
        assert!(state.order.len() < 2000);
    }

    #[test]
    fn a_second_reader_waits_for_the_first() {
        let cache = cache(2, 1 << 20);
        let mut other = front(&cache);
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
        let second = front(&cache).get((1, 1), || Ok(decoded("second"))).unwrap();
        assert_eq!(second.events[0].message, "first");
        assert!(first.join().unwrap().is_ok());
    }

    #[test]
    fn a_reader_behind_lets_others_decode_but_not_for_ever() {
        let cache = cache(2, 1 << 20);
        let mut behind = Shared::new(Arc::clone(&cache), Seat::Behind);
        let own = behind.get((1, 1), || Ok(decoded("own"))).unwrap();
        assert_eq!(own.events[0].message, "own");
        assert!(behind.sulks_until.is_some(), "it waited in vain");
        behind.sulks_until = None;
        front(&cache).get((1, 5), || Ok(decoded("front"))).unwrap();
        behind.get((1, 4), || Ok(decoded("own"))).unwrap();
        assert!(
            behind.sulks_until.is_none(),
            "the others have passed: no wait"
        );
        let shared = behind.get((1, 5), || Ok(decoded("own"))).unwrap();
        assert_eq!(shared.events[0].message, "front");
    }

    #[test]
    fn a_guest_takes_nothing_away() {
        let cache = cache(2, 1 << 20);
        let mut guest = Shared::new(Arc::clone(&cache), Seat::Guest);
        guest.get((1, 1), || Ok(decoded("guest"))).unwrap();
        for _ in 0..2 {
            let found = front(&cache).get((1, 1), || Ok(decoded("front"))).unwrap();
            assert_eq!(found.events[0].message, "guest");
        }
        assert!(cache.state.lock().slots.is_empty());
    }
}
