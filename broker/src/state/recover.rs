//! Opening: the newest image that is whole, and what the log of changes has beyond it.

use std::{collections::hash_map::Entry, convert::Infallible, io, path::Path};

use tracing::{error, warn};

use super::{
    OpenError,
    change::{Contents, decode},
    disk::Disk,
    fold::Base,
    image::{self, Image, ImageError, Stamp},
    log::Log,
    reserve::Reserve,
};

/// Bytes of the log read at once.
const BLOCK: usize = 1 << 20;

/// What was found on disk.
pub(super) struct Recovered {
    pub(super) contents: Contents,
    /// The images there are, oldest first; with the log beyond it each holds everything.
    pub(super) bases: Vec<Base>,
    pub(super) next_number: u64,
    /// Bytes of the log that the newest base does not have.
    pub(super) unfolded: u64,
    /// Where the last record of the log ends.
    pub(super) end: u64,
    /// Damaged places.
    pub(super) damaged: u64,
    /// Something that was stored may be missing.
    pub(super) lost: bool,
}

/// Reads what is there. What is damaged is set aside and what it was to hold taken from elsewhere;
/// then, and only then, a new image is written before this returns.
pub(super) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    log: &Log,
    reserve: &Reserve,
    was_in_use: bool,
) -> Result<Recovered, OpenError> {
    let range = log.range().unwrap_or_default();
    let mut found = Recovered {
        contents: Contents::new(),
        bases: Vec::new(),
        next_number: 1,
        unfolded: 0,
        end: 0,
        damaged: 0,
        lost: false,
    };
    let images = image::list(dir).map_err(io_at(dir))?;
    found.next_number += images.last().map_or(0, |image| image.number);
    let had_images = !images.is_empty();
    found.read_images(disk, images, reserve)?;
    let legacy = dir.join("sled");
    let is_legacy = !had_images && range.end == 0 && legacy.exists();
    let newest = found.bases.last().map(Base::stamp);
    let from = match newest {
        Some(stamp) if stamp.log == log.id() && stamp.mark <= range.end => stamp.mark,
        Some(_) => {
            error!(path = %dir.display(), "the log of changes is another one than before: changes of the broker's state since its last image are gone");
            found.lost = true;
            range.start
        }
        None => 0,
    };
    if is_legacy {
        found.read_legacy(&legacy);
    } else if newest.is_none() && was_in_use && range.end == 0 {
        error!(path = %dir.display(), "the broker's state is empty although it was in use");
        found.lost = true;
    }
    if from < range.start {
        error!(path = %dir.display(), from, first = range.start, "changes of the broker's state are missing from their log");
        found.lost = true;
    }
    found.end = from.max(range.start);
    found.replay(dir, log, from)?;
    if found.lost || found.damaged > 0 || is_legacy {
        found.write_image(disk, dir, log)?;
        if is_legacy && found.lost {
            image::set_aside(disk, &legacy);
        } else if is_legacy {
            image::remove(&legacy);
        }
    }
    if found.bases.is_empty() {
        let stamp = Stamp {
            log: log.id(),
            mark: 0,
        };
        found.bases.push(Base::Empty(stamp));
    }
    Ok(found)
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    |source| OpenError::Io { path, source }
}

