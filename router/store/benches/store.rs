//! What a core writes, what it takes on disk, and how long searches take.
//!
//! `cargo bench -p thinglog-store --bench store [-- --events N]`: generated syslog from a thousand devices,
//! five million events unless said otherwise. Beside the searches stands `zstd -dc | grep -c` over the same
//! lines, where both are installed, and must find as many. Times are CPU times of a thread unless it says
//! otherwise; of searches the middle one of three.
//!
//! `-- --lines FILE...`: only what real lines take on disk. Each line is stored once, the lines of a file as
//! those of a device, in the same form as the agent sends them; NDJSON is what `thinglog logs --json` writes.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use thinglog_schemas::query::{EventQuery, Facts};
use thinglog_schemas::{Attributes, Event, EventId, Severity, json};
use thinglog_store::{Counts, Fleet, Options, Search, Store};

#[path = "../../../edge/tests/support/syslog.rs"]
mod syslog;

const DEVICES: u64 = 1000;
/// Events that a device sends at once.
const BATCH: u64 = 200;
/// Events that the router hands on at once.
const CHUNK: usize = 8192;
const NEEDLE: &str = "quagga7";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut events = 5_000_000;
    let mut files = Vec::new();
    let mut rest = arguments.iter().filter(|it| *it != "--bench");
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--events" => events = rest.next().and_then(|it| it.parse().ok()).unwrap(),
            "--lines" => files.extend(rest.by_ref().cloned()),
            other => panic!("{other}? There are --events N and --lines FILE..."),
        }
    }
    let folder = std::env::var("THINGLOG_BENCH_DIR").unwrap_or_else(|_| "target".into());
    let folder = Path::new(&folder).join("store-benchmark");
    let _ = std::fs::remove_dir_all(&folder);
    match files.is_empty() {
        true => run(&folder, &generated(), events),
        false => real(&folder, &files),
    }
    let _ = std::fs::remove_dir_all(&folder);
}

/// Severity and text of generated lines.
fn generated() -> Vec<(Severity, String)> {
    let lines = syslog::Syslog::new(7).take(200_000);
    lines
        .map(|line| (line.severity, line.rest.clone()))
        .collect()
}

