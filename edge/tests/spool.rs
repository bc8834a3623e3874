//! A publisher with a spool on disk: durable without a broker, repeated after a restart.

#![allow(clippy::unwrap_used)]

mod support;

use std::{net::SocketAddr, path::Path, time::Duration};

use support::{Answer, Broker, LIMIT, until};
use thinglog_edge::{BuildError, Builder, Publisher, Record, SpoolError};
use thinglog_schemas::{Severity, batch::DropReason};

const CAP: u64 = 4 << 20;

fn builder(address: SocketAddr, spool: &Path) -> Builder {
    Publisher::builder("lamp-7")
        .broker(address.ip().to_string(), address.port())
        .flush_age(Duration::from_millis(20))
        .backoff(Duration::from_millis(10), Duration::from_millis(50))
        .spool(spool, CAP)
        .linger(Duration::ZERO)
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
fn flush_is_durable_without_a_broker_and_a_later_process_delivers() {
    let dir = tempfile::tempdir().unwrap();
    let address = Broker::reserve();
    let publisher = builder(address, dir.path()).start().unwrap();
    emit(&publisher, 0..100);
    assert!(publisher.flush_blocking(LIMIT));
    assert_eq!(publisher.undelivered(), 0);
    assert!(publisher.close_blocking(LIMIT));
    drop(publisher);

    let broker = Broker::at(address);
    let publisher = builder(address, dir.path()).start().unwrap();
    emit(&publisher, 100..200);
    broker.wait(|state| (state.messages().len() == 200).then_some(()));
    broker.state(|state| {
        assert_eq!(state.messages(), numbers(0..200));
        // Each process has lanes of its own: nothing looks like a hole.
        let batches = state.acknowledged();
        let (first, second) = (&batches[0].1, &batches.last().unwrap().1);
        assert_ne!(first.epoch, second.epoch);
        let starts = batches.iter().filter(|(_, batch)| batch.first_seq == 0);
        assert_eq!(starts.count(), 2);
    });
}

#[test]
fn what_was_sent_and_not_acknowledged_is_repeated_by_the_next_process_with_the_same_ids() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start();
    broker.answer(&[], Answer::Silence);
    let publisher = builder(broker.address, dir.path()).start().unwrap();
    emit(&publisher, 0..10);
    assert!(publisher.flush_blocking(LIMIT));
    let sent = broker.wait(|state| state.batches().first().cloned());
    assert!(publisher.close_blocking(Duration::from_millis(100)));
    drop(publisher);

    broker.answer(&[], Answer::Acknowledge);
    let publisher = builder(broker.address, dir.path()).start().unwrap();
    let again = broker.wait(|state| state.acknowledged().first().cloned());
    assert_eq!(sent, again);
    // On its way to the publisher; closing does not wait for what is safe on disk.
    until(|| publisher.counters().acknowledged == 10);
    publisher.close_blocking(LIMIT);
    drop(publisher);

    // Acknowledged is released: a third process has nothing to say.
    let publisher = builder(broker.address, dir.path()).start().unwrap();
    emit(&publisher, 10..11);
    broker.wait(|state| (state.messages().len() == 11).then_some(()));
    assert_eq!(broker.state(|state| state.batches().len()), 3);
}

#[test]
fn a_full_spool_keeps_its_cap_and_what_is_grave_and_declares_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let address = Broker::reserve();
    let publisher = builder(address, dir.path())
        .memory_bytes(256 << 10)
        .start()
        .unwrap();
    // Far more than fits, in text that does not compress.
    let mut seed = 1u64;
    for number in 0..400u32 {
        let noise: String = (0..20_000).map(|_| letter(&mut seed)).collect();
        publisher.emit(Record::new("app", Severity::INFO, noise));
        if number % 40 == 0 {
            publisher.emit(Record::new(
                "app",
                Severity::ERROR,
                format!("grave {number}"),
            ));
        }
        if number % 5 == 0 {
            // Not before the queue overflows: the disk is what has to be full.
            publisher.flush_blocking(LIMIT);
        }
        assert!(bytes_in(dir.path()) <= CAP);
    }
    // The last of the noise is given up for want of room: what comes after it is durable.
    publisher.flush_blocking(LIMIT);
    publisher.emit(Record::new("app", Severity::ERROR, "grave at last"));
    assert!(publisher.flush_blocking(LIMIT));
    assert!(
        publisher.counters().spool_bytes > CAP / 2,
        "{:?}",
        publisher.counters()
    );
    let broker = Broker::at(address);
    broker.wait(|state| {
        let events = state.events();
        let declared: u64 = state
            .acknowledged()
            .iter()
            .flat_map(|(_, batch)| &batch.drops)
            .inspect(|drop| assert_eq!(drop.reason, DropReason::SpoolFull))
            .map(|drop| drop.count)
            .sum();
        (events.len() as u64 + declared == 411).then_some(())
    });
    let grave = broker.state(|state| {
        let messages = state.messages().into_iter();
        messages.filter(|m| m.starts_with("grave")).count()
    });
    assert_eq!(grave, 11);
    assert!(publisher.counters().dropped > 0);
}

fn letter(seed: &mut u64) -> char {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    char::from(b'!' + (*seed >> 32) as u8 % 90)
}

fn bytes_in(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else {
        return 0;
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            Some(match metadata.is_dir() {
                true => bytes_in(&entry.path()),
                false => metadata.len(),
            })
        })
        .sum()
}

#[test]
fn two_publishers_cannot_share_a_spool_and_hear_why() {
    let dir = tempfile::tempdir().unwrap();
    let address = Broker::reserve();
    let _first = builder(address, dir.path()).start().unwrap();
    let second = builder(address, dir.path()).start().err().unwrap();
    assert!(matches!(
        second,
        BuildError::Spool(SpoolError::Locked { .. })
    ));
    assert!(second.to_string().contains("another process"), "{second}");
}

#[test]
fn the_last_configuration_holds_at_the_next_start_before_there_is_a_network() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start();
    broker.desire(r#"{"schema":1,"revision":"7a","level":"ERROR"}"#);
    let publisher = builder(broker.address, dir.path()).start().unwrap();
    broker.wait(|state| state.reported()?.revision);
    publisher.close_blocking(LIMIT);
    drop(publisher);
    drop(broker);

    let publisher = builder(Broker::reserve(), dir.path()).start().unwrap();
    emit(&publisher, 0..10);
    publisher.emit(Record::new("app", Severity::ERROR, "grave"));
    assert!(publisher.flush_blocking(LIMIT));
    assert_eq!(publisher.counters().accepted, 1);
    assert!(!publisher.enabled(Severity::INFO));
}
