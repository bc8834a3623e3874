//! Temporary levels: they rise and fall by themselves, whatever happens to the cloud meanwhile.

use thinglog_tests::mosquitto::{self, Watch};
use thinglog_tests::site::Site;
use thinglog_tests::wait;

use crate::fleet::{Agent, done, retain, retained};

/// Everything of these topics that was published since, as mosquitto_sub prints it.
fn saw(watch: &Watch, text: &str) -> bool {
    watch.lines().iter().any(|line| line.contains(text))
}

#[test]
fn a_temporary_level_of_a_group_rises_and_falls_without_another_message() {
    if !mosquitto::installed("a_temporary_level_of_a_group_rises_and_falls") {
        return;
    }
    let site = Site::new();
    let _broker = site.broker();
    let mut router = site.router();
    site.wait_for_router(&mut router);
    let [lamp, other] = ["lamp-7", "lamp-8"].map(|name| Agent::start(&site, name));
    done(&site, &["group", "create", "eu"]);
    done(&site, &["group", "add", "eu", "lamp-7"]);
    let live = Watch::start(site.mqtt, "thinglog/live-group/eu/+/debug/#", &["-v"]);
    lamp.until_level("INFO");

    done(&site, &["level", "set", "group:eu", "DEBUG", "--for", "2s"]);
    let mut n = 0;
    wait::until("a debug event on the live topic", || {
        n += 1;
        lamp.log("debug", &format!("seen {n}"));
        saw(&live, "seen").then_some(())
    });
    assert_eq!(other.status().unwrap()["configuration"]["level"], "INFO");

    // Nobody is left who could tell the device.
    router.kill();
    let desired = retained(&site, "desired/lamp-7").unwrap();
    assert_eq!(desired["override"]["level"], "DEBUG");
    let status = lamp.until_level("INFO");
    assert_eq!(status["configuration"]["revision"], desired["revision"]);
    assert_eq!(status["broker"]["connects"], 1);
    assert_eq!(retained(&site, "desired/lamp-7").unwrap(), desired);
    cut_at_the_device(&lamp);
}

/// A debug event is taken and goes nowhere.
fn cut_at_the_device(lamp: &Agent) {
    let before = lamp.until("all it has read", |status| {
        status["sources"]["app"]["events"].is_u64()
    });
    let count = |status: &serde_json::Value, what: &str| status["totals"][what].as_u64().unwrap();
    lamp.log("debug", "too late");
    let after = lamp.until("the event to be cut", |status| {
        count(status, "filtered") > count(&before, "filtered")
    });
    assert_eq!(count(&after, "accepted"), count(&before, "accepted"));
}

#[test]
fn a_temporary_level_ends_on_a_device_that_has_lost_the_broker() {
    if !mosquitto::installed("a_temporary_level_ends_on_a_device_that_has_lost_the_broker") {
        return;
    }
    let site = Site::new();
    let mut up = site.up();
    let lamp = Agent::start(&site, "lamp-7");
    lamp.until_level("INFO");
    done(
        &site,
        &["level", "set", "device:lamp-7", "DEBUG", "--for", "5s"],
    );
    lamp.until_level("DEBUG");
    up.kill();
    lamp.until("the broker to be gone", |status| {
        status["broker"]["connected"] == false
    });
    lamp.log("debug", "in the dark, in time");
    let status = lamp.until_level("INFO");
    assert_eq!(status["broker"]["connected"], false);
    cut_at_the_device(&lamp);
    lamp.log("info", "in the dark, ordinary");

    // What was logged while it ran passes, however late it comes.
    let _up = site.up();
    site.event("in the dark, ordinary");
    assert!(site.has_event("in the dark, in time"));
    assert!(!site.has_event("too late"));
    // The document waits there still, and raises nothing any more.
    lamp.until("to be there again", |status| {
        status["broker"]["connected"] == true
    });
    lamp.until_level("INFO");
}

#[test]
fn a_device_that_ignores_its_configuration_is_cut_at_the_router() {
    if !mosquitto::installed("a_device_that_ignores_its_configuration_is_cut_at_the_router") {
        return;
    }
    let site = Site::new();
    let _up = site.up();
    let say = |level: &str, message: &str| {
        let payload = format!(r#"{{"level":"{level}","message":"{message}"}}"#);
        let topic = "thinglog/logs/deaf/app";
        mosquitto::publish(site.mqtt, topic, payload.as_bytes(), &[]);
    };
    say("debug", "too early");
    done(&site, &["group", "create", "eu"]);
    done(&site, &["group", "add", "eu", "deaf"]);
    done(&site, &["level", "set", "group:eu", "DEBUG", "--for", "3s"]);
    say("debug", "in time");
    site.event("in time");
    assert!(!site.has_event("too early"));
    wait::until("the temporary level to end", || {
        let explained = crate::fleet::json(&site, &["level", "explain", "deaf", "app"]);
        (explained[0]["level"] == "INFO").then_some(())
    });
    say("debug", "too late");
    // One topic, one order: what came before this is decided.
    say("info", "ordinary");
    site.event("ordinary");
    assert!(!site.has_event("too late"));

    retain(&site, "device/deaf", r#"{"level":"DISABLED"}"#);
    wait::until("the device to be switched off", || {
        let explained = crate::fleet::json(&site, &["level", "explain", "deaf", "app"]);
        (explained[0]["level"] == "DISABLED").then_some(())
    });
    say("error", "switched off");
    done(&site, &["level", "delete", "device:deaf"]);
    say("error", "on again");
    site.event("on again");
    assert!(!site.has_event("switched off"));
}
