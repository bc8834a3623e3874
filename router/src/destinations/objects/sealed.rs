//! How much of the stage waits for its upload, shared by who stages and who uploads.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Bytes of complete files.
#[derive(Debug, Default)]
pub(super) struct Sealed {
    bytes: AtomicU64,
    more: Notify,
}

impl Sealed {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// As a gauge shows it.
    pub(super) fn shown(&self) -> i64 {
        i64::try_from(self.bytes()).unwrap_or(i64::MAX)
    }

    /// A file is about to be complete.
    pub(super) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// It is.
    pub(super) fn tell(&self) {
        self.more.notify_one();
    }

    /// A file has become objects.
    pub(super) fn uploaded(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Waits until something was told.
    pub(super) async fn more(&self) {
        self.more.notified().await;
    }
}
