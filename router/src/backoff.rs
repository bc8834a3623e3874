//! Waiting times after failures: exponential with full jitter, the same core for reconnecting to
//! the broker and for retrying a destination. Pure: randomness and attempts are its own state, time
//! is the caller's.

use std::time::Duration;

/// A small generator for jitter; not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    /// Seeded by the system, so that a fleet of routers does not retry in step.
    pub(crate) fn from_system() -> Jitter {
        let mut seed = [0; 8];
        if getrandom::fill(&mut seed).is_err() {
            // Jitter is a courtesy: without system randomness the process id has to do.
            seed = u64::from(std::process::id()).to_ne_bytes();
        }
        Jitter::from_seed(u64::from_ne_bytes(seed))
    }

    pub(crate) fn from_seed(seed: u64) -> Jitter {
        Jitter(seed | 1)
    }

    /// The next number (xorshift64*, Vigna 2016).
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Uniform in `0..=limit`.
    fn up_to(&mut self, limit: Duration) -> Duration {
        let fraction = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        limit.mul_f64(fraction)
    }
}

/// Doubles an upper bound from `base` to `cap` and waits a random part of it.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
    jitter: Jitter,
}

impl Backoff {
    pub(crate) fn new(base: Duration, cap: Duration, jitter: Jitter) -> Backoff {
        Backoff {
            base,
            cap,
            failures: 0,
            jitter,
        }
    }

    /// How long to wait after one more failure. `asked` is what the other side wants (a
    /// `Retry-After`): never less than that, whatever the bound.
    pub(crate) fn failed(&mut self, asked: Option<Duration>) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        let wait = self.jitter.up_to(bound);
        asked.map_or(wait, |asked| asked.saturating_add(wait))
    }

    /// Starts over after a success.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Failures in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    fn bound(&self) -> Duration {
        let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: Duration = Duration::from_millis(100);
    const CAP: Duration = Duration::from_secs(10);

    #[test]
    fn success_starts_over() {
        let mut backoff = Backoff::new(BASE, CAP, Jitter::from_seed(7));
        for _ in 0..40 {
            backoff.failed(None);
        }
        assert_eq!(backoff.bound(), CAP);
        backoff.succeeded();
        assert!(backoff.failed(None) <= BASE);
    }

    proptest! {
        #[test]
        fn a_wait_lies_between_zero_and_the_doubled_bound(seed: u64, failures in 0u32..80) {
            let mut backoff = Backoff::new(BASE, CAP, Jitter::from_seed(seed));
            for n in 0..=failures {
                let bound = BASE.saturating_mul(1u32.checked_shl(n).unwrap_or(u32::MAX)).min(CAP);
                prop_assert!(backoff.failed(None) <= bound);
            }
        }

        #[test]
        fn a_requested_delay_is_honoured(seed: u64, asked_s in 0u64..1000) {
            let asked = Duration::from_secs(asked_s);
            let mut backoff = Backoff::new(BASE, CAP, Jitter::from_seed(seed));
            prop_assert!(backoff.failed(Some(asked)) >= asked);
        }
    }

    #[test]
    fn jitter_spreads_over_the_whole_range() {
        let mut jitter = Jitter::from_seed(42);
        let waits: Vec<Duration> = (0..1000).map(|_| jitter.up_to(CAP)).collect();
        assert!(waits.iter().any(|wait| *wait < CAP / 10));
        assert!(waits.iter().any(|wait| *wait > CAP.mul_f64(0.9)));
    }
}
