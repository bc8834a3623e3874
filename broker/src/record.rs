//! What the journal holds of one publish. Receive time and offset are the journal's own.
//!
//! ```text
//! flags      u8   bits 0-1 QoS, bit 2 expiry present, bit 3 principal present, bit 4 IPv6 (else IPv4)
//! client     u64  hash of the publishing client id, for No Local
//! address    4 or 16 bytes
//! expiry     u64  ns since the epoch, when present
//! principal  u16 length and UTF-8, when present
//! topic      u16 length and UTF-8
//! properties u32 length and encoded MQTT 5 properties to forward
//! payload    the rest
//! ```
//! Integers are big-endian.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thinglog_schemas::hash::fnv1a;

const EXPIRY: u8 = 4;
const PRINCIPAL: u8 = 8;
const IPV6: u8 = 16;

/// The address of what no client's connection published.
pub(crate) const NO_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// One durable publish, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) qos: u8,
    pub(crate) client: u64,
    pub(crate) address: IpAddr,
    /// ns since the epoch after which nobody wants it.
    pub(crate) expires: Option<u64>,
    pub(crate) principal: Option<&'a str>,
    pub(crate) topic: &'a str,
    pub(crate) properties: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// Appends the encoded record.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let flags = self.qos
            | if self.expires.is_some() { EXPIRY } else { 0 }
            | if self.principal.is_some() {
                PRINCIPAL
            } else {
                0
            }
            | if self.address.is_ipv6() { IPV6 } else { 0 };
        out.reserve(64 + self.topic.len() + self.properties.len() + self.payload.len());
        out.push(flags);
        out.extend_from_slice(&self.client.to_be_bytes());
        match self.address {
            IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
        }
        if let Some(expires) = self.expires {
            out.extend_from_slice(&expires.to_be_bytes());
        }
        if let Some(principal) = self.principal {
            put_text(out, principal);
        }
        put_text(out, self.topic);
        out.extend_from_slice(&(self.properties.len() as u32).to_be_bytes());
        out.extend_from_slice(self.properties);
        out.extend_from_slice(self.payload);
    }

    /// Reads a record back; `None` for bytes that are none.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Record<'a>> {
        let mut rest = bytes;
        let [flags] = take(&mut rest)?;
        let client = u64::from_be_bytes(take(&mut rest)?);
        let address = if flags & IPV6 == 0 {
            IpAddr::V4(Ipv4Addr::from(take::<4>(&mut rest)?))
        } else {
            IpAddr::V6(Ipv6Addr::from(take::<16>(&mut rest)?))
        };
        let expires = if flags & EXPIRY != 0 {
            Some(u64::from_be_bytes(take(&mut rest)?))
        } else {
            None
        };
        let principal = if flags & PRINCIPAL != 0 {
            Some(take_text(&mut rest)?)
        } else {
            None
        };
        let topic = take_text(&mut rest)?;
        let length = u32::from_be_bytes(take(&mut rest)?) as usize;
        let (properties, payload) = rest.split_at_checked(length)?;
        Some(Record {
            qos: flags & 3,
            client,
            address,
            expires,
            principal,
            topic,
            properties,
            payload,
        })
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::from(u16::from_be_bytes(take(rest)?));
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    std::str::from_utf8(text).ok()
}

/// Stands for a client id in a record: the same across restarts, which the journal needs.
pub(crate) fn client_hash(client_id: &str) -> u64 {
    fnv1a(client_id.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_is_read_back_as_written(
            qos in 0u8..3, client: u64, v6: bool, expires: Option<u64>, principal in proptest::option::of(".{0,20}"),
            topic in ".{0,40}", properties: Vec<u8>, payload: Vec<u8>,
        ) {
            let address = if v6 { IpAddr::from([7u16; 8]) } else { IpAddr::from([127, 0, 0, 1]) };
            let record = Record { qos, client, address, expires, principal: principal.as_deref(), topic: &topic, properties: &properties, payload: &payload };
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(Record::decode(&bytes), Some(record));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>) {
            let _ = Record::decode(&bytes);
        }
    }
}
