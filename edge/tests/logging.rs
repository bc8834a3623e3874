//! What an application logs through `log` or `tracing`, and its panics, become events; levels that are
//! set from afar reach the filters of both.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use support::{Answer, Broker, LIMIT, until};
use thinglog_edge::{Builder, Logger, Publisher, PublisherLayer};
use thinglog_schemas::{Severity, batch::Entry};
use tracing::{Level, Subscriber};
use tracing_subscriber::{Layer, layer::Context, prelude::*};

fn builder(broker: &Broker) -> Builder {
    Publisher::builder("lamp-7")
        .broker(broker.address.ip().to_string(), broker.address.port())
        .flush_age(Duration::from_millis(20))
        .backoff(Duration::from_millis(10), Duration::from_millis(50))
}

fn events(broker: &Broker, publisher: &Publisher) -> Vec<(String, Entry)> {
    assert!(publisher.flush_blocking(LIMIT));
    broker.state(|state| state.events())
}

/// Its `Debug` logs, as that of anybody's type may.
struct Chatty;

impl fmt::Debug for Chatty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        tracing::error!("from within");
        log::error!("from within");
        f.write_str("chatty")
    }
}

#[test]
fn log_records_become_events_and_remote_levels_reach_the_log_crate() {
    let broker = Broker::start();
    let publisher = builder(&broker).start().unwrap();
    let logger = Logger::new(publisher.clone()).with_source("main");
    logger.with_flush_deadline(LIMIT).init().unwrap();
    assert_eq!(log::max_level(), log::LevelFilter::Info);

    log::warn!(target: "bulb", celsius = 91, unit = "C"; "bulb is {}", "hot");
    log::debug!("below the level");
    log::error!(target: "rumqttc::v5", "of our own");
    log::info!(what:? = Chatty; "nested");
    log::logger().flush();
    let counters = publisher.counters();
    assert_eq!(
        (counters.accepted, counters.acknowledged),
        (2, 2),
        "a flush waits"
    );

    broker.desire(r#"{"schema":1,"revision":"1","level":"ERROR","sources":{"main":"DEBUG"}}"#);
    until(|| log::max_level() == log::LevelFilter::Trace);
    log::debug!("in detail");
    broker.desire(r#"{"schema":1,"revision":"2","level":"ERROR"}"#);
    until(|| log::max_level() == log::LevelFilter::Error);

    let events = events(&broker, &publisher);
    let texts: Vec<&str> = events.iter().map(|(_, entry)| &*entry.message).collect();
    assert_eq!(texts, ["bulb is hot", "nested", "in detail"]);
    let (source, hot) = &events[0];
    assert_eq!((source.as_str(), hot.severity), ("main", Severity::WARN));
    assert_eq!(hot.attributes["celsius"], 91);
    assert_eq!(hot.attributes["unit"], "C");
    assert_eq!(hot.attributes["target"], "bulb");
    assert_eq!(events[1].1.attributes["what"], "chatty");
    assert_eq!(events[1].1.attributes["target"], module_path!());

    publisher.close_blocking(LIMIT);
    assert_eq!(
        log::max_level(),
        log::LevelFilter::Off,
        "nobody takes any more"
    );
}

#[test]
fn a_flush_of_the_log_crate_is_bounded() {
    let broker = Broker::start();
    broker.answer(&[], Answer::Silence);
    let publisher = builder(&broker).start().unwrap();
    let logger = Logger::new(publisher.clone()).with_flush_deadline(Duration::from_millis(50));
    log::Log::log(
        &logger,
        &log::Record::builder().args(format_args!("unheard")).build(),
    );
    log::Log::flush(&logger);
    assert_eq!(publisher.undelivered(), 1);
}

/// Counts what reaches it.
#[derive(Clone, Default)]
struct Other(Arc<AtomicUsize>);

impl<S: Subscriber> Layer<S> for Other {
    fn on_event(&self, _: &tracing::Event<'_>, _: Context<'_, S>) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn a_filtered_layer_disables_what_nobody_takes_and_nothing_of_other_layers() {
    let broker = Broker::start();
    let publisher = builder(&broker).start().unwrap();
    let layer = || PublisherLayer::new(publisher.clone()).filtered();
    let alone = tracing_subscriber::registry().with(layer());
    tracing::subscriber::with_default(alone, || {
        assert!(tracing::enabled!(Level::INFO) && !tracing::enabled!(Level::DEBUG));
        broker.wait(|state| (!state.connects.is_empty()).then_some(()));
        broker.desire(r#"{"schema":1,"revision":"1","level":"DEBUG"}"#);
        until(|| tracing::enabled!(Level::DEBUG));
        tracing::debug!(what = ?Chatty, "in detail");
        broker.desire(r#"{"schema":1,"revision":"2","level":"WARN"}"#);
        until(|| !tracing::enabled!(Level::INFO));
        tracing::info!("not any more");
    });
    let other = Other::default();
    let both = tracing_subscriber::registry()
        .with(layer())
        .with(other.clone());
    tracing::subscriber::with_default(both, || {
        tracing::debug!("for the other alone");
        tracing::warn!("for both");
        tracing::error!(target: "thinglog_edge::worker", "of our own");
    });
    assert_eq!(other.0.load(Relaxed), 3);
    let events = events(&broker, &publisher);
    let texts: Vec<&str> = events.iter().map(|(_, entry)| &*entry.message).collect();
    assert_eq!(texts, ["in detail", "for both"]);
    assert_eq!(events[0].1.attributes["what"], "chatty");
}

#[test]
fn fields_of_spans_become_attributes_and_the_nearest_counts() {
    let broker = Broker::start();
    let publisher = builder(&broker).start().unwrap();
    let layer = PublisherLayer::new(publisher.clone()).with_span_fields();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        let request = tracing::info_span!(
            "request",
            id = 7,
            lamp = "lamp-7",
            user = tracing::field::Empty
        );
        let _request = request.enter();
        request.record("user", "ann");
        let query = tracing::info_span!("query", id = 8);
        query.in_scope(|| tracing::info!(rows = 3, "within"));
        tracing::info!(lamp = "other", "outside the query");
    });
    tracing::subscriber::with_default(
        tracing_subscriber::registry().with(PublisherLayer::new(publisher.clone())),
        || tracing::info_span!("request", id = 9).in_scope(|| tracing::info!("without")),
    );
    let events = events(&broker, &publisher);
    let attributes: Vec<String> = events
        .iter()
        .map(|(_, entry)| {
            let mut attributes = entry.attributes.clone();
            attributes.remove("target");
            serde_json::to_string(&attributes).unwrap()
        })
        .collect();
    let expected = [
        r#"{"id":8,"lamp":"lamp-7","rows":3,"span":"request:query","user":"ann"}"#,
        r#"{"id":7,"lamp":"other","span":"request","user":"ann"}"#,
        "{}",
    ];
    assert_eq!(attributes, expected);
}

/// Logs when it goes, as a guard of an application may.
struct Guard(Publisher);

impl Drop for Guard {
    fn drop(&mut self) {
        let record = thinglog_edge::Record::new("app", Severity::INFO, "unwinding");
        self.0.emit(record);
    }
}

#[test]
fn a_panic_becomes_an_event_that_is_durable_before_the_thread_unwinds() {
    let broker = Broker::start();
    let publisher = builder(&broker).start().unwrap();
    publisher.log_panics("app", LIMIT);
    let guard = Guard(publisher.clone());
    let thread = std::thread::Builder::new()
        .name("lamp".into())
        .spawn(move || {
            let _guard = guard;
            panic!("bulb {} is gone", 7)
        });
    assert!(thread.unwrap().join().is_err());
    let first = broker.state(|state| state.events());
    assert_eq!(first[0].1.message, "panic: bulb 7 is gone");
    assert_eq!(first[0].1.severity, Severity::ERROR);
    assert_eq!(first[0].1.attributes["thread"], "lamp");
    let location = first[0].1.attributes["location"].as_str().unwrap();
    assert!(location.starts_with(file!()), "{location}");
    let events = events(&broker, &publisher);
    assert_eq!(events[1].1.message, "unwinding");
}
