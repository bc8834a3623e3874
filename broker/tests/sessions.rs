//! What a session promises across connections, takeovers and restarts.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use harness::{Raw, Running, put_text};
use thinglog_broker::{Config, OnFull};

const LOG: &str = "thinglog/logs/lamp/app";
const REQUEST: &str = "thinglog/request/lamp";
/// Session Expiry Interval: an hour.
const HOUR: [u8; 5] = [17, 0, 0, 14, 16];

/// Connects with MQTT 5.0, a session of an hour and a Receive Maximum.
async fn connect(broker: &Running, id: &str, receive_maximum: u8) -> Raw {
    let properties = [&HOUR[..], &[33, 0, receive_maximum]].concat();
    Raw::connect_v5(broker.address, 0, &properties, id, &[])
        .await
        .0
}

/// Subscribes over MQTT 5.0 with the given options.
async fn subscribe(raw: &mut Raw, filter: &str, options: u8) {
    let mut body = vec![0, 5, 0];
    put_text(&mut body, filter);
    body.push(options);
    raw.send(0x82, &body).await;
    let suback = raw.packet().await;
    assert_eq!((suback[0], suback[5]), (0x90, options & 1));
}

async fn publish(broker: &Running, topic: &str, payload: &str) {
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    writer.publish(topic, payload, false).await;
}

/// Packet id of a QoS 1 PUBLISH over 3.1.1, or over 5.0.
fn pkid(packet: &[u8]) -> u16 {
    assert_eq!(packet[0] & 0xF6, 0x32, "not a QoS 1 PUBLISH: {packet:02x?}");
    let lengths = packet[1..]
        .iter()
        .position(|byte| byte & 0x80 == 0)
        .unwrap();
    let topic = 2 + lengths;
    let length = usize::from(u16::from_be_bytes([packet[topic], packet[topic + 1]]));
    u16::from_be_bytes([packet[topic + 2 + length], packet[topic + 3 + length]])
}

#[tokio::test]
async fn a_cursor_beyond_a_lost_log_skips_nothing_of_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let (mut reader, _) = Raw::connect(broker.address, 4, "reader", false).await;
    reader.subscribe("thinglog/logs/#").await;
    for n in 0..3 {
        publish(&broker, LOG, &format!("old {n}")).await;
        let delivery = reader.delivery().await;
        reader.acknowledge(delivery.pkid).await;
    }
    reader.ping().await;
    broker.stop().await;
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    let broker = Running::start(dir.path()).await;
    publish(&broker, LOG, "new").await;
    let (mut reader, _) = Raw::connect(broker.address, 4, "reader", false).await;
    assert_eq!(reader.delivery().await.payload, "new");
    broker.stop().await;
}

/// The offset that a broker stamps a delivery of version 5 with.
async fn offset(reader: &mut Raw) -> u64 {
    let packet = reader.packet().await;
    let text = String::from_utf8_lossy(&packet).into_owned();
    let (_, stamped) = text.split_once("thinglog-offset").expect("an offset");
    let (_, number) = stamped.split_once('/').expect("a journal and an offset");
    let digits = number.chars().take_while(char::is_ascii_digit);
    digits.collect::<String>().parse().unwrap()
}

#[tokio::test]
async fn offsets_of_records_that_were_lost_are_not_given_again() {
    for lost in ["all", "the newest"] {
        let dir = tempfile::tempdir().unwrap();
        let broker = Running::start(dir.path()).await;
        let mut reader = connect(&broker, "reader", 100).await;
        subscribe(&mut reader, "thinglog/logs/#", 1).await;
        let mut last = 0;
        for n in 0..10 {
            publish(&broker, LOG, &format!("old {n}")).await;
            last = offset(&mut reader).await;
        }
        drop(reader);
        broker.stop().await;
        for file in std::fs::read_dir(dir.path().join("log")).unwrap() {
            let path = file.unwrap().path();
            let is_segment = path.extension().is_some_and(|it| it == "seg");
            if is_segment && lost == "the newest" {
                let file = std::fs::File::options().write(true).open(&path).unwrap();
                file.set_len(path.metadata().unwrap().len() / 2).unwrap();
            } else if is_segment || path.extension().is_some_and(|it| it == "idx") {
                std::fs::remove_file(path).unwrap();
            }
        }
        let broker = Running::start(dir.path()).await;
        let mut reader = connect(&broker, "another", 100).await;
        subscribe(&mut reader, "thinglog/logs/#", 1).await;
        publish(&broker, LOG, "new").await;
        let new = offset(&mut reader).await;
        assert!(new > last, "{lost} lost: {new} after {last}");
        broker.stop().await;
    }
}

