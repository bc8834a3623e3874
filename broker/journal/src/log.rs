//! What a journal holds and has decided: segments, marks, the tail, failures, cuts. Plain data
//! under one lock; nothing here touches a file.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Weak};

use crate::Failure;
use crate::format::{Name, SEGMENT_HEADER};
use crate::fs::FsFile;
use crate::index::{self, Index, Mark, Marks};
use crate::shared::Part;
use crate::tail::{Group, Tail};

/// Remembered ranges of failed offsets; adjacent ones of one kind are one.
const FAILURES: usize = 4096;
/// Remembered deletions, for counting what a late reader missed.
const CUTS: usize = 1024;
/// Remembered places of damage, so that several readers count each once.
const DAMAGES: usize = 4096;

/// One segment file.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) first: u64,
    /// It has replaced the segments below this.
    pub(crate) through: Option<u64>,
    /// Changes when the file does.
    pub(crate) version: u64,
    /// One past the last durable offset; `first` when empty.
    pub(crate) end: u64,
    /// Durable bytes, header included.
    pub(crate) bytes: u64,
    /// Bytes of the sidecar; 0 when there is none.
    pub(crate) index_bytes: u64,
    pub(crate) records: u64,
    /// Greatest time of its records, ns since the epoch.
    pub(crate) max_time: u64,
    /// Open file shared by readers that are in this segment.
    pub(crate) file: Option<Weak<dyn FsFile>>,
}

impl Segment {
    pub(crate) fn empty(first: u64, file: &Arc<dyn FsFile>) -> Segment {
        Segment {
            first,
            through: None,
            version: 0,
            end: first,
            bytes: SEGMENT_HEADER as u64,
            index_bytes: 0,
            records: 0,
            max_time: 0,
            file: Some(Arc::downgrade(file)),
        }
    }

    pub(crate) fn name(&self) -> Name {
        Name {
            first: self.first,
            through: self.through,
        }
    }

    /// Its files, to be removed.
    pub(crate) fn dead(&self) -> impl Iterator<Item = Dead> {
        let files = [
            (self.name().segment(), self.bytes),
            (self.name().index(), self.index_bytes),
        ];
        let files = files.into_iter().filter(|(_, bytes)| *bytes > 0);
        files.map(|(name, bytes)| Dead {
            name,
            bytes,
            evidence: false,
        })
    }
}

/// A file that no longer counts as content but takes space until it is removed.
#[derive(Clone, Debug)]
pub(crate) struct Dead {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// Set aside by recovery: kept until its room is needed.
    pub(crate) evidence: bool,
}

/// Failed offsets.
#[derive(Default)]
pub(crate) struct Failures {
    ranges: VecDeque<(Range<u64>, Failure)>,
    /// Failures below this may have been forgotten.
    forgotten: u64,
}

impl Failures {
    pub(crate) fn push(&mut self, range: Range<u64>, failure: Failure) {
        if let Some((last, kind)) = self.ranges.back_mut()
            && last.end == range.start
            && *kind == failure
        {
            last.end = range.end;
            return;
        }
        self.ranges.push_back((range, failure));
        if self.ranges.len() > FAILURES
            && let Some((oldest, _)) = self.ranges.pop_front()
        {
            self.forgotten = oldest.end;
        }
    }

    /// How `offset` failed. Where that may have been forgotten the answer is a failure: to be told
    /// so wrongly makes a sender repeat, to be told otherwise would lose.
    pub(crate) fn get(&self, offset: u64) -> Option<Failure> {
        if offset < self.forgotten {
            return Some(Failure::Io);
        }
        let at = self
            .ranges
            .partition_point(|(range, _)| range.end <= offset);
        self.ranges
            .get(at)
            .filter(|(range, _)| range.contains(&offset))
            .map(|(_, kind)| *kind)
    }
}

/// Deleted ranges and how many records they had.
#[derive(Default)]
pub(crate) struct Cuts(VecDeque<(Range<u64>, u64)>);

impl Cuts {
    pub(crate) fn push(&mut self, range: Range<u64>, records: u64) {
        self.0.push_back((range, records));
        if self.0.len() > CUTS
            && let Some((oldest, count)) = self.0.pop_front()
            && let Some((next, more)) = self.0.front_mut()
        {
            next.start = oldest.start;
            *more += count;
        }
    }

    /// How many records were deleted between `from` and `to`, as far as is known: exact for whole
    /// deletions of this lifetime, an upper bound otherwise.
    pub(crate) fn missed(&self, from: u64, to: u64) -> u64 {
        let known = self.0.front().map_or(to, |(range, _)| range.start);
        let unknown = known.min(to).saturating_sub(from);
        let counted = self.0.iter().map(|(range, records)| {
            let overlap = range.end.min(to).saturating_sub(range.start.max(from));
            overlap.min(*records)
        });
        unknown + counted.sum::<u64>()
    }
}

