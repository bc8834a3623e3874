//! Notifications over MQTT and HTTP, a router that is killed between events, another configuration.

use std::fs;

use serde_json::{Value, json};
use thinglog_tests::mosquitto::{self, Watch};
use thinglog_tests::mqtt::{Connection, Version};
use thinglog_tests::site::Site;
use thinglog_tests::wait;

use crate::hook::Hook;

/// Publishes an event and waits until the broker has it on disk.
pub(crate) fn publish(site: &Site, device: &str, message: &str) {
    let mut client = Connection::open(site.mqtt, device, Version::V5).unwrap();
    let topic = format!("thinglog/logs/{device}/app");
    client.publish(&topic, message.as_bytes()).unwrap();
    client.acknowledged().unwrap();
}

pub(crate) fn receiver(hook: &Hook) -> String {
    let address = hook.address;
    format!(
        "[router.receivers.pager]\ntype = \"webhook\"\nurl = \"http://{address}/hook?to=me\"\n\
         secret = \"s3cret\"\n"
    )
}

#[test]
fn an_event_that_matches_is_told_over_mqtt_and_http() {
    let hook = Hook::listening();
    let site = Site::new();
    site.configure(&receiver(&hook));
    site.configure(
        "[router.alerts.full]\nwhen = 'message ~ /disk full/'\nto = [\"mqtt\", \"pager\"]\n\
         severity = \"critical\"\nannotations = { text = \"{{device}}: {{message}}\" }\n",
    );
    if !mosquitto::installed("an_event_that_matches_is_told_over_mqtt_and_http") {
        return;
    }
    let _up = site.up();
    let watch = Watch::start(
        site.mqtt,
        "thinglog/alerts/#",
        &["-q", "1", "-F", "%r %t %p"],
    );
    wait::until("the watch to be subscribed", || {
        mosquitto::publish(site.mqtt, "thinglog/alerts/probe", b"probe", &[]);
        (!watch.lines().is_empty()).then_some(())
    });
    publish(&site, "lamp-7", "all is well");
    publish(&site, "lamp-7", "disk full: /var");
    let line = wait::until("the alert over MQTT", || {
        let lines = watch.lines().into_iter();
        lines.into_iter().find(|line| line.contains("/full "))
    });
    let body = line.strip_prefix("0 thinglog/alerts/full ").unwrap();
    let told: Value = serde_json::from_str(body).unwrap();
    assert_eq!(told["status"], "firing");
    assert_eq!(told["severity"], "critical");
    assert_eq!(told["count"], 1);
    assert_eq!(told["alerts"][0]["device"], "lamp-7");
    let text = &told["alerts"][0]["annotations"]["text"];
    assert_eq!(*text, "lamp-7: disk full: /var");
    let event = site.event("disk full: /var");
    assert_eq!(told["events"], json!([event]));
    let requests = wait::until("the alert over HTTP", || {
        let requests = hook.requests();
        (!requests.is_empty()).then_some(requests)
    });
    assert_eq!(requests[0].body["id"], told["id"]);
    let head = &requests[0].head;
    assert!(head.starts_with("post /hook?to=me http/1.1"), "{head}");
    assert!(head.contains("thinglog-signature: t="), "{head}");
    assert_eq!(requests.len(), 1, "what does not match is not told");
    wait::until("the figures", || {
        let page = site.get("/metrics");
        let sent = "notifications_total{outcome=\"sent\",receiver=\"pager\",rule=\"full\"} 1";
        let open = "thinglog_router_alerts_open{rule=\"full\"} 1";
        (page.contains(sent) && page.contains(open)).then_some(())
    });
}

#[test]
fn a_router_that_is_killed_between_events_counts_each_once_and_tells_once() {
    let hook = Hook::new();
    let site = Site::new();
    site.configure(&receiver(&hook));
    site.configure(
        "[router.alerts.many]\nwhen = 'message ~ /failed/'\ncount = 8\nwithin = \"1h\"\nto = [\"pager\"]\n",
    );
    let _broker = site.broker();
    // The subscription has to stand before the first event.
    let mut router = site.router();
    site.wait_for_router(&mut router);
    for n in 0..7 {
        publish(&site, "lamp-7", &format!("failed {n}"));
        router.kill();
        router = site.router();
    }
    publish(&site, "lamp-7", "failed 7");
    let unsent = || {
        site.get("/metrics")
            .contains("thinglog_router_alerts_unsent 1")
    };
    site.wait_for_router(&mut router);
    wait::until("a notification", || unsent().then_some(()));
    // It is made and nobody has heard of it.
    router.kill();
    let mut router = site.router();
    site.wait_for_router(&mut router);
    wait::until("the notification of the life before", || {
        unsent().then_some(())
    });
    hook.listen();
    let told = wait::until("the notification", || hook.notifications().pop());
    assert_eq!(told["rule"], "many");
    assert_eq!(told["count"], 8);
    publish(&site, "lamp-7", "failed 8");
    wait::until("the event behind it to be taken", || {
        let page = site.get("/metrics");
        let settled = "thinglog_router_alerts_unsent 0";
        let matched = "thinglog_router_events_in_flight{destination=\"alerts\"} 0";
        let file = "thinglog_router_events_in_flight{destination=\"file\"} 0";
        let all = page.contains(settled) && page.contains(matched) && page.contains(file);
        (all && site.has_event("failed 8")).then_some(())
    });
    assert_eq!(hook.notifications().len(), 1, "an open alert is told once");
}

#[test]
fn rules_are_taken_up_while_the_router_runs_and_what_they_count_stays() {
    let hook = Hook::listening();
    let site = Site::new();
    site.configure(&receiver(&hook));
    let config = site.path().join("thinglog.toml");
    let without = fs::read_to_string(&config).unwrap();
    let up = site.up();
    let alerts = |rules: &str| {
        fs::write(&config, format!("{without}{rules}")).unwrap();
        up.hang_up();
    };
    let many = "[router.alerts.many]\ncount = 3\nwithin = \"1h\"\nto = [\"pager\"]\n";
    alerts(many);
    wait::until("the subscription to stand", || {
        publish(&site, "probe", "probe");
        let page = site.get("/metrics");
        page.contains("alerts_matched_total{rule=\"many\"}")
            .then_some(())
    });
    publish(&site, "lamp-7", "one");
    publish(&site, "lamp-7", "two");
    wait::until("all to be in hand", || site.has_event("two").then_some(()));
    // Another rule beside it, another text of this one: what was counted stays.
    let more =
        "severity = \"bad\"\n[router.alerts.each]\nwhen = 'message = three'\nto = [\"pager\"]\n";
    alerts(&format!("{many}{more}"));
    wait::until("the new rule to run", || {
        publish(&site, "other", "three");
        let told = hook.notifications();
        told.iter().any(|told| told["rule"] == "each").then_some(())
    });
    publish(&site, "lamp-7", "four");
    let told = wait::until("the third event to be told", || {
        let all = hook.notifications().into_iter();
        all.into_iter()
            .find(|told| told["alerts"][0]["device"] == "lamp-7")
    });
    assert_eq!(
        (&told["count"], &told["severity"]),
        (&json!(3), &json!("bad"))
    );
    // A rule that cannot be changes nothing.
    alerts("[router.alerts.each]\nto = [\"nobody\"]\n");
    wait::until("the reason", || {
        up.output()
            .contains("there is no receiver \\\"nobody\\\"")
            .then_some(())
    });
}
