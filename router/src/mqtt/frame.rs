//! Reads MQTT 5 frames as they lie in the receive buffer (MQTT 5.0 sections 2.1 and 3.3), without
//! allocating: the fixed header of any packet, and PUBLISH with the `thinglog-*` user properties
//! that the bundled broker stamps on deliveries from its durable log:
//!
//! | property | value |
//! |---|---|
//! | `thinglog-offset` | `<journal id, 16 hex digits>/<offset, decimal>` |
//! | `thinglog-received` | ns since the Unix epoch, decimal |
//! | `thinglog-principal` | authenticated principal |
//! | `thinglog-address` | source IP address |

/// First byte's upper four bits of a PUBLISH.
pub(crate) const PUBLISH: u8 = 3;

/// The fixed header of a complete or still arriving packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Packet type, 1-15.
    pub(crate) kind: u8,
    /// The lower four bits of the first byte.
    pub(crate) flags: u8,
    /// Bytes of the fixed header.
    pub(crate) length: usize,
    /// Bytes of the whole packet, fixed header included.
    pub(crate) total: usize,
}

/// A PUBLISH in its buffer; `payload` is where the payload starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Publish<'a> {
    pub(crate) topic: &'a [u8],
    pub(crate) qos: u8,
    /// As it was published: subscriptions ask for Retain As Published.
    pub(crate) retain: bool,
    /// 0 at QoS 0.
    pub(crate) packet_id: u16,
    pub(crate) payload: usize,
    pub(crate) stamp: RawStamp<'a>,
}

/// The broker's stamp as it lies in the buffer; what does not parse is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RawStamp<'a> {
    pub(crate) stored: Option<(u64, u64)>,
    pub(crate) received: Option<u64>,
    pub(crate) principal: Option<&'a str>,
    pub(crate) address: Option<&'a str>,
}

/// The peer does not speak MQTT 5; the connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("malformed remaining length")]
    RemainingLength,
    #[error("packet of {size} bytes is over the limit of {limit} announced in CONNECT")]
    TooLarge { size: usize, limit: usize },
    #[error("malformed PUBLISH: {0}")]
    Publish(&'static str),
}

/// Reads the fixed header; `None` while too few bytes are there to know the length.
pub(crate) fn header(buffer: &[u8], limit: usize) -> Result<Option<Header>, FrameError> {
    let Some((&first, rest)) = buffer.split_first() else {
        return Ok(None);
    };
    let mut remaining = 0usize;
    for (index, &byte) in rest.iter().take(4).enumerate() {
        remaining |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            let length = index + 2;
            let total = length + remaining;
            if total > limit {
                return Err(FrameError::TooLarge { size: total, limit });
            }
            return Ok(Some(Header {
                kind: first >> 4,
                flags: first & 0x0F,
                length,
                total,
            }));
        }
    }
    if rest.len() >= 4 {
        return Err(FrameError::RemainingLength);
    }
    Ok(None)
}

/// Reads a complete PUBLISH; `frame` is exactly its `header.total` bytes.
pub(crate) fn publish(frame: &[u8], header: Header) -> Result<Publish<'_>, FrameError> {
    let mut at = Reader {
        rest: frame.get(header.length..).unwrap_or_default(),
    };
    let qos = (header.flags >> 1) & 0b11;
    if qos == 3 {
        return Err(FrameError::Publish("QoS 3"));
    }
    let topic = at.bytes()?;
    let packet_id = if qos == 0 { 0 } else { at.u16()? };
    if qos > 0 && packet_id == 0 {
        return Err(FrameError::Publish("packet identifier 0"));
    }
    let properties = at.varint()?;
    let stamp = stamp(at.take(properties)?)?;
    Ok(Publish {
        topic,
        qos,
        retain: header.flags & 1 != 0,
        packet_id,
        payload: frame.len() - at.rest.len(),
        stamp,
    })
}

/// Walks the properties of a PUBLISH (section 3.3.2.3) and picks the stamp.
fn stamp(properties: &[u8]) -> Result<RawStamp<'_>, FrameError> {
    let mut stamp = RawStamp::default();
    let mut at = Reader { rest: properties };
    while let Some((&id, rest)) = at.rest.split_first() {
        at.rest = rest;
        match id {
            1 => drop(at.take(1)?),
            2 => drop(at.take(4)?),
            3 | 8 | 9 => drop(at.bytes()?),
            11 => drop(at.varint()?),
            35 => {
                return Err(FrameError::Publish(
                    "topic alias, although none was offered",
                ));
            }
            38 => {
                let (key, value) = (at.bytes()?, at.bytes()?);
                stamp.take(key, value);
            }
            _ => return Err(FrameError::Publish("unknown property")),
        }
    }
    Ok(stamp)
}

