//! The store end to end: what was logged is found again by HTTP, the command line and the tail alike,
//! by whom it may be, and survives SIGKILL.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use thinglog_tests::mosquitto;
use thinglog_tests::mqtt::{Connection, Version};
use thinglog_tests::process::binary;
use thinglog_tests::site::Site;
use thinglog_tests::wait;

const STORE: &str = "[router.destinations.store]\ntype = \"store\"\n";

/// Lines of JSON.
fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Without what says where it stands in the store.
fn plain(mut event: Value) -> Value {
    event.as_object_mut().unwrap().remove("place");
    event
}

fn ids(events: &[Value]) -> BTreeSet<String> {
    events
        .iter()
        .map(|event| event["id"].as_str().unwrap().to_owned())
        .collect()
}

fn messages(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["message"].as_str().unwrap())
        .collect()
}

/// Has a device log something.
fn log(site: &Site, device: &str, source: &str, events: &[Value]) {
    let mut client = Connection::open(site.mqtt, device, Version::V5).unwrap();
    for event in events {
        let topic = format!("thinglog/logs/{device}/{source}");
        client
            .publish(&topic, event.to_string().as_bytes())
            .unwrap();
        client.acknowledged().unwrap();
    }
}

/// Pages of a search, one after the other.
fn pages(site: &Site, query: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let answer = site.get(&format!("/api/v1/logs?{query}{cursor}"));
        let mut page: Value = serde_json::from_str(&answer).unwrap();
        let Value::Array(items) = page["items"].take() else {
            panic!("{answer}");
        };
        found.extend(items.into_iter().map(plain));
        match page["next"].as_str() {
            None => return found,
            Some(next) => cursor = format!("&cursor={next}"),
        }
    }
}

/// Until the store has so many events.
fn wait_for(site: &Site, count: usize) -> Vec<Value> {
    wait::until(&format!("{count} events in the store"), || {
        let found = pages(site, "limit=1000&order=oldest");
        (found.len() >= count).then_some(found)
    })
}

fn fleet(site: &Site) {
    for device in ["lamp-1", "lamp-2", "door-1"] {
        let events: Vec<Value> = (0..30)
            .map(|n| {
                let level = ["DEBUG", "INFO", "WARN", "ERROR"][n % 4];
                let words = ["started", "timeout", "disk full"][n % 3];
                json!({"level": level, "message": format!("{words} {device} {n}"), "n": n})
            })
            .collect();
        log(site, device, "app", &events);
    }
}

#[test]
fn what_was_logged_is_found_by_all_ways_alike() {
    let site = Site::new();
    site.configure(STORE);
    let _up = site.up();
    site.done(&["level", "set", "default", "DEBUG"], "");
    fleet(&site);
    let all = wait_for(&site, 90);
    assert_eq!(all.len(), 90);
    for (query, arguments, count) in [
        ("device=lamp-1", &["--device", "lamp-1"][..], 30),
        ("level=warn", &["--level", "warn"], 42),
        ("grep=time%28d+%29%3Fout", &["--grep", "time(d )?out"], 30),
        ("filter=n+%3E%3D+28", &["--filter", "n >= 28"], 6),
        (
            "source=app&since=1h",
            &["--source", "app", "--since", "1h"],
            90,
        ),
        (
            "device=lamp-1%2Cdoor-1&filter=not+message+~+%2Ftimeout%2F",
            &[
                "-d",
                "lamp-1",
                "-d",
                "door-1",
                "--filter",
                "not message ~ /timeout/",
            ],
            40,
        ),
        ("group=eu", &["--group", "eu"], 0),
    ] {
        let newest = pages(&site, &format!("{query}&limit=7"));
        assert_eq!(newest.len(), count, "{query}");
        let mut oldest = pages(&site, &format!("{query}&limit=7&order=oldest"));
        assert_eq!(
            oldest.iter().rev().collect::<Vec<_>>(),
            newest.iter().collect::<Vec<_>>(),
            "{query}"
        );
        let told = |more: &[&str]| {
            let arguments: Vec<&str> = [&["logs", "--json"], arguments, more].concat();
            lines(&site.done(&arguments, ""))
                .into_iter()
                .map(plain)
                .collect::<Vec<_>>()
        };
        assert_eq!(told(&["-n", "1000"]), oldest, "{arguments:?}");
        assert_eq!(told(&["--all"]), oldest, "{arguments:?}");
        oldest.truncate(0);
    }
    assert_eq!(ids(&all), ids(&site.events()), "the same as in the file");
    let text = site.done(&["logs", "-d", "lamp-2", "-n", "1"], "");
    assert!(
        text.ends_with("lamp-2 app: disk full lamp-2 29 n=29\n"),
        "{text}"
    );
}

