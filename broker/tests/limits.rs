//! What a client can make the broker hold has limits, and each says so when it bites.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::{net::SocketAddr, time::Duration};

use harness::{Raw, Running, put_text};
use thinglog_broker::{Config, Limits};
use tokio::{net::TcpSocket, time::timeout};

async fn start(dir: &tempfile::TempDir, limits: Limits) -> Running {
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: dir.path().to_owned(),
        limits,
        ..Config::default()
    };
    Running::start_with(config).await
}

/// A connection from another of this machine's own addresses, for which limits hold.
async fn open_from(source: &str, broker: SocketAddr) -> Raw {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    Raw::over(socket.connect(broker).await.unwrap())
}

/// The broker counts after it has acted: looks until it has.
async fn counted(broker: &Running, reason: &str) -> u64 {
    let look = async {
        loop {
            match broker.refused(reason) {
                0 => tokio::time::sleep(Duration::from_millis(5)).await,
                count => return count,
            }
        }
    };
    timeout(Duration::from_secs(10), look)
        .await
        .unwrap_or_else(|_| panic!("{reason:?} was never counted"))
}

/// Subscribes over MQTT 5.0 with an identifier; gives the reason code.
async fn subscribe(raw: &mut Raw, filter: &str, id: u8) -> u8 {
    let mut body = vec![0, 5, 2, 11, id];
    put_text(&mut body, filter);
    body.push(1);
    raw.send(0x82, &body).await;
    *raw.packet().await.last().unwrap()
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        connections_per_address: 2,
        ..Limits::default()
    };
    let broker = start(&dir, limits).await;
    let mut first = open_from("127.0.0.2", broker.address).await;
    first.introduce(4, "a", true).await;
    let mut second = open_from("127.0.0.2", broker.address).await;
    second.introduce(4, "b", true).await;
    assert!(
        open_from("127.0.0.2", broker.address)
            .await
            .is_closed()
            .await
    );
    assert_eq!(
        counted(&broker, "too many connections of one address").await,
        1
    );
    let mut other = open_from("127.0.0.3", broker.address).await;
    other.introduce(4, "c", true).await;
    drop(first);
    // The place is free once the broker has noticed.
    let again = async {
        while open_from("127.0.0.2", broker.address)
            .await
            .is_turned_away()
            .await
        {}
    };
    timeout(Duration::from_secs(10), again).await.unwrap();
    broker.stop().await;
}

#[tokio::test]
async fn one_address_may_try_only_so_often() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        connects_per_second: 1,
        ..Limits::default()
    };
    let broker = start(&dir, limits).await;
    for _ in 0..30 {
        drop(open_from("127.0.0.2", broker.address).await);
    }
    let reason = "too many connection attempts of one address";
    assert!(counted(&broker, reason).await >= 1);
    Raw::connect(broker.address, 4, "exempt", true).await;
    broker.stop().await;
}

#[tokio::test]
async fn who_does_not_say_connect_makes_room_for_who_does() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        unconnected: 3,
        ..Limits::default()
    };
    let broker = start(&dir, limits).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        let mut raw = Raw::open(broker.address).await;
        raw.send_bytes(&[0x10]).await;
        silent.push(raw);
    }
    for n in 0..20 {
        Raw::connect(broker.address, 5, &format!("client-{n}"), true).await;
    }
    assert!(silent[0].is_closed().await);
    assert!(counted(&broker, "too many connections without CONNECT").await >= 1);
    broker.stop().await;
}

#[tokio::test]
async fn a_large_connect_is_refused_by_its_length_alone() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        connect_bytes: 1024,
        ..Limits::default()
    };
    let broker = start(&dir, limits).await;
    let mut raw = Raw::open(broker.address).await;
    raw.send_bytes(&[0x10, 0x81, 0x08]).await;
    assert!(raw.is_closed().await);
    let reason = "packet is larger than the broker takes";
    assert_eq!(counted(&broker, reason).await, 1);
    broker.stop().await;
}

#[tokio::test]
async fn who_reads_nothing_is_cut_off_and_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        stall_seconds: 1,
        ..Limits::default()
    };
    let broker = start(&dir, limits).await;
    let (mut deaf, _) = Raw::connect(broker.address, 4, "deaf", true).await;
    deaf.subscribe("flood").await;
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    let payload = "x".repeat(60_000);
    // More than the sockets of both sides hold.
    for _ in 0..300 {
        writer.publish("flood", &payload, false).await;
    }
    assert_eq!(counted(&broker, "the client reads nothing").await, 1);
    writer.ping().await;
    broker.stop().await;
}

