//! One durable group: its members, what each of them has, and what is kept of it on disk. Members change
//! it from their connections; [`super::driver`] gives it records.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use thinglog_journal::{Record as JournalRecord, cursor::Cursor};
use tokio::sync::Notify;

use super::{
    dispatch::{Device, Dispatch, Offer, Verdict},
    unshared,
};
use crate::{
    access::{Pass, Reach},
    feed::Skipped,
    filter::Matcher,
    record::Record,
    session::{ConnectionId, Session},
    trie::{SessionKey, Subscription},
};

/// A cursor with many ranges is stored less often: so much later, ns, for so many of them.
const STORE_LATER: u64 = 250_000_000;
const RANGES: usize = 10_000;
/// Offsets that all groups together may remember; beyond it those that remember many read no further.
const REMEMBERED: usize = 8_000_000;
const REMEMBERED_CROWDED: usize = 1_000;

/// A group of one shared subscription whose filter may match durable topics.
#[derive(Debug)]
pub(crate) struct Group {
    /// The whole filter.
    pub(crate) share: Arc<str>,
    filter: Matcher,
    partition: Partition,
    state: Mutex<State>,
    remembered: Arc<Remembered>,
    /// Rung when there may be something to do for the driver.
    pub(super) wake: Notify,
}

/// How many offsets of records that wait all groups remember.
#[derive(Debug, Default)]
pub(crate) struct Remembered(AtomicUsize);

#[derive(Debug)]
struct State {
    dispatch: Dispatch,
    /// Its part of what all groups remember, as it was counted last.
    remembered: usize,
    seats: BTreeMap<ConnectionId, Arc<Seat>>,
    /// Sessions that are subscribed, connected or not.
    subscribers: HashSet<SessionKey>,
    /// Since when no member is connected, ns since the epoch.
    idle_since: Option<u64>,
    /// A driver runs.
    is_driven: bool,
    /// Counts what members did.
    events: u64,
    /// Nobody took what waits: it is not read again before `events` is another.
    barren_at: Option<u64>,
    /// Something changed since it was last stored.
    changed: bool,
    /// When it is stored next at the earliest.
    store_at: u64,
}

/// A member that is connected.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) session: Arc<Session>,
    pub(super) subscription: Subscription,
    /// It is told where records come from.
    pub(super) is_told: bool,
    /// What its client may read, unless that is everything the filter matches.
    checked: Option<Arc<Pass>>,
}

/// A record that a member is to have.
#[derive(Debug)]
pub(super) struct Hand {
    pub(super) member: ConnectionId,
    pub(super) seat: Arc<Seat>,
    pub(super) record: JournalRecord,
}

/// What the driver is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Read records again that wait; they are offered as of this event.
    Fetch(Vec<u64>, u64),
    /// Read on.
    Read,
    /// Wait until something changes.
    Rest,
    /// End: nobody is there.
    Stop,
}

/// What is kept of a group on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    cursor: Vec<u8>,
    idle_since: Option<u64>,
}

impl Group {
    /// A group without members that begins at `cursor`.
    pub(crate) fn new(
        share: Arc<str>,
        root: &str,
        (cursor, idle_since): (Cursor, u64),
        remembered: Arc<Remembered>,
    ) -> Group {
        Group {
            filter: Matcher::new(unshared(&share)),
            partition: Partition::new(root),
            share,
            remembered,
            state: Mutex::new(State {
                dispatch: Dispatch::new(cursor),
                remembered: 0,
                seats: BTreeMap::new(),
                subscribers: HashSet::new(),
                idle_since: Some(idle_since),
                is_driven: false,
                events: 0,
                barren_at: None,
                changed: true,
                store_at: 0,
            }),
            wake: Notify::new(),
        }
    }

    /// A session is subscribed, connected or not.
    pub(crate) fn subscribe(&self, session: SessionKey) {
        self.state.lock().subscribers.insert(session);
    }

