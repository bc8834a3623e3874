//! What a fleet costs a router: 1,000, 10,000 and 100,000 devices in a hundredth as many groups. Not a
//! test: run it by hand, at a quiet moment, with
//!
//! ```text
//! cargo test --release -p thinglog-router --lib scale -- --ignored --nocapture --test-threads=1
//! ```
//!
//! The fleet: groups in trees of three levels, each device in one of them, connected, and with a report of
//! its own (model, version, site), every tenth with a document, every hundredth with an override, ten
//! dynamic groups. Everything that the router holds of it is there: documents as they were written, rules,
//! devices, contacts, what each device was told, and the rules that one destination keeps for those it
//! meets. Time is CPU time of the one thread that does it all: from a document that comes to the last
//! `desired` payload and its echo. `written` counts those payloads. Memory is what the process has resident,
//! less what it had before.

#![allow(clippy::print_stdout)]

use std::fs;

use thinglog_schemas::payload::Stamp;

use super::*;
use crate::levels::LevelCache;
use crate::mqtt::names::Names;

const NOW: u64 = 1_800_000_000_000_000_000;

/// What the router's tasks hold together, without their connections.
struct Fleet {
    levels: Arc<Levels>,
    devices: RwLock<Devices>,
    contacts: Contacts,
    documents: Documents,
}

impl Fleet {
    /// A complete set, as [`LevelsTask::complete`] takes it up.
    fn of(devices: usize) -> Fleet {
        let mut configuration = Configuration::default();
        for (topic, document) in documents(devices) {
            let topic = ConfigTopic::parse(&topic).unwrap();
            let change = configuration.apply(topic, document.as_bytes()).unwrap();
            assert!(change.displaced.is_empty(), "{change:?}");
        }
        let (levels, _) = Levels::new();
        let mut fleet = Fleet {
            levels,
            devices: RwLock::default(),
            contacts: Contacts::default(),
            documents: Documents::default(),
        };
        for device in configuration.fleet().named_devices() {
            fleet.documents.saw(&device);
            fleet.devices.write().saw(&device);
        }
        fleet.levels.replace(configuration, &fleet.devices);
        for n in 0..devices {
            let since = format!(
                r#"{{"principal":"{0}","address":"10.0.0.{1}","since":{NOW}}}"#,
                name(n),
                n % 250
            );
            fleet.devices.write().connect(&name(n), since.as_bytes());
            fleet.report(n, "1.9");
            fleet
                .contacts
                .touch(&Arc::from(name(n)), NOW / 1_000_000_000);
            fleet.contacts.noted(&name(n));
        }
        fleet.contacts.take_changes();
        fleet
    }

    fn report(&mut self, n: usize, version: &str) {
        let device = name(n);
        let attributes = self
            .devices
            .write()
            .report(&device, report(n, version).as_bytes());
        let report = self.devices.read().report_of(&device, attributes.unwrap());
        let affected = self
            .levels
            .change(|documents| documents.fleet_mut().report(&device, report));
        if affected != Affected::Nobody {
            self.documents.touch(&device);
        }
    }

    fn configure(&mut self, topic: ConfigTopic<'_>, document: &str) -> usize {
        let changed = self
            .levels
            .change(|documents| documents.apply(topic, document.as_bytes()));
        let documents = &mut self.documents;
        self.levels
            .read(|fleet| documents.affected(&changed.unwrap().affected, fleet));
        self.write()
    }

    /// Writes what has to be written, as the broker sends it back; how many.
    fn write(&mut self) -> usize {
        let mut written = 0;
        loop {
            let mut budget = AT_ONCE;
            let next = self
                .levels
                .read(|fleet| self.documents.next(fleet, NOW, &mut budget));
            match next {
                Some((device, desired)) => {
                    let payload = serde_json::to_vec(&desired).unwrap();
                    self.documents.retained(&device, &payload, NOW);
                    written += 1;
                }
                None if self.documents.has_work() => {}
                None => break,
            }
        }
        self.documents.recheck(NOW);
        written
    }
}

