//! How many connections an address may have, and how often it may try. Pure: time is an argument, ns on
//! any clock.

use std::{collections::HashMap, net::IpAddr};

use crate::{
    config::Limits,
    peer::network,
    rate::{Meter, Rate},
};

/// Attempts of so many seconds may come at once: a fleet behind one address comes back together.
const BURST_SECONDS: u32 = 10;
/// Addresses without a connection that are remembered for their rate.
const REMEMBERED: usize = 65_536;

/// Connections by address.
#[derive(Debug)]
pub(super) struct Guests {
    most: usize,
    rate: Option<Rate>,
    exempt: Vec<IpAddr>,
    addresses: HashMap<IpAddr, Guest>,
    /// The table is looked through when it has grown to this.
    look_at: usize,
}

#[derive(Debug, Default)]
struct Guest {
    connections: usize,
    attempts: Meter,
}

impl Guests {
    pub(super) fn new(limits: &Limits) -> Guests {
        Guests {
            most: match limits.connections_per_address {
                0 => usize::MAX,
                most => most,
            },
            rate: Rate::new(limits.connects_per_second, BURST_SECONDS),
            exempt: limits.exempt_addresses.clone(),
            addresses: HashMap::new(),
            look_at: REMEMBERED,
        }
    }

    /// Counts a connection; the reason if it may not be. One that may has to `leave`.
    pub(super) fn enter(&mut self, address: IpAddr, now: u64) -> Result<(), &'static str> {
        if self.is_exempt(address) {
            return Ok(());
        }
        self.forget_some(now);
        let guest = self.addresses.entry(network(address)).or_default();
        if self
            .rate
            .is_some_and(|rate| !guest.attempts.take(rate, now))
        {
            return Err("too many connection attempts of one address");
        }
        if guest.connections >= self.most {
            return Err("too many connections of one address");
        }
        guest.connections += 1;
        Ok(())
    }

    pub(super) fn leave(&mut self, address: IpAddr) {
        if self.is_exempt(address) {
            return;
        }
        if let Some(guest) = self.addresses.get_mut(&network(address)) {
            guest.connections = guest.connections.saturating_sub(1);
        }
    }

    fn is_exempt(&self, address: IpAddr) -> bool {
        self.exempt.contains(&address.to_canonical())
    }

    /// Forgets who is gone, once in a while; if that does not help, how often they came too.
    fn forget_some(&mut self, now: u64) {
        if self.addresses.len() < self.look_at {
            return;
        }
        self.addresses
            .retain(|_, guest| guest.connections > 0 || !guest.attempts.is_at_rest(now));
        let connected = self
            .addresses
            .values()
            .filter(|guest| guest.connections > 0);
        let connected = connected.count();
        if self.addresses.len() - connected >= REMEMBERED {
            self.addresses.retain(|_, guest| guest.connections > 0);
        }
        self.look_at = 2 * self.addresses.len().max(REMEMBERED / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn guests(connections: usize, rate: u32) -> Guests {
        Guests::new(&Limits {
            connections_per_address: connections,
            connects_per_second: rate,
            ..Limits::default()
        })
    }

    fn address(n: u32) -> IpAddr {
        IpAddr::from((0x0A00_0000 + n).to_be_bytes())
    }

    #[test]
    fn an_address_has_so_many_connections_at_once() {
        let mut guests = guests(2, 0);
        assert_eq!(guests.enter(address(1), 0), Ok(()));
        assert_eq!(guests.enter(address(1), 0), Ok(()));
        let refused = guests.enter(address(1), 0).unwrap_err();
        assert_eq!(refused, "too many connections of one address");
        assert_eq!(guests.enter(address(2), 0), Ok(()), "another address");
        guests.leave(address(1));
        assert_eq!(guests.enter(address(1), 0), Ok(()));
    }

    #[test]
    fn an_address_comes_only_so_often() {
        let mut guests = guests(0, 5);
        let mut came = |now| {
            let taken = (0..1_000).filter(|_| {
                let entered = guests.enter(address(1), now).is_ok();
                guests.leave(address(1));
                entered
            });
            taken.count()
        };
        assert_eq!(came(0), 50);
        assert_eq!(came(SECOND), 5);
    }

    #[test]
    fn exempt_addresses_are_not_counted() {
        let mut guests = guests(1, 1);
        for _ in 0..1_000 {
            assert_eq!(guests.enter([127, 0, 0, 1].into(), 0), Ok(()));
        }
        assert!(guests.addresses.is_empty());
    }

    #[test]
    fn the_table_is_bounded_and_keeps_who_is_connected() {
        let mut guests = guests(1, 1);
        guests.enter(address(0), 0).unwrap();
        for n in 1..5 * REMEMBERED as u32 {
            guests.enter(address(n), 0).unwrap();
            guests.leave(address(n));
            assert!(guests.addresses.len() <= 2 * REMEMBERED);
        }
        assert!(guests.enter(address(0), 600 * SECOND).is_err());
    }
}