    /// A session is not subscribed any more; true when it was the last.
    pub(crate) fn unsubscribe(&self, session: SessionKey) -> bool {
        let mut state = self.state.lock();
        state.subscribers.remove(&session);
        state.subscribers.is_empty()
    }

    /// A connected client becomes a member, or is one in another way from now on. True when a driver
    /// has to be started.
    #[must_use]
    pub(crate) fn join(
        &self,
        member: ConnectionId,
        session: &Arc<Session>,
        subscription: Subscription,
        (receive_maximum, pass): (u16, Option<&Arc<Pass>>),
    ) -> bool {
        let seat = Seat {
            session: session.clone(),
            subscription,
            is_told: pass.is_none_or(|pass| pass.is_trusted()),
            checked: self.checked(pass),
        };
        let mut state = self.state.lock();
        state.subscribers.insert(session.key);
        state.seats.insert(member, Arc::new(seat));
        state.dispatch.join(member, receive_maximum);
        state.changed |= state.idle_since.take().is_some();
        self.ring(&mut state);
        !std::mem::replace(&mut state.is_driven, true)
    }

    /// A member may do something else from now on.
    pub(crate) fn renew(&self, member: ConnectionId, pass: &Arc<Pass>) {
        let checked = self.checked(Some(pass));
        let mut state = self.state.lock();
        if let Some(seat) = state.seats.get_mut(&member) {
            *seat = Arc::new(Seat {
                session: seat.session.clone(),
                subscription: seat.subscription.clone(),
                is_told: pass.is_trusted(),
                checked,
            });
        }
        self.ring(&mut state);
    }

    fn checked(&self, pass: Option<&Arc<Pass>>) -> Option<Arc<Pass>> {
        pass.filter(|pass| pass.reach(&self.share) != Reach::Everything)
            .cloned()
    }

    /// A member's connection is over: what it had not acknowledged is for the others.
    pub(crate) fn leave(&self, member: ConnectionId, now: u64) {
        let mut state = self.state.lock();
        state.dispatch.leave(member);
        state.seats.remove(&member);
        if state.seats.is_empty() {
            state.idle_since = Some(now);
            state.changed = true;
        }
        self.ring(&mut state);
    }

    /// A connected member has unsubscribed: it keeps what it was sent, `unsent` is for the others.
    pub(crate) fn retire(&self, member: ConnectionId, unsent: &[u64]) {
        let mut state = self.state.lock();
        state.dispatch.retire(member);
        state.dispatch.give_back(member, unsent);
        self.ring(&mut state);
    }

