//! Shared subscriptions on durable topics: one cursor for a group, a device's records in order, nothing
//! lost whoever of its members comes, goes or dies.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use harness::{Delivery, Raw, Running, crashed, put_text};
use thinglog_broker::Config;

const SHARE: &str = "$share/workers/thinglog/logs/#";

fn topic(device: usize) -> String {
    format!("thinglog/logs/device-{device}/app")
}

/// A 3.1.1 member whose session ends with its connection.
async fn worker(broker: &Running, id: &str) -> Raw {
    let mut raw = Raw::connect(broker.address, 4, id, true).await.0;
    raw.subscribe(SHARE).await;
    raw
}

/// An MQTT 5.0 member that takes so many records at once, and its session an hour.
async fn lasting(broker: &Running, id: &str, receive_maximum: u8) -> Raw {
    let properties = [17, 0, 0, 14, 16, 33, 0, receive_maximum];
    Raw::connect_v5(broker.address, 0, &properties, id, &[])
        .await
        .0
}

/// Subscribes over MQTT 5.0, to begin somewhere; gives the code.
async fn subscribe(raw: &mut Raw, filter: &str, qos: u8, from: Option<&str>) -> u8 {
    let mut properties = Vec::new();
    if let Some(from) = from {
        properties.push(38);
        put_text(&mut properties, "thinglog-from");
        put_text(&mut properties, from);
    }
    let mut body = vec![0, 5, properties.len() as u8];
    body.extend(properties);
    put_text(&mut body, filter);
    body.push(qos);
    raw.send(0x82, &body).await;
    let suback = raw.packet().await;
    assert_eq!(suback[0], 0x90);
    suback[suback.len() - 1]
}

/// Publishes rounds of one record for each device: the payload is the round.
async fn publish(broker: &Running, devices: usize, rounds: std::ops::Range<usize>) {
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    for round in rounds {
        for device in 0..devices {
            writer
                .publish(&topic(device), &round.to_string(), false)
                .await;
        }
    }
}

/// The next delivery over MQTT 5.0.
async fn delivery_v5(raw: &mut Raw) -> Delivery {
    let packet = raw.packet().await;
    assert_eq!(packet[0] & 0xF6, 0x32, "not a QoS 1 PUBLISH: {packet:02x?}");
    let lengths = packet[1..]
        .iter()
        .position(|byte| byte & 0x80 == 0)
        .unwrap();
    let at = 2 + lengths;
    let topic = at + 2;
    let pkid = topic + usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    let (mut properties, mut shift, mut at) = (0usize, 0, pkid + 2);
    loop {
        properties |= usize::from(packet[at] & 0x7F) << shift;
        shift += 7;
        at += 1;
        if packet[at - 1] & 0x80 == 0 {
            break;
        }
    }
    Delivery {
        topic: String::from_utf8(packet[topic..pkid].to_vec()).unwrap(),
        pkid: u16::from_be_bytes([packet[pkid], packet[pkid + 1]]),
        payload: String::from_utf8(packet[at + properties..].to_vec()).unwrap(),
        dup: packet[0] & 8 != 0,
        retain: packet[0] & 1 != 0,
    }
}

/// What a group got, by topic, in the order in which it was acknowledged.
#[derive(Default)]
struct Got(BTreeMap<String, Vec<usize>>);

impl Got {
    async fn acknowledge(&mut self, raw: &mut Raw, delivery: Delivery) {
        raw.acknowledge(delivery.pkid).await;
        let round = delivery.payload.parse().unwrap();
        self.0.entry(delivery.topic).or_default().push(round);
    }

    fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Each device's records came once and in order.
    fn assert_whole(&self, devices: usize, rounds: std::ops::Range<usize>) {
        assert_eq!(self.0.len(), devices);
        for (topic, got) in &self.0 {
            assert_eq!(*got, rounds.clone().collect::<Vec<_>>(), "{topic}");
        }
    }
}

#[tokio::test]
async fn the_work_is_shared_and_a_device_stays_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let mut members = Vec::new();
    for id in ["a", "b", "c"] {
        members.push(worker(&broker, id).await);
    }
    let (devices, rounds) = (6, 0..20);
    publish(&broker, devices, rounds.clone()).await;
    let mut got = Got::default();
    for member in &mut members {
        // Nobody has acknowledged anything yet but those who had their share.
        let mut share = Vec::new();
        for _ in 0..40 {
            share.push(member.delivery().await);
        }
        member.ping().await;
        for delivery in share {
            got.acknowledge(member, delivery).await;
        }
    }
    got.assert_whole(devices, rounds);
    broker.stop().await;
}

