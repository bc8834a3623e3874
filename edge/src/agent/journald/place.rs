//! Where an entry stands in the journal, and which of two comes first. Pure.
//!
//! A cursor (sd_journal_get_cursor(3)) reads
//! `s=<sequence id>;i=<number>;b=<boot>;m=<monotonic µs>;t=<µs since the epoch>;x=<hash>`, all of it
//! hexadecimal. Numbers count within a sequence id, which lasts as long as the journal is not begun
//! anew; monotonic time counts within a boot. What has neither in common is told apart by the time of
//! day, which may have been wrong: only what surely was before counts as before.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use thinglog_schemas::hash::fnv1a;

/// An entry's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Halves of the ids laid on each other.
    sequence_id: u64,
    sequence: u64,
    boot: u64,
    monotonic: u64,
    realtime: u64,
    hash: u64,
}

/// Bytes of an encoded position.
const ENCODED: usize = 48;

impl Position {
    /// Of a cursor; `None` when it is not written as journals write it.
    pub(super) fn parse(cursor: &str) -> Option<Position> {
        let field = |name: &str| {
            let fields = cursor.split(';').filter_map(|field| field.split_once('='));
            let mut found = fields.filter(|(key, _)| *key == name);
            found.next().map(|(_, value)| value)
        };
        let number = |name: &str| u64::from_str_radix(field(name)?, 16).ok();
        Some(Position {
            sequence_id: folded(field("s")?)?,
            sequence: number("i")?,
            boot: folded(field("b")?)?,
            monotonic: number("m")?,
            realtime: number("t")?,
            hash: number("x")?,
        })
    }

    /// Whether both are the same entry, perhaps in two files.
    pub(super) fn is(&self, other: &Position) -> bool {
        let here = |at: &Position| (at.sequence_id, at.sequence);
        let content = |at: &Position| (at.boot, at.monotonic, at.realtime, at.hash);
        here(self) == here(other) || content(self) == content(other)
    }

    /// Which comes first; `boot` is the current one.
    pub(super) fn order(&self, other: &Position, boot: Option<u64>) -> Ordering {
        if self.is(other) {
            return Ordering::Equal;
        }
        if self.sequence_id == other.sequence_id {
            return self.sequence.cmp(&other.sequence);
        }
        if self.boot == other.boot {
            return self.monotonic.cmp(&other.monotonic);
        }
        match boot {
            Some(boot) if boot == self.boot => Ordering::Greater,
            Some(boot) if boot == other.boot => Ordering::Less,
            _ => self.realtime.cmp(&other.realtime),
        }
    }

    /// How many entries the journal numbered between the two; `None` when their numbers have nothing
    /// to do with each other.
    pub(super) fn between(&self, later: &Position) -> Option<u64> {
        let same = self.sequence_id == later.sequence_id;
        let gap = later.sequence.checked_sub(self.sequence)?;
        same.then(|| gap.saturating_sub(1))
    }

    pub(super) fn encode(&self) -> [u8; ENCODED] {
        let parts = [
            self.sequence_id,
            self.sequence,
            self.boot,
            self.monotonic,
            self.realtime,
            self.hash,
        ];
        let mut bytes = [0; ENCODED];
        for (to, part) in bytes.chunks_exact_mut(8).zip(parts) {
            to.copy_from_slice(&part.to_le_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Position> {
        let bytes: &[u8; ENCODED] = bytes.try_into().ok()?;
        let mut parts = bytes.chunks_exact(8).filter_map(|part| {
            let part: [u8; 8] = part.try_into().ok()?;
            Some(u64::from_le_bytes(part))
        });
        Some(Position {
            sequence_id: parts.next()?,
            sequence: parts.next()?,
            boot: parts.next()?,
            monotonic: parts.next()?,
            realtime: parts.next()?,
            hash: parts.next()?,
        })
    }
}

/// An id of 128 bits, halves laid on each other.
pub(super) fn folded(id: &str) -> Option<u64> {
    let id = u128::from_str_radix(id, 16).ok()?;
    let (high, low) = ((id >> 64) as u64, id as u64);
    Some(high ^ low)
}

/// An entry's cursor, as the journal gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) text: String,
    pub(super) position: Option<Position>,
}

impl Cursor {
    pub(super) fn new(text: String) -> Cursor {
        Cursor {
            position: Position::parse(&text),
            text,
        }
    }

    pub(super) fn is(&self, other: &Cursor) -> bool {
        match (&self.position, &other.position) {
            (Some(own), Some(other)) => own.is(other),
            _ => self.text == other.text,
        }
    }
}

/// How far a journal was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// An entry; `None`: whatever there will be is new.
    pub(super) cursor: Option<String>,
    /// The entry itself was read as well.
    pub(super) read: bool,
    /// Stands for what was selected: a place of another selection says nothing of what is missing.
    pub(super) selection: u64,
}

impl Place {
    /// Behind an entry.
    pub(super) fn after(cursor: &Cursor, selection: u64) -> Place {
        Place {
            cursor: Some(cursor.text.clone()),
            read: true,
            selection,
        }
    }
}

/// A number that stands for a text.
pub(super) fn stands_for(text: &str) -> u64 {
    fnv1a(text.as_bytes())
}

/// Tells what comes again from what is new, after going on at a place.
#[derive(Debug)]
pub(super) struct Resume {
    at: Option<Cursor>,
    read: bool,
    /// The entry is no longer in the journal, and what was removed with it is to be declared.
    gone: Option<Position>,
    boot: Option<u64>,
}

impl Resume {
    /// Goes on at `place`. `gone`: its entry is not in the journal any more.
    pub(super) fn at(place: &Place, gone: bool, boot: Option<u64>) -> Resume {
        let at = place.cursor.clone().map(Cursor::new);
        Resume {
            gone: at.as_ref().filter(|_| gone).and_then(|at| at.position),
            at,
            read: place.read,
            boot,
        }
    }

