//! The little MQTT that the benchmark's clients speak, 3.1.1 or 5.0, as prepared bytes: what is measured
//! is the broker, so a client costs as little as it can.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::ValueEnum;

/// The version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Version {
    /// MQTT 3.1.1.
    #[value(name = "3.1.1")]
    V3,
    /// MQTT 5.0.
    #[value(name = "5")]
    V5,
}

/// First bytes of packets (MQTT section 2.2).
const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
pub(super) const PUBLISH: u8 = 0x30;
pub(super) const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
pub(super) const PINGRESP: u8 = 0xd0;
/// The whole packet.
pub(super) const PINGREQ: [u8; 2] = [0xc0, 0];

/// How long an answer may take before a run counts as failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connects with a clean session and waits for CONNACK. `inflight` is what the client lets the broker
/// send unacknowledged; a client of 3.1.1 cannot say.
pub(super) fn open(
    address: SocketAddr,
    version: Version,
    client_id: &str,
    inflight: u16,
) -> anyhow::Result<TcpStream> {
    open_as(address, version, (client_id, None), inflight)
}

/// The same for a client that logs in with its client id and a password, if it has one.
pub(super) fn open_as(
    address: SocketAddr,
    version: Version,
    (client_id, password): (&str, Option<&str>),
    inflight: u16,
) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).context("cannot connect")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut body = b"\x00\x04MQTT".to_vec();
    // Clean session, user name and password.
    let flags = if password.is_some() { 0xC2 } else { 2 };
    // No keep alive, so that nobody has to send PINGREQ while it is idle.
    match version {
        Version::V3 => body.extend_from_slice(&[4, flags, 0, 0]),
        Version::V5 => {
            body.extend_from_slice(&[5, flags, 0, 0, 3, 0x21]);
            body.extend_from_slice(&inflight.to_be_bytes());
        }
    }
    put_text(client_id, &mut body);
    if let Some(password) = password {
        put_text(client_id, &mut body);
        put_text(password, &mut body);
    }
    stream.write_all(&packet(CONNECT, &body))?;
    match read_packet(&mut stream)? {
        (CONNACK, answer) if answer.get(1) == Some(&0) => Ok(stream),
        (kind, answer) => bail!("refused: packet {kind:#04x} {answer:02x?}"),
    }
}

/// Subscribes and waits for SUBACK. Nothing may be on its way to the client yet.
pub(super) fn subscribe(
    stream: &mut TcpStream,
    version: Version,
    filter: &str,
    qos: u8,
) -> anyhow::Result<()> {
    let mut body = vec![0, 1];
    if version == Version::V5 {
        body.push(0);
    }
    put_text(filter, &mut body);
    body.push(qos);
    stream.write_all(&packet(SUBSCRIBE, &body))?;
    match read_packet(stream)? {
        (SUBACK, answer) if answer.last().is_some_and(|granted| *granted <= 2) => Ok(()),
        (kind, answer) => bail!("subscription refused: packet {kind:#04x} {answer:02x?}"),
    }
}

/// A PUBLISH whose packet id and time of sending are filled in for every copy.
pub(super) struct Template {
    packet: Vec<u8>,
    /// Where the packet id stands, at QoS 1.
    id: Option<usize>,
    payload: usize,
}

impl Template {
    /// `size` bytes of payload; the first eight hold the time of sending.
    pub(super) fn new(version: Version, topic: &str, qos: u8, size: usize) -> Template {
        let mut body = Vec::new();
        put_text(topic, &mut body);
        let id = (qos > 0).then_some(body.len());
        if id.is_some() {
            body.extend_from_slice(&[0, 1]);
        }
        if version == Version::V5 {
            body.push(0);
        }
        let payload = body.len();
        body.resize(payload + size.max(8), b'x');
        let packet = packet(PUBLISH | qos << 1, &body);
        let header = packet.len() - body.len();
        Template {
            packet,
            id: id.map(|id| id + header),
            payload: payload + header,
        }
    }

