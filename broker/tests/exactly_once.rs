//! QoS 2 in both directions, and queued messages of persistent sessions, over reconnects and crashes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::fs;

use harness::{Raw, Running, crashed, put_text};

const LOG: &str = "thinglog/logs/lamp/app";
const REQUEST: &str = "thinglog/request/lamp";

/// A 3.1.1 connection to a session that lasts.
async fn lasting(broker: &Running, id: &str) -> Raw {
    Raw::connect(broker.address, 4, id, false).await.0
}

async fn subscribe(raw: &mut Raw, filter: &str, qos: u8) {
    let mut body = vec![0, 5];
    put_text(&mut body, filter);
    body.push(qos);
    raw.send(0x82, &body).await;
    assert_eq!(raw.packet().await, [0x90, 3, 0, 5, qos]);
}

/// Sends a PUBLISH of QoS 2, without what follows.
async fn publish(raw: &mut Raw, topic: &str, pkid: u8, payload: &str, dup: bool) {
    let mut body = Vec::new();
    put_text(&mut body, topic);
    body.extend([0, pkid]);
    body.extend_from_slice(payload.as_bytes());
    raw.send(if dup { 0x3C } else { 0x34 }, &body).await;
}

/// The whole exchange of a QoS 2 publish.
async fn publish_whole(raw: &mut Raw, topic: &str, pkid: u8, payload: &str) {
    publish(raw, topic, pkid, payload, false).await;
    assert_eq!(raw.packet().await, [0x50, 2, 0, pkid]);
    raw.send(0x62, &[0, pkid]).await;
    assert_eq!(raw.packet().await, [0x70, 2, 0, pkid]);
}

/// Topic-less view of a QoS 2 PUBLISH to a 3.1.1 client: first byte, packet id, payload.
fn parts(packet: &[u8]) -> (u8, [u8; 2], String) {
    let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let rest = &packet[4 + length..];
    let payload = String::from_utf8(rest[2..].to_vec()).unwrap();
    (packet[0], [rest[0], rest[1]], payload)
}

/// Takes so many QoS 2 deliveries through to PUBCOMP; gives their payloads.
async fn take(raw: &mut Raw, count: usize) -> Vec<String> {
    let mut payloads = Vec::new();
    let mut completed = 0;
    while completed < count {
        let packet = raw.packet().await;
        if packet[0] == 0x62 {
            raw.send(0x70, &packet[2..]).await;
            completed += 1;
        } else {
            let (first, pkid, payload) = parts(&packet);
            assert_eq!(first, 0x34, "not a first QoS 2 PUBLISH");
            raw.send(0x50, &pkid).await;
            payloads.push(payload);
        }
    }
    payloads
}

#[tokio::test]
async fn a_publish_of_qos_2_that_is_sent_again_goes_out_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let mut reader = lasting(&broker, "reader").await;
    subscribe(&mut reader, REQUEST, 2).await;
    for id in ["lasting", "brief"] {
        let (mut writer, _) = Raw::connect(broker.address, 4, id, id == "brief").await;
        publish(&mut writer, REQUEST, 7, "one", false).await;
        assert_eq!(writer.packet().await, [0x50, 2, 0, 7]);
        publish(&mut writer, REQUEST, 7, "one", true).await;
        assert_eq!(writer.packet().await, [0x50, 2, 0, 7]);
        writer.send(0x62, &[0, 7]).await;
        assert_eq!(writer.packet().await, [0x70, 2, 0, 7]);
        publish_whole(&mut writer, REQUEST, 7, "two").await;
        assert_eq!(take(&mut reader, 2).await, ["one", "two"]);
    }
    broker.stop().await;
}

#[tokio::test]
async fn packet_ids_under_way_survive_a_crash_on_either_kind_of_topic() {
    for topic in [LOG, REQUEST] {
        let dir = tempfile::tempdir().unwrap();
        let broker = Running::start(dir.path()).await;
        let mut writer = lasting(&broker, "writer").await;
        let mut reader = lasting(&broker, "reader").await;
        let granted = if topic == LOG { 1 } else { 2 };
        let mut body = vec![0, 5];
        put_text(&mut body, topic);
        body.push(2);
        reader.send(0x82, &body).await;
        assert_eq!(reader.packet().await, [0x90, 3, 0, 5, granted]);
        drop(reader);
        // 1 is complete, 2 was received but not released.
        publish_whole(&mut writer, topic, 1, "first").await;
        publish(&mut writer, topic, 2, "second", false).await;
        assert_eq!(writer.packet().await, [0x50, 2, 0, 2]);
        let after = crashed(dir.path());
        broker.stop().await;

        let broker = Running::start(after.path()).await;
        let mut writer = lasting(&broker, "writer").await;
        publish(&mut writer, topic, 2, "second", true).await;
        assert_eq!(writer.packet().await, [0x50, 2, 0, 2]);
        writer.send(0x62, &[0, 2]).await;
        assert_eq!(writer.packet().await, [0x70, 2, 0, 2]);
        // Both ids are free again: these are new messages.
        publish_whole(&mut writer, topic, 1, "third").await;
        publish_whole(&mut writer, topic, 2, "fourth").await;
        let mut reader = lasting(&broker, "reader").await;
        let expected = ["first", "second", "third", "fourth"];
        if granted == 2 {
            assert_eq!(take(&mut reader, 4).await, expected);
        } else {
            for payload in expected {
                assert_eq!(reader.delivery().await.payload, payload);
            }
        }
        broker.stop().await;
    }
}

