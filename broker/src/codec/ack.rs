//! PUBACK, PUBREC, PUBREL and PUBCOMP: a packet id, in version 5 a reason code and properties, both
//! left out when they say nothing (MQTT 5.0 sections 3.4 to 3.7).

use bytes::BytesMut;

use super::{
    CodecError, Frame, Reason, Version, kind,
    properties::{self, id},
    write::{put_packet, reason_block},
};

/// An acknowledgement from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) pkid: u16,
    /// `Success` when the packet says nothing, and always in 3.1.1.
    pub(crate) reason: Reason,
}

/// Reads an acknowledgement of any of the four kinds; `body` is what follows the fixed header.
pub(crate) fn read_ack(version: Version, frame: &Frame, body: &[u8]) -> Result<Ack, CodecError> {
    let [high, low, rest @ ..] = body else {
        return Err(CodecError::malformed("acknowledgement without packet id"));
    };
    let pkid = u16::from_be_bytes([*high, *low]);
    if pkid == 0 {
        return Err(CodecError::protocol("acknowledgement of packet id 0"));
    }
    let reason = match rest {
        [] => Reason::Success,
        _ if version == Version::V311 => {
            return Err(CodecError::malformed("acknowledgement longer than 2 bytes"));
        }
        [code, rest @ ..] => {
            if !rest.is_empty() {
                let (block, after) = properties::split(rest)?;
                properties::read(block, &[id::REASON_STRING, id::USER], |_| Ok(()))?;
                if !after.is_empty() {
                    return Err(CodecError::malformed(
                        "acknowledgement is longer than its fields",
                    ));
                }
            }
            ack_reason(frame.kind, *code).ok_or(CodecError::malformed(
                "acknowledgement with an unknown reason code",
            ))?
        }
    };
    Ok(Ack { pkid, reason })
}

/// The reason codes that a client may give (MQTT 5.0 sections 3.4.2.1 and 3.6.2.1).
fn ack_reason(packet: u8, code: u8) -> Option<Reason> {
    const RECEIVED: &[Reason] = &[
        Reason::NoMatchingSubscribers,
        Reason::Unspecified,
        Reason::ImplementationSpecific,
        Reason::NotAuthorized,
        Reason::TopicNameInvalid,
        Reason::PacketIdInUse,
        Reason::QuotaExceeded,
        Reason::PayloadFormatInvalid,
    ];
    let known = match packet {
        kind::PUBACK | kind::PUBREC => RECEIVED,
        _ => &[Reason::PacketIdNotFound],
    };
    std::iter::once(&Reason::Success)
        .chain(known)
        .copied()
        .find(|reason| *reason as u8 == code)
}

/// Writes a PUBACK. An empty `text` says nothing beside the reason; 3.1.1 knows neither.
pub(crate) fn write_puback(
    version: Version,
    pkid: u16,
    reason: Reason,
    text: &str,
    out: &mut BytesMut,
) {
    write_ack(0x40, version, pkid, reason, text, out);
}

/// Writes a PUBREC, like [`write_puback`].
pub(crate) fn write_pubrec(
    version: Version,
    pkid: u16,
    reason: Reason,
    text: &str,
    out: &mut BytesMut,
) {
    write_ack(0x50, version, pkid, reason, text, out);
}

/// Writes a PUBREL, like [`write_puback`].
pub(crate) fn write_pubrel(version: Version, pkid: u16, reason: Reason, out: &mut BytesMut) {
    write_ack(0x62, version, pkid, reason, "", out);
}

/// Writes a PUBCOMP, like [`write_puback`].
pub(crate) fn write_pubcomp(version: Version, pkid: u16, reason: Reason, out: &mut BytesMut) {
    write_ack(0x70, version, pkid, reason, "", out);
}

fn write_ack(
    first: u8,
    version: Version,
    pkid: u16,
    reason: Reason,
    text: &str,
    out: &mut BytesMut,
) {
    let id = pkid.to_be_bytes();
    match (version, reason) {
        (Version::V311, _) | (Version::V5, Reason::Success) => put_packet(out, first, &[&id]),
        _ if text.is_empty() => put_packet(out, first, &[&id, &[reason as u8]]),
        _ => put_packet(out, first, &[&id, &[reason as u8], &reason_block(text)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(version: Version, packet: &[u8]) -> Result<Ack, CodecError> {
        let frame = super::super::frame(packet, 1024)?.unwrap();
        read_ack(version, &frame, &packet[frame.header..])
    }

    #[test]
    fn every_form_of_an_acknowledgement_is_read() {
        let refused = Ack {
            pkid: 7,
            reason: Reason::QuotaExceeded,
        };
        assert_eq!(read(Version::V5, &[0x40, 3, 0, 7, 0x97]), Ok(refused));
        assert_eq!(read(Version::V5, &[0x50, 4, 0, 7, 0x97, 0]), Ok(refused));
        let told = [0x40, 9, 0, 7, 0x97, 5, 31, 0, 2, b'n', b'o'];
        assert_eq!(read(Version::V5, &told), Ok(refused));
        for first in [0x40, 0x50, 0x62, 0x70] {
            for version in [Version::V311, Version::V5] {
                let ack = read(version, &[first, 2, 0, 7]).unwrap();
                assert_eq!((ack.pkid, ack.reason), (7, Reason::Success));
            }
        }
    }

    #[test]
    fn what_no_acknowledgement_may_be_is_refused() {
        for bad in [
            &[0x40, 1, 7][..],             // cut
            &[0x40, 2, 0, 0],              // packet id 0
            &[0x62, 3, 0, 7, 0x97],        // a reason of PUBREC
            &[0x40, 3, 0, 7, 0x92],        // a reason of PUBREL
            &[0x40, 5, 0, 7, 0, 0, 0],     // beyond the properties
            &[0x60, 2, 0, 7],              // flags of PUBREL
            &[0x40, 6, 0, 7, 0, 2, 35, 0], // a property of PUBLISH
        ] {
            assert!(read(Version::V5, bad).is_err(), "{bad:02x?}");
        }
        assert!(read(Version::V311, &[0x40, 3, 0, 7, 0]).is_err());
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["", "no room"] {
            let mut out = BytesMut::new();
            write_pubrec(Version::V5, 9, Reason::QuotaExceeded, text, &mut out);
            let ack = read(Version::V5, &out).unwrap();
            assert_eq!((ack.pkid, ack.reason), (9, Reason::QuotaExceeded));
        }
    }
}
