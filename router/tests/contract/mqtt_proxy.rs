//! Stands between a publisher and a real broker of MQTT 5: passes packets on, makes publishes fail on
//! request, and sees to it that the publisher keeps within the broker's limits.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::common::free_port;
use crate::harness::Fault;

const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const DISCONNECT: u8 = 14;
/// Section 2.4.
const SERVER_BUSY: u8 = 0x89;
const PAYLOAD_FORMAT_INVALID: u8 = 0x99;

#[derive(Default)]
struct State {
    faults: VecDeque<Fault>,
    poison: bool,
    violations: Vec<String>,
    most_under_way: i64,
}

/// A proxy on a port of its own.
pub(crate) struct MqttProxy {
    pub(crate) address: SocketAddr,
    broker: u16,
    state: Arc<Mutex<State>>,
    task: Option<JoinHandle<()>>,
}

impl MqttProxy {
    /// Nobody can connect before [`MqttProxy::listen`].
    pub(crate) fn new(broker: u16) -> MqttProxy {
        MqttProxy {
            address: ([127, 0, 0, 1], free_port()).into(),
            broker,
            state: Arc::default(),
            task: None,
        }
    }

    pub(crate) async fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let (broker, state) = (self.broker, Arc::clone(&self.state));
        self.task = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(connection(client, broker, Arc::clone(&state)));
            }
        }));
    }

    /// Ends every connection and listens no more.
    pub(crate) async fn close(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    pub(crate) fn fail(&self, fault: Fault) -> bool {
        let mut state = self.state.lock();
        match fault {
            Fault::TooMany { .. } => return false,
            Fault::Poison => state.poison = true,
            Fault::Antidote => state.poison = false,
            fault => state.faults.push_back(fault),
        }
        true
    }

    /// Publishes that were unacknowledged on one connection at once.
    pub(crate) fn most_under_way(&self) -> i64 {
        self.state.lock().most_under_way
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.state.lock().violations.clone()
    }
}

/// What both directions of a connection know.
struct Flow {
    to_client: tokio::sync::Mutex<OwnedWriteHalf>,
    /// Publishes under way, and how many may be.
    window: Mutex<(i64, i64)>,
    state: Arc<Mutex<State>>,
}

async fn connection(client: TcpStream, broker: u16, state: Arc<Mutex<State>>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", broker)).await else {
        return;
    };
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    let flow = Flow {
        to_client: to_client.into(),
        window: Mutex::new((0, i64::from(u16::MAX))),
        state,
    };
    tokio::select! {
        _ = upwards(from_client, to_server, &flow) => {}
        _ = downwards(from_server, &flow) => {}
    }
}

/// From the publisher to the broker.
async fn upwards(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    flow: &Flow,
) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let packets = packets(&mut from, &mut buffer).await?;
        let mut passing = Vec::new();
        for packet in &packets {
            if packet[0] >> 4 != PUBLISH {
                passing.extend_from_slice(packet);
                continue;
            }
            flow.publish_goes();
            let fault = flow.state.lock().faults.pop_front();
            match fault {
                Some(Fault::Unavailable) => {
                    let disconnect = [DISCONNECT << 4, 1, SERVER_BUSY];
                    return flow.to_client.lock().await.write_all(&disconnect).await;
                }
                Some(Fault::Reset) => return Ok(()),
                Some(_) => std::future::pending().await,
                None if flow.state.lock().poison && is_poison(packet) => {
                    flow.window.lock().0 -= 1;
                    let [high, low] = packet_id(packet);
                    let refusal = [PUBACK << 4, 3, high, low, PAYLOAD_FORMAT_INVALID];
                    flow.to_client.lock().await.write_all(&refusal).await?;
                }
                None => passing.extend_from_slice(packet),
            }
        }
        to.write_all(&passing).await?;
    }
}

/// From the broker to the publisher.
async fn downwards(mut from: OwnedReadHalf, flow: &Flow) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let packets = packets(&mut from, &mut buffer).await?;
        for packet in &packets {
            match packet[0] >> 4 {
                PUBACK => flow.window.lock().0 -= 1,
                CONNACK => {
                    if let Some(most) = receive_maximum(packet) {
                        flow.window.lock().1 = i64::from(most);
                    }
                }
                _ => {}
            }
        }
        let passing = packets.concat();
        flow.to_client.lock().await.write_all(&passing).await?;
    }
}

impl Flow {
    fn publish_goes(&self) {
        let mut window = self.window.lock();
        window.0 += 1;
        let (under_way, most) = *window;
        let mut state = self.state.lock();
        state.most_under_way = state.most_under_way.max(under_way);
        if under_way > most {
            let text = format!("{under_way} publishes under way; the broker takes {most}");
            state.violations.push(text);
        }
    }
}

/// The next whole packets, at least one.
async fn packets(from: &mut OwnedReadHalf, buffer: &mut Vec<u8>) -> std::io::Result<Vec<Vec<u8>>> {
    loop {
        let (mut packets, mut at) = (Vec::new(), 0);
        while let Some(length) = length(&buffer[at..])
            && buffer.len() - at >= length
        {
            packets.push(buffer[at..at + length].to_vec());
            at += length;
        }
        if !packets.is_empty() {
            buffer.drain(..at);
            return Ok(packets);
        }
        buffer.reserve(64 << 10);
        if from.read_buf(buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Bytes of the packet, if they can be told yet (section 1.5.5).
fn length(buffer: &[u8]) -> Option<usize> {
    let (head, rest) = fixed_header(buffer)?;
    Some(head + rest)
}

fn fixed_header(buffer: &[u8]) -> Option<(usize, usize)> {
    let mut rest = 0;
    for at in 1..5 {
        let byte = *buffer.get(at)?;
        rest |= usize::from(byte & 0x7F) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            return Some((at + 1, rest));
        }
    }
    panic!("a packet without a length: {buffer:?}");
}

fn packet_id(publish: &[u8]) -> [u8; 2] {
    let (head, _) = fixed_header(publish).unwrap();
    let topic = usize::from(u16::from_be_bytes([publish[head], publish[head + 1]]));
    [publish[head + 2 + topic], publish[head + 3 + topic]]
}

fn is_poison(publish: &[u8]) -> bool {
    publish.windows(6).any(|window| window == b"poison")
}

/// Of a CONNACK (section 3.2.2.3.3), if it names one before its texts.
fn receive_maximum(connack: &[u8]) -> Option<u16> {
    let (head, _) = fixed_header(connack)?;
    let mut at = head + 3;
    loop {
        let value = connack.get(at + 1..)?;
        match connack[at] {
            0x21 => return Some(u16::from_be_bytes([value[0], value[1]])),
            0x22 | 0x13 => at += 3,
            0x24 | 0x25 | 0x28..=0x2A => at += 2,
            0x11 | 0x27 => at += 5,
            _ => return None,
        }
    }
}
