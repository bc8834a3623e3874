//! Packets that the broker sends, PUBLISH aside.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::{Reason, Version, put_varint};

/// What CONNACK tells a client of the broker.
#[derive(Debug)]
pub(crate) struct ConnAck {
    pub(crate) session_present: bool,
    pub(crate) assigned_client_id: Option<Arc<str>>,
    pub(crate) expiry: Option<u32>,
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet: usize,
    pub(crate) topic_alias_max: u16,
}

pub(crate) fn write_connack(version: Version, ack: &ConnAck, out: &mut BytesMut) {
    match version {
        Version::V311 => out.put_slice(&[0x20, 2, u8::from(ack.session_present), 0]),
        Version::V5 => {
            let mut properties = BytesMut::new();
            properties.put_u8(33);
            properties.put_u16(ack.receive_maximum);
            properties.put_slice(&[36, 1]); // Maximum QoS
            properties.put_u8(39);
            properties.put_u32(ack.max_packet as u32);
            properties.put_u8(34);
            properties.put_u16(ack.topic_alias_max);
            properties.put_slice(&[42, 0]); // no shared subscriptions
            if let Some(expiry) = ack.expiry {
                properties.put_u8(17);
                properties.put_u32(expiry);
            }
            if let Some(id) = &ack.assigned_client_id {
                properties.put_u8(18);
                properties.put_u16(id.len() as u16);
                properties.put_slice(id.as_bytes());
            }
            put_packet(
                out,
                0x20,
                &[
                    &[u8::from(ack.session_present), 0],
                    &properties_block(&properties),
                ],
            );
        }
    }
}

/// A CONNACK that refuses.
pub(crate) fn write_refusal(version: Version, reason: Reason, text: &str, out: &mut BytesMut) {
    match version {
        Version::V311 => {
            let code = match reason {
                Reason::UnsupportedVersion => 1,
                Reason::ClientIdInvalid => 2,
                Reason::NotAuthorized => 5,
                _ => 3,
            };
            out.put_slice(&[0x20, 2, 0, code]);
        }
        Version::V5 => put_packet(out, 0x20, &[&[0, reason as u8], &reason_block(text)]),
    }
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

/// PUBACK; a refusal can be told in version 5 only.
pub(crate) fn write_puback(pkid: u16, reason: Reason, out: &mut BytesMut) {
    let [high, low] = pkid.to_be_bytes();
    match reason {
        Reason::Success => out.put_slice(&[0x40, 2, high, low]),
        _ => out.put_slice(&[0x40, 3, high, low, reason as u8]),
    }
}

pub(crate) fn write_pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xD0, 0]);
}

/// DISCONNECT with its reason; version 5 only.
pub(crate) fn write_disconnect(reason: Reason, text: &str, out: &mut BytesMut) {
    put_packet(out, 0xE0, &[&[reason as u8], &reason_block(text)]);
}

fn reason_block(text: &str) -> Vec<u8> {
    let mut properties = BytesMut::new();
    if !text.is_empty() {
        properties.put_u8(31);
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
