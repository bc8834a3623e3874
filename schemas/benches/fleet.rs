//! What a fleet costs: 1,000, 10,000 and 100,000 devices in a hundredth as many groups.
//!
//! ```sh
//! cargo bench -p thinglog-schemas --bench fleet
//! ```
//!
//! The fleet: groups in trees of three levels, each device in one of them and with a report of its own
//! (model, version, site), every tenth with a document, every hundredth with an override, ten dynamic
//! groups. For each size, on one core: to read all documents; to answer what every device is told and
//! the level of three of its sources, at the start and after changes (of the default; of the default's
//! signature alone; of one group; of one dynamic group's query; one device's report). `written` counts
//! the answers that are others than before: the `desired` documents that a router would write. Memory
//! is what the process has resident with the fleet and one revision for each device.
//!
//! CPU time of the thread, best of three fleets of each size; wall time may be far above it on a busy
//! machine. As a part of all benchmarks (`--test`) only the smallest is done, once.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{collections::HashMap, fs, sync::Arc, time::Instant};

use thinglog_schemas::{
    resolve::{Affected, Answers, Fleet, Report, Who},
    topic::ConfigTopic,
};

const NOW: u64 = 1_800_000_000_000_000_000;
const SOURCES: [&str; 3] = ["nginx", "sshd", "kernel"];

fn main() {
    let brief = std::env::args().any(|argument| argument == "--test");
    println!("machine: {}", machine());
    println!(
        "{:>8} {:>7}  {:<24} {:>10} {:>10} {:>9} {:>9}",
        "devices", "groups", "", "CPU ms", "wall ms", "written", "MB"
    );
    for devices in [1_000, 10_000, 100_000] {
        let rounds = if brief { 1 } else { 3 };
        let mut best: Vec<Row> = measure(devices);
        for _ in 1..rounds {
            for (best, row) in best.iter_mut().zip(measure(devices)) {
                if row.cpu_ms < best.cpu_ms {
                    *best = row;
                }
            }
        }
        for row in best {
            println!(
                "{devices:>8} {:>7}  {:<24} {:>10.2} {:>10.2} {:>9} {:>9.1}",
                devices / 100,
                row.what,
                row.cpu_ms,
                row.wall_ms,
                row.written
                    .map_or(String::new(), |written| written.to_string()),
                row.megabytes
            );
        }
        if brief {
            return;
        }
    }
}

struct Row {
    what: &'static str,
    cpu_ms: f64,
    wall_ms: f64,
    written: Option<usize>,
    megabytes: f64,
}

/// A router's view of it: the fleet, and the revision that each device has been told.
struct Router {
    fleet: Fleet,
    told: HashMap<Arc<str>, u64>,
    answers: Answers,
}

impl Router {
    /// Looks at those who are concerned; how many have to be told something else.
    fn tell(&mut self, affected: &Affected) -> usize {
        let devices: Vec<Arc<str>> = match affected {
            Affected::Nobody => Vec::new(),
            Affected::Device(device) => vec![Arc::from(device.as_str())],
            Affected::Group(group) => self
                .fleet
                .members(group)
                .into_iter()
                .map(Arc::from)
                .collect(),
            Affected::Devices(devices) => devices
                .iter()
                .map(|device| Arc::from(device.as_str()))
                .collect(),
            Affected::Everybody => self.told.keys().cloned().collect(),
        };
        let mut written = 0;
        for device in devices {
            let desired = self.fleet.desired_with(&mut self.answers, &device, NOW);
            let revision = u64::from_str_radix(&desired.revision, 16).unwrap();
            written += usize::from(self.told.insert(device, revision) != Some(revision));
        }
        written
    }

    /// The levels of every device, as events would ask for them.
    fn levels(&self) -> usize {
        let level = |device: &Arc<str>| {
            let who = Who {
                device,
                ..Who::default()
            };
            let resolved = self.fleet.resolve(&who);
            let levels = SOURCES
                .iter()
                .map(|source| resolved.level(source, NOW) as usize);
            levels.sum::<usize>()
        };
        self.told.keys().map(level).sum()
    }

    fn apply(&mut self, topic: ConfigTopic<'_>, document: &str) -> Affected {
        let change = self.fleet.apply(topic, document.as_bytes()).unwrap();
        assert!(change.displaced.is_empty(), "{change:?}");
        change.affected
    }
}

