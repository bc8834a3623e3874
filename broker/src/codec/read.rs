//! Packets that a client sends, PUBLISH aside: read by rumqttd's codec after the checks that it
//! leaves out.

use bytes::{Bytes, BytesMut};
use rumqttd::protocol::{self as wire, Protocol, v4::V4, v5::V5};

use super::{CodecError, Frame, Reason, Version, publish::put_user_property, read_bytes};

/// CONNECT, either version.
#[derive(Debug)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) clean_start: bool,
    /// Seconds; 0 is none.
    pub(crate) keep_alive: u16,
    /// Seconds the session outlives its connection; `u32::MAX` is for ever.
    pub(crate) expiry: u32,
    pub(crate) receive_maximum: u16,
    /// Largest packet the client takes, bytes.
    pub(crate) max_packet: usize,
    pub(crate) will: Option<Will>,
    pub(crate) enhanced_auth: bool,
}

/// A last will as CONNECT carries it.
#[derive(Clone, Debug)]
pub(crate) struct Will {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// Seconds after the connection ended.
    pub(crate) delay: u32,
    pub(crate) expiry: Option<u32>,
    /// Forwarded properties, encoded.
    pub(crate) properties: Vec<u8>,
}

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
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Disconnect {
    /// The will is to be sent all the same: any reason but 0x00 (MQTT 5.0 section 3.14.4).
    pub(crate) with_will: bool,
    pub(crate) expiry: Option<u32>,
}

fn read(version: Version, packet: &[u8]) -> Result<wire::Packet, CodecError> {
    let mut bytes = BytesMut::from(packet);
    let max = packet.len();
    match version {
        Version::V311 => V4.read_mut(&mut bytes, max),
        Version::V5 => V5.read_mut(&mut bytes, max),
    }
    .map_err(|error| match error {
        wire::Error::PacketIdZero => CodecError::protocol("packet id 0"),
        wire::Error::EmptySubscription => CodecError::protocol("no filter"),
        wire::Error::SubscriptionIdZero => CodecError::protocol("subscription identifier 0"),
        _ => CodecError::malformed("packet is malformed"),
    })
}

/// Which version a CONNECT speaks, from its protocol name and level.
fn connect_version(body: &[u8]) -> Result<Version, CodecError> {
    match read_bytes(body) {
        Some((b"MQTT", [4, flags, ..])) if flags & 1 == 0 => Ok(Version::V311),
        Some((b"MQTT", [5, flags, ..])) if flags & 1 == 0 => Ok(Version::V5),
        Some((b"MQTT", [4 | 5, ..])) => {
            Err(CodecError::malformed("reserved flag of CONNECT is set"))
        }
        Some((b"MQTT" | b"MQIsdp", [_, ..])) => Err(CodecError::new(
            Reason::UnsupportedVersion,
            "protocol level is neither 4 nor 5",
        )),
        _ => Err(CodecError::malformed("not an MQTT CONNECT")),
    }
}

/// Reads a whole CONNECT packet.
pub(crate) fn read_connect(frame: &Frame, packet: &[u8]) -> Result<Connect, CodecError> {
    let version = connect_version(&packet[frame.header..frame.total])?;
    let wire::Packet::Connect(connect, properties, will, will_properties, _login) =
        read(version, &packet[..frame.total])?
    else {
        return Err(CodecError::protocol("expected CONNECT"));
    };
    let clean = connect.clean_session;
    let expiry = match version {
        Version::V311 if clean => 0,
        Version::V311 => u32::MAX,
        Version::V5 => properties
            .as_ref()
            .and_then(|p| p.session_expiry_interval)
            .unwrap_or(0),
    };
    let receive_maximum = properties
        .as_ref()
        .and_then(|p| p.receive_maximum)
        .unwrap_or(u16::MAX);
    let max_packet = properties
        .as_ref()
        .and_then(|p| p.max_packet_size)
        .unwrap_or(u32::MAX);
    if receive_maximum == 0 || max_packet == 0 {
        return Err(CodecError::protocol(
            "CONNECT with Receive Maximum or Maximum Packet Size 0",
        ));
    }
    Ok(Connect {
        version,
        client_id: connect.client_id,
        clean_start: clean,
        keep_alive: connect.keep_alive,
        expiry,
        receive_maximum,
        max_packet: max_packet as usize,
        will: will
            .map(|will| read_will(will, will_properties))
            .transpose()?,
        enhanced_auth: properties.is_some_and(|p| p.authentication_method.is_some()),
    })
}

