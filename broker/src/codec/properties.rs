//! Property blocks of MQTT 5.0 (section 2.2.2): one walk that checks what holds for every property,
//! so that a packet's reader sees only those it may have, once each, whole and of the right type.

use super::{CodecError, read_bytes, read_varint};

/// Property identifiers that clients send (MQTT 5.0 table 2-4).
pub(super) mod id {
    pub(crate) const FORMAT: u8 = 1;
    pub(crate) const EXPIRY: u8 = 2;
    pub(crate) const CONTENT_TYPE: u8 = 3;
    pub(crate) const RESPONSE_TOPIC: u8 = 8;
    pub(crate) const CORRELATION: u8 = 9;
    pub(crate) const SUBSCRIPTION_ID: u8 = 11;
    pub(crate) const SESSION_EXPIRY: u8 = 17;
    pub(crate) const AUTH_METHOD: u8 = 21;
    pub(crate) const AUTH_DATA: u8 = 22;
    pub(crate) const REQUEST_PROBLEM: u8 = 23;
    pub(crate) const WILL_DELAY: u8 = 24;
    pub(crate) const REQUEST_RESPONSE: u8 = 25;
    pub(crate) const REASON_STRING: u8 = 31;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 33;
    pub(crate) const ALIAS_MAXIMUM: u8 = 34;
    pub(crate) const ALIAS: u8 = 35;
    pub(crate) const USER: u8 = 38;
    pub(crate) const MAX_PACKET: u8 = 39;
}

/// One property.
#[derive(Clone, Copy, Debug)]
pub(super) struct Property<'a> {
    pub(super) id: u8,
    /// All of it, identifier included.
    pub(super) raw: &'a [u8],
    /// The value of a number of any width.
    pub(super) number: u32,
    /// The value of a string or of binary data; the name of a user property.
    pub(super) bytes: &'a [u8],
    /// The value of a user property.
    pub(super) value: &'a [u8],
}

/// UTF-8 as MQTT wants it: well-formed, which excludes surrogates, and without U+0000 (section 1.5.4).
pub(super) fn text(bytes: &[u8]) -> Result<&str, CodecError> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !bytes.contains(&0) => Ok(text),
        Ok(_) => Err(CodecError::malformed("a string holds U+0000")),
        Err(_) => Err(CodecError::malformed("a string is not UTF-8")),
    }
}

/// The property block at the front of `body`, and what follows it.
pub(super) fn split(body: &[u8]) -> Result<(&[u8], &[u8]), CodecError> {
    let (length, used) =
        read_varint(body)?.ok_or(CodecError::malformed("the property length is cut short"))?;
    if used != super::varint_len(length) {
        return Err(CodecError::malformed(
            "the property length is longer than it needs to be",
        ));
    }
    body[used..]
        .split_at_checked(length)
        .ok_or(CodecError::malformed("the properties cross their packet"))
}

/// Gives each property of `block` to `take`. One that is not in `allowed` is malformed, one that
/// comes twice a protocol error, but for user properties (section 2.2.2.2).
pub(super) fn read<'a>(
    mut block: &'a [u8],
    allowed: &[u8],
    mut take: impl FnMut(Property<'a>) -> Result<(), CodecError>,
) -> Result<(), CodecError> {
    let mut seen = 0u64;
    while let [id, rest @ ..] = block {
        if !allowed.contains(id) {
            return Err(CodecError::malformed(
                "a property that does not belong here",
            ));
        }
        let (length, mut property) = parse(*id, rest)?;
        if *id != id::USER && seen & (1 << id) != 0 {
            return Err(CodecError::protocol("a property comes twice"));
        }
        seen |= 1 << id;
        let (raw, next) = block
            .split_at_checked(1 + length)
            .ok_or(CodecError::malformed("a property crosses its packet"))?;
        property.raw = raw;
        take(property)?;
        block = next;
    }
    Ok(())
}

