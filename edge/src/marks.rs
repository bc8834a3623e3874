//! Where sources that can be read again (files, a system journal) stand: the last place of each, by
//! a key that names the file or journal. The places are the source's own bytes and mean nothing
//! here. Pure; bounded: beyond the limit the places that were set longest ago are forgotten.
//!
//! As a file, text:
//!
//! ```text
//! thinglog-marks 1 <journal id, 16 hex digits> <through, 16 hex digits>
//! <key, 16 hex digits> <place, hex>          oldest first, one line each
//! end <FNV-1a of all before, 16 hex digits>
//! ```
//!
//! It holds the places of all records of that journal below the offset `through`.

use std::{collections::HashMap, fmt::Write as _, sync::Arc};

use thinglog_schemas::hash::fnv1a;

/// The longest place, bytes.
pub(crate) const MAX_PLACE: usize = 4 << 10;
/// Text of a file beside its places, and of one place beside its bytes.
const FRAME: usize = 80;
const LINE: usize = 18;
const HEAD: &str = "thinglog-marks 1";

/// Where a source stands after an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Names what is read: a hash of a path, of a journal and unit.
    pub(crate) key: u64,
    /// Everything before this place is in events up to the marked one.
    pub(crate) place: Arc<[u8]>,
}

impl Mark {
    /// Bytes a mark takes in memory, about.
    pub(crate) fn cost(&self) -> usize {
        48 + self.place.len()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    place: Arc<[u8]>,
    /// When it was set, as a count.
    set: u64,
}

/// The last place of every key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    kept: HashMap<u64, Kept>,
    sets: u64,
    /// Of the text.
    bytes: usize,
    limit: usize,
}

impl Marks {
    /// None yet; as text they never take more than `limit` bytes.
    pub(crate) fn new(limit: usize) -> Marks {
        Marks {
            kept: HashMap::new(),
            sets: 0,
            bytes: FRAME,
            limit,
        }
    }

    /// No place is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The last place of a key.
    pub(crate) fn get(&self, key: u64) -> Option<&Arc<[u8]>> {
        self.kept.get(&key).map(|kept| &kept.place)
    }

    /// Sets a place. False when it was that already.
    pub(crate) fn set(&mut self, mark: Mark) -> bool {
        self.sets += 1;
        let kept = Kept {
            place: mark.place,
            set: self.sets,
        };
        self.bytes += line(&kept.place);
        let before = self.kept.insert(mark.key, kept);
        let mut changed = true;
        if let Some(before) = &before {
            self.bytes -= line(&before.place);
            changed = self.get(mark.key) != Some(&before.place);
        }
        while self.bytes > self.limit && self.forget_oldest() {}
        changed
    }

    fn forget_oldest(&mut self) -> bool {
        let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.set);
        let Some(key) = oldest.map(|(key, _)| *key) else {
            return false;
        };
        if let Some(kept) = self.kept.remove(&key) {
            self.bytes -= line(&kept.place);
        }
        true
    }

    /// All of them, those set longest ago first.
    pub(crate) fn all(&self) -> Vec<Mark> {
        let mut kept: Vec<(&u64, &Kept)> = self.kept.iter().collect();
        kept.sort_by_key(|(_, kept)| kept.set);
        let mark = |(key, kept): (&u64, &Kept)| Mark {
            key: *key,
            place: kept.place.clone(),
        };
        kept.into_iter().map(mark).collect()
    }

    /// The file that says so of the journal `id` below `through`.
    pub(crate) fn to_text(&self, id: u64, through: u64) -> String {
        let mut text = String::with_capacity(self.bytes);
        // Writing to a string does not fail.
        let _ = writeln!(text, "{HEAD} {id:016x} {through:016x}");
        for mark in self.all() {
            let _ = write!(text, "{:016x} ", mark.key);
            for byte in &*mark.place {
                let _ = write!(text, "{byte:02x}");
            }
            text.push('\n');
        }
        let sum = fnv1a(text.as_bytes());
        let _ = writeln!(text, "end {sum:016x}");
        text
    }

    /// Reads such a file; returns the offset it goes to. `None`, and nothing changes, when it is
    /// damaged or another journal's.
    pub(crate) fn read_text(&mut self, text: &str, id: u64) -> Option<u64> {
        let end = text.len().checked_sub("end 0123456789abcdef\n".len())?;
        let (body, last) = text.split_at_checked(end)?;
        let sum = number(last.strip_prefix("end ")?.strip_suffix('\n')?)?;
        if sum != fnv1a(body.as_bytes()) {
            return None;
        }
        let mut lines = body.lines();
        let head = lines.next()?.strip_prefix(HEAD)?.strip_prefix(' ')?;
        let (journal, through) = head.split_once(' ')?;
        if number(journal)? != id {
            return None;
        }
        let through = number(through)?;
        let mark = |line: &str| {
            let (key, place) = line.split_once(' ')?;
            Some(Mark {
                key: number(key)?,
                place: bytes(place)?.into(),
            })
        };
        let marks: Option<Vec<Mark>> = lines.map(mark).collect();
        for mark in marks? {
            self.set(mark);
        }
        Some(through)
    }
}

fn line(place: &[u8]) -> usize {
    LINE + 2 * place.len()
}

fn number(hex: &str) -> Option<u64> {
    let digits = hex.len() == 16 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(hex, 16).ok())?
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let pair = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(high)? << 4 | digit(low)?).ok(),
        _ => None,
    };
    hex.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(key: u64, place: &[u8]) -> Mark {
        Mark {
            key,
            place: place.into(),
        }
    }

    #[test]
    fn the_last_place_of_a_key_counts() {
        let mut marks = Marks::new(1 << 10);
        assert!(marks.set(mark(1, b"a")));
        assert!(marks.set(mark(2, b"b")));
        assert!(marks.set(mark(1, b"c")));
        assert!(!marks.set(mark(1, b"c")));
        assert_eq!(marks.get(1).map(|place| &**place), Some(&b"c"[..]));
        assert_eq!(marks.all(), [mark(2, b"b"), mark(1, b"c")]);
        assert_eq!(marks.get(3), None);
    }

    #[test]
    fn beyond_the_limit_the_oldest_places_are_forgotten_and_the_text_stays_below_it() {
        let mut marks = Marks::new(1 << 10);
        for key in 0..100 {
            marks.set(mark(key, &[7; 20]));
            marks.set(mark(0, &[8; 20]));
            assert!(marks.to_text(1, 2).len() <= 1 << 10);
        }
        assert!(marks.get(0).is_some());
        assert!(marks.get(99).is_some());
        assert_eq!(marks.get(1), None);
        assert!(marks.all().len() > 10);
    }

    #[test]
    fn the_text_reads_back_and_a_damaged_one_does_not() {
        let mut marks = Marks::new(1 << 10);
        marks.set(mark(5, b"\x00\xff place"));
        marks.set(mark(4, b""));
        let text = marks.to_text(77, 1234);
        let mut read = Marks::new(1 << 10);
        assert_eq!(read.read_text(&text, 77), Some(1234));
        assert_eq!(read.all(), marks.all());

        let mut other = Marks::new(1 << 10);
        assert_eq!(other.read_text(&text, 78), None);
        for at in 0..text.len() {
            let mut bad = text.clone().into_bytes();
            bad[at] ^= 1;
            if let Ok(bad) = std::str::from_utf8(&bad) {
                assert_eq!(other.read_text(bad, 77), None, "{at}");
            }
            assert_eq!(other.read_text(&text[..at], 77), None);
        }
        assert!(other.all().is_empty());
    }
}
