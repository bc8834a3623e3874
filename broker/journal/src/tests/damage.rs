//! Files that are not what they were.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::OpenError;
use crate::format;

fn segment(first: u64) -> PathBuf {
    Path::new(DIR).join(format::Name::plain(first).segment())
}

fn index(first: u64) -> PathBuf {
    Path::new(DIR).join(format::Name::plain(first).index())
}

fn uncached() -> Options {
    Options {
        tail_bytes: 0,
        ..small()
    }
}

/// A journal of `count` records of 100 bytes in one or more segments, closed in order or killed.
fn made(count: u64, orderly: bool) -> SimFs {
    let fs = SimFs::new(7);
    let (journal, _) = boot(&fs, small());
    for n in 0..count {
        put(&journal, n, &[n as u8; 76]);
    }
    if !orderly {
        fs.kill();
    }
    drop(journal);
    fs
}

fn held(fs: &SimFs) -> (Vec<u64>, Recovery) {
    let (journal, recovery) = boot(fs, uncached());
    (offsets(&mut journal.reader(0)), recovery)
}

fn without(count: u64, missing: &[u64]) -> Vec<u64> {
    (0..count).filter(|n| !missing.contains(n)).collect()
}

#[test]
fn a_torn_tail_is_cut() {
    for cut in 1..100 {
        let fs = made(10, false);
        fs.tamper(&segment(0), |bytes| bytes.truncate(32 + 10 * 100 - cut));
        let (offsets, recovery) = held(&fs);
        assert_eq!(offsets, without(9, &[]));
        assert_eq!(recovery.torn_bytes, 100 - cut as u64);
        // Somebody may have been told of the torn one: its offset is not given again.
        assert!(recovery.next >= 10);
        assert_eq!(held(&fs).1.torn_bytes, 0);
    }
}

#[test]
fn zeros_at_the_end_are_cut() {
    let fs = made(10, false);
    fs.tamper(&segment(0), |bytes| bytes.resize(9000, 0));
    let (offsets, recovery) = held(&fs);
    assert_eq!(
        (offsets, recovery.torn_bytes),
        (without(10, &[]), 9000 - 1032)
    );
}

#[test]
fn a_flipped_bit_costs_one_record() {
    for at in 0..100 {
        let fs = made(10, false);
        fs.tamper(&segment(0), |bytes| bytes[32 + 300 + at] ^= 0x10);
        let (offsets, recovery) = held(&fs);
        assert_eq!(offsets, without(10, &[3]), "byte {at}");
        assert_eq!((recovery.quarantined_records, recovery.torn_bytes), (1, 0));
    }
}

#[test]
fn a_reader_steps_over_a_flipped_bit_and_it_counts_once() {
    let fs = made(10, true);
    let (journal, recovery) = boot(&fs, uncached());
    assert_eq!(recovery.quarantined_records, 0);
    fs.tamper(&segment(0), |bytes| bytes[32 + 350] ^= 1);
    for _ in 0..3 {
        let mut reader = journal.reader(1);
        assert_eq!(reader.read(5000).unwrap().unwrap().end(), 3);
        let chunk = reader.read(5000).unwrap().unwrap();
        assert_eq!((chunk.quarantined, chunk.end()), (1, 10));
        assert_eq!(chunk.records().next().unwrap().offset, 4);
    }
    assert_eq!(journal.stats().quarantined_records, 1);
}

#[test]
fn damage_before_its_place_is_not_a_readers_own() {
    let fs = made(10, true);
    let (journal, _) = boot(&fs, uncached());
    fs.tamper(&segment(0), |bytes| bytes[32 + 350] ^= 1);
    for from in 0..10 {
        let mut reader = journal.reader(from);
        let mut quarantined = 0;
        while let Some(chunk) = reader.read(5000).unwrap() {
            quarantined += chunk.quarantined;
        }
        assert_eq!(quarantined, u64::from(from <= 3), "from {from}");
    }
}

