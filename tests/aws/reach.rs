//! What AWS's clients set reaches the devices, and what arrives is judged by it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ChildStdin;

use serde_json::Value;
use thinglog_tests::process::Process;
use thinglog_tests::site::Site;
use thinglog_tests::{mosquitto, wait};

use crate::{Key, clients, python, story};

const ROLE: &str = "arn:aws:iam::123456789012:role/IoTLogsRole";

/// A running site without sign-in, and AWS's command line towards it.
struct Fleet {
    site: Site,
    python: PathBuf,
    /// Takes a command a line, answers each by a line.
    commands: Process,
    stdin: ChildStdin,
}

impl Fleet {
    fn new(python: &Path, site: Site) -> Fleet {
        let mut command = story(python, &site, &Key::any(), "commands");
        let mut commands = Process::start("aws", site.path(), &mut command);
        Fleet {
            stdin: commands.stdin(),
            commands,
            python: python.to_owned(),
            site,
        }
    }

    /// Runs `aws iot <line>`, which must succeed.
    #[track_caller]
    fn aws(&mut self, line: &str) {
        let before = self.commands.output().lines().count();
        writeln!(self.stdin, "{line}").unwrap();
        wait::until(&format!("aws iot {line}"), || {
            self.commands.assert_running();
            (self.commands.output().lines().count() > before).then_some(())
        });
    }

    /// What `aws iot <line>` is refused with.
    #[track_caller]
    fn refused(&self, line: &str, name: &str) -> String {
        let program = self.python.with_file_name("aws");
        let mut command = clients(&program, &self.site, &Key::any());
        command.arg("iot").args(line.split_whitespace());
        let output = command.output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(&format!("({name})")), "{line}: {error}");
        error
    }

    #[track_caller]
    fn set_level(&mut self, target: &str, level: &str) {
        self.aws(&format!(
            "set-v2-logging-level --log-target {target} --log-level {level}"
        ));
    }

    /// The level of `lamp-1` and which rule decides, as the command line explains them.
    #[track_caller]
    fn explained(&self, more: &[&str]) -> (String, String) {
        let arguments = [&["level", "explain", "lamp-1", "--json"], more].concat();
        let told: Value = serde_json::from_str(&self.site.done(&arguments, "")).unwrap();
        let field = |name: &str| told[name].as_str().unwrap().to_owned();
        (field("level"), field("why"))
    }

    /// Waits until the device is told this level.
    #[track_caller]
    fn until_told(&self, level: &str) {
        wait::until(&format!("lamp-1 to be told {level}"), || {
            let told = mosquitto::retained(self.site.mqtt, "thinglog/desired/lamp-1")?;
            let told: Value = serde_json::from_str(&told).unwrap();
            (told["level"] == level).then_some(())
        });
    }

    /// Has the device log something.
    fn log(&self, level: &str, message: &str) {
        let event = format!(r#"{{"level":"{level}","message":"{message}"}}"#);
        let topic = "thinglog/logs/lamp-1/app";
        mosquitto::publish(self.site.mqtt, topic, event.as_bytes(), &[]);
    }
}

fn tools(test: &str) -> Option<PathBuf> {
    let python = python(test)?;
    mosquitto::installed(test).then_some(python)
}

