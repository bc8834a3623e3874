//! Broker, router and devices are killed at random moments, again and again; afterwards every event
//! that was acknowledged is in the file, once by its id, in order per device and epoch.
//!
//! `THINGLOG_CRASH_ROUNDS` sets how often (20), `THINGLOG_CRASH_SEED` repeats the choices.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use thinglog_tests::mqtt::{Connection, Version};
use thinglog_tests::process::{Process, binary};
use thinglog_tests::random::Random;
use thinglog_tests::site::Site;
use thinglog_tests::wait;

/// Publishes on the way at once.
const WINDOW: u64 = 20;
/// Time for all that was acknowledged to reach the file after the last round.
const DRAIN: Duration = Duration::from_secs(300);

/// A plain MQTT client that publishes numbered messages, each once, and notes which were acknowledged.
struct Plain {
    device: String,
    thread: JoinHandle<BTreeSet<u64>>,
}

impl Plain {
    fn start(n: usize, broker: SocketAddr, stop: &Arc<AtomicBool>) -> Plain {
        let device = format!("plain-{n}");
        let version = if n.is_multiple_of(2) {
            Version::V4
        } else {
            Version::V5
        };
        let (name, stop) = (device.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut acknowledged = BTreeSet::new();
            let mut next = 0;
            while !stop.load(Ordering::Relaxed) {
                // An error is the broker's death: what was on the way then counts for nothing.
                if let Ok(mut connection) = Connection::open(broker, &name, version) {
                    let _ = publish(&mut connection, &name, &mut next, &mut acknowledged, &stop);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            acknowledged
        });
        Plain { device, thread }
    }
}

fn publish(
    connection: &mut Connection,
    device: &str,
    next: &mut u64,
    acknowledged: &mut BTreeSet<u64>,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    let topic = format!("thinglog/logs/{device}/app");
    while !stop.load(Ordering::Relaxed) {
        let mut on_the_way = HashMap::new();
        for _ in 0..WINDOW {
            let number = *next;
            *next += 1;
            let id = connection.publish(&topic, format!("{device}/{number}").as_bytes())?;
            on_the_way.insert(id, number);
        }
        while !on_the_way.is_empty() {
            let id = connection.acknowledged()?;
            acknowledged.insert(on_the_way.remove(&id).expect("an acknowledgement of ours"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A device with the embedded publisher and a spool, one generation after the other.
struct Embedded {
    device: String,
    generation: u32,
    process: Option<Process>,
}

impl Embedded {
    fn start(&mut self, site: &Site) {
        self.generation += 1;
        let mut command = Command::new(binary("crash-device"));
        let spool = site.path().join(format!("spool-{}", self.device));
        command
            .arg(site.mqtt.ip().to_string())
            .arg(site.mqtt.port().to_string());
        command
            .arg(&self.device)
            .arg(spool)
            .arg(self.generation.to_string());
        self.process = Some(Process::start(&self.device, site.path(), &mut command));
    }

    /// The messages that were said to be durable.
    fn durable(&self) -> BTreeSet<String> {
        let output = self
            .process
            .as_ref()
            .map(Process::output)
            .unwrap_or_default();
        let mut highest = BTreeMap::new();
        for line in output.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            if let ["durable", generation, number] = fields[..]
                && let (Ok(generation), Ok(number)) =
                    (generation.parse::<u32>(), number.parse::<u64>())
            {
                highest.insert(generation, number);
            }
        }
        let all = highest.into_iter().flat_map(|(generation, number)| {
            (0..=number).map(move |n| format!("{}/{generation}/{n}", self.device))
        });
        all.collect()
    }
}

/// The agent with a spool, following a file that grows.
struct Follower {
    process: Option<Process>,
    file: File,
    lines: u64,
}

impl Follower {
    fn start(&mut self, site: &Site) {
        let options = ["--spool", "spool-follower", "file", "growing.log"];
        self.process = Some(site.edge("follower", "follower", &options));
    }

    fn grow(&mut self) {
        for _ in 0..50 {
            writeln!(self.file, "follower/{}", self.lines).unwrap();
            self.lines += 1;
        }
    }
}

struct Fleet {
    site: Site,
    broker: Option<Process>,
    router: Option<Process>,
    embedded: Vec<Embedded>,
    follower: Follower,
}

impl Fleet {
    fn start() -> Fleet {
        let site = Site::new();
        let broker = Some(site.broker());
        let mut router = site.router();
        site.wait_for_router(&mut router);
        let file = File::create(site.path().join("growing.log")).unwrap();
        let device = |n| Embedded {
            device: format!("embedded-{n}"),
            generation: 0,
            process: None,
        };
        let follower = Follower {
            process: None,
            file,
            lines: 0,
        };
        let mut fleet = Fleet {
            site,
            broker,
            router: Some(router),
            embedded: vec![device(0), device(1)],
            follower,
        };
        fleet
            .embedded
            .iter_mut()
            .for_each(|device| device.start(&fleet.site));
        fleet.follower.start(&fleet.site);
        fleet
    }

    /// Kills what `victims` says, bit by bit, and starts it again.
    fn strike(&mut self, victims: u64) {
        let hit = |n: u64| victims & (1 << n) != 0;
        // All of them die before the first one lives again.
        let doomed: [(bool, &mut Option<Process>); 3] = [
            (hit(0), &mut self.broker),
            (hit(1), &mut self.router),
            (hit(2), &mut self.follower.process),
        ];
        for (_, process) in doomed.into_iter().filter(|(hit, _)| *hit) {
            process.take().unwrap().kill();
        }
        for (n, device) in self.embedded.iter_mut().enumerate() {
            if hit(3 + n as u64) {
                device.process.as_mut().unwrap().kill();
                device.start(&self.site);
            }
        }
        if hit(0) {
            self.broker = Some(self.site.broker());
        }
        if hit(1) {
            self.router = Some(self.site.router());
        }
        if hit(2) {
            self.follower.start(&self.site);
        }
    }

    fn assert_running(&mut self) {
        let devices = self
            .embedded
            .iter_mut()
            .filter_map(|device| device.process.as_mut());
        let others = [
            &mut self.broker,
            &mut self.router,
            &mut self.follower.process,
        ];
        let others = others.into_iter().filter_map(Option::as_mut);
        devices.chain(others).for_each(Process::assert_running);
    }
}

fn message(event: &Value) -> &str {
    event["message"].as_str().unwrap_or_default()
}

#[test]
fn every_acknowledged_event_is_there_once_and_in_order() {
    let rounds: u32 = std::env::var("THINGLOG_CRASH_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(20);
    let mut random = Random::from_env("THINGLOG_CRASH_SEED");
    let mut fleet = Fleet::start();
    let stop = Arc::new(AtomicBool::new(false));
    let plain: Vec<Plain> = (0..4)
        .map(|n| Plain::start(n, fleet.site.mqtt, &stop))
        .collect();
    for round in 1..=rounds {
        fleet.follower.grow();
        // The moment is what is tested; nothing waits for this time to pass.
        std::thread::sleep(Duration::from_millis(100 + random.below(700)));
        fleet.assert_running();
        let victims = 1 + random.below(31);
        eprintln!("round {round} of {rounds}: kills {victims:#07b}");
        fleet.strike(victims);
    }
    fleet.follower.grow();
    stop.store(true, Ordering::Relaxed);
    let mut expected: BTreeSet<String> = (0..fleet.follower.lines)
        .map(|line| format!("follower/{line}"))
        .collect();
    for Plain { device, thread } in plain {
        let acknowledged = thread.join().unwrap();
        assert!(
            acknowledged.len() as u64 > WINDOW,
            "{device} got nothing through"
        );
        expected.extend(
            acknowledged
                .into_iter()
                .map(|number| format!("{device}/{number}")),
        );
    }
    for device in &mut fleet.embedded {
        device.process.as_mut().unwrap().kill();
        let durable = device.durable();
        assert!(!durable.is_empty(), "{} got nothing through", device.device);
        expected.extend(durable);
        // Its spool is emptied by one more generation.
        device.start(&fleet.site);
    }
    drain(&mut fleet, &expected);
    for device in &mut fleet.embedded {
        device.process.as_mut().unwrap().kill();
    }
    assert!(fleet.router.as_mut().unwrap().terminate().success());
    let events = fleet.site.events();
    eprintln!(
        "{} events acknowledged, {} in the file",
        expected.len(),
        events.len()
    );
    check(&events, &expected);
}

/// Waits until everything expected is in the file.
fn drain(fleet: &mut Fleet, expected: &BTreeSet<String>) {
    wait::until_within(DRAIN, "all that was acknowledged in the file", || {
        fleet.assert_running();
        let events = fleet.site.events();
        let there: BTreeSet<&str> = events.iter().map(message).collect();
        let missing: Vec<&String> = expected
            .iter()
            .filter(|m| !there.contains(m.as_str()))
            .collect();
        if let Some(first) = missing.first() {
            eprintln!(
                "{} of {} are missing, {first} first",
                missing.len(),
                expected.len()
            );
            std::thread::sleep(Duration::from_millis(500));
        }
        missing.is_empty().then_some(())
    });
}

fn check(events: &[Value], expected: &BTreeSet<String>) {
    let mut ids = BTreeSet::new();
    let mut times: HashMap<&str, u32> = HashMap::new();
    let mut lanes: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
    let mut plain: HashMap<&str, u64> = HashMap::new();
    for event in events {
        let id = event["id"].as_str().unwrap();
        assert!(ids.insert(id), "{id} is there twice");
        *times.entry(message(event)).or_default() += 1;
        let device = event["device"].as_str().unwrap();
        assert_ne!(event["source"], "thinglog", "a loss was found: {event}");
        if device.starts_with("plain-") {
            let number: u64 = message(event).rsplit('/').next().unwrap().parse().unwrap();
            let before = plain.insert(device, number);
            assert!(
                before.is_none_or(|before| before < number),
                "{device}: {number} after {before:?}"
            );
        } else {
            let fields: Vec<&str> = id.split('/').collect();
            let [_, epoch, seq] = fields[..] else {
                panic!("{id} is no embedded publisher's")
            };
            let next = lanes
                .entry((device, event["source"].as_str().unwrap(), epoch))
                .or_default();
            assert_eq!(seq.parse::<u64>().unwrap(), *next, "{id} is out of order");
            *next += 1;
        }
    }
    for message in expected {
        let count = times.get(message.as_str()).copied().unwrap_or(0);
        // What the agent had read but not noted as read it reads again, as new events.
        let once = count == 1 || (count > 1 && message.starts_with("follower/"));
        assert!(once, "{message} is there {count} times");
    }
}
