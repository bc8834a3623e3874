//! Slows down addresses that keep failing to log in. Pure: time is an argument, ns on any clock.
//!
//! The first failures of an address are free. From then on its dear attempts (a password to verify,
//! a refusal to hear) take turns: one after the other, with a pause between them that grows with
//! every failure. Who would have to wait too long is sent away. Logins that succeed at no cost, by
//! token or by a password verified before, never wait, so that one bad device holds up no other
//! behind the same address. Clients that give no name guess nobody's password: they are counted apart
//! and hold up only each other.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use crate::peer::network;

/// Failures that have no consequence.
const FREE: u32 = 10;
/// The pause after the first failure that has one; it doubles with every further one.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);
/// Who would have to wait longer is sent away at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// One failure is forgiven after so long without one.
const FORGIVEN: Duration = Duration::from_secs(10);
/// Addresses remembered.
const MAX_ADDRESSES: usize = 4_096;

/// Whether a client says who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Named {
    Yes,
    No,
}

/// Failures by address.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    addresses: HashMap<(IpAddr, Named), Failures>,
}

#[derive(Debug, Default)]
struct Failures {
    count: u32,
    last: u64,
    /// When the next attempt may be made.
    free_at: u64,
}

impl Throttle {
    /// How long an attempt from `address` has to wait; `None` sends it away.
    pub(crate) fn attempt(&mut self, address: IpAddr, named: Named, now: u64) -> Option<Duration> {
        let Some(failures) = self.addresses.get_mut(&(network(address), named)) else {
            return Some(Duration::ZERO);
        };
        failures.forgive(now);
        let Some(beyond) = failures.count.checked_sub(FREE) else {
            return Some(Duration::ZERO);
        };
        let at = failures.free_at.max(now);
        let wait = Duration::from_nanos(at - now);
        if wait > PATIENCE {
            return None;
        }
        let pause = FIRST.saturating_mul(1 << beyond.min(16)).min(LONGEST);
        failures.free_at = at + pause.as_nanos() as u64;
        Some(wait)
    }

    /// An attempt from `address` failed.
    pub(crate) fn failed(&mut self, address: IpAddr, named: Named, now: u64) {
        let key = (network(address), named);
        if self.addresses.len() >= MAX_ADDRESSES && !self.addresses.contains_key(&key) {
            self.make_room(now);
        }
        let failures = self.addresses.entry(key).or_default();
        failures.forgive(now);
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
    }

    /// Forgets the addresses that matter least: what is forgiven, else the half that failed longest ago.
    fn make_room(&mut self, now: u64) {
        self.addresses.retain(|_, failures| {
            failures.forgive(now);
            failures.count > 0
        });
        if self.addresses.len() >= MAX_ADDRESSES {
            let mut times: Vec<u64> = self.addresses.values().map(|f| f.last).collect();
            let middle = times.len() / 2;
            let (_, median, _) = times.select_nth_unstable(middle);
            let median = *median;
            self.addresses.retain(|_, failures| failures.last > median);
        }
    }
}

impl Failures {
    fn forgive(&mut self, now: u64) {
        let periods = now.saturating_sub(self.last) / FORGIVEN.as_nanos() as u64;
        if periods > 0 {
            self.count = self.count.min(2 * FREE);
            self.count = self
                .count
                .saturating_sub(u32::try_from(periods).unwrap_or(u32::MAX));
            self.last += periods * FORGIVEN.as_nanos() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn address(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn failures_slow_down_their_address_and_no_other() {
        let mut throttle = Throttle::default();
        for _ in 0..FREE {
            assert_eq!(
                throttle.attempt(address(1), Named::Yes, 0),
                Some(Duration::ZERO)
            );
            throttle.failed(address(1), Named::Yes, 0);
        }
        assert_eq!(
            throttle.attempt(address(1), Named::Yes, 0),
            Some(Duration::ZERO)
        );
        assert_eq!(throttle.attempt(address(1), Named::Yes, 0), Some(FIRST));
        throttle.failed(address(1), Named::Yes, 0);
        assert_eq!(throttle.attempt(address(1), Named::Yes, 0), Some(FIRST * 2));
        assert_eq!(
            throttle.attempt(address(2), Named::Yes, 0),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn a_flood_of_attempts_is_sent_away_and_can_try_later() {
        let mut throttle = Throttle::default();
        (0..100).for_each(|_| throttle.failed(address(1), Named::Yes, 0));
        let taken = (0..100).filter(|_| throttle.attempt(address(1), Named::Yes, 0).is_some());
        assert_eq!(taken.count(), 3, "5 s of waiting at 2 s each");
        assert!(
            throttle
                .attempt(address(1), Named::Yes, 2 * SECOND)
                .is_some()
        );
    }

    #[test]
    fn who_gives_no_name_holds_up_nobody_who_does() {
        let mut throttle = Throttle::default();
        (0..100).for_each(|_| throttle.failed(address(1), Named::No, 0));
        while throttle.attempt(address(1), Named::No, 0).is_some() {}
        for _ in 0..10 {
            assert_eq!(
                throttle.attempt(address(1), Named::Yes, 0),
                Some(Duration::ZERO)
            );
        }
        (0..100).for_each(|_| throttle.failed(address(2), Named::Yes, 0));
        assert_eq!(
            throttle.attempt(address(2), Named::No, 0),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn failures_are_forgiven() {
        let mut throttle = Throttle::default();
        (0..1_000_000).for_each(|_| throttle.failed(address(1), Named::Yes, 0));
        throttle.attempt(address(1), Named::Yes, 0);
        let later = 200 * SECOND;
        assert_eq!(
            throttle.attempt(address(1), Named::Yes, later),
            Some(Duration::ZERO)
        );
        assert_eq!(
            throttle.attempt(address(1), Named::Yes, later),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let mut throttle = Throttle::default();
        for n in 0..100u16 {
            throttle.failed(
                IpAddr::from([0x2001, 0xdb8, 0, 0, n, n, n, n]),
                Named::Yes,
                0,
            );
        }
        assert_eq!(throttle.addresses.len(), 1);
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(network(mapped), IpAddr::from([192, 0, 2, 1]));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_who_failed_last() {
        let mut throttle = Throttle::default();
        for n in 0..3 * MAX_ADDRESSES as u32 {
            throttle.failed(address(n), Named::Yes, u64::from(n));
            assert!(throttle.addresses.len() <= MAX_ADDRESSES);
        }
        assert!(
            throttle
                .addresses
                .contains_key(&(address(3 * MAX_ADDRESSES as u32 - 1), Named::Yes))
        );
    }

    proptest! {
        #[test]
        fn nobody_waits_longer_than_they_have_patience(
            events in proptest::collection::vec((any::<bool>(), 0u32..3, 0u64..3 * SECOND), 0..300),
        ) {
            let (mut throttle, mut now) = (Throttle::default(), 0);
            for (fails, from, passes) in events {
                now += passes;
                if fails {
                    throttle.failed(address(from), Named::Yes, now);
                } else if let Some(wait) = throttle.attempt(address(from), Named::Yes, now) {
                    prop_assert!(wait <= PATIENCE);
                }
            }
        }
    }
}
