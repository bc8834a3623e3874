//! A broker that runs in the test, and a client that speaks to it in bytes.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use prometheus::Registry;
use tempfile::TempDir;
use thinglog_broker::{Broker, Config, Reload, Transport};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) reload: Reload,
    listeners: Vec<(Transport, SocketAddr)>,
    registry: Registry,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start(dir: &Path) -> Running {
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            data: dir.to_owned(),
            ..Config::default()
        };
        Running::start_with(config).await
    }

    pub(crate) async fn start_with(config: Config) -> Running {
        let registry = Registry::new();
        let broker = Broker::bind(config, &registry).await.unwrap();
        let address = broker.address();
        let reload = broker.reload();
        let listeners = broker.listeners().collect();
        let stop = CancellationToken::new();
        let task = tokio::spawn(broker.run(stop.clone()));
        Running {
            address,
            reload,
            listeners,
            registry,
            stop,
            task,
        }
    }

    /// Where it listens for a transport.
    pub(crate) fn at(&self, transport: Transport) -> SocketAddr {
        let found = self.listeners.iter().find(|(kind, _)| *kind == transport);
        found.expect("a listener").1
    }

    /// How often clients or packets were refused for a reason.
    pub(crate) fn refused(&self, reason: &str) -> u64 {
        self.counted("thinglog_broker_refused_total", reason)
    }

    /// A counter, or all those of the same name, whose first label is `label`.
    pub(crate) fn counted(&self, name: &str, label: &str) -> u64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.into_iter().flat_map(|family| family.get_metric());
        let counts = metrics
            .filter(|metric| metric.get_label()[0].value() == label)
            .map(|metric| metric.get_counter().get_value() as u64);
        counts.sum()
    }

    /// A gauge whose first label is `label`.
    pub(crate) fn measured(&self, name: &str, label: &str) -> Option<f64> {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name)?;
        let metrics = family.get_metric().iter();
        let mut found = metrics.filter(|metric| metric.get_label()[0].value() == label);
        found.next().map(|metric| metric.get_gauge().get_value())
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// What kill -9 would leave of a quiet broker's data.
pub(crate) fn crashed(dir: &Path) -> TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().flatten() {
            let target = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let after = tempfile::tempdir().unwrap();
    copy(dir, after.path());
    after
}

/// What carries bytes both ways.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A client that speaks in bytes.
pub(crate) struct Raw(Box<dyn Stream>);

impl Raw {
    pub(crate) async fn open(address: SocketAddr) -> Raw {
        Raw::over(TcpStream::connect(address).await.unwrap())
    }

    /// A client over any transport.
    pub(crate) fn over(stream: impl Stream + 'static) -> Raw {
        Raw(Box::new(stream))
    }

    /// Connects with MQTT 3.1.1 (level 4) or 5.0 (level 5).
    pub(crate) async fn connect(
        address: SocketAddr,
        level: u8,
        id: &str,
        clean: bool,
    ) -> (Raw, Vec<u8>) {
        let mut raw = Raw::open(address).await;
        let connack = raw.introduce(level, id, clean).await;
        (raw, connack)
    }

    /// Sends CONNECT and gives the CONNACK.
    pub(crate) async fn introduce(&mut self, level: u8, id: &str, clean: bool) -> Vec<u8> {
        let mut body = b"\0\x04MQTT".to_vec();
        body.extend([level, if clean { 2 } else { 0 }, 0, 60]);
        if level == 5 {
            // Session expiry: an hour, unless clean.
            match clean {
                true => body.push(0),
                false => body.extend([5, 17, 0, 0, 14, 16]),
            }
        }
        put_text(&mut body, id);
        self.send(0x10, &body).await;
        let connack = self.packet().await;
        assert_eq!(connack[0], 0x20);
        assert_eq!(connack[3], 0, "refused");
        connack
    }

