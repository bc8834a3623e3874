//! A publisher inside whatever an application is: any runtime or none, any thread, any input, and after
//! its end.

#![allow(clippy::unwrap_used)]

mod support;

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use serde_json::{Value, json};
use support::{Broker, LIMIT, runtime};
use thinglog_edge::{Builder, Publisher, Record};
use thinglog_schemas::Severity;

const SHORT: Duration = Duration::from_millis(50);

fn builder(broker: &Broker) -> Builder {
    Publisher::builder("lamp-7")
        .broker(broker.address.ip().to_string(), broker.address.port())
        .flush_age(Duration::from_millis(20))
        .backoff(Duration::from_millis(10), Duration::from_millis(50))
}

fn record(message: impl Into<String>) -> Record {
    Record::new("app", Severity::INFO, message)
}

#[test]
fn tasks_of_a_runtime_with_many_threads_share_a_publisher() {
    let broker = Broker::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(3)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (publisher, work) = builder(&broker).attach().unwrap();
        let work = tokio::spawn(work);
        let tasks = (0..8).map(|task| {
            let publisher = publisher.clone();
            tokio::spawn(async move {
                for number in 0..100 {
                    publisher.emit(record(format!("{task}/{number}")));
                }
                publisher.flush(LIMIT).await
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            assert!(task.await.unwrap());
        }
        let other = publisher.clone();
        let blocking = tokio::task::spawn_blocking(move || {
            other.emit(record("blocking"));
            other.flush_blocking(LIMIT)
        });
        assert!(blocking.await.unwrap());
        assert!(publisher.close(LIMIT).await);
        work.await.unwrap();
    });
    let messages = broker.state(|state| state.messages());
    assert_eq!(messages.len(), 801);
    for task in 0..8 {
        let of_task = messages
            .iter()
            .filter_map(|m| m.strip_prefix(&format!("{task}/")));
        assert!(of_task.map(|n| n.parse::<u32>().unwrap()).eq(0..100));
    }
}

#[test]
fn threads_without_a_runtime_share_a_publisher() {
    let broker = Broker::start();
    let publisher = builder(&broker).start().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let publisher = &publisher;
            scope.spawn(move || {
                for number in 0..500 {
                    publisher.emit(record(format!("{thread}/{number}")));
                }
            });
        }
    });
    assert!(publisher.close_blocking(LIMIT));
    assert_eq!(broker.state(|state| state.messages()).len(), 2000);
}

#[test]
fn a_thread_that_runs_the_worker_waits_for_itself_no_longer_than_it_said() {
    let broker = Broker::start();
    let runtime = runtime();
    runtime.block_on(async {
        let (publisher, work) = builder(&broker).attach().unwrap();
        let work = tokio::spawn(work);
        publisher.emit(record("one"));
        assert!(!publisher.flush_blocking(SHORT));
        assert!(publisher.flush(LIMIT).await);
        assert!(
            publisher.flush_blocking(SHORT),
            "there is nothing to wait for"
        );
        assert!(!publisher.close_blocking(SHORT));
        work.await.unwrap();
    });
    assert_eq!(broker.state(|state| state.messages()), ["one"]);
}

#[test]
fn after_the_end_emitting_costs_nothing_and_is_counted() {
    let broker = Broker::start();
    let publisher = builder(&broker).start().unwrap();
    publisher.emit(record("in time"));
    assert!(publisher.close_blocking(LIMIT));
    assert!(publisher.close_blocking(LIMIT), "a second time is as good");
    assert!(!publisher.enabled(Severity::FATAL));
    publisher.emit(record("late"));
    publisher.emit_with(Severity::ERROR, || unreachable!("nobody takes it"));
    assert!(!publisher.emit_blocking(record("late")));
    let counters = publisher.counters();
    assert_eq!((counters.accepted, counters.acknowledged), (4, 1));
    assert_eq!((counters.dropped, counters.memory_bytes), (3, 0));
    assert!(!publisher.flush_blocking(LIMIT), "something was lost");
}

#[test]
fn an_event_that_is_not_taken_is_not_made() {
    let broker = Broker::start();
    let publisher = builder(&broker).start().unwrap();
    publisher.emit_with(Severity::DEBUG, || unreachable!("below the level"));
    publisher.emit_with(Severity::WARN, || {
        Record::new("app", Severity::WARN, "made")
    });
    assert!(publisher.flush_blocking(LIMIT));
    assert_eq!(broker.state(|state| state.messages()), ["made"]);
    assert_eq!(publisher.counters().filtered, 1);
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        (0usize..100_000).prop_map(|length| Value::from("é".repeat(length))),
        (0usize..2000).prop_map(|width| json!(vec![Value::Null; width])),
        (0usize..600).prop_map(|depth| (0..depth).fold(json!(1), |inner, _| json!([inner]))),
        (0usize..600).prop_map(|depth| (0..depth).fold(json!(1), |inner, _| json!({"k": inner}))),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop::collection::vec(inner, 0..4).prop_map(Value::from)
    })
}

fn records() -> impl Strategy<Value = Record> {
    let source = prop_oneof![
        Just(String::new()),
        ".{0,12}",
        "[a-z/ +#%]{0,300}",
        (0usize..100_000).prop_map(|length| "ü".repeat(length)),
    ];
    let message = prop_oneof![
        8 => ".{0,40}",
        1 => (0usize..400_000).prop_map(|length| "ß\0\n".repeat(length / 4)),
    ];
    let attributes = prop::collection::btree_map(".{0,8}", values(), 0..6);
    let wide = prop_oneof![8 => Just(0usize), 1 => 0usize..400];
    let time = prop::option::of(any::<u64>());
    let parts = (
        source,
        1u8..=24,
        message,
        attributes,
        wide,
        time,
        any::<bool>(),
    );
    parts.prop_map(
        |(source, severity, message, attributes, wide, time, truncated)| {
            let mut record = Record::new(source, Severity::new(severity).unwrap(), message);
            record.attributes.extend(attributes);
            record
                .attributes
                .extend((0..wide).map(|n| (format!("{n}"), json!(n))));
            record.time = time;
            record.truncated = truncated;
            record
        },
    )
}

/// Whatever an application emits, nothing panics and every event is accounted for.
#[test]
fn any_record_is_delivered_or_counted() {
    let broker = Arc::new(Broker::start());
    let publisher = builder(&broker)
        .memory_bytes(64 << 20)
        .level(thinglog_schemas::Level::Debug)
        .start()
        .unwrap();
    let strategy = prop::collection::vec(records(), 1..12);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(24));
    let result = runner.run(&strategy, |records| {
        let before = publisher.counters();
        let count = records.len() as u64;
        records
            .into_iter()
            .for_each(|record| publisher.emit(record));
        publisher.flush_blocking(LIMIT);
        let after = publisher.counters();
        prop_assert_eq!(after.accepted - before.accepted, count);
        let (acknowledged, dropped) = (
            after.acknowledged - before.acknowledged,
            after.dropped - before.dropped,
        );
        prop_assert_eq!(acknowledged + dropped, count);
        prop_assert_eq!(dropped, 0, "memory was there for all of them");
        Ok(())
    });
    result.unwrap();
}
