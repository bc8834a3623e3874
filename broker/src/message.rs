//! A message on a topic that is not durable: encoded once, shared by every session it goes to.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;

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

/// Bytes of messages that all sessions together hold: waiting, or sent and not yet settled. A message
/// counts once for each session that has it.
#[derive(Debug, Default)]
pub(crate) struct Load(AtomicUsize);

impl Load {
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A part of the load; given back when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Charge(Option<(Arc<Load>, usize)>);

impl Charge {
    pub(crate) fn new(load: &Arc<Load>, bytes: usize) -> Charge {
        load.0.fetch_add(bytes, Ordering::Relaxed);
        Charge(Some((load.clone(), bytes)))
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some((load, bytes)) = &self.0 {
            load.0.fetch_sub(*bytes, Ordering::Relaxed);
        }
    }
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
