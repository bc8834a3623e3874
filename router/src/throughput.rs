//! How fast one core goes from received bytes to routed events, to synced NDJSON, to requests, counted in
//! the time that the processor spent on it, of all threads: so what others do at the same time matters
//! little. The copy of the same bytes stands beside it as a measure of the machine. Not a test: run it by
//! hand with
//!
//! ```text
//! cargo test --release -p thinglog-router throughput -- --ignored --nocapture --test-threads=1
//! ```

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thinglog_schemas::batch::{Batch, ClockInfo, Encoder, Entry};
use thinglog_schemas::payload::Stamp;
use thinglog_schemas::{Attributes, Severity, Topics};
use tokio_util::sync::CancellationToken;

use crate::config::{DestinationConfig, DestinationKind, FileConfig, StdoutConfig, WebhookConfig};
use crate::dedup::table::Table;
use crate::deliver::batch::Batch as DestinationBatch;
use crate::deliver::commit::Write;
use crate::deliver::judge::Verdict;
use crate::deliver::remote::letters::Letters;
use crate::deliver::remote::request::Request;
use crate::deliver::remote::{self, Plan, Remote};
use crate::deliver::stage::{Deliver, Pushed, Stage, Way};
use crate::deliver::{Destination, Outcome, Promise};
use crate::destinations::file::FileDestination;
use crate::health::Health;
use crate::mqtt::Delivery;
use crate::mqtt::frame;
use crate::mqtt::names::TopicTable;
use crate::routes::Routes;
use crate::state::StateLog;
use crate::testing::{Spent, judge, telemetry, way};

const EVENTS: u64 = 1_000_000;
const BATCH: u64 = 500;
const COMMIT: usize = 8 << 20;

fn message(seq: u64) -> String {
    format!(
        "GET /api/v1/rooms/{}/state HTTP/1.1 {} {} \"-\" \"thermostat/2.{} (linux; armv7)\" upstream=10.0.{}.{} took={}us",
        seq % 97,
        200 + seq % 5,
        300 + seq * 7 % 9000,
        seq % 10,
        seq % 250,
        seq % 254,
        seq * 31 % 100_000
    )
}

fn delivery(table: &mut TopicTable, device: u64, offset: u64, payload: Bytes) -> Delivery {
    Delivery {
        topic: table.get(format!("thinglog/logs/lamp-{device}/app").as_bytes()),
        payload,
        retain: false,
        stamp: Stamp {
            stored: Some((7, offset)),
            received: 1_767_323_045_000_000_000 + offset,
            ..Stamp::default()
        },
        number: offset,
    }
}

fn batches() -> Vec<Delivery> {
    let mut table = TopicTable::new(Topics::default());
    let mut encoder = Encoder::new();
    let mut deliveries = Vec::new();
    for n in 0..EVENTS / BATCH {
        let (device, round) = (n % 50, n / 50);
        let entry = |seq: u64| Entry {
            seq,
            time: 1_767_323_045_000_000_000 + seq * 1_000_003,
            severity: Severity::INFO,
            message: message(seq),
            truncated: false,
            attributes: Attributes::new(),
        };
        let first_seq = round * BATCH;
        let batch = Batch {
            epoch: device,
            first_seq,
            clock: ClockInfo {
                boot: 1,
                sent_mono: 0,
                synced: true,
            },
            drops: Vec::new(),
            entries: (first_seq..first_seq + BATCH).map(entry).collect(),
        };
        let mut payload = Vec::new();
        encoder.encode(&batch, &mut payload).unwrap();
        deliveries.push(delivery(&mut table, device, n, payload.into()));
    }
    deliveries
}

fn single_events() -> Vec<Delivery> {
    let mut table = TopicTable::new(Topics::default());
    let payload = |n| {
        let text = message(n).replace('"', "'");
        Bytes::from(format!(
            r#"{{"time":"2026-01-02T03:04:05.123Z","level":"info","msg":"{text}"}}"#
        ))
    };
    (0..EVENTS / 4)
        .map(|n| delivery(&mut table, n % 50, n, payload(n)))
        .collect()
}

fn print(what: &str, events: u64, bytes: usize, took: Duration) {
    let (events, seconds) = (events as f64, took.as_secs_f64());
    println!(
        "{what:<44} {:>9.0} events/s {:>7.3} us/event {:>7.1} MB/s",
        events / seconds,
        seconds * 1e6 / events,
        bytes as f64 / 1e6 / seconds
    );
}

fn to_judge(what: &str, deliveries: &[Delivery]) {
    let (mut judge, _levels) = judge(Table::default());
    let begun = Spent::now();
    let mut events = 0;
    for delivery in deliveries {
        match judge.judge(delivery, 1) {
            Verdict::Events(judged) => events += judged.decoded.events.len() as u64,
            other => panic!("{other:?}"),
        }
    }
    let bytes = deliveries
        .iter()
        .map(|delivery| delivery.payload.len())
        .sum();
    print(
        &format!("{what}: decode, dedup, level"),
        events,
        bytes,
        begun.elapsed(),
    );
}