/// Publishes at QoS 1 over MQTT 5.0; gives the reason code of the acknowledgement.
async fn publish(raw: &mut Raw, topic: &str, payload: &str) -> u8 {
    let mut body = Vec::new();
    put_text(&mut body, topic);
    body.extend([0, 9, 0]);
    body.extend_from_slice(payload.as_bytes());
    raw.send(0x32, &body).await;
    match raw.packet().await[..] {
        [0x40, 2, 0, 9] => 0,
        [0x40, _, 0, 9, reason, ..] => reason,
        ref other => panic!("no PUBACK: {other:02x?}"),
    }
}

/// What a session gets when its client comes back, over MQTT 3.1.1.
async fn fetch(broker: SocketAddr, id: &str, last: &str) -> Vec<String> {
    let (mut raw, _) = Raw::connect(broker, 4, id, false).await;
    let mut payloads = Vec::new();
    while payloads.last().is_none_or(|payload| payload != last) {
        let delivery = raw.delivery().await;
        raw.acknowledge(delivery.pkid).await;
        payloads.push(delivery.payload);
    }
    payloads
}

#[tokio::test]
async fn thirty_who_read_nothing_take_nothing_from_one_who_comes_back_later() {
    const MESSAGES: usize = 2_000;
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        queue_bytes: 2 << 20,
        queued_bytes: 16 << 20,
        ..Limits::default()
    };
    let broker = start(&dir, limits).await;
    let mut hogs = Vec::new();
    for n in 0..30 {
        let (mut hog, _) = Raw::connect(broker.address, 4, &format!("hog-{n}"), false).await;
        hog.subscribe("flood").await;
        hogs.push(hog);
    }
    let (mut away, _) = Raw::connect(broker.address, 4, "away", false).await;
    away.subscribe("small/#").await;
    away.send(0xE0, &[]).await;
    assert!(away.is_closed().await);
    let (mut writer, _) = Raw::connect(broker.address, 5, "writer", true).await;
    let flood = "x".repeat(60_000);
    // More than all may hold, the sockets included.
    for _ in 0..300 {
        assert_eq!(publish(&mut writer, "flood", &flood).await, 0);
    }
    for n in 0..MESSAGES {
        assert_eq!(publish(&mut writer, "small/a", &n.to_string()).await, 0);
        if n % 100 == 0 {
            assert_eq!(publish(&mut writer, "flood", &flood).await, 0);
        }
    }
    let last = (MESSAGES - 1).to_string();
    let got = fetch(broker.address, "away", &last).await;
    let expected: Vec<String> = (0..MESSAGES).map(|n| n.to_string()).collect();
    assert_eq!(got, expected);
    let reason = "over its share of the queues of all sessions";
    assert!(broker.counted("thinglog_broker_dropped_messages_total", reason) > 0);
    broker.stop().await;
}

