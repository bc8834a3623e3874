//! A day of a device with a spool on flash, simulated: outages, steps of the clock, a full spool and
//! a full disk, failed syncs, SIGKILL, power cuts. The outbox, the queue and the spool are the real
//! ones, over the journal's simulated file system; the receiver and the books are the model's.
//!
//! More of it: `THINGLOG_DAY_ROUNDS` (default 1), from `THINGLOG_DAY_SEED` (default 1) on.

mod books;
mod receiver;

use std::{
    collections::VecDeque,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use thinglog_journal::sim::SimFs;
use thinglog_schemas::{Level, Severity, batch::MAX_PAYLOAD};
use tokio::sync::oneshot;

use crate::{
    clock::Clock,
    entrance::inbox_bytes,
    levels::{Levels, Now},
    marks::Mark,
    queue::{Pushed, Queue, QueueOptions},
    record::Record,
    shared::Shared,
    spool::{Block, Spool, SpoolOptions},
    worker::outbox::Outbox,
};
use books::Books;
use receiver::Receiver;

const DAY: Duration = Duration::from_secs(24 * 3600);
const CAP: u64 = 4 << 20;
const MEMORY: usize = 512 << 10;
const INFLIGHT: usize = 16;
/// The key of the one file that is followed.
const FILE: u64 = 77;

/// xorshift64*: a seed is a day.
struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % below.max(1)
    }

    /// Once in so many times.
    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Text that does not compress well.
    fn noise(&mut self, bytes: u64) -> String {
        let letter = |_| char::from(b'!' + self.below(90) as u8);
        (0..bytes).map(letter).collect()
    }
}

/// One life of the process.
struct Process {
    shared: Shared,
    outbox: Outbox,
    flush: Option<oneshot::Receiver<bool>>,
    /// The next line of the file.
    line: u64,
    waiting: Option<Record>,
}

/// The world around it.
struct Day {
    random: Random,
    fs: SimFs,
    start: Instant,
    now: Duration,
    /// Nanoseconds by the device's clock beside the true ones.
    clock_off: i64,
    process: Process,
    life: u64,
    online: bool,
    online_until: Duration,
    next_pkid: u16,
    wire: VecDeque<(u16, Bytes)>,
    receiver: Receiver,
    books: Books,
    /// Lines that were written to the file.
    lines: u64,
    disk_full_until: Option<Duration>,
}

fn boot(fs: &SimFs, life: u64, lines: u64) -> Process {
    let options = QueueOptions {
        memory_bytes: MEMORY,
        batch_events: 100,
        batch_bytes: 64 << 10,
        flush_age: Duration::from_millis(200),
    };
    let queue = Queue::new(options, Levels::new(Level::Debug), 1000 + life);
    let shared = Shared::new(queue, inbox_bytes(MEMORY), Clock::new(None));
    let options = SpoolOptions {
        path: Path::new("/spool").to_owned(),
        bytes: CAP,
        block: Block::default(),
    };
    let spool = Spool::open_in(fs.boot(), &options, "lamp-7", "one", || {}).unwrap();
    {
        let mut queue = shared.queue.lock();
        queue.restore_places(spool.places());
        queue.set_together(Some(spool.block().age));
    }
    let place = shared.queue.lock().place(FILE);
    let line = place.map_or(0, |place| u64::from_le_bytes(place.try_into().unwrap()));
    assert!(line <= lines, "the file is resumed behind its end");
    Process {
        outbox: Outbox::new(Some(spool), INFLIGHT, MEMORY, 1),
        shared,
        flush: None,
        line,
        waiting: None,
    }
}

impl Day {
    fn new(seed: u64) -> Day {
        let fs = SimFs::new(seed);
        Day {
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            process: boot(&fs, 0, 0),
            fs,
            start: Instant::now(),
            now: Duration::ZERO,
            clock_off: 0,
            life: 0,
            online: true,
            online_until: Duration::from_secs(1800),
            next_pkid: 1,
            wire: VecDeque::new(),
            receiver: Receiver::default(),
            books: Books::default(),
            lines: 0,
            disk_full_until: None,
        }
    }

