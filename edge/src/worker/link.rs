//! One MQTT 5 connection from its first packet to its end, over rumqttc. The event loop runs in a
//! task of its own: polling it must not be interrupted half-way, and whatever it does to a broken
//! peer's packets must not take the publisher with it. A connection that ended is never reused: what
//! was unacknowledged is sent again from the window, not from rumqttc's own state.

use std::time::Duration;

use bytes::Bytes;
use rumqttc::{
    NetworkOptions, Outgoing, TlsConfiguration, TlsError, Transport,
    v5::{
        AsyncClient, ConnectionError, Event, EventLoop, Incoming, MqttOptions,
        mqttbytes::{
            QoS,
            v5::{
                ConnAck, ConnectProperties, ConnectReturnCode, LastWill, PubAck, PubAckReason,
                Publish, SubscribeReasonCode,
            },
        },
    },
};
use thinglog_schemas::batch::MAX_PAYLOAD;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::connection::credentials::Proof;

/// Batches in flight, at most.
pub(crate) const INFLIGHT: usize = 16;
/// Packet ids in use at once, at most: the batches, a report, a subscription, and as many again so
/// that ids are not reused soon.
const PACKET_IDS: u16 = 64;
/// Largest packet taken from the broker, bytes.
const MAX_PACKET: u32 = MAX_PAYLOAD as u32 + (64 << 10);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where to connect and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
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
    client: AsyncClient,
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
    pub(crate) fn connect(endpoint: &Endpoint) -> Link {
        let mut options = MqttOptions::new(&endpoint.client_id, &endpoint.host, endpoint.port);
        let mut properties = ConnectProperties::new();
        properties.max_packet_size = Some(MAX_PACKET);
        options
            .set_connect_properties(properties)
            .set_clean_start(true)
            .set_keep_alive(KEEP_ALIVE)
            .set_connection_timeout(CONNECT_TIMEOUT.as_secs())
            .set_request_channel_capacity(usize::from(PACKET_IDS))
            .set_outgoing_inflight_upper_limit(PACKET_IDS);
        if let Some((topic, payload)) = endpoint.will.clone() {
            let will = LastWill::new(topic, payload, QoS::AtLeastOnce, true, None);
            options.set_last_will(will);
        }
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
        options.set_network_options(network);
        if let Some((user, password)) = &endpoint.proof.user {
            options.set_credentials(user, &password.0);
        }
        if let Some(tls) = &endpoint.proof.tls {
            let tls = TlsConfiguration::Rustls(tls.clone());
            options.set_transport(Transport::tls_with_config(tls));
        }
        let (client, event_loop) = AsyncClient::new(options, usize::from(PACKET_IDS));
        let (sender, events) = mpsc::channel(usize::from(PACKET_IDS));
        let task = tokio::spawn(drive(event_loop, sender));
        Link {
            client,
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
        let qos = QoS::AtLeastOnce;
        let sent = self.client.try_publish(topic, qos, retain, payload);
        sent.is_ok()
    }

    /// Queues a subscription (QoS 1).
    pub(crate) fn subscribe(&self, filter: &str) -> bool {
        let sent = self.client.try_subscribe(filter, QoS::AtLeastOnce);
        sent.is_ok()
    }

    /// Queues a DISCONNECT behind everything else.
    pub(crate) fn disconnect(&self) -> bool {
        self.client.try_disconnect().is_ok()
    }
}

async fn drive(mut event_loop: EventLoop, events: mpsc::Sender<LinkEvent>) {
    loop {
        let (event, last) = match event_loop.poll().await {
            Ok(event) => (translate(event), false),
            Err(error) => {
                let (cause, reason) = explain(&error);
                (Some(LinkEvent::Down(cause, reason)), true)
            }
        };
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return;
        }
        if last {
            return;
        }
    }
}

fn translate(event: Event) -> Option<LinkEvent> {
    match event {
        Event::Incoming(Incoming::ConnAck(ConnAck { properties, .. })) => {
            let limits = properties.map(|p| (p.receive_max, p.max_packet_size));
            let (receive_max, max_packet) = limits.unwrap_or_default();
            Some(LinkEvent::Connected {
                receive_max: receive_max.unwrap_or(u16::MAX).min(PACKET_IDS),
                max_packet: max_packet.unwrap_or(u32::MAX),
            })
        }
        Event::Incoming(Incoming::SubAck(ack)) => {
            let success = |code| matches!(code, &SubscribeReasonCode::Success(_));
            let granted = ack.return_codes.iter().all(success);
            Some(LinkEvent::Subscribed { granted })
        }
        Event::Incoming(Incoming::Publish(Publish { topic, payload, .. })) => {
            Some(LinkEvent::Message { topic, payload })
        }
        Event::Outgoing(Outgoing::Publish(pkid)) => Some(LinkEvent::Assigned(pkid)),
        Event::Incoming(Incoming::PubAck(PubAck { pkid, reason, .. })) => Some(judge(pkid, reason)),
        Event::Outgoing(Outgoing::Disconnect) => {
            Some(LinkEvent::Down(Cause::Other, "disconnected".into()))
        }
        _ => None,
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

/// The innermost cause reads best: "Connection refused", not its wrapping.
fn explain(error: &ConnectionError) -> (Cause, String) {
    match error {
        ConnectionError::Io(error) => (Cause::Other, error.to_string()),
        ConnectionError::Timeout(_) => {
            let reason = "the broker did not answer in time";
            (Cause::Other, reason.into())
        }
        ConnectionError::Tls(TlsError::Io(error)) => (Cause::Tls, error.to_string()),
        ConnectionError::Tls(error) => (Cause::Tls, error.to_string()),
        ConnectionError::ConnectionRefused(code) => (
            judge_refusal(*code),
            format!("the broker refused: {code:?}"),
        ),
        other => (Cause::Other, other.to_string()),
    }
}

fn judge_refusal(code: ConnectReturnCode) -> Cause {
    match code {
        ConnectReturnCode::BadUserNamePassword
        | ConnectReturnCode::NotAuthorized
        | ConnectReturnCode::ClientIdentifierNotValid
        | ConnectReturnCode::Banned
        | ConnectReturnCode::BadAuthenticationMethod => Cause::Login,
        _ => Cause::Other,
    }
}
