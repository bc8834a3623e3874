//! From the names in a directory to what recovery has to do. Pure.

use crate::format::{IDENTITY, IDENTITY_TEMP, SEGMENT_HEADER};
use crate::fs::Entry;

/// A segment file by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) first: u64,
    /// Bytes.
    pub(crate) len: u64,
    /// Bytes of its sidecar, if there is one.
    pub(crate) index: Option<u64>,
}

/// What to do with a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Whether the identity file is there.
    pub(crate) identity: bool,
    /// Leftovers: unfinished files and sidecars without a segment.
    pub(crate) remove: Vec<String>,
    /// Segments by first offset.
    pub(crate) segments: Vec<Found>,
    /// Segments whose making was interrupted: shorter than their header. They bound nothing.
    pub(crate) unfinished: Vec<Found>,
    /// Files set aside by an earlier recovery.
    pub(crate) bad: Vec<Entry>,
    /// Names that are none of ours, left alone.
    pub(crate) unknown: Vec<String>,
}

/// Sorts out a directory.
pub(crate) fn plan(entries: &[Entry]) -> Plan {
    let mut plan = Plan::default();
    let mut indexes = Vec::new();
    for entry in entries {
        match kind(&entry.name) {
            Kind::Identity => plan.identity = true,
            Kind::Leftover => plan.remove.push(entry.name.clone()),
            Kind::Segment(first) => plan.segments.push(Found {
                first,
                len: entry.len,
                index: None,
            }),
            Kind::Index(first) => indexes.push((first, entry)),
            Kind::Bad => plan.bad.push(entry.clone()),
            Kind::Unknown => plan.unknown.push(entry.name.clone()),
        }
    }
    plan.segments.sort_by_key(|segment| segment.first);
    for (first, entry) in indexes {
        match plan
            .segments
            .binary_search_by_key(&first, |segment| segment.first)
        {
            Ok(at) => plan.segments[at].index = Some(entry.len),
            Err(_) => plan.remove.push(entry.name.clone()),
        }
    }
    (plan.segments, plan.unfinished) = plan
        .segments
        .into_iter()
        .partition(|segment| segment.len >= SEGMENT_HEADER as u64);
    plan.bad.sort_by(|a, b| a.name.cmp(&b.name));
    plan
}

enum Kind {
    Identity,
    Leftover,
    Segment(u64),
    Index(u64),
    Bad,
    Unknown,
}

fn kind(name: &str) -> Kind {
    if name == IDENTITY {
        return Kind::Identity;
    }
    if name == IDENTITY_TEMP {
        return Kind::Leftover;
    }
    let Some((digits, extension)) = name.split_once('.') else {
        return Kind::Unknown;
    };
    let first = (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten();
    match (first, extension) {
        (Some(first), "seg") => Kind::Segment(first),
        (Some(first), "idx") => Kind::Index(first),
        (Some(_), "bad") => Kind::Bad,
        _ => Kind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, len: u64) -> Entry {
        Entry {
            name: name.to_owned(),
            len,
        }
    }

    #[test]
    fn a_directory_is_sorted_out_by_names() {
        let plan = plan(&[
            entry("00000000000000000100.seg", 400),
            entry("00000000000000000100.idx", 96),
            entry("00000000000000000007.idx", 96),
            entry("00000000000000000020.seg", 300),
            entry("00000000000000000200.seg", 31),
            entry("00000000000000000003.bad", 9),
            entry("journal", 24),
            entry("journal.tmp", 24),
            entry("20.seg", 24),
            entry("99999999999999999999.seg", 24),
            entry("notes.txt", 1),
        ]);
        assert!(plan.identity);
        assert_eq!(plan.remove, ["journal.tmp", "00000000000000000007.idx"]);
        assert_eq!(
            plan.segments,
            [
                Found {
                    first: 20,
                    len: 300,
                    index: None
                },
                Found {
                    first: 100,
                    len: 400,
                    index: Some(96)
                }
            ]
        );
        assert_eq!(
            plan.unfinished,
            [Found {
                first: 200,
                len: 31,
                index: None
            }]
        );
        assert_eq!(plan.bad, [entry("00000000000000000003.bad", 9)]);
        assert_eq!(
            plan.unknown,
            ["20.seg", "99999999999999999999.seg", "notes.txt"]
        );
    }

    #[test]
    fn an_empty_directory_needs_nothing() {
        assert_eq!(plan(&[]), Plan::default());
    }
}
