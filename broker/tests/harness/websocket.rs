//! A client's side of a WebSocket, in bytes.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};

use crate::harness::Stream;

/// What a browser would send for a page that connects to `ws://localhost:PORT/mqtt`.
pub(crate) fn request(port: u16, more: &str) -> String {
    format!(
        "GET /mqtt HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: mqtt\r\n{more}\r\n"
    )
}

/// Sends a request and gives the head of the response.
pub(crate) async fn ask(stream: &mut (impl Stream + 'static), request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    while !response.ends_with(b"\r\n\r\n") {
        response.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(response).unwrap()
}

/// Upgrades and gives a stream whose writes are binary messages.
pub(crate) async fn upgrade(mut stream: impl Stream + 'static, port: u16) -> DuplexStream {
    let response = ask(&mut stream, &request(port, "")).await;
    assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
    let (near, far) = duplex(64 << 10);
    let (reader, writer) = split(stream);
    let (far_reader, far_writer) = split(far);
    tokio::spawn(carry_out(far_reader, writer));
    tokio::spawn(carry_in(reader, far_writer));
    near
}

async fn carry_out(mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<impl Stream>) {
    let mut bytes = [0; 1000];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        if to.write_all(&frame(0x82, &bytes[..length])).await.is_err() {
            return;
        }
    }
    let _ = to.write_all(&frame(0x88, &1000u16.to_be_bytes())).await;
}

async fn carry_in(mut from: ReadHalf<impl Stream>, mut to: WriteHalf<DuplexStream>) {
    while let Some(payload) = binary(&mut from).await {
        if to.write_all(&payload).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// The next message of a server, if it is binary.
async fn binary(from: &mut ReadHalf<impl Stream>) -> Option<Vec<u8>> {
    let first = from.read_u8().await.ok()?;
    let length = match from.read_u8().await.ok()? {
        126 => usize::from(from.read_u16().await.ok()?),
        127 => usize::try_from(from.read_u64().await.ok()?).ok()?,
        length => usize::from(length),
    };
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).await.ok()?;
    (first == 0x82).then_some(payload)
}

/// A client's frame, masked as it has to be (RFC 6455 section 5.3).
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    if payload.len() < 126 {
        out.push(0x80 | payload.len() as u8);
    } else {
        out.push(0x80 | 126);
        out.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    }
    let mask = [0x12, 0x34, 0x56, 0x78];
    out.extend(mask);
    out.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    out
}
