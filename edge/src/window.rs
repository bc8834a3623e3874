//! The batches between "handed to the connection" and "released": sent in order, acknowledged in
//! any order, released in order. After a reconnect everything unacknowledged goes out again, in the
//! same order, as the same bytes. Pure.

use std::collections::VecDeque;

use crate::{queue::LaneKey, sealed::Sealed};

/// Which record of the spool a batch is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The record's offset.
    pub(crate) offset: u64,
    /// Nothing more comes of this record: once it is done, the record may go.
    pub(crate) last: bool,
}

/// What stands in the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The batch.
    pub(crate) sealed: Sealed,
    /// `None` when the batch never was on disk.
    pub(crate) place: Option<Place>,
    state: State,
}

impl Slot {
    /// The spool may release everything below this once the slot is done.
    pub(crate) fn release(&self) -> Option<u64> {
        self.place
            .filter(|place| place.last)
            .map(|place| place.offset + 1)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    /// Handed to the connection as its nth batch; it has not said yet which packet id it took.
    Handed(u64),
    Sent(u16),
    Done,
}

/// The window. Its limit counts from the oldest unacknowledged batch, not the unacknowledged ones:
/// so two packets of one connection never need the same packet id.
#[derive(Debug)]
pub(crate) struct Window {
    slots: VecDeque<Slot>,
    limit: usize,
    max_bytes: usize,
    /// Payload bytes of all slots.
    bytes: usize,
    /// Batches ever handed to a connection.
    handed: u64,
}

impl Window {
    /// At most `limit` batches and about `max_bytes` of payload (always one batch).
    pub(crate) fn new(limit: usize, max_bytes: usize) -> Window {
        Window {
            slots: VecDeque::new(),
            limit: limit.max(1),
            max_bytes,
            bytes: 0,
            handed: 0,
        }
    }

    /// Whether another batch may enter.
    pub(crate) fn has_room(&self) -> bool {
        let full = self.slots.len() >= self.limit || self.bytes >= self.max_bytes;
        !full || self.slots.is_empty()
    }

    /// Nothing is unacknowledged.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Nothing is under way: whatever is in here waits to be sent or is done.
    pub(crate) fn is_quiet(&self) -> bool {
        let under_way = |slot: &Slot| matches!(slot.state, State::Handed(_) | State::Sent(_));
        !self.slots.iter().any(under_way)
    }

    /// Events and payload bytes inside.
    pub(crate) fn depth(&self) -> (u64, usize) {
        let unacknowledged = self.slots.iter().filter(|slot| slot.state != State::Done);
        let events = unacknowledged.map(|slot| u64::from(slot.sealed.events));
        (events.sum(), self.bytes)
    }

    /// Appends a batch. The caller looks at [`has_room`](Window::has_room); the pieces of a split
    /// batch may go over the limit together.
    pub(crate) fn push(&mut self, sealed: Sealed, place: Option<Place>) {
        self.bytes += sealed.payload.len();
        self.slots.push_back(Slot {
            sealed,
            place,
            state: State::Waiting,
        });
    }

    /// Takes out what waits at the end and can be read from the spool again; returns the offset of
    /// the first record to read then. A record that is on its way in part stays.
    pub(crate) fn take_back(&mut self) -> Option<u64> {
        let mut from = None;
        while let Some(place) = self.slots.back().and_then(|slot| slot.place) {
            let of_record = |slot: &&Slot| slot.place.is_some_and(|p| p.offset == place.offset);
            let record = self.slots.iter().rev().take_while(of_record);
            let pieces = record.clone().count();
            if record.clone().any(|slot| slot.state != State::Waiting) {
                break;
            }
            let rest = self.slots.len() - pieces;
            for slot in self.slots.drain(rest..) {
                self.bytes -= slot.sealed.payload.len();
            }
            from = Some(place.offset);
        }
        from
    }

    /// Takes out what is not on disk and not on its way, in order.
    pub(crate) fn take_around(&mut self) -> VecDeque<Sealed> {
        let goes = |slot: &Slot| slot.place.is_none() && slot.state == State::Waiting;
        let (around, rest): (VecDeque<Slot>, VecDeque<Slot>) = self.slots.drain(..).partition(goes);
        self.slots = rest;
        let around: VecDeque<Sealed> = around.into_iter().map(|slot| slot.sealed).collect();
        self.bytes -= around
            .iter()
            .map(|sealed| sealed.payload.len())
            .sum::<usize>();
        around
    }

    /// Whether a batch of the lane is here that is not on disk.
    pub(crate) fn is_around(&self, epoch: u64) -> bool {
        let mut slots = self.slots.iter();
        slots.any(|slot| slot.place.is_none() && slot.sealed.epoch == epoch)
    }

