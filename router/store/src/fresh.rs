//! The fresh files: where events are first written, block behind block in the order of arrival, and
//! synced before anybody is told that they are kept. One that is large enough is sealed into segments.
//!
//! ```text
//! fresh  magic 8 ("tlgfrs01"), blocks
//! ```

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thinglog_schemas::{Event, json};
use zstd::bulk::Compressor;

use crate::block::{self, Builder, Numbers, Row, Unpack};
use crate::part::{Entry, Part, named};

pub(crate) const MAGIC: &[u8; 8] = b"tlgfrs01";
/// zstd's level: it is written once more within minutes.
const LEVEL: i32 = 1;
/// Bytes of events after which a file is sealed: what sealing holds in memory at once.
const RAW: u64 = 32 << 20;
/// Blocks after which it is sealed, however small.
const BLOCKS: u32 = 1024;
/// What an event counts beside its message.
const EVENT: u64 = 64;

/// Writes the fresh file.
pub(crate) struct FreshWriter {
    path: PathBuf,
    file: Arc<File>,
    zstd: Compressor<'static>,
    builder: Builder,
    order: Vec<u32>,
    attributes: Vec<u8>,
    /// Where the next block goes.
    length: u64,
    /// Bytes of texts in it, and its blocks.
    raw: u64,
    blocks: u32,
    /// When the first of its events was received.
    first_received: Option<u64>,
    /// Of blocks that were written and are not shown yet.
    entries: Vec<Entry>,
}

impl std::fmt::Debug for FreshWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FreshWriter({})", self.path.display())
    }
}

impl FreshWriter {
    /// A new file, which counts once the manifest names it.
    pub(crate) fn create(path: &Path) -> io::Result<FreshWriter> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(true);
        let file = options.open(path).map_err(|error| named(path, &error))?;
        file.write_all_at(MAGIC, 0)?;
        file.sync_all()?;
        FreshWriter::at(path, file, MAGIC.len() as u64)
    }

    fn at(path: &Path, file: File, length: u64) -> io::Result<FreshWriter> {
        Ok(FreshWriter {
            path: path.to_owned(),
            file: Arc::new(file),
            zstd: Compressor::new(LEVEL)?,
            builder: Builder::new(),
            order: Vec::new(),
            attributes: Vec::new(),
            length,
            raw: 0,
            blocks: 0,
            first_received: None,
            entries: Vec::new(),
        })
    }

    /// When the first of its events was received.
    pub(crate) fn first_received(&self) -> Option<u64> {
        self.first_received
    }

    /// Whether it should be sealed.
    pub(crate) fn is_full(&self) -> bool {
        self.raw >= RAW || self.blocks >= BLOCKS
    }

    /// Where the file ends.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Writes events, the first of which gets the number `row`. After an error nothing of them counts.
    pub(crate) fn append(&mut self, events: &[&Event], row: u64) -> io::Result<()> {
        // A failure may have left some.
        self.builder.clear();
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        order.extend(0..events.len() as u32);
        let key = |place: &u32| {
            let event = events[*place as usize];
            (
                &*event.device,
                block::at(event.time, event.received),
                *place,
            )
        };
        order.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        let (mut blocks, mut entries, mut raw) = (Vec::new(), Vec::new(), 0);
        for place in &order {
            let event = events[*place as usize];
            self.attributes.clear();
            if !event.attributes.is_empty() {
                json::write_attributes(&event.attributes, &mut self.attributes);
            }
            raw += (event.message.len() + self.attributes.len()) as u64 + EVENT;
            self.builder.push(&Row {
                device: &event.device,
                source: &event.source,
                grade: block::grade(event),
                time: event.time,
                received: event.received,
                row: row + u64::from(*place),
                id: event.id,
                message: &event.message,
                attributes: std::str::from_utf8(&self.attributes).unwrap_or_default(),
            });
            if self.builder.is_full() {
                self.end_block(&mut blocks, &mut entries)?;
            }
        }
        self.order = order;
        if !self.builder.is_empty() {
            self.end_block(&mut blocks, &mut entries)?;
        }
        let written = self.file.write_all_at(&blocks, self.length);
        written.map_err(|error| named(&self.path, &error))?;
        self.length += blocks.len() as u64;
        self.blocks += entries.len() as u32;
        self.raw += raw;
        let first = entries.first().map(|entry| entry.facts.min_received);
        self.first_received = self.first_received.or(first);
        self.entries.append(&mut entries);
        Ok(())
    }

    fn end_block(&mut self, blocks: &mut Vec<u8>, entries: &mut Vec<Entry>) -> io::Result<()> {
        let start = blocks.len();
        let mut entry = Entry::of_builder(self.length + start as u64, &self.builder);
        self.builder.finish(&mut self.zstd, blocks)?;
        entry.block = (blocks.len() - start) as u32;
        entries.push(entry);
        Ok(())
    }

    /// What was written since it was last asked for.
    pub(crate) fn take_entries(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }
}

