//! SUBSCRIBE, UNSUBSCRIBE and DISCONNECT. SUBSCRIBE is read by our own code, because rumqttd's
//! reader drops the reserved bits that have to be refused; UNSUBSCRIBE by rumqttd, once its
//! properties are known to be whole.

use bytes::BytesMut;
use rumqttd::protocol::{self as wire, Protocol, v4::V4, v5::V5};

use super::{
    CodecError, Frame, Reason, Version,
    properties::{self, id, text},
    read_bytes,
};

/// One filter of a SUBSCRIBE.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    pub(crate) path: String,
    pub(crate) qos: u8,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    /// 0 send retained, 1 only for a new subscription, 2 never.
    pub(crate) retain_handling: u8,
}

/// SUBSCRIBE.
#[derive(Debug)]
pub(crate) struct Subscribe {
    pub(crate) pkid: u16,
    pub(crate) id: Option<u32>,
    /// Value of the user property `thinglog-from`.
    pub(crate) from: Option<String>,
    pub(crate) filters: Vec<Filter>,
}

/// UNSUBSCRIBE.
#[derive(Debug)]
pub(crate) struct Unsubscribe {
    pub(crate) pkid: u16,
    pub(crate) filters: Vec<String>,
}

/// DISCONNECT from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Disconnect {
    /// The will is to be sent all the same: any reason but 0x00 (MQTT 5.0 section 3.14.4).
    pub(crate) with_will: bool,
    pub(crate) expiry: Option<u32>,
}

/// The packet id at the front of `body`, and what follows it.
fn packet_id(body: &[u8]) -> Result<(u16, &[u8]), CodecError> {
    match body {
        [0, 0, ..] => Err(CodecError::protocol("packet id 0")),
        [high, low, rest @ ..] => Ok((u16::from_be_bytes([*high, *low]), rest)),
        _ => Err(CodecError::malformed("packet without its packet id")),
    }
}

/// Reads the body of a SUBSCRIBE.
pub(crate) fn read_subscribe(version: Version, body: &[u8]) -> Result<Subscribe, CodecError> {
    let (pkid, mut rest) = packet_id(body)?;
    let (mut id, mut from) = (None, None);
    if version == Version::V5 {
        let (block, payload) = properties::split(rest)?;
        properties::read(block, &[id::SUBSCRIPTION_ID, id::USER], |property| {
            match property.id {
                id::SUBSCRIPTION_ID => id = Some(property.number),
                _ if property.bytes == b"thinglog-from" && from.is_none() => {
                    from = Some(text(property.value)?.to_owned());
                }
                _ => {}
            }
            Ok(())
        })?;
        rest = payload;
    }
    let mut filters = Vec::new();
    while !rest.is_empty() {
        let (path, [options, after @ ..]) =
            read_bytes(rest).ok_or(CodecError::malformed("a filter crosses its packet"))?
        else {
            return Err(CodecError::malformed("a filter without its options"));
        };
        filters.push(filter(version, text(path)?, *options)?);
        rest = after;
    }
    if filters.is_empty() {
        return Err(CodecError::protocol("SUBSCRIBE without a filter"));
    }
    Ok(Subscribe {
        pkid,
        id,
        from,
        filters,
    })
}

/// A filter with its options (MQTT 3.1.1 section 3.8.3, MQTT 5.0 section 3.8.3.1).
fn filter(version: Version, path: &str, options: u8) -> Result<Filter, CodecError> {
    let reserved = match version {
        Version::V311 => 0xFC,
        Version::V5 => 0xC0,
    };
    if options & reserved != 0 || options & 3 == 3 {
        return Err(CodecError::malformed(
            "subscription with QoS 3 or reserved options",
        ));
    }
    let filter = Filter {
        path: path.to_owned(),
        qos: options & 3,
        no_local: options & 4 != 0,
        retain_as_published: options & 8 != 0,
        retain_handling: options >> 4,
    };
    if filter.retain_handling == 3 {
        return Err(CodecError::protocol("subscription with Retain Handling 3"));
    }
    if filter.no_local && path.starts_with("$share/") {
        return Err(CodecError::protocol(
            "shared subscription with the No Local option",
        ));
    }
    Ok(filter)
}

