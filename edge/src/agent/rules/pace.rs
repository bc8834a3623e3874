//! How fast a way in may be: its own rate, or the device's where that is less. Pure: the device's rate
//! and the time are arguments, for operators change the one while events come.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{OverRate, RuleOptions, Verdict, rate::Limiter};
use crate::agent::units::Rate;

/// A burst, unless configured: what comes in so many seconds at the steady pace.
const BURST_SECONDS: u64 = 10;

#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The rate and the burst that are configured for this way in.
    own: Option<(Rate, u32)>,
    over_rate: OverRate,
    in_force: Mutex<Option<InForce>>,
}

#[derive(Debug)]
struct InForce {
    /// The device's rate when this was made.
    device: Option<Rate>,
    limiter: Limiter,
}

impl Pace {
    pub(super) fn new(options: &RuleOptions) -> Pace {
        let own = options.rate;
        Pace {
            own: own.map(|rate| (rate, options.burst.unwrap_or_else(|| usual_burst(rate)))),
            over_rate: options.over_rate,
            in_force: Mutex::new(None),
        }
    }

    /// An event of `source`. `patient`: it can wait.
    pub(super) fn take(
        &self,
        device: Option<Rate>,
        source: &Arc<str>,
        patient: bool,
        now: impl FnOnce() -> Instant,
    ) -> Verdict {
        let taken = self.limited(device, |limiter| limiter.take(source, now()));
        match taken {
            None | Some(Ok(())) => Verdict::Pass,
            Some(Err(wait)) if patient && self.over_rate == OverRate::Wait => Verdict::Wait(wait),
            Some(Err(_)) => Verdict::Limited,
        }
    }

    /// How long who waits for the rate may wait on, so that several may come at once.
    pub(super) fn slack(&self, device: Option<Rate>) -> Option<Duration> {
        let waits = self.over_rate == OverRate::Wait;
        self.limited(device, |limiter| limiter.slack())
            .filter(|_| waits)
    }

    /// `None` where no rate holds. Another rate of the device begins with a full burst.
    fn limited<T>(&self, device: Option<Rate>, act: impl FnOnce(&mut Limiter) -> T) -> Option<T> {
        let (rate, burst) = match (self.own, device) {
            (None, None) => return None,
            (Some(own), None) => own,
            (None, Some(rate)) => (rate, usual_burst(rate)),
            (Some((own, burst)), Some(rate)) if own.least(rate) == own => (own, burst),
            (Some((_, burst)), Some(rate)) => (rate, burst.min(usual_burst(rate))),
        };
        let mut in_force = self.in_force.lock();
        let in_force = match &mut *in_force {
            Some(same) if same.device == device => same,
            other => other.insert(InForce {
                device,
                limiter: Limiter::new(rate, burst),
            }),
        };
        Some(act(&mut in_force.limiter))
    }
}

fn usual_burst(rate: Rate) -> u32 {
    let usual = u64::from(rate.events) * BURST_SECONDS / rate.per.as_secs().max(1);
    u32::try_from(usual).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(rate: Option<&str>) -> Pace {
        Pace::new(&RuleOptions {
            rate: rate.map(|rate| rate.parse().unwrap()),
            ..RuleOptions::default()
        })
    }

    /// How many of many pass at one moment.
    fn at_once(pace: &Pace, device: Option<&str>) -> usize {
        let (now, device) = (Instant::now(), device.map(|rate| rate.parse().unwrap()));
        let take = || pace.take(device, &"app".into(), false, || now);
        (0..1000).filter(|_| take() == Verdict::Pass).count()
    }

    #[test]
    fn the_lesser_of_both_rates_holds() {
        assert_eq!(at_once(&pace(None), None), 1000);
        assert_eq!(at_once(&pace(None), Some("2/s")), 20);
        assert_eq!(at_once(&pace(Some("2/s")), None), 20);
        assert_eq!(at_once(&pace(Some("2/s")), Some("5/s")), 20);
        assert_eq!(at_once(&pace(Some("5/s")), Some("2/s")), 20);
    }

    #[test]
    fn another_rate_of_the_device_holds_at_once() {
        let pace = pace(None);
        assert_eq!(at_once(&pace, Some("1/h")), 1);
        assert_eq!(at_once(&pace, Some("1/h")), 0);
        assert_eq!(at_once(&pace, Some("3/s")), 30);
        assert_eq!(at_once(&pace, None), 1000);
        let device = "1/s".parse().ok();
        assert_eq!(pace.slack(None), None);
        assert_eq!(pace.slack(device), Some(Duration::from_secs(9)));
    }
}
