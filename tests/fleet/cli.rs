//! What the command line says when it is refused.

use std::fs;

use serde_json::json;
use thinglog_tests::mosquitto;
use thinglog_tests::site::Site;
use thinglog_tests::wait;

use crate::fleet::{Done, done, json, thinglog};

#[track_caller]
fn refused(site: &Site, arguments: &[&str], why: &str) -> Done {
    let done = thinglog(site, arguments);
    assert_eq!(done.code, Some(1), "{arguments:?}: {done:?}");
    assert_eq!(done.output, "", "{arguments:?}");
    assert!(done.error.contains(why), "{arguments:?}: {}", done.error);
    done
}

#[test]
fn a_router_that_does_not_run_is_said_with_the_command_that_starts_it() {
    let site = Site::new();
    refused(&site, &["level", "list"], "thinglog up");
    let url = format!("http://{}", site.http);
    refused(&site, &["device", "show", "lamp-7"], &url);
    // The broker's port speaks no HTTP.
    let _broker = site.broker();
    let broker = format!("http://{}", site.mqtt);
    refused(&site, &["group", "list", "--url", &broker], &broker);
}

#[test]
fn what_is_mistyped_is_wrong_usage_and_nobody_is_asked() {
    let site = Site::new();
    for (arguments, meant) in [
        (
            &["level", "set", "default", "DEBGU"][..],
            "did you mean DEBUG?",
        ),
        (
            &["level", "set", "gruop:eu", "DEBUG"],
            "did you mean `group:eu`?",
        ),
        (
            &["level", "set", "default", "THINGLOG_UPLOAD_MOD=manual"],
            "did you mean THINGLOG_UPLOAD_MODE?",
        ),
        (
            &["level", "set", "default", "DEBUG", "--for", "soon"],
            "15m",
        ),
        (&["level", "set", "default"], "set what?"),
        (
            &["level", "set", "source:nginx", "WARN", "--for", "1h"],
            "groups and devices",
        ),
        (&["history", "lamp-7"], "device:lamp-7"),
    ] {
        let done = thinglog(&site, arguments);
        assert_eq!(done.code, Some(2), "{arguments:?}: {done:?}");
        assert!(done.error.contains(meant), "{arguments:?}: {}", done.error);
    }
}

