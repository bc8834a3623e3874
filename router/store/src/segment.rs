//! Segments: sealed files with rows sorted by device, then time, and an index.
//!
//! ```text
//! segment    magic 8 ("tlgseg01"), blocks, directory, index, footer
//! block      its filter ([`crate::filter`]) and the CRC-32 u32 of that, the block ([`crate::block`])
//! directory  for each device, by hash: hash u64, first row u32, rows u32, first time u64, last time u64
//! index      sources, then for each block lengths and facts, as varints
//! footer     directory's place u64, its devices u32, its CRC-32 u32, index's place u64, its bytes u32,
//!            its CRC-32 u32, CRC-32 u32 of these 32 bytes, magic 4 ("TLGE")
//! ```
//!
//! The index is in memory, about 100 bytes for a block of thousands of rows; directory and filters are
//! read where they are asked for.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zstd::bulk::Compressor;

use crate::block::{Builder, Facts, Row};
use crate::filter;
use crate::part::{Entry, OTHER_SOURCES, Part, device_hash, named};
use crate::varint::{Reader, push, push_text};

const MAGIC: &[u8; 8] = b"tlgseg01";
const END: &[u8; 4] = b"TLGE";
const FOOTER: usize = 40;
const DEVICE: usize = 32;
/// zstd's level: what is sealed stays for days.
const LEVEL: i32 = 3;
/// Bytes gathered before they are written.
const PIECE: usize = 1 << 20;
/// Sources that have a bit of their own.
const SOURCES: usize = 63;
/// Rows below which a block has no filter: reading it costs no more.
const FILTER_FROM: u32 = 64;

/// Where a device's rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) hash: u64,
    /// Counted over the whole segment.
    pub(crate) first: u32,
    pub(crate) rows: u32,
    pub(crate) min_at: u64,
    pub(crate) max_at: u64,
}

/// Where a segment's directory is.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    at: u64,
    devices: u32,
}

impl Seat {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.hash.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.rows.to_le_bytes());
        out.extend_from_slice(&self.min_at.to_le_bytes());
        out.extend_from_slice(&self.max_at.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Seat> {
        let u64_at = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let u32_at = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        Some(Seat {
            hash: u64_at(0)?,
            first: u32_at(8)?,
            rows: u32_at(12)?,
            min_at: u64_at(16)?,
            max_at: u64_at(24)?,
        })
    }
}

/// Writes a segment from rows in their order.
pub(crate) struct SegmentWriter {
    path: PathBuf,
    file: File,
    zstd: Compressor<'static>,
    builder: Builder,
    words: filter::Builder,
    /// Bytes that are not in the file yet.
    buffer: Vec<u8>,
    /// Where the buffer begins.
    written: u64,
    entries: Vec<Entry>,
    sources: Vec<Arc<str>>,
    seats: Vec<Seat>,
    device: String,
    rows: u32,
}

