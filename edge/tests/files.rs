//! Log files as real programs write and rotate them, carried by the real agent: every line once, in
//! order, whatever the rotation, and after SIGKILL at any moment.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use support::{Answer, Broker, LIMIT};

/// The agent at work; ended with its scope.
struct Agent(Child);

impl Agent {
    fn start(broker: SocketAddr, spool: Option<&Path>, paths: &[PathBuf]) -> Agent {
        let mut command = Command::new(env!("CARGO_BIN_EXE_thinglog-edge"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("THINGLOG_") {
                command.env_remove(name);
            }
        }
        command
            .args(["--broker", &broker.to_string(), "--device", "lamp-7"])
            .args(["--flush", "5ms", "--reconnect", "5ms"])
            .args(["--reconnect-max", "20ms"]);
        if let Some(spool) = spool {
            command.arg("--spool").arg(spool);
        }
        command.arg("file").args(paths);
        Agent(command.stdin(Stdio::null()).spawn().unwrap())
    }

    /// The same, once it follows what is there: what was rotated before is none of its business.
    fn following(broker: &Broker, paths: &[PathBuf]) -> Agent {
        let dir = tempfile::tempdir().unwrap();
        // They are looked at in the order of their paths.
        let ready = dir.path().join("~ready.log");
        fs::write(&ready, "ready\n").unwrap();
        let paths: Vec<PathBuf> = paths.iter().chain([&ready]).cloned().collect();
        let agent = Agent::start(broker.address, None, &paths);
        broker.wait(|state| state.messages().contains(&"ready".to_owned()).then_some(()));
        agent
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn stop(&mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        let status = self.0.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn random(below: u64) -> u64 {
    getrandom::u64().unwrap() % below
}

/// What a missing program means: not here, but everything is there where CI runs.
fn is_missing(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$0\"", program])
        .stdout(Stdio::null())
        .status();
    let missing = !found.unwrap().success();
    assert!(
        !(missing && std::env::var("CI").is_ok_and(|ci| ci == "true")),
        "{program} is missing; tests/run installs it"
    );
    if missing {
        eprintln!("SKIP: {program} is not installed");
    }
    missing
}

/// The messages of one source, as they arrived.
fn messages(broker: &Broker, source: &str) -> Vec<String> {
    let events = broker.state(|state| state.events());
    let own = events.into_iter().filter(|(s, _)| s == source);
    own.map(|(_, entry)| entry.message).collect()
}

/// Waits until `count` lines of a source have come, then checks that they are `0 …` to the last, once
/// each and in order.
#[track_caller]
fn all_came_in_order(broker: &Broker, source: &str, count: u64) {
    let deadline = Instant::now() + 3 * LIMIT;
    let mut seen = 0;
    while seen < count && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
        seen = messages(broker, source).len() as u64;
    }
    let messages = messages(broker, source);
    let numbers = messages
        .iter()
        .map(|m| m.split(' ').next().unwrap().parse().unwrap());
    let numbers: Vec<u64> = numbers.collect();
    // Where it goes on elsewhere than with the next number.
    let breaks: Vec<_> = numbers
        .windows(2)
        .filter(|pair| pair[1] != pair[0] + 1)
        .collect();
    assert!(
        breaks.is_empty() && numbers.first() == Some(&0),
        "{:?} {breaks:?}",
        numbers.first()
    );
    let notes = broker.state(|state| state.events());
    let notes: Vec<_> = notes.iter().filter(|(s, _)| s == "thinglog").collect();
    assert_eq!(
        (messages.len() as u64, notes.len()),
        (count, 0),
        "{notes:?}"
    );
}

/// Writes numbered lines and rotates by rename, without a break, until it is told to end.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    fn start(path: PathBuf, first: u64) -> Writer {
        let (stop, written) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(first)),
        );
        let (stopped, count) = (stop.clone(), written.clone());
        let thread = thread::spawn(move || {
            let open = || {
                File::options()
                    .append(true)
                    .create(true)
                    .open(&path)
                    .unwrap()
            };
            let mut file = open();
            let mut rotated = 0;
            while !stopped.load(Relaxed) {
                let number = count.load(Relaxed);
                write!(file, "{number} some").unwrap();
                if number % 7 == 0 {
                    thread::sleep(Duration::from_micros(500));
                }
                writeln!(file, " text").unwrap();
                count.store(number + 1, Relaxed);
                if random(400) == 0 {
                    rotated += 1;
                    let name = format!("app.log.{:08}", 20_260_000 + rotated);
                    fs::rename(&path, path.with_file_name(name)).unwrap();
                    file = open();
                }
            }
        });
        Writer {
            stop,
            written,
            thread: Some(thread),
        }
    }

    fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    fn stop(mut self) -> u64 {
        self.stop.store(true, Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.written()
    }
}

