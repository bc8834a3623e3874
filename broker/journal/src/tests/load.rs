//! Readers beside writers, with segments cut under them.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Reads until `end`, checking that nothing is repeated, reordered or silently left out. Returns how
/// many records were read and how many were reported missed.
fn follow(journal: &Journal, end: &AtomicBool, max_bytes: usize) -> (u64, u64) {
    let mut reader = journal.reader(0);
    let (mut read, mut missed, mut next) = (0, 0, 0);
    loop {
        let last_look = end.load(Ordering::SeqCst);
        while let Some(chunk) = reader.read(max_bytes).unwrap() {
            missed += chunk.missed;
            for (n, record) in chunk.records().enumerate() {
                if n == 0 {
                    assert_eq!(record.offset, next + chunk.missed);
                } else {
                    assert_eq!(record.offset, next);
                }
                assert_eq!(record.payload[..8], record.offset.to_le_bytes());
                next = record.offset + 1;
                read += 1;
            }
        }
        if last_look {
            return (read, missed);
        }
        std::thread::yield_now();
    }
}

#[test]
fn readers_see_everything_that_is_not_cut_and_count_what_is() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 64 << 10,
        max_bytes: 512 << 10,
        tail_bytes: 64 << 10,
        pending_bytes: 256 << 10,
        ..Options::default()
    };
    let (journal, _) = open(dir.path(), options);
    let end = AtomicBool::new(false);
    let total = 30_000u64;
    std::thread::scope(|scope| {
        let readers: Vec<_> = [4 << 10, 64 << 10, 1 << 20]
            .map(|max_bytes| {
                scope.spawn({
                    let (journal, end) = (&journal, &end);
                    move || follow(journal, end, max_bytes)
                })
            })
            .into_iter()
            .collect();
        let mut records = Records::new();
        let mut next = 0u64;
        while next < total {
            records.clear();
            for offset in next..next + 10 {
                records.push_with(|buf| {
                    buf.extend_from_slice(&offset.to_le_bytes());
                    buf.resize(buf.len() + 92, 0);
                });
            }
            match journal.append(next, &records) {
                Ok(range) => {
                    assert_eq!(range, next..next + 10);
                    next += 10;
                }
                Err(_) => drop(journal.wait(journal.settled())),
            }
        }
        assert_eq!(journal.wait(total - 1), Outcome::Durable);
        end.store(true, Ordering::SeqCst);
        for reader in readers {
            let (read, missed) = reader.join().unwrap();
            assert_eq!(read + missed, total);
        }
    });
    assert!(journal.stats().cut_records > 0);
}