#[test]
fn levels_that_aws_s_clients_set_reach_devices_and_the_router() {
    let Some(python) = tools("levels_that_aws_s_clients_set_reach_devices_and_the_router") else {
        return;
    };
    let site = Site::new();
    let _up = site.up();
    let mut fleet = Fleet::new(&python, site);
    fleet.aws(&format!(
        "set-v2-logging-options --role-arn {ROLE} --default-log-level WARN"
    ));
    fleet.aws("create-thing-group --thing-group-name eu");
    fleet.aws("create-thing --thing-name lamp-1");
    fleet.aws("add-thing-to-thing-group --thing-name lamp-1 --thing-group-name eu");
    fleet.until_told("WARN");
    fleet.set_level("targetType=THING_GROUP,targetName=eu", "DEBUG");
    fleet.until_told("DEBUG");
    let (level, why) = fleet.explained(&[]);
    assert!(level == "DEBUG" && why.contains("eu"), "{why}");

    // Only the router knows from where and as whom a client connects.
    fleet.set_level("targetType=SOURCE_IP,targetName=192.0.2.7", "ERROR");
    assert_eq!(fleet.explained(&["--address", "192.0.2.7"]).0, "ERROR");
    fleet.set_level("targetType=PRINCIPAL_ID,targetName=alice", "INFO");
    let alice = ["--address", "192.0.2.7", "--principal", "alice"];
    assert_eq!(fleet.explained(&alice).0, "INFO");
    fleet.set_level("targetType=CLIENT_ID,targetName=lamp-1", "WARN");
    assert_eq!(fleet.explained(&alice).0, "WARN");
    fleet.until_told("WARN");
    fleet.log("INFO", "below the level");
    fleet.log("ERROR", "above the level");
    fleet.site.event("above the level");
    assert!(!fleet.site.has_event("below the level"));

    fleet.aws("set-v2-logging-options --disable-all-logs");
    fleet.until_told("DISABLED");
    assert_eq!(fleet.explained(&alice).0, "DISABLED");
    fleet.aws("set-v2-logging-options --no-disable-all-logs");
    fleet.until_told("WARN");
    fleet.aws("delete-v2-logging-level --target-type CLIENT_ID --target-name lamp-1");
    fleet.until_told("DEBUG");
    fleet.aws("delete-thing-group --thing-group-name eu");
    fleet.until_told("WARN");
    let event = r#"[{"eventType":"app","logLevel":"DEBUG"}]"#;
    fleet.aws(&format!(
        "set-v2-logging-options --event-configurations {event}"
    ));
    assert_eq!(fleet.explained(&["app"]).0, "DEBUG");
    assert_eq!(fleet.explained(&["other"]).0, "WARN");
}

#[test]
fn a_role_says_what_the_router_may_deliver_to() {
    let Some(python) = tools("a_role_says_what_the_router_may_deliver_to") else {
        return;
    };
    let site = Site::new();
    site.configure(&format!(
        "[router.destinations.vendor]\ntype = \"file\"\nroles = [\"{ROLE}\"]\n"
    ));
    let _up = site.up();
    let mut fleet = Fleet::new(&python, site);
    let told = |fleet: &Fleet, message: &str| {
        let folder = fleet.site.path().join("thinglog-data/router/vendor");
        let text = std::fs::read_to_string(folder.join("events.ndjson")).unwrap_or_default();
        text.contains(message)
    };
    fleet.log("INFO", "before there is a role");
    fleet.site.event("before there is a role");
    fleet.aws(&format!("set-v2-logging-options --role-arn {ROLE}"));
    fleet.log("INFO", "under the role");
    wait::until("the event at the vendor's", || {
        told(&fleet, "under the role").then_some(())
    });
    assert!(!told(&fleet, "before there is a role"));
    let until_filtered = |fleet: &Fleet, count: &str| {
        wait::until("the books of the vendor's", || {
            let metrics = fleet.site.get("/metrics");
            let line = metrics
                .lines()
                .find(|line| line.contains("vendor") && line.contains("\"filtered\""))?;
            line.ends_with(count).then_some(())
        });
    };
    until_filtered(&fleet, " 1");

    // A role that nobody asks for would be a mistake.
    let message = fleet.refused(
        "set-v2-logging-options --role-arn other",
        "InvalidRequestException",
    );
    assert!(message.contains(ROLE), "{message}");
    let document = r#"{"level":"DEBUG","role":"other"}"#;
    let topic = "thinglog/config/default";
    mosquitto::publish(fleet.site.mqtt, topic, document.as_bytes(), &["-r"]);
    wait::until("the other role", || {
        fleet.explained(&[]).0.eq("DEBUG").then_some(())
    });
    fleet.log("INFO", "under another role");
    fleet.site.event("under another role");
    until_filtered(&fleet, " 2");
    fleet.aws(&format!("set-v2-logging-options --role-arn {ROLE}"));
    fleet.log("INFO", "under the role again");
    wait::until("the event at the vendor's", || {
        told(&fleet, "under the role again").then_some(())
    });
    assert!(!told(&fleet, "under another role"));
}
