//! Walking a segment file: runs of intact records, and the way past damage.
//!
//! A record that is not intact is stepped over: first by its own length, if an intact record stands
//! right behind it, else by searching byte by byte for the next intact one. The length goes first
//! because a payload may itself contain what looks like a record.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::format::{self, Head, MAX_PAYLOAD, RECORD_HEADER, SEGMENT_HEADER};
use crate::fs::{FsFile, read_block};
use crate::index::{Mark, Marks};

/// Offsets may skip this far from one record to the next (failed groups leave gaps); anything beyond
/// is damage.
const MAX_GAP: u64 = 1 << 40;
/// Bytes read at once while searching or surveying.
const BLOCK: usize = 1 << 20;

/// A place in a segment file, and what the records from there on must be like.
pub(crate) struct Walk {
    pub(crate) file: Arc<dyn FsFile>,
    pub(crate) key: u32,
    /// Bytes from the start of the file.
    pub(crate) pos: u64,
    /// Nothing at or behind this is looked at.
    pub(crate) limit: u64,
    /// The least offset the next record may have.
    pub(crate) next: u64,
    /// All offsets are below this.
    pub(crate) bound: u64,
}

/// Consecutive intact records.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) pos: u64,
    pub(crate) frames: Bytes,
    pub(crate) first: u64,
    /// One past the last offset.
    pub(crate) end: u64,
    pub(crate) records: u64,
    pub(crate) max_time: u64,
}

#[derive(Debug)]
pub(crate) enum Step {
    Run(Run),
    /// `bytes` at `at` are no record; an intact one follows.
    Damaged {
        at: u64,
        bytes: u64,
    },
    /// `bytes` at `at` up to the limit are no record.
    Torn {
        at: u64,
        bytes: u64,
    },
    End,
}

#[derive(Default)]
struct Extent {
    bytes: usize,
    first: u64,
    end: u64,
    records: u64,
    max_time: u64,
}

impl Walk {
    /// Takes the next step, reading about `want` bytes.
    pub(crate) fn step(&mut self, want: usize) -> io::Result<Step> {
        let left = self.limit.saturating_sub(self.pos);
        if left == 0 {
            return Ok(Step::End);
        }
        let mut block = self.block(self.pos, want.max(RECORD_HEADER))?;
        let mut extent = self.extent(&block);
        if extent.records == 0
            && let Some(head) = self.plausible(&block, self.pos)
            && head.frame() > block.len()
        {
            block = self.block(self.pos, head.frame())?;
            extent = self.extent(&block);
        }
        let at = self.pos;
        if extent.records > 0 {
            block.truncate(extent.bytes);
            self.pos += extent.bytes as u64;
            self.next = extent.end;
            let Extent {
                first,
                end,
                records,
                max_time,
                ..
            } = extent;
            return Ok(Step::Run(Run {
                pos: at,
                frames: block.into(),
                first,
                end,
                records,
                max_time,
            }));
        }
        Ok(match self.resync(&block)? {
            Some(found) => {
                self.pos = found;
                Step::Damaged {
                    at,
                    bytes: found - at,
                }
            }
            None => {
                self.pos = self.limit;
                Step::Torn { at, bytes: left }
            }
        })
    }

    fn block(&self, pos: u64, len: usize) -> io::Result<Vec<u8>> {
        let left = self.limit.saturating_sub(pos);
        read_block(
            &*self.file,
            pos,
            usize::try_from(left).unwrap_or(usize::MAX).min(len),
        )
    }

    /// How far `block` begins with intact records that belong here.
    fn extent(&self, block: &[u8]) -> Extent {
        let mut extent = Extent {
            end: self.next,
            ..Extent::default()
        };
        while let Some(head) = block
            .get(extent.bytes..)
            .and_then(|rest| format::intact(rest, self.key))
        {
            if !self.belongs(head.offset, extent.end) {
                break;
            }
            if extent.records == 0 {
                extent.first = head.offset;
            }
            extent.bytes += head.frame();
            extent.end = head.offset + 1;
            extent.records += 1;
            extent.max_time = extent.max_time.max(head.time);
        }
        extent
    }

    fn belongs(&self, offset: u64, next: u64) -> bool {
        offset >= next && offset < self.bound && offset - next < MAX_GAP
    }

    /// The head at the start of `buf` (which is at `pos`), if a record like that could be here.
    fn plausible(&self, buf: &[u8], pos: u64) -> Option<Head> {
        let head = Head::read(buf)?;
        (head.len <= MAX_PAYLOAD
            && self.belongs(head.offset, self.next)
            && pos + head.frame() as u64 <= self.limit)
            .then_some(head)
    }

    /// Where the next intact record behind the one at `self.pos` starts.
    fn resync(&self, block: &[u8]) -> io::Result<Option<u64>> {
        if let Some(head) = Head::read(block).filter(|head| head.len <= MAX_PAYLOAD) {
            let behind = self.pos + head.frame() as u64;
            if behind == self.limit {
                return Ok(None);
            }
            if behind < self.limit && self.intact_at(behind)? {
                return Ok(Some(behind));
            }
        }
        let mut base = self.pos + 1;
        loop {
            let block = self.block(base, BLOCK)?;
            let Some(last) = block.len().checked_sub(RECORD_HEADER) else {
                return Ok(None);
            };
            for at in 0..=last {
                let pos = base + at as u64;
                if self.plausible(&block[at..], pos).is_some() && self.intact_at(pos)? {
                    return Ok(Some(pos));
                }
            }
            base += last as u64 + 1;
        }
    }

    fn intact_at(&self, pos: u64) -> io::Result<bool> {
        let head = self.block(pos, RECORD_HEADER)?;
        let Some(head) = self.plausible(&head, pos) else {
            return Ok(false);
        };
        Ok(format::intact(&self.block(pos, head.frame())?, self.key).is_some())
    }
}

/// What a whole segment file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Survey {
    /// One past the last offset; the segment's first when there is no record.
    pub(crate) end: u64,
    pub(crate) records: u64,
    pub(crate) max_time: u64,
    /// Where the last intact record ends.
    pub(crate) good: u64,
    /// Damaged places with intact records behind them.
    pub(crate) damaged: u64,
    pub(crate) marks: Vec<Mark>,
}

/// Reads a segment file of `len` bytes whose records have offsets from `first` to below `bound`.
pub(crate) fn survey(
    file: &Arc<dyn FsFile>,
    key: u32,
    first: u64,
    bound: u64,
    len: u64,
) -> io::Result<Survey> {
    let pos = SEGMENT_HEADER as u64;
    let mut walk = Walk {
        file: file.clone(),
        key,
        pos,
        limit: len,
        next: first,
        bound,
    };
    let mut marks = Marks::default();
    let mut survey = Survey {
        end: first,
        records: 0,
        max_time: 0,
        good: pos,
        damaged: 0,
        marks: Vec::new(),
    };
    loop {
        match walk.step(BLOCK)? {
            Step::Run(run) => {
                marks.note(run.first, run.pos, survey.max_time);
                survey.end = run.end;
                survey.records += run.records;
                survey.max_time = survey.max_time.max(run.max_time);
                survey.good = walk.pos;
            }
            Step::Damaged { .. } => survey.damaged += 1,
            Step::Torn { .. } | Step::End => break,
        }
    }
    survey.marks = marks.into_inner();
    Ok(survey)
}
