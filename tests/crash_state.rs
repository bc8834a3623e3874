//! The broker is killed at random moments while clients set and clear retained messages, subscribe and
//! unsubscribe, and publish for one who is away: afterwards everything stands as it was acknowledged.
//!
//! `THINGLOG_CRASH_ROUNDS` sets how often (20), `THINGLOG_CRASH_SEED` repeats the choices.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use thinglog_tests::mqtt::{Connection, Version};
use thinglog_tests::random::Random;
use thinglog_tests::site::Site;

/// Things that each client changes.
const KEYS: u64 = 25;
/// Messages for the one who is away: well below what a session may have waiting.
const LETTERS: u64 = 4_000;

/// What one thing may be: as it was acknowledged last, or as it was asked for since.
#[derive(Debug)]
struct Known<T> {
    acknowledged: T,
    asked: Vec<T>,
}

impl<T: PartialEq + Clone> Known<T> {
    fn ask(&mut self, value: &T) {
        self.asked.push(value.clone());
    }

    fn acknowledge(&mut self, value: T) {
        self.asked.clear();
        self.acknowledged = value;
    }

    fn may_be(&self, value: &T) -> bool {
        self.acknowledged == *value || self.asked.contains(value)
    }
}

type Ledger<T> = BTreeMap<String, Known<T>>;

