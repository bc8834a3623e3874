//! Disks that are full, refuse, lie or lose power.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::sim::Faults;
use crate::{AppendError, Failure};

fn journal() -> (SimFs, Journal) {
    let fs = SimFs::new(1);
    let (journal, _) = boot(&fs, small());
    (fs, journal)
}

#[test]
fn a_full_disk_fails_the_group_and_recovers_by_itself() {
    let (fs, journal) = journal();
    put(&journal, 1, b"before");
    fs.leave_free(40);
    assert_eq!(
        try_put(&journal, 2, &[0; 100]).1,
        Outcome::Failed(Failure::NoSpace)
    );
    assert_eq!(
        try_put(&journal, 3, &[0; 100]).1,
        Outcome::Failed(Failure::NoSpace)
    );
    // Less still fits, though some of the larger one was written first.
    assert_eq!(put(&journal, 4, &[0; 10]), 3);
    fs.faults(|faults| faults.capacity = None);
    assert_eq!(put(&journal, 5, &[0; 100]), 4);
    assert_eq!(journal.outcome(1), Outcome::Failed(Failure::NoSpace));
    assert_eq!(journal.outcome(2), Outcome::Failed(Failure::NoSpace));
    assert_eq!(offsets(&mut journal.reader(0)), [0, 3, 4]);
    fs.power_cut();
    drop(journal);
    let (journal, recovery) = boot(&fs, small());
    assert_eq!((recovery.torn_bytes, recovery.next), (0, 5));
    assert_eq!(offsets(&mut journal.reader(0)), [0, 3, 4]);
}

#[test]
fn a_failed_group_never_comes_back() {
    for seed in 0..50 {
        let fs = SimFs::new(seed);
        let (journal, _) = boot(&fs, small());
        let mut records = Records::new();
        for _ in 0..20 {
            records.push(&[9; 100]);
        }
        fs.leave_free(2000);
        let range = journal.append(1, &records).unwrap();
        assert_eq!(
            journal.wait(range.end - 1),
            Outcome::Failed(Failure::NoSpace)
        );
        fs.power_cut();
        drop(journal);
        let (journal, _) = boot(&fs, small());
        assert_eq!(offsets(&mut journal.reader(0)), [0; 0], "seed {seed}");
    }
}

#[test]
fn no_room_for_a_new_segment_fails_only_what_needs_it() {
    let (fs, journal) = journal();
    while journal.stats().bytes < 3900 {
        put(&journal, 1, &[0; 50]);
    }
    fs.leave_free(20);
    assert_eq!(
        try_put(&journal, 2, &[0; 400]).1,
        Outcome::Failed(Failure::NoSpace)
    );
    fs.faults(|faults| faults.capacity = None);
    put(&journal, 3, &[0; 400]);
    assert_eq!(journal.stats().segments, 2);
    let held = offsets(&mut journal.reader(0));
    assert_eq!(held.len() as u64, journal.next() - 1);
    fs.power_cut();
    drop(journal);
    let (journal, _) = boot(&fs, small());
    assert_eq!(offsets(&mut journal.reader(0)), held);
}

#[test]
fn a_refused_write_fails_the_group_only() {
    let (fs, journal) = journal();
    put(&journal, 1, b"a");
    fs.faults(|faults| faults.fail_write = Some(0));
    assert_eq!(try_put(&journal, 2, b"b").1, Outcome::Failed(Failure::Io));
    put(&journal, 3, b"c");
    assert_eq!(offsets(&mut journal.reader(0)), [0, 2]);
}

#[test]
fn short_writes_are_continued() {
    let (fs, journal) = journal();
    fs.faults(|faults| faults.short_writes = true);
    for n in 0..50 {
        put(&journal, n, &[0; 300]);
    }
    fs.power_cut();
    drop(journal);
    let (journal, _) = boot(&fs, small());
    assert_eq!(offsets(&mut journal.reader(0)), (0..50).collect::<Vec<_>>());
}

fn poisons(change: impl Fn(&mut Faults), payload: usize) {
    let (fs, journal) = journal();
    put(&journal, 1, &[1; 3000]);
    fs.faults(change);
    let (failed, outcome) = try_put(&journal, 2, &vec![2; payload]);
    assert_eq!(outcome, Outcome::Failed(Failure::Poisoned));
    // The fault is gone, the poison stays.
    fs.faults(|faults| *faults = Faults::default());
    let mut records = Records::new();
    records.push(b"later");
    assert!(matches!(
        journal.append(3, &records),
        Err(AppendError::Poisoned)
    ));
    assert!(journal.stats().poisoned);
    assert_eq!(journal.settled(), journal.next());
    assert_eq!(offsets(&mut journal.reader(0)), [0]);
    drop(journal);
    let (journal, _) = boot(&fs, small());
    let held = offsets(&mut journal.reader(0));
    assert!(held == [0] || held == [0, failed], "{held:?}");
    let offset = put(&journal, 4, b"again");
    assert!(offset > held[held.len() - 1]);
}

