//! A publisher against a broker that answers, stays silent, refuses, goes away and comes back.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::PubAckReason;
use support::{Answer, Broker, LIMIT, runtime, until};
use thinglog_edge::{Builder, Publisher, PublisherLayer, Record};
use thinglog_schemas::{Severity, batch::DropReason};
use tracing_subscriber::prelude::*;

const SHORT: Duration = Duration::from_millis(50);

fn builder(address: std::net::SocketAddr) -> Builder {
    Publisher::builder("lamp-7")
        .broker(address.ip().to_string(), address.port())
        .flush_age(Duration::from_millis(20))
        .backoff(Duration::from_millis(10), Duration::from_millis(50))
}

fn emit(publisher: &Publisher, messages: std::ops::Range<u32>) {
    for message in messages {
        publisher.emit(Record::new("app", Severity::INFO, message.to_string()));
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[test]
fn what_flush_calls_durable_the_broker_has_acknowledged_in_order() {
    let broker = Broker::start();
    let publisher = builder(broker.address).batch(10, 1 << 20).start().unwrap();
    emit(&publisher, 0..1000);
    assert!(publisher.flush_blocking(LIMIT));
    assert_eq!(broker.state(|state| state.messages()), numbers(0..1000));
    let counters = publisher.counters();
    assert_eq!((counters.accepted, counters.acknowledged), (1000, 1000));
    assert_eq!(publisher.undelivered(), 0);
}

#[test]
fn without_acknowledgement_flush_is_false_at_its_deadline() {
    let broker = Broker::start();
    broker.answer(&[], Answer::Silence);
    let publisher = builder(broker.address).start().unwrap();
    emit(&publisher, 0..1);
    assert!(!publisher.flush_blocking(SHORT));
    broker.wait(|state| (!state.batches().is_empty()).then_some(()));
    assert!(!publisher.flush_blocking(SHORT));
    assert_eq!(publisher.undelivered(), 1);
}

#[test]
fn what_was_not_acknowledged_goes_out_again_after_a_reconnect_as_the_same_bytes() {
    let broker = Broker::start();
    broker.answer(&[Answer::Acknowledge], Answer::Silence);
    let publisher = builder(broker.address).batch(10, 1 << 20).start().unwrap();
    emit(&publisher, 0..100);
    broker.wait(|state| (state.batches().len() == 10).then_some(()));
    broker.answer(&[], Answer::Acknowledge);
    broker.drop_connections();
    assert!(publisher.flush_blocking(LIMIT));
    broker.state(|state| {
        let logs = state.received.iter().filter(|r| r.topic.contains("/logs/"));
        let payloads: Vec<_> = logs.map(|r| (r.connection, r.payload.clone())).collect();
        let of = |connection| {
            let mine = payloads.iter().filter(move |(c, _)| *c == connection);
            mine.map(|(_, payload)| payload).collect::<Vec<_>>()
        };
        // Whether the one acknowledgement arrived before the end is open.
        let (first, second) = (of(0), of(1));
        assert!(second.len() >= 9 && first.ends_with(&second));
        assert_eq!(state.messages(), numbers(0..100));
    });
}

#[test]
fn events_wait_in_memory_for_a_broker_that_comes_later() {
    let address = Broker::reserve();
    let publisher = builder(address).start().unwrap();
    emit(&publisher, 0..50);
    assert!(!publisher.flush_blocking(SHORT));
    let broker = Broker::at(address);
    assert!(publisher.flush_blocking(LIMIT));
    assert_eq!(broker.state(|state| state.messages()), numbers(0..50));
}

#[test]
fn a_batch_that_is_refused_for_now_is_sent_again() {
    let broker = Broker::start();
    let full = Answer::Refuse(PubAckReason::QuotaExceeded);
    broker.answer(&[full, full], Answer::Acknowledge);
    let publisher = builder(broker.address).start().unwrap();
    emit(&publisher, 0..5);
    assert!(publisher.flush_blocking(LIMIT));
    broker.state(|state| {
        assert_eq!(state.messages(), numbers(0..5));
        assert_eq!(state.batches().len(), 3);
        assert_eq!(state.connects.len(), 1);
    });
}

#[test]
fn a_batch_that_is_refused_for_good_is_declared_dropped_in_its_place() {
    let broker = Broker::start();
    let never = Answer::Refuse(PubAckReason::PayloadFormatInvalid);
    broker.answer(&[never], Answer::Acknowledge);
    let publisher = builder(broker.address).start().unwrap();
    emit(&publisher, 0..5);
    assert!(!publisher.flush_blocking(LIMIT));
    emit(&publisher, 5..7);
    assert!(publisher.flush_blocking(LIMIT));
    broker.state(|state| {
        let batches = state.acknowledged();
        let declared = &batches[0].1;
        assert!(declared.entries.is_empty());
        assert_eq!(declared.drops.len(), 1);
        let drop = &declared.drops[0];
        assert_eq!((drop.from, drop.to, drop.count), (0, 4, 5));
        assert_eq!(drop.reason, DropReason::TooLarge);
        assert_eq!(batches[1].1.first_seq, 5);
        assert_eq!(state.messages(), numbers(5..7));
    });
    assert_eq!(publisher.counters().dropped, 5);
}

#[test]
fn a_batch_larger_than_the_broker_takes_is_split_and_keeps_its_ids() {
    let broker = Broker::start();
    broker.limit(None, Some(8 << 10));
    let publisher = builder(broker.address).start().unwrap();
    for i in 0..64u64 {
        let noise: String = (0..1000).map(|k| noise(i * 1000 + k)).collect();
        publisher.emit(Record::new("app", Severity::INFO, noise));
    }
    assert!(publisher.flush_blocking(LIMIT));
    broker.state(|state| {
        assert!(state.received.iter().all(|r| r.payload.len() < 8 << 10));
        let seqs: Vec<u64> = state.events().iter().map(|(_, entry)| entry.seq).collect();
        assert_eq!(seqs, (0..64).collect::<Vec<_>>());
        let mut next = 0;
        for (_, batch) in state.acknowledged() {
            assert_eq!(batch.first_seq, next);
            next = batch.entries.last().unwrap().seq + 1;
        }
    });
}

/// A character that does not compress.
fn noise(seed: u64) -> char {
    let mixed = (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 17).wrapping_mul(seed | 1);
    char::from(b'!' + (mixed >> 13) as u8 % 90)
}

#[test]
fn the_receive_maximum_of_the_broker_is_kept() {
    let broker = Broker::start();
    broker.limit(Some(4), None);
    broker.answer(&[], Answer::Silence);
    let publisher = builder(broker.address).batch(1, 1 << 20).start().unwrap();
    emit(&publisher, 0..100);
    broker.wait(|state| (state.batches().len() == 2).then_some(()));
    broker.answer(&[], Answer::Acknowledge);
    broker.drop_connections();
    assert!(publisher.flush_blocking(LIMIT));
    assert!(broker.state(|state| state.most_outstanding) <= 4);
    assert_eq!(broker.state(|state| state.messages()), numbers(0..100));
}

#[test]
fn a_level_that_was_set_before_holds_from_the_first_byte() {
    let broker = Broker::start();
    broker.desire(r#"{"schema":1,"revision":"7a","level":"ERROR"}"#);
    let publisher = builder(broker.address).start().unwrap();
    emit(&publisher, 0..10);
    publisher.emit(Record::new("app", Severity::ERROR, "grave"));
    assert!(publisher.flush_blocking(LIMIT));
    emit(&publisher, 10..20);
    assert!(publisher.flush_blocking(LIMIT));
    broker.state(|state| {
        assert_eq!(state.messages(), ["grave"]);
        assert_eq!(state.events()[0].1.seq, 0);
    });
    assert_eq!(publisher.counters().filtered, 20);
}

#[test]
fn a_level_that_cuts_everything_costs_no_byte() {
    let broker = Broker::start();
    broker.desire(r#"{"schema":1,"revision":"7a","level":"DISABLED"}"#);
    let publisher = builder(broker.address).start().unwrap();
    emit(&publisher, 0..10);
    assert!(publisher.flush_blocking(LIMIT));
    assert!(broker.state(|state| state.batches().is_empty()));
}

#[test]
fn a_changed_level_is_applied_and_reported_with_its_revision() {
    let broker = Broker::start();
    let publisher = builder(broker.address).start().unwrap();
    emit(&publisher, 0..1);
    assert!(publisher.flush_blocking(LIMIT));
    broker.desire(
        r#"{"schema":1,"revision":"8b","level":"WARN","sources":{"app":"DEBUG"},"future":1}"#,
    );
    let report = broker.wait(|state| {
        let report = state.reported()?;
        report.revision.is_some().then_some(report)
    });
    assert_eq!(report.revision.as_deref(), Some("8b"));
    assert!(report.online);
    publisher.emit(Record::new("app", Severity::DEBUG, "detail"));
    publisher.emit(Record::new("other", Severity::INFO, "cut"));
    assert!(publisher.flush_blocking(LIMIT));
    assert_eq!(broker.state(|state| state.messages()), ["0", "detail"]);
    // A document that cannot be read changes nothing; an empty one removes it.
    broker.desire("{");
    broker.desire("");
    broker.wait(|state| state.reported()?.revision.is_none().then_some(()));
    assert!(!publisher.enabled(Severity::DEBUG));
    assert!(publisher.enabled(Severity::INFO));
}

#[test]
fn a_temporary_level_ends_by_itself_while_the_broker_is_away() {
    let broker = Broker::start();
    let publisher = builder(broker.address).start().unwrap();
    broker.wait(|state| (!state.connects.is_empty()).then_some(()));
    broker.desire(
        r#"{"schema":1,"revision":"9c","level":"WARN",
            "override":{"level":"DEBUG","until":"2200-01-01T00:00:00Z","for_s":1}}"#,
    );
    until(|| publisher.enabled(Severity::DEBUG));
    drop(broker);
    until(|| !publisher.enabled(Severity::INFO));
    assert!(publisher.enabled(Severity::WARN));
}

#[test]
fn an_orderly_end_says_that_the_device_is_offline_and_the_will_says_so_otherwise() {
    let broker = Broker::start();
    let publisher = builder(broker.address).instance("one").start().unwrap();
    emit(&publisher, 0..1);
    assert!(publisher.close_blocking(LIMIT));
    broker.wait(|state| state.reported().filter(|report| !report.online));
    broker.state(|state| {
        assert_eq!(state.connects, ["lamp-7/one"]);
        let will = std::str::from_utf8(&state.wills[0]).unwrap();
        assert!(will.contains(r#""online":false"#), "{will}");
    });
    emit(&publisher, 1..2);
    assert!(!publisher.flush_blocking(LIMIT));
}

#[test]
fn dropping_the_last_handle_still_delivers() {
    let broker = Broker::start();
    let publisher = builder(broker.address).start().unwrap();
    emit(&publisher, 0..10);
    drop(publisher);
    broker.wait(|state| (state.messages().len() == 10).then_some(()));
}

#[test]
fn one_who_waits_for_room_loses_nothing_while_the_broker_is_away() {
    let address = Broker::reserve();
    let publisher = builder(address).memory_bytes(64 << 10).start().unwrap();
    let waiting = std::thread::spawn({
        let publisher = publisher.clone();
        move || {
            for number in 0..5000 {
                let record = Record::new("file", Severity::INFO, number.to_string());
                assert!(publisher.emit_blocking(record));
            }
        }
    });
    until(|| publisher.counters().memory_bytes > 40 << 10);
    assert!(!waiting.is_finished());
    let broker = Broker::at(address);
    waiting.join().unwrap();
    assert!(publisher.flush_blocking(LIMIT));
    assert_eq!(broker.state(|state| state.messages()), numbers(0..5000));
    assert_eq!(publisher.counters().dropped, 0);
}

#[test]
fn memory_stays_below_its_cap_and_what_did_not_fit_is_declared_exactly() {
    let address = Broker::reserve();
    let publisher = builder(address).memory_bytes(64 << 10).start().unwrap();
    for number in 0..3000u32 {
        let severity = match number % 10 {
            0 => Severity::ERROR,
            _ => Severity::INFO,
        };
        publisher.emit(Record::new("app", severity, number.to_string()));
        assert!(publisher.counters().memory_bytes <= 64 << 10);
    }
    let broker = Broker::at(address);
    publisher.flush_blocking(LIMIT);
    broker.state(|state| {
        let events = state.events();
        let errors = events.iter().filter(|(_, e)| e.severity == Severity::ERROR);
        assert_eq!(errors.count(), 300);
        let drops = state.acknowledged();
        let dropped: u64 = drops
            .iter()
            .flat_map(|(_, b)| &b.drops)
            .map(|d| d.count)
            .sum();
        assert_eq!(dropped + events.len() as u64, 3000);
        assert_eq!(dropped, publisher.counters().dropped);
    });
}

#[test]
fn it_runs_on_the_callers_runtime_too() {
    let broker = Broker::start();
    let runtime = runtime();
    runtime.block_on(async {
        let (publisher, work) = builder(broker.address).attach().unwrap();
        let work = tokio::spawn(work);
        for number in 0..100 {
            let record = Record::new("app", Severity::INFO, number.to_string());
            assert!(publisher.emit_waiting(record).await);
        }
        assert!(publisher.close(LIMIT).await);
        work.await.unwrap();
    });
    assert_eq!(broker.state(|state| state.messages()), numbers(0..100));
}

#[test]
fn a_publisher_whose_future_was_never_run_says_so_instead_of_waiting() {
    let (publisher, work) = builder(Broker::reserve()).attach().unwrap();
    emit(&publisher, 0..1);
    drop(work);
    assert!(!publisher.flush_blocking(support::LIMIT));
    assert!(!publisher.close_blocking(support::LIMIT));
}

#[test]
fn tracing_events_become_events_with_their_fields() {
    let broker = Broker::start();
    let publisher = builder(broker.address).start().unwrap();
    let layer = PublisherLayer::new(publisher.clone()).with_source("main");
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        tracing::warn!(target: "bulb", celsius = 91, unit = "C", "bulb is {}", "hot");
        tracing::debug!("below the level");
        tracing::error!(target: "thinglog_edge::worker", "of our own");
    });
    assert!(publisher.flush_blocking(LIMIT));
    let events = broker.state(|state| state.events());
    assert_eq!(events.len(), 1);
    let (source, entry) = &events[0];
    assert_eq!(source, "main");
    assert_eq!(entry.severity, Severity::WARN);
    assert_eq!(entry.message, "bulb is hot");
    assert_eq!(entry.attributes["celsius"], 91);
    assert_eq!(entry.attributes["unit"], "C");
    assert_eq!(entry.attributes["target"], "bulb");
}