/// Runs `work` on one connection after the other until `stop`.
fn again_and_again(
    stop: &AtomicBool,
    connect: impl Fn() -> io::Result<Connection>,
    mut work: impl FnMut(&mut Connection) -> io::Result<()>,
) {
    while !stop.load(Ordering::Relaxed) {
        // An error is the broker's death.
        if let Ok(mut connection) = connect() {
            while !stop.load(Ordering::Relaxed) && work(&mut connection).is_ok() {}
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sets and clears retained messages; `None` is none.
fn retain(
    name: String,
    broker: SocketAddr,
    mut random: Random,
    stop: Arc<AtomicBool>,
) -> JoinHandle<Ledger<Option<String>>> {
    std::thread::spawn(move || {
        let topics = (0..KEYS).map(|n| format!("thinglog/request/{name}/{n}"));
        let mut ledger: Ledger<Option<String>> = topics.map(|topic| (topic, none(None))).collect();
        let mut number = 0;
        let connect = || Connection::open(broker, &name, Version::V5);
        again_and_again(&stop, connect, |connection| {
            let topic = format!("thinglog/request/{name}/{}", random.below(KEYS));
            number += 1;
            let value = (random.below(3) > 0).then(|| format!("value {number}"));
            let known = ledger.get_mut(&topic).unwrap();
            known.ask(&value);
            connection.retain(&topic, value.clone().unwrap_or_default().as_bytes())?;
            connection.acknowledged()?;
            known.acknowledge(value);
            Ok(())
        });
        ledger
    })
}

fn none<T>(acknowledged: T) -> Known<T> {
    Known {
        acknowledged,
        asked: Vec::new(),
    }
}

/// Subscribes and unsubscribes a session that stays.
fn subscribe(
    name: String,
    broker: SocketAddr,
    mut random: Random,
    stop: Arc<AtomicBool>,
) -> JoinHandle<Ledger<bool>> {
    std::thread::spawn(move || {
        let filters = (0..KEYS).map(|n| format!("probe/{name}/{n}"));
        let mut ledger: Ledger<bool> = filters.map(|filter| (filter, none(false))).collect();
        let connect = || Connection::resume(broker, &name).map(|(connection, _)| connection);
        again_and_again(&stop, connect, |connection| {
            let filter = format!("probe/{name}/{}", random.below(KEYS));
            let known = ledger.get_mut(&filter).unwrap();
            let on = random.below(2) == 0;
            known.ask(&on);
            match on {
                true => connection.subscribe(&filter)?,
                false => connection.unsubscribe(&filter)?,
            }
            known.acknowledge(on);
            Ok(())
        });
        ledger
    })
}

/// Publishes numbered messages, each once; gives those that were acknowledged.
fn write_letters(broker: SocketAddr, stop: Arc<AtomicBool>) -> JoinHandle<BTreeSet<u64>> {
    std::thread::spawn(move || {
        let mut acknowledged = BTreeSet::new();
        let mut next = 0;
        let connect = || Connection::open(broker, "writer", Version::V4);
        again_and_again(&stop, connect, |connection| {
            let first = next;
            for _ in 0..(LETTERS - next).min(5) {
                next += 1;
                connection.publish("letters/absent", (next - 1).to_string().as_bytes())?;
            }
            for number in first..next {
                connection.acknowledged()?;
                acknowledged.insert(number);
            }
            std::thread::sleep(Duration::from_millis(5));
            Ok(())
        });
        acknowledged
    })
}

#[test]
fn retained_messages_sessions_and_their_letters_stand_as_acknowledged() {
    let rounds: u32 = std::env::var("THINGLOG_CRASH_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(20);
    let mut random = Random::from_env("THINGLOG_CRASH_SEED");
    let site = Site::new();
    let mut broker = site.broker();
    let (mut absent, _) = Connection::resume(site.mqtt, "absent").unwrap();
    absent.subscribe("letters/#").unwrap();
    drop(absent);
    let stop = Arc::new(AtomicBool::new(false));
    let mut seed = || Random::new(random.below(u64::MAX / 2));
    let retaining: Vec<_> = (0..3)
        .map(|n| retain(format!("retainer-{n}"), site.mqtt, seed(), stop.clone()))
        .collect();
    let subscribing: Vec<_> = (0..2)
        .map(|n| subscribe(format!("subscriber-{n}"), site.mqtt, seed(), stop.clone()))
        .collect();
    let writing = write_letters(site.mqtt, stop.clone());
    for _ in 0..rounds {
        // The moment is what is tested; nothing waits for this time to pass.
        std::thread::sleep(Duration::from_millis(30 + random.below(400)));
        broker.assert_running();
        broker.kill();
        broker = site.broker();
    }
    stop.store(true, Ordering::Relaxed);
    let retained: Vec<_> = retaining.into_iter().map(|t| t.join().unwrap()).collect();
    let subscribed: Vec<_> = subscribing.into_iter().map(|t| t.join().unwrap()).collect();
    let letters = writing.join().unwrap();
    broker.kill();
    broker = site.broker();
    for ledger in &retained {
        check_retained(&site, ledger);
    }
    for (n, ledger) in subscribed.iter().enumerate() {
        check_subscriptions(&site, &format!("subscriber-{n}"), ledger);
    }
    check_letters(&site, &letters);
    broker.assert_running();
}

fn check_retained(site: &Site, ledger: &Ledger<Option<String>>) {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut publisher = Connection::open(site.mqtt, "publisher", Version::V4).unwrap();
    for topic in ledger.keys() {
        // What is published after the subscription comes behind what is retained.
        let mut watcher = Connection::open(site.mqtt, "watcher", Version::V4).unwrap();
        watcher.subscribe(topic).unwrap();
        publisher.publish(topic, b"end").unwrap();
        publisher.acknowledged().unwrap();
        let (_, payload) = watcher.delivery().unwrap();
        if payload != b"end" {
            found.insert(topic.clone(), String::from_utf8(payload).unwrap());
        }
    }
    assert!(!found.is_empty(), "nothing got through");
    for (topic, known) in ledger {
        let value = found.get(topic).cloned();
        assert!(known.may_be(&value), "{topic} is {value:?}, not {known:?}");
    }
}

fn check_subscriptions(site: &Site, name: &str, ledger: &Ledger<bool>) {
    let (mut session, present) = Connection::resume(site.mqtt, name).unwrap();
    assert!(present, "{name}'s session is there");
    session.subscribe(&format!("end/{name}")).unwrap();
    let mut publisher = Connection::open(site.mqtt, "publisher", Version::V4).unwrap();
    for topic in ledger.keys().chain([&format!("end/{name}")]) {
        publisher.publish(topic, b"probe").unwrap();
        publisher.acknowledged().unwrap();
    }
    let mut found = BTreeSet::new();
    loop {
        let (topic, _) = session.delivery().unwrap();
        if topic.starts_with("end/") {
            break;
        }
        found.insert(topic);
    }
    assert!(!found.is_empty(), "nothing got through");
    for (topic, known) in ledger {
        let subscribed = found.contains(topic);
        assert!(
            known.may_be(&subscribed),
            "{topic}: {subscribed}, not {known:?}"
        );
    }
}

fn check_letters(site: &Site, letters: &BTreeSet<u64>) {
    assert!(letters.len() > 50, "nothing got through");
    let (mut absent, present) = Connection::resume(site.mqtt, "absent").unwrap();
    assert!(present, "the session of the one who is away is there");
    let last = letters.last().unwrap();
    let mut found: Vec<u64> = Vec::new();
    while found.last().is_none_or(|found| found < last) {
        let (_, payload) = absent.delivery().unwrap();
        found.push(String::from_utf8(payload).unwrap().parse().unwrap());
    }
    assert!(found.is_sorted_by(|a, b| a < b), "in order, each once");
    let found: BTreeSet<u64> = found.into_iter().collect();
    let missing: Vec<&u64> = letters.difference(&found).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
}