#[tokio::test]
async fn a_released_packet_id_stays_free_after_a_crash() {
    for topic in [LOG, REQUEST] {
        let dir = tempfile::tempdir().unwrap();
        let broker = Running::start(dir.path()).await;
        let mut writer = lasting(&broker, "writer").await;
        let mut reader = lasting(&broker, "reader").await;
        reader.subscribe(topic).await;
        drop(reader);
        publish_whole(&mut writer, topic, 1, "old").await;
        let after = crashed(dir.path());
        broker.stop().await;
        let broker = Running::start(after.path()).await;
        let mut writer = lasting(&broker, "writer").await;
        publish_whole(&mut writer, topic, 1, "new").await;
        let mut reader = lasting(&broker, "reader").await;
        assert_eq!(reader.delivery().await.payload, "old", "{topic}");
        assert_eq!(reader.delivery().await.payload, "new", "{topic}");
        broker.stop().await;
    }
}

#[tokio::test]
async fn a_delivery_of_qos_2_goes_on_where_it_was_over_reconnects_and_crashes() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let mut reader = lasting(&broker, "reader").await;
    subscribe(&mut reader, REQUEST, 2).await;
    let mut writer = lasting(&broker, "writer").await;
    for (pkid, payload) in [(1, "released"), (2, "received"), (3, "waiting")] {
        publish_whole(&mut writer, REQUEST, pkid, payload).await;
    }
    let (_, released, payload) = parts(&reader.packet().await);
    assert_eq!(payload, "released");
    let (_, received, payload) = parts(&reader.packet().await);
    assert_eq!(payload, "received");
    assert_eq!(parts(&reader.packet().await).2, "waiting");
    reader.send(0x50, &released).await;
    assert_eq!(reader.packet().await[0], 0x62);

    for crash in [false, true] {
        drop(reader);
        let after = crashed(dir.path());
        let again;
        let broker = match crash {
            false => &broker,
            true => {
                again = Running::start(after.path()).await;
                &again
            }
        };
        reader = lasting(broker, "reader").await;
        // In any order: the release is a packet of its own.
        let mut deliveries = Vec::new();
        let mut releases = Vec::new();
        for _ in 0..3 {
            let packet = reader.packet().await;
            match packet[0] {
                0x62 => releases.push([packet[2], packet[3]]),
                _ => deliveries.push(parts(&packet)),
            }
        }
        assert_eq!(releases, [released], "crash: {crash}");
        assert_eq!(deliveries[0], (0x3C, received, "received".to_owned()));
        assert_eq!(deliveries[1].2, "waiting");
        if crash {
            reader.send(0x70, &released).await;
            for (_, pkid, _) in deliveries {
                reader.send(0x50, &pkid).await;
                assert_eq!(reader.packet().await, [0x62, 2, pkid[0], pkid[1]]);
                reader.send(0x70, &pkid).await;
            }
            publish_whole(&mut lasting(broker, "writer").await, REQUEST, 9, "next").await;
            assert_eq!(take(&mut reader, 1).await, ["next"]);
        }
    }
    broker.stop().await;
}

#[tokio::test]
async fn what_was_acknowledged_for_an_absent_session_is_there_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    for id in ["one", "two"] {
        lasting(&broker, id)
            .await
            .subscribe("thinglog/request/#")
            .await;
    }
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    for n in 0..300 {
        writer.publish(REQUEST, &format!("{n}"), false).await;
    }
    let mut one = lasting(&broker, "one").await;
    for n in 0..100 {
        let delivery = one.delivery().await;
        assert_eq!(delivery.payload, format!("{n}"));
        one.acknowledge(delivery.pkid).await;
    }
    one.ping_between().await;
    drop(one);
    let after = crashed(dir.path());
    broker.stop().await;
    let broker = Running::start(after.path()).await;
    for id in ["one", "two"] {
        let mut reader = lasting(&broker, id).await;
        let first: usize = reader.delivery().await.payload.parse().unwrap();
        assert!(first <= 100, "{id} lost {first}");
        for n in first + 1..300 {
            assert_eq!(reader.delivery().await.payload, format!("{n}"), "{id}");
        }
    }
    broker.stop().await;
}

