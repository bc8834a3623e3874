//! What a destination has had: per lane the sequence numbers of its events, per lane the declared
//! gaps, per journal of a broker the offsets. Pure; time is seconds since the Unix epoch.
//!
//! Plain events behind a broker that numbers nothing have no key at all: they are delivered at least
//! once.
//!
//! Bounds: 64 ranges and 7 idle days a lane, 1024 ranges for its gaps, a million lanes, 65,536 ranges a journal and 16 journals.
//! What goes over a bound is the longest idle; an event of a forgotten lane that is sent again is
//! then delivered again.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::seen::{Novelty, Seen};

const LANE_RANGES: usize = 64;
/// Gaps of a lane are declared in any order, up to as many as it may have holes.
const GAP_RANGES: usize = 1024;
const JOURNAL_RANGES: usize = 65_536;
const JOURNALS: usize = 16;
/// Most lanes kept.
pub(crate) const LANES: usize = 1_000_000;
const IDLE_S: u64 = 7 * 24 * 3600;

/// Something that numbers what it sends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Key {
    /// Events of one lane of a device.
    Lane(Arc<str>, u64),
    /// Gaps declared for a lane.
    Gaps(Arc<str>, u64),
    /// Publishes in a broker's journal.
    Journal(u64),
}

/// A range that has been seen: what the state log keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) key: Key,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// When, seconds since the Unix epoch.
    pub(crate) at: u64,
}

#[derive(Debug, Default)]
struct Entry {
    seen: Seen,
    used: u64,
    /// Round and index of this entry's last mark, so that marks in a row are one.
    round: u64,
    mark: usize,
}

/// The table, and the marks made since they were last taken.
#[derive(Debug)]
pub(crate) struct Table {
    entries: HashMap<Key, Entry>,
    marks: Vec<Mark>,
    round: u64,
    capacity: usize,
}

impl Default for Table {
    fn default() -> Table {
        Table::with_capacity(LANES)
    }
}

impl Table {
    /// A table of at most `capacity` lanes and journals.
    pub(crate) fn with_capacity(capacity: usize) -> Table {
        Table {
            entries: HashMap::new(),
            marks: Vec::new(),
            round: 1,
            capacity,
        }
    }

    /// Compares an inclusive range with what was seen.
    pub(crate) fn novelty(&self, key: &Key, from: u64, to: u64) -> Novelty {
        match self.entries.get(key) {
            Some(entry) => entry.seen.novelty(from, to),
            None => Novelty::New,
        }
    }

    pub(crate) fn contains(&self, key: &Key, number: u64) -> bool {
        self.novelty(key, number, number) == Novelty::Old
    }

    /// Notes that an inclusive range was seen `at`.
    pub(crate) fn insert(&mut self, key: &Key, from: u64, to: u64, at: u64) {
        let cap = range_cap(key);
        if let Some(entry) = self.entries.get_mut(key) {
            entry.seen.insert(from, to, cap);
            entry.used = at;
            if entry.round == self.round {
                let mark = &mut self.marks[entry.mark];
                if from <= mark.to.saturating_add(1) && to >= mark.from {
                    mark.from = mark.from.min(from);
                    mark.to = mark.to.max(to);
                    return;
                }
            }
            entry.round = self.round;
            entry.mark = self.marks.len();
        } else {
            self.make_room(key);
            let mut entry = Entry {
                used: at,
                round: self.round,
                mark: self.marks.len(),
                ..Entry::default()
            };
            entry.seen.insert(from, to, cap);
            self.entries.insert(key.clone(), entry);
        }
        self.marks.push(Mark {
            key: key.clone(),
            from,
            to,
            at,
        });
    }

    /// Takes the marks made since the last call, in an order that rebuilds the same table.
    pub(crate) fn take_marks(&mut self) -> Vec<Mark> {
        self.round += 1;
        std::mem::take(&mut self.marks)
    }

    /// Repeats a mark of the past.
    pub(crate) fn replay(&mut self, mark: &Mark) {
        self.insert(&mark.key, mark.from, mark.to, mark.at);
        self.marks.clear();
        self.round += 1;
    }

