//! PUBLISH, framed by our own code: it is the hot path, a message is parsed in place and written
//! straight from the journal. (MQTT 3.1.1 section 3.3, MQTT 5.0 section 3.3.)

use bytes::{BufMut, BytesMut};

use super::{
    CodecError, Version,
    alias::{Alias, Aliases},
    properties::{self, Property, id, text},
    put_varint, varint_len,
};

/// User properties with this prefix are the broker's own; a client's are dropped.
const RESERVED: &[u8] = b"thinglog-";

/// A PUBLISH as it lies in the read buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Publish<'a> {
    pub(crate) dup: bool,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// Empty when a topic alias stands for it.
    pub(crate) topic: &'a str,
    /// 0 at QoS 0.
    pub(crate) pkid: u16,
    /// The property block without its length; empty in 3.1.1.
    pub(crate) properties: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// What the broker itself needs from the properties; the rest is forwarded as it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// Message Expiry Interval, seconds.
    pub(crate) expiry: Option<u32>,
    pub(crate) alias: Option<u16>,
}

/// Parses the body of a PUBLISH (what follows the fixed header).
pub(crate) fn parse(version: Version, flags: u8, body: &[u8]) -> Result<Publish<'_>, CodecError> {
    let qos = (flags >> 1) & 3;
    if qos == 3 {
        return Err(CodecError::malformed("PUBLISH with QoS 3"));
    }
    let dup = flags & 8 != 0;
    if dup && qos == 0 {
        return Err(CodecError::malformed("PUBLISH with DUP at QoS 0"));
    }
    let (topic, rest) =
        super::read_bytes(body).ok_or(CodecError::malformed("PUBLISH topic crosses its packet"))?;
    let topic = text(topic)?;
    if topic.bytes().any(is_wildcard) {
        return Err(CodecError::malformed("PUBLISH topic holds a wildcard"));
    }
    let (pkid, rest) = match qos {
        0 => (0, rest),
        _ => match rest {
            [high, low, rest @ ..] => (u16::from_be_bytes([*high, *low]), rest),
            _ => return Err(CodecError::malformed("PUBLISH without its packet id")),
        },
    };
    if qos > 0 && pkid == 0 {
        return Err(CodecError::malformed("PUBLISH with packet id 0"));
    }
    let (properties, payload) = match version {
        Version::V311 => (&[][..], rest),
        Version::V5 => properties::split(rest)?,
    };
    Ok(Publish {
        dup,
        qos,
        retain: flags & 1 != 0,
        topic,
        pkid,
        properties,
        payload,
    })
}

/// Checks a client's PUBLISH properties and appends those to be forwarded to `forward`.
pub(crate) fn scan_properties(raw: &[u8], forward: &mut Vec<u8>) -> Result<Scanned, CodecError> {
    const ALLOWED: &[u8] = &[
        id::FORMAT,
        id::EXPIRY,
        id::CONTENT_TYPE,
        id::RESPONSE_TOPIC,
        id::CORRELATION,
        id::SUBSCRIPTION_ID,
        id::ALIAS,
        id::USER,
    ];
    let mut scanned = Scanned::default();
    properties::read(raw, ALLOWED, |property| {
        match property.id {
            id::EXPIRY => scanned.expiry = Some(property.number),
            id::ALIAS => scanned.alias = Some(property.number as u16),
            id::SUBSCRIPTION_ID => {
                return Err(CodecError::protocol(
                    "PUBLISH from a client with a subscription identifier",
                ));
            }
            _ => put_forwarded(&property, forward)?,
        }
        Ok(())
    })?;
    Ok(scanned)
}

/// Appends a property that goes on to subscribers as it is; one that only the broker may give does not.
pub(super) fn put_forwarded(
    property: &Property<'_>,
    forward: &mut Vec<u8>,
) -> Result<(), CodecError> {
    if property.id == id::USER && is_reserved(property.bytes) {
        return Ok(());
    }
    if property.id == id::RESPONSE_TOPIC {
        check_response_topic(property.bytes)?;
    }
    forward.extend_from_slice(property.raw);
    Ok(())
}

/// Whether a user property of this name is the broker's own.
fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(RESERVED)
}

pub(super) fn is_wildcard(byte: u8) -> bool {
    matches!(byte, b'+' | b'#')
}

/// A response topic is a topic name (MQTT 5.0 section 3.3.2.3.5).
fn check_response_topic(topic: &[u8]) -> Result<(), CodecError> {
    match topic.is_empty() || topic.iter().copied().any(is_wildcard) {
        true => Err(CodecError::protocol(
            "response topic is empty or holds a wildcard",
        )),
        false => Ok(()),
    }
}

/// Appends a user property to a property block.
pub(crate) fn put_user_property(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    out.push(id::USER);
    out.extend_from_slice(&(key.len() as u16).to_be_bytes());
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
}

