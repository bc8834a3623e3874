//! Clients that mean no good, against the real broker over real sockets. However they behave, the broker
//! keeps below a bound of memory and a well-behaved client is served all the while.
//!
//! By default the numbers are small and latency is printed only. With `THINGLOG_ABUSE=full` (and a
//! release build on a quiet machine) they are those of an attack, and the well-behaved client's 99th
//! percentile has to stay within three times its quiet figure or 20 ms, whichever is greater.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thinglog_tests::certificates::Authority;
use thinglog_tests::mqtt::{Connection, Version};
use thinglog_tests::process::Process;
use thinglog_tests::site::{Site, free_address};
use thinglog_tests::wait;

const MIB: u64 = 1 << 20;
/// Pause of the well-behaved client between its messages.
const PAUSE: Duration = Duration::from_millis(2);

fn is_full() -> bool {
    std::env::var("THINGLOG_ABUSE").is_ok_and(|value| value == "full")
}

/// One number for every day, one for a real attack.
fn size(small: usize, full: usize) -> usize {
    if is_full() { full } else { small }
}

/// How long each half of a scenario is watched at least.
fn span() -> Duration {
    Duration::from_millis(size(500, 5_000) as u64)
}

/// A client that publishes and waits for its own message, over and over.
struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Probe {
    fn start(broker: SocketAddr) -> Probe {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = thread::spawn(move || {
            let mut client = Connection::open(broker, "well-behaved", Version::V4).unwrap();
            assert_eq!(client.subscribe_all(&["probe".into()]).unwrap(), [0]);
            let mut times = Vec::new();
            while !told.load(Ordering::Relaxed) {
                let sent = Instant::now();
                client.publish("probe", b"are you there").unwrap();
                let kinds = [client.receive().unwrap().0, client.receive().unwrap().0];
                times.push(sent.elapsed());
                assert!(kinds.contains(&0x30) && kinds.contains(&0x40), "{kinds:x?}");
                thread::sleep(PAUSE);
            }
            times
        });
        Probe { stop, thread }
    }

    /// Its 99th percentile. Fails when it was refused anything.
    fn finish(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let mut times = self.thread.join().expect("a well-behaved client is served");
        times.sort_unstable();
        times[times.len() * 99 / 100]
    }
}

/// A broker under attack.
struct Target {
    broker: Process,
    site: Site,
    quiet: Duration,
}

impl Target {
    /// Starts it, with tables added to its configuration, and learns what it is like in peace.
    fn start(tables: impl FnOnce(&Site) -> String) -> Target {
        let site = Site::new();
        site.configure(&tables(&site));
        let broker = site.broker();
        let probe = Probe::start(site.mqtt);
        thread::sleep(span());
        let quiet = probe.finish();
        Target {
            broker,
            site,
            quiet,
        }
    }

    /// Attacks while the well-behaved client goes on; what `attack` gives is held until the end.
    fn suffer<T>(&mut self, name: &str, most_memory: u64, attack: impl FnOnce(SocketAddr) -> T) {
        let probe = Probe::start(self.site.mqtt);
        let started = Instant::now();
        let held = attack(self.site.mqtt);
        thread::sleep(span().saturating_sub(started.elapsed()).max(span() / 4));
        // One who comes now is let in too.
        Connection::open(self.site.mqtt, "late", Version::V5).expect("a new client is let in");
        let during = probe.finish();
        drop(held);
        self.broker.assert_running();
        let memory = self.broker.peak_memory();
        let ratio = during.as_secs_f64() / self.quiet.as_secs_f64();
        eprintln!(
            "{name}: {} of {} MiB; p99 {:.2} ms, quiet {:.2} ms, {ratio:.1} times",
            memory / MIB,
            most_memory / MIB,
            during.as_secs_f64() * 1e3,
            self.quiet.as_secs_f64() * 1e3,
        );
        assert!(memory <= most_memory, "{name}: {} MiB", memory / MIB);
        if is_full() {
            let most = (3 * self.quiet).max(Duration::from_millis(20));
            assert!(
                during <= most,
                "{name}: p99 {during:?}, quiet {:?}",
                self.quiet
            );
        }
    }
}

/// What the broker takes with so many connections that do nothing.
fn idle_memory(connections: usize) -> u64 {
    60 * MIB + connections as u64 * 10 * 1024
}

#[test]
fn idle_clients_cost_little() {
    let count = size(500, 10_000);
    let mut target = Target::start(|_| String::new());
    target.suffer("idle clients", idle_memory(count), |broker| {
        let open = |n| Connection::open(broker, &format!("idle-{n}"), Version::V4).unwrap();
        (0..count).map(open).collect::<Vec<_>>()
    });
}

#[test]
fn who_sends_connect_byte_by_byte_holds_up_nobody() {
    let count = size(500, 10_000);
    let limits = "[broker.limits]\nunconnected = 200\n";
    let mut target = Target::start(|_| if is_full() { "" } else { limits }.into());
    target.suffer("slow CONNECT", idle_memory(count), |broker| {
        let mut streams: Vec<TcpStream> = (0..count).map(|_| begin(broker, &[0x10])).collect();
        for stream in &mut streams {
            // Whoever was sent away hears nothing of it.
            let _ = stream.write_all(&[13]);
        }
        streams
    });
}

fn begin(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let _ = stream.write_all(bytes);
    stream
}

