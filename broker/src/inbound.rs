//! Packet ids of QoS 2 publishes that came from a client and were not released yet, so that one sent
//! again is recognised (MQTT 5.0 section 4.3.3). A persistent session's ids stand in the journal that
//! has the publish, with its bytes; what is kept in the state is a checkpoint that bounds how much of
//! the journals has to be read again at the start.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where the publish of a packet id is, and with it the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Place {
    /// Nowhere: the session ends with its connection.
    Memory,
    /// The log, at this offset.
    Log(u64),
    /// The mail journal, at this offset.
    Mail(u64),
}

/// The ids of one session.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    ids: BTreeMap<u16, Place>,
    /// Something changed since the last checkpoint.
    pub(crate) changed: bool,
}

/// Offsets below which both journals are decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marks {
    pub(crate) log: u64,
    pub(crate) mail: u64,
}

impl Inbound {
    pub(crate) fn place(&self, pkid: u16) -> Option<Place> {
        self.ids.get(&pkid).copied()
    }

    pub(crate) fn insert(&mut self, pkid: u16, place: Place) {
        self.ids.insert(pkid, place);
        self.changed = true;
    }

    pub(crate) fn remove(&mut self, pkid: u16) {
        self.changed |= self.ids.remove(&pkid).is_some();
    }

    /// What is below `marks` and stored, encoded; what is not below them is found by reading the
    /// journals from there on, and keeps the ids marked as changed.
    pub(crate) fn checkpoint(
        &mut self,
        marks: Marks,
        is_durable: impl Fn(Place) -> bool,
    ) -> Vec<u8> {
        let below = |place: &Place| {
            is_durable(*place)
                && match place {
                    Place::Memory => false,
                    Place::Log(offset) => *offset < marks.log,
                    Place::Mail(offset) => *offset < marks.mail,
                }
        };
        let kept: BTreeMap<u16, Place> = self
            .ids
            .iter()
            .filter(|(_, place)| below(place))
            .map(|(pkid, place)| (*pkid, *place))
            .collect();
        self.changed = kept.len() < self.ids.len();
        rmp_serde::to_vec(&kept).unwrap_or_default()
    }

    /// Takes back what `checkpoint` gave; `None` for anything else.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Inbound> {
        Some(Inbound {
            ids: rmp_serde::from_slice(bytes).ok()?,
            changed: false,
        })
    }
}

impl Marks {
    pub(crate) fn encode(self) -> Vec<u8> {
        rmp_serde::to_vec(&self).unwrap_or_default()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Marks> {
        rmp_serde::from_slice(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_holds_what_is_below_its_marks_and_the_rest_stays_due() {
        let mut inbound = Inbound::default();
        inbound.insert(1, Place::Log(4));
        inbound.insert(2, Place::Log(5));
        inbound.insert(3, Place::Mail(0));
        inbound.insert(4, Place::Memory);
        let bytes = inbound.checkpoint(Marks { log: 5, mail: 1 }, |_| true);
        let back = Inbound::decode(&bytes).unwrap();
        assert_eq!(back.place(1), Some(Place::Log(4)));
        assert_eq!(back.place(3), Some(Place::Mail(0)));
        assert_eq!((back.place(2), back.place(4)), (None, None));
        assert!(inbound.changed, "one id is not covered yet");
        inbound.remove(2);
        inbound.remove(4);
        inbound.checkpoint(Marks { log: 5, mail: 1 }, |_| true);
        assert!(!inbound.changed);
    }
}