/// Opens a fresh file and gives what is in it. What lies behind `length`, if that is known, and what is
/// torn is cut.
pub(crate) fn open(path: &Path, length: Option<u64>) -> io::Result<(FreshWriter, Part)> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(|error| named(path, &error))?;
    let there = file.metadata()?.len();
    let end = length.map_or(there, |length| length.min(there));
    if let Some(length) = length.filter(|length| *length > there) {
        tracing::warn!(path = %path.display(), missing = length - there, "the file is shorter than what was committed: somebody else truncated or replaced it");
    }
    let mut magic = [0; MAGIC.len()];
    let is_ours = there >= MAGIC.len() as u64 && file.read_exact_at(&mut magic, 0).is_ok();
    if !is_ours || magic != *MAGIC {
        // Created, and the power went before its first bytes were there.
        if there > MAGIC.len() as u64 {
            let error = io::Error::new(
                io::ErrorKind::InvalidData,
                "not a file of the store; move it away to start without it",
            );
            return Err(named(path, &error));
        }
        file.set_len(0)?;
        file.write_all_at(MAGIC, 0)?;
    }
    let part = Part::new(path, Arc::new(file.try_clone()?), Arc::default());
    let (entries, good, raw) = scan(&part, end.max(MAGIC.len() as u64), length.is_some())?;
    if good < there {
        tracing::info!(path = %path.display(), cut = there - good, "cut what was not committed");
        file.set_len(good)?;
    }
    file.sync_all()?;
    let mut writer = FreshWriter::at(path, file, good)?;
    writer.blocks = entries.len() as u32;
    writer.raw = raw;
    writer.first_received = entries.first().map(|entry| entry.facts.min_received);
    let entries = Arc::new(entries);
    Ok((writer, Part { entries, ..part }))
}

/// The blocks up to `end`, where they end, and the bytes of their texts. A damaged block of what was
/// committed is stepped over, loudly; of what was not, it is the end.
fn scan(part: &Part, end: u64, committed: bool) -> io::Result<(Vec<Entry>, u64, u64)> {
    let mut entries = Vec::new();
    let mut at = MAGIC.len() as u64;
    let mut raw = 0;
    let mut unpack = Unpack::new()?;
    while at + (block::HEAD as u64) <= end {
        let head = block::head(&part.read(at, block::HEAD)?);
        let Some(head) = head.filter(|head| at + block::length(head) as u64 <= end) else {
            break;
        };
        let length = block::length(&head);
        match Numbers::read(&mut unpack, &part.read(at, length)?) {
            Ok(numbers) => entries.push(Entry::of(at, length, &numbers)),
            Err(error) if committed => {
                tracing::error!(path = %part.path.display(), at, %error, "a damaged block of the store is left out: its events are lost");
            }
            Err(_) => break,
        }
        raw += block::raw_texts(&head) as u64;
        at += length as u64;
    }
    Ok((entries, at, raw))
}
