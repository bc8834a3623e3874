//! Writing to flash switched on and off by remote configuration, while the publisher runs.

#![allow(clippy::unwrap_used)]

mod support;

use std::{path::Path, time::Duration};

use support::{Answer, Broker, LIMIT};
use thinglog_edge::{Builder, Publisher, Record};
use thinglog_schemas::Severity;

const ROOM: u64 = 8 << 20;

fn builder(broker: &Broker, spool: &Path) -> Builder {
    Publisher::builder("lamp-7")
        .broker(broker.address.ip().to_string(), broker.address.port())
        .flush_age(Duration::from_millis(20))
        .spool_allowed(spool, ROOM)
        .spool_block(64 << 10, Duration::from_millis(20))
        .backoff(Duration::from_millis(10), Duration::from_millis(50))
}

fn say(publisher: &Publisher, messages: std::ops::Range<u32>) {
    for message in messages {
        publisher.emit(Record::new("app", Severity::INFO, message.to_string()));
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn desire(broker: &Broker, revision: &str, limits: &str) {
    broker.desire(&format!(
        r#"{{"schema":1,"revision":"{revision}","level":"INFO","limits":{limits}}}"#
    ));
    broker.wait(|state| {
        let reported = state.reported()?;
        (reported.revision.as_deref() == Some(revision)).then_some(())
    });
}

fn is_persistent(broker: &Broker) -> bool {
    broker.wait(|state| state.reported()?.persistent)
}

#[test]
fn until_it_is_switched_on_the_place_for_the_spool_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("spool");
    let broker = Broker::start();
    let publisher = builder(&broker, &spool).start().unwrap();
    say(&publisher, 0..10);
    assert!(publisher.close_blocking(LIMIT));
    assert_eq!(broker.state(|state| state.messages()), numbers(0..10));
    assert!(!is_persistent(&broker) && !spool.exists());
}

#[test]
fn switched_on_events_are_on_disk_and_survive_the_process_and_the_broker() {
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("spool");
    let broker = Broker::start();
    let publisher = builder(&broker, &spool).start().unwrap();
    say(&publisher, 0..10);
    assert!(publisher.flush_blocking(LIMIT));
    desire(&broker, "on", r#"{"persistent":true}"#);
    broker.wait(|state| (state.reported()?.persistent == Some(true)).then_some(()));
    broker.answer(&[], Answer::Silence);
    say(&publisher, 10..30);
    assert!(publisher.flush_blocking(LIMIT), "on disk is durable");
    assert_eq!(publisher.undelivered(), 0);
    drop(broker);
    drop(publisher);

    // What was configured holds before there is a network.
    let gone = Broker::reserve();
    let publisher = builder(&Broker::start(), &spool)
        .broker(gone.ip().to_string(), gone.port())
        .linger(Duration::ZERO)
        .start();
    let publisher = retry(publisher, &spool, gone);
    say(&publisher, 30..40);
    assert!(publisher.flush_blocking(LIMIT), "on disk without a broker");
    let broker = Broker::at(gone);
    broker.wait(|state| (state.messages().len() == 30).then_some(()));
    assert_eq!(broker.state(|state| state.messages()), numbers(10..40));
}

/// The publisher before may still hold the directory for a moment.
fn retry(
    first: Result<Publisher, thinglog_edge::BuildError>,
    spool: &Path,
    broker: std::net::SocketAddr,
) -> Publisher {
    let deadline = std::time::Instant::now() + LIMIT;
    let mut tried = first;
    loop {
        match tried {
            Ok(publisher) => return publisher,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
        tried = Publisher::builder("lamp-7")
            .broker(broker.ip().to_string(), broker.port())
            .flush_age(Duration::from_millis(20))
            .backoff(Duration::from_millis(10), Duration::from_millis(50))
            .spool_allowed(spool, ROOM)
            .start();
    }
}

#[test]
fn switched_off_what_is_on_disk_is_still_sent_and_what_comes_stays_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start();
    broker.desire(r#"{"schema":1,"revision":"on","level":"INFO","limits":{"persistent":true}}"#);
    let publisher = builder(&broker, &dir.path().join("spool")).start().unwrap();
    broker.wait(|state| (state.reported()?.persistent == Some(true)).then_some(()));
    broker.answer(&[], Answer::Silence);
    say(&publisher, 0..20);
    assert!(publisher.flush_blocking(LIMIT));
    desire(&broker, "off", r#"{"persistent":false}"#);
    assert!(!is_persistent(&broker));
    let on_disk = publisher.counters().spool_bytes;
    say(&publisher, 20..40);
    assert!(
        !publisher.flush_blocking(Duration::from_millis(300)),
        "nobody has them"
    );
    assert_eq!(publisher.counters().spool_bytes, on_disk);
    assert!(publisher.undelivered() >= 20);
    broker.answer(&[], Answer::Acknowledge);
    broker.drop_connections();
    assert!(publisher.flush_blocking(LIMIT));
    assert_eq!(broker.state(|state| state.messages()), numbers(0..40));
}
