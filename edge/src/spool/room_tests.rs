use std::{collections::VecDeque, time::Instant};

use thinglog_schemas::{
    Level, Severity,
    batch::{ClockInfo, Decoder, DropReason, MAX_PAYLOAD},
};

use super::{
    super::{Block, Group, MIN_BYTES, SpoolOptions},
    *,
};
use crate::{
    levels::Levels,
    queue::{CLASSES, Queue, QueueOptions, class},
    record::Record,
};

const SEVERITIES: [Severity; CLASSES] = [
    Severity::DEBUG,
    Severity::INFO,
    Severity::WARN,
    Severity::ERROR,
];

fn open(path: &std::path::Path) -> Spool {
    let options = SpoolOptions {
        path: path.to_owned(),
        bytes: MIN_BYTES,
        block: Block::default(),
    };
    Spool::open(&options, "lamp-7", "one", || {}).unwrap()
}

/// Fills a spool: batches of every severity, and of a source that waits.
fn fill(spool: &mut Spool, batches: u64) {
    let options = QueueOptions {
        memory_bytes: 64 << 20,
        batch_events: 1000,
        batch_bytes: 32 << 20,
        flush_age: std::time::Duration::ZERO,
    };
    let mut queue = Queue::new(options, Levels::new(Level::Debug), 7);
    let mut noise = 1u64;
    for batch in 0..batches {
        for event in 0..40 {
            let text: String = (0..500)
                .map(|_| {
                    noise ^= noise << 13;
                    noise ^= noise >> 7;
                    noise ^= noise << 17;
                    char::from(b'!' + (noise >> 32) as u8 % 90)
                })
                .collect();
            let severity = SEVERITIES[event % CLASSES];
            match batch % 5 {
                0 => drop(queue.push_patient(Record::new("file", severity, text))),
                _ => drop(queue.push(Record::new("app", severity, text))),
            }
        }
        queue.start_flush();
        let clock = ClockInfo {
            boot: 1,
            sent_mono: 0,
            synced: true,
        };
        let mut group = VecDeque::new();
        while let Some(cut) = queue.cut(None, clock) {
            Sealer::new().seal(cut, MAX_PAYLOAD, &mut group);
        }
        let now = Instant::now();
        spool.append(&mut group, 5, now);
        assert!(group.is_empty(), "refused");
        spool.wait_until_decided();
        assert!(matches!(spool.poll(now), Some(Group::Durable(_))));
    }
}

/// Events and declared drops by class, of the sources that wait and of the others.
fn census(spool: &Spool) -> ([u64; CLASSES], [u64; CLASSES], u64) {
    let (mut patient, mut others, mut dropped) = ([0; CLASSES], [0; CLASSES], 0);
    for sealed in spool.contents() {
        let batch = Decoder::new().decode(&sealed.payload).unwrap();
        let counts = if sealed.patient {
            &mut patient
        } else {
            &mut others
        };
        for entry in &batch.entries {
            counts[class(entry.severity)] += 1;
        }
        dropped += batch.drops.iter().map(|drop| drop.count).sum::<u64>();
    }
    (patient, others, dropped)
}

#[test]
fn a_class_goes_everywhere_before_the_next_and_nothing_of_those_who_wait() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    fill(&mut spool, 100);
    let (patient, before, _) = census(&spool);
    let mut sealer = Sealer::new();
    let mut last_class = 0;
    let mut steps = 0;
    loop {
        let (_, held, _) = census(&spool);
        let given = spool.give_up(2, &mut sealer, Instant::now());
        if given.more {
            continue;
        }
        let (still, left, dropped) = census(&spool);
        assert_eq!(still, patient);
        let total = |counts: &[u64; CLASSES]| counts.iter().sum::<u64>();
        assert_eq!(total(&left) + dropped, total(&before), "all is declared");
        assert_eq!(given.events, total(&held) - total(&left));
        assert_eq!((left[2], left[3]), (before[2], before[3]));
        if !given.freed {
            break;
        }
        let touched = (0..CLASSES).rfind(|class| left[*class] < held[*class]);
        assert!(touched.unwrap() >= last_class, "a graver class went first");
        last_class = touched.unwrap();
        steps += 1;
    }
    // Only what is in the segment that is being written is left of them.
    let (_, left, _) = census(&spool);
    assert!(
        left[0] < before[0] / 4 && left[1] < before[1] / 4,
        "{left:?} of {before:?}"
    );
    assert!(steps > 8);
    let expected = census(&spool);
    drop(spool);
    assert_eq!(census(&open(dir.path())), expected);
}

#[test]
fn what_was_sent_or_acknowledged_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    fill(&mut spool, 60);
    let mut sealer = Sealer::new();
    // Ten are acknowledged, ten more on their way, some were read ahead.
    let sent: Vec<_> = (0..20).map(|_| spool.next(&mut sealer).unwrap()).collect();
    spool.release(sent[9].1.offset + 1, 0);
    spool.rewind(None);
    while spool.give_up(3, &mut sealer, Instant::now()).freed {}
    let stored = spool.contents();
    for (n, (sealed, _)) in sent.iter().enumerate() {
        let there = stored.iter().any(|s| s.payload == sealed.payload);
        assert_eq!(there, n >= 10, "{n}");
    }
    let thinned = stored
        .iter()
        .filter(|s| !s.patient && s.classes.least() == Some(3));
    assert!(thinned.count() > 5);
    // Reading goes on behind what was sent.
    let next = spool.next(&mut sealer).unwrap();
    assert!(next.1.offset > sent[19].1.offset);
}

#[test]
fn nothing_goes_for_what_is_not_graver() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    fill(&mut spool, 60);
    let before = census(&spool);
    let mut sealer = Sealer::new();
    while spool.give_up(0, &mut sealer, Instant::now()).more {}
    assert_eq!(census(&spool), before);
    assert_eq!(spool.floor(), Some(0));
    assert!(!spool.may_give_up(0) && spool.may_give_up(1));
}

/// Flips a bit in the middle of the `nth` segment.
fn damage(dir: &std::path::Path, nth: usize) {
    let files = std::fs::read_dir(dir.join("journal")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let mut segments: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    segments.sort();
    let mut bytes = std::fs::read(&segments[nth]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segments[nth], bytes).unwrap();
}

/// Events of declarations that they cannot be read, among everything that is to be sent.
fn unreadable(spool: &mut Spool, sealer: &mut Sealer) -> u64 {
    let read = std::iter::from_fn(|| spool.next(sealer));
    let batches = read.map(|(sealed, _)| Decoder::new().decode(&sealed.payload).unwrap());
    let drops = batches.flat_map(|batch| batch.drops);
    drops
        .filter(|drop| drop.reason == DropReason::Unreadable)
        .map(|drop| drop.count)
        .sum()
}

#[test]
fn what_was_damaged_is_declared_after_its_segment_was_rewritten_and_the_process_ended() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path());
    fill(&mut spool, 60);
    drop(spool);
    damage(dir.path(), 2);
    let mut sealer = Sealer::new();
    let mut spool = open(dir.path());
    loop {
        let given = spool.give_up(2, &mut sealer, Instant::now());
        if !given.freed && !given.more {
            break;
        }
    }
    assert_eq!(spool.unreadable(), 1);
    drop(spool);

    let mut spool = open(dir.path());
    assert_eq!(unreadable(&mut spool, &mut sealer), 40, "a batch");
    assert_eq!(spool.unreadable(), 0, "nothing is left of it");
    assert!(dir.path().join("damaged").exists());
    spool.release(spool.end(), 0);
    assert!(!dir.path().join("damaged").exists());
}
