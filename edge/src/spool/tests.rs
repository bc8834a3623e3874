use std::{
    fs,
    path::Path,
    sync::mpsc::{Receiver, sync_channel},
};

use bytes::Bytes;
use thinglog_schemas::batch::{Decoder, DropReason};

use super::*;
use crate::{
    clock,
    sealed::{Classes, Sealer},
};

/// A spool and the news from its journal's thread.
fn open(path: &Path, bytes: u64) -> (Spool, Receiver<()>) {
    let (sender, news) = sync_channel(1024);
    let options = SpoolOptions {
        path: path.to_owned(),
        bytes,
        block: Block::default(),
    };
    let spool = Spool::open(&options, "lamp-7", "one", move || {
        let _ = sender.try_send(());
    });
    (spool.unwrap(), news)
}

fn sealed(epoch: u64, seq: u64, bytes: usize) -> Sealed {
    Sealed {
        source: "app".into(),
        epoch,
        first_seq: seq,
        last_seq: seq,
        events: 1,
        classes: Classes::default(),
        patient: false,
        marks: Vec::new(),
        payload: Bytes::from(vec![seq as u8; bytes]),
        settles: None,
    }
}

/// Writes batches, one group each, to durability.
fn store(spool: &mut Spool, news: &Receiver<()>, batches: impl IntoIterator<Item = Sealed>) {
    for batch in batches {
        let mut group = VecDeque::from([batch]);
        spool.append(&mut group, clock::wall(), clock::mono());
        assert!(group.is_empty(), "refused");
        while spool.poll(clock::mono()).is_none() {
            news.recv().unwrap();
        }
    }
}

/// The group that is being written, once it is decided.
fn wait(spool: &mut Spool, news: &Receiver<()>) -> Group {
    loop {
        match spool.poll(clock::mono()) {
            Some(group) => break group,
            None => news.recv().unwrap(),
        }
    }
}

/// Everything there is to send, as (epoch, first seq) and the offset to release.
fn read_all(spool: &mut Spool) -> Vec<(Sealed, Place)> {
    let mut sealer = Sealer::new();
    std::iter::from_fn(|| spool.next(&mut sealer)).collect()
}

fn seqs(read: &[(Sealed, Place)]) -> Vec<u64> {
    read.iter().map(|(sealed, _)| sealed.first_seq).collect()
}

fn bytes_in(path: &Path) -> u64 {
    let entries = fs::read_dir(path).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata().unwrap() {
            metadata if metadata.is_dir() => bytes_in(&entry.path()),
            metadata => metadata.len(),
        })
        .sum()
}

#[test]
fn what_was_not_released_is_read_again_after_a_restart_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, news) = open(dir.path(), MIN_BYTES);
    store(&mut spool, &news, (0..10).map(|seq| sealed(7, seq, 100)));
    let before = read_all(&mut spool);
    assert_eq!(seqs(&before), (0..10).collect::<Vec<_>>());
    spool.release(before[3].1.offset + 1, 0);
    spool.note(clock::mono(), true);
    drop(spool);

    let (mut spool, _news) = open(dir.path(), MIN_BYTES);
    assert_eq!(read_all(&mut spool), before[4..]);
    assert!(spool.is_drained());
}

#[test]
fn a_lost_release_note_repeats_batches_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, news) = open(dir.path(), MIN_BYTES);
    store(&mut spool, &news, (0..5).map(|seq| sealed(7, seq, 100)));
    let read = read_all(&mut spool);
    spool.release(read[4].1.offset + 1, 0);
    drop(spool);

    let (mut spool, _news) = open(dir.path(), MIN_BYTES);
    assert_eq!(seqs(&read_all(&mut spool)), [0, 1, 2, 3, 4]);
}

#[test]
fn a_full_spool_refuses_stays_below_its_cap_and_takes_again_what_release_makes_room_for() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, news) = open(dir.path(), MIN_BYTES);
    let mut stored = 0;
    let refused = loop {
        let mut group = VecDeque::from([sealed(7, stored, 50_000)]);
        spool.append(&mut group, clock::wall(), clock::mono());
        if !group.is_empty() {
            break group;
        }
        while spool.poll(clock::mono()).is_none() {
            news.recv().unwrap();
        }
        stored += 1;
        assert!(bytes_in(dir.path()) <= MIN_BYTES);
    };
    assert_eq!(refused[0].first_seq, stored);
    assert!(spool.is_stuck());
    assert!(!spool.is_ready(clock::mono()));
    assert!(spool.is_tight(None) && spool.is_full(None));
    assert!(bytes_in(dir.path()) > MIN_BYTES / 2);

    let read = read_all(&mut spool);
    assert_eq!(read.len() as u64, stored);
    spool.release(read[read.len() / 2].1.offset + 1, 0);
    assert!(spool.is_ready(clock::mono()));
    assert!(!spool.is_tight(None));
    store(&mut spool, &news, refused);
}

