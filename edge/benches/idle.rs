//! What the agent weighs while nothing happens: the size of its binary, and memory and CPU of the real
//! program with files, syslog and (where there is one) the journal as sources, connected to a broker.
//!
//! ```sh
//! cargo build --profile agent -p thinglog-edge
//! cargo bench -p thinglog-edge --bench idle -- --broker 127.0.0.1:1883 --seconds 60 \
//!     --agent target/agent/thinglog-edge
//! ```
//!
//! The broker is any that listens there, `thinglog broker` for one. Without one, or as a part of all
//! benchmarks, nothing is measured but the size. systemd's journal is read by `journalctl`, a process of its
//! own, which is measured beside the agent.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

const AGENT: &str = env!("CARGO_BIN_EXE_thinglog-edge");
/// What /proc counts CPU time in (sysconf(_SC_CLK_TCK), 100 on every Linux).
const TICKS_PER_SECOND: f64 = 100.0;

/// Ends with this.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let program = option("--agent").unwrap_or(AGENT.to_owned());
    let bytes = fs::metadata(&program).unwrap().len();
    println!(
        "binary: {:.2} MB ({bytes} bytes, {program})",
        bytes as f64 / 1e6
    );
    let Some(broker) = option("--broker") else {
        println!("no --broker HOST:PORT: memory and CPU are not measured");
        return;
    };
    let seconds: u64 = option("--seconds").map_or(60, |seconds| seconds.parse().unwrap());
    measure(&program, &broker, seconds);
}

fn measure(program: &str, broker: &str, seconds: u64) {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name).display().to_string();
    for n in 0..10 {
        fs::write(place(&format!("app-{n}.log")), "a line\n").unwrap();
    }
    let mut config = format!(
        "broker = \"{broker}\"\ndevice = \"idle\"\n[control]\nsocket = \"{}\"\n\
         [spool]\npath = \"{}\"\n[source.logs]\nkind = \"file\"\npaths = [\"{}\"]\n\
         [source.syslog]\nudp = \"127.0.0.1:0\"\ntcp = \"127.0.0.1:0\"\n",
        place("control.sock"),
        place("spool"),
        place("*.log"),
    );
    let journal = Command::new("journalctl").arg("--version").output().is_ok();
    if journal {
        config.push_str("[source.journal]\n");
    }
    fs::write(place("edge.toml"), config).unwrap();
    let mut command = Command::new(program);
    command
        .args(["--config", &place("edge.toml"), "start"])
        .stdin(Stdio::null());
    let agent = Agent(command.spawn().unwrap());
    let pid = agent.0.id();
    // What starting costs is over by then.
    thread::sleep(Duration::from_secs(5));
    println!("sources: 10 files by pattern, syslog over UDP and TCP, journal: {journal}; a spool");
    let all: Vec<u32> = std::iter::once(pid).chain(children(pid)).collect();
    let before: Vec<u64> = all.iter().map(|pid| ticks(*pid)).collect();
    thread::sleep(Duration::from_secs(seconds));
    for (pid, before) in all.into_iter().zip(before) {
        let used = (ticks(pid) - before) as f64 / TICKS_PER_SECOND;
        println!(
            "{}: {:.1} MB resident ({:.1} at most); CPU {used:.2} s in {seconds} s, {:.3}% of a core",
            fs::read_to_string(format!("/proc/{pid}/comm"))
                .unwrap()
                .trim(),
            status(pid, "VmRSS"),
            status(pid, "VmHWM"),
            used / seconds as f64 * 100.0,
        );
    }
    println!("threads: {:.0}", status(pid, "Threads") * 1e3);
    let asked = Command::new(program)
        .args(["--config", &place("edge.toml"), "status"])
        .output();
    println!("status: exit code {:?}", asked.unwrap().status.code());
}

/// CPU time of a process, user and system: fields 14 and 15 of proc(5), `stat`.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    let times = fields.skip(11).take(2);
    times.map(|field| field.parse::<u64>().unwrap()).sum()
}

/// What a process has started (proc(5), children).
fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let texts =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let all: Vec<String> = texts.collect();
    let numbers = all.iter().flat_map(|text| text.split_whitespace());
    numbers.map(|number| number.parse().unwrap()).collect()
}

/// A line of `/proc/<pid>/status`; kB as MB.
fn status(pid: u32, key: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let number = line.unwrap().split_whitespace().next().unwrap();
    number.parse::<f64>().unwrap() / 1e3
}