#[test]
fn a_record_within_a_payload_is_not_served_in_its_place() {
    let fs = SimFs::new(7);
    let (journal, _) = boot(&fs, small());
    let mut forged = Records::new();
    forged.push(b"forged");
    let mut inner = forged.frames().to_vec();
    format::stamp(&mut inner, 1, 1, format::key(journal.id()));
    put(&journal, 1, b"first");
    put(
        &journal,
        1,
        &[&b"some text "[..], &inner, b" more"].concat(),
    );
    put(&journal, 1, b"last");
    fs.kill();
    drop(journal);
    fs.tamper(&segment(0), |bytes| bytes[32 + 29 + 24] ^= 1);
    let (journal, _) = boot(&fs, uncached());
    let payloads: Vec<_> = drain(&mut journal.reader(0))
        .into_iter()
        .map(|(.., p)| p)
        .collect();
    assert_eq!(payloads, [b"first".to_vec(), b"last".to_vec()]);
}

#[test]
fn garbage_anywhere_loses_only_what_it_covers() {
    for start in (0..900).step_by(37) {
        let fs = made(10, false);
        fs.tamper(&segment(0), |bytes| {
            bytes[32 + start..32 + start + 90].fill(0xAB)
        });
        let (offsets, recovery) = held(&fs);
        let hit = [start as u64 / 100, (start as u64 + 89) / 100];
        assert_eq!(offsets, without(10, &hit), "from {start}");
        let last_hit = hit.contains(&9);
        assert_eq!(recovery.quarantined_records, u64::from(!last_hit));
        assert_eq!(recovery.torn_bytes > 0, last_hit);
    }
}

#[test]
fn damage_in_a_closed_segment_never_cuts_it() {
    let fs = made(100, false);
    let len = fs.content(&segment(0)).unwrap().len();
    fs.tamper(&segment(0), |bytes| bytes[len - 5] ^= 1);
    fs.tamper(&index(0), Vec::clear);
    let (offsets, recovery) = held(&fs);
    let lost = (len as u64 - 32) / 100 - 1;
    assert_eq!(offsets, without(100, &[lost]));
    assert_eq!((recovery.quarantined_records, recovery.torn_bytes), (1, 0));
    assert_eq!(fs.content(&segment(0)).unwrap().len(), len);
}

#[test]
fn a_lost_or_damaged_index_is_made_again() {
    let spoil: [fn(&mut Vec<u8>); 3] = [
        Vec::clear,
        |bytes| bytes[50] ^= 1,
        |bytes| bytes.truncate(70),
    ];
    for spoil in spoil {
        let fs = made(100, true);
        let before = fs.content(&index(0)).unwrap();
        fs.tamper(&index(0), spoil);
        let (offsets, recovery) = held(&fs);
        assert_eq!(offsets, without(100, &[]));
        assert_eq!(recovery.quarantined_records, 0);
        assert_eq!(fs.content(&index(0)).unwrap(), before);
    }
}

#[test]
fn an_orderly_close_leaves_nothing_to_scan() {
    let fs = made(100, true);
    let segments: Vec<_> = fs
        .files()
        .into_iter()
        .filter(|f| f.extension().is_some())
        .collect();
    let indexed = segments
        .iter()
        .filter(|f| f.extension().unwrap() == "idx")
        .count();
    assert_eq!(indexed * 2, segments.len());
    // Damage is not noticed on opening then, only by the reader: nothing was scanned.
    fs.tamper(&segment(0), |bytes| bytes[40] ^= 1);
    let (journal, recovery) = boot(&fs, uncached());
    assert_eq!(recovery.quarantined_records, 0);
    assert_eq!(offsets(&mut journal.reader(0)), without(100, &[0]));
}

#[test]
fn a_stale_index_is_not_believed() {
    let fs = made(10, true);
    let (journal, _) = boot(&fs, small());
    put(&journal, 1, b"more");
    fs.kill();
    drop(journal);
    assert_eq!(held(&fs).0, without(11, &[]));
}

