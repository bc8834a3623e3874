//! A set of numbers that fills up from below: everything under `done`, and up to `cap` ranges above.
//!
//! When there are too many ranges the lowest holes are closed, that is, their numbers count as seen:
//! with numbers that arrive in order the lowest holes are the least likely ever to be filled.

/// How a range relates to a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Novelty {
    /// None of it was there.
    New,
    /// All of it was there.
    Old,
    /// Some of it was.
    Mixed,
}

/// The set. `u64::MAX` is never a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Every number below is in.
    done: u64,
    /// Inclusive, ascending, neither touching each other nor `done`.
    open: Vec<(u64, u64)>,
}

impl Seen {
    #[cfg(test)]
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.novelty(number, number) == Novelty::Old
    }

    /// Compares an inclusive range.
    pub(crate) fn novelty(&self, from: u64, to: u64) -> Novelty {
        let top = self.open.last().map_or(self.done, |last| last.1 + 1);
        if from >= top {
            return Novelty::New;
        }
        if to < self.done {
            return Novelty::Old;
        }
        // The first range that ends at or after `from`.
        let at = self.open.partition_point(|range| range.1 < from);
        let range = self.open.get(at).copied();
        let touched = range.is_some_and(|range| range.0 <= to) || from < self.done;
        let covered = range.is_some_and(|range| range.0 <= from && to <= range.1);
        match (covered, touched) {
            (true, _) => Novelty::Old,
            (false, true) => Novelty::Mixed,
            (false, false) => Novelty::New,
        }
    }

    /// Adds an inclusive range, keeping at most `cap` ranges above `done`.
    pub(crate) fn insert(&mut self, from: u64, to: u64, cap: usize) {
        let to = to.min(u64::MAX - 1);
        if from > to {
            return;
        }
        match self.open.last_mut() {
            None if from <= self.done => self.done = self.done.max(to + 1),
            // Mostly numbers arrive in order and extend the highest range.
            Some(last) if last.0 <= from && from <= last.1 + 1 => last.1 = last.1.max(to),
            _ => self.insert_slowly(from, to),
        }
        self.absorb();
        if self.open.len() > cap {
            self.close_lowest(cap);
        }
    }

    /// Takes out every number from `from` up.
    pub(crate) fn forget_from(&mut self, from: u64) {
        self.done = self.done.min(from);
        self.open.retain_mut(|range| {
            range.1 = range.1.min(from.saturating_sub(1));
            range.0 < from
        });
    }

    fn insert_slowly(&mut self, mut from: u64, mut to: u64) {
        let first = self.open.partition_point(|range| range.1 + 1 < from);
        let after = self.open.partition_point(|range| range.0 <= to + 1);
        if first < after {
            from = from.min(self.open[first].0);
            to = to.max(self.open[after - 1].1);
        }
        self.open.splice(first..after, [(from, to)]);
    }

    /// Ranges that `done` has reached become part of it.
    fn absorb(&mut self) {
        let reached = self
            .open
            .iter()
            .take_while(|range| {
                let touches = range.0 <= self.done;
                if touches {
                    self.done = self.done.max(range.1 + 1);
                }
                touches
            })
            .count();
        self.open.drain(..reached);
    }

    /// Closes the lowest holes, some more than needed so that it is seldom.
    fn close_lowest(&mut self, cap: usize) {
        let keep = cap - cap / 4;
        let closed = self.open.len() - keep;
        self.done = self.open[closed - 1].1 + 1;
        self.open.drain(..closed);
    }

    /// Every inclusive range, ascending: what `insert` needs to rebuild the set.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let below = (self.done > 0).then(|| (0, self.done - 1));
        below.into_iter().chain(self.open.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_in_order_need_no_ranges() {
        let mut seen = Seen::default();
        for n in 0..1000 {
            seen.insert(n, n, 64);
        }
        assert_eq!(seen.ranges().collect::<Vec<_>>(), [(0, 999)]);
        assert!(seen.open.is_empty());
    }

    #[test]
    fn beyond_the_cap_the_lowest_holes_close() {
        let mut seen = Seen::default();
        for n in 0..100 {
            seen.insert(n * 10, n * 10, 8);
        }
        assert!(seen.open.len() <= 8);
        assert!(seen.contains(990) && !seen.contains(985));
        assert!(seen.contains(5), "an old hole counts as seen");
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let mut seen = Seen::default();
        seen.insert(u64::MAX - 1, u64::MAX, 4);
        assert!(seen.contains(u64::MAX - 1));
        assert!(!seen.contains(u64::MAX));
        seen.insert(0, u64::MAX, 4);
        assert!(seen.contains(u64::MAX - 1) && seen.contains(0));
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(ranges in proptest::collection::vec((0u64..200, 0u64..20), 0..60)) {
            let mut seen = Seen::default();
            let mut model = BTreeSet::new();
            for (from, length) in ranges {
                let to = from + length;
                let there = (from..=to).filter(|n| model.contains(n)).count() as u64;
                let expected = match there {
                    0 => Novelty::New,
                    n if n == length + 1 => Novelty::Old,
                    _ => Novelty::Mixed,
                };
                prop_assert_eq!(seen.novelty(from, to), expected);
                seen.insert(from, to, usize::MAX);
                model.extend(from..=to);
            }
            for n in 0..230 {
                prop_assert_eq!(seen.contains(n), model.contains(&n), "{}", n);
            }
            let mut again = Seen::default();
            for (from, to) in seen.ranges() {
                again.insert(from, to, usize::MAX);
            }
            prop_assert_eq!(again, seen);
        }

        #[test]
        fn with_a_cap_what_was_seen_stays_seen(
            ranges in proptest::collection::vec((0u64..500, 0u64..5), 0..100),
        ) {
            let mut seen = Seen::default();
            for (from, length) in ranges {
                seen.insert(from, from + length, 4);
                prop_assert!(seen.open.len() <= 4);
                prop_assert_eq!(seen.novelty(from, from + length), Novelty::Old);
            }
        }
    }
}
