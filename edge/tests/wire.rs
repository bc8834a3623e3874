//! What an event costs on the wire. The corpus is generated and always the same, so the figures are too
//! (but for what a new zstd may change).

#![allow(clippy::unwrap_used)]

mod support;

use support::{Broker, LIMIT, syslog::Syslog};
use thinglog_edge::{Publisher, Record};

/// Bytes an event that a publisher sends in batches of 500, MQTT's own bytes around them included.
fn bytes_an_event(events: impl Iterator<Item = Record>) -> f64 {
    let broker = Broker::start();
    let publisher = Publisher::builder("lamp-7")
        .broker(broker.address.ip().to_string(), broker.address.port())
        .level(thinglog_schemas::Level::Debug)
        .batch(500, 1 << 20)
        .flush_age(LIMIT)
        .start()
        .unwrap();
    let mut count = 0u64;
    for record in events {
        assert!(publisher.emit_blocking(record));
        count += 1;
    }
    assert!(publisher.flush_blocking(LIMIT));
    broker.state(|state| {
        assert_eq!(state.events().len() as u64, count);
        let batches = state.batches();
        assert!(batches.iter().all(|(_, batch)| batch.entries.len() == 500));
        let logs = state.received.iter().filter(|r| r.topic.contains("/logs/"));
        // Fixed header, topic, packet id and properties of a PUBLISH.
        let bytes = logs.map(|r| r.payload.len() + 5 + 2 + r.topic.len() + 2 + 1);
        bytes.sum::<usize>() as f64 / count as f64
    })
}

#[test]
fn an_event_of_syslog_costs_at_most_25_bytes() {
    let lines: Vec<_> = Syslog::new(7).take(5000).collect();
    let as_read = lines
        .iter()
        .map(|line| Record::new("syslog", line.severity, line.raw()).at(line.arrived));
    let raw = bytes_an_event(as_read);
    assert!(raw < 25.0, "{raw:.2} bytes an event as it arrives");
    let recognised = lines
        .iter()
        .map(|line| Record::new("syslog", line.severity, line.rest.clone()).at(line.time));
    let recognised = bytes_an_event(recognised);
    assert!(
        recognised < 25.0,
        "{recognised:.2} bytes an event with its time recognised"
    );
}
