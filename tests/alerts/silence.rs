//! Devices that say nothing, rules that are tried, and what is shown of alerts.

use std::fs;

use serde_json::Value;
use thinglog_tests::site::Site;
use thinglog_tests::wait;

use crate::hook::Hook;
use crate::told::{publish, receiver};

#[test]
fn a_device_that_never_said_anything_is_missed_until_it_does() {
    let hook = Hook::listening();
    let site = Site::new();
    site.configure(&receiver(&hook));
    site.configure(
        "[router.alerts.silent]\nwhen = 'source = app'\nabsent_for = \"1s\"\nof = 'type = lamp'\nto = [\"pager\"]\n",
    );
    let _up = site.up();
    site.done(&["device", "tag", "lamp-7", "--type", "lamp"], "");
    let with = |status: &str| {
        let mut told = hook.notifications().into_iter();
        told.find(|told| told["status"] == *status)
    };
    let firing = wait::until("the silence to be told", || with("firing"));
    assert_eq!(firing["alerts"][0]["device"], "lamp-7");
    assert_eq!(firing["alerts"][0]["last"], Value::Null);
    let shown = site.done(&["alert", "list"], "");
    assert!(
        shown.contains("none for 1s of type = lamp") && shown.contains("lamp-7"),
        "{shown}"
    );
    publish(&site, "lamp-7", "here I am");
    let resolved = wait::until("its end to be told", || with("resolved"));
    assert_eq!(resolved["alerts"][0]["id"], firing["alerts"][0]["id"]);
}

#[test]
fn rules_are_tried_without_anything_running() {
    let site = Site::new();
    site.configure("[router.alerts.many]\nwhen = 'level = ERROR'\ncount = 3\nwithin = \"1m\"\n");
    let examples = |count: u64| {
        let text = format!(
            "[[example]]\nname = \"three errors\"\nuntil = \"2m\"\n\
             events = [{{ at = \"0s\", repeat = 3, every = \"10s\", event = {{ device = \"lamp-7\", level = \"ERROR\" }} }}]\n\
             alerts = [{{ rule = \"many\", at = \"20s\", device = \"lamp-7\", count = {count} }},\n\
                       {{ rule = \"many\", at = \"1m\", status = \"resolved\" }}]\n"
        );
        fs::write(site.path().join("examples.toml"), text).unwrap();
        let (code, output, error) = site.run(&["alert", "test", "examples.toml"], "");
        (output + &error, code)
    };
    let (right, code) = examples(3);
    assert_eq!(code, Some(0), "{right}");
    let expected = "ok     three errors\n         20s many firing: lamp-7 (3 events)\n         \
                    60s many resolved: lamp-7 (3 events)\n1 examples, 0 wrong\n";
    assert_eq!(right, expected);
    let (wrong, code) = examples(4);
    assert_eq!(code, Some(1), "{wrong}");
    assert!(
        wrong.contains("wrong: notification 1: count is 3, not 4"),
        "{wrong}"
    );
}
