//! What emitting costs the application, whatever becomes of the events, and how much a publisher moves.
//!
//! `cargo bench -p thinglog-edge --bench emit -- [EVENTS] [PART]`: prints the machine and its load, and for
//! each thing that may go wrong the times of single `emit` calls, of one thread and of four, as fast as they
//! can (memory is full then and events are dropped) and one every tenth of a millisecond or so. The
//! message is made outside what is timed; what reading the clock costs is measured first and
//! subtracted. At the end events per second through a publisher that waits for room. With PART only the
//! lines that have it in their name.
//!
//! Threads that outnumber the cores are stopped by the system wherever they are, and for milliseconds.
//! What of a time is that and not ours stands in the last columns, medians and 99.9%, from the same
//! threads in the same loop right before each line: once the event is only freed (`nothing`), once it
//! goes to the end of a list of a thousand behind a lock of the standard library (`a lock`).

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod histogram;
mod peers;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::{
    collections::VecDeque,
    hint::black_box,
    net::SocketAddr,
    sync::{Arc, Barrier, Mutex},
    thread,
    time::{Duration, Instant},
};

use histogram::Histogram;
use support::Broker;
use thinglog_edge::{Builder, Publisher, Record};
use thinglog_schemas::Severity;

const LINE: &str = "192.0.2.17 - - [12/Mar/2026:06:25:24 +0000] \"GET /api/v1/lamps/7/state HTTP/1.1\" 200 512 \"-\" \"lampd/2.3 (arm)\" rt=0.004";
/// Between two events of a thread that takes its time; the system's timers add to it.
const PACE: Duration = Duration::from_micros(50);

fn builder(address: SocketAddr) -> Builder {
    Publisher::builder("bench")
        .broker(address.ip().to_string(), address.port())
        .linger(Duration::ZERO)
}

fn main() {
    let events = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .next();
    let events: u32 = events.unwrap_or(500_000);
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let clock = clock_cost();
    println!("{cores} cores, load {}", load.trim_end());
    println!(
        "{events} events of {} bytes; reading the clock costs {} ns, subtracted",
        LINE.len(),
        clock.as_nanos(),
    );
    println!(
        "{:40} {:>7} {:>7} {:>8} {:>10} {:>9} {:>9} | {:>7} {:>8} | {:>7} {:>8}",
        "ns an emit",
        "median",
        "p99",
        "p99.9",
        "worst",
        "events",
        "dropped",
        "nothing",
        "p99.9",
        "a lock",
        "p99.9"
    );
    let only = std::env::args()
        .skip(1)
        .find(|argument| argument.parse::<u32>().is_err() && !argument.starts_with('-'));
    let bench = Bench {
        events,
        clock,
        only: only.unwrap_or_default(),
    };
    let broker = Broker::start();
    bench.all("broker there", || builder(broker.address));
    bench.all("broker away", || builder(Broker::reserve()));
    let (hole, _hole) = peers::black_hole();
    bench.all("black hole", || builder(hole));
    let deaf = peers::mute(false);
    bench.all("peer without CONNACK", || builder(deaf));
    let mute = peers::mute(true);
    bench.all("peer that reads nothing", || builder(mute));
    with_spools(&bench, broker.address);
    drop(broker);
    if bench.only.is_empty() {
        throughput(events);
    }
}

fn with_spools(bench: &Bench, address: SocketAddr) {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    bench.all("spool", || builder(address).spool(&spool, 64 << 20));
    bench.all("spool, broker away", || {
        builder(Broker::reserve()).spool(&spool, 64 << 20)
    });
    let small = folder.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let Some(_disk) = peers::small_disk(&small, 6 << 20) else {
        println!("disk full: not measured, only root may mount a small one");
        return;
    };
    bench.all("disk full, broker away", || {
        builder(Broker::reserve()).spool(&small, 64 << 20)
    });
}

struct Bench {
    events: u32,
    clock: Duration,
    /// What is in the name of the lines that are wanted.
    only: String,
}

impl Bench {
    /// One and four threads, flat out and with pauses, each with a publisher of its own.
    fn all(&self, what: &str, builder: impl Fn() -> Builder) {
        for threads in [1, 4] {
            self.run(
                &format!("{what}, {threads} flat out"),
                &builder,
                threads,
                None,
            );
            self.run(
                &format!("{what}, {threads} paced"),
                &builder,
                threads,
                Some(PACE),
            );
        }
    }

