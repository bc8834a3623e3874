//! The gate of the modes of upload at work: it opens by its rhythm, on request, for an ERROR, or to
//! say goodbye; it closes when everything that had gathered by then is acknowledged.

use super::Worker;
use crate::{levels::Now, queue::FlushTarget, upload::Gate};

#[derive(Debug)]
pub(super) struct Uploads {
    pub(super) gate: Gate,
    pub(super) errors_at_once: bool,
    /// ERROR events seen so far.
    errors: u64,
    under_way: Option<UnderWay>,
}

/// What an upload waits for.
#[derive(Debug)]
enum UnderWay {
    /// What was in the queue: on its way without a spool, on disk with one.
    Queued(FlushTarget),
    /// What was on disk, up to this offset.
    Stored(u64),
}

impl Uploads {
    pub(super) fn new(gate: Gate) -> Uploads {
        Uploads {
            gate,
            errors_at_once: false,
            errors: 0,
            under_way: None,
        }
    }

    /// Whether batches may go to the broker.
    pub(super) fn may_send(&self) -> bool {
        self.gate.is_open()
    }
}

impl Worker {
    pub(super) fn upload_tick(&mut self, now: Now) {
        let asked = self.shared.take_wish();
        if !self.uploads.gate.waits() {
            self.uploads.under_way = None;
            return;
        }
        let leaving = self.shared.stop_deadline().is_some() && !self.outbox.is_spooled();
        if asked || self.an_error_came() {
            self.uploads.gate.ask();
            // An upload that is under way does not cover what came since it began.
            self.uploads.under_way = None;
        } else if leaving {
            self.uploads.gate.ask();
        }
        self.uploads.gate.tick(now);
        if self.uploads.gate.is_open() && self.uploads.under_way.is_none() {
            let target = self.shared.queue.lock().start_upload();
            self.uploads.under_way = Some(UnderWay::Queued(target));
        }
    }

    fn an_error_came(&mut self) -> bool {
        if !self.uploads.errors_at_once {
            return false;
        }
        let errors = self.shared.queue.lock().errors();
        std::mem::replace(&mut self.uploads.errors, errors) < errors
    }

    /// Closes the gate behind an upload that is complete.
    pub(super) fn end_upload(&mut self, now: Now) {
        if let Some(UnderWay::Queued(target)) = &mut self.uploads.under_way {
            if self.shared.queue.lock().poll_flush(target).is_none() {
                return;
            }
            let end = self.outbox.spool.as_ref().map_or(0, |spool| spool.end());
            self.uploads.under_way = Some(UnderWay::Stored(end));
        }
        if let Some(UnderWay::Stored(end)) = self.uploads.under_way {
            let released = |spool: &crate::spool::Spool| spool.is_released(end);
            let gone = self.outbox.spool.as_ref().is_none_or(released);
            if gone || self.outbox.is_empty() {
                self.uploads.under_way = None;
                self.uploads.gate.close(now);
            }
        }
    }
}
