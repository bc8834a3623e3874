//! What an operator may set, with defaults that suit one machine on loopback.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::Deserialize;
use thinglog_schemas::Topics;

use crate::{
    access::Auth,
    listen::{TlsConfig, WebSocketConfig},
};

/// Configuration of the broker.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where MQTT clients connect without TLS (default 127.0.0.1:1883).
    pub listen: SocketAddr,
    /// MQTT over TLS; not served unless configured.
    pub tls: Option<TlsConfig>,
    /// MQTT over WebSocket; not served unless configured.
    pub websocket: Option<WebSocketConfig>,
    /// Serve addresses beyond loopback although nothing asks clients for credentials.
    pub insecure: bool,
    /// Who may connect, and who may do what.
    pub auth: Auth,
    /// Directory of the journal and the state database (default `thinglog-data/broker`).
    pub data: PathBuf,
    /// Bytes of the disk that `data` is on which are kept for finishing what is under way when it is
    /// full: as much is set aside, and with less than that free beside it no new publish is taken
    /// (default 16 MiB); 0 keeps nothing.
    pub reserve_bytes: u64,
    /// First levels of thinglog's own topics (default `thinglog`).
    pub root: String,
    /// Filters of durable topics; empty means `<root>/logs/#` and `<root>/out/#`.
    pub durable: Vec<String>,
    /// Seconds between updates of the topics below `$SYS/broker` (default 10); 0 says nothing there.
    pub sys_seconds: u64,
    /// How long and how much the journal keeps.
    pub retention: Retention,
    /// What a client may grow.
    pub limits: Limits,
}

/// Bounds of the journal.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// All segments together, bytes (default 8 GiB).
    pub bytes: u64,
    /// Hours a record is kept (default 168); 0 keeps by size alone.
    pub hours: u64,
    /// `cut` drops the oldest records when full (default), `refuse` refuses new ones.
    pub on_full: OnFull,
}

/// What a full journal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFull {
    /// Drop the oldest segment; who had not read it is told how much it missed.
    Cut,
    /// Refuse publishes until every durable subscription has read the oldest segment, or its records
    /// are too old.
    Refuse,
}

/// Limits on everything that a client can grow.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at once (default 20,000).
    pub connections: usize,
    /// Connections at once of one address, or of one /64 of IPv6 (default 1,000); 0 is no limit.
    pub connections_per_address: usize,
    /// Connection attempts a second of one address, those of ten seconds at once (default 100); 0 is no
    /// limit.
    pub connects_per_second: u32,
    /// Addresses that limits per address do not hold for, such as a load balancer's (default 127.0.0.1
    /// and ::1).
    pub exempt_addresses: Vec<IpAddr>,
    /// Connections that have not sent CONNECT yet (default 5,000): a further one sends the oldest away.
    pub unconnected: usize,
    /// Largest CONNECT, bytes (default 64 KiB).
    pub connect_bytes: usize,
    /// Largest packet taken from a client, bytes (default 1 MiB and 64 KiB).
    pub packet_bytes: usize,
    /// Seconds a new connection has for the handshakes of TLS and WebSocket, and as many again to send
    /// CONNECT (default 10).
    pub connect_seconds: u64,
    /// TLS handshakes worked on at once; more wait for their turn (default 1,000).
    pub handshakes: usize,
    /// Longest keep alive of a version 5 client, seconds; 0 takes any, and none (default).
    pub keep_alive_seconds: u16,
    /// Publishes a second taken from one client, those of one second at once; more wait in its socket.
    /// 0 is no limit (default).
    pub publishes_per_second: u32,
    /// Seconds a client may read nothing of what is sent to it before it is cut off (default 60).
    pub stall_seconds: u64,
    /// Longest topic name or filter, bytes (default 65,535, as MQTT has it).
    pub topic_bytes: usize,
    /// Largest payload of a will, bytes (default 64 KiB).
    pub will_bytes: usize,
    /// Bytes of all wills together (default 64 MiB); beyond it only wills below 1 KiB are taken.
    pub wills_bytes: usize,
    /// Unacknowledged QoS 1 publishes taken from one client (Receive Maximum, default 1,024).
    pub receive_maximum: u16,
    /// Messages queued for one session (default 10,000).
    pub queue_messages: usize,
    /// Bytes queued for one session (default 8 MiB).
    pub queue_bytes: usize,
    /// Bytes of messages that all sessions together hold, each counted once for every session that has
    /// it (default 256 MiB). When most of it is used no session gets more than an equal share, and those
    /// that hold more lose it to those that hold less; what then finds no room is not acknowledged.
    pub queued_bytes: usize,
    /// Subscriptions of one session (default 1,000).
    pub subscriptions: usize,
    /// Bytes of the filters of one session (default 256 KiB).
    pub subscription_bytes: usize,
    /// Groups of shared subscriptions on durable topics (default 10,000).
    pub groups: usize,
    /// Sessions kept, connected or not (default 100,000).
    pub sessions: usize,
    /// Sessions of one user, connected or not (default 1,000); 0 is no limit.
    pub sessions_per_user: usize,
    /// Seconds a session is kept at most after its client left (default 7 days).
    pub session_seconds: u32,
    /// Retained messages (default 200,000).
    pub retained: usize,
    /// Bytes of retained messages (default 64 MiB).
    pub retained_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 1883)),
            tls: None,
            websocket: None,
            insecure: false,
            auth: Auth::default(),
            data: PathBuf::from("thinglog-data/broker"),
            reserve_bytes: 16 << 20,
            root: "thinglog".into(),
            durable: Vec::new(),
            sys_seconds: 10,
            retention: Retention::default(),
            limits: Limits::default(),
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            bytes: 8 << 30,
            hours: 7 * 24,
            on_full: OnFull::Cut,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 20_000,
            connections_per_address: 1_000,
            connects_per_second: 100,
            exempt_addresses: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            unconnected: 5_000,
            connect_bytes: 64 << 10,
            packet_bytes: (1 << 20) + (64 << 10),
            connect_seconds: 10,
            handshakes: 1_000,
            keep_alive_seconds: 0,
            publishes_per_second: 0,
            stall_seconds: 60,
            topic_bytes: 65_535,
            will_bytes: 64 << 10,
            wills_bytes: 64 << 20,
            receive_maximum: 1024,
            queue_messages: 10_000,
            queue_bytes: 8 << 20,
            queued_bytes: 256 << 20,
            subscriptions: 1_000,
            subscription_bytes: 256 << 10,
            groups: 10_000,
            sessions: 100_000,
            sessions_per_user: 1_000,
            session_seconds: 7 * 24 * 3600,
            retained: 200_000,
            retained_bytes: 64 << 20,
        }
    }
}

