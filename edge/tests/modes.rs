//! Modes of upload that wait, with a spool and without one; and credentials that are there late.

#![allow(clippy::unwrap_used)]

mod support;

use std::{path::Path, time::Duration};

use support::{Broker, LIMIT, runtime, until};
use thinglog_edge::{Builder, Publisher, Record};
use thinglog_schemas::{
    Severity,
    config::{Upload, UploadMode},
};

const ROOM: u64 = 8 << 20;

fn builder(broker: &Broker) -> Builder {
    Publisher::builder("lamp-7")
        .broker(broker.address.ip().to_string(), broker.address.port())
        .flush_age(Duration::from_millis(20))
        .upload(manual())
        .backoff(Duration::from_millis(10), Duration::from_millis(50))
}

fn spooled(broker: &Broker, dir: &Path) -> Builder {
    let block = Duration::from_millis(20);
    builder(broker)
        .spool(dir, ROOM)
        .spool_block(64 << 10, block)
}

fn manual() -> Upload {
    Upload {
        mode: Some(UploadMode::Manual),
        ..Upload::default()
    }
}

fn say(publisher: &Publisher, messages: std::ops::Range<u32>) {
    for message in messages {
        publisher.emit(Record::new("app", Severity::INFO, message.to_string()));
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// Waits until everything is durable, without asking for it to be sent.
fn settle(publisher: &Publisher) {
    let runtime = runtime();
    let settled = async { tokio::time::timeout(LIMIT, publisher.settled()).await };
    assert!(runtime.block_on(settled).unwrap());
}

fn connected(broker: &Broker) {
    broker.wait(|state| state.reported().filter(|report| report.online));
}

#[test]
fn what_waits_on_disk_is_sent_when_asked_for_and_not_at_the_end_of_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start();
    let publisher = spooled(&broker, dir.path()).start().unwrap();
    connected(&broker);
    say(&publisher, 0..20);
    settle(&publisher);
    assert_eq!(publisher.undelivered(), 0);
    assert!(publisher.close_blocking(LIMIT));
    assert!(broker.state(|state| state.batches().is_empty()));

    let publisher = spooled(&broker, dir.path()).start().unwrap();
    connected(&broker);
    say(&publisher, 20..40);
    settle(&publisher);
    assert!(broker.state(|state| state.batches().is_empty()));
    publisher.upload_now();
    broker.wait(|state| (state.messages().len() == 40).then_some(()));
    assert_eq!(broker.state(|state| state.messages()), numbers(0..40));
    // The upload ends with the acknowledgement of what had gathered; until then what comes goes along.
    until(|| publisher.counters().acknowledged == 40);

    say(&publisher, 40..60);
    settle(&publisher);
    assert_eq!(broker.state(|state| state.messages().len()), 40);
}

#[test]
fn a_flush_sends_in_every_mode_and_so_does_the_end_of_a_process_without_a_spool() {
    let broker = Broker::start();
    let publisher = builder(&broker).start().unwrap();
    connected(&broker);
    say(&publisher, 0..20);
    assert!(publisher.flush_blocking(LIMIT));
    assert_eq!(broker.state(|state| state.messages()), numbers(0..20));
    say(&publisher, 20..30);
    assert!(publisher.close_blocking(LIMIT));
    assert_eq!(broker.state(|state| state.messages()), numbers(0..30));
}

#[test]
fn an_interval_sends_again_and_again() {
    let broker = Broker::start();
    let upload = Upload {
        mode: Some(UploadMode::Interval),
        interval_s: Some(1),
        ..Upload::default()
    };
    let publisher = builder(&broker).upload(upload).start().unwrap();
    for round in 0..3 {
        say(&publisher, round * 10..round * 10 + 10);
        let there = (round as usize + 1) * 10;
        broker.wait(|state| (state.messages().len() == there).then_some(()));
    }
    assert_eq!(broker.state(|state| state.messages()), numbers(0..30));
}

#[test]
fn settings_out_of_their_range_are_refused_by_name() {
    let broker = Broker::start();
    let upload = Upload {
        interval_s: Some(0),
        ..manual()
    };
    let refused = builder(&broker).upload(upload).start();
    let error = refused.err().unwrap().to_string();
    assert!(
        error.contains("`upload.interval_s` is 0, it must be 1 to"),
        "{error}"
    );
}

#[test]
fn a_password_file_that_comes_late_is_used_at_once_whatever_the_pause_between_tries() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    let broker = Broker::start();
    let hours = Duration::from_secs(36_000);
    let publisher = builder(&broker)
        .password_file("lamp-7", &file)
        .backoff(hours, hours)
        .start()
        .unwrap();
    say(&publisher, 0..1);
    assert!(!publisher.flush_blocking(Duration::from_millis(200)));
    assert!(broker.state(|state| state.connects.is_empty()));
    std::fs::write(&file, "secret").unwrap();
    assert!(publisher.flush_blocking(LIMIT));
}
