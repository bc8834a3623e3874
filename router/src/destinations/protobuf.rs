//! Protobuf fields written straight into a body, without messages in between: an event's strings are
//! copied once. The wire format is of protobuf.dev, "Encoding".

/// Wire types.
const VARINT: u64 = 0;
#[cfg(feature = "otlp")]
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;

/// Appends a variable-length integer.
pub(crate) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn key(field: u32, wire_type: u64, out: &mut Vec<u8>) {
    varint(u64::from(field) << 3 | wire_type, out);
}

/// A field of an integer type or an enumeration.
pub(crate) fn number(field: u32, value: u64, out: &mut Vec<u8>) {
    key(field, VARINT, out);
    varint(value, out);
}

/// A field of type `fixed64` or `double`.
#[cfg(feature = "otlp")]
pub(crate) fn fixed64(field: u32, value: u64, out: &mut Vec<u8>) {
    key(field, FIXED64, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A field of type `string` or `bytes`, or a message that is encoded already.
pub(crate) fn bytes(field: u32, value: &[u8], out: &mut Vec<u8>) {
    key(field, LENGTH, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// The beginning of a message whose fields take `length` bytes.
pub(crate) fn head(field: u32, length: usize, out: &mut Vec<u8>) {
    key(field, LENGTH, out);
    varint(length as u64, out);
}

/// A message, whose fields `write` appends.
pub(crate) fn message(field: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    key(field, LENGTH, out);
    let start = out.len();
    write(out);
    let end = out.len();
    varint((end - start) as u64, out);
    // The length belongs in front; it is a few bytes.
    let length = out.len() - end;
    out[start..].rotate_right(length);
}

/// Bytes of a variable-length integer.
pub(crate) fn varint_len(value: u64) -> usize {
    // Seven bits a byte, at least one byte.
    (70 - (value | 1).leading_zeros() as usize) / 7
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Inner {
        #[prost(string, tag = "1")]
        text: String,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Outer {
        #[prost(uint64, tag = "1")]
        number: u64,
        #[prost(message, optional, tag = "300")]
        inner: Option<Inner>,
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_by_another_library(value in any::<u64>(), shift in 0u32..64, text in "\\PC{0,200}") {
            let value = value >> shift;
            let mut out = Vec::new();
            number(1, value, &mut out);
            message(300, &mut out, |out| bytes(1, text.as_bytes(), out));
            let expected = Outer { number: value, inner: Some(Inner { text }) };
            prop_assert_eq!(Outer::decode(&out[..]).unwrap(), expected);
            let mut alone = Vec::new();
            varint(value, &mut alone);
            prop_assert_eq!(alone.len(), varint_len(value));
        }
    }
}
