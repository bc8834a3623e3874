//! QoS 1 publishes sent to a client and not yet acknowledged: consecutive packet ids in a ring, so
//! that the common acknowledgement, the oldest, costs nothing to find.

use std::collections::VecDeque;

use crate::message::Queued;

/// What a packet id stands for.
#[derive(Clone, Debug)]
pub(crate) enum Sent {
    /// A record of the journal, by offset.
    Durable(u64),
    /// A message of the session's queue.
    Queued(Queued),
}

impl Sent {
    /// Memory it keeps alive, bytes.
    fn weight(&self) -> usize {
        match self {
            Sent::Durable(_) => 0,
            Sent::Queued(queued) => queued.message.weight(),
        }
    }
}

#[derive(Debug)]
struct Slot {
    sent: Option<Sent>,
    /// Sent over an earlier connection, not yet over this one.
    to_resend: bool,
}

/// The ring. Packet ids run from 1 to 65,535 and wrap.
#[derive(Debug)]
pub(crate) struct Window {
    slots: VecDeque<Slot>,
    /// Packet id of the first slot.
    first: u16,
    unacknowledged: usize,
    /// Those of them that are to be sent again.
    to_resend: usize,
    /// Bytes of queued messages among them.
    bytes: usize,
}

impl Default for Window {
    fn default() -> Self {
        Window {
            slots: VecDeque::new(),
            first: 1,
            unacknowledged: 0,
            to_resend: 0,
            bytes: 0,
        }
    }
}

const IDS: usize = u16::MAX as usize;

impl Window {
    /// Whether another publish may be sent to a client that takes `receive_maximum` at once.
    pub(crate) fn has_room(&self, receive_maximum: u16) -> bool {
        self.unacknowledged < usize::from(receive_maximum) && self.slots.len() < IDS
    }

    /// Takes the next packet id.
    pub(crate) fn push(&mut self, sent: Sent) -> u16 {
        let id = Self::id_at(self.first, self.slots.len());
        self.bytes += sent.weight();
        self.slots.push_back(Slot {
            sent: Some(sent),
            to_resend: false,
        });
        self.unacknowledged += 1;
        id
    }

    /// Bytes of queued messages that wait for their acknowledgement.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A new connection: everything outstanding is to be sent again, but for what `is_stale`, which
    /// nobody will send and so nobody acknowledge.
    pub(crate) fn resume(&mut self, is_stale: impl Fn(&Sent) -> bool) {
        let stale: Vec<u16> = self
            .outstanding()
            .filter(|(_, sent)| is_stale(sent))
            .map(|(id, _)| id)
            .collect();
        for id in stale {
            self.acknowledge(id);
        }
        for slot in &mut self.slots {
            slot.to_resend = slot.sent.is_some();
        }
        self.to_resend = self.unacknowledged;
    }

    /// Whether one more may be sent again to a client that takes `receive_maximum` at once.
    pub(crate) fn may_resend(&self, receive_maximum: u16) -> bool {
        self.unacknowledged - self.to_resend < usize::from(receive_maximum)
    }

    /// Notes that a packet id is sent again; gives what it stands for.
    pub(crate) fn resend(&mut self, id: u16) -> Option<&Sent> {
        let index = self.index(id)?;
        let slot = self.slots.get_mut(index)?;
        if std::mem::take(&mut slot.to_resend) {
            self.to_resend -= 1;
        }
        slot.sent.as_ref()
    }

    /// What is to be sent again, oldest first.
    pub(crate) fn to_resend(&self) -> impl Iterator<Item = (u16, &Sent)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let sent = slot.sent.as_ref().filter(|_| slot.to_resend)?;
            Some((Self::id_at(self.first, index), sent))
        })
    }

    fn index(&self, id: u16) -> Option<usize> {
        (id > 0).then(|| (usize::from(id) + IDS - usize::from(self.first)) % IDS)
    }

    /// Settles a packet id; `None` when nothing is outstanding under it.
    pub(crate) fn acknowledge(&mut self, id: u16) -> Option<Sent> {
        let index = self.index(id)?;
        let slot = self.slots.get_mut(index)?;
        let sent = slot.sent.take()?;
        if std::mem::take(&mut slot.to_resend) {
            self.to_resend -= 1;
        }
        self.unacknowledged -= 1;
        self.bytes -= sent.weight();
        while self.slots.front().is_some_and(|slot| slot.sent.is_none()) {
            self.slots.pop_front();
            self.first = Self::id_at(self.first, 1);
        }
        Some(sent)
    }

    /// Everything outstanding, oldest first.
    pub(crate) fn outstanding(&self) -> impl Iterator<Item = (u16, &Sent)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            slot.sent
                .as_ref()
                .map(|sent| (Self::id_at(self.first, index), sent))
        })
    }

    fn id_at(first: u16, index: usize) -> u16 {
        ((usize::from(first) - 1 + index) % IDS + 1) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_full_window_has_no_room_until_an_acknowledgement() {
        let mut window = Window::default();
        let first = window.push(Sent::Durable(0));
        assert!(!window.has_room(1));
        assert!(window.acknowledge(first).is_some());
        assert!(window.has_room(1));
        assert!(
            window.acknowledge(first).is_none(),
            "a second acknowledgement means nothing"
        );
    }

    #[test]
    fn after_a_resume_what_is_sent_again_is_bounded_and_the_stale_is_gone() {
        let mut window = Window::default();
        let ids: Vec<u16> = (0..4).map(|n| window.push(Sent::Durable(n))).collect();
        window.acknowledge(ids[1]);
        window.resume(|sent| matches!(sent, Sent::Durable(0)));
        let to_resend: Vec<u16> = window.to_resend().map(|(id, _)| id).collect();
        assert_eq!(to_resend, ids[2..]);
        assert!(window.may_resend(1) && window.resend(ids[2]).is_some());
        assert!(!window.may_resend(1), "one is on its way");
        window.acknowledge(ids[2]);
        assert!(window.may_resend(1));
        assert!(window.resend(ids[2]).is_none(), "it was acknowledged");
    }

    proptest! {
        #[test]
        fn ids_are_unique_among_what_is_outstanding(choices in proptest::collection::vec(any::<u16>(), 0..400)) {
            let mut window = Window { first: 65_500, ..Window::default() };
            let mut model = BTreeMap::new();
            for (offset, choice) in choices.into_iter().enumerate() {
                if choice % 3 != 0 || model.is_empty() {
                    let id = window.push(Sent::Durable(offset as u64));
                    prop_assert!(id > 0);
                    prop_assert!(model.insert(id, offset as u64).is_none());
                } else {
                    let id = *model.keys().nth(usize::from(choice) % model.len()).unwrap();
                    let expected = model.remove(&id).unwrap();
                    match window.acknowledge(id) {
                        Some(Sent::Durable(offset)) => prop_assert_eq!(offset, expected),
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
                let outstanding: BTreeMap<u16, u64> = window.outstanding().map(|(id, sent)| match sent {
                    Sent::Durable(offset) => (id, *offset),
                    Sent::Queued(_) => (id, u64::MAX),
                }).collect();
                prop_assert_eq!(&outstanding, &model);
            }
        }
    }
}
