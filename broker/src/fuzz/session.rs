//! Whole sessions: two clients that do what the input says, valid packets, mutated ones and plain
//! garbage in pieces of any size, and leave and come back. Afterwards nothing may hang, nothing may have
//! grown beyond its limit, and a client that behaves is served.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    runtime::Runtime,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Limits},
    connection,
    hub::Hub,
    listen::Waiting,
    peer::{Peer, Transport},
    server::Broker,
};

/// Longer than anything here takes on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(30);
const SESSIONS: usize = 12;
const RETAINED: usize = 40;
const NAMES: [&str; 4] = ["a", "b", "", "a/b"];
const TOPICS: [&str; 8] = [
    "a",
    "a/b",
    "thinglog/logs/lamp/app",
    "thinglog/out/x/lamp",
    "$SYS/x",
    "",
    "a/+",
    "letters/ä",
];
const FILTERS: [&str; 10] = [
    "#",
    "a/#",
    "+/b",
    "thinglog/logs/#",
    "$SYS/#",
    "$share/g/a",
    "a",
    "",
    "#/a",
    "thinglog/+/lamp/app",
];

/// One broker for all inputs: what one leaves behind the next one meets.
struct Place {
    runtime: Runtime,
    hub: Arc<Hub>,
}

fn place() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| {
        let runtime = Runtime::new().expect("a runtime");
        let data = std::env::temp_dir().join(format!("thinglog-fuzz-{}", std::process::id()));
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            data,
            limits: Limits {
                packet_bytes: 8 << 10,
                sessions: SESSIONS,
                retained: RETAINED,
                queue_messages: 50,
                queue_bytes: 32 << 10,
                subscriptions: 20,
                ..Limits::default()
            },
            ..Config::default()
        };
        let broker = runtime.block_on(Broker::bind(config, &prometheus::Registry::new()));
        let hub = broker.expect("a broker").hub();
        Place { runtime, hub }
    })
}

/// Runs the input as a program.
///
/// # Panics
/// When something hangs, grows, or a client that behaves is not served.
pub fn session(data: &[u8]) {
    let Place { runtime, hub } = place();
    runtime.block_on(async {
        let mut input = Input(data);
        let mut clients: [Option<Client>; 2] = [None, None];
        while let Some(op) = input.byte() {
            let slot = &mut clients[usize::from(op & 1)];
            step(hub, slot, op >> 1, &mut input).await;
        }
        for client in clients.into_iter().flatten() {
            client.leave().await;
        }
        hub.checkpoint();
        let (sessions, retained) = hub.sizes();
        assert!(sessions <= SESSIONS, "{sessions} sessions");
        // The broker's own topics come on top.
        assert!(retained <= RETAINED + 8, "{retained} retained messages");
        if sessions + 2 >= SESSIONS {
            hub.forget_all();
        }
        well_behaved(hub).await;
    });
}

/// One step: the packet that `op` means, as it is, mutated, or in pieces.
async fn step(hub: &Arc<Hub>, slot: &mut Option<Client>, op: u8, input: &mut Input<'_>) {
    if op & 15 == 0 || slot.is_none() {
        if let Some(client) = slot.take() {
            client.leave().await;
        }
        let mut client = Client::open(hub);
        if op & 16 == 0 {
            client.write(&connect(input)).await;
        }
        *slot = Some(client);
        return;
    }
    let mut packet = match op & 15 {
        1 | 2 => subscribe(input),
        3..=6 => publish(input),
        7 => framed(
            0x40 | input.below(4) << 4 | input.below(3),
            &[0, input.below(8)],
        ),
        8 => framed(0x62, &[0, input.below(8)]),
        9 => unsubscribe(input),
        10 => framed(0xC0, &[]),
        11 => framed(0xE0, input.take(6)),
        12 => input.take(64).to_vec(),
        13 => framed(input.byte().unwrap_or(0), input.take(32)),
        14 => connect(input),
        _ => [publish(input), publish(input), subscribe(input)].concat(),
    };
    if op & 32 != 0 && !packet.is_empty() {
        let at = usize::from(input.byte().unwrap_or(0)) % packet.len();
        packet[at] = input.byte().unwrap_or(0);
    }
    let pieces = if op & 64 != 0 {
        1 + usize::from(input.below(7))
    } else {
        packet.len().max(1)
    };
    let Some(client) = slot else {
        return;
    };
    for piece in packet.chunks(pieces) {
        client.write(piece).await;
    }
}

/// Publishes to itself.
async fn well_behaved(hub: &Arc<Hub>) {
    let (client, server) = duplex(16 << 10);
    let serving = tokio::spawn(serve(hub.clone(), server));
    let (mut reader, mut writer) = split(client);
    let mut hello = b"\0\x04MQTT\x04\x02\0\0".to_vec();
    text(&mut hello, "canary");
    let mut filter = vec![0, 1];
    text(&mut filter, "canary/x");
    filter.push(1);
    let mut message = Vec::new();
    text(&mut message, "canary/x");
    message.extend_from_slice(b"\0\x02hello");
    let all = [
        framed(0x10, &hello),
        framed(0x82, &filter),
        framed(0x32, &message),
    ]
    .concat();
    let expected = 4 + 5 + 4 + 2 + 10 + 2 + 5;
    let mut answers = vec![0; expected];
    let exchange = async {
        writer.write_all(&all).await?;
        reader.read_exact(&mut answers).await
    };
    let exchanged = timeout(PATIENCE, exchange).await;
    assert!(
        matches!(exchanged, Ok(Ok(_))),
        "{exchanged:?}: {answers:02x?}"
    );
    let has_message = answers.windows(5).any(|window| window == b"hello");
    assert!(has_message, "no message among {answers:02x?}");
    drop((reader, writer));
    assert!(
        timeout(PATIENCE, serving)
            .await
            .is_ok_and(|end| end.is_ok())
    );
}