impl SegmentWriter {
    /// Begins a file, which counts for nothing until it is named in the manifest.
    pub(crate) fn create(path: &Path) -> io::Result<SegmentWriter> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(true);
        Ok(SegmentWriter {
            path: path.to_owned(),
            file: options.open(path).map_err(|error| named(path, &error))?,
            zstd: Compressor::new(LEVEL)?,
            builder: Builder::new(),
            words: filter::Builder::new(),
            buffer: MAGIC.to_vec(),
            written: 0,
            entries: Vec::new(),
            sources: Vec::new(),
            seats: Vec::new(),
            device: String::new(),
            rows: 0,
        })
    }

    /// Adds the next row, by device, time and number.
    pub(crate) fn push(&mut self, row: &Row<'_>) -> io::Result<()> {
        let at = row.at();
        match self.seats.last_mut() {
            Some(seat) if self.device == row.device => {
                seat.rows += 1;
                seat.max_at = at;
            }
            _ => {
                self.device.clear();
                self.device.push_str(row.device);
                self.seats.push(Seat {
                    hash: device_hash(row.device),
                    first: self.rows,
                    rows: 1,
                    min_at: at,
                    max_at: at,
                });
            }
        }
        self.builder.push(row);
        self.words.add(row.message);
        self.rows += 1;
        match self.builder.is_full() {
            true => self.end_block(),
            false => Ok(()),
        }
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.builder.is_empty() {
            return Ok(());
        }
        let at = self.written + self.buffer.len() as u64;
        let mut entry = Entry::of_builder(at, &self.builder);
        entry.sources = self.bits_of_sources();
        let filter = self.words.finish();
        if entry.facts.rows >= FILTER_FROM {
            entry.filter = filter.len() as u32 + 4;
            self.buffer.extend_from_slice(&filter);
            let crc = crc32fast::hash(&filter);
            self.buffer.extend_from_slice(&crc.to_le_bytes());
        }
        let start = self.buffer.len();
        self.builder.finish(&mut self.zstd, &mut self.buffer)?;
        entry.block = (self.buffer.len() - start) as u32;
        self.entries.push(entry);
        match self.buffer.len() >= PIECE {
            true => self.write(),
            false => Ok(()),
        }
    }

    fn bits_of_sources(&mut self) -> u64 {
        let mut bits = 0;
        for source in self.builder.sources() {
            let place = self.sources.iter().position(|known| **known == **source);
            bits |= match place {
                Some(place) => 1 << place,
                None if self.sources.len() < SOURCES => {
                    self.sources.push(Arc::from(source.as_str()));
                    1 << (self.sources.len() - 1)
                }
                None => OTHER_SOURCES,
            };
        }
        bits
    }

    fn write(&mut self) -> io::Result<()> {
        let written = self.file.write_all(&self.buffer);
        written.map_err(|error| named(&self.path, &error))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Ends and syncs the file.
    pub(crate) fn finish(mut self) -> io::Result<Part> {
        self.end_block()?;
        let directory_at = self.written + self.buffer.len() as u64;
        let start = self.buffer.len();
        self.seats.sort_by_key(|seat| (seat.hash, seat.first));
        self.seats
            .iter()
            .for_each(|seat| seat.write(&mut self.buffer));
        let directory_crc = crc32fast::hash(&self.buffer[start..]);
        let index_at = self.written + self.buffer.len() as u64;
        let mut index = Vec::new();
        write_index(&self.sources, &self.entries, &mut index);
        self.buffer.extend_from_slice(&index);
        let footer = self.buffer.len();
        self.buffer.extend_from_slice(&directory_at.to_le_bytes());
        self.buffer
            .extend_from_slice(&(self.seats.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(&directory_crc.to_le_bytes());
        self.buffer.extend_from_slice(&index_at.to_le_bytes());
        self.buffer
            .extend_from_slice(&(index.len() as u32).to_le_bytes());
        self.buffer
            .extend_from_slice(&crc32fast::hash(&index).to_le_bytes());
        let crc = crc32fast::hash(&self.buffer[footer..]);
        self.buffer.extend_from_slice(&crc.to_le_bytes());
        self.buffer.extend_from_slice(END);
        self.write()?;
        let synced = self.file.sync_all();
        synced.map_err(|error| named(&self.path, &error))?;
        Ok(Part {
            path: self.path,
            file: Arc::new(self.file),
            entries: Arc::new(self.entries),
            sources: self.sources,
            directory: Some(Directory {
                at: directory_at,
                devices: self.seats.len() as u32,
            }),
        })
    }
}

fn write_index(sources: &[Arc<str>], entries: &[Entry], out: &mut Vec<u8>) {
    push(sources.len() as u64, out);
    sources.iter().for_each(|source| push_text(source, out));
    push(entries.len() as u64, out);
    for entry in entries {
        let Facts {
            rows,
            min_at,
            max_at,
            min_received,
            max_received,
            min_row,
            max_row,
            severities,
        } = entry.facts;
        let numbers = [
            entry.at,
            entry.filter.into(),
            entry.block.into(),
            rows.into(),
            min_at,
            max_at,
            min_received,
            max_received,
            min_row,
            max_row,
            severities.into(),
            entry.sources,
            entry.devices,
        ];
        numbers.iter().for_each(|number| push(*number, out));
    }
}

fn read_index(bytes: &[u8]) -> Option<(Vec<Arc<str>>, Vec<Entry>)> {
    let mut reader = Reader::new(bytes);
    let mut sources = Vec::new();
    for _ in 0..reader.size(SOURCES)? {
        sources.push(Arc::from(reader.text(bytes.len())?));
    }
    let mut entries = Vec::new();
    for _ in 0..reader.size(bytes.len())? {
        let small = |reader: &mut Reader<'_>| u32::try_from(reader.number()?).ok();
        entries.push(Entry {
            at: reader.number()?,
            filter: small(&mut reader)?,
            block: small(&mut reader)?,
            facts: Facts {
                rows: small(&mut reader)?,
                min_at: reader.number()?,
                max_at: reader.number()?,
                min_received: reader.number()?,
                max_received: reader.number()?,
                min_row: reader.number()?,
                max_row: reader.number()?,
                severities: small(&mut reader)?,
            },
            sources: reader.number()?,
            devices: reader.number()?,
        });
    }
    Some((sources, entries))
}

/// Opens a segment and looks whether it is whole.
pub(crate) fn open(path: &Path) -> io::Result<Part> {
    let file = File::open(path).map_err(|error| named(path, &error))?;
    let damaged = |what: &str| {
        let error = io::Error::new(
            io::ErrorKind::InvalidData,
            format!("damaged segment: {what}"),
        );
        named(path, &error)
    };
    let length = file.metadata()?.len();
    let footer_at = length
        .checked_sub(FOOTER as u64)
        .ok_or_else(|| damaged("it is too short"))?;
    let mut footer = [0; FOOTER];
    file.read_exact_at(&mut footer, footer_at)?;
    let u64_at = |at: usize| {
        footer
            .get(at..)
            .and_then(|it| it.first_chunk())
            .map_or(0, |it| u64::from_le_bytes(*it))
    };
    let u32_at = |at: usize| {
        footer
            .get(at..)
            .and_then(|it| it.first_chunk())
            .map_or(0, |it| u32::from_le_bytes(*it))
    };
    if !footer.ends_with(END) || crc32fast::hash(&footer[..32]) != u32_at(32) {
        return Err(damaged("it has no footer"));
    }
    let directory = Directory {
        at: u64_at(0),
        devices: u32_at(8),
    };
    let index_at = u64_at(16);
    let mut bytes = vec![0; u32_at(24) as usize];
    file.read_exact_at(&mut bytes, index_at)?;
    if crc32fast::hash(&bytes) != u32_at(28) {
        return Err(damaged("the checksum of its index differs"));
    }
    let (sources, entries) =
        read_index(&bytes).ok_or_else(|| damaged("its index cannot be read"))?;
    let part = Part {
        path: path.to_owned(),
        file: Arc::new(file),
        entries: Arc::new(entries),
        sources,
        directory: Some(directory.clone()),
    };
    let seats = part.read(directory.at, directory.devices as usize * DEVICE)?;
    match crc32fast::hash(&seats) == u32_at(12) {
        true => Ok(part),
        false => Err(damaged("the checksum of its directory differs")),
    }
}

impl Part {
    /// Where the rows of a device may be: of each device with its hash.
    pub(crate) fn seats(&self, directory: &Directory, device: &str) -> io::Result<Vec<Seat>> {
        let wanted = device_hash(device);
        let seat = |index: u32| {
            let bytes = self.read(directory.at + u64::from(index) * DEVICE as u64, DEVICE)?;
            Seat::read(&bytes).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
        };
        let (mut low, mut high) = (0, directory.devices);
        while low < high {
            let middle = low + (high - low) / 2;
            match seat(middle)?.hash < wanted {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let mut seats = Vec::new();
        while low < directory.devices {
            let seat: Seat = seat(low)?;
            if seat.hash != wanted {
                break;
            }
            seats.push(seat);
            low += 1;
        }
        Ok(seats)
    }

    /// The seats of all devices, by hash.
    pub(crate) fn all_seats(&self, directory: &Directory) -> io::Result<Vec<Seat>> {
        let bytes = self.read(directory.at, directory.devices as usize * DEVICE)?;
        Ok(bytes.chunks_exact(DEVICE).filter_map(Seat::read).collect())
    }
}
