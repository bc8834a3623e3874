//! What a spool record holds: one batch, ready to send, with what must be known without decoding it.
//!
//! ```text
//! version     1       02
//! flags       1       bits 0 to 3: it has events of class DEBUG, INFO, WARN, ERROR;
//!                     bit 7: of a source that waits for room, never given up for want of it
//! source_len  1       1–128
//! source              source_len bytes, as in the topic
//! epoch       8       little-endian, of the lane
//! first_seq   varint  LEB128, as everything below
//! span        varint  last_seq − first_seq
//! events      varint
//! marks       varint  so many times:
//!   key         8       little-endian
//!   place_len   varint  at most 4096
//!   place               place_len bytes: where the source that `key` names stands after this batch
//! payload             the rest: the MQTT payload
//! ```
//!
//! The journal around it has the length and the checksum. The lane's epoch travels with every record,
//! so a process needs nothing else to send on what an earlier one left.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use thinglog_schemas::name;

use crate::{
    marks::{MAX_PLACE, Mark},
    queue::MARK_BYTES,
    sealed::{Classes, Sealed},
};

const VERSION: u8 = 2;
const CLASSES: u8 = 0x0f;
const PATIENT: u8 = 0x80;
/// What a record has beside its payload at most: the fixed part and the source, and the places.
pub(crate) const ROOM: usize = 512 + MARK_BYTES + MAX_PLACE;

/// Appends the record to `out`.
pub(crate) fn write(sealed: &Sealed, out: &mut Vec<u8>) {
    out.reserve(64 + sealed.source.len() + sealed.payload.len());
    let patient = if sealed.patient { PATIENT } else { 0 };
    // A source is a topic level of at most 128 characters.
    let source_len = sealed.source.len() as u8;
    out.extend_from_slice(&[VERSION, patient | sealed.classes.0 & CLASSES, source_len]);
    out.extend_from_slice(sealed.source.as_bytes());
    out.extend_from_slice(&sealed.epoch.to_le_bytes());
    write_varint(sealed.first_seq, out);
    write_varint(sealed.last_seq - sealed.first_seq, out);
    write_varint(u64::from(sealed.events), out);
    write_varint(sealed.marks.len() as u64, out);
    for mark in &sealed.marks {
        out.extend_from_slice(&mark.key.to_le_bytes());
        write_varint(mark.place.len() as u64, out);
        out.extend_from_slice(&mark.place);
    }
    out.extend_from_slice(&sealed.payload);
}

/// Reads a record back; its payload shares the buffer.
pub(crate) fn read(mut record: Bytes) -> Result<Sealed, RecordError> {
    let [version, flags, source_len] = *take(&mut record, 3)? else {
        return Err(RecordError::Short);
    };
    if version != VERSION {
        return Err(RecordError::Version(version));
    }
    let source = take(&mut record, usize::from(source_len))?;
    let source = std::str::from_utf8(&source)
        .ok()
        .filter(|source| name::is_valid(source))
        .ok_or(RecordError::Source)?;
    let epoch = take(&mut record, 8)?.get_u64_le();
    let first_seq = read_varint(&mut record)?;
    let span = read_varint(&mut record)?;
    Ok(Sealed {
        source: Arc::from(source),
        epoch,
        first_seq,
        last_seq: first_seq.checked_add(span).ok_or(RecordError::Range)?,
        events: u32::try_from(read_varint(&mut record)?).map_err(|_| RecordError::Range)?,
        classes: Classes(flags & CLASSES),
        patient: flags & PATIENT != 0,
        marks: read_marks(&mut record)?,
        payload: record,
        settles: None,
    })
}

fn read_marks(record: &mut Bytes) -> Result<Vec<Mark>, RecordError> {
    let count = read_varint(record)?;
    let mut marks = Vec::new();
    for _ in 0..count {
        let key = take(record, 8)?.get_u64_le();
        let len = usize::try_from(read_varint(record)?).unwrap_or(usize::MAX);
        if len > MAX_PLACE {
            return Err(RecordError::Range);
        }
        let place = Arc::from(&*take(record, len)?);
        marks.push(Mark { key, place });
    }
    Ok(marks)
}

fn take(record: &mut Bytes, bytes: usize) -> Result<Bytes, RecordError> {
    if record.len() < bytes {
        return Err(RecordError::Short);
    }
    Ok(record.split_to(bytes))
}

fn write_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn read_varint(record: &mut Bytes) -> Result<u64, RecordError> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        if !record.has_remaining() {
            return Err(RecordError::Short);
        }
        let byte = record.get_u8();
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(RecordError::Range);
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(RecordError::Range)
}

/// Why a record cannot be sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// Shorter than it says.
    #[error("the record is too short")]
    Short,
    /// Of a layout that this version does not know.
    #[error("record version {0} is unknown: it was written by another version of thinglog")]
    Version(u8),
    /// Not a topic level.
    #[error("the record's source is not a valid name")]
    Source,
    /// No number where one is expected.
    #[error("the record's numbers are out of range")]
    Range,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> Sealed {
        let mark = |key, place: &[u8]| Mark {
            key,
            place: place.into(),
        };
        Sealed {
            source: "nginx".into(),
            epoch: 0x1122_3344_5566_7788,
            first_seq: 700,
            last_seq: 901,
            events: 200,
            classes: Classes(0b1010),
            patient: true,
            marks: vec![mark(u64::MAX, &[7; 300]), mark(3, b"")],
            payload: Bytes::from_static(b"payload"),
            settles: None,
        }
    }

    fn written(sealed: &Sealed) -> Bytes {
        let mut out = Vec::new();
        write(sealed, &mut out);
        out.into()
    }

    #[test]
    fn a_record_reads_back_as_written() {
        assert_eq!(read(written(&sealed())), Ok(sealed()));
        let plain = Sealed {
            first_seq: u64::MAX - 1,
            last_seq: u64::MAX - 1,
            patient: false,
            marks: Vec::new(),
            ..sealed()
        };
        assert_eq!(read(written(&plain)), Ok(plain));
    }

    #[test]
    fn a_record_costs_little_beside_its_payload() {
        let plain = Sealed {
            marks: Vec::new(),
            ..sealed()
        };
        let beside = written(&plain).len() - plain.payload.len() - plain.source.len();
        assert_eq!(beside, 3 + 8 + 2 + 2 + 2 + 1);
    }

    #[test]
    fn every_truncation_before_the_payload_is_an_error() {
        let out = written(&sealed());
        for len in 0..out.len() - sealed().payload.len() {
            assert!(read(out.slice(..len)).is_err(), "{len}");
        }
    }

    #[test]
    fn a_record_of_another_version_is_refused_and_says_so() {
        let error = read(Bytes::from_static(&[3, 0, 0, 0])).unwrap_err();
        assert!(error.to_string().contains("another version"));
    }

    #[test]
    fn numbers_beyond_their_range_are_refused() {
        let mut out = vec![VERSION, 0, 1, b'a'];
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&[0xff; 10]);
        assert_eq!(read(out.into()), Err(RecordError::Range));
    }
}
