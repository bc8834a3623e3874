//! Workers that share the log, as anybody would start them: `mosquitto_sub -t '$share/…'`.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use thinglog_tests::mosquitto::{self, VERSIONS, Watch};
use thinglog_tests::site::Site;
use thinglog_tests::wait;

fn worker(broker: SocketAddr, version: &str, id: &str) -> Watch {
    let share = "$share/workers/thinglog/logs/#";
    let more = ["-q", "1", "-V", version, "-i", id, "-F", "%t %p"];
    Watch::start(broker, share, &more)
}

/// Publishes rounds of one record for each of four devices.
fn publish(broker: SocketAddr, rounds: std::ops::Range<usize>) {
    for round in rounds {
        for device in 0..4 {
            let topic = format!("thinglog/logs/device-{device}/app");
            mosquitto::publish(broker, &topic, round.to_string().as_bytes(), &[]);
        }
    }
}

/// The rounds that a worker got, by topic, in its order; probes left out.
fn got(worker: &Watch) -> BTreeMap<String, Vec<usize>> {
    let mut got: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for line in worker.lines() {
        let (topic, round) = line.split_once(' ').unwrap();
        if let Ok(round) = round.parse() {
            got.entry(topic.to_owned()).or_default().push(round);
        }
    }
    got
}

/// What all of them got, sorted.
fn all(workers: &[&Watch]) -> Vec<(String, usize)> {
    let each = workers.iter().flat_map(|worker| got(worker));
    let mut all: Vec<(String, usize)> = each
        .flat_map(|(topic, rounds)| rounds.into_iter().map(move |round| (topic.clone(), round)))
        .collect();
    all.sort();
    all
}

fn expected(rounds: std::ops::Range<usize>) -> Vec<(String, usize)> {
    let devices = (0..4).map(|device| format!("thinglog/logs/device-{device}/app"));
    devices
        .flat_map(|topic| rounds.clone().map(move |round| (topic.clone(), round)))
        .collect()
}

#[test]
fn workers_share_the_log_and_lose_nothing_when_one_leaves_or_the_broker_dies() {
    if !mosquitto::installed("workers_share_the_log_and_lose_nothing") {
        return;
    }
    let site = Site::new();
    let mut broker = site.broker();
    let [first, second] = VERSIONS.map(|version| worker(site.mqtt, version, version));
    wait::until("both workers to take part", || {
        mosquitto::publish(site.mqtt, "thinglog/logs/probe/app", b"probe", &[]);
        (!first.lines().is_empty() && !second.lines().is_empty()).then_some(())
    });
    publish(site.mqtt, 0..10);
    wait::until("the workers to have everything", || {
        (all(&[&first, &second]).len() >= 40).then_some(())
    });
    assert_eq!(all(&[&first, &second]), expected(0..10), "each once");
    for worker in [&first, &second] {
        let got = got(worker);
        assert!(!got.is_empty(), "a worker has had nothing to do");
        for (topic, rounds) in got {
            assert!(rounds.is_sorted(), "{topic}: {rounds:?}");
        }
    }

    drop(second);
    publish(site.mqtt, 10..12);
    wait::until("the worker that stayed to have the rest", || {
        let got: BTreeSet<_> = all(&[&first]).into_iter().collect();
        expected(10..12)
            .iter()
            .all(|one| got.contains(one))
            .then_some(())
    });

    broker.kill();
    let _broker = site.broker();
    publish(site.mqtt, 12..14);
    wait::until("the worker to have what came while it was away", || {
        let got: BTreeSet<_> = all(&[&first]).into_iter().collect();
        expected(12..14)
            .iter()
            .all(|one| got.contains(one))
            .then_some(())
    });
}
