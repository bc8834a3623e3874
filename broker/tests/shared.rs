//! Shared subscriptions on topics that are not durable: who of a group gets what, and what becomes of it
//! when members leave.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use harness::{Raw, Running, crashed, put_text};
use thinglog_broker::Config;

const REQUEST: &str = "thinglog/request/lamp";
const SHARE: &str = "$share/workers/thinglog/request/#";

/// A member at QoS 1 whose session ends with its connection.
async fn brief(broker: &Running, level: u8, id: &str) -> Raw {
    let mut raw = Raw::connect(broker.address, level, id, true).await.0;
    assert_eq!(subscribe(&mut raw, level, SHARE, 1).await, 1);
    raw
}

/// A 3.1.1 connection to a session that lasts.
async fn lasting(broker: &Running, id: &str) -> Raw {
    Raw::connect(broker.address, 4, id, false).await.0
}

/// Subscribes; gives the code.
async fn subscribe(raw: &mut Raw, level: u8, filter: &str, options: u8) -> u8 {
    let mut body = vec![0, 5];
    body.extend((level == 5).then_some(0));
    put_text(&mut body, filter);
    body.push(options);
    raw.send(0x82, &body).await;
    let suback = raw.packet().await;
    assert_eq!(suback[0], 0x90);
    suback[suback.len() - 1]
}

/// Unsubscribes over 3.1.1.
async fn unsubscribe(raw: &mut Raw, filter: &str) {
    let mut body = vec![0, 6];
    put_text(&mut body, filter);
    raw.send(0xA2, &body).await;
    assert_eq!(raw.packet().await, [0xB0, 2, 0, 6]);
}

/// Publishes the numbers of a range as payloads.
async fn publish(broker: &Running, topic: &str, range: std::ops::Range<usize>) {
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    for n in range {
        writer.publish(topic, &n.to_string(), false).await;
    }
}

/// Takes and acknowledges so many deliveries over 3.1.1; gives the payloads.
async fn take(raw: &mut Raw, count: usize) -> Vec<usize> {
    let mut payloads = Vec::new();
    for _ in 0..count {
        let delivery = raw.delivery().await;
        raw.acknowledge(delivery.pkid).await;
        payloads.push(delivery.payload.parse().unwrap());
    }
    payloads
}

#[tokio::test]
async fn each_message_goes_to_one_member_in_turn_and_to_everybody_else() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let mut members = Vec::new();
    for id in ["a", "b", "c"] {
        members.push(brief(&broker, 4, id).await);
    }
    let mut other = Raw::connect(broker.address, 4, "other", true).await.0;
    let filter = "$share/others/thinglog/request/#";
    assert_eq!(subscribe(&mut other, 4, filter, 1).await, 1);
    let mut plain = Raw::connect(broker.address, 4, "plain", true).await.0;
    plain.subscribe("thinglog/request/#").await;
    publish(&broker, REQUEST, 0..9).await;
    for (n, member) in members.iter_mut().enumerate() {
        assert_eq!(take(member, 3).await, [n, n + 3, n + 6]);
        member.ping().await;
    }
    let all: Vec<usize> = (0..9).collect();
    assert_eq!(take(&mut other, 9).await, all);
    assert_eq!(take(&mut plain, 9).await, all);
    broker.stop().await;
}

#[tokio::test]
async fn a_member_whose_session_waits_gets_messages_only_while_nobody_is_connected() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let mut away = lasting(&broker, "away").await;
    away.subscribe(SHARE).await;
    drop(away);
    let mut present = brief(&broker, 4, "present").await;
    publish(&broker, REQUEST, 0..4).await;
    assert_eq!(take(&mut present, 4).await, [0, 1, 2, 3]);
    present.ping().await;
    present.send(0xE0, &[]).await;
    assert!(present.is_closed().await);
    publish(&broker, REQUEST, 4..6).await;
    let after = crashed(dir.path());
    broker.stop().await;
    let broker = Running::start(after.path()).await;
    let mut away = lasting(&broker, "away").await;
    assert_eq!(take(&mut away, 2).await, [4, 5]);
    publish(&broker, REQUEST, 6..7).await;
    assert_eq!(take(&mut away, 1).await, [6], "still a member");
    broker.stop().await;
}

#[tokio::test]
async fn what_a_member_did_not_acknowledge_when_its_session_ended_goes_to_another() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let mut leaves = brief(&broker, 4, "leaves").await;
    publish(&broker, REQUEST, 0..10).await;
    for n in 0..10 {
        let delivery = leaves.delivery().await;
        assert_eq!(delivery.payload, n.to_string());
        if n < 4 {
            leaves.acknowledge(delivery.pkid).await;
        }
    }
    leaves.ping().await;
    let mut stays = brief(&broker, 4, "stays").await;
    drop(leaves);
    assert_eq!(take(&mut stays, 6).await, [4, 5, 6, 7, 8, 9]);
    stays.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn what_waited_for_a_session_that_is_discarded_goes_to_another_even_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    for id in ["first", "second"] {
        lasting(&broker, id).await.subscribe(SHARE).await;
    }
    publish(&broker, REQUEST, 0..8).await;
    let after = crashed(dir.path());
    broker.stop().await;
    let broker = Running::start(after.path()).await;
    drop(Raw::connect(broker.address, 4, "first", true).await);
    let after = crashed(dir_of(&broker, after.path()).await);
    broker.stop().await;
    let broker = Running::start(after.path()).await;
    let mut second = lasting(&broker, "second").await;
    let mut all = take(&mut second, 8).await;
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3, 4, 5, 6, 7]);
    broker.stop().await;
}

