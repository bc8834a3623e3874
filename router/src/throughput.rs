//! How fast one core goes from received bytes to synced NDJSON. Not a test: run it by hand, at a
//! quiet moment, with
//!
//! ```text
//! cargo test --release -p thinglog-router throughput -- --ignored --nocapture --test-threads=1
//! ```

use std::time::{Duration, Instant};

use bytes::Bytes;
use thinglog_schemas::batch::{Batch, ClockInfo, Encoder, Entry};
use thinglog_schemas::payload::Stamp;
use thinglog_schemas::{Attributes, Severity, Topics};

use crate::config::FileConfig;
use crate::dedup::table::Table;
use crate::deliver::commit::Write;
use crate::deliver::judge::Verdict;
use crate::deliver::stage::{Deliver, Pushed, Stage};
use crate::destinations::file::FileDestination;
use crate::mqtt::Delivery;
use crate::mqtt::frame;
use crate::mqtt::names::TopicTable;
use crate::state::StateLog;
use crate::testing::{judge, telemetry, way};

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
    let begun = Instant::now();
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
    let mut out = Vec::new();
    let (mut took, mut events, mut bytes) = (Duration::ZERO, 0, 0);
    for delivery in deliveries {
        let Verdict::Events(judged) = judge.judge(delivery, 1) else {
            continue;
        };
        let begun = Instant::now();
        for event in &judged.decoded.events {
            thinglog_schemas::json::write(event, &mut out);
            out.push(b'\n');
        }
        events += judged.decoded.events.len() as u64;
        took += begun.elapsed();
        if out.len() > 1 << 20 {
            bytes += std::mem::take(&mut out.len());
            out.clear();
        }
    }
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
    let begun = Instant::now();
    let mut syncing = Duration::ZERO;
    let mut committed = 0;
    for (n, delivery) in deliveries.iter().enumerate() {
        stage.take(delivery, 1);
        if stage.is_full() || n + 1 == deliveries.len() {
            assert_eq!(stage.push(), Pushed::Done);
            let written = books.bytes.get() as usize;
            if written - committed >= COMMIT || n + 1 == deliveries.len() {
                committed = written;
                let closing = stage.commit().unwrap();
                let sync_begun = Instant::now();
                closing.sync.unwrap()().unwrap();
                if let Write::Append(framed) = closing.state {
                    log.append(&framed).unwrap();
                }
                syncing += sync_begun.elapsed();
                books.settle(closing.tally);
            }
        }
    }
    let took = begun.elapsed();
    let events = books.delivered();
    let written = books.bytes.get() as usize;
    print(
        &format!("{what}: to file, without waiting for syncs"),
        events,
        written,
        took - syncing,
    );
    print(
        &format!("{what}: to file, syncs waited for"),
        events,
        written,
        took,
    );
}

#[test]
#[ignore = "a measurement"]
fn throughput() {
    let batches = batches();
    to_judge("batches of 500", &batches);
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
    let begun = Instant::now();
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
    let begun = Instant::now();
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