#[test]
fn with_a_spool_a_kill_at_any_moment_loses_no_line_and_repeats_none() {
    let rounds = std::env::var("THINGLOG_CRASH_ROUNDS");
    let rounds: u64 = rounds.map_or(10, |rounds| rounds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let (spool, logs) = (dir.path().join("spool"), dir.path().join("logs"));
    fs::create_dir(&logs).unwrap();
    let broker = Broker::start();
    let pattern = [logs.join("*.log")];
    // What is rotated before the first start is none of its business.
    fs::write(logs.join("app.log"), "0 some text\n").unwrap();
    let mut agent = Agent::start(broker.address, Some(&spool), &pattern);
    broker.wait(|state| (!state.events().is_empty()).then_some(()));
    agent.kill();
    let writer = Writer::start(logs.join("app.log"), 1);
    for round in 0..rounds {
        let mut agent = Agent::start(broker.address, Some(&spool), &pattern);
        // Some rounds end while nothing is acknowledged, and everything waits in the spool.
        let answer = match round % 3 {
            2 => Answer::Silence,
            _ => Answer::Acknowledge,
        };
        broker.answer(&[], answer);
        let before = broker.state(|state| state.received.len());
        let more = before + random(60) as usize + 1;
        broker.wait(|state| {
            (state.received.len() >= more
                || answer == Answer::Silence && state.received.len() > before)
                .then_some(())
        });
        thread::sleep(Duration::from_millis(random(100)));
        agent.kill();
    }
    broker.answer(&[], Answer::Acknowledge);
    let written = writer.stop();
    let mut agent = Agent::start(broker.address, Some(&spool), &pattern);
    all_came_in_order(&broker, "app", written);
    agent.stop();
    // And nothing comes again afterwards.
    let mut agent = Agent::start(broker.address, Some(&spool), &pattern);
    let connects = broker.state(|state| state.connects.len());
    fs::write(logs.join("last.log"), "0 last\n").unwrap();
    all_came_in_order(&broker, "last", 1);
    assert!(connects > 0);
    agent.stop();
    all_came_in_order(&broker, "app", written);
}

#[test]
fn without_a_spool_a_kill_repeats_what_was_not_remembered_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start();
    let pattern = [dir.path().join("*.log")];
    let writer = Writer::start(dir.path().join("app.log"), 0);
    for _ in 0..3 {
        let before = broker.state(|state| state.received.len());
        let mut agent = Agent::start(broker.address, None, &pattern);
        broker.wait(|state| (state.received.len() > before + 20).then_some(()));
        agent.kill();
    }
    let written = writer.stop();
    let last = format!("{} some text", written - 1);
    let _agent = Agent::start(broker.address, None, &pattern);
    broker.wait(|state| state.messages().contains(&last).then_some(()));
}

const ROTATING: &str = "
import logging, logging.handlers, sys, time
path, kind = sys.argv[1:]
if kind == 'size':
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=5000, backupCount=1000)
else:
    handler = logging.handlers.TimedRotatingFileHandler(path, when='S', interval=1, backupCount=100)
log = logging.getLogger()
log.setLevel(logging.INFO)
log.addHandler(handler)
handler.setFormatter(logging.Formatter('%(message)s'))
end = time.time() + 3.5
n = 0
while (n < 20000) if kind == 'size' else (time.time() < end):
    log.info('%d a line of python with some text', n)
    n += 1
    if n % 10 == 0: time.sleep(0.001)
print(n)
";

#[test]
fn the_rotating_handlers_of_python_lose_no_line() {
    if is_missing("python3") {
        return;
    }
    for kind in ["size", "time"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("py.log");
        let broker = Broker::start();
        let mut agent = Agent::following(&broker, &[dir.path().join("*.log*")]);
        let python = Command::new("python3")
            .args(["-c", ROTATING])
            .arg(&path)
            .arg(kind)
            .output();
        let python = python.unwrap();
        let count = String::from_utf8(python.stdout).unwrap().trim().parse();
        let rotated = fs::read_dir(dir.path()).unwrap().count();
        assert!(rotated > 3, "{kind}: {rotated} files");
        all_came_in_order(&broker, "py", count.unwrap());
        agent.stop();
    }
}

