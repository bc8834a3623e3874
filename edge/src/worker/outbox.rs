//! The way of a batch inside the worker: cut from the queue, encoded once, through the spool when
//! there is one, into the window, out at its end when acknowledged.

use std::{collections::VecDeque, sync::atomic::Ordering::Relaxed, time::Instant};

use bytes::Bytes;
use thinglog_schemas::{
    Level,
    batch::{ClockInfo, DropReason, MAX_PAYLOAD, restamp},
};

use crate::{
    clock,
    levels::Now,
    sealed::{Sealed, Sealer},
    shared::Shared,
    spool::{Group, Pressure, Spool},
    window::Window,
};

/// Batches encoded before the connection gets its turn.
const BATCHES_A_PASS: usize = 4;
/// Encoded batches that wait for the disk.
const STAGE: usize = 16;

pub(super) struct Outbox {
    sealer: Sealer,
    staged: VecDeque<Sealed>,
    stage_bytes: usize,
    pub(super) spool: Option<Spool>,
    pub(super) window: Window,
    /// A cap for the spool that came with the configuration.
    pub(super) configured_bytes: Option<u64>,
    /// For batches of events whose time counts from the boot.
    clock: ClockInfo,
}

/// What goes to the broker for a batch: where times count from this boot, with the time of sending.
pub(super) fn stamped(sealed: &Sealed, boot: u64) -> Bytes {
    let again = restamp(&sealed.payload, boot, clock::since_boot());
    again.map_or_else(|| sealed.payload.clone(), Bytes::from)
}

impl Outbox {
    /// `window` batches in flight; `memory_bytes` are for everything, a share of it for what is
    /// encoded.
    pub(super) fn new(
        spool: Option<Spool>,
        window: usize,
        memory_bytes: usize,
        boot: u64,
    ) -> Outbox {
        Outbox {
            sealer: Sealer::new(),
            staged: VecDeque::new(),
            spool,
            window: Window::new(window, memory_bytes / 4),
            stage_bytes: memory_bytes / 8,
            configured_bytes: None,
            clock: ClockInfo {
                boot,
                sent_mono: 0,
                synced: true,
            },
        }
    }

    /// Moves batches forward. True when there is more to do at once.
    pub(super) fn fill(&mut self, shared: &Shared, now: Now, hold: bool) -> bool {
        let mut more = false;
        if !hold {
            more = self.cut(shared);
        }
        if self.spool.is_some() {
            self.through_the_spool(shared, now);
        } else {
            self.admit_staged();
        }
        self.count(shared);
        more
    }

    fn cut(&mut self, shared: &Shared) -> bool {
        let least = self.least();
        self.clock.sent_mono = clock::since_boot();
        let max_payload = self.spool.as_ref().map_or(MAX_PAYLOAD, Spool::max_payload);
        for _ in 0..BATCHES_A_PASS {
            if !self.may_stage() {
                return false;
            }
            let Some(cut) = shared.queue.lock().cut(least, self.clock) else {
                return false;
            };
            let lost = self.sealer.seal(cut, max_payload, &mut self.staged);
            if lost > 0 {
                shared.queue.lock().count_undeliverable(lost);
            }
        }
        true
    }

    fn may_stage(&self) -> bool {
        match &self.spool {
            Some(_) => self.staged.len() < STAGE && self.staged_bytes() < self.stage_bytes,
            None => self.staged.is_empty() && self.window.has_room(),
        }
    }

    fn staged_bytes(&self) -> usize {
        let staged = self.staged.iter().map(|sealed| sealed.payload.len());
        staged.sum()
    }

    /// What a nearly full spool still takes.
    fn least(&self) -> Option<Level> {
        let pressure = self.spool.as_ref()?.pressure(self.configured_bytes);
        (pressure == Pressure::Reserve).then_some(Level::Warn)
    }

    fn admit_staged(&mut self) {
        while self.window.has_room()
            && let Some(sealed) = self.staged.pop_front()
        {
            self.window.push(sealed, None);
        }
    }

    fn through_the_spool(&mut self, shared: &Shared, now: Now) {
        let Some(spool) = &mut self.spool else { return };
        match spool.poll(now.mono) {
            Some(Group::Durable(group)) => {
                let mut queue = shared.queue.lock();
                for (lane, through) in group.iter().filter_map(|sealed| sealed.settles) {
                    // What went around the spool before it is not on disk.
                    if !self.window.take_over(lane, through) {
                        queue.settle(lane, through);
                    }
                }
            }
            Some(Group::Failed(group)) => {
                for sealed in group.into_iter().rev() {
                    self.staged.push_front(sealed);
                }
            }
            None => {}
        }
        if !self.staged.is_empty() && spool.is_ready(now.mono) {
            spool.append(&mut self.staged, now.wall.unwrap_or_default(), now.mono);
        }
        while self.window.has_room()
            && let Some((sealed, release)) = spool.next(&mut self.sealer)
        {
            self.window.push(sealed, release);
        }
        // Around a spool that takes nothing, in order: only when nothing in it is still to be read.
        if spool.is_stuck() && spool.is_drained() {
            self.admit_staged();
        }
    }