async fn serve(hub: Arc<Hub>, stream: DuplexStream) {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let peer = Peer {
        address: [127, 0, 0, 1].into(),
        certificate: None,
        transport: Transport::Tcp,
    };
    let arrived = (peer, Waiting::alone());
    connection::serve(hub, stream, arrived, number, CancellationToken::new()).await;
}

/// One connection: its answers are read and thrown away.
struct Client {
    writer: WriteHalf<DuplexStream>,
    serving: JoinHandle<()>,
    draining: JoinHandle<()>,
}

impl Client {
    fn open(hub: &Arc<Hub>) -> Client {
        let (client, server) = duplex(4 << 10);
        let (reader, writer) = split(client);
        Client {
            writer,
            serving: tokio::spawn(serve(hub.clone(), server)),
            draining: tokio::spawn(drain(reader)),
        }
    }

    /// An error is the broker's right to close.
    async fn write(&mut self, bytes: &[u8]) {
        let written = timeout(PATIENCE, self.writer.write_all(bytes)).await;
        assert!(written.is_ok(), "the broker has stopped reading");
    }

    async fn leave(mut self) {
        let _ = self.writer.shutdown().await;
        let ended = timeout(PATIENCE, self.serving).await;
        assert!(
            matches!(ended, Ok(Ok(()))),
            "{ended:?}: a connection does not end"
        );
        drop(self.writer);
        let drained = timeout(PATIENCE, self.draining).await;
        assert!(matches!(drained, Ok(Ok(()))), "{drained:?}");
    }
}

async fn drain(mut reader: ReadHalf<DuplexStream>) {
    let mut buffer = [0; 1024];
    while matches!(reader.read(&mut buffer).await, Ok(read) if read > 0) {}
}

/// The rest of an input.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn below(&mut self, bound: u8) -> u8 {
        self.byte().unwrap_or(0) % bound
    }

    fn take(&mut self, most: u8) -> &'a [u8] {
        let length = usize::from(self.below(most.max(1))).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn of<'b>(&mut self, list: &[&'b str]) -> &'b str {
        list[usize::from(self.byte().unwrap_or(0)) % list.len()]
    }
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(&(text.len() as u16).to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}

fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = bytes::BytesMut::new();
    crate::codec::put_varint(&mut packet, body.len());
    [&[first], &packet[..], body].concat()
}

fn connect(input: &mut Input<'_>) -> Vec<u8> {
    let choice = input.byte().unwrap_or(0);
    let level = 4 + (choice & 1);
    let mut flags = choice & 2;
    let will = choice & 4 != 0;
    if will {
        flags |= 4 | (choice & 0x18) | (choice & 0x20);
    }
    let mut body = b"\0\x04MQTT".to_vec();
    body.extend([level, flags, 0, choice & 0x40]);
    if level == 5 {
        let properties: &[u8] = match choice >> 6 {
            0 => &[],
            1 => &[17, 0, 0, 14, 16],
            2 => &[17, 0, 0, 0, 9, 33, 0, 2, 34, 0, 3],
            _ => &[39, 0, 0, 0, 30, 25, 1],
        };
        body.push(properties.len() as u8);
        body.extend_from_slice(properties);
    }
    text(&mut body, input.of(&NAMES));
    if will {
        if level == 5 {
            body.extend([5, 24, 0, 0, 0, input.below(2)]);
        }
        text(&mut body, input.of(&TOPICS));
        text(&mut body, "gone");
    }
    framed(0x10, &body)
}

/// Properties of length 0 stand where version 5 has them; over 3.1.1 they are a mutation.
fn subscribe(input: &mut Input<'_>) -> Vec<u8> {
    let mut body = vec![0, 1 + input.below(5)];
    match input.below(4) {
        0 => {}
        1 => body.push(0),
        2 => body.extend([2, 11, 1 + input.below(9)]),
        _ => body.push(0),
    }
    for _ in 0..=input.below(3) {
        text(&mut body, input.of(&FILTERS));
        body.push(input.byte().unwrap_or(0) & 0x3F);
    }
    framed(0x82, &body)
}

fn unsubscribe(input: &mut Input<'_>) -> Vec<u8> {
    let mut body = vec![0, 1 + input.below(5)];
    if input.below(2) == 0 {
        body.push(0);
    }
    text(&mut body, input.of(&FILTERS));
    framed(0xA2, &body)
}

fn publish(input: &mut Input<'_>) -> Vec<u8> {
    let choice = input.byte().unwrap_or(0);
    let mut body = Vec::new();
    text(&mut body, input.of(&TOPICS));
    if choice & 6 != 0 {
        body.extend([0, input.below(8)]);
    }
    match choice >> 5 {
        0..=2 => {}
        3 | 4 => body.push(0),
        5 => body.extend([3, 35, 0, input.below(40)]),
        6 => body.extend([5, 2, 0, 0, 0, input.below(3)]),
        _ => body.extend([7, 38, 0, 1, b'k', 0, 1, b'v']),
    }
    body.extend_from_slice(input.take(20));
    framed(0x30 | (choice & 15), &body)
}