#[test]
fn what_happened_is_counted_over_time() {
    let site = Site::new();
    site.configure(STORE);
    let _up = site.up();
    site.done(&["level", "set", "default", "DEBUG"], "");
    fleet(&site);
    wait_for(&site, 90);
    let counts = |query: &str| -> Value {
        serde_json::from_str(&site.get(&format!("/api/v1/logs/counts?{query}"))).unwrap()
    };
    let sum = |counts: &Value, level: &str| -> u64 {
        counts["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| step[level].as_u64().unwrap())
            .sum()
    };
    let all = counts("since=1h");
    let by_level: Vec<u64> = ["debug", "info", "warn", "error"]
        .iter()
        .map(|level| sum(&all, level))
        .collect();
    assert_eq!(
        (by_level, all["partial"].as_bool()),
        (vec![24, 24, 21, 21], Some(false))
    );
    let few = counts("grep=timeout&step=1h");
    assert_eq!(
        sum(&few, "info") + sum(&few, "error") + sum(&few, "debug") + sum(&few, "warn"),
        30
    );
    let names = ["door-1", "lamp-1", "lamp-2"];
    let each = counts(&format!(
        "by=device&since=1h&device={},none",
        names.join(",")
    ));
    let devices = each["devices"].as_object().unwrap();
    assert_eq!((devices.len(), &devices["none"]), (4, &json!([])));
    for name in names {
        let alone = counts(&format!("since=1h&device={name}"));
        assert_eq!(devices[name], alone["items"], "{name}");
        let of_device = json!({"items": devices[name]});
        assert_eq!(sum(&of_device, "error"), 7, "{name}");
    }
    let wrong = site.get("/api/v1/logs/counts?since=7d&step=1s");
    assert!(wrong.contains("give a larger step"), "{wrong}");
}

#[test]
fn a_tail_misses_nothing_and_repeats_nothing_over_a_kill() {
    let site = Site::new();
    site.configure(STORE);
    let mut up = site.up();
    let burst = |from: usize, to: usize| -> Vec<Value> {
        (from..to)
            .map(|n| json!({"message": format!("event {n}")}))
            .collect()
    };
    log(&site, "lamp-1", "app", &burst(0, 20));
    wait_for(&site, 20);
    let follower = site.thinglog(
        "follower",
        &["logs", "--follow", "--json", "-n", "5", "--grep", "^event"],
    );
    let told = |count: usize| {
        wait::until(&format!("{count} events told"), || {
            let output = follower.output();
            let whole = output.rfind('\n').map_or("", |end| &output[..end]);
            let told: Vec<Value> = whole
                .lines()
                .filter(|line| line.starts_with('{'))
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            (told.len() >= count).then_some(told)
        })
    };
    told(5);
    log(&site, "lamp-1", "app", &burst(20, 60));
    told(45);
    up.kill();
    let _up = site.up();
    log(&site, "lamp-1", "app", &burst(60, 100));
    let told = told(85);
    let wanted: Vec<String> = (15..100).map(|n| format!("event {n}")).collect();
    assert_eq!(messages(&told), wanted);
}

#[test]
fn what_is_acknowledged_is_found_after_any_kill_and_once() {
    let site = Site::new();
    site.configure(STORE);
    let mut sent = 0;
    for round in 0..5 {
        let mut up = site.up();
        let mut client = Connection::open(site.mqtt, "lamp-1", Version::V5).unwrap();
        for _ in 0..40 {
            let lines: String = (0..25)
                .map(|n| format!("{{\"message\":\"{}\"}}\n", sent + n))
                .collect();
            client
                .publish("thinglog/logs/lamp-1/app", lines.as_bytes())
                .unwrap();
            client.acknowledged().unwrap();
            sent += 25;
        }
        if round < 4 {
            up.kill();
            continue;
        }
        let found = wait_for(&site, sent);
        let mut numbers: Vec<usize> = messages(&found)
            .iter()
            .map(|it| it.parse().unwrap())
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..sent).collect::<Vec<_>>());
    }
}