#[test]
fn logrotate_loses_no_line_by_rename_nor_by_copy_and_truncate() {
    if is_missing("logrotate") {
        return;
    }
    for how in ["create 0600", "copytruncate"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        let config = dir.path().join("rotate.conf");
        let text = format!(
            "{} {{\n rotate 100\n nodateext\n nocompress\n {how}\n}}\n",
            path.display()
        );
        fs::write(&config, text).unwrap();
        fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let broker = Broker::start();
        let mut agent = Agent::following(&broker, std::slice::from_ref(&path));
        let mut count = 0;
        for _ in 0..20 {
            // The writer opens its file anew, as those do that logrotate signals.
            let mut file = File::options()
                .append(true)
                .create(true)
                .open(&path)
                .unwrap();
            for _ in 0..500 {
                writeln!(file, "{count} a line with some text").unwrap();
                count += 1;
            }
            // Between copying and truncating nothing may be written: that much is lost by nature.
            let state = dir.path().join("state");
            let status = Command::new("logrotate")
                .arg("--force")
                .arg("-s")
                .arg(&state)
                .arg(&config)
                .status();
            assert!(status.unwrap().success());
        }
        all_came_in_order(&broker, "app", count);
        agent.stop();
    }
}

/// A web server of one's own, ended with its scope.
struct Nginx {
    process: Child,
    config: PathBuf,
    port: u16,
}

impl Nginx {
    fn start(dir: &Path) -> Nginx {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let (config, at) = (dir.join("nginx.conf"), dir.display());
        let text = format!(
            "user root; daemon off; pid {at}/pid; error_log {at}/error.log;
             events {{}}
             http {{
               log_format plain '$arg_n $request'; access_log {at}/access.log plain;
               client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;
               uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
               server {{ listen 127.0.0.1:{port}; location / {{ return 204; }} location /missing {{ root {at}/none; }} }}
             }}"
        );
        fs::write(&config, text).unwrap();
        let process = Command::new("nginx")
            .arg("-c")
            .arg(&config)
            .spawn()
            .unwrap();
        let nginx = Nginx {
            process,
            config,
            port,
        };
        let deadline = Instant::now() + LIMIT;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "nginx does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        nginx
    }

    fn get(&self, path: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }

    /// Returns when it has begun to.
    fn reopen(&self, log: &Path) {
        let status = Command::new("nginx")
            .arg("-c")
            .arg(&self.config)
            .args(["-s", "reopen"])
            .status();
        assert!(status.unwrap().success());
        let deadline = Instant::now() + LIMIT;
        while !log.exists() {
            assert!(Instant::now() < deadline, "nginx does not reopen its log");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ = self.process.wait();
    }
}

#[test]
fn the_logs_of_nginx_are_followed_while_it_reopens_them() {
    if is_missing("nginx") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let nginx = Nginx::start(dir.path());
    let broker = Broker::start();
    let logs = [dir.path().join("*.log")];
    let mut agent = Agent::following(&broker, &logs);
    let mut count = 0;
    for round in 0..10 {
        for _ in 0..50 {
            nginx.get(&format!("/?n={count}"));
            count += 1;
        }
        fs::rename(
            dir.path().join("access.log"),
            dir.path().join(format!("access.log.{}", 20 - round)),
        )
        .unwrap();
        nginx.reopen(&dir.path().join("access.log"));
    }
    nginx.get("/missing");
    all_came_in_order_of_nginx(&broker, count);
    let of_errors = |state: &support::State| {
        let mut events = state.events().into_iter();
        events.find(|(source, entry)| source == "error" && entry.message.contains("/missing"))
    };
    broker.wait(of_errors);
    agent.stop();
}

/// The last line is that of the page that is missing.
#[track_caller]
fn all_came_in_order_of_nginx(broker: &Broker, count: u64) {
    broker.wait(|state| {
        state
            .messages()
            .iter()
            .any(|m| m.starts_with("- GET /missing"))
            .then_some(())
    });
    let mut numbers = messages(broker, "access");
    assert!(numbers.pop().is_some_and(|last| last.starts_with("- ")));
    let numbers: Vec<u64> = numbers
        .iter()
        .map(|m| m.split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(numbers.iter().copied().eq(0..count), "{numbers:?}");
}
