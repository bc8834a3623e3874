//! Records on their way in (`Records`) and out (`Chunk`, `Record`). Both hold the very bytes of the
//! disk's layout, so that nothing is encoded twice and payloads are slices.

use bytes::{Buf, Bytes};

use crate::format::{self, Head, RECORD_HEADER};

/// Records to append together; a reusable buffer.
#[derive(Clone, Debug, Default)]
pub struct Records {
    buf: Vec<u8>,
    count: usize,
    largest: usize,
}

impl Records {
    /// An empty buffer.
    pub fn new() -> Records {
        Records::default()
    }

    /// Adds one record, written by `fill` at the end of the buffer it is handed.
    ///
    /// # Panics
    /// If `fill` shortens the buffer: it may only append.
    pub fn push_with(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = format::open_frame(&mut self.buf);
        fill(&mut self.buf);
        let frame = self.buf.len().saturating_sub(start);
        assert!(
            frame >= RECORD_HEADER,
            "push_with: fill shortened the buffer"
        );
        format::close_frame(&mut self.buf, start);
        self.count += 1;
        self.largest = self.largest.max(frame - RECORD_HEADER);
    }

    /// Adds one record.
    pub fn push(&mut self, payload: &[u8]) {
        self.push_with(|buf| buf.extend_from_slice(payload));
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Bytes the records take in the journal, framing included.
    pub fn bytes(&self) -> usize {
        self.buf.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Removes all records, keeps the memory.
    pub fn clear(&mut self) {
        self.buf.clear();
        self.count = 0;
        self.largest = 0;
    }

    /// Payload bytes of the largest record.
    pub(crate) fn largest(&self) -> usize {
        self.largest
    }

    pub(crate) fn frames(&self) -> &[u8] {
        &self.buf
    }
}

/// Consecutive records. Iterating copies nothing: payloads are slices of one shared buffer, which
/// lives as long as any of them does.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// Whole, intact frames.
    pub(crate) frames: Bytes,
    pub(crate) end: u64,
    /// Records that were deleted before the reader came to them, as far as is known.
    pub missed: u64,
    /// Damaged places that the reader stepped over on its way here.
    pub quarantined: u64,
}

/// One record as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the journal; ascends, with gaps.
    pub offset: u64,
    /// The time given to `append`, ns since the epoch.
    pub time: u64,
    /// What was appended.
    pub payload: Bytes,
}

impl Chunk {
    /// Takes the first record off the chunk.
    pub fn next_record(&mut self) -> Option<Record> {
        let head = Head::read(&self.frames)?;
        if head.frame() > self.frames.len() {
            return None;
        }
        let mut payload = self.frames.split_to(head.frame());
        payload.advance(RECORD_HEADER);
        Some(Record {
            offset: head.offset,
            time: head.time,
            payload,
        })
    }

    /// The records, in order.
    pub fn records(&self) -> impl Iterator<Item = Record> + use<> {
        let mut rest = self.clone();
        std::iter::from_fn(move || rest.next_record())
    }

    /// One past the last offset.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes of all records, framing included.
    pub fn bytes(&self) -> usize {
        self.frames.len()
    }
}

/// Bytes before the first frame with an offset of at least `offset`, from `from` on.
pub(crate) fn skip_to(frames: &[u8], from: usize, offset: u64) -> usize {
    let mut at = from.min(frames.len());
    while let Some(head) = frames.get(at..).and_then(Head::read) {
        if head.offset >= offset {
            break;
        }
        at += head.frame();
    }
    at.min(frames.len())
}

/// The first frames of `frames` that fit in `limit` bytes, at least one: their length, how many they
/// are, the last one's offset and the greatest time.
pub(crate) fn prefix(frames: &[u8], limit: usize) -> Prefix {
    let mut prefix = Prefix::default();
    while let Some(head) = frames.get(prefix.bytes..).and_then(Head::read) {
        let end = prefix.bytes + head.frame();
        if end > frames.len() || (end > limit && prefix.records > 0) {
            break;
        }
        prefix.bytes = end;
        prefix.records += 1;
        prefix.last = head.offset;
        prefix.max_time = prefix.max_time.max(head.time);
    }
    prefix
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) bytes: usize,
    pub(crate) records: u64,
    pub(crate) last: u64,
    pub(crate) max_time: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(payloads: &[&[u8]], first: u64, time: u64) -> Bytes {
        let mut records = Records::new();
        for payload in payloads {
            records.push(payload);
        }
        let mut buf = records.frames().to_vec();
        format::stamp(&mut buf, first, time, 0);
        Bytes::from(buf)
    }

    #[test]
    fn a_chunk_yields_what_was_pushed() {
        let chunk = Chunk {
            frames: frames(&[b"a", b"", b"ccc"], 10, 5),
            end: 13,
            ..Chunk::default()
        };
        let got: Vec<_> = chunk
            .records()
            .map(|r| (r.offset, r.time, r.payload.to_vec()))
            .collect();
        assert_eq!(
            got,
            [
                (10, 5, b"a".to_vec()),
                (11, 5, vec![]),
                (12, 5, b"ccc".to_vec())
            ]
        );
    }

    #[test]
    fn skipping_lands_on_the_record_or_the_next_one() {
        let frames = frames(&[b"a", b"b", b"c"], 10, 5);
        assert_eq!(skip_to(&frames, 0, 3), 0);
        assert_eq!(skip_to(&frames, 0, 11), 25);
        assert_eq!(skip_to(&frames, 25, 12), 50);
        assert_eq!(skip_to(&frames, 0, 99), 75);
    }

    #[test]
    fn a_prefix_has_whole_records_and_at_least_one() {
        let frames = frames(&[b"aaaaaaaaaa", b"b", b"c"], 10, 5);
        let prefix = |limit| prefix(&frames, limit);
        assert_eq!(
            prefix(1),
            Prefix {
                bytes: 34,
                records: 1,
                last: 10,
                max_time: 5
            }
        );
        assert_eq!(
            prefix(60),
            Prefix {
                bytes: 59,
                records: 2,
                last: 11,
                max_time: 5
            }
        );
        assert_eq!(
            prefix(1000),
            Prefix {
                bytes: 84,
                records: 3,
                last: 12,
                max_time: 5
            }
        );
    }

    #[test]
    fn clearing_forgets_the_largest() {
        let mut records = Records::new();
        records.push(&[0; 100]);
        records.clear();
        records.push(b"x");
        assert_eq!(
            (records.len(), records.largest(), records.bytes()),
            (1, 1, 25)
        );
    }
}
