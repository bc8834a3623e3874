//! QoS 1 and 2 publishes sent to a client and not yet settled: consecutive packet ids in a ring, so
//! that the common acknowledgement, the oldest, costs nothing to find. (MQTT 5.0 section 4.3)

use std::collections::VecDeque;

use crate::message::Queued;

/// What a packet id stands for.
#[derive(Debug)]
pub(crate) enum Sent {
    /// A record of the journal, by offset.
    Durable(u64),
    /// A message of the session's queue.
    Queued(Queued),
    /// A message of QoS 2 that the client has: PUBREL is due or on its way, PUBCOMP awaited.
    Released,
}

impl Sent {
    /// Memory it keeps alive, bytes.
    fn weight(&self) -> usize {
        match self {
            Sent::Durable(_) | Sent::Released => 0,
            Sent::Queued(queued) => queued.message.weight(),
        }
    }

    /// Whether PUBACK settles it; else it takes PUBREC and PUBCOMP.
    fn takes_puback(&self) -> bool {
        match self {
            Sent::Durable(_) => true,
            Sent::Queued(queued) => queued.qos < 2,
            Sent::Released => false,
        }
    }
}

/// What a PUBREC settles.
#[derive(Debug)]
pub(crate) enum Received {
    /// The client has this message now.
    Message(Queued),
    /// It had it before: an earlier PUBREL was lost.
    Again,
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
    /// Those of them that are records of the journal.
    durable: usize,
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
            durable: 0,
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
        self.durable += usize::from(matches!(sent, Sent::Durable(_)));
        self.slots.push_back(Slot {
            sent: Some(sent),
            to_resend: false,
        });
        self.unacknowledged += 1;
        id
    }

    /// Takes up packet ids that were outstanding before a restart, oldest first.
    pub(crate) fn restore(outstanding: impl IntoIterator<Item = (u16, Sent)>) -> Window {
        let mut window = Window::default();
        for (id, sent) in outstanding {
            if window.slots.is_empty() {
                window.first = id.max(1);
            }
            let Some(index) = window.index(id) else {
                continue;
            };
            while window.slots.len() <= index {
                window.slots.push_back(Slot {
                    sent: None,
                    to_resend: false,
                });
            }
            let slot = &mut window.slots[index];
            if slot.sent.is_none() {
                window.bytes += sent.weight();
                window.unacknowledged += 1;
                window.durable += usize::from(matches!(sent, Sent::Durable(_)));
                slot.sent = Some(sent);
            }
        }
        window
    }

    /// Messages of the queue that are not settled.
    pub(crate) fn queued(&self) -> usize {
        self.unacknowledged - self.durable
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
            self.discard(id);
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

    /// What a packet id stands for.
    pub(crate) fn sent(&self, id: u16) -> Option<&Sent> {
        self.slots.get(self.index(id)?)?.sent.as_ref()
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

    /// PUBACK: settles a packet id; `None` when nothing of QoS 1 is outstanding under it.
    pub(crate) fn acknowledge(&mut self, id: u16) -> Option<Sent> {
        self.take_if(id, Sent::takes_puback)
    }

    /// PUBREC: the packet id waits for PUBCOMP from here on; `None` when nothing of QoS 2 is
    /// outstanding under it.
    pub(crate) fn receive(&mut self, id: u16) -> Option<Received> {
        let index = self.index(id)?;
        let slot = self.slots.get_mut(index)?;
        match slot.sent.take()? {
            Sent::Queued(queued) if queued.qos == 2 => {
                if std::mem::take(&mut slot.to_resend) {
                    self.to_resend -= 1;
                }
                slot.sent = Some(Sent::Released);
                self.bytes -= queued.message.weight();
                Some(Received::Message(queued))
            }
            other => {
                let again = matches!(other, Sent::Released);
                slot.sent = Some(other);
                again.then_some(Received::Again)
            }
        }
    }

    /// PUBCOMP: settles a released packet id; false when there is none.
    pub(crate) fn complete(&mut self, id: u16) -> bool {
        self.take_if(id, |sent| matches!(sent, Sent::Released))
            .is_some()
    }

    /// Settles a packet id whatever stands behind it.
    pub(crate) fn discard(&mut self, id: u16) -> Option<Sent> {
        self.take_if(id, |_| true)
    }

    fn take_if(&mut self, id: u16, is_meant: impl Fn(&Sent) -> bool) -> Option<Sent> {
        let index = self.index(id)?;
        let slot = self.slots.get_mut(index)?;
        let sent = slot.sent.take_if(|sent| is_meant(sent))?;
        if std::mem::take(&mut slot.to_resend) {
            self.to_resend -= 1;
        }
        self.unacknowledged -= 1;
        self.durable -= usize::from(matches!(sent, Sent::Durable(_)));
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

    /// Everything outstanding, oldest first, when the window is given up.
    pub(crate) fn into_outstanding(self) -> impl Iterator<Item = Sent> {
        self.slots.into_iter().filter_map(|slot| slot.sent)
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

    #[test]
    fn a_restored_window_goes_on_behind_what_is_outstanding() {
        let restored = [(65_535, Sent::Durable(1)), (2, Sent::Released)];
        let mut window = Window::restore(restored);
        let outstanding: Vec<u16> = window.outstanding().map(|(id, _)| id).collect();
        assert_eq!(outstanding, [65_535, 2]);
        assert_eq!(window.push(Sent::Durable(9)), 3);
        assert!(window.acknowledge(65_535).is_some() && window.complete(2));
        assert!(window.acknowledge(3).is_some() && window.has_room(1));
    }

    #[test]
    fn a_message_of_qos_2_holds_its_id_until_pubcomp() {
        let mut window = Window::default();
        let id = window.push(Sent::Queued(Queued::of_test(2, 10)));
        assert!(window.acknowledge(id).is_none(), "PUBACK is not for QoS 2");
        assert!(!window.complete(id), "PUBCOMP comes after PUBREC");
        assert!(matches!(window.receive(id), Some(Received::Message(_))));
        assert_eq!(window.bytes(), 0);
        assert!(matches!(window.receive(id), Some(Received::Again)));
        assert!(!window.has_room(1), "it counts until PUBCOMP");
        assert!(window.complete(id) && window.has_room(1));
        assert!(window.receive(id).is_none() && !window.complete(id));
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
                    _ => (id, u64::MAX),
                }).collect();
                prop_assert_eq!(&outstanding, &model);
            }
        }
    }
}
