//! The broker as its clients meet it: over TCP, spoken to in raw packets and by real clients.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use harness::{Raw, Running, put_text};
use thinglog_broker::Config;

const LOG: &str = "thinglog/logs/lamp/app";

#[tokio::test]
async fn a_durable_session_gets_what_was_published_while_it_was_away() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let (mut reader, _) = Raw::connect(broker.address, 4, "reader", false).await;
    reader.subscribe("thinglog/logs/#").await;
    drop(reader);
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    for n in 0..3 {
        writer.publish(LOG, &format!("event {n}"), false).await;
    }
    let (mut reader, connack) = Raw::connect(broker.address, 4, "reader", false).await;
    assert_eq!(connack[2], 1, "session present");
    for n in 0..3 {
        assert_eq!(reader.delivery().await.payload, format!("event {n}"));
    }
    broker.stop().await;
}

#[tokio::test]
async fn after_a_restart_only_what_was_not_acknowledged_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let (mut reader, _) = Raw::connect(broker.address, 4, "reader", false).await;
    reader.subscribe("thinglog/logs/#").await;
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    for n in 0..4 {
        writer.publish(LOG, &format!("event {n}"), false).await;
    }
    // Acknowledge the first and the third.
    for n in 0..4 {
        let delivery = reader.delivery().await;
        if n % 2 == 0 {
            reader.acknowledge(delivery.pkid).await;
        }
    }
    reader.ping().await;
    broker.stop().await;

    let broker = Running::start(dir.path()).await;
    let (mut reader, connack) = Raw::connect(broker.address, 4, "reader", false).await;
    assert_eq!(connack[2], 1, "session present");
    assert_eq!(reader.delivery().await.payload, "event 1");
    assert_eq!(reader.delivery().await.payload, "event 3");
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    writer.publish(LOG, "event 4", false).await;
    assert_eq!(reader.delivery().await.payload, "event 4");
    broker.stop().await;
}

#[tokio::test]
async fn a_reconnect_sends_the_unacknowledged_again_with_dup_and_the_same_packet_id() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let (mut reader, _) = Raw::connect(broker.address, 4, "reader", false).await;
    reader.subscribe("thinglog/#").await;
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    writer.publish(LOG, "durable", false).await;
    writer
        .publish("thinglog/request/lamp", "queued", false)
        .await;
    let mut first = [reader.delivery().await, reader.delivery().await];
    first.sort_by(|a, b| a.payload.cmp(&b.payload));
    drop(reader);
    let (mut reader, _) = Raw::connect(broker.address, 4, "reader", false).await;
    let mut second = [reader.delivery().await, reader.delivery().await];
    second.sort_by(|a, b| a.payload.cmp(&b.payload));
    for (first, second) in first.iter().zip(&second) {
        assert_eq!((&first.payload, first.pkid), (&second.payload, second.pkid));
        assert!(second.dup && !first.dup);
    }
    broker.stop().await;
}

#[tokio::test]
async fn retained_messages_survive_a_restart_and_an_empty_one_removes() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    writer.publish("thinglog/config/default", "{}", true).await;
    writer.publish("thinglog/config/group/eu", "{}", true).await;
    writer.publish("thinglog/config/group/eu", "", true).await;
    broker.stop().await;
    let broker = Running::start(dir.path()).await;
    let (mut reader, _) = Raw::connect(broker.address, 4, "reader", true).await;
    reader.subscribe("thinglog/config/#").await;
    let delivery = reader.delivery().await;
    assert_eq!(delivery.topic, "thinglog/config/default");
    assert!(delivery.retain);
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    writer
        .publish("thinglog/config/group/us", "{}", false)
        .await;
    let delivery = reader.delivery().await;
    assert_eq!(
        (delivery.topic.as_str(), delivery.retain),
        ("thinglog/config/group/us", false)
    );
    broker.stop().await;
}

#[tokio::test]
async fn a_subscriber_of_version_5_learns_offset_time_and_address() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let (mut reader, _) = Raw::connect(broker.address, 5, "reader", false).await;
    let mut body = vec![0, 5, 0];
    put_text(&mut body, "thinglog/logs/#");
    body.push(1);
    reader.send(0x82, &body).await;
    assert_eq!(reader.packet().await, [0x90, 4, 0, 5, 0, 1]);
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    writer.publish(LOG, "hello", false).await;
    let packet = reader.packet().await;
    let text = String::from_utf8_lossy(&packet);
    assert!(
        text.contains("thinglog-offset") && text.contains("/0"),
        "{text}"
    );
    assert!(text.contains("thinglog-received"), "{text}");
    assert!(text.contains("127.0.0.1"), "{text}");
    broker.stop().await;
}

#[tokio::test]
async fn a_clean_session_reads_the_log_from_its_tail() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    writer.publish(LOG, "before", false).await;
    let (mut reader, _) = Raw::connect(broker.address, 4, "reader", true).await;
    reader.subscribe("thinglog/logs/+/app").await;
    writer
        .publish("thinglog/logs/lamp/other", "elsewhere", false)
        .await;
    writer.publish(LOG, "after", false).await;
    assert_eq!(reader.delivery().await.payload, "after");
    broker.stop().await;
}

