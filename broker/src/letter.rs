//! What the mail journal holds of one publish: the persistent sessions it goes to, then the publish as
//! [`crate::record`] lays it out.
//!
//! ```text
//! tag         u8   0x80, or 0x81: a copy, made so that an older segment can go
//! id          u64  offset of the first copy, when it is a copy; else its own offset is its id
//! recipients  u32  and for each: session u64, flags u8 (bits 0-1 QoS, bit 2 RETAIN, bit 3 shared),
//!                  count u8 and so many u32 subscription identifiers, and if it is shared
//!                  u16 length and UTF-8 of the shared subscription
//! record      the rest
//! ```
//! Integers are big-endian. Records whose first byte is below 0x80 are releases of QoS 2 packet ids.

use std::sync::Arc;

use crate::record::{Record, put_text, take_text};

const ORIGINAL: u8 = 0x80;
const COPY: u8 = 0x81;
const RETAIN: u8 = 4;
const SHARED: u8 = 8;

/// Bytes of recipients in one letter; a message that goes to more sessions takes several letters.
pub(crate) const MAX_ADDRESSES: usize = 320_000;
/// Most subscription identifiers of a recipient.
const MAX_IDS: usize = 255;

/// One session that is to get the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recipient {
    /// The session's number on disk.
    pub(crate) session: u64,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// Subscription identifiers, 255 at most.
    pub(crate) ids: Vec<u32>,
    /// The shared subscription that chose the session.
    pub(crate) share: Option<Arc<str>>,
}

impl Recipient {
    /// Bytes it takes in a letter.
    fn size(&self) -> usize {
        let share = self.share.as_ref().map_or(0, |share| 2 + share.len());
        10 + 4 * self.ids.len().min(MAX_IDS) + share
    }
}

/// Sorts the recipients of one message into letters: no session twice in one of them, and none with
/// more than [`MAX_ADDRESSES`] bytes of recipients.
#[derive(Debug, Default)]
pub(crate) struct Letters {
    recipients: Vec<Vec<Recipient>>,
    bytes: Vec<usize>,
    /// The last session and its letter.
    last: Option<(u64, usize)>,
}

impl Letters {
    /// Adds a recipient and gives the place of its letter. Those of one session come one after another.
    pub(crate) fn add(&mut self, recipient: Recipient) -> usize {
        let size = recipient.size();
        let mut place = match self.last {
            Some((session, place)) if session == recipient.session => place + 1,
            _ => 0,
        };
        while self
            .bytes
            .get(place)
            .is_some_and(|bytes| bytes + size > MAX_ADDRESSES)
        {
            place += 1;
        }
        if place == self.bytes.len() {
            self.recipients.push(Vec::new());
            self.bytes.push(0);
        }
        self.bytes[place] += size;
        self.last = Some((recipient.session, place));
        self.recipients[place].push(recipient);
        place
    }

    /// The recipients of each letter.
    pub(crate) fn recipients(&self) -> &[Vec<Recipient>] {
        &self.recipients
    }
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
        let retain = if recipient.retain { RETAIN } else { 0 };
        let shared = recipient.share.as_ref().map_or(0, |_| SHARED);
        out.push(recipient.qos | retain | shared);
        let ids = &recipient.ids[..recipient.ids.len().min(MAX_IDS)];
        out.push(ids.len() as u8);
        for id in ids {
            out.extend_from_slice(&id.to_be_bytes());
        }
        if let Some(share) = &recipient.share {
            put_text(out, share);
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
        let ids = ids?;
        let share = match flags & SHARED {
            0 => None,
            _ => Some(take_text(&mut rest)?.into()),
        };
        recipients.push(Recipient {
            session,
            qos: flags & 3,
            retain: flags & RETAIN != 0,
            ids,
            share,
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

    #[test]
    fn a_session_that_gets_a_message_twice_has_two_letters_and_long_lists_are_split() {
        let recipient = |session, share: usize| Recipient {
            session,
            qos: 1,
            retain: false,
            ids: Vec::new(),
            share: Some("s".repeat(share).into()),
        };
        let mut letters = Letters::default();
        let places = [(1, 9), (1, 9), (2, 9), (3, 300_000), (4, 60_000), (5, 9)];
        let places = places.map(|(session, share)| letters.add(recipient(session, share)));
        assert_eq!(places, [0, 1, 0, 0, 1, 0]);
        assert_eq!(letters.recipients().len(), 2);
    }

    proptest! {
        #[test]
        fn a_letter_and_its_copies_are_read_back(
            to in proptest::collection::vec((any::<u64>(), 0u8..3, any::<bool>(), proptest::collection::vec(any::<u32>(), 0..4), proptest::option::of(".{0,9}")), 0..5),
            payload: Vec<u8>, offset: u64,
        ) {
            let recipients: Vec<Recipient> = to
                .into_iter()
                .map(|(session, qos, retain, ids, share)| Recipient { session, qos, retain, ids, share: share.map(Arc::from) })
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