    /// A later batch of the lane, up to `through`, is on disk: when an earlier one is only here, it
    /// takes that over and settles both once it is acknowledged. False when there is none.
    pub(crate) fn take_over(&mut self, lane: LaneKey, through: u64) -> bool {
        let mut slots = self.slots.iter_mut().rev();
        let earlier = slots.find(|slot| slot.place.is_none() && slot.sealed.epoch == lane.epoch());
        if let Some(slot) = earlier {
            slot.sealed.settles = Some((lane, through));
            return true;
        }
        false
    }

    /// The next batch to send while at most `limit` are between the oldest unacknowledged one and
    /// it (the server's receive maximum).
    pub(crate) fn next_waiting(&self, limit: usize) -> Option<&Sealed> {
        let reach = self.slots.iter().take(limit.max(1));
        reach
            .into_iter()
            .find(|slot| slot.state == State::Waiting)
            .map(|slot| &slot.sealed)
    }

    /// The batch of [`next_waiting`](Window::next_waiting) was handed to the connection.
    pub(crate) fn handed(&mut self) {
        let nth = self.handed;
        if let Some(slot) = self.find(State::Waiting) {
            slot.state = State::Handed(nth);
            self.handed += 1;
        }
    }

    /// The batch of [`next_waiting`](Window::next_waiting) cannot be sent as it is: others take its
    /// place, in order. The last of them inherits what it releases.
    pub(crate) fn replace_waiting(&mut self, with: VecDeque<Sealed>) {
        let waiting = |slot: &Slot| slot.state == State::Waiting;
        let Some(at) = self.slots.iter().position(waiting) else {
            return;
        };
        self.replace_at(at, with);
    }

    fn replace_at(&mut self, at: usize, with: VecDeque<Sealed>) {
        let Some(old) = self.slots.remove(at) else {
            return;
        };
        self.bytes -= old.sealed.payload.len();
        let count = with.len();
        for (i, sealed) in with.into_iter().enumerate() {
            self.bytes += sealed.payload.len();
            let slot = Slot {
                sealed,
                place: old.place.map(|place| Place {
                    last: place.last && i + 1 == count,
                    ..place
                }),
                state: State::Waiting,
            };
            self.slots.insert(at + i, slot);
        }
    }

    /// The batch of [`next_waiting`](Window::next_waiting) is let go unsent.
    pub(crate) fn skip_waiting(&mut self) {
        if let Some(slot) = self.find(State::Waiting) {
            slot.state = State::Done;
        }
    }

    /// The connection took `pkid` for the oldest batch handed to it.
    pub(crate) fn assigned(&mut self, pkid: u16) {
        let order = |slot: &&mut Slot| match slot.state {
            State::Handed(nth) => nth,
            _ => u64::MAX,
        };
        let oldest = self.slots.iter_mut().min_by_key(order);
        if let Some(slot) = oldest
            && matches!(slot.state, State::Handed(_))
        {
            slot.state = State::Sent(pkid);
        }
    }

    /// `pkid` was acknowledged. False when no batch has that id.
    pub(crate) fn acknowledged(&mut self, pkid: u16) -> bool {
        let slot = self.find(State::Sent(pkid));
        let known = slot.is_some();
        if let Some(slot) = slot {
            slot.state = State::Done;
        }
        known
    }

    /// `pkid` was refused for now: it waits to be sent again, before anything that is not yet sent.
    pub(crate) fn refused(&mut self, pkid: u16) -> Option<&Sealed> {
        let slot = self.find(State::Sent(pkid))?;
        slot.state = State::Waiting;
        Some(&slot.sealed)
    }

    /// The batch that has `pkid`.
    pub(crate) fn sent(&self, pkid: u16) -> Option<&Sealed> {
        let mut slots = self.slots.iter();
        let slot = slots.find(|slot| slot.state == State::Sent(pkid))?;
        Some(&slot.sealed)
    }

    /// `pkid` was refused for good: `with` takes its place.
    pub(crate) fn replace_sent(&mut self, pkid: u16, with: Sealed) {
        let sent = |slot: &Slot| slot.state == State::Sent(pkid);
        if let Some(at) = self.slots.iter().position(sent) {
            self.replace_at(at, VecDeque::from([with]));
        }
    }

    /// The connection is gone: everything unacknowledged waits again.
    pub(crate) fn reset(&mut self) {
        for slot in &mut self.slots {
            if slot.state != State::Done {
                slot.state = State::Waiting;
            }
        }
    }

    /// Takes out the oldest batch when it is done.
    pub(crate) fn pop_done(&mut self) -> Option<Slot> {
        if self.slots.front()?.state != State::Done {
            return None;
        }
        let slot = self.slots.pop_front()?;
        self.bytes -= slot.sealed.payload.len();
        Some(slot)
    }