#[test]
fn a_smaller_cap_that_is_configured_later_is_felt_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, news) = open(dir.path(), MIN_BYTES);
    store(&mut spool, &news, (0..10).map(|seq| sealed(7, seq, 10_000)));
    assert!(!spool.is_tight(None));
    assert!(spool.is_tight(Some(100_000)));
}

#[test]
fn a_smaller_cap_is_not_exceeded_by_a_byte() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, news) = open(dir.path(), MIN_BYTES);
    spool.set_cap(Some(35_000));
    let held = |spool: &Spool| -> usize {
        let contents = spool.contents();
        contents.iter().map(|sealed| sealed.payload.len()).sum()
    };
    let mut group: VecDeque<Sealed> = (0..10).map(|seq| sealed(7, seq, 10_000)).collect();
    spool.append(&mut group, clock::wall(), clock::mono());
    assert!(matches!(wait(&mut spool, &news), Group::Durable(stored) if stored.len() == 3));
    assert_eq!((held(&spool), group.len()), (30_000, 7));
    // There is no room for another one before something is acknowledged.
    spool.append(&mut group, clock::wall(), clock::mono());
    assert!(spool.is_idle() && spool.is_stuck() && spool.is_full(Some(35_000)));
    let read = read_all(&mut spool);
    spool.release(read[1].1.offset + 1, 20_000);
    assert!(spool.is_ready(clock::mono()) && !spool.is_full(Some(35_000)));
    spool.append(&mut group, clock::wall(), clock::mono());
    assert!(matches!(wait(&mut spool, &news), Group::Durable(stored) if stored.len() == 2));
    assert_eq!((held(&spool), group.len()), (30_000, 5));
}

#[test]
fn a_smaller_cap_is_not_felt_any_more_when_all_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, news) = open(dir.path(), MIN_BYTES);
    store(&mut spool, &news, (0..10).map(|seq| sealed(7, seq, 10_000)));
    let read = read_all(&mut spool);
    assert!(spool.is_tight(Some(100_000)));
    spool.release(read[4].1.offset + 1, 50_000);
    assert!(!spool.is_tight(Some(100_000)));
    assert!(spool.is_tight(Some(50_000)));
    spool.release(read[9].1.offset + 1, 40_000);
    assert!(!spool.is_tight(Some(1)));
}

#[test]
fn a_damaged_record_is_skipped_and_what_it_held_is_declared() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, news) = open(dir.path(), MIN_BYTES);
    store(&mut spool, &news, (0..9).map(|seq| sealed(7, seq, 1000)));
    drop(spool);
    let journal = dir.path().join("journal");
    let segment = fs::read_dir(&journal)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "seg"))
        .unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(500).position(|window| window == [4; 500]);
    bytes[at.unwrap()] ^= 1;
    fs::write(&segment, bytes).unwrap();

    let (mut spool, _news) = open(dir.path(), MIN_BYTES);
    let read = read_all(&mut spool);
    assert_eq!(seqs(&read), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    let declared = Decoder::new().decode(&read[4].0.payload).unwrap();
    assert!(declared.entries.is_empty());
    let drop = &declared.drops[0];
    assert_eq!((drop.from, drop.to, drop.count), (4, 4, 1));
    assert_eq!(drop.reason, DropReason::Unreadable);
    assert!(spool.unreadable() > 0);
    // What follows the hole releases both.
    assert!(!read[4].1.last);
}

#[test]
fn a_hole_without_damage_is_what_went_around_a_full_spool_and_is_not_declared() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, news) = open(dir.path(), MIN_BYTES);
    let seqs_stored = [0, 1, 5, 6];
    store(
        &mut spool,
        &news,
        seqs_stored.map(|seq| sealed(7, seq, 100)),
    );
    drop(spool);
    let (mut spool, _news) = open(dir.path(), MIN_BYTES);
    assert_eq!(seqs(&read_all(&mut spool)), seqs_stored);
}

#[test]
fn a_group_larger_than_the_cap_is_stored_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, news) = open(dir.path(), MIN_BYTES);
    let mut group: VecDeque<Sealed> = (0..50).map(|seq| sealed(7, seq, 100_000)).collect();
    let mut stored = 0;
    while stored < 20 {
        spool.append(&mut group, clock::wall(), clock::mono());
        stored += match wait(&mut spool, &news) {
            Group::Durable(part) => part.len(),
            Group::Failed(_) => panic!("refused"),
        };
    }
    assert_eq!(group[0].first_seq, stored as u64);
    assert_eq!(
        seqs(&read_all(&mut spool)),
        Vec::from_iter(0..stored as u64)
    );
}

