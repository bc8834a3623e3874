//! How near a durable subscription is to losing records to retention, and when to say so.

use std::{collections::BTreeSet, sync::Arc};

/// An alert comes when this much of what retention allows is used up, and again only after it has
/// fallen below [`CALM`].
const ALERT: f64 = 0.8;
const CALM: f64 = 0.7;

/// What retention allows and what the log holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// First offset held, and the next to be given.
    pub(crate) first: u64,
    pub(crate) next: u64,
    pub(crate) bytes: u64,
    pub(crate) max_bytes: u64,
    /// ns; `None` when age deletes nothing.
    pub(crate) max_age: Option<u64>,
}

impl Held {
    /// Which part of what retention allows lies unread behind a subscription at `position`, whose next
    /// record is `age` ns old: at 1 its records go.
    pub(crate) fn used(&self, position: u64, age: u64) -> f64 {
        let records = self.next.saturating_sub(self.first).max(1);
        let unread = self.next.saturating_sub(position.max(self.first));
        let share = unread as f64 / records as f64;
        let by_bytes = share * self.bytes as f64 / self.max_bytes.max(1) as f64;
        let by_age = self
            .max_age
            .map_or(0.0, |most| age as f64 / most.max(1) as f64);
        by_bytes.max(by_age)
    }
}

/// Which subscriptions have been spoken of.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    raised: BTreeSet<Arc<str>>,
}

impl Alarm {
    /// Takes how much each of the furthest behind has used up; gives those to speak of now.
    pub(crate) fn due(&mut self, used: &[(Arc<str>, f64)]) -> Vec<(Arc<str>, f64)> {
        self.raised.retain(|client| {
            used.iter()
                .any(|(other, used)| other == client && *used >= CALM)
        });
        let mut due = Vec::new();
        for (client, used) in used {
            if *used >= ALERT && self.raised.insert(client.clone()) {
                due.push((client.clone(), *used));
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_the_nearer_of_size_and_age() {
        let held = Held {
            first: 100,
            next: 200,
            bytes: 900,
            max_bytes: 1_000,
            max_age: Some(1_000),
        };
        assert_eq!(held.used(100, 0), 0.9);
        assert_eq!(held.used(150, 0), 0.45);
        assert_eq!(held.used(150, 800), 0.8);
        assert_eq!(held.used(200, 0), 0.0);
        assert_eq!(held.used(0, 0), 0.9, "what is cut is counted elsewhere");
    }

    #[test]
    fn an_alert_comes_once_until_things_are_calm_again() {
        let mut alarm = Alarm::default();
        let at = |used: f64| vec![(Arc::from("reader"), used)];
        assert!(alarm.due(&at(0.79)).is_empty());
        assert_eq!(alarm.due(&at(0.8)), at(0.8));
        assert!(alarm.due(&at(0.95)).is_empty());
        assert!(alarm.due(&at(0.75)).is_empty());
        assert!(alarm.due(&at(0.9)).is_empty(), "it was never calm");
        assert!(alarm.due(&at(0.1)).is_empty());
        assert_eq!(alarm.due(&at(0.8)), at(0.8));
    }
}
