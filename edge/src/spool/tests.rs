use std::{
    fs,
    path::Path,
    sync::mpsc::{Receiver, sync_channel},
};

use bytes::Bytes;
use thinglog_schemas::batch::{Decoder, DropReason};

use super::*;
use crate::clock;

/// A spool and the news from its journal's thread.
fn open(path: &Path, bytes: u64) -> (Spool, Receiver<()>) {
    let (sender, news) = sync_channel(1024);
    let options = SpoolOptions {
        path: path.to_owned(),
        bytes,
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
fn read_all(spool: &mut Spool) -> Vec<(Sealed, Option<u64>)> {
    let mut sealer = Sealer::new();
    std::iter::from_fn(|| spool.next(&mut sealer)).collect()
}

fn seqs(read: &[(Sealed, Option<u64>)]) -> Vec<u64> {
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
    spool.release(before[3].1.unwrap(), 0);
    spool.note_released(clock::mono(), true);
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
    spool.release(read[4].1.unwrap(), 0);
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
    assert_eq!(spool.pressure(None), Pressure::Reserve);
    assert!(bytes_in(dir.path()) > MIN_BYTES / 2);

    let read = read_all(&mut spool);
    assert_eq!(read.len() as u64, stored);
    spool.release(read[read.len() / 2].1.unwrap(), 0);
    assert!(spool.is_ready(clock::mono()));
    assert_eq!(spool.pressure(None), Pressure::None);
    store(&mut spool, &news, refused);
}

#[test]
fn a_smaller_cap_that_is_configured_later_is_felt_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, news) = open(dir.path(), MIN_BYTES);
    store(&mut spool, &news, (0..10).map(|seq| sealed(7, seq, 10_000)));
    assert_eq!(spool.pressure(None), Pressure::None);
    assert_eq!(spool.pressure(Some(100_000)), Pressure::Reserve);
}

#[test]
fn a_smaller_cap_is_not_felt_any_more_when_all_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, news) = open(dir.path(), MIN_BYTES);
    store(&mut spool, &news, (0..10).map(|seq| sealed(7, seq, 10_000)));
    let read = read_all(&mut spool);
    assert_eq!(spool.pressure(Some(100_000)), Pressure::Reserve);
    spool.release(read[4].1.unwrap(), 50_000);
    assert_eq!(spool.pressure(Some(100_000)), Pressure::None);
    assert_eq!(spool.pressure(Some(50_000)), Pressure::Reserve);
    spool.release(read[9].1.unwrap(), 40_000);
    assert_eq!(spool.pressure(Some(1)), Pressure::None);
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
    assert_eq!(read[4].1, None);
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
    while stored < 30 {
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
