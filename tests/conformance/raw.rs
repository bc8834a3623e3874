//! MQTT in bytes: packets are built and taken apart here by code of its own, so that a mistake of the
//! broker's codec cannot hide behind the same mistake of its test.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Protocol versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V311,
    V5,
}

pub(crate) use Version::{V5, V311};

/// What holds for either version is tested with both.
pub(crate) const BOTH: [Version; 2] = [V311, V5];

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Packet types with the flags they have to have.
pub(crate) mod first {
    pub(crate) const CONNECT: u8 = 0x10;
    pub(crate) const CONNACK: u8 = 0x20;
    pub(crate) const PUBLISH: u8 = 0x30;
    pub(crate) const PUBACK: u8 = 0x40;
    pub(crate) const PUBREC: u8 = 0x50;
    pub(crate) const PUBREL: u8 = 0x62;
    pub(crate) const PUBCOMP: u8 = 0x70;
    pub(crate) const SUBSCRIBE: u8 = 0x82;
    pub(crate) const SUBACK: u8 = 0x90;
    pub(crate) const UNSUBSCRIBE: u8 = 0xA2;
    pub(crate) const UNSUBACK: u8 = 0xB0;
    pub(crate) const PINGREQ: u8 = 0xC0;
    pub(crate) const PINGRESP: u8 = 0xD0;
    pub(crate) const DISCONNECT: u8 = 0xE0;
    pub(crate) const AUTH: u8 = 0xF0;
}

/// Properties on their way to the broker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Props(pub(crate) Vec<u8>);

impl Props {
    pub(crate) fn byte(mut self, id: u8, value: u8) -> Props {
        self.0.extend([id, value]);
        self
    }
    pub(crate) fn two(mut self, id: u8, value: u16) -> Props {
        self.0.push(id);
        self.0.extend(value.to_be_bytes());
        self
    }
    pub(crate) fn four(mut self, id: u8, value: u32) -> Props {
        self.0.push(id);
        self.0.extend(value.to_be_bytes());
        self
    }
    pub(crate) fn varint(mut self, id: u8, value: usize) -> Props {
        self.0.push(id);
        put_varint(&mut self.0, value);
        self
    }
    pub(crate) fn bytes(mut self, id: u8, value: &[u8]) -> Props {
        self.0.push(id);
        put_bytes(&mut self.0, value);
        self
    }
    pub(crate) fn user(mut self, key: &str, value: &str) -> Props {
        self.0.push(38);
        put_bytes(&mut self.0, key.as_bytes());
        put_bytes(&mut self.0, value.as_bytes());
        self
    }
}

pub(crate) fn props() -> Props {
    Props::default()
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value > 127 {
        out.push((value % 128) as u8 | 0x80);
        value /= 128;
    }
    out.push(value as u8);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u16).to_be_bytes());
    out.extend(bytes);
}

/// A packet from its first byte and its body.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    put_varint(&mut out, body.len());
    out.extend(body);
    out
}

fn block(version: Version, properties: &Props, out: &mut Vec<u8>) {
    if version == V5 {
        put_varint(out, properties.0.len());
        out.extend(&properties.0);
    }
}

/// A CONNECT to be.
#[derive(Clone, Debug)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) id: Vec<u8>,
    pub(crate) clean: bool,
    pub(crate) keep_alive: u16,
    pub(crate) properties: Props,
    pub(crate) will: Option<Will>,
    pub(crate) username: Option<Vec<u8>>,
    pub(crate) password: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Will {
    pub(crate) topic: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) properties: Props,
}

/// A will at QoS 1.
pub(crate) fn will(topic: &str, payload: &str) -> Will {
    Will {
        topic: topic.into(),
        payload: payload.into(),
        qos: 1,
        retain: false,
        properties: props(),
    }
}

/// A CONNECT with a clean session.
pub(crate) fn connect(version: Version, id: &str) -> Connect {
    Connect {
        version,
        id: id.into(),
        clean: true,
        keep_alive: 60,
        properties: props(),
        will: None,
        username: None,
        password: None,
    }
}

