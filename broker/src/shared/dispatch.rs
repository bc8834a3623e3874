//! Which member of a durable group gets which record. Pure: records come by offset, with the device
//! they are of; what waits is remembered by offset alone.
//!
//! A device's records go one member at a time: the member that has unacknowledged records of a device
//! holds it, and everything newer of the device goes to the same member or waits. So what a device sent
//! is in order for whoever acknowledges it, and moves only when nothing of it is under way. A member
//! that takes no more, or never acknowledges, stops the devices it holds and no others.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use thinglog_journal::cursor::Cursor;

use crate::session::ConnectionId;

/// Offsets a group may look at beyond the lowest that is not done.
pub(super) const REACH: u64 = 1_000_000;
/// Bytes of unacknowledged records at which a member gets no more.
const WINDOW_BYTES: usize = 4 << 20;
/// Unacknowledged records of a member at most, whatever its client would take: so that one that joins
/// later finds work.
const WINDOW: usize = 256;

/// Stands for a device. Two that share a number are one to a group, which costs nothing but speed.
pub(super) type Device = u64;

/// What is known of one record when somebody is sought for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    pub(super) offset: u64,
    pub(super) device: Device,
    pub(super) bytes: usize,
}

/// What becomes of a record that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This member is to have it, and owes its acknowledgement.
    Give(ConnectionId),
    /// Not now: it is remembered, and comes up again in [`Dispatch::due`].
    Wait,
    /// No member may have it.
    Nobody,
    /// It is done, or under way.
    Known,
}

/// The records of one device that are not done.
#[derive(Debug, Default)]
struct Line {
    /// Who has unacknowledged records of it.
    holder: Option<ConnectionId>,
    /// How many.
    given: usize,
    /// Those that nobody has, ascending, all above those that are given.
    waiting: VecDeque<u64>,
}

/// One member.
#[derive(Debug)]
struct Member {
    /// Unacknowledged records it takes; 0 when it is to get no more.
    window: usize,
    /// What it has not acknowledged: device and bytes.
    given: BTreeMap<u64, (Device, usize)>,
    bytes: usize,
    /// When it got its last record, as a count of records.
    turn: u64,
    /// The devices it holds of which more waits, by the first offset that does.
    held: BTreeSet<(u64, Device)>,
}

impl Member {
    fn room(&self) -> usize {
        match self.bytes < WINDOW_BYTES {
            true => self.window.saturating_sub(self.given.len()),
            false => 0,
        }
    }
}

/// The state of a group.
#[derive(Debug)]
pub(super) struct Dispatch {
    cursor: Cursor,
    /// The first offset that was never offered.
    next: u64,
    lines: HashMap<Device, Line>,
    members: BTreeMap<ConnectionId, Member>,
    /// Members with room: least loaded first, of those the one that waited longest.
    open: BTreeSet<(usize, u64, ConnectionId)>,
    /// Devices that nobody holds and of which something waits, by the first offset that does.
    free: BTreeSet<(u64, Device)>,
    waiting: usize,
    /// Records that members have not acknowledged.
    given: usize,
    turns: u64,
}

impl Dispatch {
    pub(super) fn new(cursor: Cursor) -> Dispatch {
        Dispatch {
            next: cursor.position(),
            cursor,
            lines: HashMap::new(),
            members: BTreeMap::new(),
            open: BTreeSet::new(),
            free: BTreeSet::new(),
            waiting: 0,
            given: 0,
            turns: 0,
        }
    }

    pub(super) fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The first offset that was never offered.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Records that were read and wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Records that members have not acknowledged.
    pub(super) fn given(&self) -> usize {
        self.given
    }

    pub(super) fn members(&self) -> usize {
        self.members.len()
    }

    pub(super) fn is_done(&self, offset: u64) -> bool {
        self.cursor.is_done(offset)
    }

    /// A member comes, or takes up to another number of records at once.
    pub(super) fn join(&mut self, id: ConnectionId, receive_maximum: u16) {
        self.turns += 1;
        let turn = self.turns;
        self.members.entry(id).or_insert_with(|| Member {
            window: 0,
            given: BTreeMap::new(),
            bytes: 0,
            turn,
            held: BTreeSet::new(),
        });
        let window = usize::from(receive_maximum).min(WINDOW);
        self.change(id, |member| member.window = window);
    }

    /// A member is to get no more; what it was sent stays with it until it acknowledges or goes.
    pub(super) fn retire(&mut self, id: ConnectionId) {
        self.change(id, |member| member.window = 0);
    }

