//! Changes of the broker's state, and their form in the log of changes. A record is a group of
//! changes, so that a group is there whole or not at all; each of them is
//!
//! | bytes | what |
//! |---|---|
//! | 1 | the kind's code |
//! | 1 | 1: the key has this value; 0: the key is removed |
//! | 4 | length of the key, big-endian |
//! | 4 | length of the value, big-endian |
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
    /// What is under way to a session's client.
    Outgoing,
    /// Packet ids of QoS 2 received from a session's client.
    Inbound,
    /// Last wills of connected clients.
    Will,
    /// How far `Inbound` covers the journals.
    Marks,
    /// Durable shared subscriptions, with cursors of their own.
    Group,
}

/// Every kind. The code of a kind is on disk: it is never given to another.
pub(super) const KINDS: [(Kind, u8, &str); 9] = [
    (Kind::Meta, 0, "meta"),
    (Kind::Retained, 1, "retained"),
    (Kind::Session, 2, "sessions"),
    (Kind::Cursor, 3, "cursors"),
    (Kind::Outgoing, 4, "outgoing"),
    (Kind::Inbound, 5, "inbound"),
    (Kind::Will, 6, "wills"),
    (Kind::Marks, 7, "marks"),
    (Kind::Group, 8, "groups"),
];

impl Kind {
    pub(super) fn code(self) -> u8 {
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
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    let bytes = value.unwrap_or_default();
    out.push(kind.code());
    out.push(u8::from(value.is_some()));
    out.extend_from_slice(&length(key.as_bytes()));
    out.extend_from_slice(&length(bytes));
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(bytes);
}

/// Gives the changes of a record to `visit`. False when some of it is not what this version knows.
pub(super) fn decode<E>(
    mut record: &[u8],
    mut visit: impl FnMut(Kind, &str, Option<&[u8]>) -> Result<(), E>,
) -> Result<bool, E> {
    let mut all_known = true;
    while !record.is_empty() {
        let Some((code, key, value, rest)) = split(record) else {
            return Ok(false);
        };
        match (Kind::of_code(code), std::str::from_utf8(key)) {
            (Some(kind), Ok(key)) => visit(kind, key, value)?,
            _ => all_known = false,
        }
        record = rest;
    }
    Ok(all_known)
}

/// A change as it stands in a record: the kind's code, key and value, and what follows.
type Split<'a> = (u8, &'a [u8], Option<&'a [u8]>, &'a [u8]);

/// The first change of a record.
fn split(record: &[u8]) -> Option<Split<'_>> {
    let (&[code, present], rest) = record.split_first_chunk()?;
    let (key, rest) = rest.split_first_chunk()?;
    let (value, rest) = rest.split_first_chunk()?;
    let length = |bytes: &[u8; 4]| usize::try_from(u32::from_be_bytes(*bytes)).ok();
    let (key, rest) = rest.split_at_checked(length(key)?)?;
    let (value, rest) = rest.split_at_checked(length(value)?)?;
    let value = match present {
        0 if value.is_empty() => None,
        1 => Some(value),
        _ => return None,
    };
    Some((code, key, value, rest))
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
        fn changes_are_read_as_they_were_written(
            changes in proptest::collection::vec(
                (0..KINDS.len(), ".*", proptest::option::of(proptest::collection::vec(any::<u8>(), 0..50))), 0..5),
        ) {
            let mut bytes = Vec::new();
            for (at, key, value) in &changes {
                encode(&(KINDS[*at].0, key.clone()), value.as_deref(), &mut bytes);
            }
            let mut read = Vec::new();
            let known = decode(&bytes, |kind, key, value| {
                let at = KINDS.iter().position(|(known, ..)| *known == kind).unwrap();
                read.push((at, key.to_owned(), value.map(<[u8]>::to_vec)));
                Ok::<(), ()>(())
            });
            prop_assert_eq!(known, Ok(true));
            prop_assert_eq!(read, changes);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&bytes, |_, _, _| Ok::<(), ()>(()));
        }
    }

    #[test]
    fn a_kind_of_a_later_version_is_passed_over() {
        let mut bytes = vec![200, 1, 0, 0, 0, 1, 0, 0, 0, 1, b'k', b'v'];
        encode(&(Kind::Cursor, "c".into()), None, &mut bytes);
        let mut read = Vec::new();
        let known = decode(&bytes, |kind, key, _| {
            read.push((kind, key.to_owned()));
            Ok::<(), ()>(())
        });
        assert_eq!(known, Ok(false));
        assert_eq!(read, [(Kind::Cursor, "c".to_owned())]);
    }
}
