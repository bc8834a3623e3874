//! A change of the broker's state, and its form in the log of changes:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | the kind's code |
//! | 1 | 1: a value follows the key; 0: the key is removed |
//! | 4 | length of the key, big-endian |
//! | | the key, UTF-8, then the value |
//!
//! The journal around it has the checksum.

use std::collections::HashMap;

/// What kind of thing a key belongs to; one tree each in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The state's own: which journal its cursors point into, and what was lost.
    Meta,
    Retained,
    Session,
    Cursor,
}

/// Every kind. The code of a kind is on disk: it is never given to another.
pub(super) const KINDS: [(Kind, u8, &str); 4] = [
    (Kind::Meta, 0, "meta"),
    (Kind::Retained, 1, "retained"),
    (Kind::Session, 2, "sessions"),
    (Kind::Cursor, 3, "cursors"),
];

impl Kind {
    fn code(self) -> u8 {
        KINDS
            .iter()
            .find(|(kind, ..)| *kind == self)
            .map_or(u8::MAX, |(_, code, _)| *code)
    }

    fn of_code(code: u8) -> Option<Kind> {
        KINDS
            .iter()
            .find(|(_, known, _)| *known == code)
            .map(|(kind, ..)| *kind)
    }
}

/// Keys and what they hold; `None` removes.
pub(super) type Changes = HashMap<(Kind, String), Option<Vec<u8>>>;

/// All that is kept.
pub(super) type Contents = HashMap<(Kind, String), Vec<u8>>;

/// Appends a change to `out`.
pub(super) fn encode((kind, key): &(Kind, String), value: Option<&[u8]>, out: &mut Vec<u8>) {
    out.push(kind.code());
    out.push(u8::from(value.is_some()));
    out.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(value.unwrap_or_default());
}

/// Reads a change; `None` when it is none that this version knows.
pub(super) fn decode(bytes: &[u8]) -> Option<(Kind, &str, Option<&[u8]>)> {
    let (&[code, present, a, b, c, d], rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    let (key, value) = rest.split_at_checked(length)?;
    let key = std::str::from_utf8(key).ok()?;
    let value = match present {
        0 if value.is_empty() => None,
        1 => Some(value),
        _ => return None,
    };
    Some((Kind::of_code(code)?, key, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn codes_and_trees_are_not_shared() {
        for (n, (kind, code, tree)) in KINDS.iter().enumerate() {
            assert_eq!(Kind::of_code(*code), Some(*kind));
            assert!(KINDS[..n].iter().all(|(_, c, t)| c != code && t != tree));
        }
    }

    proptest! {
        #[test]
        fn a_change_is_read_as_it_was_written(
            at in 0..KINDS.len(), key in ".*", value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..50)),
        ) {
            let mut bytes = Vec::new();
            encode(&(KINDS[at].0, key.clone()), value.as_deref(), &mut bytes);
            prop_assert_eq!(decode(&bytes), Some((KINDS[at].0, key.as_str(), value.as_deref())));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode(&bytes);
        }
    }
}
