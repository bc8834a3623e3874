//! What the mail journal holds of one publish: the persistent sessions it goes to, then the publish as
//! [`crate::record`] lays it out.
//!
//! ```text
//! tag         u8   0x80, or 0x81: a copy, made so that an older segment can go
//! id          u64  offset of the first copy, when it is a copy; else its own offset is its id
//! recipients  u32  and for each: session u64, flags u8 (bits 0-1 QoS, bit 2 RETAIN),
//!                  count u8 and so many u32 subscription identifiers
//! record      the rest
//! ```
//! Integers are big-endian. Records whose first byte is below 0x80 are releases of QoS 2 packet ids.

use crate::record::Record;

const ORIGINAL: u8 = 0x80;
const COPY: u8 = 0x81;
const RETAIN: u8 = 4;

/// One session that is to get the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recipient {
    /// The session's number on disk.
    pub(crate) session: u64,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// Subscription identifiers, 255 at most.
    pub(crate) ids: Vec<u32>,
}

/// A letter as it is read back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Letter<'a> {
    pub(crate) id: u64,
    pub(crate) recipients: Vec<Recipient>,
    /// The encoded publish.
    pub(crate) record: &'a [u8],
}

/// Appends a new letter.
pub(crate) fn encode(recipients: &[Recipient], record: &Record<'_>, out: &mut Vec<u8>) {
    out.push(ORIGINAL);
    out.extend_from_slice(&(recipients.len() as u32).to_be_bytes());
    for recipient in recipients {
        out.extend_from_slice(&recipient.session.to_be_bytes());
        out.push(recipient.qos | if recipient.retain { RETAIN } else { 0 });
        let ids = &recipient.ids[..recipient.ids.len().min(255)];
        out.push(ids.len() as u8);
        for id in ids {
            out.extend_from_slice(&id.to_be_bytes());
        }
    }
    record.encode(out);
}

/// Appends a copy of a letter that stood at `offset`; false for bytes that are none.
pub(crate) fn encode_copy(offset: u64, letter: &[u8], out: &mut Vec<u8>) -> bool {
    match letter.split_first() {
        Some((&ORIGINAL, rest)) => {
            out.push(COPY);
            out.extend_from_slice(&offset.to_be_bytes());
            out.extend_from_slice(rest);
            true
        }
        Some((&COPY, _)) => {
            out.extend_from_slice(letter);
            true
        }
        _ => false,
    }
}

/// Reads the letter at `offset` back; `None` for bytes that are none.
pub(crate) fn decode(offset: u64, bytes: &[u8]) -> Option<Letter<'_>> {
    let mut rest = bytes;
    let id = match take::<1>(&mut rest)? {
        [ORIGINAL] => offset,
        [COPY] => u64::from_be_bytes(take(&mut rest)?),
        _ => return None,
    };
    let count = u32::from_be_bytes(take(&mut rest)?);
    let mut recipients = Vec::new();
    for _ in 0..count {
        let session = u64::from_be_bytes(take(&mut rest)?);
        let [flags, ids] = take(&mut rest)?;
        let ids: Option<Vec<u32>> = (0..ids)
            .map(|_| Some(u32::from_be_bytes(take(&mut rest)?)))
            .collect();
        recipients.push(Recipient {
            session,
            qos: flags & 3,
            retain: flags & RETAIN != 0,
            ids: ids?,
        });
    }
    Some(Letter {
        id,
        recipients,
        record: rest,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::NO_ADDRESS;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_letter_and_its_copies_are_read_back(
            to in proptest::collection::vec((any::<u64>(), 0u8..3, any::<bool>(), proptest::collection::vec(any::<u32>(), 0..4)), 0..5),
            payload: Vec<u8>, offset: u64,
        ) {
            let recipients: Vec<Recipient> = to
                .into_iter()
                .map(|(session, qos, retain, ids)| Recipient { session, qos, retain, ids })
                .collect();
            let record = Record {
                qos: 1, packet: None, client: 3, address: NO_ADDRESS, expires: None,
                principal: None, topic: "t", properties: &[], payload: &payload,
            };
            let (mut bytes, mut copy, mut second) = (Vec::new(), Vec::new(), Vec::new());
            encode(&recipients, &record, &mut bytes);
            prop_assert!(encode_copy(offset, &bytes, &mut copy));
            prop_assert!(encode_copy(offset.wrapping_add(1), &copy, &mut second));
            for (at, bytes) in [(offset, &bytes), (offset.wrapping_add(1), &copy), (7, &second)] {
                let letter = decode(at, bytes).unwrap();
                prop_assert_eq!(letter.id, offset);
                prop_assert_eq!(&letter.recipients, &recipients);
                prop_assert_eq!(Record::decode(letter.record), Some(record));
            }
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>) {
            let _ = decode(0, &bytes);
        }
    }
}