#[tokio::test]
async fn what_was_unsubscribed_does_not_fill_the_receive_maximum_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let mut reader = connect(&broker, "reader", 2).await;
    subscribe(&mut reader, "thinglog/logs/#", 1).await;
    for n in 0..2 {
        publish(&broker, LOG, &format!("event {n}")).await;
        pkid(&reader.packet().await);
    }
    let mut body = vec![0, 6, 0];
    put_text(&mut body, "thinglog/logs/#");
    reader.send(0xA2, &body).await;
    assert_eq!(reader.packet().await, [0xB0, 4, 0, 6, 0, 0]);
    drop(reader);
    let mut reader = connect(&broker, "reader", 2).await;
    for _ in 0..2 {
        let again = reader.packet().await;
        assert_eq!(again[0] & 8, 8, "what was sent is completed");
        reader.acknowledge(pkid(&again)).await;
    }
    subscribe(&mut reader, "thinglog/request/#", 1).await;
    publish(&broker, REQUEST, "upload").await;
    pkid(&reader.packet().await);
    broker.stop().await;
}

#[tokio::test]
async fn what_is_sent_again_stays_within_the_new_receive_maximum() {
    for topic in [LOG, REQUEST] {
        let dir = tempfile::tempdir().unwrap();
        let broker = Running::start(dir.path()).await;
        let mut reader = connect(&broker, "reader", 10).await;
        subscribe(&mut reader, topic, 1).await;
        let mut sent = Vec::new();
        for n in 0..3 {
            publish(&broker, topic, &format!("event {n}")).await;
            sent.push(pkid(&reader.packet().await));
        }
        drop(reader);
        let mut reader = connect(&broker, "reader", 1).await;
        for expected in sent {
            let packet = reader.packet().await;
            assert_eq!((pkid(&packet), packet[0] & 8), (expected, 8));
            reader.ping().await;
            reader.acknowledge(expected).await;
        }
        publish(&broker, topic, "event 3").await;
        assert_eq!(reader.packet().await[0] & 8, 0, "not a duplicate");
        broker.stop().await;
    }
}

#[tokio::test]
async fn what_is_sent_again_has_the_retain_flag_of_the_first_time() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let (mut reader, _) = Raw::connect(broker.address, 4, "reader", false).await;
    reader.subscribe("thinglog/config/#").await;
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    writer.publish("thinglog/config/default", "{}", true).await;
    assert!(!reader.delivery().await.retain);
    drop(reader);
    let (mut reader, _) = Raw::connect(broker.address, 4, "reader", false).await;
    let again = reader.delivery().await;
    assert_eq!((again.dup, again.retain), (true, false));
    broker.stop().await;
}

#[tokio::test]
async fn a_record_sent_again_at_qos_0_is_no_duplicate() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let mut reader = connect(&broker, "reader", 10).await;
    subscribe(&mut reader, "thinglog/logs/#", 1).await;
    publish(&broker, LOG, "event").await;
    pkid(&reader.packet().await);
    drop(reader);
    // CONNECT and SUBSCRIBE at QoS 0 in one write, so that both are read before anything is sent.
    let mut connect = b"\0\x04MQTT\x05\0\0\x3C\x05".to_vec();
    connect.extend(HOUR);
    put_text(&mut connect, "reader");
    let mut subscribe = vec![0, 5, 0];
    put_text(&mut subscribe, "thinglog/logs/#");
    subscribe.push(0);
    let mut both = vec![0x10, connect.len() as u8];
    both.extend(connect);
    both.extend([0x82, subscribe.len() as u8]);
    both.extend(subscribe);
    let mut reader = Raw::open(broker.address).await;
    reader.send_bytes(&both).await;
    loop {
        let packet = reader.packet().await;
        if packet[0] >> 4 == 3 {
            assert_eq!(packet[0], 0x30);
            break;
        }
    }
    broker.stop().await;
}

/// Connects over MQTT 5.0 with a will on `thinglog/reported/<id>`.
async fn connect_with_will(broker: &Running, id: &str, will_properties: &[u8]) -> Raw {
    let mut rest = vec![will_properties.len() as u8];
    rest.extend_from_slice(will_properties);
    put_text(&mut rest, &format!("thinglog/reported/{id}"));
    put_text(&mut rest, "gone");
    // Clean start, a will at QoS 1.
    Raw::connect_v5(broker.address, 0x0E, &HOUR, id, &rest)
        .await
        .0
}

/// Will Delay Interval: a minute.
const WILL_DELAY: [u8; 5] = [24, 0, 0, 0, 60];

