//! Requests that come in over the connection, and the answers that wait to go out: few, bounded, in
//! order, and sent again until the broker has acknowledged them. Pure, but for the channel that hands
//! requests over.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::sync::mpsc;

/// Large answers that are held at once; whoever has more waits.
const MAX_LARGE: usize = 4;
/// Answers that are held at once, of whatever size.
const MAX_HELD: usize = 64;
/// Answers on their way to the broker at once.
const MAX_IN_FLIGHT: usize = 2;
/// Requests that are held until somebody takes them.
const MAX_REQUESTS: usize = 16;
/// From this size on an answer is large, bytes.
const LARGE: usize = 16 << 10;

/// Requests on `request/<device>`, as they come; made by [`Builder::requests`](crate::Builder::requests).
#[derive(Debug)]
pub struct Requests {
    device: String,
    receiver: mpsc::Receiver<Bytes>,
}

impl Requests {
    pub(crate) fn channel(device: &str) -> (mpsc::Sender<Bytes>, Requests) {
        let (sender, receiver) = mpsc::channel(MAX_REQUESTS);
        let device = device.to_owned();
        (sender, Requests { device, receiver })
    }

    /// The next request's payload; `None` when the publisher has ended.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.receiver.recv().await
    }

    /// The device that is asked, as it stands in topics.
    pub fn device(&self) -> &str {
        &self.device
    }
}

/// An answer that could not be taken; it comes back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoRoom(pub(crate) Reply);

/// One message for `response/<device>/<id>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) id: String,
    pub(crate) payload: Bytes,
}

/// The answers of one publisher.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    waiting: VecDeque<Reply>,
    /// Handed to the connection, in order, with the packet id once there is one.
    sent: VecDeque<(Option<u16>, Reply)>,
    large: usize,
}

impl Replies {
    /// Takes an answer, when there is room.
    pub(crate) fn offer(&mut self, reply: Reply) -> Result<(), NoRoom> {
        let large = reply.payload.len() >= LARGE;
        let held = self.waiting.len() + self.sent.len();
        if held >= MAX_HELD || (large && self.large >= MAX_LARGE) {
            return Err(NoRoom(reply));
        }
        self.large += usize::from(large);
        self.waiting.push_back(reply);
        Ok(())
    }

    /// Whether there are some that no connection has taken yet.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next one to be sent.
    pub(crate) fn next(&self) -> Option<&Reply> {
        let next = self.waiting.front();
        next.filter(|_| self.sent.len() < MAX_IN_FLIGHT)
    }

    /// The next one was handed to the connection.
    pub(crate) fn handed(&mut self) {
        let next = self.waiting.pop_front();
        self.sent.extend(next.map(|reply| (None, reply)));
    }

    /// The oldest one without a packet id got this one.
    pub(crate) fn assigned(&mut self, pkid: u16) {
        if let Some((id, _)) = self.sent.iter_mut().find(|(id, _)| id.is_none()) {
            *id = Some(pkid);
        }
    }

    /// The broker has answered; the reply is done with, and returned. `None`: it was not one of these.
    pub(crate) fn settled(&mut self, pkid: u16) -> Option<Reply> {
        let place = self.sent.iter().position(|(id, _)| *id == Some(pkid))?;
        let (_, reply) = self.sent.remove(place)?;
        self.large -= usize::from(reply.payload.len() >= LARGE);
        Some(reply)
    }

    /// The next one can never be sent.
    pub(crate) fn give_up(&mut self) -> Option<Reply> {
        let reply = self.waiting.pop_front()?;
        self.large -= usize::from(reply.payload.len() >= LARGE);
        Some(reply)
    }

    /// The connection is gone: what it did not settle goes first over the next one.
    pub(crate) fn reset(&mut self) {
        while let Some((_, reply)) = self.sent.pop_back() {
            self.waiting.push_front(reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(id: usize, size: usize) -> Reply {
        Reply {
            id: id.to_string(),
            payload: vec![b'x'; size].into(),
        }
    }

    /// Sends what can be sent; returns the ids.
    fn send(replies: &mut Replies) -> Vec<String> {
        let mut ids = Vec::new();
        while let Some(next) = replies.next() {
            ids.push(next.id.clone());
            replies.handed();
        }
        ids
    }

    #[test]
    fn answers_leave_in_order_a_few_at_a_time() {
        let mut replies = Replies::default();
        for id in 0..4 {
            replies.offer(reply(id, 10)).unwrap();
        }
        assert_eq!(send(&mut replies), ["0", "1"]);
        replies.assigned(7);
        replies.assigned(8);
        assert_eq!(replies.settled(9), None);
        assert_eq!(replies.settled(8).unwrap().id, "1");
        assert_eq!(send(&mut replies), ["2"]);
    }

    #[test]
    fn what_a_lost_connection_did_not_settle_is_sent_again_in_order() {
        let mut replies = Replies::default();
        for id in 0..4 {
            replies.offer(reply(id, 10)).unwrap();
        }
        send(&mut replies);
        replies.assigned(1);
        replies.settled(1);
        send(&mut replies);
        replies.reset();
        assert_eq!(replies.settled(2), None);
        assert_eq!(send(&mut replies), ["1", "2"]);
    }

    #[test]
    fn the_memory_for_answers_is_bounded() {
        let mut replies = Replies::default();
        for id in 0..MAX_LARGE {
            replies.offer(reply(id, LARGE)).unwrap();
        }
        assert!(replies.offer(reply(99, LARGE)).is_err());
        for id in MAX_LARGE..MAX_HELD {
            replies.offer(reply(id, 10)).unwrap();
        }
        assert!(replies.offer(reply(99, 10)).is_err());
        send(&mut replies);
        replies.assigned(1);
        replies.settled(1);
        assert!(replies.offer(reply(99, LARGE)).is_ok());
        assert_eq!(replies.give_up().unwrap().id, "2");
    }
}
