//! What fuzzers reach of the state.

use super::change::decode;

/// Reads a record of the log of changes.
pub(crate) fn changes(data: &[u8]) {
    let mut bytes = 0;
    let _ = decode(data, |_, key, value| {
        bytes += key.len() + value.map_or(0, <[u8]>::len);
        Ok::<(), ()>(())
    });
    assert!(bytes <= data.len());
}