#[test]
fn a_group_is_read_back_in_the_order_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, news) = open(dir.path(), MIN_BYTES);
    let mut group: VecDeque<Sealed> = (0..20).map(|seq| sealed(seq % 3, seq, 10_000)).collect();
    let given: Vec<Sealed> = group.iter().cloned().collect();
    spool.append(&mut group, clock::wall(), clock::mono());
    assert!(spool.writing_bytes() > 0 && !spool.is_ready(clock::mono()));
    let durable = wait(&mut spool, &news);
    assert_eq!(durable, Group::Durable(given.clone()));
    let read: Vec<Sealed> = read_all(&mut spool).into_iter().map(|(s, _)| s).collect();
    assert_eq!(read, given);
}

fn marked(seq: u64, bytes: usize, places: &[(u64, u64)]) -> Sealed {
    let mark = |(key, place): &(u64, u64)| Mark {
        key: *key,
        place: place.to_le_bytes().into(),
    };
    Sealed {
        patient: true,
        marks: places.iter().map(mark).collect(),
        ..sealed(7, seq, bytes)
    }
}

fn place(spool: &Spool, key: u64) -> Option<u64> {
    let place = spool.places().get(key)?;
    Some(u64::from_le_bytes(place[..].try_into().unwrap()))
}

#[test]
fn the_places_of_sources_are_those_of_the_last_records_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, news) = open(dir.path(), MIN_BYTES);
    let batches = [
        marked(0, 100, &[(1, 10), (2, 20)]),
        marked(1, 100, &[(1, 11)]),
        marked(2, 100, &[]),
    ];
    store(&mut spool, &news, batches);
    // Not closed in order: nothing but the records tells.
    drop(spool);
    assert!(!dir.path().join("marks").exists());
    let (spool, _news) = open(dir.path(), MIN_BYTES);
    assert_eq!(place(&spool, 1), Some(11));
    assert_eq!(place(&spool, 2), Some(20));
    assert_eq!(place(&spool, 3), None);
}

#[test]
fn a_place_outlives_the_segments_that_held_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, news) = open(dir.path(), MIN_BYTES);
    store(&mut spool, &news, [marked(0, 100, &[(1, 10), (2, 1)])]);
    store(
        &mut spool,
        &news,
        (1..30).map(|seq| marked(seq, 100_000, &[(2, seq)])),
    );
    let read = read_all(&mut spool);
    let first = spool.journal.as_ref().unwrap().first();
    spool.release(read[28].1.offset + 1, 0);
    assert!(
        spool.journal.as_ref().unwrap().first() > first,
        "a segment went"
    );
    drop(spool);
    let (spool, _news) = open(dir.path(), MIN_BYTES);
    assert_eq!(place(&spool, 1), Some(10));
    assert_eq!(place(&spool, 2), Some(29));
}

#[test]
fn places_without_a_record_are_written_down_on_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, news) = open(dir.path(), MIN_BYTES);
    store(&mut spool, &news, [marked(0, 100, &[(1, 10)])]);
    let later = marked(1, 0, &[(1, 12), (3, 5)]).marks;
    spool.pass_places(later, clock::mono());
    spool.note(clock::mono(), true);
    drop(spool);
    let (spool, _news) = open(dir.path(), MIN_BYTES);
    assert_eq!((place(&spool, 1), place(&spool, 3)), (Some(12), Some(5)));
}

#[test]
fn a_damaged_file_of_places_gives_way_to_the_records() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, news) = open(dir.path(), MIN_BYTES);
    store(&mut spool, &news, [marked(0, 100, &[(1, 10)])]);
    spool.note(clock::mono(), true);
    drop(spool);
    let path = dir.path().join("marks");
    let mut text = fs::read(&path).unwrap();
    text[70] ^= 1;
    fs::write(&path, text).unwrap();
    let (spool, _news) = open(dir.path(), MIN_BYTES);
    assert_eq!(place(&spool, 1), Some(10));
}

#[test]
fn a_spool_of_another_layout_is_refused_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let identity = r#"{"version":1,"device":"lamp-7","instance":"a"}"#;
    fs::write(dir.path().join("spool.json"), identity).unwrap();
    let options = SpoolOptions {
        path: dir.path().to_owned(),
        bytes: MIN_BYTES,
        block: Block::default(),
    };
    let error = Spool::open(&options, "lamp-7", "one", || {}).err().unwrap();
    let text = error.to_string();
    assert!(
        text.contains("version 1") && text.contains("move the directory away"),
        "{text}"
    );
}
