//! A disk that others have filled, below the spool's own cap.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use thinglog_journal::sim::SimFs;
use thinglog_schemas::{Level, Severity, batch::Decoder};

use super::{link::INFLIGHT, outbox::Outbox};
use crate::{
    clock::Clock,
    levels::{Levels, Now},
    queue::{CLASSES, Queue, QueueOptions, class},
    record::Record,
    shared::Shared,
    spool::{Block, Spool, SpoolOptions},
};

const CAP: u64 = 8 << 20;
const MEMORY: usize = 256 << 10;

/// A device whose broker is away.
struct Device {
    fs: SimFs,
    shared: Shared,
    outbox: Outbox,
    start: Instant,
    now: Duration,
    emitted: [u64; CLASSES],
    noise: u64,
}

impl Device {
    fn new() -> Device {
        let fs = SimFs::new(1);
        let options = SpoolOptions {
            path: Path::new("/spool").to_owned(),
            bytes: CAP,
            block: Block::default(),
        };
        let spool = Spool::open_in(fs.boot(), &options, "lamp-7", "one", || {}).unwrap();
        let options = QueueOptions {
            memory_bytes: MEMORY,
            batch_events: 100,
            batch_bytes: 64 << 10,
            flush_age: Duration::from_millis(200),
        };
        let queue = Queue::new(options, Levels::new(Level::Debug), 7);
        Device {
            fs,
            shared: Shared::new(queue, 0, Clock::new(None)),
            outbox: Outbox::new(Some(spool), INFLIGHT, MEMORY, 1),
            start: Instant::now(),
            now: Duration::ZERO,
            emitted: [0; CLASSES],
            noise: 1,
        }
    }

    fn emit(&mut self, severity: Severity, count: u64) {
        for _ in 0..count {
            let text: String = (0..500)
                .map(|_| {
                    self.noise ^= self.noise << 13;
                    self.noise ^= self.noise >> 7;
                    self.noise ^= self.noise << 17;
                    char::from(b'!' + (self.noise >> 32) as u8 % 90)
                })
                .collect();
            self.emitted[class(severity)] += 1;
            let record = Record::new("app", severity, text).at(1_800_000_000_000_000_000);
            self.shared.queue.lock().push(record);
        }
    }

    /// The worker's passes of so many seconds; some follow each other at once.
    fn pass(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            self.now += Duration::from_millis(100);
            let mono = self.start + self.now;
            let wall = Some(1_800_000_000_000_000_000);
            self.shared.queue.lock().tick(mono);
            for _ in 0..20 {
                self.outbox.fill(&self.shared, Now { mono, wall }, false);
                if let Some(spool) = &self.outbox.spool {
                    spool.wait_until_decided();
                }
                self.outbox.release(&self.shared, mono);
            }
            assert!(self.fs.used().0 <= CAP);
        }
    }

    /// Events on disk by class, and how many of each are declared dropped there.
    fn stored(&self) -> ([u64; CLASSES], [u64; CLASSES]) {
        let (mut events, mut drops) = ([0; CLASSES], [0; CLASSES]);
        for sealed in self.outbox.spool.as_ref().unwrap().contents() {
            let batch = Decoder::new().decode(&sealed.payload).unwrap();
            for entry in &batch.entries {
                events[class(entry.severity)] += 1;
            }
            for drop in &batch.drops {
                drops[class(drop.severity)] += drop.count;
            }
        }
        (events, drops)
    }

    fn reserve(&self) -> Option<usize> {
        let content = self.fs.content(Path::new("/spool/reserve"));
        content.map(|content| content.len())
    }

    /// Everything is on disk or declared there.
    fn check_books(&self) {
        let (events, drops) = self.stored();
        for class in 0..CLASSES {
            let known = events[class] + drops[class];
            assert_eq!(known, self.emitted[class], "class {class}");
        }
        let dropped = self.shared.queue.lock().counters().dropped;
        assert_eq!(dropped, drops.iter().sum::<u64>());
    }
}

#[test]
fn when_others_have_filled_the_disk_the_least_grave_give_way_to_graver_ones() {
    let mut device = Device::new();
    let reserve = device.reserve();
    assert!(reserve.is_some());
    for _ in 0..50 {
        device.emit(Severity::INFO, 100);
        device.pass(2);
    }
    device.check_books();
    device.fs.leave_free(0);
    device.emit(Severity::INFO, 300);
    device.emit(Severity::ERROR, 200);
    device.pass(20);
    let (events, _) = device.stored();
    assert_eq!(events[3], 200, "every ERROR is safe");
    assert!(events[1] < 5300 && events[1] > 2000, "{events:?}");

    // There is room again.
    device.fs.faults(|faults| faults.capacity = None);
    device.emit(Severity::INFO, 10);
    device.pass(120);
    device.check_books();
    assert_eq!(device.reserve(), reserve, "made again");
}

#[test]
fn with_nothing_less_grave_on_a_full_disk_events_wait_in_memory_until_there_is_room() {
    let mut device = Device::new();
    device.emit(Severity::ERROR, 100);
    device.pass(2);
    device.fs.leave_free(0);
    device.emit(Severity::ERROR, 100);
    device.pass(30);
    assert_eq!(device.stored().0[3], 100);
    device.emit(Severity::INFO, 1000);
    device.pass(30);
    device.fs.faults(|faults| faults.capacity = None);
    device.pass(5);
    device.check_books();
    let (events, drops) = device.stored();
    assert_eq!((events[3], drops[3]), (200, 0));
    assert!(drops[1] > 0, "memory has its cap");
}
