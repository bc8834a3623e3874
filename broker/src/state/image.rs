//! Images of the state: sled databases that are written once, whole, and never changed.
//!
//! An image is filled in `image-<number>.new`, closed, synced with all its files, and only then given its name:
//! one that has its name is complete. The name, `image-<number>-<log>-<mark>`, says what it stands
//! for: all changes below offset `mark` of the log of changes with id `log`; of two images the one of
//! the higher number is newer. Within stand how many entries it holds and the sum of their hashes;
//! one that does not hold what it says is damaged.
//!
//! Measured with sled 0.34.7: `flush` does not survive power loss (`sync_file_range`), and after
//! such a cut a database may panic on opening or come back without what it held. An image is never in
//! that state, does not grow by its history, and what goes wrong in sled (a panic, ENOSPC in the middle
//! of a write) costs one attempt to write it. Opening a database to read it changes its files; so a
//! copy is opened, and the image stays as it was synced.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Duration,
};

use thinglog_schemas::hash::fnv1a;
use tracing::warn;

use super::{
    change::{KINDS, Kind},
    disk::Disk,
};

/// Values stay in sled's main file below a quarter of this.
const SEGMENT: usize = 8 << 20;
/// Free bytes below which sled may fail on opening for want of room.
pub(super) const ROOM_TO_OPEN: u64 = 2 * SEGMENT as u64;
const CACHE: u64 = 8 << 20;
/// Bytes of one batch while an image is filled.
const BATCH: usize = 256 << 10;
/// What an image says of itself.
const ABOUT: &str = "image";
const UNFINISHED: &str = "new";
/// Where an image is copied to in order to be read; what a crash leaves of it is unfinished.
const COPY: &str = "image-copy.new";
const DAMAGED: &str = "damaged";

/// A complete image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Image {
    pub(super) number: u64,
    pub(super) stamp: Stamp,
    pub(super) path: PathBuf,
}

impl Image {
    fn of_path(path: PathBuf) -> Option<Image> {
        let name = path.file_name()?.to_str()?;
        let mut parts = name.strip_prefix("image-")?.split('-');
        let number = parts.next()?.parse().ok()?;
        let log = u64::from_str_radix(parts.next()?, 16).ok()?;
        let mark = parts.next()?.parse().ok()?;
        if parts.next().is_some() {
            return None;
        }
        let stamp = Stamp { log, mark };
        Some(Image {
            number,
            stamp,
            path,
        })
    }
}

/// What an image stands for: all changes below `mark` of the log with id `log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp {
    pub(super) log: u64,
    pub(super) mark: u64,
}

/// An image cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImageError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Database(#[from] sled::Error),
    #[error("the database panicked")]
    Panic,
    #[error("{0}")]
    Damaged(&'static str),
    #[error("the log of changes cannot be read: {0}")]
    Log(#[from] thinglog_journal::ReadError),
    #[error("stopped")]
    Stopped,
}

/// Number of entries and bytes, and the sum of the hashes of all entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    count: u64,
    bytes: u64,
    sum: u64,
}

impl Totals {
    fn add(&mut self, tree: &str, key: &[u8], value: &[u8], buffer: &mut Vec<u8>) {
        buffer.clear();
        buffer.extend_from_slice(tree.as_bytes());
        buffer.extend_from_slice(&(key.len() as u64).to_be_bytes());
        buffer.extend_from_slice(key);
        buffer.extend_from_slice(value);
        self.count += 1;
        self.bytes += (key.len() + value.len()) as u64;
        self.sum = self.sum.wrapping_add(fnv1a(buffer));
    }
}

/// The complete images in `dir`, oldest first. What was not finished is removed.
pub(super) fn list(dir: &Path) -> io::Result<Vec<Image>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == UNFINISHED) {
            std::fs::remove_dir_all(&path)?;
        } else {
            found.extend(Image::of_path(path));
        }
    }
    found.sort();
    Ok(found)
}

/// Sets a damaged image aside, as evidence; those that were set aside before go. One that cannot be
/// moved stays where it is and is passed over again.
pub(super) fn set_aside(disk: &dyn Disk, path: &Path) {
    let entries = path.parent().and_then(|dir| std::fs::read_dir(dir).ok());
    for entry in entries.into_iter().flatten().flatten() {
        let other = entry.path();
        if other.extension().is_some_and(|end| end == DAMAGED) {
            remove(&other);
        }
    }
    if let Err(error) = disk.rename(path, &path.with_extension(DAMAGED)) {
        warn!(path = %path.display(), %error, "it cannot be set aside");
    }
}