impl Limits {
    /// Checks that each limit leaves room to work in; key and reason if not.
    fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.packet_bytes < 1024 || self.packet_bytes > 256 << 20 {
            let text = "must lie between 1024 and 268435456";
            return Err(("limits.packet_bytes", text.into()));
        }
        let least = [
            (
                "limits.receive_maximum",
                usize::from(self.receive_maximum),
                1,
            ),
            ("limits.handshakes", self.handshakes, 1),
            ("limits.unconnected", self.unconnected, 1),
            ("limits.connect_bytes", self.connect_bytes, 256),
            ("limits.stall_seconds", self.stall_seconds as usize, 1),
            ("limits.topic_bytes", self.topic_bytes, 256),
        ];
        match least.into_iter().find(|(_, value, least)| value < least) {
            Some((key, _, least)) => Err((key, format!("must be at least {least}"))),
            None => Ok(()),
        }
    }
}

/// A setting that cannot stand, named as in the configuration file.
#[derive(Debug, thiserror::Error)]
#[error("broker.{key}: {reason}")]
pub struct ConfigError {
    /// Key below `[broker]`.
    pub key: &'static str,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl Config {
    /// Checks what types alone cannot, without touching a file or socket.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let fail = |key, reason: String| Err(ConfigError { key, reason });
        if let Err(error) = Topics::new(&self.root) {
            return fail("root", error.to_string());
        }
        if let Some(bad) = self
            .durable
            .iter()
            .find(|f| !thinglog_schemas::topic::valid_filter(f))
        {
            return fail("durable", format!("{bad:?} is not a topic filter"));
        }
        self.auth
            .validate()
            .map_err(|(key, reason)| ConfigError { key, reason })?;
        self.validate_listeners()?;
        self.limits
            .validate()
            .map_err(|(key, reason)| ConfigError { key, reason })?;
        if self.retention.bytes < 1 << 20 {
            return fail("retention.bytes", "must be at least 1048576 (1 MiB)".into());
        }
        // The journal holds no record larger than a quarter of it.
        let least = 4 * (self.limits.packet_bytes as u64 + (8 << 10));
        if self.retention.bytes < least {
            return fail(
                "retention.bytes",
                format!("must be at least {least}: four packets of limits.packet_bytes"),
            );
        }
        Ok(())
    }

    /// The filters whose topics go through the journal.
    pub(crate) fn durable_filters(&self) -> Vec<String> {
        if self.durable.is_empty() {
            vec![
                format!("{}/logs/#", self.root),
                format!("{}/out/#", self.root),
            ]
        } else {
            self.durable.clone()
        }
    }

    /// Most that the journal of queued messages takes on disk: what sessions hold, several times over
    /// because it is compacted now and then.
    pub(crate) fn mail_bytes(&self) -> u64 {
        let one = 4 * (self.limits.packet_bytes as u64 + (1 << 20));
        (8 * self.limits.queued_bytes as u64)
            .max(one)
            .max(256 << 20)
    }

    /// Options of the journal that hold these bounds.
    pub(crate) fn journal_options(&self) -> thinglog_journal::Options {
        let segment_bytes = (self.retention.bytes / 8).clamp(128 << 10, 64 << 20);
        thinglog_journal::Options {
            segment_bytes,
            max_bytes: self.retention.bytes,
            max_age: (self.retention.hours > 0)
                .then(|| Duration::from_secs(self.retention.hours.saturating_mul(3600))),
            on_full: match self.retention.on_full {
                OnFull::Cut => thinglog_journal::OnFull::Cut,
                OnFull::Refuse => thinglog_journal::OnFull::Refuse,
            },
            max_record: self.limits.packet_bytes + 4096,
            ..thinglog_journal::Options::default()
        }
    }
}
