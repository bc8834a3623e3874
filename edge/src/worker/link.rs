//! One MQTT 5 connection as the worker sees it. A task of its own reads and writes: it must not be
//! interrupted half-way, and whatever it does to a broken peer's packets must not take the publisher
//! with it. A connection that ended is never reused: what was unacknowledged is sent again from the
//! window.

use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::{
    Packet, PubAck, PubAckReason, Publish, SubAck, SubscribeReasonCode,
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::wire::{self, Order};
use crate::connection::credentials::Proof;

/// Batches in flight, at most.
pub(crate) const INFLIGHT: usize = 16;
/// Packets under way at once, at most: the batches, a report, a subscription, answers, and as many
/// again.
pub(super) const PACKET_IDS: u16 = 64;

/// Where to connect and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What the TLS handshake asks for (SNI) and the certificate must be valid for.
    pub(crate) server_name: String,
    pub(crate) client_id: String,
    pub(crate) proof: Proof,
    /// Topic and payload published (retained) for this client when it is lost.
    pub(crate) will: Option<(String, Vec<u8>)>,
}

/// What a connection tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LinkEvent {
    /// CONNACK, with the server's limits.
    Connected { receive_max: u16, max_packet: u32 },
    /// SUBACK.
    Subscribed { granted: bool },
    /// A publish on one of the subscriptions.
    Message { topic: Bytes, payload: Bytes },
    /// The next publish in order went out under this id.
    Assigned(u16),
    /// PUBACK: stored.
    Acknowledged(u16),
    /// PUBACK: not stored.
    Refused(u16, Refusal),
    /// The end.
    Down(Cause, String),
}

/// Why a connection ended or never came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The broker does not take who connects (MQTT 5 section 3.2.2.2).
    Login,
    /// No encrypted connection came about.
    Tls,
    /// The network, the broker, or our own wish.
    Other,
}

/// Why the broker did not store a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// May succeed later.
    Retry(PubAckReason),
    /// Never will as it is.
    Permanent(PubAckReason),
}

/// A running connection; dropping it ends it without a DISCONNECT.
pub(crate) struct Link {
    orders: mpsc::Sender<Order>,
    events: mpsc::Receiver<LinkEvent>,
    task: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    /// Starts to connect. Needs a tokio runtime around it.
    pub(crate) fn connect(endpoint: Endpoint) -> Link {
        let (orders, to_write) = mpsc::channel(usize::from(PACKET_IDS));
        let (sender, events) = mpsc::channel(usize::from(PACKET_IDS));
        let task = tokio::spawn(wire::drive(endpoint, to_write, sender));
        Link {
            orders,
            events,
            task,
        }
    }

    /// The next event; the last one is `Down`. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> LinkEvent {
        let event = self.events.recv().await;
        event.unwrap_or_else(|| LinkEvent::Down(Cause::Other, "the connection's task ended".into()))
    }

    /// The next event if there is one already.
    pub(crate) fn try_next(&mut self) -> Option<LinkEvent> {
        self.events.try_recv().ok()
    }

    /// Queues a QoS 1 publish; false when the connection takes nothing now.
    pub(crate) fn publish(&self, topic: &str, retain: bool, payload: Bytes) -> bool {
        let topic = topic.to_owned();
        let order = Order::Publish {
            topic,
            retain,
            payload,
        };
        self.orders.try_send(order).is_ok()
    }

    /// Queues a subscription (QoS 1).
    pub(crate) fn subscribe(&self, filter: &str) -> bool {
        let order = Order::Subscribe(filter.to_owned());
        self.orders.try_send(order).is_ok()
    }

    /// Queues a DISCONNECT behind everything else.
    pub(crate) fn disconnect(&self) -> bool {
        self.orders.try_send(Order::Disconnect).is_ok()
    }
}

impl LinkEvent {
    /// What a packet of the broker's tells.
    pub(super) fn of(packet: Packet) -> Option<LinkEvent> {
        match packet {
            Packet::SubAck(SubAck { return_codes, .. }) => {
                let success = |code| matches!(code, &SubscribeReasonCode::Success(_));
                let granted = return_codes.iter().all(success);
                Some(LinkEvent::Subscribed { granted })
            }
            Packet::Publish(Publish { topic, payload, .. }) => {
                Some(LinkEvent::Message { topic, payload })
            }
            Packet::PubAck(PubAck { pkid, reason, .. }) => Some(judge(pkid, reason)),
            _ => None,
        }
    }
}

/// MQTT 5 section 3.4.2.1: what a PUBACK's reason means for the publish.
fn judge(pkid: u16, reason: PubAckReason) -> LinkEvent {
    match reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => {
            LinkEvent::Acknowledged(pkid)
        }
        PubAckReason::TopicNameInvalid | PubAckReason::PayloadFormatInvalid => {
            LinkEvent::Refused(pkid, Refusal::Permanent(reason))
        }
        _ => LinkEvent::Refused(pkid, Refusal::Retry(reason)),
    }
}