#[test]
fn records_outlive_their_damaged_header() {
    for orderly in [true, false] {
        let fs = made(10, orderly);
        fs.tamper(&segment(0), |bytes| bytes[3] ^= 1);
        let (offsets, recovery) = held(&fs);
        assert_eq!(
            (offsets, recovery.quarantined_records),
            (without(10, &[]), 1)
        );
        // Nothing more goes into that file.
        let (journal, _) = boot(&fs, uncached());
        assert_eq!(put(&journal, 1, b"new"), 10);
        assert_eq!(journal.stats().segments, 2);
        assert_eq!(super::offsets(&mut journal.reader(0)), without(11, &[]));
    }
}

#[test]
fn a_segment_without_an_intact_record_is_set_aside() {
    let fs = made(100, true);
    let (journal, _) = boot(&fs, small());
    let segments = journal.stats().segments;
    drop(journal);
    fs.tamper(&segment(0), |bytes| bytes.fill(0x55));
    let (journal, recovery) = boot(&fs, uncached());
    assert_eq!((recovery.quarantined_segments, recovery.torn_bytes), (1, 0));
    assert!(recovery.first > 0);
    assert_eq!(journal.stats().segments, segments - 1);
    assert!(
        fs.files()
            .contains(&Path::new(DIR).join(format::Name::plain(0).bad()))
    );
    // It counts, and goes when its room is needed.
    assert_eq!(journal.stats().bytes + 24, fs.used().0);
    for n in 0..1000 {
        put(&journal, n, &[0; 76]);
    }
    assert!(
        !fs.files()
            .contains(&Path::new(DIR).join(format::Name::plain(0).bad()))
    );
    assert!(fs.used().1 <= (64 << 10) + 24);
}

#[test]
fn an_interrupted_making_of_a_segment_leaves_no_trace() {
    for content in [vec![], vec![0; 20], vec![0; 32]] {
        let fs = made(10, false);
        fs.tamper(&segment(50), |bytes| *bytes = content.clone());
        let (offsets, recovery) = held(&fs);
        assert_eq!(offsets, without(10, &[]));
        assert_eq!(recovery.next, 50);
        assert!(!fs.files().contains(&segment(50)));
    }
}

#[test]
fn a_segment_of_another_journal_is_refused() {
    let fs = made(10, true);
    fs.tamper(&segment(50), |bytes| {
        *bytes = format::encode_segment_header(1, 50)
    });
    let error = Journal::open(fs.boot(), Path::new(DIR), small())
        .err()
        .unwrap();
    assert!(matches!(error, OpenError::Damaged { .. }));
    assert!(
        error
            .to_string()
            .contains("belongs to journal 0000000000000001"),
        "{error}"
    );
}

#[test]
fn a_renamed_segment_is_refused() {
    let fs = made(10, true);
    let bytes = fs.content(&segment(0)).unwrap();
    fs.tamper(&segment(50), |other| *other = bytes);
    let error = Journal::open(fs.boot(), Path::new(DIR), small())
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .contains("is really 00000000000000000000.seg"),
        "{error}"
    );
}

#[test]
fn a_newer_layout_is_refused_and_left_alone() {
    let fs = made(10, true);
    let mut newer = format::encode_identity(5);
    newer.truncate(20);
    newer[8] = 2;
    format::close_with_crc(&mut newer);
    fs.tamper(&Path::new(DIR).join("journal"), |bytes| {
        *bytes = newer.clone()
    });
    let error = Journal::open(fs.boot(), Path::new(DIR), small())
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("layout version 2 is newer"),
        "{error}"
    );
    assert_eq!(fs.content(&Path::new(DIR).join("journal")), Some(newer));
}

#[test]
fn a_lost_identity_is_taken_from_the_segments() {
    let fs = made(10, true);
    let identity = Path::new(DIR).join("journal");
    let before = fs.content(&identity);
    fs.tamper(&identity, Vec::clear);
    assert_eq!(held(&fs).0, without(10, &[]));
    assert_eq!(fs.content(&identity), before);
}

