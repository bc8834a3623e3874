//! What the tests of fleets share: an agent that says what is in force, and the command line.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use thinglog_schemas::json::{parse_time, write_time};
use thinglog_tests::process::{Process, binary};
use thinglog_tests::site::Site;
use thinglog_tests::{mosquitto, wait};

/// A running `thinglog-edge` that follows one file as source `app`.
pub(crate) struct Agent {
    name: String,
    folder: PathBuf,
    /// How many lines it was given to read.
    lines: Cell<u64>,
    /// Ends with it.
    _process: Process,
}

impl Agent {
    pub(crate) fn start(site: &Site, name: &str) -> Agent {
        Agent::with(site, name, "")
    }

    /// One with further tables in its configuration.
    pub(crate) fn with(site: &Site, name: &str, tables: &str) -> Agent {
        Agent::configured(site, name, "INFO", tables)
    }

    /// One whose own level is another.
    pub(crate) fn at_level(site: &Site, name: &str, level: &str) -> Agent {
        Agent::configured(site, name, level, "")
    }

    fn configured(site: &Site, name: &str, level: &str, tables: &str) -> Agent {
        let folder = site.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        let log = folder.join("app.log");
        fs::write(&log, "").unwrap();
        let config = format!(
            "device = {name:?}\nbroker = \"{}\"\nlevel = {level:?}\n\
             [attributes]\nmodel = \"x1\"\n\
             [reconnect]\nfirst = \"50ms\"\nlongest = \"200ms\"\n\
             [control]\nsocket = {:?}\n\
             [source.app]\nkind = \"file\"\npaths = [{log:?}]\n{tables}",
            site.mqtt,
            folder.join("control.sock"),
        );
        fs::write(folder.join("edge.toml"), config).unwrap();
        let mut agent = Agent::command(&folder);
        let process = Process::start("edge", &folder, agent.arg("start"));
        Agent {
            name: name.to_owned(),
            folder,
            lines: Cell::new(0),
            _process: process,
        }
    }

    fn command(folder: &Path) -> Command {
        let mut command = Command::new(binary("thinglog-edge"));
        command
            .current_dir(folder)
            .args(["--config", "edge.toml"])
            .stdin(Stdio::null());
        command
    }

    /// Where it runs.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Has the device log something.
    pub(crate) fn log(&self, level: &str, message: &str) {
        let file = File::options()
            .append(true)
            .open(self.folder.join("app.log"));
        writeln!(file.unwrap(), r#"{{"level":"{level}","msg":"{message}"}}"#).unwrap();
        self.lines.set(self.lines.get() + 1);
    }

    /// Waits until it has read all that; how many lines went on.
    #[track_caller]
    pub(crate) fn passed(&self) -> u64 {
        let count = |status: &Value, what: &str| status["sources"]["app"][what].as_u64();
        let status = self.until("all lines to be read", |status| {
            let read = count(status, "events").zip(count(status, "filtered"));
            read.is_some_and(|(passed, filtered)| passed + filtered == self.lines.get())
        });
        count(&status, "events").unwrap()
    }

    /// What `thinglog-edge status` says.
    pub(crate) fn status(&self) -> Option<Value> {
        let output = Agent::command(&self.folder).arg("status").output().unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Waits until what the agent says of itself is so; what it said then.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut last = None;
        wait::until(&format!("{}: {what}", self.name), || {
            let status = self.status()?;
            let found = is_so(&status).then(|| status.clone());
            if found.is_none() && last.as_ref() != Some(&status["configuration"]) {
                last = Some(status["configuration"].clone());
                eprintln!("{}: {}", self.name, status["configuration"]);
            }
            found
        })
    }

    /// Waits until `level` is in force on the device.
    #[track_caller]
    pub(crate) fn until_level(&self, level: &str) -> Value {
        self.until(level, |status| status["configuration"]["level"] == level)
    }
}

/// Publishes a retained document below `thinglog/config/`.
#[track_caller]
pub(crate) fn retain(site: &Site, topic: &str, document: &str) {
    let topic = format!("thinglog/config/{topic}");
    mosquitto::publish(site.mqtt, &topic, document.as_bytes(), &["-r"]);
}

/// Removes one.
#[track_caller]
pub(crate) fn remove(site: &Site, topic: &str) {
    mosquitto::remove_retained(site.mqtt, &format!("thinglog/config/{topic}"));
}

/// The retained document of a topic below `thinglog/`, once there is one.
#[track_caller]
pub(crate) fn retained(site: &Site, topic: &str) -> Value {
    let topic = format!("thinglog/{topic}");
    let text = wait::until(&topic, || mosquitto::retained(site.mqtt, &topic));
    serde_json::from_str(&text).unwrap()
}

/// How long temporary levels last here, seconds: the first is meant, the others are for machines that
/// have too much else to do to see it.
const SPANS: [u64; 4] = [2, 6, 18, 45];

/// Does something that has to happen while a temporary level runs, if need be with longer ones.
#[track_caller]
pub(crate) fn in_time<T>(what: &str, attempt: impl FnMut(u64) -> Option<T>) -> T {
    let done = SPANS.into_iter().find_map(attempt);
    done.unwrap_or_else(|| panic!("not within {SPANS:?} seconds: {what}"))
}

/// The first value that `look` gives for so many seconds from `start`.
pub(crate) fn within<T>(
    (start, seconds): (Instant, u64),
    mut look: impl FnMut() -> Option<T>,
) -> Option<T> {
    let over = || start.elapsed() >= Duration::from_secs(seconds);
    wait::until("a value or the end of its time", || match look() {
        None => over().then_some(None),
        found => Some(found),
    })
}

/// An RFC 3339 time so many seconds from now.
pub(crate) fn in_seconds(seconds: u64) -> String {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let mut text = Vec::new();
    write_time(now + seconds * 1_000_000_000, &mut text);
    let text = String::from_utf8(text).unwrap();
    assert!(parse_time(&text).is_some());
    text
}

/// What a command of the command line did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
    pub(crate) error: String,
}

/// Runs `thinglog <arguments>` in the site's directory.
pub(crate) fn thinglog(site: &Site, arguments: &[&str]) -> Done {
    let (code, output, error) = site.run(arguments, "");
    Done {
        code,
        output,
        error,
    }
}

/// The same where it must succeed; its standard output.
#[track_caller]
pub(crate) fn done(site: &Site, arguments: &[&str]) -> String {
    site.done(arguments, "")
}

/// The same with `--json`, a value of each line.
#[track_caller]
pub(crate) fn json(site: &Site, arguments: &[&str]) -> Vec<Value> {
    let output = done(site, &[arguments, &["--json"]].concat());
    let lines = output.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