/// Reads a property's value from the front of `at`: its length and what it says.
fn parse(id: u8, at: &[u8]) -> Result<(usize, Property<'_>), CodecError> {
    let short = CodecError::malformed("a property crosses its packet");
    let mut property = Property {
        id,
        raw: &[],
        number: 0,
        bytes: &[],
        value: &[],
    };
    let width = match id {
        id::FORMAT | id::REQUEST_PROBLEM | id::REQUEST_RESPONSE => 1,
        id::RECEIVE_MAXIMUM | id::ALIAS_MAXIMUM | id::ALIAS => 2,
        id::EXPIRY | id::SESSION_EXPIRY | id::WILL_DELAY | id::MAX_PACKET => 4,
        id::SUBSCRIPTION_ID => {
            let (number, used) = read_varint(at)?.ok_or(short)?;
            if number == 0 {
                return Err(CodecError::protocol("subscription identifier 0"));
            }
            if used != super::varint_len(number) {
                return Err(CodecError::malformed(
                    "a number takes more bytes than it needs",
                ));
            }
            property.number = number as u32;
            return Ok((used, property));
        }
        id::CORRELATION | id::AUTH_DATA => {
            (property.bytes, _) = read_bytes(at).ok_or(short)?;
            return Ok((2 + property.bytes.len(), property));
        }
        id::USER => {
            let rest;
            (property.bytes, rest) = read_bytes(at).ok_or(short)?;
            (property.value, _) = read_bytes(rest).ok_or(short)?;
            text(property.bytes)?;
            text(property.value)?;
            let length = 4 + property.bytes.len() + property.value.len();
            return Ok((length, property));
        }
        _ => {
            (property.bytes, _) = read_bytes(at).ok_or(short)?;
            text(property.bytes)?;
            return Ok((2 + property.bytes.len(), property));
        }
    };
    let digits = at.get(..width).ok_or(short)?;
    property.number = digits
        .iter()
        .fold(0, |number, byte| number << 8 | u32::from(*byte));
    let is_flag = width == 1;
    if is_flag && property.number > 1 {
        return Err(CodecError::protocol("a property is neither 0 nor 1"));
    }
    let must_not_be_zero = matches!(id, id::RECEIVE_MAXIMUM | id::MAX_PACKET);
    if must_not_be_zero && property.number == 0 {
        return Err(CodecError::protocol("a property is 0 that must not be"));
    }
    Ok((width, property))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Reason;

    fn reason(block: &[u8], allowed: &[u8]) -> Reason {
        read(block, allowed, |_| Ok(())).unwrap_err().reason
    }

    #[test]
    fn a_property_that_does_not_belong_is_malformed_and_a_repeated_one_a_protocol_error() {
        assert_eq!(reason(&[id::ALIAS, 0, 1], &[id::EXPIRY]), Reason::Malformed);
        assert_eq!(reason(&[99], &[id::EXPIRY]), Reason::Malformed);
        let twice = [id::ALIAS, 0, 1, id::ALIAS, 0, 1];
        assert_eq!(reason(&twice, &[id::ALIAS]), Reason::Protocol);
    }

    #[test]
    fn a_cut_property_is_malformed() {
        let whole = [id::USER, 0, 1, b'a', 0, 2, b'b', b'c'];
        assert!(read(&whole, &[id::USER], |_| Ok(())).is_ok());
        for cut in 1..whole.len() {
            assert_eq!(
                reason(&whole[..cut], &[id::USER]),
                Reason::Malformed,
                "{cut}"
            );
        }
    }

    #[test]
    fn numbers_and_strings_are_held_to_their_ranges() {
        assert_eq!(reason(&[id::FORMAT, 2], &[id::FORMAT]), Reason::Protocol);
        let zero = [id::RECEIVE_MAXIMUM, 0, 0];
        assert_eq!(reason(&zero, &[id::RECEIVE_MAXIMUM]), Reason::Protocol);
        for bad in [&[0u8][..], &[0xED, 0xA0, 0x80], &[0xFF]] {
            let mut block = vec![id::CONTENT_TYPE, 0, bad.len() as u8];
            block.extend_from_slice(bad);
            assert_eq!(reason(&block, &[id::CONTENT_TYPE]), Reason::Malformed);
        }
    }
}
