//! What a spool writes to flash for what it is given: bytes, and pages of 4 KiB that a sync has to
//! write. Counted below the real outbox and spool, over simulated hours.

use std::{
    collections::BTreeSet,
    io,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use thinglog_journal::{
    fs::{Entry, Fs, FsFile, Lock},
    sim::SimFs,
};
use thinglog_schemas::{Level, Severity, batch::MAX_PAYLOAD};

use crate::{
    clock::Clock,
    levels::{Levels, Now},
    queue::{Queue, QueueOptions},
    record::Record,
    shared::Shared,
    spool::{Block, Spool, SpoolOptions},
    worker::outbox::Outbox,
};

const PAGE: u64 = 4096;

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    bytes: u64,
    syncs: u64,
    /// Pages of files, each once a sync.
    pages: u64,
    /// Creations, renames and removals that a directory was synced for.
    dir_syncs: u64,
}

struct CountingFs {
    inner: Arc<SimFs>,
    count: Arc<Mutex<Count>>,
}

struct CountingFile {
    inner: Arc<dyn FsFile>,
    count: Arc<Mutex<Count>>,
    dirty: Mutex<BTreeSet<u64>>,
}

impl CountingFs {
    fn file(&self, inner: Arc<dyn FsFile>) -> Arc<dyn FsFile> {
        Arc::new(CountingFile {
            inner,
            count: self.count.clone(),
            dirty: Mutex::default(),
        })
    }
}

impl Fs for CountingFs {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir(dir)
    }
    fn lock(&self, dir: &Path) -> io::Result<Lock> {
        self.inner.lock(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.inner.list(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        Ok(self.file(self.inner.create(path)?))
    }
    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn FsFile>> {
        Ok(self.file(self.inner.open(path, write)?))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.count.lock().dir_syncs += 1;
        self.inner.sync_dir(dir)
    }
}

impl FsFile for CountingFile {
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.count.lock().bytes += buf.len() as u64;
        let pages = offset / PAGE..=(offset + buf.len() as u64 - 1) / PAGE;
        self.dirty.lock().extend(pages);
        self.inner.write_at(buf, offset)
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buf, offset)
    }
    fn sync(&self) -> io::Result<()> {
        let mut count = self.count.lock();
        count.syncs += 1;
        count.pages += std::mem::take(&mut *self.dirty.lock()).len() as u64;
        drop(count);
        self.inner.sync()
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.inner.truncate(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn forget_cache(&self) {
        self.inner.forget_cache();
    }
}

/// A file that is never synced is written back all the same.
impl Drop for CountingFile {
    fn drop(&mut self) {
        self.count.lock().pages += self.dirty.lock().len() as u64;
    }
}

/// What a device like it would log.
fn line(number: u64) -> String {
    let (host, port) = (number % 7 + 10, 1024 + number * 7919 % 60_000);
    format!(
        "sshd[{}]: Accepted publickey for deploy from 192.168.1.{host} port {port} ssh2: ED25519 \
         SHA256:{:016x}",
        1000 + number % 50,
        number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    )
}

/// Emits `rate` events a second for `time` from `sources` sources; returns what was written for so
/// many bytes of payload.
fn run(rate: u64, sources: u64, time: Duration, block: Block, online: bool) -> (Count, u64) {
    let count = Arc::new(Mutex::new(Count::default()));
    let fs = CountingFs {
        inner: SimFs::new(1).boot(),
        count: count.clone(),
    };
    let options = SpoolOptions {
        path: "/spool".into(),
        bytes: 64 << 20,
        block,
    };
    let spool = Spool::open_in(Arc::new(fs), &options, "lamp-7", "one", || {}).unwrap();
    let queue = QueueOptions {
        memory_bytes: 8 << 20,
        batch_events: 1000,
        batch_bytes: 256 << 10,
        flush_age: Duration::from_millis(200),
    };
    let mut queue = Queue::new(queue, Levels::new(Level::Info), 5);
    queue.set_together(Some(block.age));
    let shared = Shared::new(queue, 0, Clock::new(None));
    let mut outbox = Outbox::new(Some(spool), 64, 8 << 20, 1);
    // Opening a spool is not the wear of using it.
    *count.lock() = Count::default();
    let start = Instant::now();
    let tick = Duration::from_millis(50);
    let (mut now, mut emitted, mut pkid) = (Duration::ZERO, 0, 0u16);
    while now < time {
        now += tick;
        while emitted < rate * now.as_millis() as u64 / 1000 {
            let source = format!("unit{}", emitted % sources);
            let record = Record::new(source, Severity::INFO, line(emitted));
            let time = 1_800_000_000_000_000_000 + now.as_nanos() as u64;
            shared.queue.lock().push(record.at(time));
            emitted += 1;
        }
        let mono = start + now;
        let wall = Some(1_800_000_000_000_000_000);
        shared.queue.lock().tick(mono);
        while outbox.fill(&shared, Now { mono, wall }, false) {}
        if let Some(spool) = &outbox.spool {
            spool.wait_until_decided();
        }
        while online && outbox.next(64, MAX_PAYLOAD, &shared).is_some() {
            pkid = pkid % 60_000 + 1;
            outbox.window.handed();
            outbox.window.assigned(pkid);
            assert!(outbox.window.acknowledged(pkid));
        }
        outbox.release(&shared, mono);
    }
    let payload = match online {
        true => shared.figures.payload_bytes.load(Relaxed),
        false => {
            let stored = outbox.spool.as_ref().unwrap().contents();
            stored.iter().map(|s| s.payload.len() as u64).sum()
        }
    };
    let written = *count.lock();
    (written, payload)
}

#[test]
fn flash_is_written_at_most_1_3_times_what_is_spooled() {
    let hour = Duration::from_secs(3600);
    let second = Block::default();
    let relaxed = Block {
        age: Duration::from_secs(30),
        ..second
    };
    let cases = [
        ("1 event/s, online", 1, 1, hour, second, true),
        ("1 event/s, offline", 1, 1, hour, second, false),
        (
            "1 event/s, offline, blocks of 30 s",
            1,
            1,
            hour,
            relaxed,
            false,
        ),
        (
            "20 events/s of 10 sources, online",
            20,
            10,
            hour / 4,
            second,
            true,
        ),
        ("2,000 events/s, offline", 2000, 4, hour / 60, second, false),
    ];
    for (what, rate, sources, time, block, online) in cases {
        let (count, payload) = run(rate, sources, time, block, online);
        let ratio = count.bytes as f64 / payload as f64;
        let pages = (count.pages * PAGE) as f64 / payload as f64;
        println!(
            "{what}, {} s: {payload} bytes of payload, {} written ({ratio:.2}), {} syncs, {} pages \
             of 4 KiB ({pages:.1}), {} of directories",
            time.as_secs(),
            count.bytes,
            count.syncs,
            count.pages,
            count.dir_syncs
        );
        assert!(ratio <= 1.3, "{what}: {ratio}");
    }
}