    fn run(
        &self,
        what: &str,
        builder: &impl Fn() -> Builder,
        threads: u32,
        pace: Option<Duration>,
    ) {
        if !what.contains(&self.only) {
            return;
        }
        let publisher = builder().start().unwrap();
        // What is far from the ordinary at first: the connection, first allocations.
        publisher.emit(Record::new("nginx", Severity::INFO, LINE));
        publisher.flush_blocking(Duration::from_millis(500));
        let events = self.events / threads / if pace.is_some() { 20 } else { 1 };
        let time = |emit: &(dyn Fn(Record) + Sync)| self.time(threads, events, pace, emit);
        let nothing = time(&|record| drop(black_box(record)));
        let list = Mutex::new(VecDeque::new());
        let a_lock = time(&|record| drop(pass_through(&list, record)));
        let times = time(&|record| publisher.emit(record));
        println!(
            "{what:40} {:>7} {:>7} {:>8} {:>10} {:>9} {:>9} | {:>7} {:>8} | {:>7} {:>8}",
            times.at(0.5),
            times.at(0.99),
            times.at(0.999),
            times.worst(),
            events * threads,
            publisher.counters().dropped,
            nothing.at(0.5),
            nothing.at(0.999),
            a_lock.at(0.5),
            a_lock.at(0.999),
        );
        publisher.close_blocking(Duration::ZERO);
    }

    fn time(
        &self,
        threads: u32,
        events: u32,
        pace: Option<Duration>,
        emit: &(dyn Fn(Record) + Sync),
    ) -> Histogram {
        let barrier = Barrier::new(threads as usize);
        let of_one = || {
            barrier.wait();
            time(events, pace, self.clock, emit)
        };
        let mut times = Histogram::new();
        thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(of_one)).collect();
            for thread in running {
                times.add(&thread.join().unwrap());
            }
        });
        times
    }
}

/// The record goes to the end of the list, and what is a thousand events old comes back.
fn pass_through(list: &Mutex<VecDeque<Record>>, record: Record) -> Option<Record> {
    let mut list = list.lock().unwrap();
    list.push_back(record);
    let full = list.len() > 1000;
    full.then(|| list.pop_front())?
}

fn time(
    events: u32,
    pace: Option<Duration>,
    clock: Duration,
    emit: &(dyn Fn(Record) + Sync),
) -> Histogram {
    let source: Arc<str> = "nginx".into();
    let mut times = Histogram::new();
    for i in 0..events {
        let record = Record::new(source.clone(), Severity::INFO, format!("{LINE} {i}"));
        if let Some(pace) = pace {
            thread::sleep(pace);
        }
        let start = Instant::now();
        emit(record);
        times.record(start.elapsed().saturating_sub(clock));
    }
    times
}

/// The median of what two readings of the clock are apart.
fn clock_cost() -> Duration {
    let mut times = Histogram::new();
    for _ in 0..100_000 {
        let start = Instant::now();
        times.record(start.elapsed());
    }
    Duration::from_nanos(times.at(0.5))
}

fn throughput(events: u32) {
    let broker = Broker::start();
    let publisher = builder(broker.address).start().unwrap();
    let source: Arc<str> = "nginx".into();
    let (start, cpu) = (Instant::now(), cpu_time());
    for i in 0..events {
        let record = Record::new(source.clone(), Severity::INFO, format!("{LINE} {i}"));
        assert!(publisher.emit_blocking(record));
    }
    assert!(publisher.flush_blocking(Duration::from_secs(60)));
    let (wall, cpu) = (start.elapsed(), cpu_time() - cpu);
    let counters = publisher.counters();
    println!(
        "emit_blocking to PUBACK: {:.0} events/s, {:.2} CPU s per million (broker included), {:.1} bytes an event",
        f64::from(events) / wall.as_secs_f64(),
        cpu / f64::from(events) * 1e6,
        counters.payload_bytes as f64 / f64::from(events),
    );
}

/// Seconds of CPU time of this process.
fn cpu_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = |at: usize| -> f64 {
        let field = fields.split(' ').nth(at);
        field
            .and_then(|ticks| ticks.parse().ok())
            .unwrap_or_default()
    };
    // utime and stime, in hundredths of a second on every Linux there is.
    (ticks(11) + ticks(12)) / 100.0
}
