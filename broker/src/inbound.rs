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

/// A publish whose packet id is not free yet.
#[derive(Clone, Copy, Debug)]
struct Received {
    place: Place,
    /// Where its release is, once PUBREL came: the client sends the publish no more.
    release: Option<Place>,
}

/// The ids of one session.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    ids: BTreeMap<u16, Received>,
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
        self.ids.get(&pkid).map(|received| received.place)
    }

    pub(crate) fn insert(&mut self, pkid: u16, place: Place) {
        let release = None;
        self.ids.insert(pkid, Received { place, release });
        self.changed = true;
    }

    /// Where the release of a packet id is that waits for the disk.
    pub(crate) fn release(&self, pkid: u16) -> Option<Place> {
        self.ids.get(&pkid)?.release
    }

    /// Notes where the release of a packet id is, or that it was not stored.
    pub(crate) fn set_release(&mut self, pkid: u16, release: Option<Place>) {
        if let Some(received) = self.ids.get_mut(&pkid) {
            received.release = release;
            self.changed = true;
        }
    }

    pub(crate) fn remove(&mut self, pkid: u16) {
        self.changed |= self.ids.remove(&pkid).is_some();
    }

    /// Keeps the ids whose publishes lie below `ends`, where the journals end: others are lost.
    pub(crate) fn cut(&mut self, ends: Marks) {
        let before = self.ids.len();
        self.ids.retain(|_, received| ends.is_above(received.place));
        self.changed |= self.ids.len() < before;
    }

    /// What is below `marks` and stored, encoded; what is not below them is found by reading the
    /// journals from there on, and keeps the ids marked as changed. What is being released is left out:
    /// its release may lie below the marks, where it is not read again.
    pub(crate) fn checkpoint(
        &mut self,
        marks: Marks,
        is_durable: impl Fn(Place) -> bool,
    ) -> Vec<u8> {
        let held = self.ids.iter().filter(|(_, id)| id.release.is_none());
        let held: Vec<(u16, Place)> = held.map(|(pkid, id)| (*pkid, id.place)).collect();
        let kept: BTreeMap<u16, Place> = held
            .iter()
            .copied()
            .filter(|(_, place)| marks.is_above(*place) && is_durable(*place))
            .collect();
        self.changed = kept.len() < held.len();
        rmp_serde::to_vec(&kept).unwrap_or_default()
    }

    /// Takes back what `checkpoint` gave; `None` for anything else.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Inbound> {
        let kept: BTreeMap<u16, Place> = rmp_serde::from_slice(bytes).ok()?;
        let mut inbound = Inbound::default();
        for (pkid, place) in kept {
            inbound.insert(pkid, place);
        }
        inbound.changed = false;
        Some(inbound)
    }
}

impl Marks {
    fn is_above(self, place: Place) -> bool {
        match place {
            Place::Memory => false,
            Place::Log(offset) => offset < self.log,
            Place::Mail(offset) => offset < self.mail,
        }
    }

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
