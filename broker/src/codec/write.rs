//! Packets that the broker sends, PUBLISH aside.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use rumqttd::protocol::{self as wire, Protocol, v4::V4, v5::V5};

use super::{Reason, Version, properties::id, put_varint, varint_len};

/// What CONNACK tells a client of the broker.
#[derive(Debug)]
pub(crate) struct ConnAck {
    pub(crate) session_present: bool,
    pub(crate) assigned_client_id: Option<Arc<str>>,
    /// Seconds the session will be kept, where that is not what the client asked for.
    pub(crate) expiry: Option<u32>,
    /// Seconds of keep alive, where the client has to keep another than it asked for.
    pub(crate) keep_alive: Option<u16>,
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet: usize,
    pub(crate) topic_alias_max: u16,
    /// Where the client may have responses sent, if it asked.
    pub(crate) response_information: Option<String>,
}

/// Writes a CONNACK that accepts.
pub(crate) fn write_connack(version: Version, ack: &ConnAck, out: &mut BytesMut) {
    let packet = wire::ConnAck {
        session_present: ack.session_present,
        code: wire::ConnectReturnCode::Success,
    };
    // The writers fail on packets of more than 256 MiB only.
    let _ = match version {
        Version::V311 => V4.write(wire::Packet::ConnAck(packet, None), out),
        Version::V5 => {
            let properties = wire::ConnAckProperties {
                session_expiry_interval: ack.expiry,
                receive_max: Some(ack.receive_maximum),
                retain_available: Some(1),
                max_packet_size: Some(u32::try_from(ack.max_packet).unwrap_or(u32::MAX)),
                assigned_client_identifier: ack.assigned_client_id.as_deref().map(str::to_owned),
                topic_alias_max: Some(ack.topic_alias_max),
                wildcard_subscription_available: Some(1),
                subscription_identifiers_available: Some(1),
                shared_subscription_available: Some(1),
                server_keep_alive: ack.keep_alive,
                response_information: ack.response_information.clone(),
                ..wire::ConnAckProperties::default()
            };
            V5.write(wire::Packet::ConnAck(packet, Some(properties)), out)
        }
    };
}

/// A CONNACK that refuses, with the reason in words if the client takes a packet of that size;
/// nothing when it does not take the shortest one (MQTT 5.0 section 3.1.2.11.4).
pub(crate) fn write_refusal(
    version: Version,
    reason: Reason,
    text: &str,
    max_packet: usize,
    out: &mut BytesMut,
) {
    match version {
        Version::V311 => {
            let code = match reason {
                Reason::UnsupportedVersion => 1,
                Reason::ClientIdInvalid => 2,
                Reason::BadCredentials => 4,
                Reason::NotAuthorized => 5,
                Reason::QuotaExceeded | Reason::ShuttingDown => 3,
                // No code fits: the connection ends without CONNACK (section 3.2.2.3).
                _ => return,
            };
            out.put_slice(&[0x20, 2, 0, code]);
        }
        Version::V5 => put_explained(out, 0x20, &[0, reason as u8], text, max_packet),
    }
}

/// Bytes of a SUBACK or UNSUBACK with so many codes.
pub(crate) fn codes_len(version: Version, count: usize) -> usize {
    let remaining = match version {
        Version::V311 => 2 + count,
        Version::V5 => 3 + count,
    };
    1 + varint_len(remaining) + remaining
}

pub(crate) fn write_suback(version: Version, pkid: u16, codes: &[u8], out: &mut BytesMut) {
    write_codes(version, 0x90, pkid, codes, out);
}

pub(crate) fn write_unsuback(version: Version, pkid: u16, codes: &[u8], out: &mut BytesMut) {
    let codes = if version == Version::V311 { &[] } else { codes };
    write_codes(version, 0xB0, pkid, codes, out);
}

fn write_codes(version: Version, kind: u8, pkid: u16, codes: &[u8], out: &mut BytesMut) {
    let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    put_packet(out, kind, &[&pkid.to_be_bytes(), properties, codes]);
}

pub(crate) fn write_pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xD0, 0]);
}

/// DISCONNECT with its reason, in words too if the client takes a packet of that size; version 5 only.
pub(crate) fn write_disconnect(reason: Reason, text: &str, max_packet: usize, out: &mut BytesMut) {
    put_explained(out, 0xE0, &[reason as u8], text, max_packet);
}

fn put_explained(out: &mut BytesMut, first: u8, head: &[u8], text: &str, max_packet: usize) {
    let explained = reason_block(text);
    for block in [&explained[..], &[0]] {
        let remaining = head.len() + block.len();
        if 1 + varint_len(remaining) + remaining <= max_packet {
            return put_packet(out, first, &[head, block]);
        }
    }
}

/// A property block with a reason string.
pub(super) fn reason_block(text: &str) -> Vec<u8> {
    let mut properties = BytesMut::new();
    if !text.is_empty() {
        properties.put_u8(id::REASON_STRING);
        properties.put_u16(text.len() as u16);
        properties.put_slice(text.as_bytes());
    }
    properties_block(&properties)
}

fn properties_block(properties: &[u8]) -> Vec<u8> {
    let mut block = BytesMut::with_capacity(4 + properties.len());
    put_varint(&mut block, properties.len());
    block.put_slice(properties);
    block.to_vec()
}

pub(super) fn put_packet(out: &mut BytesMut, first: u8, parts: &[&[u8]]) {
    out.put_u8(first);
    put_varint(out, parts.iter().map(|part| part.len()).sum());
    for part in parts {
        out.put_slice(part);
    }
}
