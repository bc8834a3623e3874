//! Opening a journal whose files were damaged in any way.

use std::path::{Path, PathBuf};

use crate::sim::SimFs;
use crate::{Journal, OpenError, Options, Outcome, Records};

const DIR: &str = "/sim";
/// Records in the journal before it is damaged.
const RECORDS: u64 = 40;

fn options() -> Options {
    Options {
        segment_bytes: 2 << 10,
        max_bytes: 64 << 10,
        tail_bytes: 0,
        ..Options::default()
    }
}

fn payload(number: u64) -> Vec<u8> {
    let length = (number * 37 % 200) as usize;
    format!("record {number} ")
        .into_bytes()
        .into_iter()
        .cycle()
        .take(10 + length)
        .collect()
}

/// Damages the files of a journal as `data` says, opens it, reads it, appends to it and reads again.
///
/// # Panics
/// When anything is served that was never appended, or out of order, or an append fails.
pub fn recovery(data: &[u8]) {
    let fs = SimFs::new(7);
    let Ok((journal, _)) = Journal::open(fs.boot(), Path::new(DIR), options()) else {
        return;
    };
    for number in 0..RECORDS {
        let mut records = Records::new();
        records.push(&payload(number));
        let offset = journal.append(number, &records).map(|range| range.start);
        assert_eq!(
            offset.ok().map(|at| journal.wait(at)),
            Some(Outcome::Durable)
        );
    }
    // Without an orderly end the last segment has no index and is scanned.
    if data.first().is_some_and(|byte| byte & 1 == 0) {
        fs.kill();
    }
    drop(journal);
    for harm in data.get(1..).unwrap_or_default().chunks(6) {
        damage(&fs, harm);
    }
    match Journal::open(fs.boot(), Path::new(DIR), options()) {
        Ok((journal, _)) => check(&journal),
        Err(OpenError::Damaged { .. }) => {}
        Err(error) => panic!("it did not open: {error}"),
    }
}

/// One harm: which file, what, where, with what.
fn damage(fs: &SimFs, harm: &[u8]) {
    let files = fs.files();
    let [file, what, high, low, value, length, ..] = *harm else {
        return;
    };
    let Some(path): Option<&PathBuf> = files.get(usize::from(file) % files.len().max(1)) else {
        return;
    };
    fs.tamper(path, |bytes| {
        let at = usize::from(u16::from_be_bytes([high, low])) % (bytes.len() + 1);
        let end = (at + usize::from(length)).min(bytes.len());
        match what % 7 {
            0 => bytes
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|b| *b ^= 1 << (value % 8)),
            1 => bytes.truncate(at),
            2 => bytes[at..end].fill(value),
            3 => drop(bytes.drain(at..end)),
            4 => bytes
                .splice(at..at, vec![value; usize::from(length)])
                .for_each(drop),
            5 => bytes.extend_from_within(at..end),
            _ => bytes.resize(bytes.len() + usize::from(length), value),
        }
    });
}

fn check(journal: &Journal) {
    let mut records = Records::new();
    records.push(b"after");
    let appended = journal.append(0, &records).map(|range| range.start);
    let Ok(new) = appended else {
        panic!("nothing can be appended: {appended:?}");
    };
    assert_eq!(journal.wait(new), Outcome::Durable);
    let mut reader = journal.reader(0);
    let mut before = None;
    while let Ok(Some(chunk)) = reader.read(4 << 10) {
        for record in chunk.records() {
            assert!(
                before.is_none_or(|before| before < record.offset),
                "out of order"
            );
            before = Some(record.offset);
            let is_right = match record.offset {
                offset if offset == new => *record.payload == *b"after",
                offset => *record.payload == *payload(offset),
            };
            assert!(is_right, "{} was never appended", record.offset);
        }
    }
    assert_eq!(before, Some(new), "what was appended last is read");
}
