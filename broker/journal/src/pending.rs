//! What was appended and is not decided. Pure.
//!
//! Frames are collected in blocks, so that nothing is moved when much is waiting; a block that was
//! written goes on living as a group of the tail, and comes back here when it is let go.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use crate::format;

/// A block is this large when the journal is busy.
const BLOCK: usize = 1 << 20;
/// A block is no smaller.
const LEAST: usize = 512;
/// The writer takes about this much at once: more would only make the first wait for the last.
const GROUP: usize = 4 << 20;
/// Blocks kept for reuse.
const SPARES: usize = GROUP / BLOCK;

/// Stamped frames with consecutive offsets.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(crate) frames: Vec<u8>,
    pub(crate) first: u64,
    /// One past the last offset.
    pub(crate) end: u64,
    pub(crate) max_time: u64,
}

#[derive(Default)]
pub(crate) struct Pending {
    blocks: VecDeque<Block>,
    waiting: usize,
    /// Size of the next block.
    hint: usize,
    spares: Vec<Vec<u8>>,
    /// Next offset to be given.
    pub(crate) next: u64,
    /// Bytes the writer has taken and not decided.
    pub(crate) in_flight: usize,
    /// Bytes on disk, as of the last decision.
    pub(crate) held: u64,
    /// A request to close the last segment if it is older than this.
    pub(crate) expire: Option<u64>,
    pub(crate) poisoned: bool,
    pub(crate) closing: bool,
}

impl Pending {
    /// Nothing pending; `next` is the first offset to be given, `held` bytes are on disk.
    pub(crate) fn new(next: u64, held: u64) -> Pending {
        Pending {
            next,
            held,
            ..Pending::default()
        }
    }

    /// Bytes not decided.
    pub(crate) fn bytes(&self) -> usize {
        self.waiting + self.in_flight
    }

    /// Copies closed frames, gives them offsets and `time`.
    pub(crate) fn push(
        &mut self,
        frames: &[u8],
        records: usize,
        time: u64,
        key: u32,
    ) -> Range<u64> {
        let first = self.next;
        self.next += records as u64;
        self.waiting += frames.len();
        let fits = |block: &Block| block.frames.capacity() - block.frames.len() >= frames.len();
        if !self.blocks.back().is_some_and(fits) {
            let block = Block {
                frames: self.buffer(frames.len()),
                first,
                ..Block::default()
            };
            self.blocks.push_back(block);
        }
        if let Some(block) = self.blocks.back_mut() {
            let start = block.frames.len();
            block.frames.extend_from_slice(frames);
            format::stamp(&mut block.frames[start..], first, time, key);
            block.end = self.next;
            block.max_time = block.max_time.max(time);
        }
        first..self.next
    }

    fn buffer(&mut self, least: usize) -> Vec<u8> {
        let before = self
            .blocks
            .back()
            .map_or(0, |block| block.frames.capacity());
        let size = self.hint.max(2 * before).clamp(LEAST, BLOCK).max(least);
        match self.spares.pop() {
            Some(spare) if size == BLOCK => spare,
            Some(spare) => {
                self.spares.push(spare);
                Vec::with_capacity(size)
            }
            None => Vec::with_capacity(size),
        }
    }

    /// Takes the next group; empty when nothing waits.
    pub(crate) fn take(&mut self) -> Vec<Block> {
        let mut group = Vec::new();
        let mut bytes = 0;
        while bytes < GROUP
            && let Some(block) = self.blocks.pop_front()
        {
            bytes += block.frames.len();
            group.push(block);
        }
        self.waiting -= bytes;
        self.in_flight += bytes;
        if bytes > 0 {
            self.hint = bytes.next_power_of_two().min(BLOCK);
        }
        group
    }

    /// Forgets everything that waits or is being written.
    pub(crate) fn drop_all(&mut self) {
        self.blocks.clear();
        self.waiting = 0;
        self.in_flight = 0;
    }

    /// Keeps the memory of a group that nobody holds any more.
    pub(crate) fn recycle(&mut self, mut frames: Bytes, capacity: usize) {
        if capacity == BLOCK && self.spares.len() < SPARES && frames.is_unique() {
            // Without content there is nothing to copy on the way back.
            frames.truncate(0);
            self.spares.push(Vec::from(frames));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Records;

    fn push(pending: &mut Pending, len: usize) -> Range<u64> {
        let mut records = Records::new();
        records.push(&vec![1; len]);
        pending.push(records.frames(), 1, 5, 0)
    }

    #[test]
    fn a_group_is_bounded_and_the_rest_waits() {
        let mut pending = Pending::new(10, 0);
        for n in 0..100 {
            assert_eq!(push(&mut pending, 100 << 10), 10 + n..11 + n);
        }
        let all = pending.bytes();
        let group = pending.take();
        let bytes: usize = group.iter().map(|block| block.frames.len()).sum();
        assert!((GROUP..GROUP + BLOCK).contains(&bytes));
        assert_eq!((pending.bytes(), pending.in_flight), (all, bytes));
        let mut next = 10;
        for block in group
            .into_iter()
            .chain(pending.take())
            .chain(pending.take())
        {
            assert_eq!((block.first, block.max_time), (next, 5));
            assert!(block.frames.capacity() <= BLOCK);
            next = block.end;
        }
        assert_eq!(next, 110);
        assert!(pending.take().is_empty());
    }

    #[test]
    fn blocks_are_as_small_as_the_load() {
        let mut pending = Pending::new(0, 0);
        push(&mut pending, 100);
        assert_eq!(pending.take()[0].frames.capacity(), LEAST);
        push(&mut pending, 50_000);
        assert_eq!(pending.take()[0].frames.capacity(), 50_024);
        push(&mut pending, 100);
        assert_eq!(pending.take()[0].frames.capacity(), 64 << 10);
    }

    #[test]
    fn a_large_block_comes_back_when_nobody_holds_it() {
        let mut pending = Pending::new(0, 0);
        pending.hint = BLOCK;
        push(&mut pending, 1000);
        let mut group = pending.take();
        let frames = std::mem::take(&mut group[0].frames);
        let (at, capacity) = (frames.as_ptr(), frames.capacity());
        let frames = Bytes::from(frames);
        pending.recycle(frames.clone(), capacity);
        assert!(pending.spares.is_empty());
        pending.recycle(frames, capacity);
        pending.hint = BLOCK;
        push(&mut pending, 1000);
        let again = pending.take();
        assert_eq!(
            (again[0].frames.as_ptr(), again[0].frames.capacity()),
            (at, BLOCK)
        );
    }
}
