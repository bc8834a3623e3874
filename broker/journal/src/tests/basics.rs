//! Appending, reading, reopening, retention, as a caller sees them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::{AppendError, OnFull, OpenError};

#[test]
fn what_is_durable_is_read_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, recovery) = open(dir.path(), small());
    assert_eq!(recovery, Recovery::default());
    for n in 0..100u64 {
        assert_eq!(put(&journal, n * 10, format!("record {n}").as_bytes()), n);
    }
    let expected: Vec<_> = (0..100)
        .map(|n| (n, n * 10, format!("record {n}").into_bytes()))
        .collect();
    assert_eq!(drain(&mut journal.reader(0)), expected);
    assert_eq!(drain(&mut journal.reader(40)), expected[40..]);
}

#[test]
fn reopening_finds_everything_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), small());
    let id = journal.id();
    for n in 0..300u64 {
        put(&journal, n, &[n as u8; 40]);
    }
    drop(journal);
    let (journal, recovery) = open(dir.path(), small());
    assert_eq!(
        recovery,
        Recovery {
            next: 300,
            ..Recovery::default()
        }
    );
    assert_eq!(journal.id(), id);
    assert_eq!(put(&journal, 300, b"more"), 300);
    assert_eq!(
        offsets(&mut journal.reader(0)),
        (0..301).collect::<Vec<_>>()
    );
    assert_eq!(journal.outcome(7), Outcome::Durable);
    assert_eq!(journal.outcome(301), Outcome::Pending);
}

#[test]
fn many_threads_append_and_every_record_has_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), Options::default());
    let mine: Vec<_> = (0..4u8)
        .map(|thread| {
            let journal = journal.clone();
            std::thread::spawn(move || {
                let mut records = Records::new();
                let mut got = Vec::new();
                for n in 0..200u8 {
                    records.clear();
                    records.push(&[thread, n]);
                    records.push(&[thread, n, 1]);
                    got.push((journal.append(1, &records).unwrap(), n));
                }
                assert_eq!(
                    journal.wait(got.last().unwrap().0.end - 1),
                    Outcome::Durable
                );
                (thread, got)
            })
        })
        .collect::<Vec<_>>()
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    let all = drain(&mut journal.reader(0));
    assert_eq!(all.len(), 4 * 200 * 2);
    for (thread, got) in mine {
        for (range, n) in got {
            assert_eq!(all[range.start as usize].2, [thread, n]);
            assert_eq!(all[range.start as usize + 1].2, [thread, n, 1]);
        }
    }
    let stats = journal.stats();
    assert!(stats.syncs < 800, "one sync per append: {}", stats.syncs);
}

#[test]
fn callbacks_tell_what_is_settled() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), small());
    let seen = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
    for seen in &seen {
        let seen = seen.clone();
        journal.on_settled(move |settled| {
            assert!(seen.swap(settled, Ordering::SeqCst) < settled);
        });
    }
    for _ in 0..20 {
        put(&journal, 1, b"x");
    }
    drop(journal);
    for seen in &seen {
        assert_eq!(seen.load(Ordering::SeqCst), 20);
    }
}

#[test]
fn a_reader_at_the_tail_reads_memory_and_one_behind_reads_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(
        dir.path(),
        Options {
            tail_bytes: 2 << 10,
            ..small()
        },
    );
    let mut behind = journal.reader(0);
    for n in 0..100u64 {
        put(&journal, n, &[0; 100]);
    }
    assert!(behind.poll_memory().is_none());
    let mut tail = journal.reader(99);
    assert_eq!(
        tail.poll_memory().unwrap().records().next().unwrap().offset,
        99
    );
    assert!(tail.poll_memory().is_none());
    put(&journal, 100, b"new");
    assert_eq!(tail.poll_memory().unwrap().end(), 101);
    assert_eq!(offsets(&mut behind), (0..101).collect::<Vec<_>>());
    put(&journal, 101, b"newer");
    assert_eq!(behind.poll_memory().unwrap().end(), 102);
}

