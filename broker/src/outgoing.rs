//! What of a persistent session's messages is under way to its client, as it stands on disk: one record
//! for each session, so that what was sent and what waits never contradict each other.

use serde::{Deserialize, Serialize};

use crate::{message::Origin, session::Inner, window::Sent};

/// The messages of one session that its client has not settled.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outgoing {
    /// Letters from here on were not in the queue yet: all that name the session are outstanding.
    seen: u64,
    /// Letters that wait, ascending, each as the difference to the one before.
    waiting: Vec<u64>,
    /// Packet ids sent, oldest first: the letter, or none for one of QoS 2 that the client is to
    /// complete.
    sent: Vec<(u16, Option<u64>)>,
}

impl Outgoing {
    pub(crate) fn of(inner: &Inner) -> Outgoing {
        let mut before = 0;
        let waiting = inner
            .queue
            .iter()
            .filter_map(|queued| match queued.origin {
                Origin::Mail(id) => Some(id.wrapping_sub(std::mem::replace(&mut before, id))),
                Origin::Memory | Origin::Log(_) => None,
            })
            .collect();
        let sent = inner
            .window
            .outstanding()
            .filter_map(|(pkid, sent)| match sent {
                Sent::Released => Some((pkid, None)),
                Sent::Queued(queued) => match queued.origin {
                    Origin::Mail(id) => Some((pkid, Some(id))),
                    // Not on disk: the client completes it, and gets a retained message once more.
                    Origin::Memory => (queued.qos == 2).then_some((pkid, None)),
                    // Its group has it on disk.
                    Origin::Log(_) => None,
                },
                Sent::Durable(_) => None,
            })
            .collect();
        Outgoing {
            seen: inner.mail_seen,
            waiting,
            sent,
        }
    }

    /// Of a session whose record is lost or never was written: everything that names it is
    /// outstanding.
    pub(crate) fn unknown() -> Outgoing {
        Outgoing::default()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec(self).unwrap_or_default()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Outgoing> {
        rmp_serde::from_slice(bytes).ok()
    }

    /// Letters from here on are outstanding.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// Letters below `seen` that wait.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = u64> {
        self.waiting.iter().scan(0u64, |id, step| {
            *id = id.wrapping_add(*step);
            Some(*id)
        })
    }

    /// What was sent and is not settled.
    pub(crate) fn sent(&self) -> &[(u16, Option<u64>)] {
        &self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Limits, message::Queued};

    fn letter(id: u64, qos: u8) -> Queued {
        Queued {
            origin: Origin::Mail(id),
            ..Queued::of_test(qos, 1)
        }
    }

    #[test]
    fn what_waits_and_what_was_sent_come_back() {
        let mut inner = Inner {
            mail_seen: 100,
            ..Inner::default()
        };
        let limits = Limits::default();
        for queued in [letter(20, 1), Queued::of_test(1, 1), letter(99, 2)] {
            assert!(inner.queue.push(queued, &limits).is_ok());
        }
        for sent in [
            Sent::Queued(letter(7, 1)),
            Sent::Durable(5),
            Sent::Queued(letter(9, 2)),
            Sent::Queued(Queued::of_test(2, 1)),
        ] {
            inner.window.push(sent);
        }
        inner.window.receive(3);
        let back = Outgoing::decode(&Outgoing::of(&inner).encode()).unwrap();
        assert_eq!(back.seen(), 100);
        assert_eq!(back.waiting().collect::<Vec<_>>(), [20, 99]);
        assert_eq!(back.sent(), [(1, Some(7)), (3, None), (4, None)]);
    }
}
