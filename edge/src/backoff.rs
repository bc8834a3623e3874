//! How long to wait before the next try: doubling from a base to a cap with full jitter, so that a
//! fleet that lost its broker does not come back all at once. Pure: randomness is an argument.

use std::time::Duration;

/// The state of one thing that is retried.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits up to `base` after the first failure, and never more than `cap`.
    pub(crate) fn new(base: Duration, cap: Duration) -> Backoff {
        Backoff {
            base,
            cap: cap.max(base),
            failures: 0,
        }
    }

    /// The wait after one more failure: a share of the current limit given by `random`, evenly
    /// spread over all of `u64`.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let limit = self
            .base
            .saturating_mul(2u32.saturating_pow(self.failures))
            .min(self.cap);
        self.failures = self.failures.saturating_add(1);
        limit.mul_f64(random as f64 / u64::MAX as f64)
    }

    /// It worked: the next failure starts from the base again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_limit_doubles_to_the_cap_and_starts_over_after_success() {
        let mut backoff = Backoff::new(SECOND, 300 * SECOND);
        let waits: Vec<u64> = (0..11).map(|_| backoff.next(u64::MAX).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        backoff.reset();
        assert_eq!(backoff.next(u64::MAX), SECOND);
    }

    #[test]
    fn jitter_spreads_over_the_whole_range() {
        let mut backoff = Backoff::new(SECOND, 300 * SECOND);
        assert_eq!(backoff.next(0), Duration::ZERO);
        let half = backoff.next(u64::MAX / 2);
        assert!(half > Duration::from_millis(990) && half < Duration::from_millis(1010));
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let mut backoff = Backoff::new(SECOND, 300 * SECOND);
        for _ in 0..1000 {
            assert!(backoff.next(u64::MAX) <= 300 * SECOND);
        }
    }
}