    /// The group is over.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        for member in std::mem::take(&mut state.seats).into_keys() {
            state.dispatch.leave(member);
        }
        self.ring(&mut state);
    }

    /// A member is done with a record.
    pub(crate) fn acknowledge(&self, member: ConnectionId, offset: u64) {
        let mut state = self.state.lock();
        if state.dispatch.acknowledge(member, offset) {
            state.changed = true;
            self.ring(&mut state);
        }
    }

    fn ring(&self, state: &mut State) {
        state.events += 1;
        self.wake.notify_one();
    }

    /// A record could not be handed to a member any more.
    pub(super) fn give_back(&self, member: ConnectionId, offset: u64) {
        let mut state = self.state.lock();
        state.dispatch.give_back(member, &[offset]);
        self.ring(&mut state);
    }

    /// Everything below is done.
    pub(crate) fn position(&self) -> u64 {
        self.state.lock().dispatch.cursor().position()
    }

    /// Connected members.
    pub(crate) fn members(&self) -> usize {
        self.state.lock().dispatch.members()
    }

    /// Whether nobody has been connected for so long, ns, and no session waits.
    pub(crate) fn is_over(&self, now: u64, longest: u64) -> bool {
        let state = self.state.lock();
        let until = |since: u64| since.saturating_add(longest);
        state.subscribers.is_empty() && state.idle_since.is_some_and(|since| until(since) <= now)
    }

    /// What is to be stored of the group, if something changed and it is time.
    pub(crate) fn progress(&self, now: u64) -> Option<Vec<u8>> {
        let mut state = self.state.lock();
        let is_due = state.changed && state.store_at <= now;
        is_due.then(|| state.encode(now))
    }

    /// What is to be stored of the group.
    pub(crate) fn encode(&self, now: u64) -> Vec<u8> {
        self.state.lock().encode(now)
    }

    /// Cursor and idle time of a group as it was stored.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Cursor, Option<u64>)> {
        let stored: Stored = rmp_serde::from_slice(bytes).ok()?;
        Some((Cursor::decode(&stored.cursor)?, stored.idle_since))
    }

    /// Where the driver begins.
    pub(super) fn next(&self) -> u64 {
        self.state.lock().dispatch.next()
    }

    /// What there is to do; no more than `most` records are to be read again at once. When all sessions
    /// together are `full`, a group gets more only when it has nothing in hand.
    pub(super) fn task(&self, most: usize, full: bool) -> Task {
        let mut state = self.state.lock();
        if state.seats.is_empty() {
            // What waits is found again from the cursor.
            state.is_driven = false;
            state.dispatch = Dispatch::new(state.dispatch.cursor().clone());
            self.count(&mut state);
            return Task::Stop;
        }
        let is_crowded = self.count(&mut state) > REMEMBERED;
        if full && state.dispatch.given() > 0 {
            return Task::Rest;
        }
        if state.barren_at != Some(state.events) {
            let due = state.dispatch.due(most);
            if !due.is_empty() {
                return Task::Fetch(due, state.events);
            }
        }
        let remembers_much = is_crowded && state.remembered > REMEMBERED_CROWDED;
        match state.dispatch.may_read_on() && !remembers_much {
            true => Task::Read,
            false => Task::Rest,
        }
    }

    /// Counts what the group remembers; gives what all of them do.
    fn count(&self, state: &mut State) -> usize {
        let now = state.dispatch.waiting();
        let before = std::mem::replace(&mut state.remembered, now);
        let total = &self.remembered.0;
        match now >= before {
            true => total.fetch_add(now - before, Ordering::Relaxed) + (now - before),
            false => total.fetch_sub(before - now, Ordering::Relaxed) - (before - now),
        }
    }

    /// Offers the records that come next, as long as there is room; what is to be handed to members goes
    /// into `hands`.
    pub(super) fn offer(
        &self,
        mut next: impl FnMut() -> Option<JournalRecord>,
        now: u64,
        hands: &mut Vec<Hand>,
        skipped: &mut Skipped,
    ) {
        let mut state = self.state.lock();
        while state.dispatch.may_read_on()
            && let Some(record) = next()
        {
            state.changed |= self.offer_one(&mut state, record, now, hands, skipped);
        }
    }

    /// Offers records again that waited as of `event`.
    pub(super) fn offer_again(
        &self,
        (records, event): (Vec<JournalRecord>, u64),
        now: u64,
        hands: &mut Vec<Hand>,
        skipped: &mut Skipped,
    ) {
        let mut state = self.state.lock();
        let mut moved = false;
        for record in records {
            moved |= self.offer_one(&mut state, record, now, hands, skipped);
        }
        state.changed |= moved;
        state.barren_at = (!moved).then_some(event);
    }

    fn offer_one(
        &self,
        state: &mut State,
        at: JournalRecord,
        now: u64,
        hands: &mut Vec<Hand>,
        skipped: &mut Skipped,
    ) -> bool {
        let offset = at.offset;
        let record = Record::decode(&at.payload);
        let Some(record) = record.filter(|record| self.filter.matches(record.topic)) else {
            state.dispatch.pass_over(offset, 0);
            return true;
        };
        let device = self.partition.device(record.topic);
        if record.expires.is_some_and(|expires| expires <= now) {
            skipped.expired += u64::from(!state.dispatch.is_done(offset));
            state.dispatch.pass_over(offset, device);
            return true;
        }
        let State {
            dispatch, seats, ..
        } = state;
        let may = |member: ConnectionId| {
            let seat = seats.get(&member);
            seat.is_some_and(|seat| {
                let checked = seat.checked.as_ref();
                checked.is_none_or(|pass| pass.may_read(record.topic))
            })
        };
        let offer = Offer {
            offset,
            device,
            bytes: at.payload.len(),
        };
        match dispatch.offer(offer, may) {
            Verdict::Give(member) => {
                if let Some(seat) = seats.get(&member) {
                    hands.push(Hand {
                        member,
                        seat: seat.clone(),
                        record: at,
                    });
                }
                true
            }
            Verdict::Nobody => {
                skipped.forbidden += 1;
                dispatch.pass_over(offset, device);
                true
            }
            Verdict::Wait | Verdict::Known => false,
        }
    }

    /// The journal has nothing more below `offset`.
    pub(super) fn close_gap(&self, offset: u64) {
        let mut state = self.state.lock();
        if offset > state.dispatch.next() {
            state.dispatch.skip_to(offset);
            state.changed = true;
        }
    }

    /// Records that wait are not in the journal any more. Gives how many were lost.
    pub(super) fn drop_waiting(&self, first: u64, gone: &[u64]) -> u64 {
        let mut state = self.state.lock();
        state.changed = true;
        state.events += 1;
        let dispatch = &mut state.dispatch;
        dispatch.drop_waiting(|offset| offset < first || gone.binary_search(&offset).is_ok())
    }
}

