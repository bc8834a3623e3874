//! Writes blocks.

use std::collections::HashMap;
use std::io;

use thinglog_schemas::EventId;

use super::{BYTES, HEAD, Lane, MAGIC, ROWS, Row, severity};
use crate::varint::{push, push_difference, push_text};

/// Gathers rows until there is a block of them.
pub(crate) struct Builder {
    devices: Vec<(String, u32)>,
    sources: Names,
    lanes: Vec<(Lane, u64)>,
    lane_of: HashMap<(u64, u64), u32>,
    source: Vec<u32>,
    grade: Vec<u8>,
    time: Vec<u64>,
    received: Vec<u64>,
    row: Vec<u64>,
    ids: Vec<u8>,
    message_lengths: Vec<u8>,
    messages: Vec<u8>,
    attribute_lengths: Vec<u8>,
    attributes: Vec<u8>,
    pub(crate) facts: Facts,
}

/// What is known of the rows of a block without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) rows: u32,
    pub(crate) min_at: u64,
    pub(crate) max_at: u64,
    pub(crate) min_received: u64,
    pub(crate) max_received: u64,
    pub(crate) min_row: u64,
    pub(crate) max_row: u64,
    /// Bit 1 stands for severity 1.
    pub(crate) severities: u32,
}

impl Default for Facts {
    fn default() -> Facts {
        Facts {
            rows: 0,
            min_at: u64::MAX,
            max_at: 0,
            min_received: u64::MAX,
            max_received: 0,
            min_row: u64::MAX,
            max_row: 0,
            severities: 0,
        }
    }
}

impl Facts {
    pub(crate) fn add(&mut self, at: u64, received: u64, row: u64, grade: u8) {
        self.rows += 1;
        self.min_at = self.min_at.min(at);
        self.max_at = self.max_at.max(at);
        self.min_received = self.min_received.min(received);
        self.max_received = self.max_received.max(received);
        self.min_row = self.min_row.min(row);
        self.max_row = self.max_row.max(row);
        self.severities |= 1 << severity(grade);
    }

    pub(crate) fn join(&mut self, other: &Facts) {
        self.rows += other.rows;
        self.min_at = self.min_at.min(other.min_at);
        self.max_at = self.max_at.max(other.max_at);
        self.min_received = self.min_received.min(other.min_received);
        self.max_received = self.max_received.max(other.max_received);
        self.min_row = self.min_row.min(other.min_row);
        self.max_row = self.max_row.max(other.max_row);
        self.severities |= other.severities;
    }
}

/// Names by their place.
#[derive(Default)]
struct Names {
    all: Vec<String>,
    place: HashMap<String, u32>,
    last: u32,
}

impl Names {
    fn place(&mut self, name: &str) -> u32 {
        if self
            .all
            .get(self.last as usize)
            .is_some_and(|last| last == name)
        {
            return self.last;
        }
        self.last = match self.place.get(name) {
            Some(place) => *place,
            None => {
                let place = self.all.len() as u32;
                self.all.push(name.to_owned());
                self.place.insert(name.to_owned(), place);
                place
            }
        };
        self.last
    }

