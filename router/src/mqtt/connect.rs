//! What is said at the beginning of a connection: CONNECT (MQTT 5.0 section 3.1) and what CONNACK
//! (section 3.2) allows us.

use std::time::Duration;

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::v5::{ConnAck, Connect, ConnectProperties, Login};
use thinglog_schemas::Topics;

use super::link::{LinkError, MAX_PACKET};
use crate::net::wire::Server;

/// Seconds without traffic after which a ping is due.
const KEEP_ALIVE_S: u16 = 30;
/// Session expiry: "never" (section 3.1.2.11.2).
const SESSION_FOR_EVER: u32 = u32::MAX;

/// Who connects, and how.
#[derive(Clone, Debug)]
pub(crate) struct LinkOptions {
    pub(crate) server: Server,
    /// User name and password.
    pub(crate) login: Option<(String, String)>,
    /// Believe the `thinglog-*` user properties of deliveries.
    pub(crate) stamps: bool,
    pub(crate) client_id: String,
    /// Keep the session at the broker while away; else start clean and leave nothing.
    pub(crate) persistent: bool,
    pub(crate) window_packets: u16,
    pub(crate) window_bytes: usize,
    pub(crate) topics: Topics,
}

/// The broker's limits, from CONNACK.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) session_present: bool,
    /// QoS 1 publishes it accepts unacknowledged.
    pub(crate) receive_max: u16,
    /// Largest packet it accepts, bytes.
    pub(crate) max_packet: usize,
    /// Longest silence, in both directions.
    pub(super) keep_alive: Duration,
}

impl Default for Peer {
    fn default() -> Peer {
        Peer {
            session_present: false,
            receive_max: u16::MAX,
            max_packet: MAX_PACKET,
            keep_alive: Duration::from_secs(u64::from(KEEP_ALIVE_S)),
        }
    }
}

impl Peer {
    pub(crate) fn from_connack(ack: ConnAck) -> Peer {
        let mut peer = Peer {
            session_present: ack.session_present,
            ..Peer::default()
        };
        if let Some(properties) = ack.properties {
            if let Some(max) = properties.receive_max {
                peer.receive_max = max.max(1);
            }
            if let Some(max) = properties.max_packet_size {
                peer.max_packet = usize::try_from(max).unwrap_or(usize::MAX);
            }
            match properties.server_keep_alive {
                // 0 turns the mechanism off; we still want to notice a dead peer.
                None | Some(0) => {}
                Some(seconds) => peer.keep_alive = Duration::from_secs(u64::from(seconds)),
            }
        }
        peer
    }
}

/// Appends CONNECT.
pub(super) fn write_connect(options: &LinkOptions, output: &mut BytesMut) -> Result<(), LinkError> {
    let mut properties = ConnectProperties::new();
    properties.receive_maximum = Some(options.window_packets);
    properties.max_packet_size = Some(MAX_PACKET as u32);
    properties.session_expiry_interval = options.persistent.then_some(SESSION_FOR_EVER);
    let connect = Connect {
        keep_alive: KEEP_ALIVE_S,
        client_id: options.client_id.clone(),
        clean_start: !options.persistent,
        properties: Some(properties),
    };
    let login = options.login.clone();
    let login = login.map(|(username, password)| Login { username, password });
    connect.write(&None, &login, output)?;
    Ok(())
}