/// The lines of a file as events of a device.
fn events_of(file: &str, device: u64, begin: u64) -> Vec<Event> {
    let bytes = std::fs::read(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(str::trim_end);
    let lines = lines.filter(|line| !line.is_empty()).enumerate();
    let source = Path::new(file).file_stem().unwrap_or_default();
    let source: Arc<str> = Arc::from(source.to_string_lossy());
    let name: Arc<str> = Arc::from(format!("device-{device:04}"));
    lines
        .map(|(seq, line)| {
            let seq = seq as u64;
            let mixed = seq.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
            let time = (begin + seq * 20_000_000 + mixed) / 1000 * 1000;
            Event {
                device: Arc::clone(&name),
                source: Arc::clone(&source),
                id: EventId::Spooled {
                    epoch: (device + 1).wrapping_mul(0xD6E8_FEB8_6659_FD93),
                    seq,
                },
                time,
                time_estimated: false,
                severity: Severity::INFO,
                message: line.to_owned(),
                truncated: false,
                attributes: Attributes::new(),
                // A batch a second.
                received: (time / 1_000_000_000 + 1) * 1_000_000_000 + mixed,
            }
        })
        .collect()
}

/// What lines of files take on disk.
fn real(folder: &Path, files: &[String]) {
    let (store, mut writer) = Store::open(options(folder), None).unwrap();
    let begin = (options(folder).now)() - 8 * 3600 * 1_000_000_000;
    let (mut count, mut text, mut ndjson) = (0, 0, 0);
    let mut scratch = Vec::new();
    for (device, file) in (0..).zip(files) {
        for events in events_of(file, device, begin).chunks(CHUNK) {
            let borrowed: Vec<&Event> = events.iter().collect();
            writer.append(&borrowed).unwrap();
            writer.commit()().unwrap();
            count += events.len();
            for event in events {
                scratch.clear();
                json::write(event, &mut scratch);
                ndjson += scratch.len() + 1;
                text += event.message.len();
            }
            if writer.wants_to_roll() {
                writer.roll().unwrap();
                store.tidy().unwrap();
            }
        }
    }
    let unsealed = store.size().bytes;
    writer.roll().unwrap();
    store.tidy().unwrap();
    let size = store.size();
    println!(
        "{count} lines of {} files, {text} bytes of text, {ndjson} bytes as NDJSON",
        files.len()
    );
    println!(
        "disk: {} bytes in {} files, 1/{:.1} of the NDJSON, 1/{:.1} of the text, {:.1} bytes an event; {unsealed} bytes before the last were sealed",
        size.bytes,
        size.files,
        ndjson as f64 / size.bytes as f64,
        text as f64 / size.bytes as f64,
        size.bytes as f64 / count as f64,
    );
    // What a file takes however little it holds does not count here.
    assert!(ndjson < 1 << 20 || size.bytes * 8 <= ndjson as u64);
}

struct Everyone;

impl Fleet for Everyone {
    fn facts(&self, _: &str) -> Arc<Facts> {
        Arc::default()
    }

    fn may_see(&self, _: &str) -> bool {
        true
    }

    fn goes_on(&self) -> bool {
        true
    }
}

fn options(folder: &Path) -> Options {
    Options {
        folder: folder.to_owned(),
        age: Duration::from_secs(72 * 3600),
        age_of: Arc::new(|_| None),
        events_per_device: 1000,
        bytes: 1 << 50,
        now: || {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .as_nanos() as u64
        },
    }
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

/// The n-th event, as a fleet sends them: each device some hundred at once.
fn event(n: u64, begin: u64, lines: &[(Severity, String)]) -> Event {
    let (batch, within) = (n / BATCH, n % BATCH);
    let device = batch * 7 % DEVICES;
    let received = begin + batch * 2_000_003 * 13;
    let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    let seq = batch / DEVICES * BATCH + within;
    let (severity, message) = &lines[((device * 1009 + seq) % lines.len() as u64) as usize];
    Event {
        device: Arc::from(format!("device-{device:04}").as_str()),
        source: Arc::from("syslog"),
        id: EventId::Spooled {
            epoch: device.wrapping_mul(0xD6E8_FEB8_6659_FD93),
            seq,
        },
        time: (received - (BATCH - within) * 5_000_000 - mixed % 4_000_000) / 1000 * 1000,
        time_estimated: false,
        severity: *severity,
        message: message.clone(),
        truncated: false,
        attributes: Attributes::new(),
        received,
    }
}

fn run(folder: &Path, lines: &[(Severity, String)], count: u64) {
    let (store, mut writer) = Store::open(options(folder), None).unwrap();
    let begin = (options(folder).now)() - 3600 * 1_000_000_000;
    let peer = folder.join("lines.zst");
    let mut peer_file =
        zstd::Encoder::new(BufWriter::new(std::fs::File::create(&peer).unwrap()), 3).unwrap();
    let (mut writing, mut tidying, mut ndjson, mut text) =
        (Duration::ZERO, Duration::ZERO, 0u64, 0u64);
    let mut scratch = Vec::new();
    let mut n = 0;
    while n < count {
        let end = count.min(n + CHUNK as u64);
        let mut events: Vec<Event> = (n..end).map(|n| event(n, begin, lines)).collect();
        if n == 0 {
            events[77].message = format!("session of {NEEDLE} opened");
        }
        for event in &events {
            scratch.clear();
            json::write(event, &mut scratch);
            ndjson += scratch.len() as u64 + 1;
            text += event.message.len() as u64;
            writeln!(peer_file, "{}", event.message).unwrap();
        }
        let started = cpu();
        let borrowed: Vec<&Event> = events.iter().collect();
        writer.append(&borrowed).unwrap();
        writer.commit()().unwrap();
        let written = cpu();
        writing += written - started;
        if writer.wants_to_roll() {
            writer.roll().unwrap();
            store.tidy().unwrap();
            tidying += cpu() - written;
        }
        n = end;
    }
    peer_file.finish().unwrap().flush().unwrap();
    let size = store.size();
    let per_core = |time: Duration| count as f64 / time.as_secs_f64();
    println!(
        "{count} events, {} bytes of text, {ndjson} bytes as NDJSON",
        text
    );
    println!(
        "ingest: {:.0} events/s a core ({:.2} us an event: {:.2} writing, {:.2} sealing and merging)",
        per_core(writing + tidying),
        1e6 / per_core(writing + tidying),
        1e6 / per_core(writing),
        1e6 / per_core(tidying)
    );
    println!(
        "disk: {} bytes in {} files, 1/{:.1} of the NDJSON, {:.1} bytes an event",
        size.bytes,
        size.files,
        ndjson as f64 / size.bytes as f64,
        size.bytes as f64 / count as f64
    );
    last_of_devices(&store);
    words(&store, &peer, text);
    let peak = peak();
    println!("memory: {peak} kB at most");
    assert!(peak < 150 << 10);
}

fn last_of_devices(store: &Store) {
    let mut times: Vec<Duration> = (0..100u64)
        .map(|n| {
            let device = format!("device-{:04}", n * 37 % DEVICES);
            let search = Search {
                devices: Some(vec![Arc::from(device.as_str())]),
                ..Search::default()
            };
            let started = Instant::now();
            let page = store.search(&search, &Everyone).unwrap();
            assert_eq!(page.events.len(), 1000);
            started.elapsed()
        })
        .collect();
    times.sort();
    println!(
        "the last 1,000 of a device: {:.1} ms at the median, {:.1} ms at most (100 devices, time passed)",
        times[50].as_secs_f64() * 1e3,
        times[99].as_secs_f64() * 1e3
    );
}

fn words(store: &Store, peer: &Path, text: u64) {
    let cases = [
        (
            "a rare word",
            format!("message ~ /{NEEDLE}/"),
            NEEDLE.to_owned(),
        ),
        (
            "a word that is not there",
            "message ~ /zebrafish/".into(),
            "zebrafish".into(),
        ),
        (
            "a pattern",
            "message ~ /(fail|error)[a-z]*.*[0-9]{4}/".into(),
            "(fail|error)[a-z]*.*[0-9]{4}".into(),
        ),
        (
            "a pattern without letters",
            "message ~ /[0-9]{3}[^0-9 ][0-9]{3}x/".into(),
            "[0-9]{3}[^0-9 ][0-9]{3}x".into(),
        ),
    ];
    for (name, query, pattern) in cases {
        let filter = Some(EventQuery::parse(&query).unwrap());
        let search = Search {
            filter,
            limit: 1,
            ..Search::default()
        };
        let mut runs: Vec<(Duration, Counts)> = (0..3)
            .map(|_| {
                let started = cpu();
                let counts = store.count(&search, 1 << 62, 10, &Everyone).unwrap();
                (cpu() - started, counts)
            })
            .collect();
        runs.sort_by_key(|(took, _)| *took);
        let (took, counts) = &runs[1];
        let found: u64 = counts.steps.values().flatten().sum();
        println!(
            "{name}: {found} found in {:.3} s, {:.0} MB/s of text, {} of {} blocks read",
            took.as_secs_f64(),
            text as f64 / 1e6 / took.as_secs_f64(),
            counts.effort.read,
            counts.effort.blocks
        );
        if let Some((count, took)) = grep(peer, &pattern) {
            assert_eq!(count, found.to_string(), "{name}");
            println!(
                "    zstd -dc | grep -cE: {count} found in {:.3} s passed, {:.0} MB/s",
                took.as_secs_f64(),
                text as f64 / 1e6 / took.as_secs_f64()
            );
        }
    }
}

fn grep(peer: &Path, pattern: &str) -> Option<(String, Duration)> {
    let started = Instant::now();
    let mut zstd = Command::new("zstd")
        .arg("-dc")
        .arg(peer)
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let grep = Command::new("grep")
        .args(["-cE", pattern])
        .env("LC_ALL", "C")
        .stdin(zstd.stdout.take()?)
        .output()
        .ok()?;
    zstd.wait().ok()?;
    Some((
        String::from_utf8_lossy(&grep.stdout).trim().to_owned(),
        started.elapsed(),
    ))
}

/// The most memory this process ever had, kB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let peak = lines.find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes = peak.trim().trim_end_matches(" kB");
    kilobytes.parse().unwrap()
}