impl Recovered {
    /// Reads the newest image that is whole; the ones before it are only noted. While none is, what
    /// can be read of the damaged ones is taken, each entry from the newest that has it.
    fn read_images(
        &mut self,
        disk: &dyn Disk,
        images: Vec<Image>,
        reserve: &Reserve,
    ) -> Result<(), OpenError> {
        let mut salvaged = Contents::new();
        for image in images.into_iter().rev() {
            if !self.bases.is_empty() {
                // Looked into when it is needed.
                self.bases.insert(0, Base::Image(image));
                continue;
            }
            let path = image.path.clone();
            let mut contents = Contents::new();
            let read = image::read(&path, &mut |kind, key, value| {
                contents.insert((kind, key.to_owned()), value.to_vec());
            });
            match read {
                Ok(()) => {
                    self.contents = contents;
                    self.bases.push(Base::Image(image));
                }
                Err(error) if is_full(&error) || reserve.free() < image::ROOM_TO_OPEN => {
                    return Err(OpenError::Full {
                        path,
                        reason: error.to_string(),
                    });
                }
                Err(error) => {
                    error!(path = %path.display(), %error, "an image of the broker's state is damaged and is set aside");
                    self.damaged += 1;
                    image::set_aside(disk, &path);
                    for (key, value) in contents {
                        if let Entry::Vacant(entry) = salvaged.entry(key) {
                            entry.insert(value);
                        }
                    }
                }
            }
        }
        if self.bases.is_empty() {
            self.contents = salvaged;
        }
        Ok(())
    }

    /// Takes over a database that earlier versions changed in place.
    fn read_legacy(&mut self, path: &Path) {
        let contents = &mut self.contents;
        let read = image::read_legacy(path, &mut |kind, key, value| {
            contents.insert((kind, key.to_owned()), value.to_vec());
        });
        if let Err(error) = read {
            error!(path = %path.display(), %error, "the broker's state cannot be read in full; what could be read is taken over");
            (self.damaged, self.lost) = (1, true);
        }
    }

    /// Applies what the log has from `from` on.
    fn replay(&mut self, dir: &Path, log: &Log, from: u64) -> Result<(), OpenError> {
        let Some(mut reader) = log.reader(from) else {
            return Ok(());
        };
        let (mut damaged, mut unknown) = (0, 0u64);
        while let Some(chunk) = reader.read(BLOCK).map_err(|error| OpenError::Io {
            path: error.path,
            source: error.source,
        })? {
            damaged += chunk.quarantined;
            self.unfolded += chunk.bytes() as u64;
            for record in chunk.records() {
                self.end = record.offset + 1;
                let contents = &mut self.contents;
                let known = decode(&record.payload, |kind, key, value| {
                    let key = (kind, key.to_owned());
                    match value {
                        Some(value) => drop(contents.insert(key, value.to_vec())),
                        None => drop(contents.remove(&key)),
                    }
                    Ok::<(), Infallible>(())
                });
                unknown += u64::from(known == Ok(false));
            }
        }
        if unknown > 0 {
            warn!(path = %dir.display(), groups = unknown, "changes of a kind that this version does not know are left out");
        }
        if damaged > 0 {
            error!(path = %dir.display(), places = damaged, "the log of changes is damaged: some of what the broker's state had stored is gone");
            self.damaged += damaged;
            self.lost = true;
        }
        Ok(())
    }

    /// Writes all there is as the only base: what was damaged is not looked at again.
    fn write_image(&mut self, disk: &dyn Disk, dir: &Path, log: &Log) -> Result<(), OpenError> {
        let stamp = Stamp {
            log: log.id(),
            mark: self.end,
        };
        let (image, _) = image::write(disk, dir, (self.next_number, stamp), |filler| {
            self.contents
                .iter()
                .try_for_each(|((kind, key), value)| filler.put(*kind, key, Some(value)))
        })
        .map_err(|error| OpenError::Full {
            path: dir.to_owned(),
            reason: error.to_string(),
        })?;
        for base in std::mem::take(&mut self.bases) {
            if let Base::Image(image) = base {
                image::remove(&image.path);
            }
        }
        self.bases.push(Base::Image(image));
        self.next_number += 1;
        self.unfolded = 0;
        Ok(())
    }
}

/// Whether it failed for want of room.
fn is_full(error: &ImageError) -> bool {
    let kind = match error {
        ImageError::Io(error) | ImageError::Database(sled::Error::Io(error)) => error.kind(),
        _ => return false,
    };
    matches!(
        kind,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
