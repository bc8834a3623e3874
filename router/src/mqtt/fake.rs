//! A broker that says what a test tells it to.

use bytes::{Bytes, BytesMut};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnAckProperties, Connect, ConnectReturnCode, Packet, Publish, SubAck, Subscribe,
    SubscribeReasonCode,
};
use thinglog_schemas::Topics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::connect::LinkOptions;
use super::link::CONNECT_WITHIN;
use crate::config::Endpoint;

pub(crate) struct FakeBroker {
    listener: TcpListener,
}

/// The broker's end of a connection.
pub(crate) struct Peer {
    stream: TcpStream,
    input: BytesMut,
}

impl FakeBroker {
    pub(crate) async fn start() -> FakeBroker {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        FakeBroker { listener }
    }

    pub(crate) fn options(&self) -> LinkOptions {
        let endpoint = Endpoint {
            address: self.listener.local_addr().unwrap().to_string(),
            ..Endpoint::default()
        };
        LinkOptions {
            server: endpoint.server(CONNECT_WITHIN).unwrap(),
            login: None,
            stamps: true,
            client_id: "thinglog-router/test".into(),
            persistent: true,
            window_packets: 1000,
            window_bytes: 1 << 20,
            topics: Topics::default(),
        }
    }

    /// Takes a connection and answers its CONNECT.
    pub(crate) async fn accept(&self, session_present: bool) -> (Peer, Connect) {
        self.answer_connect(session_present, None).await
    }

    /// The same with a keep alive of the broker's own, seconds.
    pub(crate) async fn accept_with(
        &self,
        session_present: bool,
        keep_alive: Option<u16>,
    ) -> (Peer, Connect) {
        let properties = keep_alive.map(|seconds| {
            let mut properties = no_properties();
            properties.server_keep_alive = Some(seconds);
            properties
        });
        self.answer_connect(session_present, properties).await
    }

    /// Takes a connection without a session and tells it limits.
    pub(crate) async fn accept_limiting(
        &self,
        limit: impl FnOnce(&mut ConnAckProperties),
    ) -> (Peer, Connect) {
        let mut properties = no_properties();
        limit(&mut properties);
        self.answer_connect(false, Some(properties)).await
    }

    async fn answer_connect(
        &self,
        session_present: bool,
        properties: Option<ConnAckProperties>,
    ) -> (Peer, Connect) {
        let (stream, _) = self.listener.accept().await.unwrap();
        let mut peer = Peer {
            stream,
            input: BytesMut::new(),
        };
        let Packet::Connect(connect, ..) = peer.receive().await else {
            panic!("no CONNECT");
        };
        let ack = ConnAck {
            session_present,
            code: ConnectReturnCode::Success,
            properties,
        };
        peer.send(&[Packet::ConnAck(ack)]).await;
        (peer, connect)
    }
}

impl Peer {
    pub(crate) async fn receive(&mut self) -> Packet {
        loop {
            if let Ok(packet) = Packet::read(&mut self.input, None) {
                return packet;
            }
            let read = self.stream.read_buf(&mut self.input).await.unwrap();
            assert!(read > 0, "the router closed the connection");
        }
    }

    /// Whether anything has come behind the packet received last.
    pub(crate) fn has_more(&self) -> bool {
        !self.input.is_empty()
    }

    /// The next SUBSCRIBE, granted at QoS 1.
    pub(crate) async fn grant(&mut self) -> Subscribe {
        self.answer(SubscribeReasonCode::Success(QoS::AtLeastOnce))
            .await
    }

    pub(crate) async fn answer(&mut self, code: SubscribeReasonCode) -> Subscribe {
        let Packet::Subscribe(subscribe) = self.receive().await else {
            panic!("no SUBSCRIBE");
        };
        let ack = SubAck {
            pkid: subscribe.pkid,
            return_codes: vec![code],
            properties: None,
        };
        self.send(&[Packet::SubAck(ack)]).await;
        subscribe
    }

    /// The packet ids of the next `count` PUBACKs.
    pub(crate) async fn pubacks(&mut self, count: usize) -> Vec<u16> {
        let mut ids = Vec::new();
        while ids.len() < count {
            match self.receive().await {
                Packet::PubAck(ack) => ids.push(ack.pkid),
                Packet::PingReq(_) => {}
                other => panic!("no PUBACK: {other:?}"),
            }
        }
        ids
    }

    pub(crate) async fn send(&mut self, packets: &[Packet]) {
        let mut output = BytesMut::new();
        for packet in packets {
            packet.write(&mut output, None).unwrap();
        }
        self.stream.write_all(&output).await.unwrap();
    }
}

fn no_properties() -> ConnAckProperties {
    ConnAckProperties {
        session_expiry_interval: None,
        receive_max: None,
        max_qos: None,
        retain_available: None,
        max_packet_size: None,
        assigned_client_identifier: None,
        topic_alias_max: None,
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: None,
        shared_subscription_available: None,
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    }
}

/// A QoS 1 publish.
pub(crate) fn publish(topic: &str, packet_id: u16, payload: impl Into<Bytes>) -> Packet {
    let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload, None);
    publish.pkid = packet_id;
    Packet::Publish(publish)
}
