//! The agent by its configuration file, end to end: several sources at once into the real broker and
//! from there into the router's file, through an outage and a reload.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use thinglog_tests::process::{Process, binary};
use thinglog_tests::site::Site;
use thinglog_tests::wait;

fn write_config(site: &Site, more: &str) {
    let folder = site.path().display();
    let text = format!(
        "device = \"lamp-7\"\nbroker = \"{}\"\nevent_attributes = [\"site\"]\n\
         redact = [{{ pattern = 'token=\\w+', replace = \"token=…\" }}]\n\
         [attributes]\nsite = \"eu-1\"\n\
         [control]\nsocket = \"{folder}/control.sock\"\n[spool]\npath = \"{folder}/spool\"\n\
         [reconnect]\nfirst = \"50ms\"\nlongest = \"200ms\"\n\
         [source.app]\nkind = \"file\"\npaths = [\"{folder}/app.log\"]\n\
         [source.beat]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", \"echo beat; sleep 1000\"]\n\
         {more}\n",
        site.mqtt
    );
    fs::write(site.path().join("edge.toml"), text).unwrap();
}

fn agent(site: &Site, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("thinglog-edge"));
    command
        .current_dir(site.path())
        .args(["--config", "edge.toml"])
        .args(arguments);
    command
}

fn status(site: &Site) -> Option<Value> {
    let output = agent(site, &["status"]).output().unwrap();
    serde_json::from_slice(&output.stdout).ok()
}

fn append(path: &Path, line: &str) {
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    writeln!(file, "{line}").unwrap();
}

#[test]
fn configured_sources_reach_the_file_through_an_outage_and_a_reload() {
    let site = Site::new();
    write_config(&site, "");
    let (app, extra) = (site.path().join("app.log"), site.path().join("extra.log"));
    let mut up = site.up();
    let mut edge = Process::start("edge", site.path(), &mut agent(&site, &["start"]));
    append(&app, "login token=hunter2");
    let event = site.event("login token=…");
    assert_eq!(event["source"], "app");
    assert_eq!(event["attributes"]["site"], "eu-1");
    assert_eq!(site.event("beat")["source"], "beat");

    up.terminate();
    wait::until("the agent to notice", || {
        let connected = status(&site)?["broker"]["connected"].as_bool()?;
        (!connected).then_some(())
    });
    for n in 0..500 {
        append(&app, &format!("in the dark {n}"));
    }
    // Without a broker, a new source is taken all the same.
    write_config(
        &site,
        "[source.extra]\nkind = \"file\"\npaths = [\"extra.log\"]",
    );
    edge.hang_up();
    append(&extra, "from a new source");

    let _up = site.up();
    assert_eq!(site.event("from a new source")["source"], "extra");
    site.event("in the dark 499");
    let events = site.events();
    for n in 0..500 {
        let message = format!("in the dark {n}");
        let times = events
            .iter()
            .filter(|event| event["message"] == message.as_str());
        assert_eq!(times.count(), 1, "{message}");
    }
    let told = wait::until("all to be acknowledged", || {
        let report = status(&site)?;
        (report["held"]["events"] == 0 && report["problem"].is_null()).then_some(report)
    });
    assert_eq!(told["totals"]["dropped"], 0);
    assert!(!edge.output().contains("hunter2"));
    assert!(edge.terminate().success(), "{}", edge.output());
}