#[test]
fn without_any_identity_nothing_is_guessed() {
    let fs = made(10, true);
    fs.tamper(&Path::new(DIR).join("journal"), Vec::clear);
    fs.tamper(&segment(0), |bytes| bytes[3] ^= 1);
    let error = Journal::open(fs.boot(), Path::new(DIR), small())
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .contains("identity file is lost or damaged"),
        "{error}"
    );
}

#[test]
fn leftovers_are_removed_and_strangers_left_alone() {
    let fs = made(10, true);
    let dir = Path::new(DIR);
    for name in ["journal.tmp", "00000000000000000099.idx", "notes.txt"] {
        fs.tamper(&dir.join(name), |bytes| bytes.push(1));
    }
    assert_eq!(held(&fs).0, without(10, &[]));
    let files = fs.files();
    assert!(!files.contains(&dir.join("journal.tmp")));
    assert!(!files.contains(&index(99)));
    assert!(files.contains(&dir.join("notes.txt")));
}

#[test]
fn a_shortened_file_is_read_as_far_as_it_goes() {
    let fs = made(100, true);
    let (journal, _) = boot(&fs, uncached());
    fs.tamper(&segment(0), |bytes| bytes.truncate(32 + 450));
    let got = offsets(&mut journal.reader(0));
    assert_eq!(got[..4], [0, 1, 2, 3]);
    assert_eq!(*got.last().unwrap(), 99);
    assert!(journal.stats().quarantined_records > 0);
}

#[derive(Clone, Debug)]
enum Harm {
    Flip(usize, u8),
    Fill(usize, usize, u8),
    Cut(usize),
    Extend(usize, u8),
    Copy(usize),
}

fn any_harm() -> impl Strategy<Value = Harm> {
    let place = any::<usize>();
    prop_oneof![
        4 => (place, 0u8..8).prop_map(|(at, bit)| Harm::Flip(at, bit)),
        2 => (place, 1usize..300, any::<u8>()).prop_map(|(at, len, byte)| Harm::Fill(at, len, byte)),
        1 => place.prop_map(Harm::Cut),
        1 => (1usize..300, any::<u8>()).prop_map(|(len, byte)| Harm::Extend(len, byte)),
        1 => place.prop_map(Harm::Copy),
    ]
}

fn harm(bytes: &mut Vec<u8>, harm: &Harm) {
    let len = bytes.len().max(1);
    match *harm {
        Harm::Flip(at, bit) => {
            if let Some(byte) = bytes.get_mut(at % len) {
                *byte ^= 1 << bit;
            }
        }
        Harm::Fill(at, count, byte) => {
            let from = (at % len).min(bytes.len());
            let to = (from + count).min(bytes.len());
            bytes[from..to].fill(byte);
        }
        Harm::Cut(at) => bytes.truncate(at % len),
        Harm::Extend(count, byte) => bytes.extend(std::iter::repeat_n(byte, count)),
        Harm::Copy(at) => {
            let tail = bytes[(at % len).min(bytes.len())..].to_vec();
            bytes.extend(tail);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_the_files_only_what_was_appended_is_served(
        orderly in any::<bool>(),
        harms in prop::collection::vec((any::<prop::sample::Index>(), any_harm()), 1..6),
    ) {
        let fs = made(80, orderly);
        let files = fs.files();
        for (file, what) in &harms {
            let path: &PathBuf = file.get(&files);
            fs.tamper(path, |bytes| harm(bytes, what));
        }
        // A refusal is fine, inventing, repeating or panicking is not.
        if let Ok((journal, _)) = Journal::open(fs.boot(), Path::new(DIR), uncached()) {
            let got = drain(&mut journal.reader(0));
            prop_assert!(got.is_sorted_by(|a, b| a.0 < b.0));
            for (offset, time, payload) in got {
                prop_assert_eq!((time, payload), (offset, vec![offset as u8; 76]));
            }
            let next = journal.next();
            prop_assert_eq!(put(&journal, 1, b"goes on"), next);
        }
    }
}
