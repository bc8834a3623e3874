//! The way of a batch inside the worker: cut from the queue, encoded once, through the spool when
//! there is one, into the window, out at its end when acknowledged.

use std::{
    collections::VecDeque,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use bytes::Bytes;
use thinglog_schemas::{
    Level,
    batch::{ClockInfo, DropReason, MAX_PAYLOAD, restamp},
};

use crate::{
    clock,
    drops::Drops,
    levels::Now,
    queue::CLASSES,
    sealed::{Classes, Sealed, Sealer},
    shared::Shared,
    spool::{Group, Spool},
    window::Window,
};

/// Batches encoded before the connection gets its turn.
const BATCHES_A_PASS: usize = 4;
/// Encoded batches that wait for the disk.
const STAGE: usize = 256;
/// A full spool from which nothing was acknowledged for so long makes room for graver events.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) struct Outbox {
    sealer: Sealer,
    staged: VecDeque<Sealed>,
    staged_since: Option<Instant>,
    stage_bytes: usize,
    /// What is staged and due is written without waiting for more.
    write_now: bool,
    pub(crate) spool: Option<Spool>,
    pub(crate) window: Window,
    /// A cap for the spool that came with the configuration.
    pub(crate) configured_bytes: Option<u64>,
    /// Events go to the spool; without it only what it holds comes out of it.
    pub(crate) persistent: bool,
    /// When something on disk was last acknowledged.
    last_release: Option<Instant>,
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
    pub(crate) fn new(
        spool: Option<Spool>,
        window: usize,
        memory_bytes: usize,
        boot: u64,
    ) -> Outbox {
        Outbox {
            sealer: Sealer::new(),
            staged: VecDeque::new(),
            staged_since: None,
            spool,
            window: Window::new(window, memory_bytes / 4),
            stage_bytes: memory_bytes / 8,
            write_now: false,
            configured_bytes: None,
            persistent: true,
            last_release: None,
            clock: ClockInfo {
                boot,
                sent_mono: 0,
                synced: true,
            },
        }
    }

    /// Whether what is cut goes to disk.
    pub(crate) fn is_spooled(&self) -> bool {
        self.persistent && self.spool.is_some()
    }

    /// Moves batches forward. True when there is more to do at once.
    pub(crate) fn fill(&mut self, shared: &Shared, now: Now, hold: bool) -> bool {
        let mut more = false;
        if !hold {
            more = self.cut(shared, now.mono);
        }
        if self.spool.is_some() {
            more |= self.through_the_spool(shared, now, more);
        } else {
            self.admit_staged();
        }
        self.count(shared);
        more
    }

    fn cut(&mut self, shared: &Shared, now: Instant) -> bool {
        let least = self.least(now);
        self.clock.sent_mono = clock::since_boot();
        let max_payload = self.spool.as_ref().map_or(MAX_PAYLOAD, Spool::max_payload);
        self.write_now |= shared.queue.lock().take_round();
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

    /// The least class that a full spool still takes: what is graver than the least grave it holds.
    /// An ERROR is never turned away here, it waits.
    fn least_class(&self, now: Instant) -> Option<usize> {
        let spool = self.spool.as_ref().filter(|_| self.is_starved(now))?;
        Some((spool.floor()? + 1).min(CLASSES - 1))
    }

    fn least(&self, now: Instant) -> Option<Level> {
        Some(match self.least_class(now)? {
            0 => Level::Debug,
            1 => Level::Info,
            2 => Level::Warn,
            _ => Level::Error,
        })
    }

    /// The spool is full, and nothing comes of waiting for the broker.
    fn is_starved(&self, now: Instant) -> bool {
        let waited = |at| clock::after(at, PATIENCE) <= now;
        let spool = self.spool.as_ref();
        self.persistent
            && spool.is_some_and(|spool| spool.is_full(self.configured_bytes))
            && self.last_release.is_none_or(waited)
    }

    fn admit_staged(&mut self) {
        while self.window.has_room()
            && let Some(sealed) = self.staged.pop_front()
        {
            self.window.push(sealed, None);
        }
    }

    /// True when there is more to do at once. `cutting`: more is about to be staged.
    fn through_the_spool(&mut self, shared: &Shared, now: Now, cutting: bool) -> bool {
        self.settle_written(shared, now.mono);
        let mut more = false;
        let due = self.is_block_due(shared, now.mono, cutting);
        if due {
            self.write(now);
        }
        let wanted = self.spool.as_mut().is_some_and(Spool::take_room_wanted);
        if (due || wanted) && self.is_starved(now.mono) {
            more = self.make_room(shared, now.mono);
            self.thin_stage(shared, now.mono);
        }
        if self.staged.is_empty() {
            self.staged_since = None;
            self.write_now &= cutting;
        } else {
            self.staged_since.get_or_insert(now.mono);
        }
        let Some(spool) = &mut self.spool else {
            return more;
        };
        while self.window.has_room()
            && let Some((sealed, place)) = spool.next(&mut self.sealer)
        {
            self.window.push(sealed, Some(place));
        }
        // Around a spool that takes nothing, in order: only when nothing in it is still to be read.
        let passed = spool.is_stuck() || !self.persistent && spool.is_idle();
        if passed && spool.is_drained() {
            self.admit_staged();
        }
        more
    }

    fn settle_written(&mut self, shared: &Shared, now: Instant) {
        let written = self.spool.as_mut().and_then(|spool| spool.poll(now));
        match written {
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
    }

    /// Whether to write now: a block is full or has waited long enough, or somebody waits for it.
    fn is_block_due(&self, shared: &Shared, now: Instant, cutting: bool) -> bool {
        let Some(spool) = &self.spool else {
            return false;
        };
        if self.staged.is_empty() || !self.persistent || !spool.is_ready(now) {
            return false;
        }
        let block = spool.block();
        let full = self.staged_bytes() >= block.bytes || !self.may_stage();
        let aged = |since| clock::after(since, block.age) <= now;
        let hurried = self.write_now || shared.is_hurried();
        full || self.staged_since.is_some_and(aged) || hurried && !cutting
    }

    /// Hands a group to the spool. Those who can wait come last when there is little room. What went
    /// around the spool and is not on its way comes back; as long as something before it in its lane
    /// is on its way and not on disk, a batch waits: after a crash the lane would have a hole.
    fn write(&mut self, now: Now) {
        let Some(spool) = &mut self.spool else { return };
        if spool.is_full(self.configured_bytes) {
            let staged = self.staged.drain(..);
            let (patient, mut others): (VecDeque<Sealed>, VecDeque<Sealed>) =
                staged.partition(|sealed| sealed.patient);
            others.extend(patient);
            self.staged = others;
        }
        if spool.is_over(self.configured_bytes) {
            return;
        }
        spool.set_cap(self.configured_bytes);
        let mut around = self.window.take_around();
        around.append(&mut self.staged);
        self.staged = around;
        let window = &self.window;
        let waits = |sealed: &Sealed| window.is_around(sealed.epoch);
        let (waiting, mut group): (VecDeque<Sealed>, VecDeque<Sealed>) =
            self.staged.drain(..).partition(waits);
        if !group.is_empty() {
            spool.append(&mut group, now.wall.unwrap_or_default(), now.mono);
        }
        group.extend(waiting);
        self.staged = group;
    }

    /// Gives up less grave events on disk for graver ones that wait. True when there is more to do
    /// at once.
    fn make_room(&mut self, shared: &Shared, now: Instant) -> bool {
        let Some(spool) = &mut self.spool else {
            return false;
        };
        let staged = self.staged.iter().filter(|sealed| !sealed.patient);
        let staged = staged.fold(Classes::default(), |all, s| all.with(s.classes));
        let queued = shared.queue.lock().gravest();
        let Some(gravest) = staged.gravest().max(queued) else {
            return false;
        };
        if !spool.may_give_up(gravest) {
            return false;
        }
        spool.rewind(self.window.take_back());
        let given = spool.give_up(gravest, &mut self.sealer, now);
        if given.events > 0 {
            shared.queue.lock().count_given_up(given.events);
        }
        given.freed || given.more
    }

    /// What was staged before the spool was full gives way like what comes now: nothing waits for
    /// room that nobody will make for it.
    fn thin_stage(&mut self, shared: &Shared, now: Instant) {
        let Some(least) = self.least_class(now) else {
            return;
        };
        let mut lost = 0;
        let mut thinned: VecDeque<Sealed> = VecDeque::with_capacity(self.staged.len());
        for mut sealed in self.staged.drain(..) {
            if let Ok(Some(mut thin)) = self.sealer.thin(&sealed, least) {
                self.sealer.note_dropped(&thin.drops);
                lost += thin.drops.iter().map(|drop| drop.count).sum::<u64>();
                thin.sealed.settles = sealed.settles;
                sealed = thin.sealed;
            }
            // Declarations of a lane become one; at its end, before which nothing of it waits.
            let before = thinned.back_mut().filter(|before| before.events == 0);
            if let Some(before) = before
                && let Ok(Some(mut joined)) = self.sealer.join(before, &sealed)
            {
                joined.settles = sealed.settles.or(before.settles);
                *before = joined;
            } else {
                thinned.push_back(sealed);
            }
        }
        self.staged = thinned;
        if lost > 0 {
            shared.queue.lock().count_undeliverable(lost);
            if let Some(spool) = &mut self.spool {
                spool.try_again();
            }
        }
    }

    fn count(&self, shared: &Shared) {
        let (in_flight, window_bytes) = self.window.depth();
        let mut outside = window_bytes + self.staged_bytes();
        let mut hold_patient = false;
        if let Some(spool) = &self.spool {
            outside += spool.writing_bytes();
            hold_patient = self.persistent && spool.is_tight(self.configured_bytes);
            shared.figures.spool_bytes.store(spool.bytes(), Relaxed);
            shared.figures.unreadable.store(spool.unreadable(), Relaxed);
        }
        shared.figures.spooled.store(self.is_spooled(), Relaxed);
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
    pub(crate) fn release(&mut self, shared: &Shared, now: Instant) -> bool {
        let mut any = false;
        let (mut released, mut released_bytes) = (None, 0);
        while let Some(slot) = self.window.pop_done() {
            any = true;
            let events = u64::from(slot.sealed.events);
            shared.figures.acknowledged.fetch_add(events, Relaxed);
            shared.figures.batches.fetch_add(1, Relaxed);
            let bytes = slot.sealed.payload.len() as u64;
            shared.figures.payload_bytes.fetch_add(bytes, Relaxed);
            if let Some((lane, through)) = slot.sealed.settles {
                shared.queue.lock().settle(lane, through);
            }
            if let Some(release) = slot.release() {
                released = Some(release);
                released_bytes += bytes;
            }
            if let Some(spool) = self.spool.as_mut().filter(|_| slot.place.is_none()) {
                spool.sent_places(slot.sealed.marks, now);
            }
        }
        if let Some(spool) = &mut self.spool {
            if let Some(offset) = released {
                self.last_release = Some(now);
                spool.release(offset, released_bytes);
            }
            spool.pass_places(shared.queue.lock().take_settled_places(), now);
            spool.note(now, false);
        }
        any
    }

    /// The next batch to send, split when the broker takes no packet of its size.
    pub(crate) fn next(
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
    pub(crate) fn give_up(&mut self, pkid: u16, shared: &Shared) {
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

    /// What was given up on the way, so far.
    pub(super) fn dropped(&self) -> &Drops {
        self.sealer.dropped()
    }

    /// The number of this boot.
    pub(super) fn boot(&self) -> u64 {
        self.clock.boot
    }

    /// Whether nothing is left to be sent or written.
    pub(crate) fn is_empty(&self) -> bool {
        let spool_empty = self.spool.as_ref().is_none_or(Spool::is_drained);
        self.staged.is_empty() && self.window.is_empty() && spool_empty
    }

    /// When the spool wants to be looked at again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let spool = self.spool.as_ref().filter(|_| !self.staged.is_empty())?;
        if spool.retry_at().is_some() || !spool.is_idle() {
            return spool.retry_at();
        }
        self.staged_since
            .map(|since| clock::after(since, spool.block().age))
    }
}