#[tokio::test]
async fn retained_messages_that_were_not_taken_come_again_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    writer.publish("thinglog/desired/lamp", "debug", true).await;
    let mut reader = lasting(&broker, "reader").await;
    subscribe(&mut reader, "thinglog/desired/lamp", 1).await;
    assert_eq!(reader.delivery().await.payload, "debug");
    let after = crashed(dir.path());
    broker.stop().await;
    let broker = Running::start(after.path()).await;
    let mut reader = lasting(&broker, "reader").await;
    assert_eq!(reader.delivery().await.payload, "debug");
    broker.stop().await;
}

#[tokio::test]
async fn a_clean_start_leaves_nothing_of_the_session_behind_even_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let mut reader = lasting(&broker, "reader").await;
    subscribe(&mut reader, REQUEST, 2).await;
    drop(reader);
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    writer.publish(REQUEST, "old", false).await;
    drop(Raw::connect(broker.address, 4, "reader", true).await);
    let after = crashed(dir.path());
    broker.stop().await;
    let broker = Running::start(after.path()).await;
    let (mut reader, connack) = Raw::connect(broker.address, 4, "reader", false).await;
    assert_eq!(connack, [0x20, 2, 0, 0], "there is no session");
    subscribe(&mut reader, REQUEST, 2).await;
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    writer.publish(REQUEST, "new", false).await;
    assert_eq!(reader.delivery().await.payload, "new");
    broker.stop().await;
}

#[tokio::test]
async fn a_repeated_publish_of_qos_2_among_others_holds_up_none_of_their_acknowledgements() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let mut writer = lasting(&broker, "writer").await;
    publish(&mut writer, LOG, 7, "two", false).await;
    assert_eq!(writer.packet().await, [0x50, 2, 0, 7]);
    // In one go, as a client sends it all again after a reconnect.
    let mut bytes = Vec::new();
    for (first, pkid) in [(0x32, 1), (0x3C, 7), (0x32, 2)] {
        bytes.extend([first, LOG.len() as u8 + 5]);
        put_text(&mut bytes, LOG);
        bytes.extend([0, pkid, b'x']);
    }
    writer.send_bytes(&bytes).await;
    for (first, pkid) in [(0x40, 1), (0x50, 7), (0x40, 2)] {
        assert_eq!(writer.packet().await, [first, 2, 0, pkid]);
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_packet_id_used_on_both_kinds_of_topics_is_known_after_a_crash() {
    for (complete, open) in [(LOG, REQUEST), (REQUEST, LOG)] {
        let dir = tempfile::tempdir().unwrap();
        let broker = Running::start(dir.path()).await;
        let mut writer = lasting(&broker, "writer").await;
        let mut reader = lasting(&broker, "reader").await;
        reader.subscribe(open).await;
        drop(reader);
        publish_whole(&mut writer, complete, 1, "complete").await;
        publish(&mut writer, open, 1, "open", false).await;
        assert_eq!(writer.packet().await, [0x50, 2, 0, 1]);
        let after = crashed(dir.path());
        broker.stop().await;
        let broker = Running::start(after.path()).await;
        let mut writer = lasting(&broker, "writer").await;
        publish(&mut writer, open, 1, "open", true).await;
        assert_eq!(writer.packet().await, [0x50, 2, 0, 1]);
        publish_whole(&mut writer, open, 2, "next").await;
        let mut reader = lasting(&broker, "reader").await;
        assert_eq!(reader.delivery().await.payload, "open");
        assert_eq!(reader.delivery().await.payload, "next", "{open}: not twice");
        broker.stop().await;
    }
}

#[tokio::test]
async fn packet_ids_of_a_journal_that_is_gone_are_free() {
    // With all that it was, or its records alone.
    for (topic, journal, whole) in [
        (LOG, "log", true),
        (LOG, "log", false),
        (REQUEST, "mail", true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let broker = Running::start(dir.path()).await;
        let mut writer = lasting(&broker, "writer").await;
        for pkid in [1, 2] {
            publish(&mut writer, topic, pkid, "x", false).await;
            assert_eq!(writer.packet().await, [0x50, 2, 0, pkid]);
        }
        // Its end writes the packet ids down.
        broker.stop().await;
        let folder = dir.path().join(journal);
        if whole {
            fs::remove_dir_all(folder).unwrap();
        } else {
            for file in fs::read_dir(folder).unwrap() {
                let path = file.unwrap().path();
                let is_of_records = path
                    .extension()
                    .is_some_and(|it| it == "seg" || it == "idx");
                is_of_records.then(|| fs::remove_file(path).unwrap());
            }
        }
        let broker = Running::start(dir.path()).await;
        let mut reader = lasting(&broker, "reader").await;
        reader.subscribe(topic).await;
        let mut writer = lasting(&broker, "writer").await;
        publish(&mut writer, topic, 2, "again", true).await;
        assert_eq!(writer.packet().await, [0x50, 2, 0, 2]);
        assert_eq!(reader.delivery().await.payload, "again", "{journal}");
        broker.stop().await;
    }
}
