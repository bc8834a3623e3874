//! Events that are refused before the queue: which, and what they were, counted without waiting for anybody
//! until who has the queue's lock takes the counts in.

use std::{
    cmp::Ordering,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use parking_lot::Mutex;
use thinglog_schemas::Severity;

use crate::queue::{Refuses, class, name_hash};

/// Kinds of events that are counted at once, about.
const SLOTS: usize = 32;

/// [`Refuses`], for all to read at any time: one word.
#[derive(Default)]
pub(super) struct Rule(AtomicU64);

impl Rule {
    /// The class and one, so that zero refuses nothing.
    const CLASS_BITS: u32 = 3;
    const ANY_SOURCE: u64 = 1 << Rule::CLASS_BITS;
    const FREE: u32 = Rule::CLASS_BITS + 1;
    const SOURCE: u32 = 32;
    const MOST_FREE: u64 = (1 << (Rule::SOURCE - Rule::FREE)) - 1;

    pub(super) fn set(&self, refuses: Option<Refuses>) {
        let word = refuses.map_or(0, |refuses| {
            let source = match refuses.source {
                Some(source) => u64::from(source) << Rule::SOURCE,
                None => Rule::ANY_SOURCE,
            };
            let free = (refuses.free as u64).min(Rule::MOST_FREE) << Rule::FREE;
            source | free | (refuses.class as u64 + 1)
        });
        self.0.store(word, SeqCst);
    }

    /// Whether such an event is refused.
    pub(super) fn refuses(&self, source: &str, severity: Severity, cost: usize) -> bool {
        let word = self.0.load(SeqCst);
        let classes = word & (Rule::ANY_SOURCE - 1);
        let free = (word >> Rule::FREE) & Rule::MOST_FREE;
        let of_source = || {
            let hash = (word >> Rule::SOURCE) as u32;
            word & Rule::ANY_SOURCE != 0 || hash == name_hash(source)
        };
        cost as u64 > free
            && match (class(severity) as u64 + 1).cmp(&classes) {
                Ordering::Less => true,
                Ordering::Equal => of_source(),
                Ordering::Greater => false,
            }
    }
}

/// Counts that nobody has taken in.
#[derive(Default)]
pub(super) struct Refusals {
    any: AtomicBool,
    pub(super) slots: [Mutex<Option<Refused>>; SLOTS],
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
        let first = name_hash(source) as usize;
        let counted = (0..SLOTS).any(|at| {
            let Some(mut slot) = self.slots[(first + at) % SLOTS].try_lock() else {
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
    fn a_rule_says_what_the_queue_said() {
        let rule = Rule::default();
        assert!(!rule.refuses("app", Severity::DEBUG, usize::MAX));
        let refuses = Refuses {
            class: class(Severity::WARN),
            source: Some(name_hash("app")),
            free: 300,
        };
        rule.set(Some(refuses));
        assert!(
            rule.refuses("app", Severity::WARN, 301) && rule.refuses("net", Severity::INFO, 301)
        );
        assert!(!rule.refuses("app", Severity::WARN, 300));
        assert!(!rule.refuses("net", Severity::WARN, 301));
        assert!(!rule.refuses("app", Severity::ERROR, 301));
        rule.set(Some(Refuses {
            source: None,
            free: usize::MAX,
            ..refuses
        }));
        assert!(rule.refuses("net", Severity::WARN, 1 << 28));
        assert!(!rule.refuses("net", Severity::WARN, (1 << 28) - 1));
        rule.set(None);
        assert!(!rule.refuses("app", Severity::DEBUG, usize::MAX));
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
        assert_eq!(taken(&refusals, false).len(), 1);
        assert!(!refusals.are_there());
    }
}
