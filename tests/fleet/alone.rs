//! A fleet run by retained messages alone.

use std::fs;
use std::time::Instant;

use serde_json::json;
use thinglog_tests::mosquitto;
use thinglog_tests::site::Site;
use thinglog_tests::wait;

use crate::fleet::{Agent, in_seconds, in_time, remove, retain, retained, within};

#[test]
fn retained_messages_alone_run_a_fleet() {
    if !mosquitto::installed("retained_messages_alone_run_a_fleet") {
        return;
    }
    let site = Site::new();
    let _up = site.up();
    let lamp = Agent::start(&site, "lamp-7");
    lamp.until_level("INFO");

    retain(&site, "default", r#"{"level":"WARN"}"#);
    lamp.until_level("WARN");
    retain(
        &site,
        "group/world",
        r#"{"level":"DEBUG","sources":{"app":"ERROR"}}"#,
    );
    retain(&site, "group/eu", r#"{"parent":"world"}"#);
    retain(&site, "member/eu/lamp-7", "{}");
    let status = lamp.until_level("DEBUG");
    assert_eq!(status["configuration"]["levels"], json!({"app": "ERROR"}));
    retain(&site, "device/lamp-7", r#"{"level":"ERROR"}"#);
    lamp.until_level("ERROR");
    // A temporary level comes before any lasting one, and ends with no further message.
    in_time("the temporary level", |seconds| {
        let (start, until) = (Instant::now(), in_seconds(seconds));
        let document = format!(r#"{{"level":"DEBUG","until":"{until}"}}"#);
        retain(&site, "override/group/world", &document);
        within((start, seconds), || {
            let status = lamp.status()?;
            (status["configuration"]["temporary"] == true).then_some(())
        })
    });
    lamp.until("its end", |status| {
        status["configuration"]["temporary"] == false
    });
    lamp.until_level("ERROR");
    remove(&site, "device/lamp-7");
    lamp.until_level("DEBUG");

    // Settings in either spelling, field by field from the nearest document that makes them.
    retain(
        &site,
        "group/eu",
        r#"{"parent":"world","env":{"THINGLOG_UPLOAD_MODE":"manual"}}"#,
    );
    retain(&site, "device/lamp-7", r#"{"upload":{"flush_ms":50}}"#);
    let desired = wait::until("the settings", || {
        let desired = retained(&site, "desired/lamp-7");
        (desired["upload"] == json!({"mode": "manual", "flush_ms": 50})).then_some(desired)
    });
    wait::until("the device to go by them", || {
        let reported = retained(&site, "reported/lamp-7");
        (reported["upload"] == "manual" && reported["revision"] == desired["revision"])
            .then_some(())
    });
}

#[test]
fn a_device_keeps_to_its_own_level_until_somebody_says_another() {
    if !mosquitto::installed("a_device_keeps_to_its_own_level_until_somebody_says_another") {
        return;
    }
    let site = Site::new();
    let _up = site.up();
    let quiet = Agent::at_level(&site, "quiet", "ERROR");
    let chatty = Agent::at_level(&site, "chatty", "DEBUG");
    let told = |agent: &Agent, level: &str| {
        agent.until(level, |status| {
            let configuration = &status["configuration"];
            configuration["revision"].is_string() && configuration["level"] == level
        });
    };
    told(&quiet, "ERROR");
    // The router lets no DEBUG pass that nobody asked for.
    told(&chatty, "INFO");
    retain(&site, "default", r#"{"level":"INFO"}"#);
    told(&quiet, "INFO");
    retain(&site, "default", r#"{"level":"DEBUG"}"#);
    told(&quiet, "DEBUG");
    told(&chatty, "DEBUG");
    remove(&site, "default");
    told(&quiet, "ERROR");
}

#[test]
fn a_router_that_has_lost_its_data_is_rebuilt_from_the_broker() {
    if !mosquitto::installed("a_router_that_has_lost_its_data_is_rebuilt_from_the_broker") {
        return;
    }
    let site = Site::new();
    let _broker = site.broker();
    let mut router = site.router();
    site.wait_for_router(&mut router);
    let lamp = Agent::start(&site, "lamp-7");
    retain(
        &site,
        "group/world",
        r#"{"level":"WARN","limits":{"spool_bytes":8388608}}"#,
    );
    retain(&site, "group/eu", r#"{"parent":"world"}"#);
    retain(&site, "member/eu/lamp-7", "{}");
    lamp.until_level("WARN");
    let before = retained(&site, "desired/lamp-7");

    router.kill();
    fs::remove_dir_all(site.path().join("thinglog-data/router")).unwrap();
    // What was said while it was away counts as well.
    retain(
        &site,
        "group/world",
        r#"{"level":"ERROR","limits":{"spool_bytes":8388608}}"#,
    );
    let mut router = site.router();
    site.wait_for_router(&mut router);
    lamp.until_level("ERROR");
    let after = retained(&site, "desired/lamp-7");
    assert_ne!(after["revision"], before["revision"]);
    assert_eq!(after["limits"], before["limits"]);
    retain(
        &site,
        "group/world",
        r#"{"level":"WARN","limits":{"spool_bytes":8388608}}"#,
    );
    lamp.until_level("WARN");
    assert_eq!(retained(&site, "desired/lamp-7"), before);
}