/// A PUBLISH on its way to a subscriber.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delivery<'a> {
    pub(crate) dup: bool,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) pkid: u16,
    pub(crate) topic: &'a [u8],
    pub(crate) alias: Alias,
    /// Seconds left.
    pub(crate) expiry: Option<u32>,
    pub(crate) subscription_ids: &'a [u32],
    /// Forwarded properties, encoded.
    pub(crate) properties: &'a [u8],
    /// The broker's own user properties, encoded.
    pub(crate) stamp: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl Delivery<'_> {
    /// The topic name as it is written.
    fn name(&self) -> &[u8] {
        match self.alias {
            Alias::Known(_) => &[],
            Alias::None | Alias::New(_) => self.topic,
        }
    }

    fn properties_len(&self) -> usize {
        let ids: usize = self
            .subscription_ids
            .iter()
            .map(|id| 1 + varint_len(*id as usize))
            .sum();
        let alias = if self.alias == Alias::None { 0 } else { 3 };
        ids + alias
            + if self.expiry.is_some() { 5 } else { 0 }
            + self.properties.len()
            + self.stamp.len()
    }

    fn remaining_len(&self, version: Version) -> usize {
        let id = if self.qos > 0 { 2 } else { 0 };
        let properties = match version {
            Version::V311 => 0,
            Version::V5 => {
                let length = self.properties_len();
                varint_len(length) + length
            }
        };
        2 + self.name().len() + id + properties + self.payload.len()
    }

    /// Plans how to name the topic; false when the client does not take a packet of this size.
    pub(crate) fn fit(&mut self, version: Version, max_packet: usize, aliases: &Aliases) -> bool {
        self.alias = aliases.plan(self.topic);
        // Teaching an alias takes room of its own.
        if matches!(self.alias, Alias::New(_)) && self.size(version) > max_packet {
            self.alias = Alias::None;
        }
        self.size(version) <= max_packet
    }

    /// Bytes of the whole packet.
    fn size(&self, version: Version) -> usize {
        let remaining = self.remaining_len(version);
        1 + varint_len(remaining) + remaining
    }

    /// Appends the packet; the client knows its topic alias from now on.
    pub(crate) fn write(&self, version: Version, aliases: &mut Aliases, out: &mut BytesMut) {
        aliases.note(self.alias, self.topic);
        let remaining = self.remaining_len(version);
        out.reserve(5 + remaining);
        out.put_u8(0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain));
        put_varint(out, remaining);
        out.put_u16(self.name().len() as u16);
        out.put_slice(self.name());
        if self.qos > 0 {
            out.put_u16(self.pkid);
        }
        if version == Version::V5 {
            put_varint(out, self.properties_len());
            if let Some(expiry) = self.expiry {
                out.put_u8(id::EXPIRY);
                out.put_u32(expiry);
            }
            if let Alias::New(number) | Alias::Known(number) = self.alias {
                out.put_u8(id::ALIAS);
                out.put_u16(number);
            }
            for id in self.subscription_ids {
                out.put_u8(id::SUBSCRIPTION_ID);
                put_varint(out, *id as usize);
            }
            out.put_slice(self.properties);
            out.put_slice(self.stamp);
        }
        out.put_slice(self.payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(version: Version, delivery: &Delivery<'_>) {
        let mut out = BytesMut::new();
        delivery.write(version, &mut Aliases::new(0), &mut out);
        assert_eq!(out.len(), delivery.size(version));
        let frame = super::super::frame(&out, 1 << 20).unwrap().unwrap();
        let publish = parse(version, frame.flags, &out[frame.header..frame.total]).unwrap();
        assert_eq!(publish.topic.as_bytes(), delivery.topic);
        assert_eq!(publish.payload, delivery.payload);
        assert_eq!(
            (publish.qos, publish.pkid, publish.dup),
            (delivery.qos, delivery.pkid, delivery.dup)
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut stamp = Vec::new();
        put_user_property(&mut stamp, "k", b"v");
        for qos in 0..2 {
            let delivery = Delivery {
                qos,
                pkid: if qos > 0 { 7 } else { 0 },
                topic: b"a/b",
                expiry: Some(3),
                subscription_ids: &[1, 300],
                stamp: &stamp,
                payload: b"hello",
                ..Delivery::default()
            };
            round_trip(Version::V5, &delivery);
            round_trip(Version::V311, &delivery);
        }
    }

    #[test]
    fn a_topic_alias_takes_the_place_of_the_name_where_the_client_has_room() {
        let mut aliases = Aliases::new(1);
        let mut delivery = Delivery {
            topic: b"house/hall",
            ..Delivery::default()
        };
        let plain = delivery.size(Version::V5);
        assert!(!delivery.fit(Version::V5, plain - 1, &aliases));
        assert!(delivery.fit(Version::V5, plain, &aliases));
        assert_eq!(delivery.alias, Alias::None, "no room to teach one");
        let mut sizes = Vec::new();
        for _ in 0..2 {
            let mut out = BytesMut::new();
            assert!(delivery.fit(Version::V5, 100, &aliases));
            delivery.write(Version::V5, &mut aliases, &mut out);
            assert_eq!(out.len(), delivery.size(Version::V5));
            sizes.push(out.len());
        }
        assert_eq!(sizes, [plain + 3, plain + 3 - delivery.topic.len()]);
    }

    #[test]
    fn a_clients_thinglog_properties_are_dropped() {
        let mut raw = Vec::new();
        put_user_property(&mut raw, "thinglog-offset", b"forged");
        put_user_property(&mut raw, "mine", b"kept");
        let mut forward = Vec::new();
        scan_properties(&raw, &mut forward).unwrap();
        let mut kept = Vec::new();
        put_user_property(&mut kept, "mine", b"kept");
        assert_eq!(forward, kept);
    }

    #[test]
    fn a_repeated_property_is_a_protocol_error() {
        let raw = [id::ALIAS, 0, 1, id::ALIAS, 0, 2];
        assert!(scan_properties(&raw, &mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(flags in 0u8..16, body in proptest::collection::vec(any::<u8>(), 0..64)) {
            for version in [Version::V311, Version::V5] {
                if let Ok(publish) = parse(version, flags, &body) {
                    let _ = scan_properties(publish.properties, &mut Vec::new());
                }
            }
        }
    }
}