    fn find(&mut self, state: State) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.state == state)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::sealed::Classes;

    fn sealed(number: u64) -> Sealed {
        Sealed {
            source: "app".into(),
            epoch: 1,
            first_seq: number,
            last_seq: number,
            events: 1,
            classes: Classes::default(),
            patient: false,
            marks: Vec::new(),
            payload: Bytes::from(number.to_string()),
            settles: None,
        }
    }

    fn at(offset: u64) -> Option<Place> {
        Some(Place { offset, last: true })
    }

    fn window(count: u64) -> Window {
        let mut window = Window::new(16, 1 << 20);
        for number in 0..count {
            window.push(sealed(number), at(number));
        }
        window
    }

    /// Hands everything that waits to a connection that numbers from `pkid`.
    fn send_all(window: &mut Window, mut pkid: u16) -> Vec<u64> {
        let mut sent = Vec::new();
        while let Some(sealed) = window.next_waiting(usize::MAX) {
            sent.push(sealed.first_seq);
            window.handed();
            window.assigned(pkid);
            pkid += 1;
        }
        sent
    }

    fn released(window: &mut Window) -> Vec<Option<u64>> {
        std::iter::from_fn(|| window.pop_done())
            .map(|slot| slot.release())
            .collect()
    }

    #[test]
    fn acknowledgements_in_any_order_release_in_order() {
        let mut window = window(3);
        assert_eq!(send_all(&mut window, 1), [0, 1, 2]);
        assert!(window.acknowledged(2));
        assert_eq!(released(&mut window), []);
        assert!(window.acknowledged(1));
        assert_eq!(released(&mut window), [Some(1), Some(2)]);
        assert!(!window.acknowledged(1));
        assert!(window.acknowledged(3));
        assert_eq!(released(&mut window), [Some(3)]);
        assert_eq!(window.depth(), (0, 0));
    }

    #[test]
    fn the_limit_counts_from_the_oldest_unacknowledged() {
        let mut window = window(4);
        for pkid in 1..=2 {
            assert!(window.next_waiting(2).is_some());
            window.handed();
            window.assigned(pkid);
        }
        assert!(window.next_waiting(2).is_none());
        window.acknowledged(2);
        assert!(window.next_waiting(2).is_none());
        window.acknowledged(1);
        released(&mut window);
        assert_eq!(window.next_waiting(2).unwrap().first_seq, 2);
    }

    #[test]
    fn after_a_reconnect_what_is_unacknowledged_waits_again_in_order() {
        let mut window = window(4);
        send_all(&mut window, 1);
        window.acknowledged(2);
        window.reset();
        assert_eq!(send_all(&mut window, 1), [0, 2, 3]);
    }

    #[test]
    fn a_refused_batch_goes_out_before_what_was_never_sent() {
        let mut window = window(2);
        send_all(&mut window, 1);
        window.push(sealed(2), None);
        assert_eq!(window.refused(1).unwrap().first_seq, 0);
        assert_eq!(send_all(&mut window, 3), [0, 2]);
    }

    #[test]
    fn packet_ids_go_to_batches_in_the_order_they_were_handed_over() {
        let mut window = window(2);
        send_all(&mut window, 1);
        window.push(sealed(2), None);
        window.handed();
        window.refused(1);
        window.handed();
        window.assigned(3);
        window.assigned(4);
        assert_eq!(window.sent(3).unwrap().first_seq, 2);
        assert_eq!(window.sent(4).unwrap().first_seq, 0);
    }

    #[test]
    fn what_is_on_disk_behind_a_batch_that_is_not_settles_with_it() {
        let mut queue = crate::queue::Queue::new(
            crate::queue::QueueOptions {
                memory_bytes: 1 << 20,
                batch_events: 1,
                batch_bytes: 1 << 10,
                flush_age: std::time::Duration::ZERO,
            },
            crate::levels::Levels::new(thinglog_schemas::Level::Info),
            7,
        );
        let record = crate::Record::new("app", thinglog_schemas::Severity::INFO, "m");
        queue.push(record);
        let clock = thinglog_schemas::batch::ClockInfo {
            boot: 0,
            sent_mono: 0,
            synced: true,
        };
        let lane = queue.cut(None, clock).unwrap().lane;
        let around = Sealed {
            epoch: lane.epoch(),
            settles: Some((lane, 1)),
            ..sealed(0)
        };

        let mut window = window(2);
        assert!(!window.take_over(lane, 2), "all of it is on disk");
        window.push(around, None);
        assert!(window.take_over(lane, 2));
        send_all(&mut window, 1);
        window.reset();
        assert_eq!(send_all(&mut window, 1).len(), 3);
        for pkid in 1..=3 {
            assert!(window.acknowledged(pkid));
        }
        let settled: Vec<_> = std::iter::from_fn(|| window.pop_done())
            .map(|slot| slot.sealed.settles)
            .collect();
        assert_eq!(settled, [None, None, Some((lane, 2))]);
        assert!(!window.take_over(lane, 3));
    }