impl Connect {
    /// A session that outlives its connection, taken up again if there is one.
    pub(crate) fn lasting(mut self) -> Connect {
        self.clean = false;
        self.properties = self.properties.four(17, 3600);
        self
    }
    pub(crate) fn will(mut self, will: Will) -> Connect {
        self.will = Some(will);
        self
    }
    pub(crate) fn properties(mut self, properties: Props) -> Connect {
        self.properties.0.extend(properties.0);
        self
    }
    pub(crate) fn flags(&self) -> u8 {
        let will = self
            .will
            .as_ref()
            .map_or(0, |will| 4 | will.qos << 3 | u8::from(will.retain) << 5);
        u8::from(self.clean) << 1
            | will
            | u8::from(self.password.is_some()) << 6
            | u8::from(self.username.is_some()) << 7
    }
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes_with(self.flags())
    }
    /// With flags that need not fit the fields.
    pub(crate) fn bytes_with(&self, flags: u8) -> Vec<u8> {
        let mut body = b"\0\x04MQTT".to_vec();
        body.push(if self.version == V5 { 5 } else { 4 });
        body.push(flags);
        body.extend(self.keep_alive.to_be_bytes());
        block(self.version, &self.properties, &mut body);
        put_bytes(&mut body, &self.id);
        if let Some(will) = &self.will {
            block(self.version, &will.properties, &mut body);
            put_bytes(&mut body, &will.topic);
            put_bytes(&mut body, &will.payload);
        }
        for field in [&self.username, &self.password].into_iter().flatten() {
            put_bytes(&mut body, field);
        }
        packet(first::CONNECT, &body)
    }
}

/// A PUBLISH to be, or one that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) pkid: u16,
    pub(crate) properties: Vec<Property>,
}

/// An identifier and its value, undecoded.
pub(crate) type Property = (u8, Vec<u8>);

impl Publish {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
    /// The values of a property, in order.
    pub(crate) fn values(&self, id: u8) -> Vec<&[u8]> {
        values(&self.properties, id)
    }
}

pub(crate) fn values(properties: &[Property], id: u8) -> Vec<&[u8]> {
    let of = properties.iter().filter(|(found, _)| *found == id);
    of.map(|(_, value)| value.as_slice()).collect()
}

/// Bytes of a PUBLISH; `flags` are DUP, QoS and RETAIN as they stand in the fixed header.
pub(crate) fn publish(
    version: Version,
    flags: u8,
    topic: &[u8],
    pkid: u16,
    properties: &Props,
    payload: &[u8],
) -> Vec<u8> {
    let mut body = Vec::new();
    put_bytes(&mut body, topic);
    if flags & 6 != 0 {
        body.extend(pkid.to_be_bytes());
    }
    block(version, properties, &mut body);
    body.extend(payload);
    packet(first::PUBLISH | flags, &body)
}

/// Bytes of a SUBSCRIBE.
pub(crate) fn subscribe(
    version: Version,
    pkid: u16,
    properties: &Props,
    filters: &[(&[u8], u8)],
) -> Vec<u8> {
    let mut body = pkid.to_be_bytes().to_vec();
    block(version, properties, &mut body);
    for (filter, options) in filters {
        put_bytes(&mut body, filter);
        body.push(*options);
    }
    packet(first::SUBSCRIBE, &body)
}

/// Bytes of an UNSUBSCRIBE.
pub(crate) fn unsubscribe(version: Version, pkid: u16, filters: &[&[u8]]) -> Vec<u8> {
    let mut body = pkid.to_be_bytes().to_vec();
    block(version, &props(), &mut body);
    for filter in filters {
        put_bytes(&mut body, filter);
    }
    packet(first::UNSUBSCRIBE, &body)
}

/// A packet that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) first: u8,
    pub(crate) body: Vec<u8>,
    pub(crate) version: Version,
}

