//! What carrying a log file costs: the CPU time of the real agent that follows a file, which lines are
//! appended to at a steady rate, until a broker has acknowledged all of them. With the environment's
//! `FLUENT_BIT=PROGRAM`, and nginx, Fluent Bit is measured beside it: at the same time, on the
//! same file, until nginx has taken all of it.
//!
//! ```sh
//! cargo build --profile agent -p thinglog-edge
//! FLUENT_BIT=/usr/bin/fluent-bit cargo bench -p thinglog-edge --bench tail -- \
//!     --broker 127.0.0.1:1883 --agent target/agent/thinglog-edge --seconds 20 --runs 5
//! ```
//!
//! Options: `--rate 10000` lines a second, `--seconds 60`, `--runs 1`, `--per 1` lines a write, `--lines FILE`
//! to take the lines from (generated syslog unless given), `--parse text` and the like, `--spool`,
//! `--agent PROGRAM` for another build. Without `--broker`, as a part of all benchmarks, one of the tests takes
//! a second's worth.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod peer;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use peer::Peers;
use support::{Broker, syslog::Syslog};

const AGENT: &str = env!("CARGO_BIN_EXE_thinglog-edge");
/// What /proc counts CPU time in (sysconf(_SC_CLK_TCK), 100 on every Linux).
const TICKS_PER_SECOND: f64 = 100.0;
/// Different lines that are written over and over.
const LINES: usize = 20_000;

/// Ends with this.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Options {
    broker: String,
    agent: String,
    parse: String,
    rate: u64,
    per: u64,
    seconds: u64,
    spool: bool,
}

/// What one process needed.
struct Cost {
    who: String,
    /// CPU seconds for a million events.
    cpu: f64,
    /// MB of physical memory.
    resident: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let number = |name: &str, usual| option(name).map_or(usual, |text| text.parse().unwrap());
    let broker = option("--broker");
    let own = broker.is_none().then(Broker::start);
    let own_address = own.as_ref().map(|broker| broker.address.to_string());
    let options = Options {
        broker: broker.clone().or(own_address).unwrap_or_default(),
        agent: option("--agent").unwrap_or(AGENT.to_owned()),
        parse: option("--parse").unwrap_or("auto".to_owned()),
        rate: number("--rate", 10_000),
        per: number("--per", 1),
        seconds: number("--seconds", if broker.is_some() { 60 } else { 1 }),
        spool: arguments.iter().any(|argument| argument == "--spool"),
    };
    let lines: Vec<String> = match option("--lines") {
        Some(path) => {
            let text = fs::read(path).unwrap();
            let text = String::from_utf8_lossy(&text);
            text.lines().take(LINES).map(str::to_owned).collect()
        }
        None => Syslog::new(7).take(LINES).map(|line| line.raw()).collect(),
    };
    let length: usize = lines.iter().map(String::len).sum();
    println!(
        "{}, load {}{} lines a second of {} bytes",
        machine(),
        fs::read_to_string("/proc/loadavg").unwrap(),
        options.rate,
        length / lines.len(),
    );
    let runs: Vec<Vec<Cost>> = (0..number("--runs", 1))
        .map(|_| measure(&options, &lines))
        .collect();
    summarise(&runs);
}