impl<'a> RawStamp<'a> {
    fn take(&mut self, key: &[u8], value: &'a [u8]) {
        let Some(name) = key.strip_prefix(b"thinglog-") else {
            return;
        };
        match name {
            b"offset" => self.stored = offset(value),
            b"received" => self.received = decimal(value),
            b"principal" => self.principal = text(value),
            b"address" => self.address = text(value),
            _ => {}
        }
    }
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

fn offset(value: &[u8]) -> Option<(u64, u64)> {
    let (journal, rest) = value.split_at_checked(16)?;
    let journal = journal.iter().try_fold(0u64, |sum, &digit| {
        Some(sum << 4 | u64::from(char::from(digit).to_digit(16)?))
    })?;
    Some((journal, decimal(rest.strip_prefix(b"/")?)?))
}

fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |sum, digit| {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Takes MQTT's primitive types (section 1.5) off the front of a slice.
struct Reader<'a> {
    rest: &'a [u8],
}

const SHORT: FrameError = FrameError::Publish("it ends early");

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], FrameError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, FrameError> {
        let (bytes, rest) = self.rest.split_first_chunk::<2>().ok_or(SHORT)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    fn bytes(&mut self) -> Result<&'a [u8], FrameError> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    fn varint(&mut self) -> Result<usize, FrameError> {
        let mut value = 0usize;
        for index in 0..4 {
            let byte = self.take(1)?[0];
            value |= usize::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(FrameError::Publish("malformed variable byte integer"))
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use proptest::prelude::*;
    use rumqttc::v5::mqttbytes::{QoS, v5};

    use super::*;

    const LIMIT: usize = 1 << 20;

    fn encode(topic: &str, qos: QoS, payload: &[u8], user: Vec<(String, String)>) -> BytesMut {
        let properties = v5::PublishProperties {
            payload_format_indicator: Some(1),
            message_expiry_interval: Some(60),
            response_topic: Some("answer".into()),
            correlation_data: Some(Bytes::from_static(b"7")),
            content_type: Some("text/plain".into()),
            user_properties: user,
            ..v5::PublishProperties::default()
        };
        let payload = Bytes::copy_from_slice(payload);
        let mut publish = v5::Publish::new(topic, qos, payload, Some(properties));
        publish.pkid = 7;
        let mut out = BytesMut::new();
        publish.write(&mut out).unwrap();
        out
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.into(), value.into())
    }

    #[test]
    fn the_stamp_is_read_among_other_properties() {
        let user = vec![
            pair("other", "x"),
            pair("thinglog-offset", "00000000000000ff/12345"),
            pair("thinglog-received", "1700000000000000001"),
            pair("thinglog-principal", "lamp-7"),
            pair("thinglog-address", "127.0.0.1"),
            pair("thinglog-other", "ignored"),
        ];
        let frame = encode("thinglog/logs/lamp-7/app", QoS::AtLeastOnce, b"hi", user);
        let header = header(&frame, LIMIT).unwrap().unwrap();
        assert_eq!((header.kind, header.total), (PUBLISH, frame.len()));
        let publish = publish(&frame, header).unwrap();
        assert_eq!(publish.topic, b"thinglog/logs/lamp-7/app");
        assert_eq!((publish.qos, publish.packet_id), (1, 7));
        assert_eq!(&frame[publish.payload..], b"hi");
        let expected = RawStamp {
            stored: Some((255, 12345)),
            received: Some(1_700_000_000_000_000_001),
            principal: Some("lamp-7"),
            address: Some("127.0.0.1"),
        };
        assert_eq!(publish.stamp, expected);
    }

    #[test]
    fn a_stamp_that_does_not_parse_is_absent() {
        for bad in [
            "",
            "ff/1",
            "00000000000000ff",
            "00000000000000ff/",
            "00000000000000ff/-1",
        ] {
            assert_eq!(offset(bad.as_bytes()), None, "{bad:?}");
        }
        for bad in ["", "1e9", "18446744073709551616"] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_packet_over_the_limit_is_refused_from_its_header() {
        let frame = [0x30, 0xFF, 0xFF, 0x7F];
        assert!(matches!(
            header(&frame, LIMIT),
            Err(FrameError::TooLarge { .. })
        ));
        let endless = [0x30, 0xFF, 0xFF, 0xFF, 0xFF];
        assert_eq!(header(&endless, LIMIT), Err(FrameError::RemainingLength));
    }

    #[test]
    fn a_header_waits_for_its_bytes() {
        assert_eq!(header(&[], LIMIT), Ok(None));
        assert_eq!(header(&[0x30], LIMIT), Ok(None));
        assert_eq!(header(&[0x30, 0x80], LIMIT), Ok(None));
    }

    proptest! {
        #[test]
        fn whatever_the_codec_writes_is_read_back(
            topic in "[a-z/]{1,40}",
            payload: Vec<u8>,
            qos in 0u8..2,
            user in proptest::collection::vec(("[a-z-]{0,20}", ".{0,20}"), 0..4),
        ) {
            let level = if qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
            let frame = encode(&topic, level, &payload, user);
            let header = header(&frame, LIMIT).unwrap().unwrap();
            let publish = publish(&frame, header).unwrap();
            prop_assert_eq!(publish.topic, topic.as_bytes());
            prop_assert_eq!(publish.qos, qos);
            prop_assert_eq!(&frame[publish.payload..], &payload[..]);
        }

        #[test]
        fn arbitrary_bytes_are_refused_not_a_panic(bytes: Vec<u8>) {
            if let Ok(Some(header)) = header(&bytes, LIMIT)
                && bytes.len() >= header.total {
                    let _ = publish(&bytes[..header.total], header);
                }
        }
    }
}