    /// Appends one publish to `out`.
    pub(super) fn put(&mut self, id: u16, time: u64, out: &mut Vec<u8>) {
        if let Some(at) = self.id {
            self.packet[at..at + 2].copy_from_slice(&id.to_be_bytes());
        }
        self.packet[self.payload..self.payload + 8].copy_from_slice(&time.to_be_bytes());
        out.extend_from_slice(&self.packet);
    }
}

/// Appends the PUBACK of a packet id.
pub(super) fn put_puback(id: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&[PUBACK, 2]);
    out.extend_from_slice(&id.to_be_bytes());
}

/// One packet at the front of some bytes.
pub(super) struct Frame<'a> {
    pub(super) first: u8,
    pub(super) body: &'a [u8],
    /// Its bytes with the fixed header.
    pub(super) total: usize,
}

/// The packet at the front of `input`, if it is whole.
pub(super) fn frame(input: &[u8]) -> anyhow::Result<Option<Frame<'_>>> {
    let Some(first) = input.first() else {
        return Ok(None);
    };
    let mut len = 0usize;
    for (index, byte) in input.iter().skip(1).take(4).enumerate() {
        len |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let header = index + 2;
            let body = input.get(header..header + len);
            return Ok(body.map(|body| Frame {
                first: *first,
                body,
                total: header + len,
            }));
        }
    }
    if input.len() >= 5 {
        bail!("the broker sent a length of more than four bytes");
    }
    Ok(None)
}

impl Frame<'_> {
    /// The packet id of a PUBACK, or of a PUBLISH at QoS 1.
    pub(super) fn id(&self) -> Option<u16> {
        let at = match self.first & 0xf0 {
            PUBACK => 0,
            PUBLISH if self.first & 6 != 0 => 2 + self.topic_len()?,
            _ => return None,
        };
        let id = self.body.get(at..at + 2)?;
        Some(u16::from_be_bytes([id[0], id[1]]))
    }

    /// The time of sending in the payload of a PUBLISH made by [`Template`]; properties are short.
    pub(super) fn time(&self, size: usize) -> Option<u64> {
        let payload = self.body.len().checked_sub(size.max(8))?;
        let time = self.body.get(payload..payload + 8)?;
        Some(u64::from_be_bytes(time.try_into().ok()?))
    }

    fn topic_len(&self) -> Option<usize> {
        let len = self.body.get(..2)?;
        Some(usize::from(u16::from_be_bytes([len[0], len[1]])))
    }
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut left = body.len();
    loop {
        let low = (left % 128) as u8;
        left /= 128;
        packet.push(if left > 0 { low | 0x80 } else { low });
        if left == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// One packet and not a byte more, so that what follows is left to other readers.
fn read_packet(stream: &mut TcpStream) -> anyhow::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).context("no answer")?;
    let mut len = usize::from(head[1] & 0x7f);
    let (mut byte, mut shift) = (head[1], 0);
    while byte & 0x80 != 0 && shift < 21 {
        let mut next = [0];
        stream.read_exact(&mut next)?;
        (byte, shift) = (next[0], shift + 7);
        len |= usize::from(byte & 0x7f) << shift;
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).context("half an answer")?;
    Ok((head[0], body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_read_as_it_was_written() {
        for (version, qos) in [(Version::V3, 0), (Version::V3, 1), (Version::V5, 1)] {
            let mut out = Vec::new();
            Template::new(version, "a/b", qos, 200).put(513, 77, &mut out);
            assert!(frame(&out[..out.len() - 1]).unwrap().is_none());
            let read = frame(&out).unwrap().unwrap();
            assert_eq!((read.first, read.total), (PUBLISH | qos << 1, out.len()));
            assert_eq!(read.time(200), Some(77));
            assert_eq!(read.id(), (qos == 1).then_some(513));
        }
    }
}
