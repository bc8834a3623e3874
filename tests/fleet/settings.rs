//! When devices send and what they may hold: by the command line, for the fleet, a group and a device,
//! as far as what agents then do.

use std::fs;

use serde_json::Value;
use thinglog_tests::site::Site;
use thinglog_tests::wait;

use crate::fleet::{Agent, done, json, thinglog};

/// Sets something and waits until `lamp-7` says that it is in force; what is known of it then.
#[track_caller]
fn set(site: &Site, words: &[&str]) -> Value {
    level(site, &[&["set"], words].concat())
}

#[track_caller]
fn level(site: &Site, words: &[&str]) -> Value {
    done(site, &[&["level"], words].concat());
    wait::until(&format!("{words:?} to be in force"), || {
        let shown = thinglog(site, &["device", "show", "lamp-7", "--json"]);
        let shown: Value = serde_json::from_str(&shown.output).ok()?;
        (shown["revision"] == shown["desired_revision"]).then_some(shown)
    })
}

/// What another device logs comes through; so what comes after it is not merely slow.
fn others_go_on(site: &Site, other: &Agent, mark: &str) {
    other.log("info", mark);
    site.event(mark);
}

#[test]
fn modes_intervals_and_rates_reach_the_device_and_hold_there() {
    let site = Site::new();
    let _up = site.up();
    let [lamp, other] = ["lamp-7", "lamp-8"].map(|name| Agent::start(&site, name));
    lamp.until_level("INFO");
    other.until_level("INFO");
    done(&site, &["group", "create", "eu"]);
    done(&site, &["group", "add", "eu", "lamp-7"]);

    // The group's mode, by the name that a device knows it by.
    let shown = set(&site, &["group:eu", "THINGLOG_UPLOAD_MODE=manual"]);
    assert_eq!(shown["upload"], "manual");
    lamp.log("info", "kept for a request");
    lamp.passed();
    others_go_on(&site, &other, "while it is kept");
    assert!(!site.has_event("kept for a request"));
    // The device's own comes before it, by the name of documents.
    let shown = set(
        &site,
        &[
            "device:lamp-7",
            "upload.mode=interval",
            "upload.interval_s=1",
        ],
    );
    assert_eq!(shown["upload"], "interval");
    site.event("kept for a request");
    lamp.log("info", "with the next interval");
    site.event("with the next interval");
    let explained = json(&site, &["level", "explain", "lamp-7"]).remove(0);
    let mode = explained["settings"].as_array().unwrap();
    let mode = mode
        .iter()
        .find(|one| one["name"] == "upload.mode")
        .unwrap();
    assert_eq!(
        (&mode["value"], &mode["topic"]),
        (&"interval".into(), &"config/device/lamp-7".into())
    );
    level(&site, &["delete", "device:lamp-7"]);
    let shown = level(&site, &["delete", "group:eu", "--setting", "upload.mode"]);
    assert_eq!(shown["upload"], "realtime");

    // How long an event waits for others.
    set(&site, &["group:eu", "THINGLOG_FLUSH=1d"]);
    lamp.log("info", "waits for others");
    lamp.passed();
    others_go_on(&site, &other, "while it waits");
    assert!(!site.has_event("waits for others"));
    set(&site, &["device:lamp-7", "upload.flush_ms=50"]);
    site.event("waits for others");

    // One an hour, the first at once.
    set(&site, &["group:eu", "THINGLOG_RATE=1/h"]);
    lamp.log("info", "the one of this hour");
    site.event("the one of this hour");
    lamp.log("info", "one too many");
    others_go_on(&site, &other, "while it is held");
    assert!(!site.has_event("one too many"));
    // Nothing is lost by it: a file can be read later.
    set(&site, &["device:lamp-7", "limits.rate=100/s"]);
    site.event("one too many");
    let status = lamp.until("all lines", |status| {
        status["sources"]["app"]["events"] == 5
    });
    assert_eq!(status["sources"]["app"]["rate_limited"], 0);
}

/// The bytes of all files below.
fn size(folder: &std::path::Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => size(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[test]
fn writing_to_flash_and_its_cap_are_switched_by_settings() {
    const CAP: u64 = 1 << 20;
    let site = Site::new();
    let _up = site.up();
    // Says much more than there is room for, once it is told to: 8,000 lines. It ends with the directory.
    let noise = "until [ -e go ]; do sleep 0.1; done; \
                 head -c 4000000 /dev/urandom | od -v -An -tx1 -w500; while [ -e go ]; do sleep 0.1; done";
    let tables = format!(
        "[memory]\nbytes = \"1MiB\"\n\
         [spool]\npath = \"spool\"\nenabled = false\nbytes = \"64MiB\"\n\
         [source.noise]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", {noise:?}]\nwait = false\n"
    );
    let lamp = Agent::with(&site, "lamp-7", &tables);
    lamp.until_level("INFO");
    let spool = lamp.folder().join("spool");
    assert_eq!(size(&spool), 0);

    set(&site, &["default", "upload.mode=manual", "WARN"]);
    let shown = set(&site, &["default", "THINGLOG_SPOOL_ENABLED=true"]);
    assert_eq!(shown["persistent"], true);
    lamp.log("error", "kept on flash");
    lamp.until("it to be on flash", |status| {
        status["held"]["spool_bytes"].as_u64() > Some(0)
    });
    assert!(size(&spool) > 0);

    set(&site, &["default", "INFO", "THINGLOG_SPOOL_BYTES=1MiB"]);
    fs::write(lamp.folder().join("go"), "").unwrap();
    let status = lamp.until("more than there is room for", |status| {
        status["sources"]["noise"]["events"] == 8000
    });
    // Written in blocks: the last one may have begun below it.
    let held = status["held"]["spool_bytes"].as_u64();
    assert!(held <= Some(CAP + CAP / 4), "{status}");
    assert!(status["totals"]["dropped"].as_u64() > Some(0), "{status}");

    // Off again: what is there is sent, and it was kept before what is less grave.
    let shown = set(
        &site,
        &["default", "limits.persistent=false", "upload.mode=realtime"],
    );
    assert_eq!(shown["persistent"], false);
    site.event("kept on flash");
    lamp.until("all of it to be sent", |status| {
        status["held"]["events"] == 0
    });
}
