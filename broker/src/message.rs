//! A message on a topic that is not durable: encoded once, shared by every session it goes to.

use std::sync::Arc;

use bytes::Bytes;

use crate::{load::Charge, record::Record, trie::Subscription};

/// An application message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: Arc<str>,
    pub(crate) payload: Bytes,
    /// QoS it was published with.
    pub(crate) qos: u8,
    /// Whether it was published with RETAIN.
    pub(crate) retain: bool,
    /// ns since the epoch after which nobody wants it.
    pub(crate) expires: Option<u64>,
    /// Hash of the publishing client id, for No Local; 0 for the broker itself.
    pub(crate) client: u64,
    /// Encoded MQTT 5 properties to forward.
    pub(crate) properties: Bytes,
}

impl Message {
    /// A message as it was laid out on disk.
    pub(crate) fn of_record(record: &Record<'_>) -> Message {
        Message {
            topic: record.topic.into(),
            payload: Bytes::copy_from_slice(record.payload),
            qos: record.qos,
            retain: false,
            expires: record.expires,
            client: record.client,
            properties: Bytes::copy_from_slice(record.properties),
        }
    }

    /// A message of the broker itself.
    pub(crate) fn own(topic: &str, payload: Bytes, qos: u8) -> Message {
        Message {
            topic: topic.into(),
            payload,
            qos,
            retain: false,
            expires: None,
            client: 0,
            properties: Bytes::new(),
        }
    }

    /// What it weighs in a queue, bytes.
    pub(crate) fn weight(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.len() + 128
    }

    /// Whether the broker itself says it: such a retained message is made anew at every start.
    pub(crate) fn is_announced(&self) -> bool {
        self.client == 0
    }

    pub(crate) fn is_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }
}

/// A message on its way to one session.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) message: Arc<Message>,
    /// QoS of the delivery.
    pub(crate) qos: u8,
    /// RETAIN flag of the delivery.
    pub(crate) retain: bool,
    /// Subscription identifiers.
    pub(crate) ids: Vec<u32>,
    pub(crate) origin: Origin,
    /// The shared subscription that it came by, whole.
    pub(crate) share: Option<Arc<str>>,
    /// Its part of what all sessions may hold.
    pub(crate) charge: Charge,
}

impl Queued {
    /// A message as a subscription asks for it, kept in memory alone and not charged to anybody yet.
    pub(crate) fn by(subscription: &Subscription, message: &Arc<Message>) -> Queued {
        Queued {
            message: message.clone(),
            qos: subscription.qos.min(message.qos),
            retain: subscription.retain_as_published && message.retain,
            ids: subscription.id.into_iter().collect(),
            origin: Origin::Memory,
            share: None,
            charge: Charge::default(),
        }
    }
}

/// Where a queued message is kept until its session is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Memory alone.
    Memory,
    /// The mail journal, under this id.
    Mail(u64),
    /// The log, at this offset: a record of a durable group.
    Log(u64),
}

#[cfg(test)]
impl Queued {
    /// A message of so many bytes.
    pub(crate) fn of_test(qos: u8, payload: usize) -> Queued {
        let message = Message {
            topic: "t".into(),
            payload: Bytes::from(vec![0; payload]),
            qos,
            retain: false,
            expires: None,
            client: 0,
            properties: Bytes::new(),
        };
        Queued {
            message: Arc::new(message),
            qos,
            retain: false,
            ids: Vec::new(),
            origin: Origin::Memory,
            share: None,
            charge: Charge::default(),
        }
    }
}

/// Seconds that are left of an expiry time, rounded up; at least one while it has not passed.
pub(crate) fn seconds_left(expires: u64, now: u64) -> u32 {
    expires
        .saturating_sub(now)
        .div_ceil(1_000_000_000)
        .clamp(1, u64::from(u32::MAX)) as u32
}

/// The expiry time of a message that may live `seconds` from `now`.
pub(crate) fn expiry_time(seconds: u32, now: u64) -> u64 {
    now.saturating_add(u64::from(seconds) * 1_000_000_000)
}