impl Packet {
    pub(crate) fn kind(&self) -> u8 {
        self.first & 0xF0
    }
    /// Packet id of anything but a PUBLISH.
    pub(crate) fn pkid(&self) -> u16 {
        u16::from_be_bytes([self.body[0], self.body[1]])
    }
    /// Reason code of an acknowledgement of a PUBLISH, CONNACK or DISCONNECT.
    pub(crate) fn reason(&self) -> u8 {
        let at = match self.kind() {
            first::CONNACK => 1,
            first::DISCONNECT => 0,
            _ => 2,
        };
        self.body.get(at).copied().unwrap_or(0)
    }
    /// Properties of a version 5 packet other than PUBLISH.
    pub(crate) fn properties(&self) -> Vec<Property> {
        let at = match self.kind() {
            first::CONNACK | first::SUBACK | first::UNSUBACK => 2,
            first::DISCONNECT => 1,
            _ => 3,
        };
        let Some(rest) = self.body.get(at..).filter(|rest| !rest.is_empty()) else {
            return Vec::new();
        };
        let (length, used) = varint(rest);
        properties(&rest[used..used + length])
    }
    /// Codes of a SUBACK or UNSUBACK.
    pub(crate) fn codes(&self) -> &[u8] {
        match self.version {
            V311 => &self.body[2..],
            V5 => {
                let (length, used) = varint(&self.body[2..]);
                &self.body[2 + used + length..]
            }
        }
    }
    pub(crate) fn publish(&self) -> Publish {
        assert_eq!(self.kind(), first::PUBLISH, "not a PUBLISH: {self:02x?}");
        let qos = (self.first >> 1) & 3;
        assert!(qos < 3, "QoS 3");
        let length = usize::from(self.pkid());
        let (topic, rest) = self.body[2..].split_at(length);
        let (pkid, rest) = match qos {
            0 => (0, rest),
            _ => (u16::from_be_bytes([rest[0], rest[1]]), &rest[2..]),
        };
        let (list, payload) = match self.version {
            V311 => (Vec::new(), rest),
            V5 => {
                let (length, used) = varint(rest);
                (
                    properties(&rest[used..used + length]),
                    &rest[used + length..],
                )
            }
        };
        Publish {
            topic: String::from_utf8(topic.to_vec()).expect("a topic in UTF-8"),
            payload: payload.to_vec(),
            qos,
            retain: self.first & 1 != 0,
            dup: self.first & 8 != 0,
            pkid,
            properties: list,
        }
    }
}

pub(crate) fn varint(bytes: &[u8]) -> (usize, usize) {
    let (mut value, mut used) = (0, 0);
    loop {
        value |= usize::from(bytes[used] & 0x7F) << (7 * used);
        used += 1;
        if bytes[used - 1] & 0x80 == 0 {
            return (value, used);
        }
    }
}

fn properties(mut block: &[u8]) -> Vec<Property> {
    let mut found = Vec::new();
    while let [id, rest @ ..] = block {
        let text = |at: usize| 2 + usize::from(u16::from_be_bytes([rest[at], rest[at + 1]]));
        let length = match id {
            1 | 23 | 25 | 36 | 37 | 40 | 41 | 42 => 1,
            19 | 33 | 34 | 35 => 2,
            2 | 17 | 24 | 39 => 4,
            11 => varint(rest).1,
            3 | 8 | 9 | 18 | 21 | 22 | 26 | 28 | 31 => text(0),
            38 => text(0) + text(text(0)),
            _ => panic!("unknown property {id}"),
        };
        found.push((*id, rest[..length].to_vec()));
        block = &rest[length..];
    }
    found
}

/// A string property's value without its length.
pub(crate) fn text(value: &[u8]) -> &str {
    std::str::from_utf8(&value[2..]).expect("UTF-8")
}

/// A number's value.
pub(crate) fn number(value: &[u8]) -> u32 {
    value.iter().fold(0, |n, byte| n << 8 | u32::from(*byte))
}

/// One connection.
pub(crate) struct Raw {
    stream: TcpStream,
    pub(crate) version: Version,
    next: u16,
    /// Deliveries that came before an answer that was waited for.
    early: VecDeque<Packet>,
}

impl Raw {
    /// A connection on which nothing has been said.
    pub(crate) fn open(broker: SocketAddr, version: Version) -> Raw {
        let stream = TcpStream::connect(broker).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Raw {
            stream,
            version,
            next: 0,
            early: VecDeque::new(),
        }
    }

