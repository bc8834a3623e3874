//! What a publisher knows of its device: the time, or that it does not know it; whether it is the one
//! that reports; whether its worker is alive.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::v5::PubAckReason;
use support::{Answer, Broker, LIMIT, runtime};
use thinglog_edge::{Builder, Publisher, Record};
use thinglog_schemas::Severity;

fn builder(address: std::net::SocketAddr) -> Builder {
    Publisher::builder("lamp-7")
        .broker(address.ip().to_string(), address.port())
        .flush_age(Duration::from_millis(20))
        .backoff(Duration::from_millis(10), Duration::from_millis(50))
}

fn say(publisher: &Publisher, message: &str) {
    publisher.emit(Record::new("app", Severity::INFO, message));
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Well before any time by a calendar.
const THIRTY_YEARS: u64 = 30 * 365 * 86_400 * 1_000_000_000;

#[test]
fn until_the_clock_is_set_events_carry_the_time_since_boot_and_batches_when_they_were_sent() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("synchronized");
    let broker = Broker::start();
    broker.answer(&[], Answer::Silence);
    let publisher = builder(broker.address)
        .clock_synced_by(&file)
        .start()
        .unwrap();
    say(&publisher, "early");
    broker.wait(|state| (state.batches().len() == 1).then_some(()));
    broker.answer(&[], Answer::Acknowledge);
    broker.drop_connections();
    assert!(publisher.flush_blocking(LIMIT));
    let (first, again) = broker.state(|state| {
        let mut batches = state.batches().into_iter().map(|(_, batch)| batch);
        (batches.next().unwrap(), batches.next_back().unwrap())
    });
    assert!(!first.clock.synced && first.entries[0].time < THIRTY_YEARS);
    assert!(first.entries[0].time <= first.clock.sent_mono);
    assert!(
        first.clock.sent_mono < again.clock.sent_mono,
        "it was sent later"
    );
    assert_eq!(first.clock.boot, again.clock.boot);
    assert_eq!((first.epoch, first.entries), (again.epoch, again.entries));
    let synced = |state: &support::State| state.reported().and_then(|r| r.clock_synced);
    assert_eq!(broker.state(synced), Some(false));

    std::fs::write(&file, "").unwrap();
    let mut said = 0;
    until("an event with the time of day", || {
        say(&publisher, "late");
        said += 1;
        assert!(publisher.flush_blocking(LIMIT));
        broker.state(|state| state.batches().last().unwrap().1.clock.synced)
    });
    broker.state(|state| {
        for (_, batch) in state.batches() {
            let mut entries = batch.entries.iter();
            assert!(entries.all(|entry| (entry.time > THIRTY_YEARS) == batch.clock.synced));
        }
        assert_eq!(state.messages().len(), 1 + said);
    });
}

#[test]
fn events_of_before_and_after_the_clock_was_set_go_in_batches_of_their_own_in_one_sequence() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start();
    let publisher = builder(broker.address)
        .clock_synced_by(dir.path().join("synchronized"))
        .flush_age(Duration::from_secs(3600))
        .start()
        .unwrap();
    say(&publisher, "one");
    // A time that cannot be this device's own clock's stays what it says.
    let calendar = 4_102_444_800_000_000_000;
    publisher.emit(Record::new("app", Severity::INFO, "two").at(calendar));
    say(&publisher, "three");
    assert!(publisher.flush_blocking(LIMIT));
    let batches = broker.state(|state| state.acknowledged());
    let kinds: Vec<_> = batches
        .iter()
        .map(|(_, batch)| batch.clock.synced)
        .collect();
    assert_eq!(kinds, [false, true, false]);
    let seqs: Vec<_> = batches.iter().map(|(_, batch)| batch.first_seq).collect();
    assert_eq!(seqs, [0, 1, 2]);
    assert_eq!(batches[1].1.entries[0].time, calendar);
}

#[test]
fn a_publisher_that_is_not_to_report_leaves_the_devices_report_alone() {
    let broker = Broker::start();
    let publisher = builder(broker.address).report(false).start().unwrap();
    say(&publisher, "hello");
    assert!(publisher.close_blocking(LIMIT));
    broker.state(|state| {
        assert_eq!(state.messages(), ["hello"]);
        assert!(state.wills.is_empty());
        assert!(state.reported().is_none());
    });
}

#[test]
fn a_report_that_is_refused_for_good_is_no_reason_to_report_no_more() {
    let broker = Broker::start();
    broker.refuse_reports(PubAckReason::PayloadFormatInvalid);
    let _publisher = builder(broker.address).start().unwrap();
    broker.wait(|state| state.reported().map(drop));
    // Another configuration is another report.
    broker.desire(r#"{"schema":1,"revision":"two","level":"WARN"}"#);
    broker.wait(|state| (state.reported()?.revision.as_deref() == Some("two")).then_some(()));
}

#[test]
fn an_empty_request_that_nobody_takes_any_more_removes_no_configuration() {
    let broker = Broker::start();
    let (builder, requests) = builder(broker.address).requests();
    let publisher = builder.start().unwrap();
    broker.desire(r#"{"schema":1,"revision":"one","level":"DEBUG"}"#);
    until("the configuration", || publisher.enabled(Severity::DEBUG));
    drop(requests);
    // The first shows that nobody takes requests, the others come afterwards.
    for _ in 0..3 {
        broker.request("");
    }
    assert!(publisher.flush_blocking(LIMIT));
    say(&publisher, "a round trip");
    assert!(publisher.flush_blocking(LIMIT));
    assert!(publisher.enabled(Severity::DEBUG));
    assert_eq!(publisher.status().revision.as_deref(), Some("one"));
}

#[test]
fn the_pulse_of_a_worker_that_runs_is_short_and_of_one_that_hangs_grows() {
    let broker = Broker::start();
    let (publisher, worker) = builder(broker.address).attach().unwrap();
    until("the pulse to grow", || {
        publisher.pulse() > Duration::from_millis(300)
    });
    let runtime = runtime();
    let thread = std::thread::spawn(move || runtime.block_on(worker));
    until("the worker to show itself", || {
        publisher.pulse() < Duration::from_millis(300)
    });
    publisher.close_blocking(LIMIT);
    thread.join().unwrap();
}

#[test]
fn drops_are_reported_by_level_and_reason() {
    let address = Broker::reserve();
    let publisher = builder(address).memory_bytes(64 << 10).start().unwrap();
    for _ in 0..200 {
        publisher.emit(Record::new("app", Severity::INFO, "x".repeat(1000)));
    }
    publisher.emit(Record::new("app", Severity::ERROR, "grave"));
    let broker = Broker::at(address);
    publisher.close_blocking(LIMIT);
    let report = broker.wait(|state| state.reported().filter(|report| !report.online));
    let dropped = publisher.counters().dropped;
    assert!(dropped > 100);
    assert_eq!(report.dropped, dropped);
    let by = serde_json::to_value(&report.dropped_by).unwrap();
    assert_eq!(by, serde_json::json!({"INFO": {"spool_full": dropped}}));
}