#[tokio::test]
async fn a_takeover_ends_the_older_connection() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let (mut old, _) = Raw::connect(broker.address, 5, "same", false).await;
    let (mut new, connack) = Raw::connect(broker.address, 5, "same", false).await;
    assert_eq!(connack[2], 1, "the session goes on");
    let goodbye = old.packet().await;
    assert_eq!((goodbye[0], goodbye[2]), (0xE0, 0x8E));
    new.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn a_will_is_published_when_the_connection_breaks_and_not_after_a_goodbye() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let (mut watcher, _) = Raw::connect(broker.address, 4, "watcher", true).await;
    watcher.subscribe("thinglog/reported/#").await;
    for (id, polite) in [("polite", true), ("torn", false)] {
        let mut raw = Raw::open(broker.address).await;
        // Clean session, will at QoS 1.
        let mut body = b"\0\x04MQTT\x04\x0E\0\x3C".to_vec();
        put_text(&mut body, id);
        put_text(&mut body, &format!("thinglog/reported/{id}"));
        put_text(&mut body, "gone");
        raw.send(0x10, &body).await;
        assert_eq!(raw.packet().await, [0x20, 2, 0, 0]);
        if polite {
            raw.send(0xE0, &[]).await;
            assert!(raw.is_closed().await);
        }
    }
    assert_eq!(watcher.delivery().await.topic, "thinglog/reported/torn");
    broker.stop().await;
}

#[tokio::test]
async fn what_cannot_be_taken_ends_the_connection_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let garbage: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x20, 2, 0, 0],
        &[0x10, 0xFF, 0xFF, 0xFF, 0xFF],
        &[0x10, 0],
        &[0xFF; 64],
        b"\x10\x0f\0\x04MQTT\x04\x03\0\0\0\x03abc",
    ];
    for bytes in garbage {
        let mut raw = Raw::open(broker.address).await;
        raw.send_bytes(bytes).await;
        assert!(raw.is_closed().await, "{bytes:02x?}");
    }
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    // RETAIN on a durable topic: 3.1.1 can be told only by the end of the connection.
    let mut body = Vec::new();
    put_text(&mut body, LOG);
    body.extend([0, 9]);
    writer.send(0x33, &body).await;
    assert!(writer.is_closed().await);
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    writer.publish(LOG, "still served", false).await;
    broker.stop().await;
}

#[tokio::test]
async fn an_unsupported_protocol_level_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let mut raw = Raw::open(broker.address).await;
    raw.send(0x10, b"\0\x06MQIsdp\x03\x02\0\x3C\0\x01a").await;
    assert_eq!(raw.packet().await, [0x20, 2, 0, 1]);
    broker.stop().await;
}

#[tokio::test]
async fn interest_names_the_live_filters_of_connected_clients() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let (mut router, _) = Raw::connect(broker.address, 4, "router", true).await;
    router.subscribe("$SYS/thinglog/interest").await;
    assert_eq!(router.delivery().await.payload, "[]");
    let (mut watcher, _) = Raw::connect(broker.address, 4, "watcher", true).await;
    watcher.subscribe("thinglog/live/+/error/#").await;
    assert_eq!(
        router.delivery().await.payload,
        r#"["thinglog/live/+/error/#"]"#
    );
    drop(watcher);
    assert_eq!(router.delivery().await.payload, "[]");
    broker.stop().await;
}

#[tokio::test]
async fn a_log_larger_than_memory_keeps_is_read_back_from_disk_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let (mut reader, _) = Raw::connect(broker.address, 4, "reader", false).await;
    reader.subscribe("thinglog/logs/#").await;
    drop(reader);
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    let filler = "x".repeat(100_000);
    for n in 0..200 {
        writer.publish(LOG, &format!("{n} {filler}"), false).await;
    }
    let (mut reader, _) = Raw::connect(broker.address, 4, "reader", false).await;
    for n in 0..200 {
        let mut packet = reader.packet().await;
        let payload = packet.split_off(packet.len() - filler.len() - format!("{n} ").len());
        assert!(payload.starts_with(format!("{n} ").as_bytes()));
    }
    broker.stop().await;
}

#[tokio::test]
async fn an_address_beyond_loopback_needs_to_be_asked_for() {
    let config = Config {
        listen: "0.0.0.0:0".parse().unwrap(),
        ..Config::default()
    };
    let error = config.validate().unwrap_err().to_string();
    assert!(error.contains("--insecure"), "{error}");
}

#[tokio::test]
async fn nothing_follows_the_disconnect_of_the_broker() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let (mut raw, _) = Raw::connect(broker.address, 5, "raw", true).await;
    // A publish at QoS 1 and, behind it, a packet that only servers send.
    raw.send_bytes(b"\x32\x06\0\x01a\0\x09\0\x20\x02\0\0").await;
    assert_eq!(raw.packet().await, [0x40, 2, 0, 9]);
    let disconnect = raw.packet().await;
    assert_eq!((disconnect[0], disconnect[2]), (0xE0, 0x82));
    assert_eq!(raw.answer().await, None);
    broker.stop().await;
}

#[tokio::test]
async fn a_subscription_identifier_of_0_is_a_protocol_error() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let (mut raw, _) = Raw::connect(broker.address, 5, "raw", true).await;
    raw.send(0x82, b"\0\x05\x02\x0B\0\0\x01a\x01").await;
    let disconnect = raw.packet().await;
    assert_eq!((disconnect[0], disconnect[2]), (0xE0, 0x82));
    broker.stop().await;
}