    fn clear(&mut self) {
        self.all.clear();
        self.place.clear();
        self.last = 0;
    }
}

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder {
            devices: Vec::new(),
            sources: Names::default(),
            lanes: Vec::new(),
            lane_of: HashMap::new(),
            source: Vec::new(),
            grade: Vec::new(),
            time: Vec::new(),
            received: Vec::new(),
            row: Vec::new(),
            ids: Vec::new(),
            message_lengths: Vec::new(),
            messages: Vec::new(),
            attribute_lengths: Vec::new(),
            attributes: Vec::new(),
            facts: Facts::default(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.grade.is_empty()
    }

    /// Whether the block is large enough.
    pub(crate) fn is_full(&self) -> bool {
        self.grade.len() >= ROWS || self.messages.len() + self.attributes.len() >= BYTES
    }

    /// The names of the devices so far.
    pub(crate) fn devices(&self) -> impl Iterator<Item = &str> {
        self.devices.iter().map(|(name, _)| name.as_str())
    }

    /// The places of the sources so far, as the block numbers them.
    pub(crate) fn sources(&self) -> &[String] {
        &self.sources.all
    }

    /// Adds a row. Rows of a device come one after the other.
    pub(crate) fn push(&mut self, row: &Row<'_>) {
        match self.devices.last_mut() {
            Some((device, rows)) if device == row.device => *rows += 1,
            _ => self.devices.push((row.device.to_owned(), 1)),
        }
        let source = self.sources.place(row.source);
        self.source.push(source);
        self.grade.push(row.grade);
        self.time.push(row.time);
        self.received.push(row.received);
        self.row.push(row.row);
        self.push_id(&row.id);
        push(row.message.len() as u64, &mut self.message_lengths);
        self.messages.extend_from_slice(row.message.as_bytes());
        push(row.attributes.len() as u64, &mut self.attribute_lengths);
        self.attributes.extend_from_slice(row.attributes.as_bytes());
        self.facts.add(row.at(), row.received, row.row, row.grade);
    }

    fn push_id(&mut self, id: &EventId) {
        let lane = Lane::of(id);
        let lanes = &mut self.lanes;
        let place = *self.lane_of.entry(lane.parts()).or_insert_with(|| {
            lanes.push((lane, 0));
            lanes.len() as u32 - 1
        });
        push(u64::from(place), &mut self.ids);
        let last = &mut self.lanes[place as usize].1;
        match *id {
            EventId::None => {}
            EventId::Spooled { seq, .. } => {
                push_difference(last.wrapping_add(1), seq, &mut self.ids);
                *last = seq;
            }
            EventId::Stored { offset, index, .. } => {
                push_difference(*last, offset, &mut self.ids);
                push(u64::from(index), &mut self.ids);
                *last = offset;
            }
            EventId::Gap { from, to, .. } => {
                push_difference(*last, from, &mut self.ids);
                push(to - from, &mut self.ids);
                *last = from;
            }
        }
    }

    /// Appends the block to `out`; the builder is empty again.
    pub(crate) fn finish(
        &mut self,
        zstd: &mut zstd::bulk::Compressor<'_>,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let mut numbers = Vec::with_capacity(self.grade.len() * 8);
        self.write_numbers(&mut numbers);
        let rows = self.grade.len() as u32;
        let start = out.len();
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&rows.to_le_bytes());
        let mut at = out.len();
        out.resize(start + HEAD, 0);
        self.message_lengths.append(&mut self.messages);
        self.attribute_lengths.append(&mut self.attributes);
        for column in [&numbers, &self.message_lengths, &self.attribute_lengths] {
            let length = compress(zstd, column, out)?;
            out[at..at + 4].copy_from_slice(&(length as u32).to_le_bytes());
            out[at + 4..at + 8].copy_from_slice(&(column.len() as u32).to_le_bytes());
            at += 8;
        }
        let crc = crc32fast::hash(&out[start + 8..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
        self.clear();
        Ok(())
    }

    fn write_numbers(&self, out: &mut Vec<u8>) {
        push(self.devices.len() as u64, out);
        for (device, rows) in &self.devices {
            push_text(device, out);
            push(u64::from(*rows), out);
        }
        push(self.sources.all.len() as u64, out);
        self.sources
            .all
            .iter()
            .for_each(|source| push_text(source, out));
        push(self.lanes.len() as u64, out);
        for (lane, _) in &self.lanes {
            let (kind, number) = lane.parts();
            push(kind, out);
            push(number, out);
        }
        // One after the other by column: like lies beside like.
        self.source
            .iter()
            .for_each(|place| push(u64::from(*place), out));
        out.extend_from_slice(&self.grade);
        write_times(&self.time, out);
        write_times(&self.received, out);
        let mut last = 0u64;
        for row in &self.row {
            push_difference(last.wrapping_add(1), *row, out);
            last = *row;
        }
        out.extend_from_slice(&self.ids);
    }

    /// Forgets its rows.
    pub(crate) fn clear(&mut self) {
        self.devices.clear();
        self.sources.clear();
        self.lanes.clear();
        self.lane_of.clear();
        self.source.clear();
        self.grade.clear();
        self.time.clear();
        self.received.clear();
        self.row.clear();
        self.ids.clear();
        self.message_lengths.clear();
        self.messages.clear();
        self.attribute_lengths.clear();
        self.attributes.clear();
        self.facts = Facts::default();
    }
}

/// The unit, then differences in it.
fn write_times(times: &[u64], out: &mut Vec<u8>) {
    let fits = |unit: &u64| times.iter().all(|time| time % unit == 0);
    let unit = [1_000_000_000, 1_000_000, 1_000].into_iter().find(fits);
    let unit = unit.unwrap_or(1);
    push(unit, out);
    let mut last = 0;
    for time in times {
        push_difference(last, time / unit, out);
        last = time / unit;
    }
}

/// Appends a frame; gives its length.
fn compress(
    zstd: &mut zstd::bulk::Compressor<'_>,
    column: &[u8],
    out: &mut Vec<u8>,
) -> io::Result<usize> {
    let start = out.len();
    out.resize(start + zstd::zstd_safe::compress_bound(column.len()), 0);
    let length = zstd.compress_to_buffer(column, &mut out[start..])?;
    out.truncate(start + length);
    Ok(length)
}