#[test]
fn a_fleet_is_run_by_the_command_line() {
    let site = Site::new();
    let _up = site.up();
    done(
        &site,
        &["group", "create", "world", "--description", "all of it"],
    );
    done(
        &site,
        &[
            "group",
            "create",
            "eu",
            "--parent",
            "world",
            "--attribute",
            "site=berlin",
        ],
    );
    done(&site, &["group", "add", "eu", "lamp-7", "lamp-8"]);
    done(
        &site,
        &["device", "tag", "lamp-7", "model=x1", "room=attic"],
    );
    done(&site, &["device", "tag", "lamp-7", "room="]);
    assert_eq!(done(&site, &["group", "members", "world"]), "");
    let members = ["group", "members", "world", "--recursive"];
    assert_eq!(done(&site, &members), "lamp-7\nlamp-8\n");
    let shown = json(&site, &["device", "show", "lamp-7"]).remove(0);
    assert_eq!(shown["attributes"], json!({"model": "x1"}), "{shown}");
    let found = json(&site, &["device", "list", "--query", "model = \"x1\""]);
    assert_eq!(found.len(), 1, "{found:?}");
    let listed = done(&site, &["group", "list"]);
    assert!(
        listed.contains("world") && listed.contains("  eu "),
        "{listed}"
    );

    done(
        &site,
        &[
            "level",
            "set",
            "group:world",
            "WARN",
            "--source",
            "nginx=DEBUG",
        ],
    );
    done(
        &site,
        &[
            "level",
            "set",
            "group:world",
            "THINGLOG_UPLOAD_MODE=interval",
        ],
    );
    let level = json(&site, &["level", "get", "group:world"]).remove(0);
    assert_eq!(level["level"], "WARN");
    assert_eq!(level["sources"], json!({"nginx": "DEBUG"}));
    assert_eq!(level["env"], json!({"THINGLOG_UPLOAD_MODE": "interval"}));
    // The other spelling takes the place of the first.
    done(
        &site,
        &["level", "set", "group:world", "upload.mode=manual"],
    );
    let level = json(&site, &["level", "get", "group:world"]).remove(0);
    assert_eq!(level["upload"], json!({"mode": "manual"}));
    assert!(level["env"].is_null(), "{level}");

    let told = done(
        &site,
        &["level", "set", "group:eu", "DEBUG", "--for", "15m"],
    );
    assert!(told.starts_with("group:eu: DEBUG until 2"), "{told}");
    let explained = done(&site, &["level", "explain", "lamp-7", "nginx"]);
    let mut lines = explained.lines();
    assert_eq!(lines.next(), Some("lamp-7 nginx: DEBUG"), "{explained}");
    let decides = explained
        .lines()
        .find(|line| line.starts_with("=>"))
        .unwrap();
    assert!(decides.contains("override group:eu"), "{explained}");
    assert!(explained.contains("group:world"), "{explained}");
    let listed = done(&site, &["level", "list"]);
    let rows: Vec<&str> = listed.lines().collect();
    assert!(
        rows[1].starts_with("group:eu") && rows[2].starts_with("group:world"),
        "{listed}"
    );
    done(&site, &["level", "delete", "group:eu", "--override"]);
    let level = json(&site, &["level", "explain", "lamp-7"]).remove(0);
    assert_eq!(level["level"], "WARN");

    done(&site, &["level", "disable"]);
    let level = json(&site, &["level", "explain", "lamp-7", "nginx"]).remove(0);
    assert_eq!(level["level"], "DISABLED");
    done(&site, &["level", "enable"]);
    done(
        &site,
        &[
            "level",
            "delete",
            "group:world",
            "--source",
            "nginx",
            "--setting",
            "upload.mode",
        ],
    );
    let level = json(&site, &["level", "get", "group:world"]).remove(0);
    assert_eq!(
        (&level["level"], &level["sources"]),
        (&json!("WARN"), &json!(null))
    );
    done(&site, &["level", "delete", "group:world"]);
    refused(
        &site,
        &["level", "get", "group:world"],
        "no level of its own",
    );

    let changes = json(&site, &["history", "--limit", "5"]);
    assert_eq!(changes.len(), 5, "{changes:?}");
    let told = done(&site, &["history"]);
    assert!(
        told.contains("group:eu") || told.contains("config/group/eu"),
        "{told}"
    );
    done(&site, &["group", "remove", "eu", "lamp-8"]);
    done(&site, &["device", "delete", "lamp-7"]);
    done(&site, &["group", "delete", "eu"]);
    done(&site, &["group", "delete", "world"]);
    assert_eq!(thinglog(&site, &["group", "list"]).error, "no groups\n");
}

#[test]
fn what_the_router_refuses_is_said_in_its_words_and_changes_nothing() {
    let site = Site::new();
    let _up = site.up();
    refused(
        &site,
        &["group", "add", "nowhere", "lamp-7"],
        "ResourceNotFound",
    );
    refused(
        &site,
        &["group", "create", "x", "--parent", "nowhere"],
        "nowhere",
    );
    done(&site, &["group", "create", "deep-1"]);
    for depth in 2..=7 {
        let (name, parent) = (format!("deep-{depth}"), format!("deep-{}", depth - 1));
        done(&site, &["group", "create", &name, "--parent", &parent]);
    }
    let eighth = ["group", "create", "deep-8", "--parent", "deep-7"];
    refused(&site, &eighth, "LimitExceeded");
    refused(&site, &["group", "delete", "deep-1"], "deep-2");
    done(&site, &["group", "add", "deep-1", "lamp-7"]);
    refused(&site, &["group", "add", "deep-2", "lamp-7"], "deep-1");
    // A parent is there before its child, so nothing goes round in a circle.
    let own_child = ["group", "create", "ring", "--parent", "ring"];
    refused(&site, &own_child, "ResourceNotFound");
    for n in 1..=10 {
        let name = format!("wide-{n}");
        done(&site, &["group", "create", &name]);
        let add = ["group", "add", &name, "lamp-8"];
        done(&site, &add);
    }
    refused(
        &site,
        &["group", "add", "deep-1", "lamp-8"],
        "LimitExceeded",
    );
    refused(
        &site,
        &["group", "create", "old", "--query", "model ="],
        "InvalidRequest",
    );
    refused(
        &site,
        &["level", "set", "default", "upload.mode=daily"],
        "daily",
    );
    refused(
        &site,
        &["level", "delete", "device:lamp-9"],
        "ResourceNotFound",
    );
    refused(&site, &["device", "show", "lamp-9"], "ResourceNotFound");
    assert_eq!(json(&site, &["group", "list"]).len(), 17);
    assert_eq!(json(&site, &["level", "list"]).len(), 0);
    done(&site, &["problems"]);
}

