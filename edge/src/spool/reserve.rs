//! Room on the disk for the day on which others have filled it: a file as large as the largest segment,
//! made with the spool and counted against its cap. To give up less grave events a segment has to be
//! written anew beside the old one; when the disk has no room for that, the file goes first. It is made
//! again once events can be written again.

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use thinglog_journal::fs::{Fs, write_all};

use crate::clock;

/// How often it is tried to make the file again.
const AGAIN: Duration = Duration::from_secs(60);
const BLOCK: usize = 64 << 10;

/// How large the file is in a spool of `cap` bytes: the largest segment and its sidecar.
pub(super) const fn reserve_bytes(cap: u64) -> u64 {
    let record = cap / 10;
    let record = if record < 384 << 10 {
        384 << 10
    } else if record > 1 << 20 {
        1 << 20
    } else {
        record
    };
    record + (32 << 10)
}

pub(super) struct Reserve {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    bytes: u64,
    there: bool,
    make_at: Option<Instant>,
}

impl Reserve {
    /// The file of a spool; made when there is none and the disk has room.
    pub(super) fn open(fs: Arc<dyn Fs>, path: PathBuf, bytes: u64) -> Reserve {
        let length = fs.open(&path, false).and_then(|file| file.len());
        let mut reserve = Reserve {
            fs,
            path,
            bytes,
            there: length.is_ok_and(|length| length == bytes),
            make_at: None,
        };
        reserve.make(clock::mono());
        reserve
    }

    /// Makes room. False when there was nothing to give up.
    pub(super) fn give_up(&mut self, now: Instant) -> bool {
        if !self.there || self.fs.remove(&self.path).is_err() {
            return false;
        }
        tracing::warn!(
            bytes = self.bytes,
            "the disk is full; the reserve of the spool is used to make room"
        );
        self.there = false;
        self.make_at = Some(clock::after(now, AGAIN));
        true
    }

    /// Makes the file when it is missing and it is time.
    pub(super) fn make(&mut self, now: Instant) {
        if self.there || self.make_at.is_some_and(|at| now < at) {
            return;
        }
        match self.write() {
            Ok(()) => self.there = true,
            Err(error) => {
                tracing::debug!(%error, "no room for the reserve of the spool");
                // What is left of it would take room.
                let _ = self.fs.remove(&self.path);
                self.make_at = Some(clock::after(now, AGAIN));
            }
        }
    }

    fn write(&self) -> io::Result<()> {
        let file = self.fs.create(&self.path)?;
        let block = [0xa5; BLOCK];
        let mut at = 0;
        while at < self.bytes {
            let left = usize::try_from(self.bytes - at).unwrap_or(BLOCK);
            let part = &block[..left.min(BLOCK)];
            write_all(&*file, part, at)?;
            at += part.len() as u64;
        }
        file.sync()
    }
}
