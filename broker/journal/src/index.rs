//! The sidecar of a closed segment: what it holds and sparse marks into it, so that opening a
//! journal and finding a place in it need no scan. Derived data: a missing or damaged index costs
//! time, nothing else. Its layout is described in the head of the crate.

use crate::format::{self, u32_at, u64_at};

const MAGIC: [u8; 8] = *b"tlog-idx";
const VERSION: u32 = 1;
const FIXED: usize = 72;
const MARK: usize = 24;
/// Marks are at least this many bytes apart.
const STEP: u64 = 256 << 10;

/// A place in a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Offset of the record that starts here.
    pub(crate) offset: u64,
    /// Bytes from the start of the file.
    pub(crate) pos: u64,
    /// Greatest time of the segment's records before this one.
    pub(crate) time: u64,
}

/// Marks of a growing segment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks(Vec<Mark>);

impl Marks {
    pub(crate) fn new(marks: Vec<Mark>) -> Marks {
        Marks(marks)
    }

    /// Notes that a record starts at `pos`, if the last mark is far enough away.
    pub(crate) fn note(&mut self, offset: u64, pos: u64, time: u64) {
        if self.0.last().is_none_or(|last| pos >= last.pos + STEP) {
            self.0.push(Mark { offset, pos, time });
        }
    }

    pub(crate) fn as_slice(&self) -> &[Mark] {
        &self.0
    }

    pub(crate) fn into_inner(self) -> Vec<Mark> {
        self.0
    }
}

/// The last mark from which walking forward meets `offset`.
pub(crate) fn before_offset(marks: &[Mark], offset: u64) -> Option<Mark> {
    let behind = marks.partition_point(|mark| mark.offset <= offset);
    marks.get(behind.checked_sub(1)?).copied()
}

/// The last mark from which walking forward meets the first record at or after `time`.
pub(crate) fn before_time(marks: &[Mark], time: u64) -> Option<Mark> {
    let behind = marks.partition_point(|mark| mark.time < time);
    marks.get(behind.checked_sub(1)?).copied()
}

/// What the sidecar says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) first: u64,
    /// One past the last offset.
    pub(crate) end: u64,
    /// Length of the segment file; an index of another length is stale.
    pub(crate) bytes: u64,
    pub(crate) records: u64,
    pub(crate) max_time: u64,
    /// Damaged places found when the segment was last surveyed.
    pub(crate) damaged: u64,
    pub(crate) marks: Vec<Mark>,
}

/// Bytes of an index with so many marks.
pub(crate) fn encoded_len(marks: usize) -> u64 {
    (FIXED + marks * MARK + 4) as u64
}

/// The most an index of a segment of `bytes` takes.
pub(crate) fn largest(bytes: u64) -> u64 {
    encoded_len(usize::try_from(bytes / STEP).unwrap_or(usize::MAX / 64) + 1)
}

impl Index {
    pub(crate) fn encode(&self, id: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED + self.marks.len() * MARK + 4);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(self.marks.len() as u32).to_le_bytes());
        for value in [
            id,
            self.first,
            self.end,
            self.bytes,
            self.records,
            self.max_time,
            self.damaged,
        ] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        for mark in &self.marks {
            for value in [mark.offset, mark.pos, mark.time] {
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
        format::close_with_crc(&mut out);
        out
    }

    /// The index in `buf`, if it is intact and of segment `first` of journal `id`.
    pub(crate) fn decode(buf: &[u8], id: u64, first: u64) -> Option<Index> {
        let body = format::checked(buf)?;
        let count = u32_at(body, 12)? as usize;
        if !body.starts_with(&MAGIC)
            || u32_at(body, 8)? != VERSION
            || u64_at(body, 16)? != id
            || u64_at(body, 24)? != first
            || body.len() != count.checked_mul(MARK)?.checked_add(FIXED)?
        {
            return None;
        }
        let marks = body[FIXED..].chunks_exact(MARK).map(|mark| {
            Some(Mark {
                offset: u64_at(mark, 0)?,
                pos: u64_at(mark, 8)?,
                time: u64_at(mark, 16)?,
            })
        });
        Some(Index {
            first,
            end: u64_at(body, 32)?,
            bytes: u64_at(body, 40)?,
            records: u64_at(body, 48)?,
            max_time: u64_at(body, 56)?,
            damaged: u64_at(body, 64)?,
            marks: marks.collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        let mut marks = Marks::default();
        marks.note(10, 32, 0);
        marks.note(11, 60, 5);
        marks.note(90, 32 + STEP, 7);
        let marks = marks.into_inner();
        Index {
            first: 10,
            end: 100,
            bytes: 300_000,
            records: 88,
            max_time: 9,
            damaged: 1,
            marks,
        }
    }

    #[test]
    fn an_index_reads_back_and_only_for_its_segment() {
        let bytes = index().encode(3);
        assert_eq!(bytes.len() as u64, encoded_len(2));
        assert_eq!(Index::decode(&bytes, 3, 10), Some(index()));
        assert_eq!(Index::decode(&bytes, 4, 10), None);
        assert_eq!(Index::decode(&bytes, 3, 11), None);
        for cut in 0..bytes.len() {
            assert_eq!(Index::decode(&bytes[..cut], 3, 10), None);
        }
    }

    #[test]
    fn marks_are_sparse_and_found_by_offset_and_time() {
        let marks = index().marks;
        assert_eq!(marks.len(), 2);
        assert_eq!(before_offset(&marks, 9), None);
        assert_eq!(before_offset(&marks, 89).unwrap().offset, 10);
        assert_eq!(before_offset(&marks, 90).unwrap().offset, 90);
        // The greatest time before record 90 is 7: the first record at or after 7 may be before it.
        assert_eq!(before_time(&marks, 7).unwrap().offset, 10);
        assert_eq!(before_time(&marks, 8).unwrap().offset, 90);
        assert_eq!(before_time(&marks, 0), None);
    }
}
