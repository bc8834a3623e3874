//! What emitting costs the application, and how much a publisher moves.
//!
//! `cargo bench -p thinglog-edge --bench emit [EVENTS]`: prints the machine, the time of single
//! `emit` calls with the broker away and with one that acknowledges at once, and events per second
//! through a publisher that waits for room, with its threads' CPU time. The clock's own cost is in
//! every figure.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::{Duration, Instant};

use thinglog_edge::{Builder, Publisher, Record};
use thinglog_schemas::Severity;

#[path = "../tests/support/mod.rs"]
mod support;
use support::Broker;

const LINE: &str = "192.0.2.17 - - [12/Mar/2026:06:25:24 +0000] \"GET /api/v1/lamps/7/state HTTP/1.1\" 200 512 \"-\" \"lampd/2.3 (arm)\" rt=0.004";

fn builder(address: std::net::SocketAddr) -> Builder {
    Publisher::builder("bench").broker(address.ip().to_string(), address.port())
}

fn main() {
    let events = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .next();
    let events: u32 = events.unwrap_or(1_000_000);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores, {events} events of {} bytes", LINE.len());

    let away = builder(Broker::reserve())
        .linger(Duration::ZERO)
        .start()
        .unwrap();
    latency("emit, broker away, memory full", &away, events);

    let broker = Broker::start();
    let publisher = builder(broker.address).start().unwrap();
    publisher.emit(Record::new(
        "nginx",
        Severity::INFO,
        "until it is connected",
    ));
    assert!(publisher.flush_blocking(Duration::from_secs(30)));
    latency("emit, broker there", &publisher, events);
    publisher.close_blocking(Duration::from_secs(30));

    let publisher = builder(broker.address).start().unwrap();
    let source: std::sync::Arc<str> = "nginx".into();
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

fn latency(what: &str, publisher: &Publisher, events: u32) {
    let source: std::sync::Arc<str> = "nginx".into();
    let mut times: Vec<u32> = Vec::with_capacity(events as usize);
    for i in 0..events {
        let record = Record::new(source.clone(), Severity::INFO, format!("{LINE} {i}"));
        let start = Instant::now();
        publisher.emit(record);
        times.push(start.elapsed().as_nanos().try_into().unwrap_or(u32::MAX));
    }
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{what}: median {} ns, p99 {} ns, p99.9 {} ns, worst {} ns; {} dropped",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        publisher.counters().dropped,
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