    /// Whether an entry is new. From the first new one on, all are.
    pub(super) fn is_new(&mut self, cursor: &Cursor) -> bool {
        let Some(at) = &self.at else { return true };
        let new = match at.is(cursor) {
            true => !self.read,
            false => match (&cursor.position, &at.position) {
                (Some(entry), Some(at)) => entry.order(at, self.boot) == Ordering::Greater,
                _ => true,
            },
        };
        if new || at.is(cursor) {
            self.at = None;
        }
        new
    }

    /// When the place is gone and this is the first entry behind it: how many may be missing, `None`
    /// when nobody can tell. Said once.
    pub(super) fn take_gap(&mut self, first: &Cursor) -> Option<Option<u64>> {
        let gone = self.gone.take()?;
        let between = first.position.and_then(|first| gone.between(&first));
        // The entry itself, if it was not passed on.
        let missing = between.map(|between| between + u64::from(!self.read));
        (missing != Some(0)).then_some(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(sequence_id: u32, number: u32, boot: u32, monotonic: u32, time: u32) -> Cursor {
        let hash = sequence_id + 31 * number + 7 * time;
        Cursor::new(format!(
            "s={sequence_id:032x};i={number:x};b={boot:032x};m={monotonic:x};t={time:x};x={hash:x}"
        ))
    }

    fn place(cursor: &Cursor) -> Place {
        Place::after(cursor, 0)
    }

    #[test]
    fn a_cursor_is_read_and_a_position_comes_back_from_its_bytes() {
        let text = "s=1474cdb19bb94e61bb6edd166a0058c0;i=1f;b=4b6fc2c576d242f9ab02dad5fd368fea;\
                    m=f4241;t=6474846204001;x=c19162c73d1e33c";
        let position = Position::parse(text).unwrap();
        assert_eq!((position.sequence, position.monotonic), (0x1f, 0xf4241));
        assert_eq!(Position::decode(&position.encode()), Some(position));
        assert_eq!(Position::decode(&[0; 47]), None);
        for bad in ["", "s=1", "s=x;i=1;b=1;m=1;t=1;x=1", "hello"] {
            assert_eq!(Position::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers_tell_the_order_then_the_boot_then_the_time() {
        let order =
            |a: &Cursor, b: &Cursor, boot| a.position.unwrap().order(&b.position.unwrap(), boot);
        let first = cursor(1, 5, 1, 100, 1000);
        // The clock went back within a journal.
        assert_eq!(order(&first, &cursor(1, 6, 2, 1, 10), None), Ordering::Less);
        assert_eq!(
            order(&first, &cursor(2, 1, 1, 101, 10), None),
            Ordering::Less
        );
        // A journal in memory began anew with a boot that does not know the time yet.
        let now = cursor(2, 1, 2, 1, 10);
        assert_eq!(order(&first, &now, Some(2)), Ordering::Less);
        assert_eq!(order(&now, &first, Some(2)), Ordering::Greater);
        assert_eq!(order(&first, &now, None), Ordering::Greater);
    }

    #[test]
    fn going_on_takes_up_behind_the_entry_or_with_it() {
        let entries: Vec<Cursor> = (1..6).map(|n| cursor(1, n, 1, n, n)).collect();
        let new = |place: &Place| {
            let mut resume = Resume::at(place, false, None);
            entries.iter().filter(|e| resume.is_new(e)).count()
        };
        assert_eq!(new(&place(&entries[2])), 2);
        let with = Place {
            read: false,
            ..place(&entries[2])
        };
        assert_eq!(new(&with), 3);
        assert_eq!(new(&Place::default()), 5);
    }

    #[test]
    fn what_was_removed_unread_is_counted_and_nothing_removed_is_no_gap() {
        let gap = |place: &Place, first: &Cursor| {
            let mut resume = Resume::at(place, true, None);
            assert!(resume.is_new(first));
            let gap = resume.take_gap(first);
            assert_eq!(resume.take_gap(first), None, "once");
            gap
        };
        let at = cursor(1, 5, 1, 5, 5);
        assert_eq!(gap(&place(&at), &cursor(1, 6, 1, 6, 6)), None);
        assert_eq!(gap(&place(&at), &cursor(1, 9, 1, 9, 9)), Some(Some(3)));
        assert_eq!(gap(&place(&at), &cursor(2, 1, 2, 9, 9)), Some(None));
        let with = Place {
            read: false,
            ..place(&at)
        };
        assert_eq!(gap(&with, &cursor(1, 6, 1, 6, 6)), Some(Some(1)));
    }

    #[test]
    fn without_its_entry_what_surely_was_before_is_not_repeated() {
        let at = cursor(1, 5, 1, 5, 5);
        let mut resume = Resume::at(&place(&at), true, None);
        assert!(!resume.is_new(&cursor(1, 4, 1, 4, 4)));
        assert!(!resume.is_new(&cursor(3, 1, 3, 1, 2)));
        assert!(resume.is_new(&cursor(1, 6, 1, 6, 6)));
        assert!(resume.is_new(&cursor(3, 2, 3, 2, 3)), "all that follows is");
    }
}