    /// Connects and gives the CONNACK too, whatever it says.
    #[track_caller]
    pub(crate) fn connack(broker: SocketAddr, connect: &Connect) -> (Raw, Packet) {
        let mut raw = Raw::open(broker, connect.version);
        raw.send(&connect.bytes());
        let packet = raw.packet();
        assert_eq!(packet.first, first::CONNACK);
        (raw, packet)
    }

    /// Connects; the broker has to accept.
    #[track_caller]
    pub(crate) fn connect(broker: SocketAddr, connect: &Connect) -> Raw {
        let (raw, connack) = Raw::connack(broker, connect);
        assert_eq!(connack.reason(), 0, "refused");
        raw
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // Where the broker has closed already, what it said before shows that.
        let _ = self.stream.write_all(bytes);
    }

    /// The next packet.
    #[track_caller]
    pub(crate) fn packet(&mut self) -> Packet {
        let early = self.early.pop_front();
        match early.or_else(|| self.read()) {
            Some(packet) => packet,
            None => panic!("the broker closed the connection"),
        }
    }

    /// The next packet; `None` when the connection ends.
    #[track_caller]
    pub(crate) fn read(&mut self) -> Option<Packet> {
        let mut head = vec![self.byte()?];
        while head.len() == 1 || head[head.len() - 1] & 0x80 != 0 {
            head.push(self.byte()?);
        }
        let (length, used) = varint(&head[1..]);
        let mut shortest = Vec::new();
        put_varint(&mut shortest, length);
        assert_eq!(used, shortest.len(), "a length longer than it needs to be");
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("a whole packet");
        Some(Packet {
            first: head[0],
            body,
            version: self.version,
        })
    }

