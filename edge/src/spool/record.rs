//! What a spool record holds: one batch, ready to send, with what must be known without decoding it.
//!
//! ```text
//! version     1   01
//! source_len  1   1–128
//! source      source_len bytes, as in the topic
//! epoch       8   little-endian, as everything below
//! first_seq   8
//! last_seq    8
//! events      4
//! payload         the rest: the MQTT payload
//! ```
//!
//! The journal around it has the length and the checksum. The lane's epoch travels with every record,
//! so a process needs nothing else to send on what an earlier one left.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use thinglog_schemas::name;

use crate::sealed::Sealed;

const VERSION: u8 = 1;
const NUMBERS: usize = 8 + 8 + 8 + 4;

/// Appends the record to `out`.
pub(crate) fn write(sealed: &Sealed, out: &mut Vec<u8>) {
    out.reserve(2 + sealed.source.len() + NUMBERS + sealed.payload.len());
    out.push(VERSION);
    // A source is a topic level of at most 128 characters.
    out.push(sealed.source.len() as u8);
    out.extend_from_slice(sealed.source.as_bytes());
    out.extend_from_slice(&sealed.epoch.to_le_bytes());
    out.extend_from_slice(&sealed.first_seq.to_le_bytes());
    out.extend_from_slice(&sealed.last_seq.to_le_bytes());
    out.extend_from_slice(&sealed.events.to_le_bytes());
    out.extend_from_slice(&sealed.payload);
}

/// Reads a record back; its payload shares the buffer.
pub(crate) fn read(mut record: Bytes) -> Result<Sealed, RecordError> {
    if record.len() < 2 {
        return Err(RecordError::Short);
    }
    let version = record.get_u8();
    if version != VERSION {
        return Err(RecordError::Version(version));
    }
    let source_len = usize::from(record.get_u8());
    if record.len() < source_len + NUMBERS {
        return Err(RecordError::Short);
    }
    let source = record.split_to(source_len);
    let source = std::str::from_utf8(&source)
        .ok()
        .filter(|source| name::is_valid(source))
        .ok_or(RecordError::Source)?;
    let sealed = Sealed {
        source: Arc::from(source),
        epoch: record.get_u64_le(),
        first_seq: record.get_u64_le(),
        last_seq: record.get_u64_le(),
        events: record.get_u32_le(),
        payload: record,
        settles: None,
    };
    if sealed.first_seq > sealed.last_seq {
        return Err(RecordError::Range);
    }
    Ok(sealed)
}

/// Why a record cannot be sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// Shorter than it says.
    #[error("the record is too short")]
    Short,
    /// From a newer agent.
    #[error("record version {0} is unknown: it was written by a newer version")]
    Version(u8),
    /// Not a topic level.
    #[error("the record's source is not a valid name")]
    Source,
    /// Ends before it begins.
    #[error("the record's sequence numbers are out of order")]
    Range,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> Sealed {
        Sealed {
            source: "nginx".into(),
            epoch: 0x1122_3344_5566_7788,
            first_seq: 7,
            last_seq: 9,
            events: 2,
            payload: Bytes::from_static(b"payload"),
            settles: None,
        }
    }

    #[test]
    fn a_record_reads_back_as_written() {
        let mut out = Vec::new();
        write(&sealed(), &mut out);
        assert_eq!(read(out.into()), Ok(sealed()));
    }

    #[test]
    fn every_truncation_before_the_payload_is_an_error() {
        let mut out = Vec::new();
        write(&sealed(), &mut out);
        for len in 0..out.len() - sealed().payload.len() {
            assert!(read(Bytes::copy_from_slice(&out[..len])).is_err(), "{len}");
        }
    }

    #[test]
    fn a_record_of_a_newer_version_is_refused_and_says_so() {
        let error = read(Bytes::from_static(&[2, 0])).unwrap_err();
        assert!(error.to_string().contains("newer version"));
    }
}
