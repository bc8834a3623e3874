//! Whom a change reaches: those whose configuration it changes, all of them and nobody else. With
//!
//! ```text
//! THINGLOG_FLEET=10000 cargo nextest run --release -p thinglog-tests --test fleet --no-capture reach
//! ```
//!
//! it tells how long that takes for so many connected devices, from the request to the last of them.

use std::collections::BTreeSet;
use std::io::ErrorKind::{TimedOut, WouldBlock};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use thinglog_tests::mqtt::{Connection, Version};
use thinglog_tests::site::Site;

/// Connections that the devices share; a session has a limited number of subscriptions.
const CONNECTIONS: usize = 20;
const GROUPS: usize = 50;
/// Publishes under way at a time.
const AT_ONCE: usize = 500;
/// Nothing here takes so long.
const LIMIT: Duration = Duration::from_secs(60);
/// The device that is told something new after each change.
const LAST: &str = "last";

/// Devices that are connected, each subscribed to what it should do.
struct Listeners {
    operator: Connection,
    devices: usize,
    heard: Vec<Receiver<(String, Value, Instant)>>,
    rounds: u64,
}

fn name(n: usize) -> String {
    format!("lamp-{n:05}")
}

impl Listeners {
    fn new(site: &Site, devices: usize) -> Listeners {
        let mut heard = Vec::new();
        for part in 0..CONNECTIONS {
            let client = format!("listener-{part}");
            let mut connection = Connection::open(site.mqtt, &client, Version::V4).unwrap();
            let own = (0..devices).filter(|n| n % CONNECTIONS == part).map(name);
            for device in own.chain([LAST.to_owned()]) {
                let filter = format!("thinglog/desired/{device}");
                connection.subscribe(&filter).unwrap();
            }
            let (to, from) = sync_channel(devices + 1);
            thread::spawn(move || {
                loop {
                    let (topic, payload) = match connection.delivery() {
                        Ok(delivery) => delivery,
                        // Nothing has come for a while.
                        Err(error) if matches!(error.kind(), WouldBlock | TimedOut) => continue,
                        Err(_) => return,
                    };
                    let device = topic.rsplit('/').next().unwrap_or_default().to_owned();
                    let desired = serde_json::from_slice(&payload).unwrap_or_default();
                    if to.send((device, desired, Instant::now())).is_err() {
                        return;
                    }
                }
            });
            heard.push(from);
        }
        Listeners {
            operator: Connection::open(site.mqtt, "operator", Version::V4).unwrap(),
            devices,
            heard,
            rounds: 0,
        }
    }

    fn retain_all(&mut self, documents: &[(String, String)]) {
        for some in documents.chunks(AT_ONCE) {
            for (topic, document) in some {
                let topic = format!("thinglog/config/{topic}");
                self.operator.retain(&topic, document.as_bytes()).unwrap();
            }
            for _ in some {
                self.operator.acknowledged().unwrap();
            }
        }
    }

    /// Tells whom a change reaches beside those it is to reach, and when the last of them was told.
    /// Waits for these, and for a device that is told something new after the change.
    fn told(
        &mut self,
        expected: &[String],
        change: impl FnOnce(&mut Listeners),
    ) -> (Vec<String>, Option<Instant>) {
        change(self);
        self.rounds += 1;
        let document = json!({"upload": {"flush_ms": self.rounds + 100}}).to_string();
        self.retain_all(&[(format!("device/{LAST}"), document)]);
        let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
        let (mut others, mut at) = (Vec::new(), None);
        for (part, heard) in self.heard.iter().enumerate() {
            let own = (part..self.devices).step_by(CONNECTIONS).map(name);
            let mut missing: BTreeSet<String> = own.filter(|n| expected.contains(&**n)).collect();
            let mut is_last_told = false;
            while !(missing.is_empty() && is_last_told) {
                let (device, desired, when) = heard
                    .recv_timeout(LIMIT)
                    .unwrap_or_else(|_| panic!("still not told: {missing:?}"));
                if device == LAST {
                    is_last_told |= desired["upload"]["flush_ms"] == self.rounds + 100;
                } else if expected.contains(&*device) {
                    missing.remove(&device);
                    at = at.max(Some(when));
                } else {
                    others.push(device);
                }
            }
        }
        (others, at)
    }

    fn all(&self) -> Vec<String> {
        (0..self.devices).map(name).collect()
    }

    fn members(&self, group: usize) -> Vec<String> {
        let members = (0..self.devices).filter(|n| n % GROUPS == group);
        members.map(name).collect()
    }
}

fn put(site: &Site, path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let mut stream = TcpStream::connect(site.http).unwrap();
    write!(
        stream,
        "PUT /api/v1/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn a_change_rewrites_what_differs_and_nothing_else() {
    let devices = std::env::var("THINGLOG_FLEET").map_or(1000, |devices| devices.parse().unwrap());
    let site = Site::new();
    let _up = site.up();
    let mut fleet = Listeners::new(&site, devices);
    let members: Vec<(String, String)> = (0..devices)
        .map(|n| {
            (
                format!("member/g{}/{}", n % GROUPS, name(n)),
                "{}".to_owned(),
            )
        })
        .collect();
    let (all, nobody) = (fleet.all(), Vec::<String>::new());
    let (others, _) = fleet.told(&all, |fleet| fleet.retain_all(&members));
    assert_eq!(others, nobody);

    let (mut started, mut answered) = (Instant::now(), Instant::now());
    let (others, last) = fleet.told(&all, |_| {
        started = Instant::now();
        put(&site, "levels/default", &json!({"level": "WARN"}));
        answered = Instant::now();
    });
    assert_eq!(others, nobody);
    eprintln!(
        "{devices} devices: the request was answered after {} ms, the last device told after {} ms",
        (answered - started).as_millis(),
        last.map_or(0, |last| (last - started).as_millis()),
    );
    let again = |_: &mut Listeners| drop(put(&site, "levels/default", &json!({"level": "WARN"})));
    assert_eq!(fleet.told(&nobody, again).0, nobody, "it said so before");
    let signed = (
        "default".to_owned(),
        r#"{"level":"WARN","by":"alice"}"#.to_owned(),
    );
    let (others, _) = fleet.told(&nobody, |fleet| fleet.retain_all(&[signed]));
    assert_eq!(others, nobody, "who says it changes nothing");

    let group = |_: &mut Listeners| drop(put(&site, "levels/group/g7", &json!({"level": "DEBUG"})));
    assert_eq!(fleet.told(&fleet.members(7), group).0, nobody);
    let temporary = json!({"level": "DEBUG", "for_s": 3600});
    let temporary = |_: &mut Listeners| drop(put(&site, "overrides/group/g3", &temporary));
    assert_eq!(fleet.told(&fleet.members(3), temporary).0, nobody);
    // What the group says itself hides the default from its devices.
    let hidden: BTreeSet<String> = fleet.members(7).into_iter().collect();
    let mut differing = fleet.all();
    differing.retain(|device| !hidden.contains(device));
    let default =
        |_: &mut Listeners| drop(put(&site, "levels/default", &json!({"level": "ERROR"})));
    assert_eq!(fleet.told(&differing, default).0, nobody);
}
