//! What a consumer has finished: a position and the ranges above it. Pure; where it is kept is the
//! owner's affair (`encode`/`decode`).
//!
//! Encoded: version byte 1, then LEB128 numbers: the position, the number of ranges, and for each
//! range the distance of its start from the end of the one before (from the position for the first)
//! and its length. Both are at least 1, so every cursor has exactly one encoding.

use std::collections::BTreeMap;
use std::ops::Range;

const VERSION: u8 = 1;

/// A position, below which everything is done, and what is done above it. Grows with the number of
/// separate ranges: an owner that wants a bound looks at [`Cursor::ranges`] before going on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    position: u64,
    /// Start to end; disjoint, not touching, all starts above `position`.
    above: BTreeMap<u64, u64>,
}

impl Cursor {
    /// A cursor with everything below `position` done and nothing else.
    pub fn at(position: u64) -> Cursor {
        Cursor {
            position,
            above: BTreeMap::new(),
        }
    }

    /// Everything below is done.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether `offset` is done.
    pub fn is_done(&self, offset: u64) -> bool {
        offset < self.position
            || self
                .above
                .range(..=offset)
                .next_back()
                .is_some_and(|(_, end)| offset < *end)
    }

    /// Marks `range` done; merges and moves the position when it can.
    pub fn done(&mut self, range: Range<u64>) {
        let Range { mut start, mut end } = range;
        if start >= end || end <= self.position {
            return;
        }
        if let Some((&before, &before_end)) = self.above.range(..=start).next_back()
            && before_end >= start
        {
            start = before;
        }
        while let Some((&next, &next_end)) = self.above.range(start..=end).next() {
            self.above.remove(&next);
            end = end.max(next_end);
        }
        if start <= self.position {
            self.position = end;
        } else {
            self.above.insert(start, end);
        }
    }

    /// How many separate ranges are done above the position.
    pub fn ranges(&self) -> usize {
        self.above.len()
    }

    /// One past the highest offset that is done; the position when nothing is done above it.
    pub fn highest(&self) -> u64 {
        self.above
            .last_key_value()
            .map_or(self.position, |(_, end)| *end)
    }

    /// A compact form that [`Cursor::decode`] takes back.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(11 + self.above.len() * 4);
        out.push(VERSION);
        put(&mut out, self.position);
        put(&mut out, self.above.len() as u64);
        let mut last = self.position;
        for (start, end) in &self.above {
            put(&mut out, start - last);
            put(&mut out, end - start);
            last = *end;
        }
        out
    }

    /// Takes back what [`Cursor::encode`] gave; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Cursor> {
        let (&version, mut rest) = bytes.split_first()?;
        if version != VERSION {
            return None;
        }
        let mut cursor = Cursor::at(take(&mut rest)?);
        let mut last = cursor.position;
        for _ in 0..take(&mut rest)? {
            let gap = take(&mut rest).filter(|gap| *gap > 0)?;
            let len = take(&mut rest).filter(|len| *len > 0)?;
            let start = last.checked_add(gap)?;
            last = start.checked_add(len)?;
            cursor.above.insert(start, last);
        }
        rest.is_empty().then_some(cursor)
    }
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        value |= bits << shift;
        if byte & 0x80 == 0 {
            // The shortest form only: no lost high bits, no trailing zero byte.
            let exact = (bits << shift) >> shift == bits && (byte != 0 || shift == 0);
            return exact.then_some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_position_moves_over_ranges_it_meets() {
        let mut cursor = Cursor::at(10);
        cursor.done(12..14);
        cursor.done(16..17);
        assert_eq!(
            (cursor.position(), cursor.ranges(), cursor.highest()),
            (10, 2, 17)
        );
        assert!(cursor.is_done(13) && !cursor.is_done(14) && !cursor.is_done(10));
        cursor.done(10..12);
        assert_eq!((cursor.position(), cursor.ranges()), (14, 1));
        cursor.done(14..16);
        assert_eq!(
            (cursor.position(), cursor.ranges(), cursor.highest()),
            (17, 0, 17)
        );
    }

    #[test]
    fn empty_and_old_ranges_change_nothing() {
        let mut cursor = Cursor::at(10);
        cursor.done(20..20);
        cursor.done(3..9);
        assert_eq!(cursor, Cursor::at(10));
    }

    #[test]
    fn a_range_that_covers_others_swallows_them() {
        let mut cursor = Cursor::at(0);
        cursor.done(5..6);
        cursor.done(8..10);
        cursor.done(4..9);
        assert_eq!(cursor.ranges(), 1);
        assert_eq!(cursor.highest(), 10);
    }

    #[test]
    fn foreign_bytes_are_refused() {
        let mut cursor = Cursor::at(300);
        cursor.done(302..304);
        let good = cursor.encode();
        assert_eq!(Cursor::decode(&good), Some(cursor));
        assert_eq!(Cursor::decode(&[]), None);
        assert_eq!(Cursor::decode(&good[..good.len() - 1]), None);
        assert_eq!(Cursor::decode(&[&good[..], &[0]].concat()), None);
        // Version 2; an empty gap; a number of 2^64; an overlong zero.
        assert_eq!(Cursor::decode(&[2, 0, 0]), None);
        assert_eq!(Cursor::decode(&[1, 0, 1, 0, 1]), None);
        assert_eq!(
            Cursor::decode(&[1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2, 0]),
            None
        );
        assert_eq!(Cursor::decode(&[1, 128, 0, 0]), None);
        // A range that would pass the end of the numbers.
        let mut wraps = vec![1];
        put(&mut wraps, u64::MAX - 1);
        wraps.extend_from_slice(&[1, 1, 1]);
        assert_eq!(Cursor::decode(&wraps), None);
    }

    proptest! {
        #[test]
        fn a_cursor_is_a_set_and_survives_encoding(
            start in 0u64..40,
            marks in prop::collection::vec((0u64..100, 0u64..8), 0..40),
        ) {
            let mut cursor = Cursor::at(start);
            let mut set: BTreeSet<u64> = (0..start).collect();
            for (from, len) in marks {
                cursor.done(from..from + len);
                set.extend(from..from + len);
                let position = (0..).find(|n| !set.contains(n)).unwrap();
                prop_assert_eq!(cursor.position(), position);
                for n in 0..110 {
                    prop_assert_eq!(cursor.is_done(n), set.contains(&n));
                }
            }
            prop_assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        }

        #[test]
        fn decoding_never_panics_and_is_canonical(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(cursor) = Cursor::decode(&bytes) {
                prop_assert_eq!(cursor.encode(), bytes);
            }
        }
    }
}
