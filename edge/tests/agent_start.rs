//! `thinglog-edge start` as a service manager and an operator see it: the real binary with a
//! configuration file, against a broker.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs::{self, File},
    io::Write,
    net::TcpListener,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::{Pid, Signal, kill_process},
};
use serde_json::Value;
use support::{Broker, LIMIT};
use tempfile::TempDir;
use thinglog_schemas::{Severity, batch::DropReason};

/// A directory with a configuration, and the agent that runs by it.
struct Device {
    dir: TempDir,
    agent: Option<Child>,
}

impl Device {
    fn new(broker: std::net::SocketAddr, tables: &str) -> Device {
        let device = Device {
            dir: tempfile::tempdir().unwrap(),
            agent: None,
        };
        device.configure(broker, tables);
        device
    }

    /// `DIR` in `tables` stands for the device's directory.
    fn configure(&self, broker: std::net::SocketAddr, tables: &str) {
        let text = format!(
            "device = \"lamp-7\"\nbroker = \"{broker}\"\n{tables}\n\
             [control]\nsocket = \"DIR/control.sock\"\n\
             [reconnect]\nfirst = \"10ms\"\nlongest = \"50ms\"\n\
             [upload]\nflush = \"20ms\"\n"
        );
        let text = text.replace("DIR", &self.path("").display().to_string());
        fs::write(self.path("edge.toml"), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_thinglog-edge"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("THINGLOG_") {
                command.env_remove(name);
            }
        }
        command
            .env_remove("NOTIFY_SOCKET")
            .current_dir(self.dir.path());
        command
            .arg("--config")
            .arg(self.path("edge.toml"))
            .args(arguments);
        command.stdin(Stdio::null());
        command
    }

    fn start(&mut self) {
        self.start_with(|_| {});
    }

    fn start_with(&mut self, change: impl FnOnce(&mut Command)) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let mut command = self.command(&["start"]);
        command
            .stdout(Stdio::null())
            .stderr(log)
            .env("THINGLOG_LOG", "info");
        change(&mut command);
        self.agent = Some(command.spawn().unwrap());
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.agent.as_ref().unwrap()), signal).unwrap();
    }

    fn append(&self, name: &str, line: &str) {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.path(name))
            .unwrap();
        writeln!(file, "{line}").unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Until `look` finds it; with the log when it does not.
    fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "no {what}; the log: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What `status` says, and its exit code.
    fn status(&self) -> Option<(Value, i32)> {
        let output = self.run(&["status"]);
        let report = serde_json::from_slice(&output.stdout).ok()?;
        Some((report, output.status.code()?))
    }

    /// SIGTERM, and the exit code.
    fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.agent.take().unwrap().wait().unwrap().code()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