/// What a 3.1.1 client has been sent by now.
async fn given(raw: &mut Raw) -> Vec<Delivery> {
    let mut given = Vec::new();
    raw.send(0xC0, &[]).await;
    loop {
        let packet = raw.packet().await;
        if packet == [0xD0, 0] {
            return given;
        }
        given.push(harness::delivery_of(&packet));
    }
}

#[tokio::test]
async fn what_a_member_had_when_it_died_comes_to_another_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let mut dies = worker(&broker, "dies").await;
    let (devices, rounds) = (4, 0..10);
    publish(&broker, devices, rounds.clone()).await;
    let mut got = Got::default();
    for n in 0..devices * rounds.len() {
        let delivery = dies.delivery().await;
        if n < 13 {
            got.acknowledge(&mut dies, delivery).await;
        }
    }
    dies.ping().await;
    let mut lives = worker(&broker, "lives").await;
    lives.ping().await;
    drop(dies);
    while got.count() < devices * rounds.len() {
        let delivery = lives.delivery().await;
        got.acknowledge(&mut lives, delivery).await;
    }
    got.assert_whole(devices, rounds);
    lives.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn a_member_that_is_stuck_stops_no_device_but_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let mut stuck = lasting(&broker, "stuck", 1).await;
    assert_eq!(subscribe(&mut stuck, SHARE, 2, None).await, 1);
    publish(&broker, 1, 0..1).await;
    assert_eq!(delivery_v5(&mut stuck).await.topic, topic(0));
    let mut lives = worker(&broker, "lives").await;
    let (devices, rounds) = (5, 1..41);
    publish(&broker, devices, rounds.clone()).await;
    let mut got = Got::default();
    while got.count() < (devices - 1) * rounds.len() {
        let delivery = lives.delivery().await;
        assert_ne!(delivery.topic, topic(0));
        got.acknowledge(&mut lives, delivery).await;
    }
    got.assert_whole(devices - 1, rounds);
    lives.ping().await;
    // With its connection everything it held goes on, though its session lasts.
    drop(stuck);
    let mut got = Got::default();
    while got.count() < 41 {
        let delivery = lives.delivery().await;
        assert_eq!(delivery.topic, topic(0));
        got.acknowledge(&mut lives, delivery).await;
    }
    got.assert_whole(1, 0..41);
    let mut back = lasting(&broker, "stuck", 9).await;
    back.ping().await;
    drop(lives);
    publish(&broker, 1, 41..42).await;
    assert_eq!(delivery_v5(&mut back).await.payload, "41", "a member still");
    broker.stop().await;
}

/// A member and what it has not acknowledged.
struct Member(Raw, VecDeque<Delivery>);

impl Member {
    async fn new(broker: &Running, id: &str) -> Member {
        Member(worker(broker, id).await, VecDeque::new())
    }

    /// Acknowledges the first few of what it has, and waits until that is heard.
    async fn work(&mut self, got: &mut Got) {
        self.1.extend(given(&mut self.0).await);
        for _ in 0..5 {
            if let Some(delivery) = self.1.pop_front() {
                got.acknowledge(&mut self.0, delivery).await;
            }
        }
        self.1.extend(given(&mut self.0).await);
    }
}

#[tokio::test]
async fn members_that_come_and_die_at_any_time_lose_nothing_and_keep_the_order() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let mut members = vec![Member::new(&broker, "first").await];
    let (devices, rounds) = (7, 0..60);
    publish(&broker, devices, rounds.clone()).await;
    let mut got = Got::default();
    let mut turn = 0;
    while got.count() < devices * rounds.len() {
        turn += 1;
        assert!(turn < 1_000, "only {} records came", got.count());
        for member in &mut members {
            member.work(&mut got).await;
        }
        if turn % 2 == 0 {
            members.push(Member::new(&broker, &format!("member-{turn}")).await);
        }
        if turn % 3 == 0 {
            // Whatever else it has goes to others.
            drop(members.remove(turn % members.len()));
        }
    }
    got.assert_whole(devices, rounds);
    broker.stop().await;
}

