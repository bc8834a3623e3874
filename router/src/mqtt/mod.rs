//! The router's MQTT 5 side: a thin client built for reading much and acknowledging late.
//!
//! `rumqttc`'s codec writes and reads the rare packets; PUBLISH is read by [`frame`], since it is the
//! hot path: one pass over the bytes, no allocation for a known topic. [`link`] is one connection,
//! [`window`] the pure account of what is unacknowledged on it, [`consumer`] the task that keeps a
//! subscription alive across connections, and [`publisher`] the one that publishes at QoS 1 until
//! acknowledged. Nothing here knows events.

pub(crate) mod connect;
pub(crate) mod consumer;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod frame;
pub(crate) mod inbox;
pub(crate) mod link;
pub(crate) mod names;
pub(crate) mod outbox;
pub(crate) mod probe;
pub(crate) mod publisher;
pub(crate) mod reconnect;
pub(crate) mod window;

use std::sync::Arc;

use bytes::Bytes;
use thinglog_schemas::payload::Stamp;

use names::TopicInfo;

/// One received publish.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// The topic, parsed once and shared by its deliveries.
    pub(crate) topic: Arc<TopicInfo>,
    pub(crate) payload: Bytes,
    /// Whether it was published with RETAIN.
    pub(crate) retain: bool,
    /// What the broker says of it; `received` is the router's own clock when the broker is silent.
    pub(crate) stamp: Stamp,
    /// Place in the order of its connection, from 0: what an acknowledgement counts by.
    pub(crate) number: u64,
}

/// Everything up to and including `number` of connection `generation` is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Which connection; acknowledgements of an older one mean nothing on a newer one.
    pub(crate) generation: u64,
    pub(crate) number: u64,
}
