//! Retained messages: sections 3.3.1.3, 3.8.3.1 and 3.1.2.4.

use crate::Broker;
use crate::raw::{BOTH, V5, V311, Version, props, publish};

/// What a new subscription brings at once.
#[track_caller]
fn found(broker: &Broker, version: Version, filter: &str) -> Option<String> {
    let mut raw = broker.client(version, "looking");
    raw.subscribe("end", 0);
    raw.subscribe(filter, 1);
    // A mark behind everything that the subscription brings.
    raw.send(&publish(version, 0, b"end", 0, &props(), b""));
    let delivery = raw.delivery();
    if delivery.topic == "end" {
        return None;
    }
    assert!(delivery.retain);
    assert_eq!(raw.delivery().topic, "end", "one message a topic");
    Some(delivery.text())
}

#[test]
fn the_last_retained_message_comes_with_a_new_subscription() {
    let broker = Broker::start();
    for version in BOTH {
        let mut raw = broker.client(version, "c");
        raw.retain("house/hall", 1, "one");
        raw.retain("house/hall", 1, "two");
        let mut reader = broker.client(version, "reader");
        for filter in ["house/hall", "house/+", "house/#"] {
            reader.subscribe(filter, 1);
            let delivery = reader.delivery();
            assert_eq!((delivery.text().as_str(), delivery.retain), ("two", true));
            assert_eq!((delivery.qos, delivery.dup), (1, false));
        }
        reader.nothing();
    }
}

#[test]
fn a_retained_message_of_qos_0_replaces_one_of_qos_1() {
    let broker = Broker::start();
    for version in BOTH {
        let mut raw = broker.client(version, "c");
        raw.retain("house/hall", 1, "old");
        raw.retain("house/hall", 0, "new");
        let mut reader = broker.client(version, "reader");
        reader.subscribe("house/hall", 1);
        let delivery = reader.delivery();
        assert_eq!((delivery.text().as_str(), delivery.qos), ("new", 0));
    }
}

#[test]
fn an_empty_retained_message_removes_and_is_passed_on() {
    let broker = Broker::start();
    for version in BOTH {
        let mut raw = broker.client(version, "c");
        let mut watching = broker.client(version, "watching");
        watching.subscribe("house/hall", 1);
        raw.retain("house/hall", 1, "x");
        raw.retain("house/hall", 1, "");
        let first = watching.delivery();
        assert_eq!((first.text().as_str(), first.retain), ("x", false));
        let second = watching.delivery();
        assert_eq!((second.payload.len(), second.retain), (0, false));
        assert_eq!(found(&broker, version, "house/hall"), None);
    }
}

#[test]
fn a_message_without_retain_leaves_the_retained_one() {
    let broker = Broker::start();
    for version in BOTH {
        let mut raw = broker.client(version, "c");
        raw.retain("house/hall", 1, "kept");
        raw.publish("house/hall", 1, "passing");
        raw.publish("house/hall", 1, "");
        assert_eq!(
            found(&broker, version, "house/hall").as_deref(),
            Some("kept")
        );
        raw.publish("house/other", 1, "passing");
        assert_eq!(found(&broker, version, "house/other"), None);
    }
}

#[test]
fn retained_messages_outlive_sessions_and_the_broker() {
    let mut broker = Broker::start();
    for version in BOTH {
        let mut raw = broker.client(version, "c");
        raw.retain(&format!("house/{version:?}"), 1, "kept");
        raw.disconnect();
        assert!(found(&broker, version, &format!("house/{version:?}")).is_some());
    }
    broker.restart();
    for version in BOTH {
        assert!(found(&broker, version, &format!("house/{version:?}")).is_some());
    }
}

#[test]
fn an_established_subscription_gets_messages_without_retain() {
    let broker = Broker::start();
    for version in BOTH {
        let mut raw = broker.client(version, "c");
        raw.subscribe("house/hall", 1);
        let mut writer = broker.client(version, "writer");
        writer.retain("house/hall", 1, "x");
        assert!(!raw.delivery().retain);
        writer.retain("house/hall", 1, "");
        assert!(!raw.delivery().retain);
    }
}

#[test]
fn retain_as_published_keeps_the_flag() {
    let broker = Broker::start();
    let mut raw = broker.client(V5, "c");
    raw.subscribe("house/hall", 1 | 8);
    let mut writer = broker.client(V5, "writer");
    writer.retain("house/hall", 1, "x");
    assert!(raw.delivery().retain);
    writer.publish("house/hall", 1, "x");
    assert!(!raw.delivery().retain);
}

#[test]
fn retain_handling_says_when_retained_messages_come() {
    let broker = Broker::start();
    broker.client(V5, "writer").retain("house/hall", 1, "x");
    let mut raw = broker.client(V5, "always");
    for _ in 0..2 {
        raw.subscribe("house/hall", 1);
        assert!(raw.delivery().retain);
    }
    let mut raw = broker.client(V5, "once");
    raw.subscribe("house/hall", 1 | 0x10);
    assert!(raw.delivery().retain);
    raw.subscribe("house/hall", 1 | 0x10);
    raw.nothing();
    raw.unsubscribe("house/hall");
    raw.subscribe("house/hall", 1 | 0x10);
    assert!(raw.delivery().retain, "it is new again");
    let mut raw = broker.client(V5, "never");
    raw.subscribe("house/hall", 1 | 0x20);
    raw.nothing();
}

#[test]
fn a_second_subscription_to_a_filter_brings_retained_messages_again_in_3_1_1() {
    let broker = Broker::start();
    broker.client(V311, "writer").retain("house/hall", 1, "x");
    let mut raw = broker.client(V311, "c");
    for qos in [1, 0] {
        raw.subscribe("house/hall", qos);
        let delivery = raw.delivery();
        assert_eq!((delivery.retain, delivery.qos), (true, qos));
    }
}

#[test]
fn a_retained_message_expires() {
    let broker = Broker::start();
    let mut writer = broker.client(V5, "writer");
    writer.publish_with("house/hall", 3, &props().four(2, 1), "short");
    assert_eq!(found(&broker, V5, "house/hall").as_deref(), Some("short"));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(found(&broker, V5, "house/hall"), None);
}

#[test]
fn retain_on_a_durable_topic_is_refused() {
    let broker = Broker::start();
    let reason = broker
        .client(V5, "c")
        .publish_with("thinglog/logs/lamp/app", 3, &props(), "x");
    assert_eq!(reason, 0x87);
}
