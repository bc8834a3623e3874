//! What outlives a connection: subscriptions, the queue of messages, what was sent and not yet
//! acknowledged, and the cursor into the journal. One connection at a time owns a session;
//! [`crate::hub`] puts messages into its queue from outside.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use thinglog_journal::cursor::Cursor;
use tokio::sync::Notify;

use crate::{
    access::Pass,
    codec::Will,
    config::Limits,
    message::Queued,
    retained::Scan,
    trie::{SessionKey, Subscription},
    window::{Sent, Window},
};

/// Number of a connection; 0 is none.
pub(crate) type ConnectionId = u64;

/// A session, shared by the hub and its connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) key: SessionKey,
    pub(crate) client_id: Arc<str>,
    pub(crate) inner: Mutex<Inner>,
}

/// The state of a session.
#[derive(Debug, Default)]
pub(crate) struct Inner {
    /// The connection that may act on the session.
    pub(crate) owner: ConnectionId,
    /// Whom the session belongs to: who created it. `None` is nobody in particular.
    pub(crate) principal: Option<Arc<str>>,
    /// What its client may do; `None` since the broker started and until the client comes back.
    pub(crate) pass: Option<Arc<Pass>>,
    /// Rung when something was queued or the owner was evicted; every owner has its own, so that
    /// an evicted one takes no ring that is meant for the next.
    pub(crate) wake: Arc<Notify>,
    /// Seconds the session outlives its connection; 0 ends with it.
    pub(crate) expiry: u32,
    /// There is a record of the session on disk.
    pub(crate) stored: bool,
    /// ns since the epoch; `None` while connected.
    pub(crate) disconnected_at: Option<u64>,
    pub(crate) subscriptions: BTreeMap<String, Subscription>,
    pub(crate) queue: Queue,
    /// Retained messages still to be sent for new subscriptions, before the queue.
    pub(crate) scans: VecDeque<(Scan, Subscription)>,
    pub(crate) window: Window,
    /// Place in the journal, once a subscription may match durable topics.
    pub(crate) cursor: Option<Cursor>,
    /// The cursor moved since it was last stored.
    pub(crate) cursor_moved: bool,
    /// Published when the connection ends without DISCONNECT, after its delay.
    pub(crate) will: Option<Will>,
    /// When the will of a disconnected client is due, ns since the epoch.
    pub(crate) will_at: Option<u64>,
}

impl Session {
    pub(crate) fn new(key: SessionKey, client_id: Arc<str>) -> Session {
        Session {
            key,
            client_id,
            inner: Mutex::default(),
        }
    }
}

impl Inner {
    /// Whether the session outlives its connection.
    pub(crate) fn is_persistent(&self) -> bool {
        self.expiry > 0
    }

    /// When a disconnected session is forgotten, ns since the epoch.
    pub(crate) fn expires_at(&self) -> Option<u64> {
        let seconds = u64::from(self.expiry);
        self.disconnected_at
            .map(|at| at.saturating_add(seconds * 1_000_000_000))
    }

    /// Whether its client may read `topic`, as far as that is known.
    pub(crate) fn may_read(&self, topic: &str) -> bool {
        self.pass.as_ref().is_none_or(|pass| pass.may_read(topic))
    }

    /// A connection takes the session up: what was sent before is sent again, but for records that
    /// its subscriptions do not cover any more.
    pub(crate) fn resume(&mut self) {
        let cursor = self.cursor.as_ref();
        self.window.resume(|sent| match sent {
            Sent::Durable(offset) => cursor.is_none_or(|cursor| cursor.is_done(*offset)),
            Sent::Queued(_) => false,
        });
    }

    /// Takes the will of a disconnected client once its delay is over.
    pub(crate) fn take_due_will(&mut self, now: u64) -> Option<Will> {
        self.will_at.take_if(|at| *at <= now)?;
        self.will.take()
    }

    /// Settles an acknowledged packet id; false when it stands for nothing.
    pub(crate) fn acknowledge(&mut self, pkid: u16) -> bool {
        match self.window.acknowledge(pkid) {
            Some(Sent::Durable(offset)) => {
                if let Some(cursor) = &mut self.cursor {
                    cursor.done(offset..offset + 1);
                    self.cursor_moved = true;
                }
                true
            }
            Some(Sent::Queued(_)) => true,
            None => false,
        }
    }
}