    /// Connects with MQTT 5.0: connect flags, properties, and what follows the client id.
    pub(crate) async fn connect_v5(
        address: SocketAddr,
        flags: u8,
        properties: &[u8],
        id: &str,
        rest: &[u8],
    ) -> (Raw, Vec<u8>) {
        let mut raw = Raw::open(address).await;
        let mut body = b"\0\x04MQTT\x05".to_vec();
        body.extend([flags, 0, 60, properties.len() as u8]);
        body.extend_from_slice(properties);
        put_text(&mut body, id);
        body.extend_from_slice(rest);
        raw.send(0x10, &body).await;
        let connack = raw.packet().await;
        assert_eq!((connack[0], connack[3]), (0x20, 0), "refused");
        (raw, connack)
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn send(&mut self, first: u8, body: &[u8]) {
        let mut packet = vec![first];
        let mut length = body.len();
        loop {
            let byte = (length & 0x7F) as u8;
            length >>= 7;
            packet.push(if length > 0 { byte | 0x80 } else { byte });
            if length == 0 {
                break;
            }
        }
        packet.extend_from_slice(body);
        self.0.write_all(&packet).await.unwrap();
    }

    /// The next packet, whole.
    pub(crate) async fn packet(&mut self) -> Vec<u8> {
        timeout(Duration::from_secs(10), self.read())
            .await
            .expect("no packet in time")
            .expect("connection closed")
    }

    /// The next packet, or `None` when the connection ends instead.
    pub(crate) async fn answer(&mut self) -> Option<Vec<u8>> {
        timeout(Duration::from_secs(10), self.read())
            .await
            .expect("neither a packet nor an end in time")
    }

    async fn read(&mut self) -> Option<Vec<u8>> {
        let mut packet = vec![self.0.read_u8().await.ok()?];
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let byte = self.0.read_u8().await.ok()?;
            packet.push(byte);
            length |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let start = packet.len();
        packet.resize(start + length, 0);
        self.0.read_exact(&mut packet[start..]).await.ok()?;
        Some(packet)
    }

    pub(crate) async fn is_closed(&mut self) -> bool {
        let ended = async { while self.read().await.is_some() {} };
        timeout(Duration::from_secs(10), ended).await.is_ok()
    }

    /// Whether the broker closes instead of answering CONNECT.
    pub(crate) async fn is_turned_away(&mut self) -> bool {
        let connect = [
            0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'x',
        ];
        self.0.write_all(&connect).await.is_err() || self.answer().await.is_none()
    }

    /// Publishes at QoS 1 over 3.1.1 and waits for the acknowledgement.
    pub(crate) async fn publish(&mut self, topic: &str, payload: &str, retain: bool) {
        let mut body = Vec::new();
        put_text(&mut body, topic);
        body.extend([0, 9]);
        body.extend_from_slice(payload.as_bytes());
        self.send(0x32 | u8::from(retain), &body).await;
        assert_eq!(self.packet().await, [0x40, 2, 0, 9]);
    }

    /// Subscribes at QoS 1 over 3.1.1.
    pub(crate) async fn subscribe(&mut self, filter: &str) {
        let mut body = vec![0, 5];
        put_text(&mut body, filter);
        body.push(1);
        self.send(0x82, &body).await;
        assert_eq!(self.packet().await, [0x90, 3, 0, 5, 1]);
    }

    /// The next QoS 1 delivery over 3.1.1.
    pub(crate) async fn delivery(&mut self) -> Delivery {
        delivery_of(&self.packet().await)
    }

    pub(crate) async fn acknowledge(&mut self, pkid: u16) {
        self.send(0x40, &pkid.to_be_bytes()).await;
    }

    /// Waits until everything sent before has been handled, whatever else comes meanwhile.
    pub(crate) async fn ping_between(&mut self) {
        self.send(0xC0, &[]).await;
        while self.packet().await != [0xD0, 0] {}
    }

    /// Waits until everything sent before has been handled.
    pub(crate) async fn ping(&mut self) {
        self.send(0xC0, &[]).await;
        assert_eq!(self.packet().await, [0xD0, 0]);
    }
}

/// Reads a QoS 1 PUBLISH of 3.1.1: topic, payload, packet id, DUP and RETAIN.
pub(crate) fn delivery_of(packet: &[u8]) -> Delivery {
    assert_eq!(packet[0] & 0xF6, 0x32, "not a QoS 1 PUBLISH: {packet:02x?}");
    let lengths = packet[1..].iter().position(|byte| byte & 0x80 == 0);
    let header = 2 + lengths.expect("a length");
    let length = usize::from(u16::from_be_bytes([packet[header], packet[header + 1]]));
    let topic = header + 2;
    let pkid = topic + length;
    Delivery {
        topic: String::from_utf8(packet[topic..pkid].to_vec()).unwrap(),
        pkid: u16::from_be_bytes([packet[pkid], packet[pkid + 1]]),
        payload: String::from_utf8(packet[pkid + 2..].to_vec()).unwrap(),
        dup: packet[0] & 8 != 0,
        retain: packet[0] & 1 != 0,
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) topic: String,
    pub(crate) payload: String,
    pub(crate) pkid: u16,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}
