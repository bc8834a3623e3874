//! `route test`, `top`, `tap`, `dlq`, and another configuration by SIGHUP.

use std::fs;

use serde_json::Value;
use thinglog_tests::mqtt::{Connection, Version};
use thinglog_tests::site::Site;
use thinglog_tests::wait;

use crate::service::Service;

fn publish(site: &Site, message: &str) {
    let mut client = Connection::open(site.mqtt, "lamp-7", Version::V5).unwrap();
    client
        .publish("thinglog/logs/lamp-7/app", message.as_bytes())
        .unwrap();
    client.acknowledged().unwrap();
}

#[test]
fn routes_are_tried_without_anything_running() {
    let site = Site::new();
    site.configure(
        "[router.destinations.pager]\ntype = \"file\"\n\
         [router.routes.bad]\nwhen = \"level = ERROR\"\nto = [\"pager\"]\n\
         set = { message = \"{{device}}: {{message}}\" }\n",
    );
    let event = "event = { device = \"lamp-7\", level = \"ERROR\", message = \"full\" }\n";
    let examples = |to: &str| {
        let text = format!("[[example]]\nname = \"a full disk\"\n{event}to = {to}\n");
        fs::write(site.path().join("examples.toml"), text).unwrap();
    };
    examples("[\"file\", \"pager\"]");
    let right = site.done(&["route", "test", "examples.toml"], "");
    let expected = "ok     a full disk: file, pager (by route bad)\n1 examples, 0 wrong\n";
    assert_eq!(right, expected);
    examples("[\"file\"]");
    let (code, wrong, _) = site.run(&["route", "test", "examples.toml"], "");
    assert_eq!(code, Some(1));
    assert!(
        wrong.contains("\n         reaches pager by route bad\n"),
        "{wrong}"
    );
    fs::write(site.path().join("examples.toml"), "[[example]]\nevnt = 1\n").unwrap();
    let (code, _, error) = site.run(&["route", "test", "examples.toml"], "");
    assert_eq!(code, Some(1));
    assert!(
        error.contains("examples.toml") && error.contains("evnt"),
        "{error}"
    );
}

#[test]
fn dead_letters_are_seen_and_sent_again_by_commands() {
    let (site, service) = (Site::new(), Service::new());
    service.refuse_poison(true);
    service.listen();
    site.configure(&hook(&service));
    let _up = site.up();
    for n in 0..3 {
        publish(&site, &format!("poison {n}"));
    }
    publish(&site, "fine");
    let letters = || -> Vec<Value> {
        let lines = site.done(&["dlq", "list", "hook", "--json"], "");
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    wait::until("three dead letters", || {
        (letters().len() == 3).then_some(())
    });
    let table = site.done(&["dlq", "list", "hook"], "");
    assert!(
        table.contains("poison 1") && table.contains("lamp-7"),
        "{table}"
    );
    let counts = site.done(&["dlq", "list"], "");
    assert!(counts.contains("hook") && counts.contains('3'), "{counts}");
    let number = letters()[1]["n"].to_string();
    let shown = site.done(&["dlq", "show", "hook", &number], "");
    assert!(
        shown.contains("poison 1") && shown.contains("400"),
        "{shown}"
    );
    service.refuse_poison(false);
    assert_eq!(
        site.done(&["dlq", "replay", "hook", &number], ""),
        "1 accepted\n"
    );
    assert_eq!(
        site.done(&["dlq", "drop", "hook", "--all"], ""),
        "2 deleted\n"
    );
    assert_eq!(letters(), Vec::<Value>::new());
    assert_eq!(service.count(), 2);
    let (code, _, error) = site.run(&["dlq", "list", "nowhere"], "");
    assert_eq!(code, Some(1));
    assert!(error.contains("nowhere"), "{error}");
    let top = site.done(&["top", "--count", "2", "--json"], "");
    let last: Value = serde_json::from_str(top.lines().last().unwrap()).unwrap();
    let names: Vec<&Value> = last["destinations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["name"])
        .collect();
    assert_eq!(names, ["file", "hook"]);
    assert_eq!(last["destinations"][0]["delivered_per_s"], 0.0);
}

fn hook(service: &Service) -> String {
    format!(
        "[router.destinations.hook]\ntype = \"webhook\"\nurl = \"http://{}/\"\n\
         batch.max_age_ms = 50\nretry = {{ from_ms = 10, max_ms = 200 }}\n",
        service.address
    )
}

#[test]
fn sighup_takes_up_routes_and_a_bad_file_changes_nothing() {
    let (site, service) = (Site::new(), Service::new());
    service.listen();
    let mut up = site.up();
    publish(&site, "one");
    site.event("one");
    site.configure(&hook(&service));
    site.configure(
        "from = \"tail\"\n[router.routes.r]\nwhen = \"message != two\"\nto = [\"file\"]\n",
    );
    up.hang_up();
    wait::until("the hook is there", || {
        site.get("/api/v1/destinations")
            .contains("\"hook\"")
            .then_some(())
    });
    site.wait_for_router(&mut up);
    publish(&site, "two");
    publish(&site, "three");
    site.event("three");
    assert!(!site.has_event("two"));
    wait::until("both at the hook", || (service.count() == 2).then_some(()));

    site.configure("[router.routes.s]\nto = [\"nowhere\"]\n");
    up.hang_up();
    wait::until("the refusal", || {
        let log = up.output();
        (log.contains("stay as they were") && log.contains("router.routes.s.to")).then_some(())
    });
    publish(&site, "four");
    site.event("four");
    wait::until("the hook goes on", || (service.count() == 3).then_some(()));
}

#[test]
fn a_tap_follows_a_destination() {
    let site = Site::new();
    let _up = site.up();
    let mut tap = site.thinglog("tap", &["tap", "file", "--limit", "1"]);
    // What was sent before it looks is not shown.
    wait::until("an event in the tap", || {
        publish(&site, "seen");
        tap.output().contains("seen").then_some(())
    });
    assert_eq!(tap.wait().code(), Some(0), "{}", tap.output());
    assert_eq!(tap.output().lines().count(), 1);
}