#[test]
#[ignore = "a measurement, to be run by hand"]
fn scale() {
    let before = resident();
    println!(
        "{:>8} {:>7}  {:<28} {:>10} {:>9} {:>9}",
        "devices", "groups", "", "CPU ms", "written", "MB"
    );
    for devices in [1_000, 10_000, 100_000] {
        let start = cpu_ms();
        let mut fleet = Fleet::of(devices);
        let row = |what: &str, since: f64, written: Option<usize>| {
            println!(
                "{devices:>8} {:>7}  {what:<28} {:>10.2} {:>9} {:>9.1}",
                devices / 100,
                cpu_ms() - since,
                written.map_or(String::new(), |written| written.to_string()),
                resident() - before
            );
        };
        row("all documents read", start, None);
        let timed = |what: &str, fleet: &mut Fleet, work: &mut dyn FnMut(&mut Fleet) -> usize| {
            let start = cpu_ms();
            let written = work(fleet);
            row(what, start, Some(written));
        };
        timed("every device told", &mut fleet, &mut |fleet| {
            fleet.documents.everybody();
            fleet.write()
        });
        timed("default changed", &mut fleet, &mut |fleet| {
            fleet.configure(ConfigTopic::Default, r#"{"level":"ERROR"}"#)
        });
        timed("default signed anew", &mut fleet, &mut |fleet| {
            fleet.configure(ConfigTopic::Default, r#"{"level":"ERROR","by":"alice"}"#)
        });
        timed("one group changed", &mut fleet, &mut |fleet| {
            let group = format!("g{}", devices / 100 - 1);
            fleet.configure(
                ConfigTopic::Group(&group),
                r#"{"parent":"g0","level":"DEBUG"}"#,
            )
        });
        timed("one query changed", &mut fleet, &mut |fleet| {
            let query = r#"{"query":"model = x1 and version < \"1.5\"","level":"DEBUG"}"#;
            fleet.configure(ConfigTopic::Group("dynamic-1"), query)
        });
        timed("one device reports", &mut fleet, &mut |fleet| {
            fleet.report(7, "1.0");
            fleet.write()
        });
        timed("a join is checked", &mut fleet, &mut |fleet| {
            let topic = ConfigTopic::Member {
                group: "g0",
                device: "device-new",
            };
            fleet
                .levels
                .read(|rules| rules.check(&[(topic, b"{}")]))
                .unwrap();
            0
        });
        timed("all documents come again", &mut fleet, &mut |fleet| {
            let again = fleet.levels.documents(Configuration::clone);
            fleet.levels.replace(again, &fleet.devices);
            0
        });
        let mut cache = LevelCache::new(Arc::clone(&fleet.levels));
        timed("a destination asks for all", &mut fleet, &mut |_| {
            for n in 0..devices {
                let names = Names {
                    device: Arc::from(name(n)),
                    source: Arc::from("app"),
                };
                cache.of(&names, &Stamp::default());
            }
            0
        });
    }
}

fn name(n: usize) -> String {
    format!("device-{n:06}")
}

fn report(n: usize, version: &str) -> String {
    format!(
        r#"{{"online":true,"version":"thinglog-edge 0.1.0","revision":"0123456789abcdef","spool_events":0,
           "attributes":{{"model":"x{}","version":"{version}","site":"site-{}"}},"dropped":0}}"#,
        n % 10,
        n % 100
    )
}

/// Topics and documents, one after the other.
fn documents(devices: usize) -> impl Iterator<Item = (String, String)> {
    let groups = devices / 100;
    let default = (
        "config/default".to_owned(),
        r#"{"level":"WARN"}"#.to_owned(),
    );
    let statics = (0..groups).map(move |n| {
        let parent = match n {
            n if n >= groups / 10 => Some(n % (groups / 10).max(1)),
            n if n >= groups / 100 && groups >= 100 => Some(n % (groups / 100)),
            _ => None,
        };
        let parent = parent.map_or(String::new(), |parent| format!(r#","parent":"g{parent}""#));
        let level = if n % 3 == 0 { "INFO" } else { "WARN" };
        let document = format!(r#"{{"sources":{{"nginx":"{level}"}}{parent}}}"#);
        (format!("config/group/g{n}"), document)
    });
    let dynamic = (0..10).map(|n| {
        let document =
            format!(r#"{{"query":"model = x{n} and version < \"1.{n}\"","level":"INFO"}}"#);
        (format!("config/group/dynamic-{n}"), document)
    });
    let of_devices = (0..devices).flat_map(move |n| {
        let device = name(n);
        let member = r#"{"at":"2026-01-02T03:04:05.678901234Z","by":"alice"}"#;
        let level = r#"{"level":"INFO","by":"alice","at":"2026-01-02T03:04:05Z"}"#;
        let temporary = r#"{"level":"DEBUG","until":"2030-01-01T00:00:00Z"}"#;
        [
            (
                true,
                format!("config/member/g{}/{device}", n % groups),
                member,
            ),
            (n % 10 == 0, format!("config/device/{device}"), level),
            (
                n % 100 == 1,
                format!("config/override/device/{device}"),
                temporary,
            ),
        ]
        .into_iter()
        .filter(|(there, ..)| *there)
        .map(|(_, topic, document)| (topic, document.to_owned()))
    });
    [default]
        .into_iter()
        .chain(statics)
        .chain(dynamic)
        .chain(of_devices)
}

/// CPU time of this thread (Linux, proc(5)): nanoseconds in the first field.
fn cpu_ms() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split(' ').next().unwrap_or_default();
    first.parse::<f64>().unwrap_or_default() / 1e6
}

/// Resident memory, MB.
fn resident() -> f64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kilobytes
        .and_then(|text| text.parse::<f64>().ok())
        .unwrap_or_default()
        / 1e3
}