    fn now(&self) -> Now {
        let wall = 1_800_000_000_000_000_000 + self.now.as_nanos() as i64 + self.clock_off;
        Now {
            mono: self.start + self.now,
            wall: Some(wall as u64),
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(500 + self.random.below(7000));
        self.weather();
        self.emit();
        self.follow();
        if self.random.once_in(150) && self.process.flush.is_none() {
            let answer = self.process.shared.wait_durable(true, None);
            self.process.flush = Some(answer);
            self.books.flush_begins();
        }
        self.pass();
        self.look_at_flush();
        if self.random.once_in(1500) {
            self.crash();
        }
        let (_, peak) = self.fs.used();
        assert!(peak <= CAP, "{peak} bytes in the directory");
    }

    /// What befalls the device.
    fn weather(&mut self) {
        if self.now >= self.online_until {
            self.online = !self.online;
            let minutes = match self.online {
                true => 3 + self.random.below(90),
                false => 5 + self.random.below(300),
            };
            self.online_until = self.now + Duration::from_secs(60 * minutes);
            self.connect();
        }
        if self.random.once_in(400) {
            self.connect();
        }
        if self.random.once_in(2000) {
            let hours = self.random.below(200) as i64 - 100;
            self.clock_off += hours * 3_600_000_000_000;
        }
        if self.random.once_in(2500) {
            let nth = self.random.below(3) as u32;
            match self.random.below(4) {
                0 => self.fs.faults(|faults| faults.fail_sync = Some(nth)),
                1 => self.fs.faults(|faults| faults.fail_sync_dir = Some(nth)),
                2 => self.fs.faults(|faults| faults.fail_write = Some(nth)),
                _ => self.fs.faults(|faults| faults.short_writes = true),
            }
        }
        if self.random.once_in(5000) && self.disk_full_until.is_none() {
            self.fs.leave_free(self.random.below(20_000));
            let minutes = 1 + self.random.below(60);
            self.disk_full_until = Some(self.now + Duration::from_secs(60 * minutes));
        }
        if self.disk_full_until.is_some_and(|until| until <= self.now) {
            self.disk_full_until = None;
            self.fs.faults(|faults| faults.capacity = None);
        }
    }

    /// A new connection, or none: what is on its way is gone.
    fn connect(&mut self) {
        self.wire.clear();
        self.next_pkid = 1;
        self.process.outbox.window.reset();
    }

    fn emit(&mut self) {
        let storm = self.random.once_in(300);
        let count = self.random.below(if storm { 400 } else { 7 });
        for _ in 0..count {
            let severity = match self.random.below(100) {
                0..15 => Severity::DEBUG,
                15..90 => Severity::INFO,
                90..97 => Severity::WARN,
                _ => Severity::ERROR,
            };
            let source = ["app", "net", "kern"][self.random.below(3) as usize];
            let bytes = match self.random.below(20) {
                0 => 4000,
                _ => 600,
            };
            let noise = self.random.below(bytes);
            let noise = self.random.noise(noise);
            let text = format!(
                "{} {noise}",
                self.books.emitted(self.life, source, severity)
            );
            let mut record = Record::new(source, severity, text).at(self.now().wall.unwrap());
            let cost = record.cut_to_limits();
            self.process.shared.queue.push(record, cost);
        }
    }

    /// The file's lines go where there is room; some are filtered by a rule.
    fn follow(&mut self) {
        self.lines += self.random.below(4);
        while self.process.line < self.lines || self.process.waiting.is_some() {
            let queue = &self.process.shared.queue;
            let record = match self.process.waiting.take() {
                Some(record) => record,
                None => {
                    let line = self.process.line;
                    self.process.line += 1;
                    let place = (line + 1).to_le_bytes();
                    if line % 17 == 3 {
                        let key = FILE;
                        let place = place.into();
                        queue.lock().note_place("file", Mark { key, place });
                        continue;
                    }
                    let noise = self.random.below(200);
                    let text = format!("line {line} {}", self.random.noise(noise));
                    Record::new("file", Severity::INFO, text).marked(FILE, place)
                }
            };
            let pushed = queue.lock().push_patient(record);
            if let Pushed::Full(record) = pushed {
                self.process.waiting = Some(record);
                break;
            }
        }
    }

    /// What the worker does in every pass, and the broker's part.
    fn pass(&mut self) {
        let now = self.now();
        self.process.shared.queue.lock().tick(now.mono);
        for _ in 0..40 {
            let Process { outbox, shared, .. } = &mut self.process;
            let more = outbox.fill(shared, now, false);
            if let Some(spool) = &outbox.spool {
                spool.wait_until_decided();
            }
            self.send();
            self.broker();
            let Process { outbox, shared, .. } = &mut self.process;
            let released = outbox.release(shared, now.mono);
            if !more && !released && outbox.spool.as_ref().is_some_and(Spool::is_idle) {
                break;
            }
        }
        self.process.shared.poll_waiters(now.mono);
    }

    fn send(&mut self) {
        if !self.online {
            return;
        }
        let Process { outbox, shared, .. } = &mut self.process;
        while let Some(sealed) = outbox.next(INFLIGHT, MAX_PAYLOAD, shared) {
            let (epoch, patient) = (sealed.epoch, sealed.patient);
            let payload = sealed.payload.clone();
            if patient && outbox.window.is_around(epoch) {
                self.receiver.went_around(&payload);
            }
            self.wire.push_back((self.next_pkid, payload));
            outbox.window.handed();
            outbox.window.assigned(self.next_pkid);
            self.next_pkid = self.next_pkid.wrapping_add(1).max(1);
        }
    }

    /// Stores some of what is on the wire; acknowledgements may be late.
    fn broker(&mut self) {
        let count = self.random.below(8) as usize;
        for _ in 0..count.min(self.wire.len()) {
            let Some((pkid, payload)) = self.wire.pop_front() else {
                return;
            };
            self.receiver.store(&payload);
            if self.random.once_in(100) {
                // Stored, and the connection is lost before the acknowledgement arrives.
                self.connect();
                return;
            }
            assert!(self.process.outbox.window.acknowledged(pkid));
        }
    }

    fn look_at_flush(&mut self) {
        let Some(flush) = &mut self.process.flush else {
            return;
        };
        let Ok(durable) = flush.try_recv() else {
            return;
        };
        self.process.flush = None;
        if durable {
            let stored = self.process.outbox.spool.as_ref().unwrap().contents();
            self.books.flushed(self.life, &stored, &self.receiver);
        }
    }

    fn crash(&mut self) {
        let spool = self.process.outbox.spool.as_ref().unwrap();
        // What the disk has promised to keep.
        let stored = spool.contents();
        if self.random.once_in(2) {
            self.fs.kill();
        } else {
            self.fs.power_cut();
        }
        self.disk_full_until = None;
        self.life += 1;
        let before = std::mem::replace(
            &mut self.process,
            // Somewhere to stand while the old one lets go.
            boot(&SimFs::new(1), 0, u64::MAX),
        );
        drop(before);
        self.process = boot(&self.fs, self.life, self.lines);
        self.connect();
        self.books.crashed(&stored);
    }

    /// The network and the disk are there, and all that is left arrives.
    fn evening(&mut self) {
        self.fs.faults(|faults| *faults = Default::default());
        self.online = true;
        self.connect();
        let _flush = self.process.shared.wait_durable(true, None);
        for _ in 0..200_000 {
            self.now += Duration::from_millis(300);
            self.follow();
            self.pass();
            let queued = self.process.shared.queue.lock().depth().0;
            let caught_up = self.process.line == self.lines && self.process.waiting.is_none();
            if queued == 0 && caught_up && self.process.outbox.is_empty() {
                return;
            }
        }
        panic!("not everything left the device");
    }
}

#[test]
fn a_day_with_everything_that_can_happen_loses_nothing_silently() {
    let number = |name: &str, default: u64| {
        let text = std::env::var(name).ok();
        text.map_or(default, |text| text.parse().unwrap())
    };
    let first = number("THINGLOG_DAY_SEED", 1);
    for seed in first..first + number("THINGLOG_DAY_ROUNDS", 1) {
        println!("THINGLOG_DAY_SEED={seed} THINGLOG_DAY_ROUNDS=1");
        let mut day = Day::new(seed);
        while day.now < DAY {
            day.step();
        }
        day.evening();
        let report = day.books.close(day.life, day.lines, &day.receiver);
        println!("{report}");
    }
}
