//! How often something may happen. Pure: time is an argument, ns on any clock.

/// So many times a second, and some more at once after a rest. (The generic cell rate algorithm: a meter
/// holds one time, and a rate is what it may be ahead of the clock.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// ns between two at a steady pace.
    interval: u64,
    /// ns that a meter may be ahead.
    burst: u64,
}

impl Rate {
    /// `per_second`, and as many at once as make up `burst_seconds`; `None` for 0, which is no limit.
    pub(crate) fn new(per_second: u32, burst_seconds: u32) -> Option<Rate> {
        (per_second > 0).then(|| Rate {
            interval: 1_000_000_000 / u64::from(per_second),
            burst: u64::from(burst_seconds) * 1_000_000_000,
        })
    }
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meter {
    /// When everything that happened is paid for.
    paid_at: u64,
}

impl Meter {
    /// Lets it happen if it may.
    pub(crate) fn take(&mut self, rate: Rate, now: u64) -> bool {
        let may = self.paid_at.saturating_sub(now) < rate.burst;
        if may {
            self.spend(rate, now);
        }
        may
    }

    /// It happened, whether it may or not: gives when the next may, if that is not now.
    pub(crate) fn spend(&mut self, rate: Rate, now: u64) -> Option<u64> {
        self.paid_at = self.paid_at.max(now).saturating_add(rate.interval);
        let next = self.paid_at.saturating_sub(rate.burst);
        (next > now).then_some(next)
    }

    /// Nothing that happened matters any more.
    pub(crate) fn is_at_rest(&self, now: u64) -> bool {
        self.paid_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_is_let_through_and_then_the_steady_pace() {
        let rate = Rate::new(10, 2).unwrap();
        let mut meter = Meter::default();
        let taken = |meter: &mut Meter, now| (0..100).filter(|_| meter.take(rate, now)).count();
        assert_eq!(taken(&mut meter, 5 * SECOND), 20);
        assert_eq!(taken(&mut meter, 6 * SECOND), 10);
        assert!(!meter.is_at_rest(6 * SECOND));
        assert!(meter.is_at_rest(8 * SECOND));
        assert_eq!(taken(&mut meter, 60 * SECOND), 20, "rest earns no more");
    }

    #[test]
    fn what_happened_too_often_tells_when_to_go_on() {
        let rate = Rate::new(10, 1).unwrap();
        let mut meter = Meter::default();
        for _ in 0..10 {
            assert_eq!(meter.spend(rate, SECOND), None);
        }
        assert_eq!(meter.spend(rate, SECOND), Some(SECOND + SECOND / 10));
        assert_eq!(Rate::new(0, 1), None);
    }
}