    /// Every range of every entry: the table as marks.
    pub(crate) fn snapshot(&self) -> impl Iterator<Item = Mark> + '_ {
        self.entries.iter().flat_map(|(key, entry)| {
            entry.seen.ranges().map(|(from, to)| Mark {
                key: key.clone(),
                from,
                to,
                at: entry.used,
            })
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Forgets entries that have been idle for a week.
    pub(crate) fn forget_idle(&mut self, now: u64) {
        let oldest = now.saturating_sub(IDLE_S);
        self.entries
            .retain(|key, entry| entry.used >= oldest || matches!(key, Key::Journal(_)));
        self.forget_marks_of_the_dead();
    }

    fn make_room(&mut self, key: &Key) {
        if matches!(key, Key::Journal(_)) {
            let journals = self
                .entries
                .keys()
                .filter(|key| matches!(key, Key::Journal(_)));
            if journals.count() >= JOURNALS {
                self.evict(1, |key| matches!(key, Key::Journal(_)));
            }
        } else if self.entries.len() >= self.capacity {
            // A sixteenth at once, so that the search is paid for by many insertions.
            self.evict((self.capacity / 16).max(1), |key| {
                !matches!(key, Key::Journal(_))
            });
        }
    }

    /// Removes the `count` longest idle entries of a kind.
    fn evict(&mut self, count: usize, kind: impl Fn(&Key) -> bool) {
        let mut ages: Vec<u64> = self
            .entries
            .iter()
            .filter(|(key, _)| kind(key))
            .map(|(_, entry)| entry.used)
            .collect();
        if ages.is_empty() {
            return;
        }
        let nth = count.min(ages.len()) - 1;
        let (_, &mut oldest, _) = ages.select_nth_unstable(nth);
        let mut left = count;
        self.entries.retain(|key, entry| {
            let go = left > 0 && kind(key) && entry.used <= oldest;
            left -= usize::from(go);
            !go
        });
        self.forget_marks_of_the_dead();
    }

    /// An entry that comes back after it was forgotten must not extend its old mark: new round.
    fn forget_marks_of_the_dead(&mut self) {
        for entry in self.entries.values_mut() {
            entry.round = 0;
        }
    }
}

fn range_cap(key: &Key) -> usize {
    match key {
        Key::Journal(_) => JOURNAL_RANGES,
        Key::Lane(..) => LANE_RANGES,
        Key::Gaps(..) => GAP_RANGES,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lane(n: u64) -> Key {
        Key::Lane(Arc::from("lamp-7"), n)
    }

    #[test]
    fn lanes_journals_and_gaps_do_not_meet() {
        let mut table = Table::default();
        table.insert(&lane(1), 0, 9, 0);
        assert!(table.contains(&lane(1), 9));
        assert!(!table.contains(&lane(2), 9));
        assert!(!table.contains(&Key::Gaps(Arc::from("lamp-7"), 1), 9));
        assert!(!table.contains(&Key::Journal(1), 9));
    }

    #[test]
    fn ranges_in_a_row_are_one_mark() {
        let mut table = Table::default();
        for n in 0..100 {
            table.insert(&lane(1), n, n, 5);
            table.insert(&Key::Journal(7), n, n, 5);
        }
        let marks = table.take_marks();
        assert_eq!(marks.len(), 2);
        assert_eq!((marks[0].from, marks[0].to), (0, 99));
        table.insert(&lane(1), 100, 100, 5);
        assert_eq!(table.take_marks().len(), 1);
    }

    #[test]
    fn the_longest_idle_lane_makes_room() {
        let mut table = Table::with_capacity(4);
        for n in 0..5 {
            table.insert(&lane(n), 0, 0, n);
        }
        assert_eq!(table.len(), 4);
        assert!(!table.contains(&lane(0), 0));
        assert!(table.contains(&lane(4), 0));
    }

    #[test]
    fn journals_are_bounded_by_themselves() {
        let mut table = Table::default();
        for n in 0..40 {
            table.insert(&Key::Journal(n), 0, 0, n);
        }
        assert_eq!(table.len(), JOURNALS);
        assert!(table.contains(&Key::Journal(39), 0));
    }

    #[test]
    fn a_week_idle_is_forgotten_but_journals_stay() {
        let mut table = Table::default();
        table.insert(&lane(1), 0, 0, 0);
        table.insert(&Key::Journal(1), 0, 0, 0);
        table.forget_idle(IDLE_S + 1);
        assert!(!table.contains(&lane(1), 0));
        assert!(table.contains(&Key::Journal(1), 0));
    }

    proptest! {
        #[test]
        fn marks_and_snapshots_rebuild_the_table(
            inserts in proptest::collection::vec((0u64..4, 0u64..100, 0u64..9, any::<bool>()), 0..80),
        ) {
            let mut table = Table::default();
            let mut from_marks = Table::default();
            for (n, from, length, taken) in inserts {
                table.insert(&lane(n), from, from + length, 1);
                if taken {
                    table.take_marks().iter().for_each(|mark| from_marks.replay(mark));
                }
            }
            table.take_marks().iter().for_each(|mark| from_marks.replay(mark));
            let mut from_snapshot = Table::default();
            table.snapshot().for_each(|mark| from_snapshot.replay(&mark));
            for n in 0..4 {
                for seq in 0..120 {
                    let expected = table.contains(&lane(n), seq);
                    prop_assert_eq!(from_marks.contains(&lane(n), seq), expected);
                    prop_assert_eq!(from_snapshot.contains(&lane(n), seq), expected);
                }
            }
        }
    }
}