#[test]
fn a_failed_sync_poisons_until_reopened() {
    poisons(|faults| faults.fail_sync = Some(0), 100);
}

#[test]
fn a_failed_sync_of_a_new_segment_poisons() {
    // The index of the old one is synced first, and its failure only costs the index.
    poisons(|faults| faults.fail_sync = Some(1), 2000);
    poisons(|faults| faults.fail_sync_dir = Some(0), 2000);
}

#[test]
fn what_cannot_be_taken_back_poisons() {
    let change = |faults: &mut Faults| {
        faults.fail_write = Some(0);
        faults.fail_truncate = true;
    };
    poisons(change, 100);
}

#[test]
fn poison_reaches_everything_that_waits() {
    let (fs, journal) = journal();
    let mut records = Records::new();
    records.push(b"x");
    fs.faults(|faults| faults.fail_sync = Some(3));
    let mut last = 0;
    while let Ok(range) = journal.append(1, &records) {
        last = range.start;
    }
    assert_eq!(journal.wait(last), Outcome::Failed(Failure::Poisoned));
    let durable = offsets(&mut journal.reader(0)).len() as u64;
    for offset in 0..=last {
        let expected = if offset < durable {
            Outcome::Durable
        } else {
            Outcome::Failed(Failure::Poisoned)
        };
        assert_eq!(journal.outcome(offset), expected);
    }
}

#[test]
fn a_file_that_cannot_be_removed_still_counts() {
    let (fs, journal) = journal();
    fs.faults(|faults| faults.fail_remove = true);
    let mut stored = 0;
    for n in 0..300 {
        stored += u64::from(try_put(&journal, n, &[0; 400]).1 == Outcome::Durable);
    }
    assert!(stored < 160, "{stored}");
    assert!(fs.used().1 <= (64 << 10) + 24);
    fs.faults(|faults| faults.fail_remove = false);
    for n in 0..300 {
        put(&journal, n, &[0; 400]);
    }
    assert!(fs.used().1 <= (64 << 10) + 24);
}

#[test]
fn an_unreadable_disk_is_an_error_that_may_pass() {
    let fs = SimFs::new(1);
    let (journal, _) = boot(
        &fs,
        Options {
            tail_bytes: 0,
            ..small()
        },
    );
    put(&journal, 1, b"a");
    let mut reader = journal.reader(0);
    fs.faults(|faults| faults.fail_read = true);
    let error = reader.read(1000).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("/sim/00000000000000000000.seg: "),
        "{error}"
    );
    fs.faults(|faults| faults.fail_read = false);
    assert_eq!(offsets(&mut reader), [0]);
}

#[test]
fn killed_while_writing_what_was_acknowledged_is_there() {
    for seed in 0..20 {
        let fs = SimFs::new(seed);
        let (journal, _) = boot(&fs, small());
        let mut records = Records::new();
        records.push(&[seed as u8; 200]);
        for n in 0..30 {
            journal.append(n, &records).unwrap();
        }
        journal.wait(10);
        fs.kill();
        let settled = (0..30)
            .filter(|n| journal.outcome(*n) == Outcome::Durable)
            .count();
        drop(journal);
        let (journal, recovery) = boot(&fs, small());
        let held = offsets(&mut journal.reader(0));
        assert!(held.len() >= settled && settled > 10);
        assert_eq!(held, (0..held.len() as u64).collect::<Vec<_>>());
        assert!(recovery.next >= held.len() as u64);
    }
}

#[test]
fn a_callback_that_panics_harms_nobody_else() {
    let (_fs, journal) = journal();
    let seen = Arc::new(AtomicU64::new(0));
    let other = seen.clone();
    journal.on_settled(|_| panic!("expected by the test"));
    journal.on_settled(move |settled| other.store(settled, Ordering::SeqCst));
    put(&journal, 1, b"a");
    put(&journal, 2, b"b");
    drop(journal);
    assert_eq!(seen.load(Ordering::SeqCst), 2);
}

#[test]
fn a_header_that_never_reached_the_disk_is_made_again() {
    for seed in 0..30 {
        let fs = SimFs::new(seed);
        let (journal, _) = boot(&fs, small());
        put(&journal, 1, &[1; 3000]);
        // The index of the first segment is synced, the header of the second is not.
        fs.faults(|faults| faults.fail_sync = Some(1));
        assert_eq!(
            try_put(&journal, 2, &[2; 2000]).1,
            Outcome::Failed(Failure::Poisoned)
        );
        drop(journal);
        let (journal, _) = boot(&fs, small());
        let offset = put(&journal, 3, &[3; 2000]);
        put(&journal, 4, &[4; 2000]);
        fs.power_cut();
        drop(journal);
        let (journal, recovery) = boot(&fs, small());
        assert_eq!(
            (recovery.quarantined_segments, recovery.quarantined_records),
            (0, 0)
        );
        let held = offsets(&mut journal.reader(offset));
        assert_eq!(held, [offset, offset + 1], "seed {seed}");
    }
}
