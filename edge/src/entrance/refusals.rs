//! Events that are refused before the queue: what they were, counted without waiting for anybody, until who
//! has the queue's lock takes the counts in.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use parking_lot::Mutex;
use thinglog_schemas::Severity;

/// Threads that count at once, or kinds of events, about.
const SLOTS: usize = 8;

/// Counts that nobody has taken in.
#[derive(Default)]
pub(super) struct Refusals {
    any: AtomicBool,
    slots: [Mutex<Option<Refused>>; SLOTS],
}

/// Events of one kind.
#[derive(Debug, PartialEq)]
pub(super) struct Refused {
    pub(super) source: Arc<str>,
    pub(super) severity: Severity,
    pub(super) count: u64,
}

impl Refusals {
    /// Counts an event; false when no slot is free for its kind just now.
    pub(super) fn count(&self, source: &Arc<str>, severity: Severity) -> bool {
        let counted = self.slots.iter().any(|slot| {
            let Some(mut slot) = slot.try_lock() else {
                return false;
            };
            let refused = slot.get_or_insert_with(|| Refused {
                source: source.clone(),
                severity,
                count: 0,
            });
            let same = refused.severity == severity && refused.source == *source;
            refused.count += u64::from(same);
            same
        });
        if counted {
            self.any.store(true, SeqCst);
        }
        counted
    }

    /// Whether there are counts to be taken in.
    pub(super) fn are_there(&self) -> bool {
        self.any.load(SeqCst)
    }

    /// Hands on what was counted. `all` waits for who is just counting; else that is for the next.
    pub(super) fn take(&self, all: bool, mut take: impl FnMut(Refused)) {
        if !self.are_there() || !self.any.swap(false, SeqCst) {
            return;
        }
        for slot in &self.slots {
            let slot = match all {
                true => Some(slot.lock()),
                false => slot.try_lock(),
            };
            match slot {
                Some(mut slot) => {
                    let refused = slot.take();
                    drop(slot);
                    refused.into_iter().for_each(&mut take);
                }
                None => self.any.store(true, SeqCst),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(refusals: &Refusals, all: bool) -> Vec<(String, u8, u64)> {
        let mut taken = Vec::new();
        refusals.take(all, |refused| {
            let Refused {
                source,
                severity,
                count,
            } = refused;
            taken.push((source.to_string(), severity.number(), count));
        });
        taken.sort();
        taken
    }

    #[test]
    fn each_kind_is_counted_by_itself_and_handed_on_once() {
        let refusals = Refusals::default();
        assert!(!refusals.are_there() && taken(&refusals, true).is_empty());
        for (source, severity) in [
            ("a", Severity::INFO),
            ("b", Severity::INFO),
            ("a", Severity::WARN),
            ("a", Severity::INFO),
        ] {
            assert!(refusals.count(&source.into(), severity));
        }
        assert!(refusals.are_there());
        let counts = [
            ("a".to_owned(), 9, 2),
            ("a".to_owned(), 13, 1),
            ("b".to_owned(), 9, 1),
        ];
        assert_eq!(taken(&refusals, true), counts);
        assert!(!refusals.are_there() && taken(&refusals, true).is_empty());
    }

    #[test]
    fn who_finds_no_slot_is_told_and_what_is_being_counted_is_left_to_the_next() {
        let refusals = Refusals::default();
        for number in 0..SLOTS {
            assert!(refusals.count(&number.to_string().into(), Severity::INFO));
        }
        assert!(!refusals.count(&"one more".into(), Severity::INFO));
        let counting = refusals.slots[3].lock();
        assert_eq!(taken(&refusals, false).len(), SLOTS - 1);
        assert!(refusals.are_there());
        drop(counting);
        assert_eq!(taken(&refusals, false), [("3".to_owned(), 9, 1)]);
    }
}