#[test]
fn a_small_limit_takes_small_steps_from_memory_and_disk() {
    let dir = tempfile::tempdir().unwrap();
    for tail_bytes in [0, 1 << 20] {
        let dir = dir.path().join(tail_bytes.to_string());
        let (journal, _) = open(
            &dir,
            Options {
                tail_bytes,
                ..Options::default()
            },
        );
        let mut records = Records::new();
        for n in 0..1000u64 {
            records.push(&[n as u8; 100]);
        }
        let range = journal.append(1, &records).unwrap();
        journal.wait(range.end - 1);
        let mut reader = journal.reader(3);
        let mut next = 3;
        let mut steps = 0;
        while let Some(chunk) = reader.read(5000).unwrap() {
            assert!(chunk.bytes() <= 5000);
            for record in chunk.records() {
                assert_eq!(record.offset, next);
                next += 1;
            }
            assert_eq!((chunk.end(), reader.offset()), (next, next));
            steps += 1;
        }
        assert_eq!(next, 1000);
        assert!(steps >= 25);
    }
}

#[test]
fn a_record_larger_than_a_block_or_a_segment_is_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 100 << 10,
        tail_bytes: 0,
        ..Options::default()
    };
    let (journal, _) = open(dir.path(), options);
    put(&journal, 1, b"small");
    put(&journal, 2, &vec![7; 2 << 20]);
    put(&journal, 3, b"small");
    let got = drain(&mut journal.reader(0));
    assert_eq!(
        got.iter()
            .map(|(_, _, payload)| payload.len())
            .collect::<Vec<_>>(),
        [5, 2 << 20, 5]
    );
    assert!(matches!(
        journal.append(4, &{
            let mut records = Records::new();
            records.push(&vec![7; (2 << 20) + 1]);
            records
        }),
        Err(AppendError::TooLarge { .. })
    ));
}

#[test]
fn a_group_larger_than_a_segment_is_spread_over_several() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(
        dir.path(),
        Options {
            tail_bytes: 0,
            ..small()
        },
    );
    let mut records = Records::new();
    for n in 0..200u64 {
        records.push(&[n as u8; 100]);
    }
    let range = journal.append(1, &records).unwrap();
    assert_eq!(journal.wait(range.end - 1), Outcome::Durable);
    assert!(journal.stats().segments >= 6);
    assert_eq!(
        offsets(&mut journal.reader(0)),
        (0..200).collect::<Vec<_>>()
    );
    assert_eq!(
        offsets(&mut journal.reader(150)),
        (150..200).collect::<Vec<_>>()
    );
}

fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.file_name() != "journal");
    files.map(|entry| entry.metadata().unwrap().len()).sum()
}

#[test]
fn cutting_keeps_under_the_limit_and_readers_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(
        dir.path(),
        Options {
            tail_bytes: 0,
            ..small()
        },
    );
    put(&journal, 0, &[0; 100]);
    let mut late = journal.reader(0);
    let mut records = Records::new();
    for _ in 0..20 {
        records.push(&[0; 100]);
    }
    for n in 1..150u64 {
        let last = journal.append(n, &records).unwrap().end - 1;
        assert_eq!(journal.wait(last), Outcome::Durable);
        assert!(size(dir.path()) <= 64 << 10);
    }
    let first = journal.first();
    assert!(first > 1000, "{first}");
    let chunk = late.read(1 << 20).unwrap().unwrap();
    assert_eq!(chunk.missed, first);
    assert_eq!(chunk.records().next().unwrap().offset, first);
    assert_eq!(late.read(1 << 20).unwrap().unwrap().missed, 0);
    assert_eq!(journal.stats().cut_records, first);
    assert_eq!(journal.stats().bytes, size(dir.path()));
    drop((journal, late));
    assert!(size(dir.path()) <= 64 << 10);
}