    /// A member is gone: what it had not acknowledged waits for others, in order.
    pub(super) fn leave(&mut self, id: ConnectionId) {
        let Some(member) = self.members.get(&id) else {
            return;
        };
        let given: Vec<u64> = member.given.keys().copied().collect();
        self.give_back(id, &given);
        self.close(id);
        self.members.remove(&id);
    }

    /// A member did not get these after all: they wait again.
    pub(super) fn give_back(&mut self, id: ConnectionId, offsets: &[u64]) {
        for offset in offsets.iter().rev() {
            let Some(device) = self.settle(id, *offset) else {
                continue;
            };
            let waiting = &mut self.lines.entry(device).or_default().waiting;
            let place = waiting.partition_point(|other| other < offset);
            waiting.insert(place, *offset);
            self.waiting += 1;
            self.file(device);
        }
    }

    /// A member acknowledged a record: it is done. False when it did not owe that.
    pub(super) fn acknowledge(&mut self, id: ConnectionId, offset: u64) -> bool {
        let Some(device) = self.settle(id, offset) else {
            return false;
        };
        self.cursor.done(offset..offset + 1);
        self.file(device);
        true
    }

    /// Whether a member may be given something.
    pub(super) fn has_room(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether records that were never offered may be looked at.
    pub(super) fn may_read_on(&self) -> bool {
        self.has_room() && self.next < self.cursor.position().saturating_add(REACH)
    }

    /// Offsets that wait and could go, ascending, about `most` of them.
    pub(super) fn due(&self, most: usize) -> Vec<u64> {
        let mut due = Vec::new();
        if self.waiting == 0 {
            return due;
        }
        let mut total = 0usize;
        for (_, _, id) in &self.open {
            let Some(member) = self.members.get(id) else {
                continue;
            };
            let room = member.room();
            total = total.saturating_add(room);
            self.take_waiting(&member.held, room.min(most), &mut due);
        }
        self.take_waiting(&self.free, total.min(most), &mut due);
        due.sort_unstable();
        due.truncate(most);
        due
    }

    fn take_waiting(&self, devices: &BTreeSet<(u64, Device)>, most: usize, due: &mut Vec<u64>) {
        let mut left = most;
        for (_, device) in devices {
            if left == 0 {
                return;
            }
            if let Some(line) = self.lines.get(device) {
                let before = due.len();
                due.extend(line.waiting.iter().take(left));
                left -= due.len() - before;
            }
        }
    }

    /// Seeks a member for a record: the next one, or one that waits. `may` says who may have it.
    pub(super) fn offer(&mut self, offer: Offer, may: impl Fn(ConnectionId) -> bool) -> Verdict {
        let Offer { offset, device, .. } = offer;
        let is_new = offset >= self.next;
        if is_new {
            self.skip_to(offset);
            self.next = offset + 1;
            if self.cursor.is_done(offset) {
                return Verdict::Known;
            }
        }
        let line = self.lines.entry(device).or_default();
        let holder = line.holder;
        let is_first = match is_new {
            true => line.waiting.is_empty(),
            false => line.waiting.front() == Some(&offset),
        };
        let waits = is_new || line.waiting.binary_search(&offset).is_ok();
        let verdict = match is_first {
            true => self.choose(holder, may),
            false if waits => Verdict::Wait,
            false => Verdict::Known,
        };
        match verdict {
            Verdict::Give(id) => self.give(id, offer, is_new),
            Verdict::Wait if is_new => {
                let line = self.lines.entry(device).or_default();
                line.waiting.push_back(offset);
                self.waiting += 1;
                self.file(device);
            }
            Verdict::Wait => {}
            Verdict::Nobody | Verdict::Known => self.file(device),
        }
        verdict
    }

    /// Who is to have the first record of a device.
    fn choose(&self, holder: Option<ConnectionId>, may: impl Fn(ConnectionId) -> bool) -> Verdict {
        if let Some(holder) = holder {
            let has_room = self
                .members
                .get(&holder)
                .is_some_and(|member| member.room() > 0);
            return match has_room && may(holder) {
                true => Verdict::Give(holder),
                false => Verdict::Wait,
            };
        }
        let mut open = self.open.iter().map(|(_, _, id)| *id);
        match open.find(|id| may(*id)) {
            Some(id) => Verdict::Give(id),
            None if self.members.keys().any(|id| may(*id)) => Verdict::Wait,
            None => Verdict::Nobody,
        }
    }

    fn give(&mut self, id: ConnectionId, offer: Offer, is_new: bool) {
        let Offer {
            offset,
            device,
            bytes,
        } = offer;
        self.unfile(device);
        let line = self.lines.entry(device).or_default();
        line.holder = Some(id);
        line.given += 1;
        self.given += 1;
        if !is_new {
            line.waiting.pop_front();
            self.waiting -= 1;
        }
        self.turns += 1;
        let turn = self.turns;
        self.change(id, |member| {
            member.given.insert(offset, (device, bytes));
            member.bytes += bytes;
            member.turn = turn;
        });
        self.file(device);
    }

    /// Nobody is to have a record: it is done.
    pub(super) fn pass_over(&mut self, offset: u64, device: Device) {
        if offset >= self.next {
            self.skip_to(offset);
            self.next = offset + 1;
        } else {
            self.unfile(device);
            let waiting = self.lines.get_mut(&device).map(|line| &mut line.waiting);
            if let Some(waiting) = waiting
                && let Ok(place) = waiting.binary_search(&offset)
            {
                waiting.remove(place);
                self.waiting -= 1;
            }
            self.file(device);
        }
        self.cursor.done(offset..offset + 1);
    }

    /// There are no records between the last that was offered and this offset.
    pub(super) fn skip_to(&mut self, offset: u64) {
        if offset > self.next {
            self.cursor.done(self.next..offset);
            self.next = offset;
        }
    }

    /// What waits and is not to be had any more is done. Gives how many records those were.
    pub(super) fn drop_waiting(&mut self, is_gone: impl Fn(u64) -> bool) -> u64 {
        let mut gone = Vec::new();
        let devices: Vec<Device> = self.lines.keys().copied().collect();
        for device in devices {
            self.unfile(device);
            if let Some(line) = self.lines.get_mut(&device) {
                gone.extend(line.waiting.iter().filter(|offset| is_gone(**offset)));
                line.waiting.retain(|offset| !is_gone(*offset));
            }
            self.file(device);
        }
        for offset in &gone {
            self.cursor.done(*offset..offset + 1);
        }
        self.waiting -= gone.len();
        gone.len() as u64
    }

    /// Takes a record off what a member owes; its line is to be filed then.
    fn settle(&mut self, id: ConnectionId, offset: u64) -> Option<Device> {
        let (device, _) = *self.members.get(&id)?.given.get(&offset)?;
        self.unfile(device);
        self.change(id, |member| {
            if let Some((_, bytes)) = member.given.remove(&offset) {
                member.bytes -= bytes;
            }
        });
        let line = self.lines.entry(device).or_default();
        line.given -= 1;
        self.given -= 1;
        if line.given == 0 {
            line.holder = None;
        }
        Some(device)
    }

    /// Puts a device where it is looked for, or forgets it when nothing of it is left.
    fn file(&mut self, device: Device) {
        let Some(line) = self.lines.get(&device) else {
            return;
        };
        let Some(first) = line.waiting.front().copied() else {
            if line.given == 0 {
                self.lines.remove(&device);
            }
            return;
        };
        match line.holder {
            None => drop(self.free.insert((first, device))),
            Some(holder) => {
                if let Some(member) = self.members.get_mut(&holder) {
                    member.held.insert((first, device));
                }
            }
        }
    }

    /// Takes a device from where it is looked for, before its holder or its first waiting record change.
    fn unfile(&mut self, device: Device) {
        let Some(line) = self.lines.get(&device) else {
            return;
        };
        let Some(first) = line.waiting.front().copied() else {
            return;
        };
        match line.holder {
            None => drop(self.free.remove(&(first, device))),
            Some(holder) => {
                if let Some(member) = self.members.get_mut(&holder) {
                    member.held.remove(&(first, device));
                }
            }
        }
    }

    /// Changes what a member has or takes, and its place among those with room.
    fn change(&mut self, id: ConnectionId, change: impl FnOnce(&mut Member)) {
        self.close(id);
        if let Some(member) = self.members.get_mut(&id) {
            change(member);
            if member.room() > 0 {
                self.open.insert((member.given.len(), member.turn, id));
            }
        }
    }

    fn close(&mut self, id: ConnectionId) {
        if let Some(member) = self.members.get(&id) {
            self.open.remove(&(member.given.len(), member.turn, id));
        }
    }
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
