//! One installation: a temporary directory, free ports, a configuration, and what it stores.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Process, binary};
use crate::wait;

/// An installation that is not running yet.
pub struct Site {
    folder: TempDir,
    /// Where MQTT clients connect.
    pub mqtt: SocketAddr,
    /// Where the router answers HTTP.
    pub http: SocketAddr,
}

/// A loopback address nobody listens on at the moment.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address")
}

impl Site {
    /// A fresh one, with one file destination named `file`.
    pub fn new() -> Site {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let (mqtt, http) = (free_address(), free_address());
        let data = folder.path().join("thinglog-data");
        let config = format!(
            "data = {data:?}\n\
             [broker]\nlisten = \"{mqtt}\"\n\
             [router.broker]\naddress = \"{mqtt}\"\n\
             [router.http]\naddress = \"{http}\"\n\
             [router.destinations.file]\ntype = \"file\"\n"
        );
        fs::write(folder.path().join("thinglog.toml"), config).expect("a configuration file");
        Site { folder, mqtt, http }
    }

    /// Adds tables to the configuration.
    pub fn configure(&self, tables: &str) {
        let file = File::options()
            .append(true)
            .open(self.path().join("thinglog.toml"));
        let written = file.and_then(|mut file| writeln!(file, "{tables}"));
        written.expect("a configuration file");
    }

    /// Adds keys to the table `[router.http]`, which is there.
    pub fn configure_http(&self, keys: &str) {
        let file = self.path().join("thinglog.toml");
        let text = fs::read_to_string(&file).expect("a configuration file");
        let table = "[router.http]\n";
        let text = text.replace(table, &format!("{table}{keys}\n"));
        fs::write(file, text).expect("a configuration file");
    }

    /// Where everything is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Starts `thinglog <arguments>` in the site's directory.
    pub fn thinglog(&self, name: &str, arguments: &[&str]) -> Process {
        let mut command = Command::new(binary("thinglog"));
        command.current_dir(self.path()).args(arguments);
        Process::start(name, self.path(), &mut command)
    }

    /// Exit code, standard output and standard error of `thinglog <arguments>` in the site's directory.
    pub fn run(&self, arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
        let mut child = Command::new(binary("thinglog"))
            .current_dir(self.path())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("thinglog");
        let mut stdin = child.stdin.take().expect("its standard input");
        // Who needs no input may be gone already.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("its output");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// Standard output of a command that succeeds.
    #[track_caller]
    pub fn done(&self, arguments: &[&str], input: &str) -> String {
        let (code, output, error) = self.run(arguments, input);
        assert_eq!(code, Some(0), "{arguments:?}: {error}");
        output
    }

    /// Broker and router in one process, ready.
    pub fn up(&self) -> Process {
        let mut up = self.thinglog("up", &["up"]);
        self.wait_for_router(&mut up);
        up
    }

    /// The broker alone, taking connections.
    pub fn broker(&self) -> Process {
        let mut broker = self.thinglog("broker", &["broker"]);
        wait::until("the broker to take connections", || {
            broker.assert_running();
            TcpStream::connect(self.mqtt).ok()
        });
        broker
    }

    /// The router alone; `wait_for_router` says when it is ready.
    pub fn router(&self) -> Process {
        self.thinglog("router", &["router"])
    }

    /// Until `/readyz` says so.
    pub fn wait_for_router(&self, router: &mut Process) {
        wait::until("the router to be ready", || {
            router.assert_running();
            (http_get(self.http, "/readyz")?.0 == 200).then_some(())
        });
    }

    /// A page of the router's HTTP interface.
    pub fn get(&self, path: &str) -> String {
        wait::until(&format!("an answer to {path}"), || {
            http_get(self.http, path)
        })
        .1
    }

    /// `thinglog-edge` with `options` before what it does, connected to this site's broker. The long
    /// pauses before reconnecting, meant for fleets, are shortened.
    pub fn edge(&self, name: &str, device: &str, arguments: &[&str]) -> Process {
        let mut command = Command::new(binary("thinglog-edge"));
        command
            .current_dir(self.path())
            .args(["--broker", &self.mqtt.to_string(), "--device", device])
            .args(["--reconnect", "100ms", "--reconnect-max", "500ms"])
            .args(arguments);
        Process::start(name, self.path(), &mut command)
    }

    /// Every event in the file destination, in the order of the files.
    pub fn events(&self) -> Vec<Value> {
        lines_of(&self.path().join("thinglog-data/router/file"), "ndjson")
    }

    /// Everything in quarantine.
    pub fn quarantine(&self) -> Vec<Value> {
        lines_of(
            &self.path().join("thinglog-data/router/quarantine"),
            "jsonl",
        )
    }

    /// The events with this message, once there is one.
    pub fn event(&self, message: &str) -> Value {
        wait::until(&format!("an event {message:?} in the file"), || {
            self.events()
                .into_iter()
                .find(|event| event["message"] == message)
        })
    }

    /// Whether an event with this message is in the file by now.
    pub fn has_event(&self, message: &str) -> bool {
        self.events()
            .iter()
            .any(|event| event["message"] == message)
    }
}

impl Default for Site {
    fn default() -> Site {
        Site::new()
    }
}

/// The complete lines of the files in `folder`: rotated ones by number, then the current one.
fn lines_of(folder: &Path, extension: &str) -> Vec<Value> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort_by_key(|path| {
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        stem.rsplit_once('-')
            .and_then(|(_, number)| number.parse().ok())
            .unwrap_or(u64::MAX)
    });
    let mut lines = Vec::new();
    for file in files {
        let text = fs::read(&file).unwrap_or_default();
        let whole = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        for line in text[..whole]
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let parsed = serde_json::from_slice(line);
            lines.push(parsed.unwrap_or_else(|error| panic!("{}: {error}", file.display())));
        }
    }
    lines
}

/// Status and body; `None` while nobody answers.
pub fn http_get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
