use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::timeout,
};

use super::*;

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
async fn a_text_message_ends_the_connection() {
    let (error, told) = refused(&frame(0x81, b"\x10\x00")).await;
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    // Close, 1003: a type of data that cannot be taken.
    assert_eq!((told[0], &told[2..4]), (0x88, &1003u16.to_be_bytes()[..]));
}

#[tokio::test]
async fn messages_have_a_limit_whole_or_in_pieces() {
    let whole = frame(BINARY, &vec![0; PACKET + 1]);
    assert_eq!(refused(&whole[..20]).await.0.kind(), ErrorKind::InvalidData);
    let piece = frame(0x02, &vec![0; PACKET]);
    let more = frame(0x80, b"x");
    let pieces = [piece, more].concat();
    assert_eq!(refused(&pieces).await.0.kind(), ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_frame_without_mask_ends_the_connection() {
    let error = refused(b"\x82\x01x").await.0;
    assert_eq!(error.kind(), ErrorKind::InvalidData);
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
