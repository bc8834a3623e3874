//! A file of blocks with what is known of each: what searches and merges read.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thinglog_schemas::hash;

use crate::block::{Builder, Facts, Numbers};
use crate::segment::Directory;

/// What is known of a block without reading it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// Where its filter begins; the block is right behind it.
    pub(crate) at: u64,
    /// Bytes of the filter; 0 if there is none.
    pub(crate) filter: u32,
    /// Bytes of the block.
    pub(crate) block: u32,
    pub(crate) facts: Facts,
    /// Which of the part's sources are in it. The last bit stands for all others.
    pub(crate) sources: u64,
    /// A bit for each device, by its hash.
    pub(crate) devices: u64,
}

/// The bit that stands for sources without one of their own.
pub(crate) const OTHER_SOURCES: u64 = 1 << 63;

/// The bit of a device.
pub(crate) fn device_bit(hash: u64) -> u64 {
    1 << (hash >> 58)
}

/// The hash of a device's name.
pub(crate) fn device_hash(device: &str) -> u64 {
    // FNV leaves the high bits of short names alike.
    let bits = hash::fnv1a(device.as_bytes());
    let bits = (bits ^ (bits >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bits ^ (bits >> 29)
}

impl Entry {
    /// Of a block that was read.
    pub(crate) fn of(at: u64, length: usize, numbers: &Numbers) -> Entry {
        let devices = numbers.devices.iter();
        Entry {
            at,
            filter: 0,
            block: length as u32,
            facts: numbers.facts(),
            sources: OTHER_SOURCES,
            devices: devices.fold(0, |bits, (name, _)| bits | device_bit(device_hash(name))),
        }
    }

    /// Of a block that is about to be written; without its lengths.
    pub(crate) fn of_builder(at: u64, builder: &Builder) -> Entry {
        let devices = builder.devices();
        Entry {
            at,
            filter: 0,
            block: 0,
            facts: builder.facts.clone(),
            sources: OTHER_SOURCES,
            devices: devices.fold(0, |bits, name| bits | device_bit(device_hash(name))),
        }
    }
}

/// A file of blocks. What it holds does not change.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<File>,
    pub(crate) entries: Arc<Vec<Entry>>,
    /// The first of its sources; a bit of [`Entry::sources`] stands for each.
    pub(crate) sources: Vec<Arc<str>>,
    /// Where each device's rows are, if rows are sorted by device through the whole file.
    pub(crate) directory: Option<Directory>,
}

impl Part {
    /// A part whose blocks are each sorted for themselves.
    pub(crate) fn new(path: &Path, file: Arc<File>, entries: Arc<Vec<Entry>>) -> Part {
        Part {
            path: path.to_owned(),
            file,
            entries,
            sources: Vec::new(),
            directory: None,
        }
    }

    /// Bytes of all blocks.
    pub(crate) fn bytes(&self) -> u64 {
        let last = self.entries.last();
        last.map_or(0, |it| it.at + u64::from(it.filter) + u64::from(it.block))
    }

    /// The blocks that hold some rows, counted over the whole part, and which rows of theirs.
    pub(crate) fn blocks_of(&self, rows: Range<u32>) -> Vec<(usize, Range<usize>)> {
        let mut first = 0;
        let mut found = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            let end = first + entry.facts.rows;
            let (from, to) = (rows.start.max(first), rows.end.min(end));
            if from < to {
                found.push((index, (from - first) as usize..(to - first) as usize));
            }
            first = end;
        }
        found
    }

    /// The block's bytes.
    pub(crate) fn block(&self, entry: &Entry) -> io::Result<Vec<u8>> {
        self.read(entry.at + u64::from(entry.filter), entry.block as usize)
    }

    /// The filter, if there is one and it is whole.
    pub(crate) fn filter(&self, entry: &Entry) -> Option<Vec<u8>> {
        let mut bytes = self.read(entry.at, entry.filter as usize).ok()?;
        let (filter, crc) = bytes.split_last_chunk()?;
        if crc32fast::hash(filter) != u32::from_le_bytes(*crc) {
            tracing::error!(path = %self.path.display(), at = entry.at, "a filter is damaged; its block is read instead");
            return None;
        }
        bytes.truncate(bytes.len() - 4);
        Some(bytes)
    }

    pub(crate) fn read(&self, at: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let read = self.file.read_exact_at(&mut bytes, at);
        read.map_err(|error| named(&self.path, &error))?;
        Ok(bytes)
    }

    /// Rows of all blocks.
    pub(crate) fn rows(&self) -> u64 {
        self.entries
            .iter()
            .map(|entry| u64::from(entry.facts.rows))
            .sum()
    }

    /// What is known of all blocks together.
    pub(crate) fn facts(&self) -> Facts {
        let mut all = Facts::default();
        self.entries.iter().for_each(|entry| all.join(&entry.facts));
        all
    }
}

/// An error that says which file it is about.
pub(crate) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Makes what was created in or renamed within a folder last.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