    #[test]
    fn the_last_piece_of_a_split_batch_releases_its_record() {
        let mut window = window(1);
        let pieces = VecDeque::from([sealed(10), sealed(11), sealed(12)]);
        window.replace_waiting(pieces);
        assert_eq!(send_all(&mut window, 1), [10, 11, 12]);
        for pkid in 1..=3 {
            window.acknowledged(pkid);
        }
        assert_eq!(released(&mut window), [None, None, Some(1)]);
    }

    #[test]
    fn what_waits_at_the_end_goes_back_to_the_spool_but_not_what_is_on_its_way() {
        let mut window = window(6);
        window.replace_waiting(VecDeque::from([sealed(10), sealed(11)]));
        for pkid in 1..=3 {
            window.handed();
            window.assigned(pkid);
        }
        window.acknowledged(3);
        assert_eq!(window.take_back(), Some(2));
        assert_eq!(window.take_back(), None);
        assert_eq!(window.depth().1, 2 + 2 + 1);
        // A record of which one piece is on its way stays, and all before it.
        window.refused(2);
        assert_eq!(window.take_back(), None);
        window.reset();
        assert_eq!(window.take_back(), None, "one is done");
        window.push(sealed(7), None);
        window.push(sealed(8), at(8));
        assert_eq!(window.take_back(), Some(8));
        assert_eq!(window.take_back(), None, "what is in memory only stays");
        assert!(window.is_around(1) && !window.is_around(2));
        assert_eq!(window.take_around(), [sealed(7)]);
        assert!(!window.is_around(1) && window.take_around().is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        Send,
        Acknowledge(usize),
        Refuse(usize),
        Reconnect,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Push),
            4 => Just(Step::Send),
            4 => (0usize..8).prop_map(Step::Acknowledge),
            1 => (0usize..8).prop_map(Step::Refuse),
            1 => Just(Step::Reconnect),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Whatever acknowledgements, refusals and reconnects come: a batch is released only after
        /// it was acknowledged, all are released in order, none is lost or changed.
        #[test]
        fn only_what_was_acknowledged_is_released_and_in_order(
            steps in proptest::collection::vec(step(), 1..300)
        ) {
            let mut window = Window::new(8, 1 << 20);
            let (mut pushed, mut next_released, mut pkid) = (0u64, 0u64, 0u16);
            let mut on_the_wire: Vec<(u16, u64)> = Vec::new();
            let mut acknowledged = std::collections::HashSet::new();
            for step in steps {
                match step {
                    Step::Push if window.has_room() => {
                        window.push(sealed(pushed), at(pushed));
                        pushed += 1;
                    }
                    Step::Send => {
                        if let Some(sealed) = window.next_waiting(8) {
                            pkid += 1;
                            on_the_wire.push((pkid, sealed.first_seq));
                            window.handed();
                            window.assigned(pkid);
                        }
                    }
                    Step::Acknowledge(at) if at < on_the_wire.len() => {
                        let (pkid, number) = on_the_wire.remove(at);
                        prop_assert!(window.acknowledged(pkid));
                        acknowledged.insert(number);
                    }
                    Step::Refuse(at) if at < on_the_wire.len() => {
                        let (pkid, number) = on_the_wire.remove(at);
                        prop_assert_eq!(window.refused(pkid).map(|s| s.first_seq), Some(number));
                    }
                    Step::Reconnect => {
                        on_the_wire.clear();
                        window.reset();
                    }
                    _ => {}
                }
                while let Some(slot) = window.pop_done() {
                    prop_assert_eq!(slot.sealed.first_seq, next_released);
                    prop_assert_eq!(slot.release(), Some(next_released + 1));
                    prop_assert!(acknowledged.contains(&next_released));
                    next_released += 1;
                }
                prop_assert_eq!(window.bytes, window.slots.iter().map(|s| s.sealed.payload.len()).sum::<usize>());
            }
            window.reset();
            while let Some(sealed) = window.next_waiting(8).cloned() {
                window.handed();
                window.assigned(1);
                prop_assert!(!acknowledged.contains(&sealed.first_seq));
                window.acknowledged(1);
                while window.pop_done().is_some() {
                    next_released += 1;
                }
            }
            prop_assert_eq!(next_released, pushed);
        }
    }
}
