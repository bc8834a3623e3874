//! From the names in a directory to what recovery has to do. Pure.

use crate::format::{IDENTITY, IDENTITY_TEMP, Name, SEGMENT_HEADER};
use crate::fs::Entry;

/// A segment file by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) name: Name,
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
    /// Files of segments that another one has taken the place of.
    pub(crate) replaced: Vec<String>,
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
            Kind::Segment(name) => plan.segments.push(Found {
                name,
                len: entry.len,
                index: None,
            }),
            Kind::Index(name) => indexes.push((name, entry)),
            Kind::Bad => plan.bad.push(entry.clone()),
            Kind::Unknown => plan.unknown.push(entry.name.clone()),
        }
    }
    for (name, entry) in indexes {
        match plan.segments.iter_mut().find(|found| found.name == name) {
            Some(found) => found.index = Some(entry.len),
            None => plan.remove.push(entry.name.clone()),
        }
    }
    plan.leave_out_replaced();
    (plan.segments, plan.unfinished) = plan
        .segments
        .into_iter()
        .partition(|segment| segment.len >= SEGMENT_HEADER as u64);
    plan.bad.sort_by(|a, b| a.name.cmp(&b.name));
    plan
}

impl Plan {
    /// Sorts the segments. Where one stands for a range, those that begin within it were replaced,
    /// also those that replaced others before.
    fn leave_out_replaced(&mut self) {
        let order = |found: &Found| (found.name.first, std::cmp::Reverse(found.name.through));
        self.segments.sort_by_key(order);
        let mut covered = 0;
        let replaced = &mut self.replaced;
        self.segments.retain(|found| {
            let keep = found.name.first >= covered;
            if keep {
                covered = found.name.through.unwrap_or(covered);
            } else {
                replaced.push(found.name.segment());
                replaced.extend(found.index.map(|_| found.name.index()));
            }
            keep
        });
    }
}

enum Kind {
    Identity,
    Leftover,
    Segment(Name),
    Index(Name),
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
    let Some((stem, extension)) = name.split_once('.') else {
        return Kind::Unknown;
    };
    match (Name::parse(stem), extension) {
        (Some(name), "seg") => Kind::Segment(name),
        (Some(name), "idx") => Kind::Index(name),
        (Some(_), "bad") => Kind::Bad,
        (Some(_), "new") => Kind::Leftover,
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
                    name: Name::plain(20),
                    len: 300,
                    index: None
                },
                Found {
                    name: Name::plain(100),
                    len: 400,
                    index: Some(96)
                }
            ]
        );
        assert_eq!(
            plan.unfinished,
            [Found {
                name: Name::plain(200),
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
    fn segments_that_were_replaced_are_left_out() {
        let plan = plan(&[
            entry("00000000000000000000.seg", 400),
            entry("00000000000000000010.seg", 400),
            entry("00000000000000000010-00000000000000000020.seg", 200),
            entry("00000000000000000010-00000000000000000030.seg", 100),
            entry("00000000000000000010-00000000000000000030.idx", 96),
            entry("00000000000000000020.seg", 400),
            entry("00000000000000000020.idx", 96),
            entry("00000000000000000030.seg", 400),
            entry("00000000000000000030-00000000000000000040.new", 7),
            entry("00000000000000000030-40.seg", 7),
        ]);
        let kept: Vec<Name> = plan.segments.iter().map(|found| found.name).collect();
        let merged = Name {
            first: 10,
            through: Some(30),
        };
        assert_eq!(kept, [Name::plain(0), merged, Name::plain(30)]);
        assert_eq!(plan.segments[1].index, Some(96));
        assert_eq!(
            plan.replaced,
            [
                "00000000000000000010-00000000000000000020.seg",
                "00000000000000000010.seg",
                "00000000000000000020.seg",
                "00000000000000000020.idx",
            ]
        );
        assert_eq!(
            plan.remove,
            ["00000000000000000030-00000000000000000040.new"]
        );
        assert_eq!(plan.unknown, ["00000000000000000030-40.seg"]);
    }

    #[test]
    fn an_empty_directory_needs_nothing() {
        assert_eq!(plan(&[]), Plan::default());
    }
}
