//! The broker as client libraries of others meet it: mosquitto's clients, Paho for Python, MQTT.js and
//! rumqttc each go through the same story in both versions.
//!
//! Paho and MQTT.js are installed by `tests/run` into the folder `clients` of the target directory.

#![allow(clippy::unwrap_used)]

mod mosquitto;
mod rumqtt;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use thinglog_tests::site::Site;

/// Where `tests/run` installs what only tests use.
fn clients() -> PathBuf {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    temporary
        .parent()
        .expect("the target directory")
        .join("clients")
}

/// Whether a tool is there. Without it a test is skipped, loudly; with `CI=true` it fails.
fn has(test: &str, tool: &Path) -> bool {
    if tool.exists() {
        return true;
    }
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!ci, "{} is missing; tests/run installs it", tool.display());
    eprintln!(
        "SKIPPED {test}: no {}; tests/run installs it",
        tool.display()
    );
    false
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("libraries")
        .join(name)
}

#[track_caller]
fn assert_success(what: &str, output: &Output) {
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn run_paho(test: &str, version: &str) {
    let python = clients().join("python/bin/python");
    if !has(test, &python) {
        return;
    }
    let site = Site::new();
    let _broker = site.broker();
    let output = Command::new(python)
        .arg(script("paho_story.py"))
        .args([
            &site.mqtt.ip().to_string(),
            &site.mqtt.port().to_string(),
            version,
        ])
        .output()
        .unwrap();
    assert_success("paho", &output);
}

fn run_mqttjs(test: &str, version: &str) {
    let modules = clients().join("node_modules");
    if !has(test, &modules.join("mqtt")) {
        return;
    }
    let site = Site::new();
    let _broker = site.broker();
    let output = Command::new("node")
        .arg(script("mqttjs_story.mjs"))
        .arg(modules.parent().unwrap())
        .args([
            &site.mqtt.ip().to_string(),
            &site.mqtt.port().to_string(),
            version,
        ])
        .output()
        .unwrap();
    assert_success("MQTT.js", &output);
}

#[test]
fn paho_gets_on_with_the_broker_in_3_1_1() {
    run_paho("paho_gets_on_with_the_broker_in_3_1_1", "3");
}

#[test]
fn paho_gets_on_with_the_broker_in_5() {
    run_paho("paho_gets_on_with_the_broker_in_5", "5");
}

#[test]
fn mqttjs_gets_on_with_the_broker_in_3_1_1() {
    run_mqttjs("mqttjs_gets_on_with_the_broker_in_3_1_1", "3");
}

#[test]
fn mqttjs_gets_on_with_the_broker_in_5() {
    run_mqttjs("mqttjs_gets_on_with_the_broker_in_5", "5");
}