#[tokio::test]
async fn a_disconnect_for_an_error_does_not_take_the_will_back() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let (mut watcher, _) = Raw::connect(broker.address, 4, "watcher", true).await;
    watcher.subscribe("thinglog/reported/#").await;
    let mut failing = connect_with_will(&broker, "failing", &[]).await;
    failing.send(0xE0, &[0x80]).await;
    assert_eq!(watcher.delivery().await.topic, "thinglog/reported/failing");
    broker.stop().await;
}

#[tokio::test]
async fn a_delayed_will_is_sent_when_its_session_ends_before() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let (mut watcher, _) = Raw::connect(broker.address, 4, "watcher", true).await;
    watcher.subscribe("thinglog/reported/#").await;
    let mut device = connect_with_will(&broker, "device", &WILL_DELAY).await;
    device.send(0xE0, &[4]).await;
    assert!(device.is_closed().await);
    let (_device, _) = Raw::connect(broker.address, 5, "device", true).await;
    assert_eq!(watcher.delivery().await.topic, "thinglog/reported/device");
    broker.stop().await;
}

#[tokio::test]
async fn a_delayed_will_does_not_keep_a_stopped_broker_open() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let mut device = connect_with_will(&broker, "device", &WILL_DELAY).await;
    device.send(0xE0, &[4]).await;
    assert!(device.is_closed().await);
    broker.stop().await;
    let broker = Running::start(dir.path()).await;
    broker.stop().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_but_speaks_is_alive() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path()).await;
    let mut reader = Raw::open(broker.address).await;
    // MQTT 3.1.1, clean session, keep alive 2 s: silence ends the connection after 3.
    reader
        .send(0x10, b"\0\x04MQTT\x04\x02\0\x02\0\x06reader")
        .await;
    reader.packet().await;
    reader.subscribe("thinglog/logs/#").await;
    // More than the sockets' buffers and the broker's hold.
    let payload = "x".repeat(1_000_000);
    for _ in 0..12 {
        publish(&broker, LOG, &payload).await;
    }
    let mut pings = tokio::time::interval(std::time::Duration::from_millis(250));
    for _ in 0..15 {
        pings.tick().await;
        reader.send(0xC0, &[]).await;
    }
    let mut answers = 0;
    while answers < 15 {
        answers += usize::from(reader.packet().await[0] == 0xD0);
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_log_that_refuses_when_full_takes_more_once_all_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: dir.path().to_owned(),
        ..Config::default()
    };
    config.retention.bytes = 1 << 20;
    config.retention.on_full = OnFull::Refuse;
    config.limits.packet_bytes = 200 << 10;
    let broker = Running::start_with(config).await;
    let (mut reader, _) = Raw::connect(broker.address, 4, "reader", false).await;
    reader.subscribe("thinglog/logs/#").await;
    let payload = "x".repeat(100_000);
    let mut body = Vec::new();
    put_text(&mut body, LOG);
    body.extend([0, 9]);
    body.extend_from_slice(payload.as_bytes());
    let mut stored = 0;
    // Refused publishes end their connection and are tried again, as a publisher would.
    while stored < 30 {
        let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
        writer.send(0x32, &body).await;
        if writer.answer().await == Some(vec![0x40, 2, 0, 9]) {
            let delivery = reader.packet().await;
            reader.acknowledge(pkid(&delivery)).await;
            stored += 1;
        }
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_subscription_that_is_about_to_lose_records_is_spoken_of_beforehand() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: dir.path().to_owned(),
        ..Config::default()
    };
    config.limits.packet_bytes = 64 << 10;
    config.retention.bytes = 1 << 20;
    let broker = Running::start_with(config).await;
    let (mut reader, _) = Raw::connect(broker.address, 4, "archive", false).await;
    reader.subscribe("thinglog/logs/#").await;
    drop(reader);
    let (mut watcher, _) = Raw::connect(broker.address, 4, "watcher", true).await;
    watcher.subscribe("thinglog/alerts/#").await;
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    let payload = "x".repeat(30 << 10);
    for _ in 0..29 {
        writer.publish(LOG, &payload, false).await;
    }
    let alert = watcher.delivery().await;
    assert_eq!(alert.topic, "thinglog/alerts/retention");
    let told: serde_json::Value = serde_json::from_str(&alert.payload).unwrap();
    assert_eq!(told["client"], "archive");
    assert_eq!(told["unread_records"], 29);
    assert!(
        told["retention_used_percent"].as_u64().unwrap() >= 80,
        "{told}"
    );
    broker.stop().await;
}
