//! Segments that take the place of others.

use super::*;
use crate::{AppendError, OnFull, ReplaceError};

/// A journal with closed segments of some records each.
fn filled(fs: &SimFs) -> Journal {
    let (journal, _) = boot(fs, small());
    for n in 0..200u64 {
        put(&journal, n, &[n as u8; 100]);
    }
    assert!(journal.closed().len() >= 4);
    journal
}

/// Keeps every tenth record of the segments `from..to`, and a byte of it.
fn thin(journal: &Journal, from: usize, to: usize) -> Result<(u64, u64), ReplaceError> {
    let closed = journal.closed();
    let (first, through) = (closed[from].first, closed[to - 1].end);
    let mut with = journal.replacement();
    for offset in (first..through).filter(|offset| offset % 10 == 0) {
        with.push_with(offset, offset, |out| out.push(offset as u8));
    }
    journal.replace(first, through, &with)?;
    Ok((first, through))
}

fn expected(first: u64, through: u64) -> Vec<(u64, u64, Vec<u8>)> {
    let all = (0..200u64).filter(|n| !(first..through).contains(n) || n % 10 == 0);
    all.map(|n| {
        let len = if (first..through).contains(&n) {
            1
        } else {
            100
        };
        (n, n, vec![n as u8; len])
    })
    .collect()
}

#[test]
fn readers_see_the_new_records_and_so_does_the_next_opening() {
    let fs = SimFs::new(1);
    let journal = filled(&fs);
    let mut early = journal.reader(0);
    assert!(early.read(1 << 10).unwrap().is_some());
    let before = journal.stats().bytes;
    let (first, through) = thin(&journal, 1, 3).unwrap();
    assert!(journal.stats().bytes < before);
    assert_eq!(drain(&mut journal.reader(0)), expected(first, through));
    let next = early.offset();
    let rest = expected(first, through);
    let rest: Vec<_> = rest.into_iter().filter(|(n, ..)| *n >= next).collect();
    assert_eq!(drain(&mut early), rest);
    drop(journal);
    assert_eq!(fs.files().iter().filter(|f| f.ends_with("seg")).count(), 0);
    let (journal, recovery) = boot(&fs, small());
    assert_eq!(recovery.next, 200);
    assert_eq!(drain(&mut journal.reader(0)), expected(first, through));
}

#[test]
fn a_segment_can_be_replaced_again_alone_or_with_its_neighbours() {
    let fs = SimFs::new(2);
    let journal = filled(&fs);
    let (first, through) = thin(&journal, 1, 2).unwrap();
    assert_eq!(journal.closed()[1].end, through);
    assert_eq!(thin(&journal, 1, 2).unwrap(), (first, through));
    let (first, through) = thin(&journal, 0, 4).unwrap();
    drop(journal);
    let (journal, _) = boot(&fs, small());
    assert_eq!(drain(&mut journal.reader(0)), expected(first, through));
    journal.release(through).unwrap();
    assert_eq!(journal.first(), through);
}

#[test]
fn a_crash_at_any_write_leaves_the_old_records_or_the_new() {
    for seed in 0..60 {
        let fs = SimFs::new(seed);
        let journal = filled(&fs);
        // Every way of failing, at every place there is.
        fs.faults(|faults| match seed % 3 {
            0 => faults.fail_sync = Some(seed as u32 / 12),
            1 => faults.fail_sync_dir = Some(seed as u32 / 12),
            _ => faults.fail_write = Some(seed as u32 / 12),
        });
        let closed = journal.closed();
        let done = thin(&journal, 1, 3);
        if seed % 2 == 0 {
            fs.power_cut();
        } else {
            fs.kill();
        }
        drop(journal);
        let (journal, _) = boot(&fs, small());
        let got = drain(&mut journal.reader(0));
        let (first, through) = (closed[1].first, closed[2].end);
        let old: Vec<_> = (0..200).map(|n| (n, n, vec![n as u8; 100])).collect();
        match done {
            Ok((first, through)) => assert!(got == expected(first, through), "seed {seed}"),
            Err(ReplaceError::Poisoned) => {
                assert!(got == old || got == expected(first, through), "seed {seed}");
            }
            Err(error) => assert!(got == old, "seed {seed}: {error}"),
        }
    }
}

#[test]
fn only_whole_closed_segments_are_replaced_and_only_by_records_of_theirs() {
    let fs = SimFs::new(3);
    let journal = filled(&fs);
    let closed = journal.closed();
    let refused = |from, through, offset| {
        let mut with = journal.replacement();
        with.push_with(offset, 0, |out| out.push(1));
        let refused = journal.replace(from, through, &with);
        assert!(
            matches!(refused, Err(ReplaceError::Range { .. })),
            "{refused:?}"
        );
    };
    refused(closed[0].first + 1, closed[0].end, 5);
    refused(closed[0].first, closed[0].end + 1, 5);
    refused(closed[0].first, closed[0].end, closed[0].end);
    refused(closed[1].first, closed[1].end, 0);
    let last = closed.last().unwrap();
    refused(last.first, journal.next(), last.first);
}

#[test]
fn appends_leave_the_reserve_and_a_replacement_uses_it() {
    let fs = SimFs::new(4);
    let options = Options {
        on_full: OnFull::Refuse,
        reserve_bytes: 6 << 10,
        ..small()
    };
    let (journal, _) = boot(&fs, options.clone());
    let mut records = Records::new();
    records.push(&[7; 500]);
    while let Ok(range) = journal.append(0, &records) {
        journal.wait(range.start);
    }
    let bytes = journal.stats().bytes;
    assert!(bytes <= options.max_bytes - options.reserve_bytes);
    assert!(bytes > options.max_bytes - options.reserve_bytes - (2 << 10));
    // As large as what it replaces: there is just room for both.
    let first = journal.closed()[0];
    let mut with = journal.replacement();
    for offset in first.first..first.end {
        with.push_with(offset, 0, |out| out.extend([7; 500]));
    }
    journal.replace(first.first, first.end, &with).unwrap();
    assert!(fs.used().1 <= options.max_bytes + 24);
    // Two are too many.
    let second = journal.closed()[1];
    for offset in second.first..second.end {
        with.push_with(offset, 0, |out| out.extend([7; 500]));
    }
    let refused = journal.replace(first.first, second.end, &with);
    assert!(
        matches!(refused, Err(ReplaceError::NoRoom { .. })),
        "{refused:?}"
    );
    let full = journal.append(0, &records);
    assert!(matches!(full, Err(AppendError::Full { .. })));
}