/// The directory, once what the broker was told before is on disk.
async fn dir_of<'a>(broker: &Running, dir: &'a std::path::Path) -> &'a std::path::Path {
    let mut probe = lasting(broker, "probe").await;
    probe.subscribe("probe").await;
    publish(broker, "probe", 0..1).await;
    dir
}

#[tokio::test]
async fn a_session_that_subscribed_both_ways_gets_a_message_twice() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let mut both = lasting(&broker, "both").await;
    let filters = [
        SHARE,
        "$share/others/thinglog/request/+",
        REQUEST,
        "thinglog/request/#",
    ];
    for filter in filters {
        both.subscribe(filter).await;
    }
    drop(both);
    publish(&broker, REQUEST, 0..2).await;
    let after = crashed(dir.path());
    broker.stop().await;
    let broker = Running::start(after.path()).await;
    let mut both = lasting(&broker, "both").await;
    let mut got = take(&mut both, 6).await;
    got.sort_unstable();
    assert_eq!(got, [0, 0, 0, 1, 1, 1]);
    both.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn a_group_gets_no_retained_messages_and_nothing_after_its_last_unsubscribe() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    writer.publish(REQUEST, "retained", true).await;
    let mut member = brief(&broker, 4, "member").await;
    member.ping().await;
    writer.publish(REQUEST, "1", true).await;
    let delivery = member.delivery().await;
    assert_eq!((&*delivery.payload, delivery.retain), ("1", false));
    member.acknowledge(delivery.pkid).await;
    unsubscribe(&mut member, SHARE).await;
    writer.publish(REQUEST, "2", false).await;
    member.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn a_member_of_version_5_keeps_subscription_identifier_and_granted_qos() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let (mut member, connack) = Raw::connect(broker.address, 5, "member", true).await;
    // Shared Subscription Available, as version 5 tells it.
    assert!(connack.windows(2).any(|pair| pair == [42, 1]));
    let mut body = vec![0, 5, 2, 11, 7];
    put_text(&mut body, SHARE);
    body.push(0);
    member.send(0x82, &body).await;
    assert_eq!(member.packet().await, [0x90, 4, 0, 5, 0, 0]);
    publish(&broker, REQUEST, 3..4).await;
    let mut expected = Vec::new();
    put_text(&mut expected, REQUEST);
    expected.extend([2, 11, 7, b'3']);
    let packet = member.packet().await;
    assert_eq!((packet[0], &packet[2..]), (0x30, &expected[..]));
    broker.stop().await;
}

#[tokio::test]
async fn a_shared_filter_without_name_or_filter_is_refused_and_no_local_ends_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    for (level, code) in [(4, 0x80), (5, 0x8F)] {
        let (mut raw, _) = Raw::connect(broker.address, level, "member", true).await;
        for bad in [
            "$share/",
            "$share/g",
            "$share/g/",
            "$share//a",
            "$share/+/a",
            "$share/g#/a",
            "$share/g/a#",
        ] {
            assert_eq!(subscribe(&mut raw, level, bad, 1).await, code, "{bad}");
        }
    }
    let (mut raw, _) = Raw::connect(broker.address, 5, "member", true).await;
    let mut body = vec![0, 5, 0];
    put_text(&mut body, SHARE);
    body.push(1 | 4);
    raw.send(0x82, &body).await;
    let disconnect = raw.packet().await;
    assert_eq!((disconnect[0], disconnect[2]), (0xE0, 0x82));
    broker.stop().await;
}

#[tokio::test]
async fn shared_subscriptions_count_against_the_limit_of_a_session() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: dir.path().to_owned(),
        ..Config::default()
    };
    config.limits.subscriptions = 2;
    let broker = Running::start_with(config).await;
    let (mut raw, _) = Raw::connect(broker.address, 5, "member", true).await;
    assert_eq!(subscribe(&mut raw, 5, "$share/a/x", 1).await, 1);
    assert_eq!(subscribe(&mut raw, 5, "$share/b/x", 1).await, 1);
    assert_eq!(subscribe(&mut raw, 5, "$share/c/x", 1).await, 0x97);
    assert_eq!(
        subscribe(&mut raw, 5, "$share/a/x", 0).await,
        0,
        "it is there"
    );
    broker.stop().await;
}
