//! How many events a source may bring: the generic cell rate algorithm (ITU-T I.371), which is a
//! token bucket that needs to remember a single time. Pure: the time is an argument.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::agent::units::Rate;

/// Sources that get a bucket of their own; further ones share one.
const MAX_BUCKETS: usize = 1024;

/// The buckets of one way in: each source of events that comes over it has its own.
#[derive(Debug)]
pub(super) struct Limiter {
    /// The time one event pays for.
    interval: Duration,
    /// How far ahead of the steady pace a burst may run.
    tolerance: Duration,
    buckets: HashMap<Arc<str>, Instant>,
    shared: Option<Instant>,
}

impl Limiter {
    /// `burst` events may come at once, at least one.
    pub(super) fn new(rate: Rate, burst: u32) -> Limiter {
        let interval = rate.per / rate.events.max(1);
        Limiter {
            interval,
            tolerance: interval.saturating_mul(burst.max(1) - 1),
            buckets: HashMap::new(),
            shared: None,
        }
    }

    /// How long events may gather beyond the steady pace without anything being lost by it.
    pub(super) fn slack(&self) -> Duration {
        self.tolerance
    }

    /// Takes an event of `source` at `now`; else says how long until the next one may come.
    pub(super) fn take(&mut self, source: &Arc<str>, now: Instant) -> Result<(), Duration> {
        let bucket = self.bucket(source, now);
        let due = (*bucket).max(now);
        let early = due.saturating_duration_since(now);
        if early > self.tolerance {
            return Err(early - self.tolerance);
        }
        let next = due + self.interval;
        *self.bucket(source, now) = next;
        Ok(())
    }

    /// When the next event of a source is due at the steady pace.
    fn bucket(&mut self, source: &Arc<str>, now: Instant) -> &mut Instant {
        if !self.buckets.contains_key(source) && self.buckets.len() >= MAX_BUCKETS {
            // A bucket that is full again says nothing that a new one would not.
            self.buckets.retain(|_, due| *due > now);
            if self.buckets.len() >= MAX_BUCKETS {
                return self.shared.get_or_insert(now);
            }
        }
        self.buckets.entry(source.clone()).or_insert(now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limiter(events: u32, burst: u32) -> Limiter {
        Limiter::new(
            Rate {
                events,
                per: SECOND,
            },
            burst,
        )
    }

    #[test]
    fn a_burst_passes_and_then_the_steady_pace_holds() {
        let mut limiter = limiter(10, 5);
        let source: Arc<str> = "app".into();
        let start = Instant::now();
        let passed = (0..100).filter(|_| limiter.take(&source, start).is_ok());
        assert_eq!(passed.count(), 5);
        assert_eq!(limiter.take(&source, start), Err(SECOND / 10));
        let later = start + SECOND;
        let passed = (0..100).filter(|_| limiter.take(&source, later).is_ok());
        assert_eq!(
            passed.count(),
            5,
            "what was not used beyond the burst is gone"
        );
    }

    #[test]
    fn waiting_as_long_as_told_is_enough() {
        let mut limiter = limiter(7, 1);
        let source: Arc<str> = "app".into();
        let mut now = Instant::now();
        for _ in 0..50 {
            if let Err(wait) = limiter.take(&source, now) {
                now += wait;
                assert_eq!(limiter.take(&source, now), Ok(()));
            }
        }
    }

    #[test]
    fn a_noisy_source_costs_the_others_nothing() {
        let mut limiter = limiter(1, 1);
        let now = Instant::now();
        let noisy: Arc<str> = "noisy".into();
        for _ in 0..1000 {
            let _ = limiter.take(&noisy, now);
        }
        assert_eq!(limiter.take(&"quiet".into(), now), Ok(()));
    }

    #[test]
    fn sources_without_end_do_not_take_memory_without_end() {
        let mut limiter = limiter(1, 1);
        let now = Instant::now();
        for n in 0..MAX_BUCKETS + 10 {
            let _ = limiter.take(&format!("source-{n}").into(), now);
        }
        assert_eq!(limiter.buckets.len(), MAX_BUCKETS);
        assert!(limiter.take(&"one more".into(), now).is_err());
        // All of them have their burst again, so that their places are free.
        assert_eq!(limiter.take(&"one more".into(), now + 2 * SECOND), Ok(()));
        assert_eq!(limiter.buckets.len(), 1);
    }

    proptest! {
        #[test]
        fn no_more_pass_than_rate_and_burst_allow(
            events in 1u32..1000,
            burst in 1u32..100,
            steps in proptest::collection::vec(0u64..50_000, 1..200),
        ) {
            let mut limiter = limiter(events, burst);
            let source: Arc<str> = "app".into();
            let start = Instant::now();
            let (mut now, mut passed) = (start, 0u32);
            for step in steps {
                now += Duration::from_micros(step);
                passed += u32::from(limiter.take(&source, now).is_ok());
            }
            let elapsed = (now - start).as_secs_f64();
            prop_assert!(f64::from(passed) <= f64::from(burst) + elapsed * f64::from(events) + 1.0);
        }
    }
}