fn arrived(broker: &Broker, message: &str) {
    broker.wait(|state| state.messages().iter().any(|m| m == message).then_some(()));
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

const APP: &str = "[source.app]\nkind = \"file\"\npaths = [\"DIR/app.log\"]\n";

#[test]
fn a_source_that_fails_is_started_again_and_costs_the_others_nothing() {
    let broker = Broker::start();
    let tables = format!(
        "{APP}[source.bad]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", \"echo up; exit 3\"]\n\
         [source.absent]\nkind = \"command\"\ncommand = [\"/no/such/program\"]\n"
    );
    let mut device = Device::new(broker.address, &tables);
    device.start();
    broker.wait(|state| {
        let ups = state.messages().iter().filter(|m| *m == "up").count();
        (ups >= 2).then_some(())
    });
    device.append("app.log", "still here");
    arrived(&broker, "still here");
    let report = device.wait("report of failures", || {
        let (report, _) = device.status()?;
        let failures = |name: &str| report["sources"][name]["failures"].as_u64().unwrap();
        (failures("bad") >= 2 && failures("absent") >= 1).then_some(report)
    });
    let sources = &report["sources"];
    assert_eq!(sources["app"]["failures"], 0);
    assert_eq!(sources["app"]["events"], 1);
    assert!(
        sources["bad"]["restarts"].as_u64().unwrap() >= 1,
        "{report}"
    );
    let why = sources["absent"]["last_failure"].as_str().unwrap();
    assert!(why.contains("/no/such/program"), "{why}");
    assert_eq!(device.stop(), Some(0), "{}", device.log());
}

#[test]
fn a_reload_starts_and_ends_what_changed_and_a_bad_file_changes_nothing() {
    let broker = Broker::start();
    let other = "[source.other]\nkind = \"file\"\npaths = [\"DIR/other.log\"]\n";
    let third = "[source.third]\nkind = \"file\"\npaths = [\"DIR/third.log\"]\n";
    let mut device = Device::new(broker.address, &format!("{APP}{other}"));
    device.start();
    for name in ["app", "other"] {
        device.append(&format!("{name}.log"), &format!("{name} one"));
        arrived(&broker, &format!("{name} one"));
    }

    device.configure(broker.address, &format!("{APP}{third}"));
    device.append("third.log", "third one");
    device.signal(Signal::HUP);
    arrived(&broker, "third one");
    device.append("other.log", "other two");
    device.append("app.log", "app two");
    arrived(&broker, "app two");
    let (report, _) = device.status().unwrap();
    let names: Vec<&String> = report["sources"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["app", "third"]);
    // Not started again: it goes on counting, and has not read its file twice.
    assert_eq!(report["sources"]["app"]["events"], 2);
    assert_eq!(report["sources"]["app"]["restarts"], 0);
    assert!(!broker.state(|state| state.messages().contains(&"other two".to_owned())));

    device.configure(broker.address, &format!("{APP}{third}ratee = \"1/s\"\n"));
    device.signal(Signal::HUP);
    device.wait("complaint about the file", || {
        device.log().contains("did you mean `rate`?").then_some(())
    });
    device.append("third.log", "third two");
    arrived(&broker, "third two");
    assert_eq!(device.stop(), Some(0), "{}", device.log());
}

#[test]
fn status_tells_by_its_exit_code_whether_events_get_through() {
    let address = Broker::reserve();
    let mut device = Device::new(address, APP);
    let nobody = device.run(&["status"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        text(&nobody.stderr).contains("no agent answers"),
        "{nobody:?}"
    );

    device.start();
    let (report, code) = device.wait("agent", || device.status());
    assert_eq!(code, 3);
    let problem = report["problem"].as_str().unwrap();
    assert!(problem.contains("not connected"), "{problem}");

    let broker = Broker::at(address);
    broker.desire(r#"{"schema":1,"revision":"abc","level":"WARN","sources":{"app":"DEBUG"}}"#);
    device.append("app.log", "hello");
    arrived(&broker, "hello");
    let report = device.wait("report of health", || {
        let (report, code) = device.status()?;
        let applied = report["configuration"]["revision"] == "abc";
        let acknowledged = report["totals"]["acknowledged"] == 1;
        (code == 0 && applied && acknowledged).then_some(report)
    });
    assert_eq!(report["configuration"]["level"], "WARN");
    assert_eq!(report["configuration"]["levels"]["app"], "DEBUG");
    assert!(report["broker"]["last_acknowledged"].is_string());
    assert!(report["sources"]["app"]["last"].is_string());
    assert_eq!(report["problem"], Value::Null);
    assert_eq!(report["clock_synced"], true);
    assert_eq!(device.stop(), Some(0), "{}", device.log());
    assert!(!device.path("control.sock").exists());
}

#[test]
fn what_gathers_in_manual_mode_goes_when_asked() {
    let broker = Broker::start();
    let mut device = Device::new(broker.address, APP);
    device.start_with(|command| {
        command.env("THINGLOG_UPLOAD_MODE", "manual");
    });
    for (line, ask) in [("first", true), ("second", false)] {
        device.append("app.log", line);
        device.wait("event that is held", || {
            (device.status()?.0["held"]["events"].as_u64()? > 0).then_some(())
        });
        assert!(!broker.state(|state| state.messages().contains(&line.to_owned())));
        match ask {
            true => assert_eq!(device.run(&["upload"]).status.code(), Some(0)),
            false => device.signal(Signal::USR1),
        }
        arrived(&broker, line);
    }
}

#[test]
fn a_secret_reaches_neither_the_broker_nor_the_disk() {
    let address = Broker::reserve();
    let tables = format!(
        "redact = [{{ pattern = 'token=\\w+' }}]\n{APP}redact = [{{ attribute = \"password\" }}]\n\
         [spool]\npath = \"DIR/spool\"\n"
    );
    let mut device = Device::new(address, &tables);
    device.start();
    device.append("app.log", "login token=hunter2 done");
    device.append("app.log", r#"{"msg":"login","password":"hunter2"}"#);
    let stored = device.wait("event on disk", || {
        let mut stored = Vec::new();
        collect(&device.path("spool"), &mut stored);
        stored
            .windows(5)
            .any(|part| part == b"login")
            .then_some(stored)
    });
    assert!(!stored.windows(7).any(|part| part == b"hunter2"));
    let broker = Broker::at(address);
    arrived(&broker, "login [redacted] done");
    let event = broker.wait(|state| {
        let events = state.events().into_iter();
        events
            .map(|(_, event)| event)
            .find(|event| event.message == "login")
    });
    assert_eq!(event.attributes["password"], "[redacted]");
    assert_eq!(device.stop(), Some(0), "{}", device.log());
}

/// All bytes below a directory.
fn collect(folder: &Path, into: &mut Vec<u8>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path().is_dir() {
            true => collect(&entry.path(), into),
            false => into.extend(fs::read(entry.path()).unwrap_or_default()),
        }
    }
}

#[test]
fn a_noisy_source_is_cut_to_its_rate_and_every_drop_is_declared() {
    let broker = Broker::start();
    let tables = format!(
        "{APP}[source.noisy]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", \"seq 5000; sleep 60\"]\n\
         rate = \"10/h\"\nburst = 10\nover_rate = \"drop\"\n"
    );
    let mut device = Device::new(broker.address, &tables);
    device.start();
    device.append("app.log", "quiet");
    arrived(&broker, "quiet");
    broker.wait(|state| {
        let batches = state.acknowledged();
        let drops = batches.iter().filter(|(source, _)| source == "noisy");
        let drops = drops.flat_map(|(_, batch)| &batch.drops);
        let of_rate = drops.filter(|drop| {
            drop.reason == DropReason::RateLimited && drop.severity == Severity::INFO
        });
        let declared: u64 = of_rate.map(|drop| drop.count).sum();
        (declared == 4990).then_some(())
    });
    let (report, _) = device.status().unwrap();
    assert_eq!(report["totals"]["dropped_by"]["INFO"]["rate_limited"], 4990);
    assert_eq!(report["sources"]["noisy"]["events"], 10);
    assert_eq!(report["sources"]["noisy"]["rate_limited"], 4990);
    assert_eq!(report["sources"]["app"]["rate_limited"], 0);
}

#[test]
fn systemd_hears_of_readiness_life_reload_and_end() {
    let broker = Broker::start();
    let mut device = Device::new(broker.address, APP);
    let path = device.path("notify.sock");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(LIMIT)).unwrap();
    device.start_with(|command| {
        command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "400000");
    });
    let hear = |expected: &str| {
        let mut buffer = [0; 1024];
        let deadline = Instant::now() + LIMIT;
        loop {
            let read = systemd.recv(&mut buffer).unwrap();
            let message = text(&buffer[..read]).to_owned();
            if message.starts_with(expected) {
                return message;
            }
            assert!(Instant::now() < deadline, "no {expected}");
        }
    };
    hear("READY=1");
    hear("WATCHDOG=1");
    assert!(hear("STATUS=connected").contains("acknowledged"));
    hear("WATCHDOG=1");
    device.signal(Signal::HUP);
    assert!(hear("RELOADING=1").contains("MONOTONIC_USEC="));
    hear("READY=1");
    device.signal(Signal::TERM);
    hear("STOPPING=1");
}

#[test]
fn events_that_could_not_leave_are_told_at_the_end() {
    let mut device = Device::new(
        Broker::reserve(),
        &format!("flush_timeout = \"50ms\"\n{APP}"),
    );
    device.start();
    device.append("app.log", "never sent");
    device.wait("event that is held", || {
        (device.status()?.0["held"]["events"].as_u64()? > 0).then_some(())
    });
    assert_eq!(device.stop(), Some(3));
    assert!(
        device.log().contains("1 events were not delivered"),
        "{}",
        device.log()
    );
}

#[test]
fn check_names_what_is_wrong_before_anything_starts() {
    let tables = "[login]\npassword_file = \"DIR/no-password\"\n\
        [source.app]\nkind = \"file\"\npaths = [\"DIR/*.log\"]\n\
        [source.bad]\nkind = \"command\"\ncommand = [\"/no/such/program\"]\n\
        [source.docker]\nsocket = \"DIR/no-engine.sock\"\n";
    let device = Device::new(Broker::reserve(), tables);
    let output = device.run(&["check"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    for expected in [
        "edge.toml:4: login.password_file: ",
        "edge.toml:7: source.app.paths[0]: ",
        "edge.toml:10: source.bad.command[0]: /no/such/program: no such program",
        "edge.toml:12: source.docker.socket: no container engine answers",
    ] {
        assert!(said.contains(expected), "no {expected:?} in:\n{said}");
    }

    let device = Device::new(Broker::reserve(), APP);
    let output = device.run(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        text(&output.stdout).contains("lamp-7 carries app to mqtt://"),
        "{output:?}"
    );
    assert!(
        text(&output.stderr).contains("names no file yet (a warning)"),
        "{output:?}"
    );
}

#[test]
fn the_example_can_be_used_as_it_is() {
    let device = Device::new(Broker::reserve(), "");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/thinglog-edge.example.toml");
    fs::copy(example, device.path("edge.toml")).unwrap();
    let output = device.run(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn systemd_takes_the_unit_file() {
    let dir = tempfile::tempdir().unwrap();
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/thinglog-edge.service");
    let text = fs::read_to_string(unit).unwrap();
    let text = text.replace(
        "/usr/bin/thinglog-edge",
        env!("CARGO_BIN_EXE_thinglog-edge"),
    );
    let path = dir.path().join("thinglog-edge.service");
    fs::write(&path, text).unwrap();
    let verified = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&path)
        .output();
    let output = match verified {
        Ok(output) => output,
        Err(error) => {
            let why = format!("systemd_takes_the_unit_file: systemd-analyze: {error}");
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{why}");
            eprintln!("SKIP: {why}");
            return;
        }
    };
    let said = text_of(&output);
    assert!(
        output.status.success() && !said.contains("thinglog-edge.service:"),
        "{said}"
    );
}

fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn check_names_the_key_of_each_listener_and_waits_for_no_pipe() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let tables = format!(
        "[spool]\npath = \"DIR/spool\"\nbytes = \"1MiB\"\n\
         [source.syslog]\ntcp = \"{}\"\ndatagram = \"DIR/no/log.sock\"\n\
         [source.app]\nkind = \"file\"\npaths = [\"DIR/*.log\"]\n",
        taken.local_addr().unwrap()
    );
    let device = Device::new(Broker::reserve(), &tables);
    let (mode, fifo) = (Mode::from_raw_mode(0o600), FileType::Fifo);
    mknodat(CWD, device.path("pipe.log"), fifo, mode, 0).unwrap();
    let output = device.run(&["check"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    for expected in [
        "edge.toml:5: spool.bytes: 1048576 bytes are too few; allow it at least 4MiB",
        "edge.toml:7: source.syslog.tcp: syslog over TCP on ",
        "edge.toml:8: source.syslog.datagram: syslog on ",
        "pipe.log is no regular file and is not read (a warning)",
    ] {
        assert!(said.contains(expected), "no {expected:?} in:\n{said}");
    }
}
