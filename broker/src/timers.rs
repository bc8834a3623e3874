//! When something is due, one time a key. Pure: time is an argument, ns.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

/// Times by key, and in order.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    times: HashMap<K, u64>,
    order: BTreeSet<(u64, K)>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Timers {
            times: HashMap::new(),
            order: BTreeSet::new(),
        }
    }
}

impl<K: Copy + Eq + Hash + Ord> Timers<K> {
    /// Sets the time of a key, or none, in place of the one it had.
    pub(crate) fn set(&mut self, key: K, time: Option<u64>) {
        let before = match time {
            Some(time) => self.times.insert(key, time),
            None => self.times.remove(&key),
        };
        if before == time {
            return;
        }
        if let Some(before) = before {
            self.order.remove(&(before, key));
        }
        if let Some(time) = time {
            self.order.insert((time, key));
        }
    }

    /// Takes a key whose time has come.
    pub(crate) fn next_due(&mut self, now: u64) -> Option<K> {
        let (time, key) = *self.order.first()?;
        if time > now {
            return None;
        }
        self.set(key, None);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_in_the_order_of_their_times_and_once() {
        let mut timers = Timers::default();
        for (key, time) in [(1, 30), (2, 10), (3, 20), (1, 5), (3, 40)] {
            timers.set(key, Some(time));
        }
        timers.set(2, None);
        timers.set(9, None);
        assert_eq!(timers.next_due(4), None);
        assert_eq!(timers.next_due(100), Some(1));
        assert_eq!(timers.next_due(100), Some(3));
        assert_eq!(timers.next_due(100), None);
        assert!(timers.times.is_empty() && timers.order.is_empty());
    }
}