/// Gives every entry of the image at `path` to `visit`. Nothing is complete before this has
/// returned: an error may come after any number of entries, each of which is right in itself, and
/// entries may come twice.
pub(super) fn read(
    path: &Path,
    visit: &mut dyn FnMut(Kind, &str, &[u8]),
) -> Result<(), ImageError> {
    let copy = path.with_file_name(COPY);
    remove(&copy);
    let read = copy_tree(path, &copy)
        .map_err(ImageError::Io)
        .and_then(|()| read_in_place(&copy, visit));
    remove(&copy);
    // For want of room, most likely: then the image itself has to do.
    read.or_else(|_| read_in_place(path, visit))
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_tree(&entry.path(), &to)?,
            false => drop(std::fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}

fn read_in_place(path: &Path, visit: &mut dyn FnMut(Kind, &str, &[u8])) -> Result<(), ImageError> {
    let read = AssertUnwindSafe(|| -> Result<(), ImageError> {
        let db = open(path)?;
        let totals = walk(&db, visit)?;
        let about = db.open_tree(ABOUT)?;
        let number = |key: &str| -> Result<u64, ImageError> {
            let value = about.get(key)?;
            value
                .and_then(|value| Some(u64::from_be_bytes((*value).try_into().ok()?)))
                .ok_or(ImageError::Damaged("it does not say what it holds"))
        };
        let expected = Totals {
            count: number("count")?,
            bytes: number("bytes")?,
            sum: number("sum")?,
        };
        if totals != expected {
            return Err(ImageError::Damaged("it does not hold what it should"));
        }
        Ok(())
    });
    catch_unwind(read).unwrap_or(Err(ImageError::Panic))
}

/// Gives every entry of a database of the kinds there are to `visit`.
fn walk(db: &sled::Db, visit: &mut dyn FnMut(Kind, &str, &[u8])) -> Result<Totals, ImageError> {
    let (mut totals, mut buffer) = (Totals::default(), Vec::new());
    for (kind, _, tree) in KINDS {
        for entry in &db.open_tree(tree)? {
            let (key, value) = entry?;
            totals.add(tree, &key, &value, &mut buffer);
            match std::str::from_utf8(&key) {
                Ok(key) => visit(kind, key, &value),
                Err(_) => warn!(
                    tree,
                    "a key of the broker's state is not UTF-8 and is left out"
                ),
            }
        }
    }
    Ok(totals)
}

/// Reads a database that earlier versions changed in place.
pub(super) fn read_legacy(
    path: &Path,
    visit: &mut dyn FnMut(Kind, &str, &[u8]),
) -> Result<(), ImageError> {
    let read = AssertUnwindSafe(|| walk(&open(path)?, visit).map(drop));
    catch_unwind(read).unwrap_or(Err(ImageError::Panic))
}

/// Takes the entries of an image that is being written.
pub(super) struct Filler {
    batches: Vec<(sled::Tree, sled::Batch)>,
    bytes: usize,
}

impl Filler {
    pub(super) fn put(
        &mut self,
        kind: Kind,
        key: &str,
        value: Option<&[u8]>,
    ) -> Result<(), ImageError> {
        let at = KINDS.iter().position(|(known, ..)| *known == kind);
        let Some((_, batch)) = at.and_then(|at| self.batches.get_mut(at)) else {
            return Ok(());
        };
        match value {
            Some(value) => batch.insert(key.as_bytes(), value),
            None => batch.remove(key.as_bytes()),
        }
        self.bytes += key.len() + value.map_or(0, <[u8]>::len);
        if self.bytes >= BATCH {
            self.apply()
        } else {
            Ok(())
        }
    }

    fn apply(&mut self) -> Result<(), ImageError> {
        self.bytes = 0;
        for (tree, batch) in &mut self.batches {
            tree.apply_batch(std::mem::take(batch))?;
        }
        Ok(())
    }
}

/// Writes the image `number` with what `fill` puts into it; gives it with the bytes of its keys and
/// values. Nothing of it is left when it fails.
pub(super) fn write(
    disk: &dyn Disk,
    dir: &Path,
    (number, stamp): (u64, Stamp),
    fill: impl FnOnce(&mut Filler) -> Result<(), ImageError>,
) -> Result<(Image, u64), ImageError> {
    let Stamp { log, mark } = stamp;
    let path = dir.join(format!("image-{number}-{log:016x}-{mark}"));
    let unfinished = dir.join(format!("image-{number}.{UNFINISHED}"));
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished)?;
    }
    let filled = catch_unwind(AssertUnwindSafe(|| write_database(&unfinished, fill)))
        .unwrap_or(Err(ImageError::Panic))
        .and_then(|bytes| {
            disk.sync_tree(&unfinished)?;
            disk.rename(&unfinished, &path)?;
            Ok(bytes)
        });
    match filled {
        Ok(bytes) => {
            let image = Image {
                number,
                stamp,
                path,
            };
            Ok((image, bytes))
        }
        Err(error) => {
            // Whatever name it has by now: it is not referred to.
            remove(&unfinished);
            remove(&path);
            Err(error)
        }
    }
}

/// Removes an image, if it is there.
pub(super) fn remove(path: &Path) {
    if path.exists()
        && let Err(error) = std::fs::remove_dir_all(path)
    {
        warn!(path = %path.display(), %error, "an image of the broker's state that is not needed stays");
    }
}

fn write_database(
    path: &Path,
    fill: impl FnOnce(&mut Filler) -> Result<(), ImageError>,
) -> Result<u64, ImageError> {
    let db = open(path)?;
    let mut filler = Filler {
        batches: Vec::new(),
        bytes: 0,
    };
    for (_, _, tree) in KINDS {
        filler
            .batches
            .push((db.open_tree(tree)?, sled::Batch::default()));
    }
    fill(&mut filler)?;
    filler.apply()?;
    // Read back: what is summed up is what is there.
    let totals = walk(&db, &mut |_, _, _| {})?;
    let about = db.open_tree(ABOUT)?;
    for (key, value) in [
        ("count", totals.count),
        ("bytes", totals.bytes),
        ("sum", totals.sum),
    ] {
        about.insert(key, &value.to_be_bytes())?;
    }
    db.flush()?;
    Ok(totals.bytes)
}

/// Opens a database. One that was closed a moment ago may still be held by sled's threads.
fn open(path: &Path) -> Result<sled::Db, ImageError> {
    let config = sled::Config::new()
        .path(path)
        .segment_size(SEGMENT)
        .cache_capacity(CACHE)
        .flush_every_ms(None);
    let mut tries = 0;
    loop {
        match config.open() {
            Err(error) if tries < 500 && error.to_string().contains("could not acquire lock") => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return Ok(opened?),
        }
    }
}
