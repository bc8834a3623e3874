//! What a working thread wants from its connection: acknowledge up to here, send these frames,
//! start over, stop. Bounded: acknowledgements are one number, frames have a byte limit.

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Settled;

/// Requests of one thread to one connection task.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<Requests>,
    wake: Notify,
}

/// What has been asked since the task last looked.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// The newest settlement.
    pub(crate) settled: Option<Settled>,
    /// Encoded packets to write.
    pub(crate) frames: BytesMut,
    /// More frames wait for the next look.
    pub(crate) frames_left: bool,
    /// Drop the connection and have everything unacknowledged delivered again.
    pub(crate) restart: bool,
    /// Nothing more will come: write what is due, disconnect, return.
    pub(crate) finished: bool,
}

impl Outbox {
    /// Acknowledges everything up to `settled`.
    pub(crate) fn settle(&self, settled: Settled) {
        self.state.lock().settled = Some(settled);
        self.wake.notify_one();
    }

    /// Appends encoded packets, unless more than `limit` bytes would wait then; says whether it did.
    pub(crate) fn send(&self, frames: &[u8], limit: usize) -> bool {
        let mut state = self.state.lock();
        if state.frames.len() + frames.len() > limit {
            return false;
        }
        state.frames.extend_from_slice(frames);
        drop(state);
        self.wake.notify_one();
        true
    }

    pub(crate) fn restart(&self) {
        self.state.lock().restart = true;
        self.wake.notify_one();
    }

    pub(crate) fn finish(&self) {
        self.state.lock().finished = true;
        self.wake.notify_one();
    }

    /// Waits until something has been asked. Cancel-safe.
    pub(crate) async fn asked(&self) {
        self.wake.notified().await;
    }

    /// Takes the requests. Frames stay behind unless `with_frames`: the task takes more only when
    /// it has written what it took before.
    pub(crate) fn take(&self, with_frames: bool) -> Requests {
        let mut state = self.state.lock();
        let frames = if with_frames {
            state.frames.split()
        } else {
            BytesMut::new()
        };
        Requests {
            settled: state.settled.take(),
            frames_left: !state.frames.is_empty(),
            frames,
            restart: std::mem::take(&mut state.restart),
            finished: state.finished,
        }
    }

    /// A new connection begins: frames meant for the old one are void.
    pub(crate) fn begin(&self) {
        let mut state = self.state.lock();
        state.frames.clear();
        state.settled = None;
        state.restart = false;
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.state.lock().finished
    }
}
