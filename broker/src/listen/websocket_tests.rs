use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    connection::serve,
    peer::{Peer, Transport},
};

const PACKET: usize = 128 << 10;

fn pair(room: usize) -> (DuplexStream, WebSocket<DuplexStream>) {
    let (client, server) = duplex(room);
    (client, WebSocket::new(server, PACKET))
}

/// A client's frame, masked as it has to be (RFC 6455 section 5.3).
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        length @ 0..126 => out.push(0x80 | length as u8),
        length @ 126..65536 => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    out.extend(mask);
    out.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    out
}

const BINARY: u8 = 0x82;

#[tokio::test]
async fn packets_may_span_messages_and_share_them() {
    let (mut client, mut server) = pair(1 << 20);
    let sent = [
        frame(BINARY, b"abc"),
        frame(BINARY, b""),
        // One message of three frames with a ping in between.
        frame(0x02, b"de"),
        frame(0x00, b"fg"),
        frame(0x89, b"ping"),
        frame(0x80, b"h"),
        frame(BINARY, b"ijklmnop"),
    ];
    client.write_all(&sent.concat()).await.unwrap();
    let mut received = [0; 16];
    // Pieces smaller than a message.
    for piece in received.chunks_mut(3) {
        server.read_exact(piece).await.unwrap();
    }
    assert_eq!(&received, b"abcdefghijklmnop");
}

#[tokio::test]
async fn a_ping_is_answered_without_a_write() {
    let (mut client, mut server) = pair(1 << 20);
    client
        .write_all(&frame(0x89, b"are you there"))
        .await
        .unwrap();
    let reading = tokio::spawn(async move { server.read_u8().await });
    let mut pong = [0; 15];
    client.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"\x8a\x0dare you there");
    client.write_all(&frame(BINARY, b"x")).await.unwrap();
    assert_eq!(reading.await.unwrap().unwrap(), b'x');
}

#[tokio::test]
async fn what_is_written_arrives_whole_through_a_narrow_pipe() {
    let (mut client, mut server) = pair(100);
    let sent: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        server.write_all(&sent).await.unwrap();
        server.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    loop {
        let mut head = [0; 2];
        client.read_exact(&mut head).await.unwrap();
        if head[0] == 0x88 {
            break;
        }
        assert_eq!(head[0], BINARY);
        let length = match head[1] {
            126 => usize::from(client.read_u16().await.unwrap()),
            length => usize::from(length),
        };
        let start = received.len();
        received.resize(start + length, 0);
        client.read_exact(&mut received[start..]).await.unwrap();
    }
    assert_eq!(received, expected);
    writing.await.unwrap();
}

/// The error that reading ends with, and what the client is told.
async fn refused(bytes: &[u8]) -> (io::Error, Vec<u8>) {
    let (mut client, mut server) = pair(1 << 20);
    client.write_all(bytes).await.unwrap();
    let mut out = Vec::new();
    let error = timeout(Duration::from_secs(10), server.read_to_end(&mut out))
        .await
        .unwrap()
        .unwrap_err();
    assert!(out.is_empty());
    drop(server);
    let mut told = Vec::new();
    client.read_to_end(&mut told).await.unwrap();
    (error, told)
}

#[tokio::test]
async fn what_breaks_the_rules_ends_the_connection_with_the_reason() {
    let large = frame(BINARY, &vec![0; PACKET + 1]);
    let pieces = [frame(0x02, &vec![0; PACKET]), frame(0x80, b"x")].concat();
    let cases = [
        (1003, frame(0x81, b"text"), "a text message"),
        (1007, frame(0x81, b"\xff"), "a text message that is none"),
        (1009, large[..20].to_vec(), "a message over the limit"),
        (1009, pieces, "a message over the limit in pieces"),
        (1002, b"\x82\x01x".to_vec(), "a frame without mask"),
        (1002, frame(0xC2, b"x"), "a frame of an extension"),
        (1002, frame(0x80, b"x"), "a continuation of nothing"),
    ];
    for (code, bytes, what) in cases {
        let (error, told) = refused(&bytes).await;
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{what}");
        let close = [0x88, 2, (code >> 8) as u8, code as u8];
        assert_eq!(told, close, "{what}");
    }
}

#[tokio::test]
async fn a_goodbye_is_answered_and_is_the_end() {
    let (mut client, mut server) = pair(1 << 20);
    let goodbye = frame(0x88, &1000u16.to_be_bytes());
    client
        .write_all(&[frame(BINARY, b"last"), goodbye].concat())
        .await
        .unwrap();
    let mut received = Vec::new();
    server.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"last");
    let mut answer = [0; 4];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, *b"\x88\x02\x03\xe8");
}

#[tokio::test]
async fn pings_to_a_client_that_reads_nothing_do_not_pile_up() {
    let (mut client, mut server) = pair(4 << 10);
    let reading = tokio::spawn(async move {
        let byte = server.read_u8().await.unwrap();
        (byte, server)
    });
    let ping = frame(0x89, &[b'p'; 125]);
    for _ in 0..10_000 {
        client.write_all(&ping).await.unwrap();
    }
    client.write_all(&frame(BINARY, b"x")).await.unwrap();
    let (byte, server) = reading.await.unwrap();
    assert_eq!(byte, b'x');
    let mut client = client;
    drop(server);
    let mut pongs = Vec::new();
    client.read_to_end(&mut pongs).await.unwrap();
    assert!(pongs.len() <= (4 << 10) + UNSENT, "{}", pongs.len());
}

/// A stream that holds back what the socket did not take is flushed although no packet follows.
#[tokio::test]
async fn a_packet_that_the_socket_takes_in_pieces_is_sent_whole() {
    let dir = tempfile::tempdir().unwrap();
    let config = crate::Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: dir.path().to_owned(),
        ..crate::Config::default()
    };
    let broker = crate::Broker::bind(config, &prometheus::Registry::new()).await;
    let (mut client, server) = pair(4);
    let peer = Peer {
        address: [127, 0, 0, 1].into(),
        certificate: None,
        transport: Transport::WebSocket,
    };
    let shutdown = CancellationToken::new();
    tokio::spawn(serve(
        broker.unwrap().hub(),
        server,
        (peer, crate::listen::Waiting::alone()),
        1,
        shutdown,
    ));
    let connect = frame(BINARY, b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01a");
    client.write_all(&connect).await.unwrap();
    let mut connack = [0; 6];
    let received = timeout(Duration::from_secs(10), client.read_exact(&mut connack)).await;
    received.expect("the rest is held back").unwrap();
    assert_eq!(connack, *b"\x82\x04\x20\x02\0\0");
}