#[tokio::test]
async fn workers_that_all_start_again_find_what_came_meanwhile_even_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let mut first = worker(&broker, "first").await;
    publish(&broker, 3, 0..4).await;
    for _ in 0..12 {
        let delivery = first.delivery().await;
        first.acknowledge(delivery.pkid).await;
    }
    first.ping().await;
    drop(first);
    publish(&broker, 3, 4..8).await;
    let after = crashed(dir.path());
    broker.stop().await;
    let clean = Running::start(dir.path()).await;
    let mut second = worker(&clean, "second").await;
    let mut got = Got::default();
    while got.count() < 12 {
        let delivery = second.delivery().await;
        got.acknowledge(&mut second, delivery).await;
    }
    got.assert_whole(3, 4..8);
    clean.stop().await;

    // What was acknowledged shortly before a crash may come once more.
    let broker = Running::start(after.path()).await;
    let mut third = worker(&broker, "third").await;
    let mut got = BTreeSet::new();
    while !(4..8).all(|round| (0..3).all(|device| got.contains(&(topic(device), round)))) {
        let delivery = third.delivery().await;
        third.acknowledge(delivery.pkid).await;
        got.insert((delivery.topic, delivery.payload.parse().unwrap()));
    }
    third.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn a_group_ends_with_its_last_unsubscribe_and_begins_where_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    publish(&broker, 2, 0..3).await;
    let mut late = lasting(&broker, "late", 100).await;
    let other = "$share/others/thinglog/logs/#";
    assert_eq!(subscribe(&mut late, other, 1, Some("earliest")).await, 1);
    let mut got = Got::default();
    for _ in 0..6 {
        let delivery = delivery_v5(&mut late).await;
        got.acknowledge(&mut late, delivery).await;
    }
    got.assert_whole(2, 0..3);
    let mut member = worker(&broker, "member").await;
    member.ping().await;
    let mut body = vec![0, 6];
    put_text(&mut body, SHARE);
    member.send(0xA2, &body).await;
    assert_eq!(member.packet().await, [0xB0, 2, 0, 6]);
    publish(&broker, 2, 3..5).await;
    member.subscribe(SHARE).await;
    publish(&broker, 2, 5..6).await;
    for _ in 0..2 {
        let delivery = member.delivery().await;
        assert_eq!(delivery.payload, "5", "it began anew");
        member.acknowledge(delivery.pkid).await;
    }
    member.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn who_unsubscribes_finishes_what_it_has_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let mut leaves = lasting(&broker, "leaves", 2).await;
    assert_eq!(subscribe(&mut leaves, SHARE, 1, None).await, 1);
    let mut stays = lasting(&broker, "stays", 100).await;
    assert_eq!(subscribe(&mut stays, SHARE, 0, None).await, 0);
    drop(stays);
    publish(&broker, 1, 0..6).await;
    let mut got = Got::default();
    let first = delivery_v5(&mut leaves).await;
    let second = delivery_v5(&mut leaves).await;
    let mut body = vec![0, 6, 0];
    put_text(&mut body, SHARE);
    leaves.send(0xA2, &body).await;
    assert_eq!(leaves.packet().await, [0xB0, 4, 0, 6, 0, 0]);
    let mut stays = worker(&broker, "stays").await;
    stays.ping().await;
    got.acknowledge(&mut leaves, first).await;
    got.acknowledge(&mut leaves, second).await;
    leaves.ping().await;
    while got.count() < 6 {
        let delivery = stays.delivery().await;
        got.acknowledge(&mut stays, delivery).await;
    }
    got.assert_whole(1, 0..6);
    stays.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn a_filter_beyond_the_log_gets_its_records_and_the_other_messages() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let mut member = lasting(&broker, "member", 100).await;
    assert_eq!(subscribe(&mut member, "$share/all/#", 1, None).await, 1);
    let mut plain = lasting(&broker, "plain", 100).await;
    assert_eq!(subscribe(&mut plain, "thinglog/logs/#", 1, None).await, 1);
    publish(&broker, 1, 0..1).await;
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    writer.publish("thinglog/request/lamp", "now", false).await;
    let mut topics = BTreeSet::new();
    for _ in 0..2 {
        let delivery = delivery_v5(&mut member).await;
        member.acknowledge(delivery.pkid).await;
        topics.insert(delivery.topic);
    }
    let expected = [topic(0), "thinglog/request/lamp".to_owned()];
    assert_eq!(topics, BTreeSet::from(expected));
    assert_eq!(delivery_v5(&mut plain).await.payload, "0", "as before");
    member.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn members_of_version_5_are_told_where_records_come_from() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let mut member = lasting(&broker, "member", 100).await;
    assert_eq!(subscribe(&mut member, SHARE, 1, None).await, 1);
    publish(&broker, 1, 0..1).await;
    let packet = member.packet().await;
    let has = |text: &str| {
        packet
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    for stamp in ["thinglog-offset", "thinglog-received", "thinglog-address"] {
        assert!(has(stamp), "{stamp}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_long_log_is_read_from_disk_for_a_group() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    drop(worker(&broker, "worker").await);
    let (devices, rounds) = (20, 0..40);
    publish(&broker, devices, rounds.clone()).await;
    broker.stop().await;
    let broker = Running::start(dir.path()).await;
    // It holds two devices for a while, whose other records wait.
    let mut slow = lasting(&broker, "slow", 2).await;
    assert_eq!(subscribe(&mut slow, SHARE, 1, None).await, 1);
    let held = [delivery_v5(&mut slow).await, delivery_v5(&mut slow).await];
    let mut quick = worker(&broker, "quick").await;
    let mut got = Got::default();
    while got.count() < (devices - 2) * rounds.len() {
        let delivery = quick.delivery().await;
        got.acknowledge(&mut quick, delivery).await;
    }
    quick.ping().await;
    for delivery in held {
        got.acknowledge(&mut slow, delivery).await;
    }
    slow.ping_between().await;
    drop(slow);
    while got.count() < devices * rounds.len() {
        let delivery = quick.delivery().await;
        got.acknowledge(&mut quick, delivery).await;
    }
    got.assert_whole(devices, rounds);
    broker.stop().await;
}

#[tokio::test]
async fn groups_are_limited_in_number() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: dir.path().to_owned(),
        ..Config::default()
    };
    config.limits.groups = 1;
    let broker = Running::start_with(config).await;
    let mut member = lasting(&broker, "member", 9).await;
    assert_eq!(subscribe(&mut member, SHARE, 1, None).await, 1);
    assert_eq!(
        subscribe(&mut member, "$share/more/thinglog/logs/#", 1, None).await,
        0x97
    );
    assert_eq!(
        subscribe(&mut member, SHARE, 1, None).await,
        1,
        "it is there"
    );
    broker.stop().await;
}

