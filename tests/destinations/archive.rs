//! An archive of payloads: brought in again at another installation, by the commands that its page gives.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use thinglog_tests::mosquitto;
use thinglog_tests::mqtt::{Connection, Version};
use thinglog_tests::site::Site;
use thinglog_tests::wait;

use crate::killed::batch;

/// A destination that keeps payloads in the folder `archive` of the site.
pub(crate) fn configure(site: &Site, compression: &str) {
    site.configure(&format!(
        "[router.destinations.archive]\ntype = \"object-store\"\nformat = \"raw\"\n\
         url = \"file://{}/archive\"\ncompression = \"{compression}\"\n\
         batch = {{ max_events = 200, max_age_ms = 200 }}\n",
        site.path().display()
    ));
}

/// The lines of an archive that is not compressed.
pub(crate) fn lines(site: &Site) -> Vec<Value> {
    let mut lines = Vec::new();
    read(&site.path().join("archive"), &mut lines);
    lines
}

/// Of every object in a folder and those in it; what is being written ends otherwise.
fn read(folder: &Path, lines: &mut Vec<Value>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read(&path, lines);
        } else if path.to_string_lossy().ends_with(".raw.ndjson") {
            let text = std::fs::read_to_string(&path).unwrap();
            lines.extend(
                text.lines()
                    .map(|line| serde_json::from_str::<Value>(line).unwrap()),
            );
        }
    }
}

/// The commands of the page, for a broker.
fn commands(site: &Site) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = page.join("../compose/docs/destinations/object-store.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, block) = page.split_once("```sh\n").unwrap();
    let (commands, _) = block.split_once("```").unwrap();
    assert!(commands.contains("-h HOST"), "{commands}");
    let place = format!("-h {} -p {}", site.mqtt.ip(), site.mqtt.port());
    commands.replace("-h HOST", &place)
}

#[test]
fn an_archive_is_brought_in_again_by_the_commands_of_its_page() {
    let test = "an_archive_is_brought_in_again_by_the_commands_of_its_page";
    if !mosquitto::installed(test) || !has_tools(test) {
        return;
    }
    let site = Site::new();
    configure(&site, "zstd");
    let _running = site.up();
    let mut client = Connection::open(site.mqtt, "publisher", Version::V5).unwrap();
    let mut publish = |source: &str, payload: &[u8]| {
        let topic = format!("thinglog/logs/lamp-1/{source}");
        client.publish(&topic, payload).unwrap();
        client.acknowledged().unwrap();
    };
    publish("app", &batch(0..50));
    publish("boot", b"first line\nand 'quoted' \"second\" $line");
    publish("core", b"\xff\xfe\0 nobody can read this");
    let archive = site.path().join("archive");
    let other = Site::new();
    let _other = other.up();
    // The folders of an archive are by date and group; a glob of the shell goes into them.
    let bring_in = format!("shopt -s globstar; {}", commands(&other)).replace("*.raw", "**/*.raw");
    wait::until("the archive to have all three", || {
        let count = "shopt -s globstar; cat **/*.raw.ndjson.zst | zstd -dc | wc -l";
        let counted = bash(&archive, count);
        (counted.trim() == "3").then_some(())
    });
    bash(&archive, &bring_in);
    wait::until("the events at the other place", || {
        (other.events().len() >= 52 && other.quarantine().len() == 1).then_some(())
    });
    let messages = |site: &Site| {
        let events = site.events();
        let id = |event: &Value| match event["source"] == "app" {
            true => event["id"].clone(),
            false => Value::Null,
        };
        let mut all: Vec<String> = events
            .iter()
            .map(|event| format!("{} {}", id(event), event["message"]))
            .collect();
        all.sort();
        all
    };
    assert_eq!(messages(&site), messages(&other));
}

fn bash(folder: &Path, commands: &str) -> String {
    let mut bash = Command::new("bash");
    let done = bash
        .current_dir(folder)
        .args(["-c", commands])
        .output()
        .unwrap();
    assert!(done.status.success(), "{commands}: {done:?}");
    String::from_utf8(done.stdout).unwrap()
}

fn has_tools(test: &str) -> bool {
    let missing = ["jq", "zstd"].into_iter().find(|program| {
        let asked = Command::new(program).arg("--version").output();
        !asked.is_ok_and(|asked| asked.status.success())
    });
    let Some(missing) = missing else {
        return true;
    };
    assert!(std::env::var_os("CI").is_none(), "no {missing}");
    eprintln!("SKIPPED {test}: no {missing} (Debian: {missing})");
    false
}
