//! Temporary levels: they rise and fall by themselves, whatever happens to the cloud meanwhile.

use std::time::Instant;

use thinglog_tests::mosquitto::{self, Watch};
use thinglog_tests::site::Site;
use thinglog_tests::wait;

use crate::fleet::{Agent, done, in_time, json, retain, retained, within};

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
    other.until_level("INFO");

    let desired = in_time("a debug event on the live topic", |seconds| {
        site.wait_for_router(&mut router);
        let (start, span) = (Instant::now(), format!("{seconds}s"));
        done(
            &site,
            &["level", "set", "group:eu", "DEBUG", "--for", &span],
        );
        let message = format!("seen within {span}");
        let seen = within((start, seconds), || {
            lamp.log("debug", &message);
            other.log("debug", &message);
            saw(&live, &message).then_some(())
        });
        // Nobody is left who could tell the device.
        router.kill();
        let desired = retained(&site, "desired/lamp-7");
        let told = seen.is_some() && desired["override"]["level"] == "DEBUG";
        if !told {
            router = site.router();
        }
        told.then_some(desired)
    });
    let status = lamp.until_level("INFO");
    assert_eq!(status["configuration"]["revision"], desired["revision"]);
    assert_eq!(status["broker"]["connects"], 1);
    assert_eq!(retained(&site, "desired/lamp-7"), desired);
    cut_at_the_device(&lamp);
    assert!(live.lines().iter().all(|line| line.contains("/lamp-7/")));
    assert_eq!(other.passed(), 0);
}

/// A debug event is read and goes nowhere.
fn cut_at_the_device(lamp: &Agent) {
    let before = lamp.passed();
    lamp.log("debug", "too late");
    assert_eq!(lamp.passed(), before);
}

#[test]
fn a_temporary_level_ends_on_a_device_that_has_lost_the_broker() {
    if !mosquitto::installed("a_temporary_level_ends_on_a_device_that_has_lost_the_broker") {
        return;
    }
    let site = Site::new();
    let lamp = Agent::start(&site, "lamp-7");
    let message = in_time("a debug event without a broker", |seconds| {
        let mut up = site.up();
        lamp.until("to be there", |status| {
            status["broker"]["connected"] == true
        });
        let (start, span) = (Instant::now(), format!("{seconds}s"));
        let level = ["level", "set", "device:lamp-7", "DEBUG", "--for", &span];
        done(&site, &level);
        within((start, seconds), || {
            let status = lamp.status()?;
            (status["configuration"]["temporary"] == true).then_some(())
        })?;
        up.kill();
        lamp.until("the broker to be gone", |status| {
            status["broker"]["connected"] == false
        });
        let before = lamp.passed();
        let message = format!("in the dark, within {span}");
        lamp.log("debug", &message);
        (lamp.passed() > before).then_some(message)
    });
    let status = lamp.until_level("INFO");
    assert_eq!(status["broker"]["connected"], false);
    cut_at_the_device(&lamp);
    lamp.log("info", "in the dark, ordinary");

    // What was logged while it ran passes, however late it comes.
    let _up = site.up();
    site.event("in the dark, ordinary");
    assert!(site.has_event(&message));
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
    let until_level = |level: &str| {
        wait::until(level, || {
            let explained = json(&site, &["level", "explain", "deaf", "app"]);
            (explained[0]["level"] == level).then_some(())
        });
    };
    say("debug", "too early");
    done(&site, &["group", "create", "eu"]);
    done(&site, &["group", "add", "eu", "deaf"]);
    in_time("a debug event that is not cut", |seconds| {
        let span = format!("{seconds}s");
        done(
            &site,
            &["level", "set", "group:eu", "DEBUG", "--for", &span],
        );
        let (message, mark) = (format!("within {span}"), format!("after {span}"));
        say("debug", &message);
        // One topic, one order: what came before this is decided.
        say("info", &mark);
        site.event(&mark);
        site.has_event(&message).then_some(())
    });
    assert!(!site.has_event("too early"));
    until_level("INFO");
    say("debug", "too late");
    say("info", "ordinary");
    site.event("ordinary");
    assert!(!site.has_event("too late"));

    retain(&site, "device/deaf", r#"{"level":"DISABLED"}"#);
    until_level("DISABLED");
    say("error", "switched off");
    say("error", "switched off, too");
    done(&site, &["level", "delete", "device:deaf"]);
    say("error", "on again");
    site.event("on again");
    assert!(!site.has_event("switched off"));
}