    #[track_caller]
    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(1) => Some(byte[0]),
            Ok(_) => None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("neither a packet nor an end in time: {error}"),
        }
    }

    /// What the broker says before it closes the connection.
    #[track_caller]
    pub(crate) fn last_words(&mut self) -> Vec<Packet> {
        std::iter::from_fn(|| self.read()).collect()
    }

    /// Sends what the broker has to answer by closing; gives the reason code of its DISCONNECT (0 in 3.1.1,
    /// where it may not send one).
    #[track_caller]
    pub(crate) fn refused(mut self, bytes: &[u8]) -> u8 {
        self.send(bytes);
        let words = self.last_words();
        match (self.version, words.as_slice()) {
            (V311, []) => 0,
            (V5, [disconnect]) if disconnect.first == first::DISCONNECT => {
                assert!(disconnect.reason() >= 0x80, "{disconnect:02x?}");
                disconnect.reason()
            }
            _ => panic!("{:?}: {words:02x?}", self.version),
        }
    }

    pub(crate) fn id(&mut self) -> u16 {
        self.next = self.next % 60_000 + 1;
        self.next
    }

    /// Subscribes to one filter; gives the code.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        self.subscribe_with(&props(), &[(filter.as_bytes(), options)])[0]
    }

    #[track_caller]
    pub(crate) fn subscribe_with(
        &mut self,
        properties: &Props,
        filters: &[(&[u8], u8)],
    ) -> Vec<u8> {
        let id = self.id();
        self.send(&subscribe(self.version, id, properties, filters));
        let suback = self.expect();
        assert_eq!(suback.first, first::SUBACK, "{suback:02x?}");
        assert_eq!(suback.pkid(), id);
        suback.codes().to_vec()
    }

    /// Unsubscribes from one filter.
    #[track_caller]
    pub(crate) fn unsubscribe(&mut self, filter: &str) {
        let id = self.id();
        self.send(&unsubscribe(self.version, id, &[filter.as_bytes()]));
        let unsuback = self.expect();
        assert_eq!((unsuback.first, unsuback.pkid()), (first::UNSUBACK, id));
    }

    /// Publishes and takes part in the whole exchange.
    #[track_caller]
    pub(crate) fn publish(&mut self, topic: &str, qos: u8, payload: &str) {
        self.publish_with(topic, qos << 1, &props(), payload);
    }

    /// Publishes with RETAIN.
    #[track_caller]
    pub(crate) fn retain(&mut self, topic: &str, qos: u8, payload: &str) {
        self.publish_with(topic, qos << 1 | 1, &props(), payload);
    }

    /// Publishes with these flags and properties; gives the reason code.
    #[track_caller]
    pub(crate) fn publish_with(
        &mut self,
        topic: &str,
        flags: u8,
        properties: &Props,
        payload: &str,
    ) -> u8 {
        let id = self.id();
        let (topic, payload) = (topic.as_bytes(), payload.as_bytes());
        self.send(&publish(
            self.version,
            flags,
            topic,
            id,
            properties,
            payload,
        ));
        match (flags >> 1) & 3 {
            0 => {
                self.send(&packet(first::PINGREQ, &[]));
                assert_eq!(self.expect().first, first::PINGRESP);
                0
            }
            1 => self.answer(first::PUBACK, id),
            _ => {
                let reason = self.answer(first::PUBREC, id);
                if reason >= 0x80 {
                    return reason;
                }
                self.send(&packet(first::PUBREL, &id.to_be_bytes()));
                self.answer(first::PUBCOMP, id)
            }
        }
    }

    /// The next packet that is not a delivery; those may overtake any answer.
    #[track_caller]
    fn expect(&mut self) -> Packet {
        loop {
            match self.read() {
                Some(packet) if packet.kind() == first::PUBLISH => self.early.push_back(packet),
                Some(packet) => return packet,
                None => panic!("the broker closed the connection"),
            }
        }
    }

    /// The next packet, deliveries aside, has to be this answer to this packet id; gives its reason code.
    #[track_caller]
    pub(crate) fn answer(&mut self, first: u8, id: u16) -> u8 {
        let answer = self.expect();
        assert_eq!(answer.first, first, "{answer:02x?}");
        assert_eq!(answer.pkid(), id);
        answer.reason()
    }

    /// The next packet has to be a PUBLISH; it is not acknowledged.
    #[track_caller]
    pub(crate) fn taken(&mut self) -> Publish {
        self.packet().publish()
    }

    /// The next PUBLISH, acknowledged as its QoS asks.
    #[track_caller]
    pub(crate) fn delivery(&mut self) -> Publish {
        let publish = self.taken();
        let id = publish.pkid.to_be_bytes();
        match publish.qos {
            0 => {}
            1 => self.send(&packet(first::PUBACK, &id)),
            _ => {
                self.send(&packet(first::PUBREC, &id));
                assert_eq!(self.answer(first::PUBREL, publish.pkid), 0);
                self.send(&packet(first::PUBCOMP, &id));
            }
        }
        publish
    }

    /// What is on its way to this client by now, acknowledged at QoS 1 at most.
    #[track_caller]
    pub(crate) fn drain(&mut self) -> Vec<Publish> {
        let mut found = Vec::new();
        // What is sent lies before the second answer; acknowledgements make room for more.
        for _ in 0..4 {
            self.send(&packet(first::PINGREQ, &[]));
            assert_eq!(self.expect().first, first::PINGRESP);
            while let Some(early) = self.early.pop_front() {
                let publish = early.publish();
                if publish.qos == 1 {
                    self.send(&packet(first::PUBACK, &publish.pkid.to_be_bytes()));
                }
                found.push(publish);
            }
        }
        found
    }

    /// Waits until everything sent before has been handled.
    #[track_caller]
    pub(crate) fn ping(&mut self) {
        self.send(&packet(first::PINGREQ, &[]));
        let answer = self.packet();
        assert_eq!(
            (answer.first, answer.body.len()),
            (first::PINGRESP, 0),
            "{answer:02x?}"
        );
    }

    /// Nothing has been on its way to this client. What was is sent before the second answer at the
    /// latest: the broker gives what there is whenever it has handled a packet.
    #[track_caller]
    pub(crate) fn nothing(&mut self) {
        self.ping();
        self.ping();
    }

    /// Says goodbye and waits for the end.
    #[track_caller]
    pub(crate) fn disconnect(self) {
        self.disconnect_with(&[]);
    }

    #[track_caller]
    pub(crate) fn disconnect_with(mut self, body: &[u8]) {
        self.send(&packet(first::DISCONNECT, body));
        assert_eq!(self.last_words(), [], "after DISCONNECT");
    }

    /// Ends the connection without a word, and waits until the broker knows.
    pub(crate) fn vanish(mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        while self.read().is_some() {}
    }
}
