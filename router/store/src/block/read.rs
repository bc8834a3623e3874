//! Reads blocks. Nothing in a file is believed before its checksum, and no number after it.

use std::cell::OnceCell;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use thinglog_schemas::EventId;
use thinglog_schemas::query::{Lines, LinesCache, Pattern};

use super::build::Facts;
use super::{HEAD, Lane, MAGIC, MAX_RAW, ROWS, Row, at};
use crate::varint::Reader;

/// Where the columns of a block lie behind its head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    crc: u32,
    rows: usize,
    /// Length and raw length of numbers, messages, attributes.
    columns: [(usize, usize); 3],
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("damaged block: {what}"))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reads the head of a block.
pub(crate) fn head(bytes: &[u8]) -> Option<Head> {
    if u32_at(bytes, 0)? != MAGIC {
        return None;
    }
    let size = |at| {
        let (length, raw) = (u32_at(bytes, at)?, u32_at(bytes, at + 4)?);
        let (length, raw) = (length as usize, raw as usize);
        (raw <= MAX_RAW && length <= MAX_RAW + 1024).then_some((length, raw))
    };
    let rows = u32_at(bytes, 8)? as usize;
    let head = Head {
        crc: u32_at(bytes, 4)?,
        rows,
        columns: [size(12)?, size(20)?, size(28)?],
    };
    (rows > 0 && rows <= ROWS).then_some(head)
}

/// Bytes of a whole block with this head.
pub(crate) fn length(head: &Head) -> usize {
    HEAD + head.columns.iter().map(|column| column.0).sum::<usize>()
}

/// Bytes of its texts, uncompressed, and what its rows count beside.
pub(crate) fn raw_texts(head: &Head) -> usize {
    head.columns[1].1 + head.columns[2].1 + head.rows * 64
}

/// Checks a whole block against its checksum and gives its head.
fn checked(block: &[u8]) -> io::Result<Head> {
    let head = head(block).ok_or_else(|| damaged("no head"))?;
    let body = block
        .get(8..length(&head))
        .ok_or_else(|| damaged("it ends early"))?;
    match crc32fast::hash(body) == head.crc {
        true => Ok(head),
        false => Err(damaged("its checksum differs")),
    }
}

/// Uncompresses columns, one after the other in the same memory.
pub(crate) struct Unpack {
    zstd: zstd::bulk::Decompressor<'static>,
    column: Vec<u8>,
}

impl Unpack {
    pub(crate) fn new() -> io::Result<Unpack> {
        Ok(Unpack {
            zstd: zstd::bulk::Decompressor::new()?,
            column: Vec::new(),
        })
    }

    fn column(&mut self, block: &[u8], head: &Head, which: usize) -> io::Result<&[u8]> {
        let before = head.columns[..which].iter().map(|column| column.0);
        let start = HEAD + before.sum::<usize>();
        let (length, raw) = head.columns[which];
        let frame = block
            .get(start..start + length)
            .ok_or_else(|| damaged("it ends early"))?;
        self.column.clear();
        self.column.reserve(raw);
        let read = self.zstd.decompress_to_buffer(frame, &mut self.column);
        let read = read.map_err(|error| damaged(&error.to_string()))?;
        match read == raw {
            true => Ok(&self.column),
            false => Err(damaged("a column is not as long as it says")),
        }
    }
}

/// Everything but texts.
#[derive(Debug)]
pub(crate) struct Numbers {
    /// Name and rows of each device.
    pub(crate) devices: Vec<(Arc<str>, Range<usize>)>,
    pub(crate) sources: Vec<Arc<str>>,
    pub(crate) source: Vec<u32>,
    pub(crate) grade: Vec<u8>,
    pub(crate) time: Vec<u64>,
    pub(crate) received: Vec<u64>,
    pub(crate) row: Vec<u64>,
    lanes: Vec<Lane>,
    /// Most searches read none of them.
    ids: Vec<u8>,
}

impl Numbers {
    /// Reads them from a whole block, whose checksum is looked at.
    pub(crate) fn read(unpack: &mut Unpack, block: &[u8]) -> io::Result<Numbers> {
        let head = checked(block)?;
        let bytes = unpack.column(block, &head, 0)?;
        Numbers::parse(bytes, head.rows).ok_or_else(|| damaged("its numbers cannot be read"))
    }

