//! Reads rows of several files in one order: by device, then time, then number.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;

use thinglog_schemas::EventId;

use crate::block::{Messages, Numbers, Row, Unpack};
use crate::part::Part;

/// Blocks whose rows are in order.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) part: Arc<Part>,
    /// Which of the part's blocks.
    pub(crate) blocks: std::ops::Range<usize>,
}

impl Run {
    /// The runs of a part: one if it is sorted as a whole, else one a block.
    pub(crate) fn all(part: &Arc<Part>) -> Vec<Run> {
        let count = part.entries.len();
        let run = |blocks| Run {
            part: Arc::clone(part),
            blocks,
        };
        match part.directory {
            Some(_) => vec![run(0..count)],
            None => (0..count).map(|at| run(at..at + 1)).collect(),
        }
    }
}

/// A run while it is read.
struct Cursor {
    run: Run,
    block: Block,
    index: usize,
    device: usize,
}

/// A block as merges need it: all of it.
struct Block {
    numbers: Numbers,
    ids: Vec<EventId>,
    messages: Messages,
    attributes: Messages,
}

impl Block {
    fn read(unpack: &mut Unpack, part: &Part, index: usize) -> io::Result<Block> {
        let bytes = part.block(&part.entries[index])?;
        let mut read = || {
            let numbers = Numbers::read(unpack, &bytes)?;
            Ok(Block {
                ids: numbers.ids()?,
                numbers,
                messages: Messages::read(unpack, &bytes)?,
                attributes: Messages::attributes(unpack, &bytes)?,
            })
        };
        read().map_err(|error: io::Error| crate::part::named(&part.path, &error))
    }
}

/// Whether it will be the same whenever it is read: damage, an end where none should be, a bad sector.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, UnexpectedEof};
    const EIO: i32 = 5;
    matches!(error.kind(), InvalidData | UnexpectedEof) || error.raw_os_error() == Some(EIO)
}

type Key = (Arc<str>, u64, u64);

/// The next block of a run that can be read. A damaged one is left out, loudly: it would hold up all that
/// comes behind it for ever.
fn next_block(unpack: &mut Unpack, run: &mut Run) -> io::Result<Option<Block>> {
    for at in run.blocks.by_ref() {
        match Block::read(unpack, &run.part, at) {
            Ok(block) => return Ok(Some(block)),
            Err(error) if is_damage(&error) => {
                let events = run.part.entries[at].facts.rows;
                tracing::error!(%error, events, "a damaged block of the store is left out: its events are lost");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

impl Cursor {
    fn open(unpack: &mut Unpack, mut run: Run) -> io::Result<Option<Cursor>> {
        let block = next_block(unpack, &mut run)?;
        Ok(block.map(|block| Cursor {
            block,
            run,
            index: 0,
            device: 0,
        }))
    }

    fn key(&self) -> Key {
        let numbers = &self.block.numbers;
        (
            Arc::clone(&numbers.devices[self.device].0),
            numbers.at(self.index),
            numbers.row[self.index],
        )
    }

    fn row(&self) -> Row<'_> {
        let Block {
            numbers,
            ids,
            messages,
            attributes,
        } = &self.block;
        let device = &numbers.devices[self.device].0;
        numbers.row(
            device,
            self.index,
            ids[self.index],
            messages.get(self.index),
            attributes.get(self.index),
        )
    }

    /// Goes on to the next row; `false` at the end.
    fn advance(&mut self, unpack: &mut Unpack) -> io::Result<bool> {
        self.index += 1;
        if self.index == self.block.numbers.rows() {
            let Some(block) = next_block(unpack, &mut self.run)? else {
                return Ok(false);
            };
            self.block = block;
            (self.index, self.device) = (0, 0);
        }
        let devices = &self.block.numbers.devices;
        while devices[self.device].1.end <= self.index {
            self.device += 1;
        }
        Ok(true)
    }
}

/// Hands all rows on, in order.
pub(crate) fn merge(
    runs: Vec<Run>,
    mut row: impl FnMut(&Row<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let mut unpack = Unpack::new()?;
    let mut cursors = Vec::new();
    let mut heap = BinaryHeap::new();
    for run in runs {
        if let Some(cursor) = Cursor::open(&mut unpack, run)? {
            heap.push(Reverse((cursor.key(), cursors.len())));
            cursors.push(Some(cursor));
        }
    }
    while let Some(Reverse((_, which))) = heap.pop() {
        let Some(cursor) = &mut cursors[which] else {
            continue;
        };
        loop {
            row(&cursor.row())?;
            if !cursor.advance(&mut unpack)? {
                cursors[which] = None;
                break;
            }
            let next = Reverse((cursor.key(), which));
            // Rows of one run often follow each other.
            if heap
                .peek()
                .is_some_and(|first: &Reverse<(Key, usize)>| first.0 < next.0)
            {
                heap.push(next);
                break;
            }
        }
    }
    Ok(())
}
