//! Documents that cannot stand change nothing, and are explained wherever somebody may look.

use serde_json::Value;
use thinglog_tests::mosquitto::{self, Watch};
use thinglog_tests::site::Site;
use thinglog_tests::wait;

use crate::fleet::{done, json, remove, retain, thinglog};

/// The level of `lamp-7`, and the rule that decides.
fn decided(site: &Site) -> (Value, Value) {
    let explained = json(site, &["level", "explain", "lamp-7", "app"]).remove(0);
    let rules = explained["rules"].as_array().unwrap();
    let winner = rules.iter().find(|rule| rule["outcome"] == "won").unwrap();
    (explained["level"].clone(), winner["topic"].clone())
}

/// Seven groups in one another, ten of `lamp-7`, and a level by which it goes.
fn fleet(site: &Site) {
    for depth in 1..=7 {
        let document = match depth {
            1 => "{}".to_owned(),
            depth => format!(r#"{{"parent":"deep-{}"}}"#, depth - 1),
        };
        retain(site, &format!("group/deep-{depth}"), &document);
    }
    for n in 1..=10 {
        retain(site, &format!("group/wide-{n}"), "{}");
        retain(site, &format!("member/wide-{n}/lamp-7"), "{}");
    }
    retain(site, "group/wide-11", "{}");
    retain(site, "group/wide-1", r#"{"level":"WARN"}"#);
    retain(site, "group/ring-1", r#"{"parent":"ring-2"}"#);
}

/// Each written later than all there is: topic, document, what is said of it.
const BAD: [(&str, &str, &str); 5] = [
    ("group/wide-1", r#"{"levle":"DEBUG"}"#, "levle"),
    ("device/lamp-7", r#"{"level":"LOUD"}"#, "LOUD"),
    (
        "group/ring-2",
        r#"{"parent":"ring-1","level":"DEBUG","at":"2026-01-02T03:04:05Z"}"#,
        "ring-1",
    ),
    (
        "group/deep-8",
        r#"{"parent":"deep-7","level":"DEBUG","at":"2026-01-02T03:04:05Z"}"#,
        "7",
    ),
    (
        "member/wide-11/lamp-7",
        r#"{"at":"2026-01-02T03:04:05Z"}"#,
        "10",
    ),
];

#[test]
fn what_cannot_stand_changes_nothing_and_is_explained_on_alerts_in_the_log_and_by_the_command_line()
{
    if !mosquitto::installed("what_cannot_stand_changes_nothing_and_is_explained") {
        return;
    }
    let site = Site::new();
    let up = site.up();
    fleet(&site);
    let warn = (Value::from("WARN"), Value::from("config/group/wide-1"));
    wait::until("the fleet to stand", || {
        (decided(&site) == warn).then_some(())
    });
    done(&site, &["problems"]);

    let alerts = Watch::start(site.mqtt, "thinglog/alerts/config", &[]);
    let probe = || retain(&site, "device/probe", r#"{"no":"document"}"#);
    wait::until("the watch", || {
        probe();
        (!alerts.lines().is_empty()).then_some(())
    });
    remove(&site, "device/probe");
    for (topic, document, reason) in BAD {
        retain(&site, topic, document);
        let alert = wait::until(&format!("an alert of {topic}"), || {
            let lines = alerts.lines().into_iter();
            let alerts = lines.map(|line| serde_json::from_str::<Value>(&line).unwrap());
            let mut of_it = alerts.filter(|alert| {
                alert["topic"]
                    .as_str()
                    .is_some_and(|found| found.ends_with(topic))
            });
            of_it.next()
        });
        let told = alert["reason"].as_str().unwrap();
        assert!(told.contains(reason), "{alert}");
        assert!(up.output().contains(topic), "{}", up.output());
        assert_eq!(decided(&site), warn, "{topic}");
        let listed = thinglog(&site, &["problems"]);
        assert_eq!(listed.code, Some(1), "{listed:?}");
        let line = listed.output.lines().find(|line| line.contains(topic));
        let line = line.unwrap_or_else(|| panic!("{topic}: {listed:?}"));
        assert!(line.contains(reason), "{line}");
    }
    let explained = done(&site, &["level", "explain", "lamp-7"]);
    assert!(
        explained.contains("config/member/wide-11/lamp-7"),
        "{explained}"
    );
    // Below a list there is a word of it.
    let listed = thinglog(&site, &["level", "list"]);
    assert!(listed.error.contains("cannot stand: 5"), "{listed:?}");

    retain(&site, "group/wide-1", r#"{"level":"WARN"}"#);
    for (topic, ..) in &BAD[1..] {
        remove(&site, topic);
    }
    wait::until("every document to stand", || {
        (thinglog(&site, &["problems"]).code == Some(0)).then_some(())
    });
    assert_eq!(decided(&site), warn);
}