#[tokio::test]
async fn who_came_first_gives_up_what_is_beyond_its_share() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        queue_bytes: 4 << 20,
        queued_bytes: 8 << 20,
        ..Limits::default()
    };
    let broker = start(&dir, limits).await;
    for id in ["hog-1", "hog-2", "away"] {
        let (mut raw, _) = Raw::connect(broker.address, 4, id, false).await;
        raw.subscribe(id).await;
        raw.send(0xE0, &[]).await;
        assert!(raw.is_closed().await);
    }
    let (mut writer, _) = Raw::connect(broker.address, 5, "writer", true).await;
    let payload = "x".repeat(20_000);
    for id in ["hog-1", "hog-2"] {
        for n in 0..180 {
            assert_eq!(publish(&mut writer, id, &format!("{n} {payload}")).await, 0);
        }
    }
    let reason = "over its share of the queues of all sessions";
    assert_eq!(
        broker.counted("thinglog_broker_dropped_messages_total", reason),
        0
    );
    // 2 MB, where 1 MB is left.
    let sent: Vec<String> = (0..100).map(|n| format!("{n} {payload}")).collect();
    for payload in &sent {
        assert_eq!(publish(&mut writer, "away", payload).await, 0);
    }
    assert!(broker.counted("thinglog_broker_dropped_messages_total", reason) > 0);
    let got = fetch(broker.address, "away", sent.last().unwrap()).await;
    assert_eq!(got, sent);
    // What was cut from the others is their newest.
    let (mut hog, _) = Raw::connect(broker.address, 4, "hog-1", false).await;
    for n in 0..50 {
        let delivery = hog.delivery().await;
        assert!(delivery.payload.starts_with(&format!("{n} ")));
        hog.acknowledge(delivery.pkid).await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_publish_that_finds_no_room_is_refused_not_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        queue_bytes: 256 << 10,
        queued_bytes: 1 << 20,
        ..Limits::default()
    };
    let broker = start(&dir, limits).await;
    let (mut writer, _) = Raw::connect(broker.address, 5, "writer", true).await;
    // They read everything and acknowledge nothing: what is under way to them is not taken back.
    let payload = "x".repeat(8_000);
    let mut hogs = Vec::new();
    for n in 0..4 {
        let id = format!("hog-{n}");
        let (mut hog, _) = Raw::connect(broker.address, 4, &id, false).await;
        hog.subscribe(&id).await;
        for _ in 0..28 {
            assert_eq!(publish(&mut writer, &id, &payload).await, 0);
            hog.delivery().await;
        }
        hogs.push(hog);
    }
    let (mut away, _) = Raw::connect(broker.address, 4, "away", false).await;
    away.subscribe("small").await;
    away.send(0xE0, &[]).await;
    assert!(away.is_closed().await);
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    for n in 0..40 {
        let payload = format!("{n} {payload}");
        match publish(&mut writer, "small", &payload).await {
            0 => acknowledged.push(payload),
            reason => {
                assert_eq!(reason, 0x97);
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && !acknowledged.is_empty(), "{refused} refused");
    assert!(counted(&broker, "the queues of all sessions are full").await > 0);
    let last = acknowledged.last().unwrap();
    assert_eq!(fetch(broker.address, "away", last).await, acknowledged);
    broker.stop().await;
}

#[tokio::test]
async fn a_client_over_its_rate_waits_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        publishes_per_second: 100,
        ..Limits::default()
    };
    let broker = start(&dir, limits).await;
    let (mut reader, _) = Raw::connect(broker.address, 4, "reader", true).await;
    reader.subscribe("t").await;
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    let started = std::time::Instant::now();
    let mut packets = Vec::new();
    for n in 0..150u8 {
        packets.extend([0x32, 6, 0, 1, b't', 0, n + 1, n]);
    }
    writer.send_bytes(&packets).await;
    for n in 0..150u8 {
        assert_eq!(writer.packet().await, [0x40, 2, 0, n + 1]);
        let delivery = reader.packet().await;
        assert_eq!(delivery.last(), Some(&n));
    }
    assert!(started.elapsed() >= Duration::from_millis(400), "no wait");
    assert!(broker.counted("thinglog_broker_slowed_total", "publish rate") >= 1);
    broker.stop().await;
}

#[tokio::test]
async fn filters_of_a_session_are_bounded_in_number_length_and_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        subscriptions: 3,
        subscription_bytes: 600,
        topic_bytes: 300,
        ..Limits::default()
    };
    let broker = start(&dir, limits).await;
    let (mut raw, _) = Raw::connect(broker.address, 5, "greedy", true).await;
    assert_eq!(subscribe(&mut raw, &"f".repeat(301), 1).await, 0x8F);
    assert_eq!(subscribe(&mut raw, &"a".repeat(300), 1).await, 1);
    assert_eq!(subscribe(&mut raw, &"b".repeat(300), 1).await, 1);
    assert_eq!(subscribe(&mut raw, "c", 1).await, 0x97);
    // One that goes makes room for another.
    let mut body = vec![0, 6, 0];
    put_text(&mut body, &"a".repeat(300));
    raw.send(0xA2, &body).await;
    raw.packet().await;
    assert_eq!(subscribe(&mut raw, "c", 1).await, 1);
    assert_eq!(subscribe(&mut raw, "d", 1).await, 1);
    assert_eq!(subscribe(&mut raw, "e", 1).await, 0x97);
    assert_eq!(subscribe(&mut raw, "d", 2).await, 1, "no further one");
    for reason in [
        "filter longer than the broker takes",
        "too many bytes of filters of one session",
        "too many subscriptions of one session",
    ] {
        assert_eq!(counted(&broker, reason).await, 1, "{reason}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn topics_and_wills_are_bounded_in_length() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        topic_bytes: 300,
        will_bytes: 100,
        ..Limits::default()
    };
    let broker = start(&dir, limits).await;
    let (mut raw, _) = Raw::connect(broker.address, 5, "wordy", true).await;
    let mut body = Vec::new();
    put_text(&mut body, &"t".repeat(301));
    body.push(0);
    raw.send(0x30, &body).await;
    assert_eq!(raw.packet().await[2], 0x90);
    let mut raw = Raw::open(broker.address).await;
    let mut body = b"\0\x04MQTT\x05\x06\0\0\0".to_vec();
    put_text(&mut body, "testator");
    body.push(0);
    put_text(&mut body, "will");
    put_text(&mut body, &"w".repeat(101));
    raw.send(0x10, &body).await;
    assert_eq!(raw.packet().await[3], 0x97);
    broker.stop().await;
}