impl State {
    fn encode(&mut self, now: u64) -> Vec<u8> {
        let cursor = self.dispatch.cursor();
        let later = (cursor.ranges() / RANGES) as u64 * STORE_LATER;
        self.store_at = now.saturating_add(later);
        self.changed = false;
        let stored = Stored {
            cursor: cursor.encode(),
            idle_since: self.idle_since,
        };
        rmp_serde::to_vec_named(&stored).unwrap_or_default()
    }
}

/// Finds the device of a topic.
#[derive(Debug)]
struct Partition {
    logs: String,
    out: String,
    hasher: RandomState,
}

impl Partition {
    fn new(root: &str) -> Partition {
        Partition {
            logs: format!("{root}/logs/"),
            out: format!("{root}/out/"),
            hasher: RandomState::new(),
        }
    }

    /// The device of `<root>/logs/<device>/…` and `<root>/out/<route>/<device>`, the whole topic of any
    /// other, as a number that no client can foresee.
    fn device(&self, topic: &str) -> Device {
        self.hasher.hash_one(self.name(topic))
    }

    fn name<'a>(&self, topic: &'a str) -> &'a str {
        let device = match topic.strip_prefix(&self.logs) {
            Some(rest) => Some(rest),
            None => topic
                .strip_prefix(&self.out)
                .and_then(|rest| Some(rest.split_once('/')?.1)),
        };
        device.map_or(topic, |rest| rest.split('/').next().unwrap_or(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_partitioned_by_its_device() {
        let partition = Partition::new("site/a");
        for (topic, name) in [
            ("site/a/logs/lamp/app", "lamp"),
            ("site/a/logs/lamp/app/more", "lamp"),
            ("site/a/out/audit/lamp", "lamp"),
            ("site/a/out/audit", "site/a/out/audit"),
            ("other/lamp", "other/lamp"),
        ] {
            assert_eq!(partition.name(topic), name);
        }
        assert_eq!(
            partition.device("site/a/logs/lamp/app"),
            partition.device("site/a/out/audit/lamp")
        );
    }

    #[test]
    fn a_group_is_stored_with_its_cursor_and_idle_time() {
        let mut cursor = Cursor::at(5);
        cursor.done(7..9);
        let group = Group::new(
            "$share/g/a/#".into(),
            "t",
            (cursor.clone(), 3),
            Arc::default(),
        );
        assert_eq!(Group::decode(&group.encode(0)), Some((cursor, Some(3))));
        assert_eq!(group.progress(u64::MAX), None, "nothing changed since");
    }
}