/// Reads a whole UNSUBSCRIBE packet.
pub(crate) fn read_unsubscribe(
    version: Version,
    frame: &Frame,
    packet: &[u8],
) -> Result<Unsubscribe, CodecError> {
    let (pkid, rest) = packet_id(&packet[frame.header..frame.total])?;
    if version == Version::V5 {
        let (block, _) = properties::split(rest)?;
        properties::read(block, &[id::USER], |_| Ok(()))?;
    }
    let mut bytes = BytesMut::from(&packet[..frame.total]);
    let read = match version {
        Version::V311 => V4.read_mut(&mut bytes, frame.total),
        Version::V5 => V5.read_mut(&mut bytes, frame.total),
    };
    let Ok(wire::Packet::Unsubscribe(unsubscribe, _)) = read else {
        return Err(CodecError::malformed("UNSUBSCRIBE is malformed"));
    };
    for filter in &unsubscribe.filters {
        text(filter.as_bytes())?;
    }
    if unsubscribe.filters.is_empty() {
        return Err(CodecError::protocol("UNSUBSCRIBE without a filter"));
    }
    Ok(Unsubscribe {
        pkid,
        filters: unsubscribe.filters,
    })
}

/// Reads the body of a DISCONNECT.
pub(crate) fn read_disconnect(version: Version, body: &[u8]) -> Result<Disconnect, CodecError> {
    let mut expiry = None;
    let reason = match body {
        [] => 0,
        _ if version == Version::V311 => {
            return Err(CodecError::malformed("DISCONNECT with a body"));
        }
        [reason, rest @ ..] => {
            if !rest.is_empty() {
                expiry = disconnect_properties(rest)?;
            }
            *reason
        }
    };
    // What a client may give (MQTT 5.0 section 3.14.2.1).
    if !matches!(reason, 0 | 4 | 0x80..=0x83 | 0x90 | 0x93..=0x99) {
        return Err(CodecError::new(
            Reason::Protocol,
            "DISCONNECT with a reason code that clients do not give",
        ));
    }
    Ok(Disconnect {
        with_will: reason != 0,
        expiry,
    })
}

fn disconnect_properties(rest: &[u8]) -> Result<Option<u32>, CodecError> {
    const ALLOWED: &[u8] = &[id::SESSION_EXPIRY, id::REASON_STRING, id::USER];
    let (block, after) = properties::split(rest)?;
    let mut expiry = None;
    properties::read(block, ALLOWED, |property| {
        if property.id == id::SESSION_EXPIRY {
            expiry = Some(property.number);
        }
        Ok(())
    })?;
    match after {
        [] => Ok(expiry),
        _ => Err(CodecError::malformed(
            "DISCONNECT is longer than its fields",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribe(version: Version, options: u8, filter: &str) -> Result<Subscribe, CodecError> {
        let mut body = vec![0, 1];
        if version == Version::V5 {
            body.push(0);
        }
        body.extend_from_slice(&[0, filter.len() as u8]);
        body.extend_from_slice(filter.as_bytes());
        body.push(options);
        read_subscribe(version, &body)
    }

    #[test]
    fn options_of_a_subscription_are_read_or_refused() {
        let read = subscribe(Version::V5, 0x2D, "a").unwrap().filters.remove(0);
        assert_eq!((read.qos, read.retain_handling), (1, 2));
        assert!(read.no_local && read.retain_as_published);
        for (version, options) in [
            (Version::V311, 4),
            (Version::V311, 3),
            (Version::V5, 3),
            (Version::V5, 0x40),
            (Version::V5, 0x30),
        ] {
            assert!(subscribe(version, options, "a").is_err(), "{options:#x}");
        }
        assert!(subscribe(Version::V5, 4, "$share/g/a").is_err());
    }

    #[test]
    fn the_first_thinglog_from_counts() {
        let mut block = Vec::new();
        super::super::put_user_property(&mut block, "thinglog-from", b"earliest");
        super::super::put_user_property(&mut block, "thinglog-from", b"tail");
        let mut body = vec![0, 1, block.len() as u8];
        body.extend_from_slice(&block);
        body.extend_from_slice(&[0, 1, b'a', 0]);
        let read = read_subscribe(Version::V5, &body).unwrap();
        assert_eq!(read.from.as_deref(), Some("earliest"));
    }

    #[test]
    fn a_disconnect_may_be_cut_where_it_says_nothing() {
        let plain = Disconnect {
            with_will: false,
            expiry: None,
        };
        for body in [&[][..], &[0], &[0, 0]] {
            assert_eq!(read_disconnect(Version::V5, body), Ok(plain));
        }
        assert!(read_disconnect(Version::V5, &[4]).unwrap().with_will);
        let expiry = read_disconnect(Version::V5, &[0, 5, 17, 0, 0, 0, 9]).unwrap();
        assert_eq!(expiry.expiry, Some(9));
        assert!(read_disconnect(Version::V5, &[0x8B]).is_err(), "a server's");
        assert!(read_disconnect(Version::V311, &[0]).is_err());
    }
}