/// Messages waiting for one session, bounded by count and bytes.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    messages: VecDeque<Queued>,
    bytes: usize,
}

impl Queue {
    /// Adds a message; false when there is no room for it.
    pub(crate) fn push(&mut self, queued: Queued, limits: &Limits) -> bool {
        let weight = queued.message.weight();
        let full = self.messages.len() >= limits.queue_messages
            || self.bytes + weight > limits.queue_bytes;
        if full && !self.messages.is_empty() {
            return false;
        }
        self.bytes += weight;
        self.messages.push_back(queued);
        true
    }

    /// Adds a retained message for a new subscription; asked for only while the queue `is_short`.
    pub(crate) fn push_retained(&mut self, queued: Queued) {
        self.bytes += queued.message.weight();
        self.messages.push_back(queued);
    }

    /// Whether retained messages may be moved in.
    pub(crate) fn is_short(&self) -> bool {
        self.messages.len() < 256 && self.bytes < 1 << 20
    }

    pub(crate) fn front(&self) -> Option<&Queued> {
        self.messages.front()
    }

    pub(crate) fn pop(&mut self) -> Option<Queued> {
        let queued = self.messages.pop_front()?;
        self.bytes -= queued.message.weight();
        Some(queued)
    }
}

/// What is kept of a session on disk; the cursor is kept beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    expiry: u32,
    disconnected_at: Option<u64>,
    subscriptions: BTreeMap<String, Subscription>,
    #[serde(default)]
    principal: Option<Arc<str>>,
}

impl Stored {
    pub(crate) fn of(inner: &Inner) -> Stored {
        Stored {
            expiry: inner.expiry,
            disconnected_at: inner.disconnected_at,
            subscriptions: inner.subscriptions.clone(),
            principal: inner.principal.clone(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).unwrap_or_default()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Stored> {
        rmp_serde::from_slice(bytes).ok()
    }

    /// The session as it comes back at `now`, cursor left out; one that was connected when the
    /// broker stopped counts as disconnected since then, one that was to be kept for longer than `longest`
    /// seconds is kept so long.
    pub(crate) fn revive(self, now: u64, longest: u32) -> Inner {
        Inner {
            expiry: self.expiry.min(longest),
            disconnected_at: Some(self.disconnected_at.unwrap_or(now)),
            subscriptions: self.subscriptions,
            principal: self.principal,
            stored: true,
            ..Inner::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use bytes::Bytes;

    fn queued(payload: usize) -> Queued {
        let message = Message {
            topic: "t".into(),
            payload: Bytes::from(vec![0; payload]),
            qos: 0,
            retain: false,
            expires: None,
            client: 0,
            properties: Bytes::new(),
        };
        Queued {
            message: Arc::new(message),
            qos: 0,
            retain: false,
            ids: Vec::new(),
        }
    }

    #[test]
    fn a_queue_is_bounded_by_count_and_by_bytes() {
        let limits = Limits {
            queue_messages: 2,
            queue_bytes: 1000,
            ..Limits::default()
        };
        let mut queue = Queue::default();
        assert!(queue.push(queued(5000), &limits), "one message always fits");
        assert!(!queue.push(queued(1), &limits));
        queue.pop();
        assert!(queue.push(queued(1), &limits));
        assert!(queue.push(queued(1), &limits));
        assert!(!queue.push(queued(1), &limits));
    }

    #[test]
    fn a_session_comes_back_from_its_stored_form() {
        let mut inner = Inner {
            expiry: 60,
            ..Inner::default()
        };
        let subscription = Subscription {
            qos: 1,
            no_local: true,
            retain_as_published: false,
            id: Some(9),
        };
        inner.subscriptions.insert("a/#".into(), subscription);
        let stored = Stored::decode(&Stored::of(&inner).encode()).unwrap();
        let revived = stored.revive(5, 3600);
        assert_eq!(revived.subscriptions, inner.subscriptions);
        assert_eq!((revived.expiry, revived.disconnected_at), (60, Some(5)));
    }
}