#[test]
fn what_is_cleared_is_gone_and_stands_in_the_history() {
    let site = Site::new();
    site.configure(STORE);
    let _up = site.up();
    log(&site, "lamp-1", "app", &[json!({"message": "secret"})]);
    log(&site, "lamp-2", "app", &[json!({"message": "other"})]);
    wait_for(&site, 2);
    site.done(&["logs", "clear", "lamp-1"], "");
    assert_eq!(messages(&pages(&site, "")), ["other"]);
    log(&site, "lamp-1", "app", &[json!({"message": "new"})]);
    let found = wait_for(&site, 2);
    assert_eq!(messages(&found), ["other", "new"]);
    let history = site.done(&["history"], "");
    assert!(
        history.contains("lamp-1") && history.contains("logs cleared"),
        "{history}"
    );
}

#[test]
fn what_is_wrong_is_said() {
    let site = Site::new();
    let _up = site.up();
    let answer = site.get("/api/v1/logs");
    assert!(answer.contains("type = \\\"store\\\""), "{answer}");
    let answer = site.get("/api/v1/logs?filter=level+%3D+LOUD");
    assert!(
        answer.contains("filter: character 1: \\\"LOUD\\\" is no level"),
        "{answer}"
    );
    let mut command = Command::new(binary("thinglog"));
    let wrong = command
        .current_dir(site.path())
        .args(["logs", "--grep", "("])
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("regular expression"));
}

#[test]
fn an_operator_of_a_group_sees_its_devices_only() {
    let test = "an_operator_of_a_group_sees_its_devices_only";
    if !mosquitto::installed(test) {
        return;
    }
    let site = Site::new();
    site.configure(STORE);
    site.configure("[broker.auth]\npasswords = \"passwords\"\ntokens = \"tokens\"\n");
    site.configure_http("sign_in = true");
    fs::write(site.path().join("tokens"), "").unwrap();
    let login = |name: &str, more: &[&str]| {
        fs::write(site.path().join(name), "wonder").unwrap();
        site.done(&[&["passwd", name], more].concat(), "wonder\n");
    };
    login("root", &["--role", "admin"]);
    login("alice", &["--role", "operator", "--group", "eu"]);
    let up = site.up();
    let by = |name: &str, arguments: &[&str]| {
        let login = ["--username", name, "--password-file", name];
        site.done(&[arguments, &login].concat(), "")
    };
    by("root", &["group", "create", "eu"]);
    by("root", &["group", "add", "eu", "lamp-1"]);
    by("root", &["group", "create", "us"]);
    by("root", &["group", "add", "us", "lamp-2"]);
    let say = |device: &str, message: &str| {
        let topic = format!("thinglog/logs/{device}/app");
        let login = ["-q", "1", "-u", "root", "-P", "wonder"];
        mosquitto::publish(site.mqtt, &topic, message.as_bytes(), &login);
    };
    for device in ["lamp-1", "lamp-2"] {
        say(device, &format!("of {device}"));
    }
    wait::until("both events in the store", || {
        let all = lines(&by("root", &["logs", "--json"]));
        (all.len() == 2).then_some(())
    });
    for more in [
        &[][..],
        &["--all"],
        &["--device", "lamp-1,lamp-2"],
        &["--grep", "of"],
    ] {
        let seen = lines(&by("alice", &[&["logs", "--json"], more].concat()));
        assert_eq!(messages(&seen), ["of lamp-1"], "{more:?}");
    }
    let mut command = Command::new(binary("thinglog"));
    let arguments = [
        "logs",
        "clear",
        "lamp-2",
        "--username",
        "alice",
        "--password-file",
        "alice",
    ];
    let refused = command
        .current_dir(site.path())
        .args(arguments)
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(lines(&by("root", &["logs", "--json"])).len(), 2);

    // Whose rights change has what goes on for long end, and what begins anew is by the new ones.
    let follow = [
        "logs",
        "--follow",
        "--username",
        "alice",
        "--password-file",
        "alice",
    ];
    let follower = site.thinglog("follower", &follow);
    let follows = |message: &str| {
        wait::until(message, || {
            follower.output().contains(message).then_some(())
        });
    };
    follows("of lamp-1");
    login("alice", &["--role", "operator", "--group", "us"]);
    up.hang_up();
    wait::until("the new rights of alice", || {
        let seen = lines(&by("alice", &["logs", "--json"]));
        (messages(&seen) == ["of lamp-2"]).then_some(())
    });
    say("lamp-1", "not for alice");
    say("lamp-2", "meant for alice");
    follows("meant for alice");
    let told = follower.output();
    assert!(!told.contains("not for alice"), "{told}");
}