fn measure(devices: usize) -> Vec<Row> {
    let documents = documents(devices);
    let mut router = Router {
        fleet: Fleet::new(),
        told: HashMap::new(),
        answers: Answers::default(),
    };
    let mut rows = Vec::new();
    rows.push(timed("documents read", || {
        for (topic, document) in &documents {
            router.apply(ConfigTopic::parse(topic).unwrap(), document);
        }
        for n in 0..devices {
            router.fleet.report(&name(n), Some(report(n, "1.9")));
        }
        None
    }));
    router.told = (0..devices).map(|n| (Arc::from(name(n)), 0)).collect();
    drop(documents);
    rows.push(timed("first answers", || {
        Some(router.tell(&Affected::Everybody))
    }));
    rows.push(timed("default changed", || {
        let affected = router.apply(ConfigTopic::Default, r#"{"level":"ERROR"}"#);
        let written = router.tell(&affected);
        assert!(router.levels() > 0);
        Some(written)
    }));
    rows.push(timed("default signed anew", || {
        let affected = router.apply(ConfigTopic::Default, r#"{"level":"ERROR","by":"alice"}"#);
        Some(router.tell(&affected))
    }));
    rows.push(timed("one group changed", || {
        let document = r#"{"parent":"g0","level":"DEBUG"}"#;
        let group = format!("g{}", devices / 100 - 1);
        let affected = router.apply(ConfigTopic::Group(&group), document);
        Some(router.tell(&affected))
    }));
    rows.push(timed("one query changed", || {
        let document = r#"{"query":"model = x1 and version < \"1.5\"","level":"DEBUG"}"#;
        let affected = router.apply(ConfigTopic::Group("dynamic-1"), document);
        Some(router.tell(&affected))
    }));
    rows.push(timed("one device reports", || {
        let affected = router.fleet.report(&name(7), Some(report(7, "1.0")));
        Some(router.tell(&affected))
    }));
    rows
}

fn timed(what: &'static str, mut work: impl FnMut() -> Option<usize>) -> Row {
    let (start, cpu) = (Instant::now(), cpu_ms());
    let written = work();
    Row {
        what,
        cpu_ms: cpu_ms() - cpu,
        wall_ms: start.elapsed().as_secs_f64() * 1e3,
        written,
        megabytes: resident(),
    }
}

fn name(n: usize) -> String {
    format!("device-{n:06}")
}

fn report(n: usize, version: &str) -> Report {
    let pairs = [
        ("model", format!("x{}", n % 10)),
        ("version", version.to_owned()),
        ("site", format!("site-{}", n % 100)),
    ];
    Report {
        online: true,
        attributes: pairs.into_iter().collect(),
    }
}

fn documents(devices: usize) -> Vec<(String, String)> {
    let groups = devices / 100;
    let mut all = vec![(
        "config/default".to_owned(),
        r#"{"level":"WARN"}"#.to_owned(),
    )];
    for n in 0..groups {
        let parent = match n {
            n if n >= groups / 10 => Some(n % (groups / 10).max(1)),
            n if n >= groups / 100 && groups >= 100 => Some(n % (groups / 100)),
            _ => None,
        };
        let parent = parent.map_or(String::new(), |parent| format!(r#","parent":"g{parent}""#));
        let level = if n % 3 == 0 { "INFO" } else { "WARN" };
        all.push((
            format!("config/group/g{n}"),
            format!(r#"{{"sources":{{"nginx":"{level}"}}{parent}}}"#),
        ));
    }
    for n in 0..10 {
        let document =
            format!(r#"{{"query":"model = x{n} and version < \"1.{n}\"","level":"INFO"}}"#);
        all.push((format!("config/group/dynamic-{n}"), document));
    }
    for n in 0..devices {
        let device = name(n);
        all.push((
            format!("config/member/g{}/{device}", n % groups),
            "{}".to_owned(),
        ));
        if n % 10 == 0 {
            all.push((
                format!("config/device/{device}"),
                r#"{"level":"INFO"}"#.to_owned(),
            ));
        }
        if n % 100 == 1 {
            let document = r#"{"level":"DEBUG","until":"2030-01-01T00:00:00Z"}"#;
            all.push((
                format!("config/override/device/{device}"),
                document.to_owned(),
            ));
        }
    }
    all
}

/// CPU time of this thread (Linux, proc(5)): nanoseconds in the first field.
fn cpu_ms() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split(' ').next().unwrap_or_default();
    first.parse::<f64>().unwrap_or_default() / 1e6
}

fn resident() -> f64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kilobytes
        .and_then(|text| text.parse::<f64>().ok())
        .unwrap_or_default()
        / 1e3
}

fn machine() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find(|line| line.starts_with("model name"));
    let model = model
        .and_then(|line| line.split_once(": "))
        .map_or("unknown", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {cores} cores")
}