fn to_lines(what: &str, deliveries: &[Delivery]) {
    let (mut judge, _levels) = judge(Table::default());
    let judged = deliveries.iter().take(deliveries.len() / 20);
    let judged: Vec<_> = judged
        .filter_map(|delivery| match judge.judge(delivery, 1) {
            Verdict::Events(judged) => Some(judged.decoded),
            _ => None,
        })
        .collect();
    let (mut out, mut events, mut bytes) = (Vec::new(), 0, 0);
    let begun = Spent::now();
    for _ in 0..20 {
        for event in judged.iter().flat_map(|decoded| &decoded.events) {
            thinglog_schemas::json::write(event, &mut out);
            out.push(b'\n');
            events += 1;
        }
        bytes += out.len();
        out.clear();
    }
    let took = begun.elapsed();
    print(&format!("{what}: events to lines"), events, bytes, took);
}

fn to_file(what: &str, deliveries: &[Delivery]) {
    let folder = tempfile::tempdir_in(".").unwrap();
    let telemetry = telemetry();
    let books = telemetry.books("file");
    let (bytes, deleted) = (books.bytes.clone(), telemetry.gaps.clone());
    let config = FileConfig::default();
    let file = FileDestination::open(folder.path(), config, None, bytes, deleted).unwrap();
    let (mut log, _) = StateLog::open::<u64>(&folder.path().join("state")).unwrap();
    let (judge, levels) = judge(Table::default());
    let mut stage = Deliver::new(judge, way(levels), file, books.clone(), log.growth());
    let begun = Spent::now();
    let mut committed = 0;
    for (n, delivery) in deliveries.iter().enumerate() {
        stage.take(delivery, 1);
        if stage.is_full() || n + 1 == deliveries.len() {
            assert_eq!(stage.push(), Pushed::Done);
            let written = books.bytes.get() as usize;
            if written - committed >= COMMIT || n + 1 == deliveries.len() {
                committed = written;
                let closing = stage.commit().unwrap();
                closing.sync.unwrap()().unwrap();
                if let Write::Append(framed) = closing.state {
                    log.append(&framed).unwrap();
                }
                books.settle(closing.tally);
            }
        }
    }
    let took = begun.elapsed();
    let written = books.bytes.get() as usize;
    print(
        &format!("{what}: to file, synced"),
        books.delivered(),
        written,
        took,
    );
}

/// Takes everything at once.
struct Nowhere;

impl Destination for Nowhere {
    fn deliver(&mut self, _: &DestinationBatch) -> Outcome {
        Outcome::Delivered
    }

    fn commit(&mut self) -> Promise {
        Promise::default()
    }
}

const ROUTES: &str = r#"{
    "destinations": {"file": {"type": "file", "when": "severity < 24"}},
    "routes": {
        "1": {"when": "level >= ERROR and group = eu", "to": ["file"]},
        "2": {"when": "source = other or message ~ /panic|oom-killer/", "to": ["file"]},
        "3": {"when": "device ~ \"lamp-*\"", "to": ["file"]}
    }
}"#;

/// Runs deliveries through a stage whose commits wait; gives how long it took.
fn through<D: Destination>(stage: &mut Deliver<D>, deliveries: &[Delivery]) -> Duration {
    let begun = Spent::now();
    for (n, delivery) in deliveries.iter().enumerate() {
        stage.take(delivery, 1);
        let is_last = n + 1 == deliveries.len();
        if stage.is_full() || is_last {
            assert_eq!(stage.push(), Pushed::Done);
        }
        if (n % 256 == 255 || is_last)
            && let Some(sync) = stage.commit().unwrap().sync
        {
            sync().unwrap();
        }
    }
    begun.elapsed()
}

fn to_routes(what: &str, deliveries: &[Delivery]) {
    let folder = tempfile::tempdir_in(".").unwrap();
    let (log, _) = StateLog::open::<u64>(&folder.path().join("state")).unwrap();
    let (judge, levels) = judge(Table::default());
    let config = serde_json::from_str(ROUTES).unwrap();
    let routes = Arc::new(Routes::of(&config, "file").unwrap());
    let way = Way {
        routes,
        ..way(levels)
    };
    let books = telemetry().books("file");
    let mut stage = Deliver::new(judge, way, Nowhere, books.clone(), log.growth());
    let took = through(&mut stage, deliveries);
    let bytes = deliveries.iter().map(|it| it.payload.len()).sum();
    let events = books.received();
    print(
        &format!("{what}: decode, dedup, level, three routes"),
        events,
        bytes,
        took,
    );
}

/// Answers at once that everything was accepted.
struct AtOnce<E>(PhantomData<fn() -> E>);

impl<E: remote::Encoder> remote::Sink for AtOnce<E> {
    type Encoder = E;

    async fn send(&self, _: &Request, body: Vec<u8>) -> remote::verdict::Verdict {
        std::hint::black_box(body);
        remote::verdict::Verdict::Accepted
    }
}