    fn parse(bytes: &[u8], rows: usize) -> Option<Numbers> {
        let mut reader = Reader::new(bytes);
        let mut devices = Vec::new();
        let mut at = 0;
        for _ in 0..reader.size(rows)? {
            let name = Arc::from(reader.text(bytes.len())?);
            let end = at + reader.size(rows - at)?;
            devices.push((name, at..end));
            at = end;
        }
        let mut sources = Vec::new();
        for _ in 0..reader.size(rows)? {
            sources.push(Arc::from(reader.text(bytes.len())?));
        }
        let mut lanes = Vec::new();
        for _ in 0..reader.size(rows)? {
            lanes.push(Lane::from_parts(reader.number()?, reader.number()?)?);
        }
        let source = reader.small(rows, sources.len())?;
        let grade = reader.bytes(rows)?.to_vec();
        let time = times(&mut reader, rows)?;
        let received = times(&mut reader, rows)?;
        let mut row = Vec::with_capacity(rows);
        let mut last = 0u64;
        for _ in 0..rows {
            last = reader.difference(last.wrapping_add(1))?;
            row.push(last);
        }
        (at == rows).then_some(Numbers {
            devices,
            sources,
            source,
            grade,
            time,
            received,
            row,
            lanes,
            ids: reader.rest().to_vec(),
        })
    }

    /// The ids of all rows.
    pub(crate) fn ids(&self) -> io::Result<Vec<EventId>> {
        let mut reader = Reader::new(&self.ids);
        let mut lanes: Vec<(Lane, u64)> = self.lanes.iter().map(|lane| (*lane, 0)).collect();
        let mut id = || {
            let place = reader.size(lanes.len())?;
            read_id(&mut reader, lanes.get_mut(place)?)
        };
        let ids: Option<Vec<EventId>> = (0..self.rows()).map(|_| id()).collect();
        ids.ok_or_else(|| damaged("its ids cannot be read"))
    }

    /// Whose row it is.
    pub(crate) fn device(&self, index: usize) -> Option<&Arc<str>> {
        let place = self.devices.partition_point(|(_, rows)| rows.end <= index);
        self.devices.get(place).map(|(name, _)| name)
    }

    pub(crate) fn rows(&self) -> usize {
        self.grade.len()
    }

    /// When a row counts as logged.
    pub(crate) fn at(&self, index: usize) -> u64 {
        at(self.time[index], self.received[index])
    }

    /// What a block with these rows is known by.
    pub(crate) fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        for index in 0..self.rows() {
            facts.add(
                self.at(index),
                self.received[index],
                self.row[index],
                self.grade[index],
            );
        }
        facts
    }

    /// A whole row.
    pub(crate) fn row<'a>(
        &'a self,
        device: &'a str,
        index: usize,
        id: EventId,
        message: &'a str,
        attributes: &'a str,
    ) -> Row<'a> {
        Row {
            device,
            source: &self.sources[self.source[index] as usize],
            grade: self.grade[index],
            time: self.time[index],
            received: self.received[index],
            row: self.row[index],
            id,
            message,
            attributes,
        }
    }
}

fn times(reader: &mut Reader<'_>, rows: usize) -> Option<Vec<u64>> {
    let unit = reader.number()?;
    let mut times = Vec::with_capacity(rows);
    let mut last = 0;
    for _ in 0..rows {
        last = reader.difference(last)?;
        times.push(last.wrapping_mul(unit));
    }
    Some(times)
}

fn read_id(reader: &mut Reader<'_>, (lane, last): &mut (Lane, u64)) -> Option<EventId> {
    Some(match *lane {
        Lane::None => EventId::None,
        Lane::Spooled(epoch) => {
            *last = reader.difference(last.wrapping_add(1))?;
            EventId::Spooled { epoch, seq: *last }
        }
        Lane::Stored(journal) => {
            *last = reader.difference(*last)?;
            EventId::Stored {
                journal,
                offset: *last,
                index: u32::try_from(reader.number()?).ok()?,
            }
        }
        Lane::Gap(epoch) => {
            *last = reader.difference(*last)?;
            EventId::Gap {
                epoch,
                from: *last,
                to: last.checked_add(reader.number()?)?,
            }
        }
    })
}

/// The texts of one column, laid side by side as lines.
#[derive(Debug)]
pub(crate) struct Messages {
    /// Behind each but the last is a line break.
    text: String,
    /// Where each ends.
    ends: Vec<u32>,
    /// Rows that cannot be asked together with others, upwards: [`Pattern::is_line`].
    apart: OnceCell<Vec<u32>>,
}

impl Messages {
    /// The messages of a block that [`Numbers::read`] has found whole.
    pub(crate) fn read(unpack: &mut Unpack, block: &[u8]) -> io::Result<Messages> {
        Messages::column(unpack, block, 1)
    }