#[test]
fn tls_handshakes_that_stop_half_way_hold_up_nobody() {
    let count = size(300, 10_000);
    let secure = free_address();
    let mut target = Target::start(|site| {
        let identity = Authority::new(site.path(), "authority").issue(site.path(), "broker");
        let (certificate, key) = (&identity.certificate, &identity.key);
        format!(
            "[broker.tls]\nlisten = \"{secure}\"\ncertificate = {certificate:?}\nkey = {key:?}\n"
        )
    });
    target.suffer("half-open TLS", idle_memory(2 * count), |_| {
        // The beginning of a ClientHello that is to have 512 bytes.
        let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
        (0..count)
            .map(|_| begin(secure, &hello))
            .collect::<Vec<_>>()
    });
}

#[test]
fn who_never_reads_costs_no_more_than_its_queue() {
    let packets = size(400, 8_000);
    let mut target = Target::start(|_| String::new());
    target.suffer("never reads", 120 * MIB, |broker| {
        let mut deaf = Connection::open(broker, "deaf", Version::V4).unwrap();
        deaf.subscribe_all(&["flood".into()]).unwrap();
        let mut packet = vec![0x30, 0xe7, 0xd4, 3, 0, 5];
        packet.extend_from_slice(b"flood");
        packet.resize(4 + 60_007, b'x');
        let mut writer = Connection::open(broker, "flood", Version::V4).unwrap();
        for _ in 0..packets {
            writer.send_raw(&packet).unwrap();
        }
        writer.send_raw(&[0xc0, 0]).unwrap();
        assert_eq!(writer.receive().unwrap().0, 0xd0);
        deaf
    });
}

#[test]
fn a_hundred_thousand_filters_are_cut_to_what_a_session_may_have() {
    let count = size(5_000, 100_000);
    let mut target = Target::start(|_| String::new());
    target.suffer("filters", 80 * MIB, |broker| {
        let mut greedy = Connection::open(broker, "greedy", Version::V5).unwrap();
        let mut granted = 0;
        for first in (0..count).step_by(100) {
            let filter = |n| format!("greedy/{n}/+/a/b/c/#");
            let filters: Vec<String> = (first..first + 100).map(filter).collect();
            let codes = greedy.subscribe_all(&filters).unwrap();
            granted += codes.iter().filter(|code| **code < 0x80).count();
            assert!(
                codes.iter().all(|code| [0, 0x97].contains(code)),
                "{codes:x?}"
            );
        }
        assert_eq!(granted, 1_000);
        greedy
    });
}

#[test]
fn a_million_retained_topics_are_cut_to_what_there_is_room_for() {
    let count = size(10_000, 1_000_000);
    let most = size(2_000, 200_000);
    let mut target = Target::start(|_| format!("[broker.limits]\nretained = {most}\n"));
    target.suffer("retained topics", 450 * MIB, |broker| {
        let mut hoarder = Connection::open(broker, "hoarder", Version::V5).unwrap();
        let (mut kept, mut refused) = (0, 0);
        for first in (0..count).step_by(1_000) {
            let mut packets = Vec::new();
            for n in first..first + 1_000 {
                let topic = format!("hoard/{n:07}");
                packets.extend([0x33, 18 + 16, 0, topic.len() as u8]);
                packets.extend_from_slice(topic.as_bytes());
                packets.extend(((n % 1_000) as u16 + 1).to_be_bytes());
                packets.push(0);
                packets.extend([b'x'; 16]);
            }
            hoarder.send_raw(&packets).unwrap();
            for _ in 0..1_000 {
                match hoarder.receive().unwrap() {
                    (0x40, answer) if answer.get(2) == Some(&0x97) => refused += 1,
                    (0x40, _) => kept += 1,
                    (kind, answer) => panic!("{kind:#x} {answer:x?}"),
                }
            }
        }
        // The broker's own are among them.
        assert!(kept <= most && kept > most * 9 / 10, "{kept}");
        assert_eq!(kept + refused, count);
        hoarder
    });
}

#[test]
fn a_storm_of_connections_is_weathered() {
    let count = size(1_000, 50_000);
    let mut target = Target::start(|_| String::new());
    target.suffer("connect storm", 150 * MIB, |broker| {
        let next = AtomicUsize::new(0);
        let storm = || {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return;
                }
                Connection::open(broker, &format!("storm-{n}"), Version::V5).expect("let in");
            }
        };
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(storm);
            }
        });
    });
}

#[test]
fn a_page_of_another_origin_can_neither_read_metrics_nor_post() {
    let http = free_address();
    let site = Site::new();
    site.configure(&format!("[monitor]\naddress = \"{http}\"\n"));
    let mut broker = site.broker();
    wait::until("metrics to be served", || TcpStream::connect(http).ok());
    let status = |request: &str| {
        let mut stream = TcpStream::connect(http).unwrap();
        let request = format!("{request}Connection: close\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).map(str::to_owned);
        (status.unwrap(), answer)
    };
    let (code, page) = status(&format!("GET /metrics HTTP/1.1\r\nHost: {http}\r\n"));
    assert_eq!(code, "200");
    assert!(
        page.contains("thinglog_broker_sync_seconds_count"),
        "{page}"
    );
    assert!(!page.to_ascii_lowercase().contains("access-control-allow"));
    let get = "GET /metrics HTTP/1.1\r\nHost: evil.example\r\n";
    assert_eq!(status(get).0, "421");
    let origin = "Origin: http://evil.example\r\n";
    for path in [
        "/metrics",
        "/healthz",
        "/readyz",
        "/",
        "/api/v1/levels/default",
    ] {
        let post = format!("POST {path} HTTP/1.1\r\nHost: {http}\r\n{origin}");
        // Some take no POST at all.
        let code = status(&post).0;
        assert!(["403", "405"].contains(&&*code), "{path}: {code}");
    }
    let ready = format!("GET /readyz HTTP/1.1\r\nHost: {http}\r\n");
    assert_eq!(status(&ready).0, "200");
    broker.assert_running();
}
