//! What the journal holds of one publish. Receive time and offset are the journal's own.
//!
//! ```text
//! flags      u8   bits 0-1 QoS, bit 2 expiry present, bit 3 principal present, bit 4 IPv6 (else IPv4),
//!                 bit 5 packet present, bit 6 release: only the packet follows, nothing else
//! packet     u64 session and u16 packet id of a QoS 2 publish, when present
//! client     u64  hash of the publishing client id, for No Local
//! address    4 or 16 bytes
//! expiry     u64  ns since the epoch, when present
//! principal  u16 length and UTF-8, when present
//! topic      u16 length and UTF-8
//! properties u32 length and encoded MQTT 5 properties to forward
//! payload    the rest
//! ```
//! Integers are big-endian. A record with bit 6 is no publish: it says that a packet id of QoS 2 was
//! released.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thinglog_schemas::hash::fnv1a;

const EXPIRY: u8 = 4;
const PRINCIPAL: u8 = 8;
const IPV6: u8 = 16;
const PACKET: u8 = 32;
const RELEASE: u8 = 64;

/// A packet id of QoS 2 and the persistent session it belongs to: recovery rebuilds from these what
/// was received and not yet released (MQTT 5.0 section 4.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Packet {
    pub(crate) session: u64,
    pub(crate) pkid: u16,
}

/// What a record does to the packet ids of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Received(Packet),
    Released(Packet),
}

impl Packet {
    /// Appends the record of its release.
    pub(crate) fn encode_release(self, out: &mut Vec<u8>) {
        out.push(RELEASE);
        self.put(out);
    }

    fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.session.to_be_bytes());
        out.extend_from_slice(&self.pkid.to_be_bytes());
    }

    fn take(rest: &mut &[u8]) -> Option<Packet> {
        Some(Packet {
            session: u64::from_be_bytes(take(rest)?),
            pkid: u16::from_be_bytes(take(rest)?),
        })
    }
}

impl Step {
    /// What a record does; `None` for those of QoS 0 and 1.
    pub(crate) fn of(bytes: &[u8]) -> Option<Step> {
        let (flags, mut rest) = bytes.split_first()?;
        match flags & (PACKET | RELEASE) {
            RELEASE => Packet::take(&mut rest).map(Step::Released),
            PACKET => Packet::take(&mut rest).map(Step::Received),
            _ => None,
        }
    }
}

/// The address of what no client's connection published.
pub(crate) const NO_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// One durable publish, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) qos: u8,
    pub(crate) packet: Option<Packet>,
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
            | if self.packet.is_some() { PACKET } else { 0 }
            | if self.address.is_ipv6() { IPV6 } else { 0 };
        out.reserve(64 + self.topic.len() + self.properties.len() + self.payload.len());
        out.push(flags);
        if let Some(packet) = self.packet {
            packet.put(out);
        }
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

    /// Reads a publish back; `None` for bytes that are none.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Record<'a>> {
        let mut rest = bytes;
        let [flags] = take(&mut rest)?;
        if flags & RELEASE != 0 {
            return None;
        }
        let packet = match flags & PACKET {
            0 => None,
            _ => Some(Packet::take(&mut rest)?),
        };
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
            packet,
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

/// Appends u16 length and UTF-8.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

/// Takes what [`put_text`] appended.
pub(crate) fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
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

    #[test]
    fn a_release_is_no_publish() {
        let packet = Packet {
            session: 7,
            pkid: 9,
        };
        let mut bytes = Vec::new();
        packet.encode_release(&mut bytes);
        assert_eq!(Step::of(&bytes), Some(Step::Released(packet)));
        assert_eq!(Record::decode(&bytes), None);
    }

    proptest! {
        #[test]
        fn a_record_is_read_back_as_written(
            qos in 0u8..3, packet: Option<(u64, u16)>, client: u64, v6: bool, expires: Option<u64>, principal in proptest::option::of(".{0,20}"),
            topic in ".{0,40}", properties: Vec<u8>, payload: Vec<u8>,
        ) {
            let address = if v6 { IpAddr::from([7u16; 8]) } else { IpAddr::from([127, 0, 0, 1]) };
            let packet = packet.map(|(session, pkid)| Packet { session, pkid });
            let record = Record { qos, packet, client, address, expires, principal: principal.as_deref(), topic: &topic, properties: &properties, payload: &payload };
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(Record::decode(&bytes), Some(record));
            prop_assert_eq!(Step::of(&bytes), packet.map(Step::Received));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>) {
            let _ = (Record::decode(&bytes), Step::of(&bytes));
        }
    }
}
