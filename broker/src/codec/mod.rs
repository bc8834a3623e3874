//! The wire: frames in and packets out. What a client sends is held to the specification here, so
//! that the rest of the broker meets whole, valid packets only.
//!
//! rumqttd's codec, named nowhere else in the project, is used where reading and checking are two
//! things: it reads UNSUBSCRIBE and writes CONNACK. Its other readers let through much that a server
//! has to refuse (properties that come twice or cross their block, reserved bits, U+0000, bytes beyond the
//! end), and checking all that around them is more code than reading once. PUBLISH is the hot path and
//! parsed in place. Only packet types that a client may send reach that codec: its reader has branches
//! that panic on packets a server would send.

mod ack;
mod alias;
mod connect;
mod properties;
mod publish;
mod read;
mod write;

use bytes::{BufMut, BytesMut};

pub(crate) use ack::{Ack, read_ack, write_puback, write_pubcomp, write_pubrec, write_pubrel};
pub(crate) use alias::Aliases;
pub(crate) use connect::{Connect, Will, connect_version, read_connect};
pub(crate) use publish::{
    Delivery, Publish, Scanned, parse as parse_publish, put_user_property, scan_properties,
};
pub(crate) use read::{
    Disconnect, Filter, Subscribe, Unsubscribe, read_disconnect, read_subscribe, read_unsubscribe,
};
pub(crate) use write::{
    ConnAck, codes_len, write_connack, write_disconnect, write_pingresp, write_refusal,
    write_suback, write_unsuback,
};

/// Protocol version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V311,
    V5,
}

/// MQTT 5.0 reason codes that the broker gives (section 2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reason {
    Success = 0x00,
    NoMatchingSubscribers = 0x10,
    Unspecified = 0x80,
    Malformed = 0x81,
    Protocol = 0x82,
    ImplementationSpecific = 0x83,
    UnsupportedVersion = 0x84,
    ClientIdInvalid = 0x85,
    BadCredentials = 0x86,
    NotAuthorized = 0x87,
    ServerBusy = 0x89,
    ShuttingDown = 0x8B,
    BadAuthenticationMethod = 0x8C,
    KeepAliveTimeout = 0x8D,
    TakenOver = 0x8E,
    TopicFilterInvalid = 0x8F,
    TopicNameInvalid = 0x90,
    PacketIdInUse = 0x91,
    PacketIdNotFound = 0x92,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    QuotaExceeded = 0x97,
    PayloadFormatInvalid = 0x99,
    RetainNotSupported = 0x9A,
}

impl Reason {
    /// Whether it refuses (section 2.4).
    pub(crate) fn is_error(self) -> bool {
        self as u8 >= 0x80
    }
}

/// A packet that cannot be taken: the reason code for the client and the words for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct CodecError {
    pub(crate) reason: Reason,
    pub(crate) text: &'static str,
}

impl CodecError {
    pub(crate) const fn new(reason: Reason, text: &'static str) -> CodecError {
        CodecError { reason, text }
    }
    pub(crate) const fn malformed(text: &'static str) -> CodecError {
        CodecError::new(Reason::Malformed, text)
    }
    pub(crate) const fn protocol(text: &'static str) -> CodecError {
        CodecError::new(Reason::Protocol, text)
    }
}

/// Packet types as they stand in the fixed header.
pub(crate) mod kind {
    pub(crate) const CONNECT: u8 = 1;
    pub(crate) const PUBLISH: u8 = 3;
    pub(crate) const PUBACK: u8 = 4;
    pub(crate) const PUBREC: u8 = 5;
    pub(crate) const PUBREL: u8 = 6;
    pub(crate) const PUBCOMP: u8 = 7;
    pub(crate) const SUBSCRIBE: u8 = 8;
    pub(crate) const UNSUBSCRIBE: u8 = 10;
    pub(crate) const PINGREQ: u8 = 12;
    pub(crate) const DISCONNECT: u8 = 14;
    pub(crate) const AUTH: u8 = 15;
}

/// One whole packet at the front of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    /// Bytes of the fixed header.
    pub(crate) header: usize,
    /// Bytes of the packet.
    pub(crate) total: usize,
}