    /// The attributes, likewise.
    pub(crate) fn attributes(unpack: &mut Unpack, block: &[u8]) -> io::Result<Messages> {
        Messages::column(unpack, block, 2)
    }

    fn column(unpack: &mut Unpack, block: &[u8], which: usize) -> io::Result<Messages> {
        let head = head(block).ok_or_else(|| damaged("no head"))?;
        let bytes = unpack.column(block, &head, which)?;
        let mut reader = Reader::new(bytes);
        let mut ends = Vec::with_capacity(head.rows);
        let mut end = 0usize;
        for row in 0..head.rows {
            let length = reader.size(MAX_RAW);
            end += length.ok_or_else(|| damaged("lengths of texts"))? + usize::from(row > 0);
            ends.push(end as u32);
        }
        let all = (end + 1).checked_sub(head.rows);
        let start = all.and_then(|all| bytes.len().checked_sub(all));
        let mut rest = &bytes[start.ok_or_else(|| damaged("lengths of texts"))?..];
        let mut lines = Vec::with_capacity(end);
        for (row, end) in ends.iter().enumerate() {
            if row > 0 {
                lines.push(b'\n');
            }
            let (text, behind) = rest.split_at(*end as usize - lines.len());
            lines.extend_from_slice(text);
            rest = behind;
        }
        let text = String::from_utf8(lines).map_err(|_| damaged("its text is no UTF-8"))?;
        Ok(Messages {
            text,
            ends,
            apart: OnceCell::new(),
        })
    }

    /// Found out when a pattern is looked for: most readers have none.
    fn apart(&self) -> &[u32] {
        self.apart.get_or_init(|| {
            let breaks = memchr::memchr_iter(b'\n', self.text.as_bytes()).count();
            if self.text.is_ascii() && breaks + 1 == self.ends.len() {
                return Vec::new();
            }
            let is_apart = |row: &u32| !Pattern::is_line(self.get(*row as usize));
            (0..self.ends.len() as u32).filter(is_apart).collect()
        })
    }

    fn start(&self, index: usize) -> usize {
        match index {
            0 => 0,
            _ => self.ends[index - 1] as usize + 1,
        }
    }

    /// The text of a row; nothing where a length was none of ours.
    pub(crate) fn get(&self, index: usize) -> &str {
        let text = self.start(index)..self.ends[index] as usize;
        self.text.get(text).unwrap_or_default()
    }

    /// The end of the rows from `index` on whose texts, side by side, take at most so many bytes.
    pub(crate) fn reach(&self, index: usize, bytes: usize) -> usize {
        let most = self.start(index) + bytes;
        self.ends.partition_point(|end| *end as usize <= most)
    }

    /// The first of some rows in which a pattern is found. `cache` is of this pattern or empty.
    pub(crate) fn find(
        &self,
        pattern: &Pattern,
        cache: &mut Option<LinesCache>,
        rows: Range<usize>,
    ) -> Option<usize> {
        let is_match = |row: &usize| pattern.is_match(self.get(*row));
        let Some(lines) = pattern.lines() else {
            return rows.into_iter().find(is_match);
        };
        let cache = cache.get_or_insert_with(|| lines.cache());
        let mut row = rows.start;
        let apart = self.apart();
        let first = apart.partition_point(|it| (*it as usize) < row);
        let apart = apart[first..].iter().map(|row| *row as usize);
        for apart in apart.take_while(|row| *row < rows.end) {
            let found = self.find_line(lines, cache, row..apart);
            if let Some(found) = found.or(Some(apart).filter(is_match)) {
                return Some(found);
            }
            row = apart + 1;
        }
        self.find_line(lines, cache, row..rows.end)
    }

    /// The same among rows that are lines.
    fn find_line(
        &self,
        lines: Lines<'_>,
        cache: &mut LinesCache,
        rows: Range<usize>,
    ) -> Option<usize> {
        let last = rows.end.checked_sub(1).filter(|_| !rows.is_empty())?;
        let within = self.start(rows.start)..self.ends[last] as usize;
        let place = lines.find(cache, &self.text, within)?;
        let ends = &self.ends[rows.clone()];
        Some(rows.start + ends.partition_point(|end| (*end as usize) < place))
    }

    /// As many empty texts.
    pub(crate) fn nothing(rows: usize) -> Messages {
        Messages {
            text: "\n".repeat(rows.saturating_sub(1)),
            ends: (0..rows as u32).collect(),
            apart: OnceCell::new(),
        }
    }
}
