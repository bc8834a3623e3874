//! The log emitter, as a consumer of its topics sees it: a durable subscription at the bundled broker.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use serde_json::Value;
use thinglog_tests::mqtt::{Connection, Version};
use thinglog_tests::site::Site;
use thinglog_tests::wait;

const FILTER: &str = "thinglog/out/all/#";

/// Publishes these events of a device, each acknowledged.
fn publish(site: &Site, device: &str, numbers: std::ops::Range<usize>) {
    let mut client = Connection::open(site.mqtt, device, Version::V4).unwrap();
    for n in numbers {
        let topic = format!("thinglog/logs/{device}/app");
        let payload = format!("event {n}");
        client.publish(&topic, payload.as_bytes()).unwrap();
        client.acknowledged().unwrap();
    }
}

/// Takes deliveries until `count` different events have come; gives their messages in order.
fn take(consumer: &mut Connection, count: usize) -> Vec<String> {
    let (mut ids, mut messages) = (BTreeSet::new(), Vec::new());
    while ids.len() < count {
        let (topic, payload) = consumer.delivery().unwrap();
        let event: Value = serde_json::from_slice(&payload).unwrap();
        let text = |key: &str| event[key].as_str().unwrap().to_owned();
        assert_eq!(topic, format!("thinglog/out/all/{}", text("device")));
        if ids.insert(text("id")) {
            messages.push(text("message"));
        }
    }
    messages
}

fn expected(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|n| format!("event {n}")).collect()
}

#[test]
fn a_durable_subscriber_gets_every_event_although_it_and_everybody_else_is_away_in_between() {
    let site = Site::new();
    site.configure("[router.destinations.all]\ntype = \"emitter\"\nbatch = { max_age_ms = 20 }");
    let mut up = site.up();
    let (mut consumer, _) = Connection::resume(site.mqtt, "consumer").unwrap();
    consumer.subscribe(FILTER).unwrap();
    publish(&site, "lamp-1", 0..50);
    assert_eq!(take(&mut consumer, 50), expected(0..50));

    drop(consumer);
    publish(&site, "lamp-1", 50..100);
    wait::until("the emitter to have them", || {
        let page = site.get("/metrics");
        let line = "thinglog_router_events_total{destination=\"all\",outcome=\"delivered\"} 100";
        page.contains(line).then_some(())
    });
    up.kill();
    let mut up = site.up();
    let (mut consumer, there) = Connection::resume(site.mqtt, "consumer").unwrap();
    assert!(there, "the broker has forgotten the subscriber");
    assert_eq!(take(&mut consumer, 50), expected(50..100));

    // Whatever the emitter had in hand comes again from the log.
    publish(&site, "lamp-1", 100..300);
    up.kill();
    drop(consumer);
    let _up = site.up();
    let (mut consumer, _) = Connection::resume(site.mqtt, "consumer").unwrap();
    let mut got = BTreeSet::new();
    while got.len() < 200 {
        got.extend(take(&mut consumer, 1));
        got.retain(|message: &String| expected(100..300).contains(message));
    }
}