/// Everything a reader or an observer may ask for.
pub(crate) struct Log {
    /// Oldest first, never empty; the last is the one written to.
    pub(crate) segments: VecDeque<Segment>,
    /// Marks of the last segment.
    pub(crate) marks: Marks,
    pub(crate) dead: Vec<Dead>,
    /// Bytes of a segment that is being made to replace others.
    pub(crate) reserved: u64,
    /// What is on disk is not known for certain: nothing is deleted until the journal is opened
    /// again.
    pub(crate) frozen: bool,
    pub(crate) tail: Tail,
    pub(crate) failures: Failures,
    pub(crate) cuts: Cuts,
    /// Every offset below is decided.
    pub(crate) settled: u64,
    pub(crate) quarantined: u64,
    pub(crate) cut_records: u64,
    pub(crate) syncs: u64,
    pub(crate) sync_ns: u64,
    damages: BTreeSet<(u64, u64)>,
}

/// What a reader needs of a segment.
pub(crate) struct View {
    pub(crate) first: u64,
    pub(crate) name: Name,
    pub(crate) version: u64,
    pub(crate) end: u64,
    pub(crate) bytes: u64,
    /// Bytes of the sidecar.
    pub(crate) index_bytes: u64,
    pub(crate) file: Option<Arc<dyn FsFile>>,
    /// Where to start; `None`: ask the sidecar.
    pub(crate) mark: Option<Mark>,
}

impl Log {
    /// A log of `segments`, which must not be empty, whose next offset is `next`.
    pub(crate) fn new(
        segments: VecDeque<Segment>,
        marks: Marks,
        next: u64,
        tail_bytes: usize,
    ) -> Log {
        Log {
            segments,
            marks,
            dead: Vec::new(),
            reserved: 0,
            frozen: false,
            tail: Tail::new(next, tail_bytes),
            failures: Failures::default(),
            cuts: Cuts::default(),
            settled: next,
            quarantined: 0,
            cut_records: 0,
            syncs: 0,
            sync_ns: 0,
            damages: BTreeSet::new(),
        }
    }

    /// Oldest offset held.
    pub(crate) fn first(&self) -> u64 {
        self.segments
            .front()
            .map_or(self.settled, |segment| segment.first)
    }

    /// Bytes on disk.
    pub(crate) fn held(&self) -> u64 {
        let segments: u64 = self.segments.iter().map(|s| s.bytes + s.index_bytes).sum();
        segments + self.dead.iter().map(|dead| dead.bytes).sum::<u64>() + self.reserved
    }

    /// The oldest segment that is not being written to, if `goes` says so, taken out.
    pub(crate) fn take_oldest(&mut self, goes: impl FnOnce(&Segment) -> bool) -> Option<Segment> {
        if self.frozen || self.segments.len() < 2 || !goes(self.segments.front()?) {
            return None;
        }
        let segment = self.segments.pop_front()?;
        self.cuts.push(segment.first..self.first(), segment.records);
        Some(segment)
    }

    /// The segment with the first durable record at or after `offset`.
    pub(crate) fn view(&self, offset: u64) -> Option<View> {
        let at = self
            .segments
            .partition_point(|segment| segment.end <= offset);
        let segment = self.segments.get(at)?;
        Some(self.view_of(segment, |marks| index::before_offset(marks, offset)))
    }

    /// The first segment that ends behind `offset` and has a record at or after `time`.
    pub(crate) fn view_at(&self, offset: u64, time: u64) -> Option<View> {
        let mut segments = self.segments.iter();
        let segment = segments.find(|s| s.end > offset && s.records > 0 && s.max_time >= time)?;
        Some(self.view_of(segment, |marks| index::before_time(marks, time)))
    }

    fn view_of(&self, segment: &Segment, mark: impl FnOnce(&[Mark]) -> Option<Mark>) -> View {
        let last = self
            .segments
            .back()
            .is_some_and(|last| last.first == segment.first);
        let start = Mark {
            offset: segment.first,
            pos: SEGMENT_HEADER as u64,
            time: 0,
        };
        View {
            first: segment.first,
            name: segment.name(),
            version: segment.version,
            end: segment.end,
            bytes: segment.bytes,
            index_bytes: segment.index_bytes,
            file: segment.file.as_ref().and_then(Weak::upgrade),
            mark: last.then(|| mark(self.marks.as_slice()).unwrap_or(start)),
        }
    }