#[test]
fn refusing_stops_at_the_limit_until_room_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(
        dir.path(),
        Options {
            on_full: OnFull::Refuse,
            ..small()
        },
    );
    let mut records = Records::new();
    records.push(&[0; 100]);
    let fill = || {
        loop {
            match journal.append(1, &records) {
                Ok(range) => assert_eq!(journal.wait(range.start), Outcome::Durable),
                Err(AppendError::Full { .. }) => return journal.next(),
                Err(other) => panic!("{other}"),
            }
        }
    };
    let full = fill();
    assert!(full > 400, "{full}");
    assert!(size(dir.path()) <= 64 << 10);
    assert_eq!(journal.first(), 0);
    journal.release(full / 2).unwrap();
    assert!(journal.first() > 0 && journal.first() <= full / 2);
    assert!(fill() > full + 100);
    assert_eq!(journal.stats().cut_records, 0);
}

#[test]
fn old_segments_expire_and_so_does_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        max_age: Some(Duration::from_nanos(100)),
        ..small()
    };
    let (journal, _) = open(dir.path(), options);
    for n in 0..100u64 {
        put(&journal, n * 10, &[0; 100]);
    }
    journal.retain(50).unwrap();
    assert_eq!(journal.first(), 0);
    journal.retain(600).unwrap();
    let first = journal.first();
    assert!(first > 0 && first <= 50, "{first}");
    journal.retain(100_000).unwrap();
    // Handled by the writer before the next group.
    put(&journal, 99_990, b"young");
    drop(journal);
    let (journal, recovery) = open(dir.path(), small());
    assert_eq!((recovery.first, recovery.next), (100, 101));
    assert_eq!(offsets(&mut journal.reader(0)), [100]);
}

#[test]
fn a_time_leads_to_the_first_record_at_or_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), small());
    // The clock is set back in the middle.
    let times: Vec<u64> = (0..150)
        .map(|n| 1000 + n * 10)
        .chain((0..150).map(|n| 500 + n * 20))
        .collect();
    for time in &times {
        put(&journal, *time, &[0; 100]);
    }
    for time in (0..4000).step_by(7) {
        let expected = times.iter().position(|t| *t >= time).unwrap_or(times.len()) as u64;
        assert_eq!(journal.offset_at(time).unwrap(), expected, "time {time}");
    }
}

#[test]
fn waiting_too_much_is_busy_but_one_append_always_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(
        dir.path(),
        Options {
            pending_bytes: 1,
            ..Options::default()
        },
    );
    let mut records = Records::new();
    records.push(&[0; 1000]);
    for _ in 0..50 {
        let range = loop {
            match journal.append(1, &records) {
                Ok(range) => break range,
                Err(AppendError::Busy) => std::thread::yield_now(),
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(journal.wait(range.start), Outcome::Durable);
    }
}

#[test]
fn a_directory_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), small());
    let again = Journal::open(Arc::new(RealFs), dir.path(), small());
    assert!(matches!(again, Err(OpenError::Locked { .. })));
    drop(journal);
    open(dir.path(), small());
}

#[test]
fn a_reader_beyond_the_end_misses_nothing_that_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), small());
    put(&journal, 1, b"a");
    let mut reader = journal.reader(1000);
    put(&journal, 1, b"b");
    assert_eq!(offsets(&mut reader), [1]);
}

#[test]
fn a_reader_outlives_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), small());
    put(&journal, 1, b"a");
    let mut reader = journal.reader(0);
    drop(journal);
    assert_eq!(offsets(&mut reader), [0]);
    open(dir.path(), small());
}

#[test]
fn offsets_that_are_skipped_are_never_given_and_readers_go_on_behind_them() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), small());
    assert_eq!(put(&journal, 1, b"before"), 0);
    drop(journal);
    let (journal, _) = open(dir.path(), small());
    let mut reader = journal.reader(0);
    journal.skip_to(1000);
    assert_eq!(journal.outcome(999), Outcome::Failed(crate::Failure::Io));
    assert_eq!(drain(&mut reader).len(), 1);
    assert_eq!(put(&journal, 2, b"after"), 1000);
    journal.skip_to(500);
    let after = vec![(1000, 2, b"after".to_vec())];
    assert_eq!(drain(&mut reader), after);
    assert_eq!(drain(&mut journal.reader(400)), after);
    drop(journal);
    let (journal, recovery) = open(dir.path(), small());
    assert_eq!((recovery.first, recovery.next), (0, 1001));
    assert_eq!(drain(&mut journal.reader(1)), after);
}