#[tokio::test]
async fn topic_aliases_are_bounded_in_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir, Limits::default()).await;
    let (mut raw, _) = Raw::connect(broker.address, 5, "many-names", true).await;
    // The same alias again and again stands for one topic.
    for alias in [1; 20].into_iter().chain(2..20) {
        let mut body = Vec::new();
        put_text(&mut body, &format!("{alias}{}", "t".repeat(1_000)));
        body.extend([3, 35, 0, alias]);
        raw.send(0x30, &body).await;
        if alias == 16 {
            raw.ping().await;
        }
    }
    assert_eq!(raw.packet().await[2], 0x97);
    broker.stop().await;
}

#[tokio::test]
async fn wills_together_are_bounded_and_small_ones_always_fit() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        wills_bytes: 5_000,
        ..Limits::default()
    };
    let broker = start(&dir, limits).await;
    let testament = |bytes: usize| {
        let mut rest = vec![0];
        put_text(&mut rest, "will");
        put_text(&mut rest, &"w".repeat(bytes));
        rest
    };
    let mut first = Raw::connect_v5(broker.address, 6, &[], "a", &testament(6_000))
        .await
        .0;
    let mut raw = Raw::open(broker.address).await;
    let mut body = b"\0\x04MQTT\x05\x06\0\0\0".to_vec();
    put_text(&mut body, "b");
    body.extend(testament(6_000));
    raw.send(0x10, &body).await;
    assert_eq!(raw.packet().await[3], 0x97);
    Raw::connect_v5(broker.address, 6, &[], "c", &testament(500)).await;
    first.send(0xE0, &[]).await;
    assert!(first.is_closed().await);
    Raw::connect_v5(broker.address, 6, &[], "b", &testament(6_000)).await;
    broker.stop().await;
}

#[tokio::test]
async fn a_record_names_every_subscription_that_matches() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(&dir, Limits::default()).await;
    let (mut reader, _) = Raw::connect(broker.address, 5, "reader", true).await;
    let filters = [
        "#",
        "+/#",
        "+/+/#",
        "+/+/+/#",
        "+/+/+/+",
        "thinglog/#",
        "thinglog/logs/#",
        "thinglog/logs/lamp/#",
        "thinglog/logs/lamp/app",
        "thinglog/+/lamp/app",
        "thinglog/logs/+/app",
        "thinglog/logs/lamp/+",
    ];
    for (filter, id) in filters.iter().zip(1..) {
        assert_eq!(subscribe(&mut reader, filter, id).await, 1);
    }
    let (mut writer, _) = Raw::connect(broker.address, 4, "writer", true).await;
    writer
        .publish("thinglog/logs/lamp/app", "hello", false)
        .await;
    let packet = reader.packet().await;
    let topic = b"thinglog/logs/lamp/app".len();
    let lengths = |at: usize| {
        let bytes = &packet[at..];
        bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1
    };
    let properties = 1 + lengths(1) + 2 + topic + 2;
    let properties = &packet[properties + lengths(properties)..];
    let mut ids: Vec<u8> = properties
        .chunks(2)
        .take_while(|pair| pair[0] == 11)
        .map(|pair| pair[1])
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=filters.len() as u8).collect::<Vec<_>>());
    broker.stop().await;
}