/// The median of all runs, and how many times the agent's each is.
fn summarise(runs: &[Vec<Cost>]) {
    let medians = |of: fn(&Cost) -> f64| -> Vec<f64> {
        let each = 0..runs[0].len();
        each.map(|at| median(runs.iter().map(|run| of(&run[at]))))
            .collect()
    };
    let (cpu, resident) = (medians(|cost| cost.cpu), medians(|cost| cost.resident));
    println!(
        "medians of {}: CPU s a million events, MB resident",
        runs.len()
    );
    for (at, cost) in runs[0].iter().enumerate() {
        println!(
            "{:60} {:6.2} ({:.2} times the agent's) {:6.1}",
            cost.who,
            cpu[at],
            cpu[at] / cpu[0],
            resident[at],
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn measure(options: &Options, lines: &[String]) -> Vec<Cost> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.log").display().to_string();
    let mut log = File::options()
        .create(true)
        .append(true)
        .open(&file)
        .unwrap();
    let config = configure(options, dir.path(), &file);
    let mut command = Command::new(&options.agent);
    command.args(["--config", &config, "start"]);
    let agent = Process(command.stdin(Stdio::null()).spawn().unwrap());
    let status = || status(&options.agent, &config);
    while status().is_none_or(|status| status["broker"]["connected"] != true) {
        thread::sleep(Duration::from_millis(100));
    }
    let peers = Peers::start(dir.path(), &file);
    // What starting costs is over by then.
    thread::sleep(Duration::from_secs(1));
    let mut all = vec![("thinglog-edge".to_owned(), agent.0.id())];
    let each = peers.iter().flat_map(Peers::each);
    all.extend(each.map(|peer| (format!("Fluent Bit: {}", peer.work), peer.process.0.id())));
    let before: Vec<u64> = all.iter().map(|(_, pid)| ticks(*pid)).collect();
    let started = Instant::now();
    let written = write(&mut log, options, lines);
    let totals = || status().map(|status| status["totals"].clone());
    let acknowledged = || totals().map_or(0, |totals| totals["acknowledged"].as_u64().unwrap());
    while acknowledged() < written {
        thread::sleep(Duration::from_millis(100));
    }
    for peer in peers.iter().flat_map(Peers::each) {
        while peer.delivered() < written {
            thread::sleep(Duration::from_millis(100));
        }
    }
    let took = started.elapsed().as_secs_f64();
    let payload = totals().unwrap()["payload_bytes"].as_u64().unwrap();
    println!(
        "{written} lines in {took:.1} s, all of them acknowledged; {:.1} bytes an event on the wire",
        payload as f64 / written as f64
    );
    let costs = all.into_iter().zip(before).map(|((who, pid), before)| {
        let used = (ticks(pid) - before) as f64 / TICKS_PER_SECOND;
        println!(
            "  {who}: {used:.2} s, {:.2}% of a core",
            used / took * 100.0
        );
        Cost {
            who,
            cpu: used / written as f64 * 1e6,
            resident: resident(pid),
        }
    });
    costs.collect()
}

/// Writes the agent's configuration; returns its path.
fn configure(options: &Options, dir: &Path, file: &str) -> String {
    let place = |name: &str| dir.join(name).display().to_string();
    let mut config = format!(
        "broker = \"{}\"\ndevice = \"tail\"\nstate = \"{}\"\n[control]\nsocket = \"{}\"\n\
         [source.app]\nkind = \"file\"\npaths = [\"{file}\"]\nstart = \"end\"\nparse = \"{}\"\n",
        options.broker,
        place("state"),
        place("control.sock"),
        options.parse,
    );
    if options.spool {
        config.push_str(&format!("[spool]\npath = \"{}\"\n", place("spool")));
    }
    fs::write(place("edge.toml"), config).unwrap();
    place("edge.toml")
}

/// Appends lines at the rate; returns how many.
fn write(log: &mut File, options: &Options, lines: &[String]) -> u64 {
    let total = options.rate * options.seconds / options.per * options.per;
    let started = Instant::now();
    let mut lines = lines.iter().cycle();
    let (mut written, mut text) = (0, String::new());
    while written < total {
        let due = (started.elapsed().as_secs_f64() * options.rate as f64) as u64;
        while written + options.per <= due.min(total) {
            text.clear();
            for line in lines.by_ref().take(options.per as usize) {
                text.push_str(line);
                text.push('\n');
            }
            log.write_all(text.as_bytes()).unwrap();
            written += options.per;
        }
        thread::sleep(Duration::from_millis(1));
    }
    written
}

fn status(agent: &str, config: &str) -> Option<serde_json::Value> {
    let mut command = Command::new(agent);
    command.args(["--config", config, "status", "--json"]);
    let asked = command.stderr(Stdio::null()).output().ok()?;
    serde_json::from_slice(&asked.stdout).ok()
}

/// Cores and their kind.
fn machine() -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut lines = text.lines();
    let name = lines.find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    format!(
        "{cores} cores ({})",
        name.map_or("unknown", |(_, name)| name)
    )
}

/// CPU time of a process, user and system: fields 14 and 15 of proc(5), `stat`.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    let times = fields.skip(11).take(2);
    times.map(|field| field.parse::<u64>().unwrap()).sum()
}

/// MB of physical memory.
fn resident(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let number = line.split_whitespace().next().unwrap();
    number.parse::<f64>().unwrap() / 1e3
}
