//! What carrying a log file costs: the CPU time of the real agent that follows a file, which lines are
//! appended to one by one at a steady rate, until a broker has acknowledged all of them. Another process
//! that follows the same file (an agent of another make) is measured beside it.
//!
//! ```sh
//! cargo bench -p thinglog-edge --bench tail -- --broker 127.0.0.1:1883 --lines /var/log/syslog
//! cargo bench -p thinglog-edge --bench tail -- --broker 127.0.0.1:1883 --file /tmp/t.log --beside PID
//! ```
//!
//! Options: `--rate 10000` lines a second, `--seconds 60`, `--per 1` lines a write, `--lines FILE` to take
//! the lines from (generated syslog unless given), `--file FILE` to write to (must not exist for the agent's
//! sake; one of its own unless given), `--parse text` and the like, `--spool`, `--agent PROGRAM` for another
//! build. Without `--broker`, as a part of all benchmarks, one of the tests takes a second's worth.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

#[path = "../tests/support/mod.rs"]
mod support;
use support::{Broker, syslog::Syslog};

const AGENT: &str = env!("CARGO_BIN_EXE_thinglog-edge");
/// What /proc counts CPU time in (sysconf(_SC_CLK_TCK), 100 on every Linux).
const TICKS_PER_SECOND: f64 = 100.0;
/// Different lines that are written over and over.
const LINES: usize = 20_000;

/// Ends with this.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Options {
    broker: String,
    file: String,
    agent: String,
    parse: String,
    rate: u64,
    per: u64,
    seconds: u64,
    spool: bool,
    beside: Option<u32>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let number = |name: &str, usual| option(name).map_or(usual, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let broker = option("--broker");
    let own = broker.is_none().then(Broker::start);
    let own_address = own.as_ref().map(|broker| broker.address.to_string());
    let options = Options {
        broker: broker.clone().or(own_address).unwrap_or_default(),
        file: option("--file").unwrap_or(dir.path().join("t.log").display().to_string()),
        agent: option("--agent").unwrap_or(AGENT.to_owned()),
        parse: option("--parse").unwrap_or("auto".to_owned()),
        rate: number("--rate", 10_000),
        per: number("--per", 1),
        seconds: number("--seconds", if broker.is_some() { 60 } else { 1 }),
        spool: arguments.iter().any(|argument| argument == "--spool"),
        beside: option("--beside").map(|pid| pid.parse().unwrap()),
    };
    let lines: Vec<String> = match option("--lines") {
        Some(path) => {
            let text = fs::read(path).unwrap();
            let text = String::from_utf8_lossy(&text);
            text.lines().take(LINES).map(str::to_owned).collect()
        }
        None => Syslog::new(7).take(LINES).map(|line| line.raw()).collect(),
    };
    measure(dir.path(), &options, &lines);
}

fn measure(dir: &Path, options: &Options, lines: &[String]) {
    let place = |name: &str| dir.join(name).display().to_string();
    let log = File::options()
        .create(true)
        .append(true)
        .open(&options.file);
    let mut log = log.unwrap();
    let mut config = format!(
        "broker = \"{}\"\ndevice = \"tail\"\nstate = \"{}\"\n[control]\nsocket = \"{}\"\n\
         [source.app]\nkind = \"file\"\npaths = [\"{}\"]\nstart = \"end\"\nparse = \"{}\"\n",
        options.broker,
        place("state"),
        place("control.sock"),
        options.file,
        options.parse,
    );
    if options.spool {
        config.push_str(&format!("[spool]\npath = \"{}\"\n", place("spool")));
    }
    fs::write(place("edge.toml"), config).unwrap();
    let mut command = Command::new(&options.agent);
    command.args(["--config", &place("edge.toml"), "start"]);
    let agent = Agent(command.stdin(Stdio::null()).spawn().unwrap());
    let status = || status(&options.agent, &place("edge.toml"));
    while status().is_none_or(|status| status["broker"]["connected"] != true) {
        thread::sleep(Duration::from_millis(100));
    }
    // What starting costs is over by then.
    thread::sleep(Duration::from_secs(1));
    let pids = [Some(agent.0.id()), options.beside];
    let before = pids.map(|pid| pid.map(ticks));
    let started = Instant::now();
    let written = write(&mut log, options, lines);
    let acknowledged = || {
        status().map_or(0, |status| {
            status["totals"]["acknowledged"].as_u64().unwrap()
        })
    };
    while acknowledged() < written {
        thread::sleep(Duration::from_millis(100));
    }
    let took = started.elapsed().as_secs_f64();
    println!("{written} lines in {took:.1} s, all of them acknowledged");
    for (pid, before) in pids.iter().zip(before) {
        let (Some(pid), Some(before)) = (*pid, before) else {
            continue;
        };
        let used = (ticks(pid) - before) as f64 / TICKS_PER_SECOND;
        println!(
            "{}: {:.2} s of CPU for a million events, {:.2}% of a core; {:.1} MB resident",
            fs::read_to_string(format!("/proc/{pid}/comm"))
                .unwrap()
                .trim(),
            used / written as f64 * 1e6,
            used / took * 100.0,
            resident(pid),
        );
    }
    let payload = status().unwrap()["totals"]["payload_bytes"]
        .as_u64()
        .unwrap();
    println!(
        "{:.1} bytes an event on the wire",
        payload as f64 / written as f64
    );
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