fn to_requests<E: remote::Encoder>(what: &str, encoder: E, deliveries: &[Delivery]) {
    let folder = tempfile::tempdir_in(".").unwrap();
    let (log, _) = StateLog::open::<u64>(&folder.path().join("state")).unwrap();
    let telemetry = telemetry();
    let (books, metrics) = (telemetry.books("hook"), telemetry.remote("hook"));
    let delivery =
        DestinationConfig::from(DestinationKind::Stdout(StdoutConfig::default())).delivery();
    let letters = Letters::open(
        &folder.path().join("dead"),
        delivery.dead_letters.clone(),
        metrics.letters.clone(),
    );
    let plan = Plan {
        name: "hook".into(),
        delivery,
        letters: Arc::new(letters.unwrap()),
        books: books.clone(),
        metrics,
        health: Health::new().part("hook"),
        ending: CancellationToken::new(),
    };
    let remote = Remote::start(encoder, AtOnce(PhantomData), plan).unwrap();
    let (judge, levels) = judge(Table::default());
    let mut stage = Deliver::new(judge, way(levels), remote, books.clone(), log.growth());
    let took = through(&mut stage, deliveries);
    print(what, books.received(), books.bytes.get() as usize, took);
}

/// The same bytes copied, compressed and as events.
fn copied(deliveries: &[Delivery]) {
    let payloads: Vec<&[u8]> = deliveries.iter().map(|it| &it.payload[..]).collect();
    let events: String = (0..EVENTS).map(message).collect();
    for (what, bytes, copies) in [
        ("copy of the payloads", payloads.concat(), 20),
        ("copy of the messages", events.into_bytes(), 2),
    ] {
        let begun = Spent::now();
        for _ in 0..copies {
            std::hint::black_box(bytes.clone());
        }
        print(
            what,
            EVENTS * copies,
            bytes.len() * copies as usize,
            begun.elapsed(),
        );
    }
}

#[test]
#[ignore = "a measurement"]
fn throughput() {
    let batches = batches();
    copied(&batches);
    to_judge("batches of 500", &batches);
    to_routes("batches of 500", &batches);
    let hook = |text: &str| {
        let config: WebhookConfig = serde_json::from_str(text).unwrap();
        crate::destinations::webhook::build(&config).unwrap().0
    };
    let json = hook(r#"{"url": "http://h/"}"#);
    to_requests("batches of 500: to requests of JSON", json, &batches);
    let lines = hook(r#"{"url": "http://h/", "format": "ndjson"}"#);
    to_requests("batches of 500: to requests of lines", lines, &batches);
    to_lines("batches of 500", &batches);
    to_file("batches of 500", &batches);
    let singles = single_events();
    to_judge("one JSON a publish", &singles);
    to_lines("one JSON a publish", &singles);
    to_file("one JSON a publish", &singles);
    frames();
}

/// Reading PUBLISH frames with a stamp: own reader, and the codec for comparison.
fn frames() {
    use rumqttc::v5::mqttbytes::{QoS, v5};
    let mut stream = bytes::BytesMut::new();
    let count = 200_000u64;
    for n in 0..count {
        let pair = |key: &str, value: String| (key.to_owned(), value);
        let properties = v5::PublishProperties {
            user_properties: vec![
                pair("thinglog-offset", format!("00000000000000aa/{n}")),
                pair(
                    "thinglog-received",
                    format!("{}", 1_767_323_045_000_000_000 + n),
                ),
                pair("thinglog-address", "127.0.0.1".into()),
            ],
            ..v5::PublishProperties::default()
        };
        let topic = format!("thinglog/logs/lamp-{}/app", n % 50);
        let mut publish = v5::Publish::new(topic, QoS::AtLeastOnce, message(n), Some(properties));
        publish.pkid = (n % 65_535) as u16 + 1;
        publish.write(&mut stream).unwrap();
    }
    let stream = stream.freeze();
    let begun = Spent::now();
    let mut table = TopicTable::new(Topics::default());
    let mut rest = stream.clone();
    let mut deliveries = Vec::new();
    while let Some(header) = frame::header(&rest, usize::MAX).unwrap() {
        let bytes = rest.split_to(header.total);
        let publish = frame::publish(&bytes, header).unwrap();
        let topic = table.get(publish.topic);
        let (principal, address) = topic.share(publish.stamp.principal, publish.stamp.address);
        deliveries.push(Delivery {
            topic,
            payload: bytes.slice(publish.payload..),
            retain: publish.retain,
            stamp: Stamp {
                stored: publish.stamp.stored,
                received: publish.stamp.received.unwrap(),
                principal,
                address,
            },
            number: 0,
        });
        if deliveries.len() == 1024 {
            deliveries.clear();
        }
    }
    print(
        "frames: own reader, to deliveries",
        count,
        stream.len(),
        begun.elapsed(),
    );
    let mut rest = bytes::BytesMut::from(&stream[..]);
    let begun = Spent::now();
    while !rest.is_empty() {
        std::hint::black_box(v5::Packet::read(&mut rest, None).unwrap());
    }
    print(
        "frames: rumqttc's codec, to packets",
        count,
        stream.len(),
        begun.elapsed(),
    );
}