#[tokio::test]
async fn rights_are_those_of_the_filter_that_is_shared() {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("acl");
    std::fs::write(
        &rules,
        "topic read thinglog/logs/device-0/#\ntopic write thinglog/#\n",
    )
    .unwrap();
    let mut config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: dir.path().join("data"),
        ..Config::default()
    };
    config.auth.acl = Some(rules);
    config.auth.anonymous = true;
    let broker = Running::start_with(config).await;
    let mut member = lasting(&broker, "member", 9).await;
    let code = subscribe(&mut member, "$share/g/thinglog/request/#", 1, None).await;
    assert_eq!(code, 0x87);
    let code = subscribe(&mut member, SHARE, 1, Some("earliest")).await;
    assert_eq!(code, 0x87, "only routers choose where to begin");
    assert_eq!(subscribe(&mut member, SHARE, 1, None).await, 1);
    publish(&broker, 2, 0..2).await;
    for payload in ["0", "1"] {
        let delivery = delivery_v5(&mut member).await;
        assert_eq!(
            (&*delivery.topic, &*delivery.payload),
            (&*topic(0), payload)
        );
        member.acknowledge(delivery.pkid).await;
    }
    member.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn a_group_goes_on_when_all_sessions_together_hold_too_much() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: dir.path().to_owned(),
        ..Config::default()
    };
    config.limits.queued_bytes = 1;
    let broker = Running::start_with(config).await;
    let mut member = worker(&broker, "member").await;
    publish(&broker, 3, 0..5).await;
    let mut got = Got::default();
    while got.count() < 15 {
        let delivery = member.delivery().await;
        got.acknowledge(&mut member, delivery).await;
    }
    got.assert_whole(3, 0..5);
    broker.stop().await;
}

#[tokio::test]
async fn what_retention_takes_from_a_group_is_counted_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: dir.path().to_owned(),
        ..Config::default()
    };
    config.limits.packet_bytes = 64 << 10;
    config.retention.bytes = 1 << 20;
    let broker = Running::start_with(config).await;
    let mut stuck = lasting(&broker, "stuck", 1).await;
    assert_eq!(subscribe(&mut stuck, SHARE, 1, None).await, 1);
    let mut quick = worker(&broker, "quick").await;
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    let padding = "x".repeat(30 << 10);
    let total = 60;
    for n in 0..total {
        let payload = format!("{n} {padding}");
        writer.publish(&topic(0), &payload, false).await;
        if n == 0 {
            assert!(delivery_v5(&mut stuck).await.payload.starts_with("0 "));
        }
        // One for the other member, so that the group reads on past what waits.
        writer.publish(&topic(1), "1", false).await;
        let delivery = quick.delivery().await;
        assert_eq!(delivery.topic, topic(1));
        quick.acknowledge(delivery.pkid).await;
    }
    quick.ping().await;
    drop(stuck);
    let mut got: Vec<u64> = Vec::new();
    while got.last() != Some(&(total - 1)) {
        let delivery = quick.delivery().await;
        quick.acknowledge(delivery.pkid).await;
        let number = delivery.payload.split(' ').next().unwrap();
        got.push(number.parse().unwrap());
    }
    let cut = broker.counted("thinglog_broker_dropped_messages_total", "cut by retention");
    assert!(cut > 0);
    assert_eq!(got, (cut..total).collect::<Vec<_>>());
    broker.stop().await;
}
