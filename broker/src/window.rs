//! QoS 1 publishes sent to a client and not yet acknowledged: consecutive packet ids in a ring, so
//! that the common acknowledgement, the oldest, costs nothing to find.

use std::{collections::VecDeque, sync::Arc};

use crate::message::Message;

/// What a packet id stands for.
#[derive(Clone, Debug)]
pub(crate) enum Sent {
    /// A record of the journal, by offset.
    Durable(u64),
    /// A message of the session's queue.
    Queued(Arc<Message>),
}

#[derive(Debug)]
struct Slot {
    sent: Option<Sent>,
}

/// The ring. Packet ids run from 1 to 65,535 and wrap.
#[derive(Debug)]
pub(crate) struct Window {
    slots: VecDeque<Slot>,
    /// Packet id of the first slot.
    first: u16,
    unacknowledged: usize,
}

impl Default for Window {
    fn default() -> Self {
        Window {
            slots: VecDeque::new(),
            first: 1,
            unacknowledged: 0,
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
        self.slots.push_back(Slot { sent: Some(sent) });
        self.unacknowledged += 1;
        id
    }

    /// Settles a packet id; `None` when nothing is outstanding under it.
    pub(crate) fn acknowledge(&mut self, id: u16) -> Option<Sent> {
        if id == 0 {
            return None;
        }
        let index = (usize::from(id) + IDS - usize::from(self.first)) % IDS;
        let sent = self.slots.get_mut(index)?.sent.take()?;
        self.unacknowledged -= 1;
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