fn read_will(
    will: wire::LastWill,
    properties: Option<wire::LastWillProperties>,
) -> Result<Will, CodecError> {
    let topic = String::from_utf8(will.topic.to_vec())
        .map_err(|_| CodecError::malformed("will topic is not UTF-8"))?;
    if topic.is_empty() || topic.bytes().any(|b| matches!(b, 0 | b'+' | b'#')) {
        return Err(CodecError::new(
            Reason::TopicNameInvalid,
            "will topic is empty or holds a wildcard or NUL",
        ));
    }
    let mut forward = Vec::new();
    let (mut delay, mut expiry) = (0, None);
    if let Some(properties) = properties {
        delay = properties.delay_interval.unwrap_or(0);
        expiry = properties.message_expiry_interval;
        let mut text = |id: u8, value: &[u8]| {
            forward.push(id);
            forward.extend_from_slice(&(value.len() as u16).to_be_bytes());
            forward.extend_from_slice(value);
        };
        if let Some(value) = &properties.content_type {
            text(3, value.as_bytes());
        }
        if let Some(value) = &properties.response_topic {
            text(8, value.as_bytes());
        }
        if let Some(value) = &properties.correlation_data {
            text(9, value);
        }
        if let Some(value) = properties.payload_format_indicator {
            forward.extend_from_slice(&[1, value]);
        }
        for (key, value) in properties
            .user_properties
            .iter()
            .filter(|(key, _)| !key.starts_with("thinglog-"))
        {
            put_user_property(&mut forward, key, value.as_bytes());
        }
    }
    Ok(Will {
        topic,
        payload: will.message,
        qos: will.qos as u8,
        retain: will.retain,
        delay,
        expiry,
        properties: forward,
    })
}

/// Reads a whole SUBSCRIBE packet.
pub(crate) fn read_subscribe(version: Version, packet: &[u8]) -> Result<Subscribe, CodecError> {
    let wire::Packet::Subscribe(subscribe, properties) = read(version, packet)? else {
        return Err(CodecError::protocol("expected SUBSCRIBE"));
    };
    if subscribe.pkid == 0 {
        return Err(CodecError::protocol("SUBSCRIBE with packet id 0"));
    }
    let (id, from) = properties.map_or((None, None), |properties| {
        let from = properties
            .user_properties
            .into_iter()
            .find(|(key, _)| key == "thinglog-from")
            .map(|(_, value)| value);
        (properties.id, from)
    });
    if id == Some(0) {
        return Err(CodecError::protocol("subscription identifier 0"));
    }
    let filters = subscribe.filters.into_iter().map(|filter| Filter {
        path: filter.path,
        qos: filter.qos as u8,
        no_local: filter.nolocal,
        retain_as_published: filter.preserve_retain,
        retain_handling: match filter.retain_forward_rule {
            wire::RetainForwardRule::OnEverySubscribe => 0,
            wire::RetainForwardRule::OnNewSubscribe => 1,
            wire::RetainForwardRule::Never => 2,
        },
    });
    Ok(Subscribe {
        pkid: subscribe.pkid,
        id: id.map(|id| id as u32),
        from,
        filters: filters.collect(),
    })
}

/// Reads a whole UNSUBSCRIBE packet.
pub(crate) fn read_unsubscribe(version: Version, packet: &[u8]) -> Result<Unsubscribe, CodecError> {
    match read(version, packet)? {
        wire::Packet::Unsubscribe(packet, _) if packet.pkid != 0 && !packet.filters.is_empty() => {
            Ok(Unsubscribe {
                pkid: packet.pkid,
                filters: packet.filters,
            })
        }
        _ => Err(CodecError::protocol(
            "UNSUBSCRIBE without packet id or filter",
        )),
    }
}

/// Reads a whole DISCONNECT packet.
pub(crate) fn read_disconnect(
    version: Version,
    frame: &Frame,
    packet: &[u8],
) -> Result<Disconnect, CodecError> {
    if frame.total == frame.header {
        return Ok(Disconnect {
            with_will: false,
            expiry: None,
        });
    }
    if version == Version::V311 {
        return Err(CodecError::malformed("DISCONNECT with a body"));
    }
    let reason = packet[frame.header];
    if frame.total == frame.header + 1 {
        return Ok(Disconnect {
            with_will: reason != 0,
            expiry: None,
        });
    }
    let wire::Packet::Disconnect(_, properties) = read(version, &packet[..frame.total])? else {
        return Err(CodecError::protocol("expected DISCONNECT"));
    };
    Ok(Disconnect {
        with_will: reason != 0,
        expiry: properties.and_then(|p| p.session_expiry_interval),
    })
}

/// Reads packet id and whether it is a success from the body of a PUBACK.
pub(crate) fn read_puback(body: &[u8]) -> Result<(u16, bool), CodecError> {
    match body {
        [high, low] => Ok((u16::from_be_bytes([*high, *low]), true)),
        [high, low, reason, ..] => Ok((u16::from_be_bytes([*high, *low]), *reason < 0x80)),
        _ => Err(CodecError::malformed("PUBACK without packet id")),
    }
}
