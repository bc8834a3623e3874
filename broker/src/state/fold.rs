//! Folding: the newest image and what the log of changes has beyond it become the next image, on a
//! thread of its own, so that no acknowledgement waits for sled.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use thinglog_journal::Reader;

use super::{
    change::decode,
    disk::Disk,
    image::{self, Filler, Image, ImageError, Stamp},
};

/// Bytes of the log read at once.
const BLOCK: usize = 1 << 20;

/// Where the contents of an image begin: with the log beyond its mark it makes up the state.
#[derive(Clone, Debug)]
pub(super) enum Base {
    /// Nothing was before this.
    Empty(Stamp),
    Image(Image),
}

impl Base {
    pub(super) fn stamp(&self) -> Stamp {
        match self {
            Base::Empty(stamp) => *stamp,
            Base::Image(image) => image.stamp,
        }
    }
}

/// One folding.
pub(super) struct Fold {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) base: Base,
    /// Reads the log from the base's mark on.
    pub(super) reader: Reader,
    /// Number and stamp of the new image.
    pub(super) next: (u64, Stamp),
    /// Set when nobody waits for the outcome any more.
    pub(super) stop: Arc<AtomicBool>,
}

/// Why there is no new image.
#[derive(Debug, thiserror::Error)]
pub(super) enum FoldError {
    /// The image that was to be built on cannot be read.
    #[error("the last image: {0}")]
    Base(ImageError),
    #[error("{0} records of the log of changes are damaged or gone")]
    Log(u64),
    #[error("{0}")]
    New(ImageError),
}

impl Fold {
    /// Gives the new image and the bytes of its keys and values.
    pub(super) fn run(mut self) -> Result<(Image, u64), FoldError> {
        let mut trouble = None;
        let (disk, dir, next) = (self.disk.clone(), self.dir.clone(), self.next);
        let written = image::write(&*disk, &dir, next, |filler| self.fill(filler, &mut trouble));
        match (written, trouble) {
            (_, Some(trouble)) => Err(trouble),
            (written, None) => written.map_err(FoldError::New),
        }
    }

    fn fill(
        &mut self,
        filler: &mut Filler,
        trouble: &mut Option<FoldError>,
    ) -> Result<(), ImageError> {
        if let Base::Image(base) = &self.base {
            let mut put = Ok(());
            let read = image::read(&base.path, &mut |kind, key, value| {
                if put.is_ok() {
                    put = filler.put(kind, key, Some(value));
                }
            });
            put?;
            if let Err(error) = read {
                *trouble = Some(FoldError::Base(error));
                return Err(ImageError::Stopped);
            }
        }
        let end = self.next.1.mark;
        while self.reader.offset() < end
            && let Some(chunk) = self.reader.read(BLOCK)?
        {
            if chunk.quarantined + chunk.missed > 0 {
                *trouble = Some(FoldError::Log(chunk.quarantined + chunk.missed));
                return Err(ImageError::Stopped);
            }
            // A stop, or the record at the new mark, ends it.
            if self.stop.load(Ordering::Relaxed) {
                return Err(ImageError::Stopped);
            }
            for record in chunk.records().take_while(|record| record.offset < end) {
                decode(&record.payload, |kind, key, value| {
                    filler.put(kind, key, value)
                })?;
            }
        }
        Ok(())
    }
}