fn passwd(site: &Site, arguments: &[&str], password: &str) {
    site.done(&[&["passwd"], arguments].concat(), password);
    let file = site.path().join(format!("{}.password", arguments[0]));
    fs::write(file, password).unwrap();
}

#[test]
fn who_logs_in_sees_and_sets_what_the_role_allows() {
    if !mosquitto::installed("who_logs_in_sees_and_sets_what_the_role_allows") {
        return;
    }
    let site = Site::new();
    site.configure("[broker.auth]\npasswords = \"passwords\"");
    passwd(&site, &["root", "--role", "admin"], "hemlock");
    passwd(
        &site,
        &["alice", "--role", "operator", "--group", "eu"],
        "wonder",
    );
    let _up = site.up();
    let with = |user: &str, arguments: &[&str]| -> Vec<String> {
        let password = format!("{user}.password");
        let login = ["--username", user, "--password-file", &password];
        let all = arguments.iter().chain(&login);
        all.map(|argument| (*argument).to_owned()).collect()
    };
    let by = |user: &str, arguments: &[&str]| {
        let arguments = with(user, arguments);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        thinglog(&site, &arguments)
    };
    let done_by = |user: &str, arguments: &[&str]| {
        let done = by(user, arguments);
        assert_eq!(done.code, Some(0), "{user} {arguments:?}: {done:?}");
        done.output
    };
    let refused_to = |user: &str, arguments: &[&str], why: &str| {
        let done = by(user, arguments);
        assert_eq!(done.code, Some(1), "{user} {arguments:?}: {done:?}");
        assert!(
            done.error.contains(why),
            "{user} {arguments:?}: {}",
            done.error
        );
    };

    refused(&site, &["level", "list"], "asks who you are");
    fs::write(site.path().join("eve.password"), "guess").unwrap();
    refused_to("eve", &["level", "list"], "\"eve\"");
    for group in ["eu", "us"] {
        done_by("root", &["group", "create", group]);
        done_by("root", &["level", "set", &format!("group:{group}"), "WARN"]);
    }
    done_by("root", &["group", "add", "eu", "lamp-7"]);
    done_by("root", &["group", "add", "us", "lamp-8"]);

    done_by(
        "alice",
        &["level", "set", "group:eu", "DEBUG", "--for", "15m"],
    );
    done_by("alice", &["level", "set", "device:lamp-7", "ERROR"]);
    refused_to(
        "alice",
        &["level", "set", "default", "DEBUG"],
        "\"alice\" may not do that",
    );
    refused_to(
        "alice",
        &["level", "set", "device:lamp-8", "DEBUG"],
        "\"alice\"",
    );
    refused_to("alice", &["group", "create", "more"], "\"alice\"");
    let seen = done_by("alice", &["level", "list"]);
    assert!(
        seen.contains("group:eu") && !seen.contains("group:us"),
        "{seen}"
    );
    let seen = done_by("alice", &["device", "list"]);
    assert!(
        seen.contains("lamp-7") && !seen.contains("lamp-8"),
        "{seen}"
    );
    let history = done_by("root", &["history", "device:lamp-7"]);
    assert!(history.contains("alice"), "{history}");

    // Likewise with what passes: the group's topics are hers, all others are not.
    let tail = with("alice", &["tail", "--group", "eu", "--json"]);
    let tail: Vec<&str> = tail.iter().map(String::as_str).collect();
    let tail = site.thinglog("tail", &tail);
    let login = ["-u", "root", "-P", "hemlock"];
    wait::until("an event of the group", || {
        for device in ["lamp-7", "lamp-8"] {
            let topic = format!("thinglog/logs/{device}/app");
            let event = br#"{"level":"error","message":"seen"}"#;
            mosquitto::publish(site.mqtt, &topic, event, &login);
        }
        tail.output().contains("\"lamp-7\"").then_some(())
    });
    assert!(!tail.output().contains("\"lamp-8\""), "{}", tail.output());
    refused_to("alice", &["tail"], "--group");
}