    fn count(&self, shared: &Shared) {
        let (in_flight, window_bytes) = self.window.depth();
        let mut outside = window_bytes + self.staged_bytes();
        let mut hold_patient = false;
        if let Some(spool) = &self.spool {
            outside += spool.writing_bytes();
            hold_patient = spool.pressure(self.configured_bytes) == Pressure::Reserve;
            shared.figures.spool_bytes.store(spool.bytes(), Relaxed);
            shared.figures.unreadable.store(spool.unreadable(), Relaxed);
        }
        shared.figures.in_flight.store(in_flight, Relaxed);
        shared.figures.held_bytes.store(outside as u64, Relaxed);
        let has_room = {
            let mut queue = shared.queue.lock();
            queue.set_outside(outside);
            queue.set_hold_patient(hold_patient);
            queue.has_room()
        };
        if has_room {
            shared.room.notify_waiters();
        }
    }

    /// Takes acknowledged batches off the window's end; true when there were any.
    pub(super) fn release(&mut self, shared: &Shared, now: Instant) -> bool {
        let mut any = false;
        let (mut released, mut released_bytes) = (None, 0);
        while let Some(mut slot) = self.window.pop_done() {
            any = true;
            let events = u64::from(slot.sealed.events);
            shared.figures.acknowledged.fetch_add(events, Relaxed);
            shared.figures.batches.fetch_add(1, Relaxed);
            let bytes = slot.sealed.payload.len() as u64;
            shared.figures.payload_bytes.fetch_add(bytes, Relaxed);
            if let Some((lane, through)) = slot.sealed.settles {
                shared.queue.lock().settle(lane, through);
            }
            if slot.release.is_some() {
                released = slot.release;
                released_bytes += bytes;
            }
            if let Some(spool) = self.spool.as_mut().filter(|_| slot.in_memory) {
                spool.sent_places(std::mem::take(&mut slot.sealed.marks), now);
            }
        }
        if let Some(spool) = &mut self.spool {
            if let Some(offset) = released {
                spool.release(offset, released_bytes);
            }
            spool.pass_places(shared.queue.lock().take_settled_places(), now);
            spool.note(now, false);
        }
        any
    }

    /// The next batch to send, split when the broker takes no packet of its size.
    pub(super) fn next(
        &mut self,
        limit: usize,
        max_payload: usize,
        shared: &Shared,
    ) -> Option<&Sealed> {
        while self.window.next_waiting(limit)?.payload.len() > max_payload {
            let waiting = self.window.next_waiting(limit)?;
            if waiting.events == 0 {
                tracing::warn!(
                    max_payload,
                    "a declaration of drops is too large for the broker"
                );
                self.window.skip_waiting();
                continue;
            }
            let mut pieces = VecDeque::new();
            let whole = waiting.clone();
            match self.sealer.split(&whole, max_payload, &mut pieces) {
                Ok(0) => {}
                Ok(lost) => {
                    tracing::warn!(
                        lost,
                        max_payload,
                        "events too large for the broker are dropped"
                    );
                    shared.queue.lock().count_undeliverable(lost);
                }
                Err(error) => {
                    tracing::error!(%error, "a batch of our own cannot be read");
                    self.window.skip_waiting();
                    continue;
                }
            }
            self.window.replace_waiting(pieces);
        }
        self.window.next_waiting(limit)
    }

    /// The broker will never take this batch: declares it dropped in its place. A declaration that
    /// is refused as well is let go.
    pub(super) fn give_up(&mut self, pkid: u16, shared: &Shared) {
        let Some(sealed) = self.window.sent(pkid) else {
            return;
        };
        let events = sealed.events;
        match self.sealer.give_up(sealed, DropReason::TooLarge) {
            Ok((declaration, lost)) if events > 0 => {
                shared.queue.lock().count_undeliverable(lost);
                self.window.replace_sent(pkid, declaration);
            }
            _ => drop(self.window.acknowledged(pkid)),
        }
    }

    /// The number of this boot.
    pub(super) fn boot(&self) -> u64 {
        self.clock.boot
    }

    /// Whether nothing is left to be sent or written.
    pub(super) fn is_empty(&self) -> bool {
        let spool_empty = self.spool.as_ref().is_none_or(Spool::is_drained);
        self.staged.is_empty() && self.window.is_empty() && spool_empty
    }

    /// When the spool wants to be looked at again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let spool = self.spool.as_ref()?;
        spool.retry_at().filter(|_| !self.staged.is_empty())
    }
}