    /// Adds what is durable now; groups that left memory for it go to `dropped`.
    pub(crate) fn add(&mut self, part: Part, dropped: &mut Vec<Group>) {
        let Part {
            first,
            end,
            records,
            max_time,
            frames,
            cost,
        } = part;
        if let Some(segment) = self.segments.back_mut() {
            self.marks.note(first, segment.bytes, segment.max_time);
            segment.bytes += frames.len() as u64;
            segment.end = end;
            segment.records += records;
            segment.max_time = segment.max_time.max(max_time);
        }
        self.tail.push(first, end, frames, cost, dropped);
        self.settled = end;
    }

    /// Lets other readers of the segment share an open file.
    pub(crate) fn share(&mut self, view: &View, file: &Arc<dyn FsFile>) {
        if let Ok(at) = self
            .segments
            .binary_search_by_key(&view.first, |segment| segment.first)
            && self.segments[at].version == view.version
        {
            self.segments[at].file = Some(Arc::downgrade(file));
        }
    }

    /// Where the closed segments between `from` and `through` stand, when these are their bounds.
    pub(crate) fn run(&self, from: u64, through: u64) -> Option<Range<usize>> {
        let start = self.segments.partition_point(|s| s.first < from);
        let end = self.segments.partition_point(|s| s.first < through);
        let run = self.segments.range(start..end.max(start));
        let exact = run.clone().next().is_some_and(|s| s.first == from)
            && run.clone().next_back().is_some_and(|s| s.end == through);
        (exact && end < self.segments.len()).then_some(start..end)
    }

    /// Puts `with` in the place of the segments in `run`. Returns their files, but for one that has
    /// the name of the new one.
    pub(crate) fn replace(&mut self, run: Range<usize>, mut with: Segment) -> Vec<Dead> {
        let version = self.segments.iter().map(|s| s.version).max();
        with.version = version.unwrap_or(0) + 1;
        self.tail.forget_below(with.end);
        let kept = with.name().segment();
        let old: Vec<Segment> = self.segments.drain(run.clone()).collect();
        self.segments.insert(run.start, with);
        let dead = old.iter().flat_map(Segment::dead);
        dead.filter(|file| file.name != kept).collect()
    }

    /// The index of the last segment, and its name.
    pub(crate) fn index(&self) -> Option<(Name, Index)> {
        let last = self.segments.back()?;
        let index = Index {
            first: last.first,
            end: last.end,
            bytes: last.bytes,
            records: last.records,
            max_time: last.max_time,
            damaged: 0,
            marks: self.marks.as_slice().to_vec(),
        };
        Some((last.name(), index))
    }

    /// Counts damage at `pos` of the segment `first`, once; whether it was new.
    pub(crate) fn note_damage(&mut self, first: u64, pos: u64) -> bool {
        if self.damages.len() >= DAMAGES || !self.damages.insert((first, pos)) {
            return false;
        }
        self.quarantined += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_failures_are_one_range() {
        let mut failures = Failures::default();
        failures.push(3..5, Failure::NoSpace);
        failures.push(5..9, Failure::NoSpace);
        failures.push(9..10, Failure::Io);
        assert_eq!(failures.ranges.len(), 2);
        assert_eq!(failures.get(2), None);
        assert_eq!(failures.get(8), Some(Failure::NoSpace));
        assert_eq!(failures.get(9), Some(Failure::Io));
        assert_eq!(failures.get(10), None);
    }

    #[test]
    fn a_forgotten_failure_is_never_called_durable() {
        let mut failures = Failures::default();
        for n in 0..FAILURES as u64 + 1 {
            failures.push(n * 2..n * 2 + 1, Failure::NoSpace);
        }
        assert_eq!(failures.ranges.len(), FAILURES);
        assert_eq!(failures.get(0), Some(Failure::Io));
        assert_eq!(failures.get(1), None);
    }

    #[test]
    fn missed_counts_records_not_offsets() {
        let mut cuts = Cuts::default();
        assert_eq!(cuts.missed(10, 30), 20);
        cuts.push(10..20, 4);
        cuts.push(20..30, 10);
        assert_eq!(cuts.missed(10, 30), 14);
        assert_eq!(cuts.missed(25, 30), 5);
        assert_eq!(cuts.missed(18, 30), 12);
        // Nothing is known about what was before 10.
        assert_eq!(cuts.missed(7, 30), 17);
    }

    #[test]
    fn old_cuts_are_merged_not_lost() {
        let mut cuts = Cuts::default();
        for n in 0..2 * CUTS as u64 {
            cuts.push(n..n + 1, 1);
        }
        assert_eq!(cuts.0.len(), CUTS);
        assert_eq!(cuts.missed(0, 2 * CUTS as u64), 2 * CUTS as u64);
    }
}
