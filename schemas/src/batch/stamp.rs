//! The time of sending, written into a payload that is already encoded: a batch of monotonic times may
//! wait for long, and says when it is sent only when it is.

use super::{Header, MAGIC, MAX_PAYLOAD, VERSION, decode::open};

/// The payload with `sent_mono` (monotonic ns) as its time of sending. `None` when it stays as it is:
/// its times are not monotonic, they are of another boot than `boot`, or it is no batch.
pub fn restamp(payload: &[u8], boot: u64, sent_mono: u64) -> Option<Vec<u8>> {
    let (flags, mut rest) = open(payload).ok()?;
    let mut header: Header = rmp_serde::decode::from_read(&mut rest).ok()?;
    if header.clock != 0 || header.boot != boot || header.sent_mono == sent_mono {
        return None;
    }
    header.sent_mono = sent_mono;
    let mut out = Vec::with_capacity(payload.len() + 8);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, flags]);
    rmp_serde::encode::write(&mut out, &header).ok()?;
    out.extend_from_slice(rest);
    (out.len() <= MAX_PAYLOAD).then_some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Severity,
        batch::{Batch, ClockInfo, Decoder, Encoder, Entry},
    };

    const BOOT: u64 = 77;

    fn batch(synced: bool, sent_mono: u64, message: &str) -> Batch {
        let entry = |seq| Entry {
            seq,
            time: 5_000_000_000 + seq,
            severity: Severity::INFO,
            message: message.to_owned(),
            truncated: false,
            attributes: Default::default(),
        };
        Batch {
            epoch: 1,
            first_seq: 0,
            clock: ClockInfo {
                boot: BOOT,
                sent_mono,
                synced,
            },
            drops: Vec::new(),
            entries: (0..3).map(entry).collect(),
        }
    }

    fn encode(batch: &Batch) -> Vec<u8> {
        let mut payload = Vec::new();
        Encoder::new().encode(batch, &mut payload).unwrap();
        payload
    }

    #[test]
    fn the_time_of_sending_changes_and_nothing_else() {
        for message in ["short", &"long enough to be compressed ".repeat(100)] {
            let mut batch = batch(false, 5, message);
            let payload = encode(&batch);
            for sent_mono in [0, 6, 70_000, u64::MAX] {
                let again = restamp(&payload, BOOT, sent_mono).unwrap();
                batch.clock.sent_mono = sent_mono;
                assert_eq!(Decoder::new().decode(&again).unwrap(), batch);
                assert_eq!(again, encode(&batch));
            }
        }
    }

    #[test]
    fn what_does_not_depend_on_the_time_of_sending_stays() {
        assert_eq!(restamp(&encode(&batch(true, 5, "synced")), BOOT, 6), None);
        assert_eq!(
            restamp(&encode(&batch(false, 5, "other boot")), 78, 6),
            None
        );
        assert_eq!(
            restamp(&encode(&batch(false, 5, "the same")), BOOT, 5),
            None
        );
        assert_eq!(restamp(b"{\"message\":\"json\"}", BOOT, 6), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            genuine in any::<bool>(),
            at in 0usize..200,
        ) {
            restamp(&bytes, BOOT, 9);
            bytes.splice(..0, [0xFF, b't', b'l', b'g', 1, 0]);
            restamp(&bytes, BOOT, 9);
            if genuine {
                let mut payload = encode(&batch(false, 5, "genuine"));
                let at = at % payload.len();
                payload[at] ^= bytes[bytes.len() - 1] | 1;
                restamp(&payload, BOOT, 9);
            }
        }
    }
}