impl Frame {
    /// Whether the length takes no more bytes than it needs (MQTT 5.0 section 1.5.5; 3.1.1 does not
    /// ask for it).
    pub(crate) fn is_minimal(&self) -> bool {
        self.header == 1 + varint_len(self.total - self.header)
    }
}

/// Finds the packet at the front of `buffer`; `None` until all of it is there. A length beyond
/// `max` is refused as soon as it is known.
pub(crate) fn frame(buffer: &[u8], max: usize) -> Result<Option<Frame>, CodecError> {
    let Some((&first, rest)) = buffer.split_first() else {
        return Ok(None);
    };
    let Some((remaining, used)) = read_varint(rest)? else {
        return Ok(None);
    };
    let (kind, flags) = (first >> 4, first & 15);
    let expected = match kind {
        kind::PUBLISH => flags,
        kind::SUBSCRIBE | kind::UNSUBSCRIBE | kind::PUBREL => 2,
        _ => 0,
    };
    if flags != expected {
        return Err(CodecError::malformed(
            "reserved flags of the fixed header are set",
        ));
    }
    let (header, total) = (1 + used, 1 + used + remaining);
    if total > max {
        return Err(CodecError::new(
            Reason::PacketTooLarge,
            "packet is larger than the broker takes",
        ));
    }
    Ok((buffer.len() >= total).then_some(Frame {
        kind,
        flags,
        header,
        total,
    }))
}

/// A variable byte integer (MQTT 5.0 section 1.5.5): value and bytes used; `None` when cut short.
pub(crate) fn read_varint(bytes: &[u8]) -> Result<Option<(usize, usize)>, CodecError> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= 4 {
        Err(CodecError::malformed("length of more than four bytes"))
    } else {
        Ok(None)
    }
}

pub(crate) fn put_varint(out: &mut BytesMut, mut value: usize) {
    loop {
        let byte = (value & 0x7F) as u8;
        value >>= 7;
        out.put_u8(if value > 0 { byte | 0x80 } else { byte });
        if value == 0 {
            return;
        }
    }
}

pub(crate) fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Bytes with a two-byte length before them, and what follows.
pub(crate) fn read_bytes(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let [high, low, rest @ ..] = bytes else {
        return None;
    };
    rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_is_found_once_all_of_it_is_there() {
        let packet = [0x30, 5, 0, 1, b'a', b'h', b'i'];
        for cut in 0..packet.len() {
            assert_eq!(frame(&packet[..cut], 1024).unwrap(), None, "{cut} bytes");
        }
        assert_eq!(frame(&packet, 1024).unwrap().unwrap().total, 7);
    }

    #[test]
    fn a_packet_over_the_limit_is_refused_by_its_header() {
        let error = frame(&[0x30, 0xFF, 0xFF, 0x7F], 1024).unwrap_err();
        assert_eq!(error.reason, Reason::PacketTooLarge);
    }

    #[test]
    fn reserved_flags_are_malformed() {
        assert!(frame(&[0x80, 2, 0, 1], 1024).is_err());
        assert!(frame(&[0x11, 0], 1024).is_err());
    }

    proptest! {
        #[test]
        fn varints_round_trip(value in 0usize..268_435_456) {
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            prop_assert_eq!(read_varint(&out).unwrap(), Some((value, out.len())));
        }

        #[test]
        fn no_bytes_make_the_readers_panic(kind in 1u8..16, body in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut packet = BytesMut::new();
            let flags = if matches!(kind, 8 | 10) { 2 } else { 0 };
            write::put_packet(&mut packet, kind << 4 | flags, &[&body]);
            let Ok(Some(found)) = frame(&packet, 1024) else { return Ok(()) };
            for version in [Version::V311, Version::V5] {
                let body = &packet[found.header..];
                match found.kind {
                    kind::CONNECT => drop(read_connect(version, &found, &packet)),
                    kind::SUBSCRIBE => drop(read_subscribe(version, body)),
                    kind::UNSUBSCRIBE => drop(read_unsubscribe(version, &found, &packet)),
                    kind::DISCONNECT => drop(read_disconnect(version, body)),
                    kind::PUBACK..=kind::PUBCOMP => drop(read_ack(version, &found, body)),
                    _ => {}
                }
            }
        }
    }
}
