//! Exactly once, whatever happens: the file holds every event once by id and in order per device,
//! over restarts and SIGKILLs of the router and repeated publishes.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{Client, Mosquitto, Running, batch, config, events, messages, until};
use thinglog_router::{Config, Router};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_repeated_batch_is_kept_once_also_over_a_restart() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let mut device = Client::connect(broker.port, "device");
    let topic = "thinglog/logs/lamp-7/app";
    let router = Running::start(config(broker.port, data.path())).await;
    device.publish(topic, batch(7, 0..10)).await;
    device.publish(topic, batch(7, 0..10)).await;
    device.publish(topic, batch(7, 5..15)).await;
    until("15 events", || events(data.path()).len() == 15).await;
    router.stop().await;
    let router = Running::start(config(broker.port, data.path())).await;
    device.publish(topic, batch(7, 0..20)).await;
    device.publish("thinglog/logs/lamp-8/app", "last").await;
    until("the last event", || {
        messages(data.path()).last().is_some_and(|it| it == "last")
    })
    .await;
    let expected: Vec<String> = (0..20).map(|n| format!("event {n}")).collect();
    assert_eq!(messages(data.path())[..20], expected);
    assert_eq!(events(data.path()).len(), 21);
    let duplicates = || router.metric("thinglog_router_events_total", &["file", "duplicate"]);
    until("15 duplicates are counted", || duplicates() == 15.0).await;
    until("the books balance", || balance(&router, "file") == 0.0).await;
    router.stop().await;
}

/// What came in less what became of it.
fn balance(router: &Running, destination: &str) -> f64 {
    let outcome = |what| router.metric("thinglog_router_events_total", &[destination, what]);
    let settled = ["delivered", "filtered", "duplicate", "rejected", "returned"];
    let in_flight = router.metric("thinglog_router_events_in_flight", &[destination]);
    let settled: f64 = settled.into_iter().map(outcome).sum();
    outcome("received") + outcome("generated") - settled - in_flight
}

#[tokio::test]
async fn plain_events_are_told_apart_by_the_brokers_offset() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let mut device = Client::connect(broker.port, "device");
    let topic = "thinglog/logs/lamp-7/app";
    let router = Running::start(config(broker.port, data.path())).await;
    device.publish_stamped(topic, b"a\nb", 1).await;
    device.publish_stamped(topic, b"a\nb", 1).await;
    device.publish_stamped(topic, b"c", 5).await;
    until("three events", || events(data.path()).len() == 3).await;
    router.stop().await;
    let router = Running::start(config(broker.port, data.path())).await;
    device.publish_stamped(topic, b"c", 5).await;
    device.publish_stamped(topic, b"d", 6).await;
    until("d", || {
        messages(data.path()).last().is_some_and(|it| it == "d")
    })
    .await;
    assert_eq!(messages(data.path()), ["a", "b", "c", "d"]);
    assert_eq!(
        events(data.path())[1].id.text("lamp-7").unwrap(),
        "lamp-7/@00000000000000aa/1/1"
    );
    router.stop().await;
}

#[tokio::test]
async fn what_arrives_while_the_router_is_away_comes_later() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    Running::start(config(broker.port, data.path()))
        .await
        .stop()
        .await;
    let mut device = Client::connect(broker.port, "device");
    for n in 0..100 {
        device
            .publish("thinglog/logs/lamp-7/app", format!("message {n}"))
            .await;
    }
    let router = Running::start(config(broker.port, data.path())).await;
    until("100 events", || events(data.path()).len() == 100).await;
    let expected: Vec<String> = (0..100).map(|n| format!("message {n}")).collect();
    assert_eq!(messages(data.path()), expected);
    router.stop().await;
}

#[tokio::test]
async fn a_lost_broker_is_found_again() {
    let Some(mut broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let router = Running::start(config(broker.port, data.path())).await;
    let mut device = Client::connect(broker.port, "device");
    device.publish("thinglog/logs/lamp-7/app", "before").await;
    until("the first event", || messages(data.path()) == ["before"]).await;
    drop(device);
    broker.restart();
    // The new broker knows no session: what is published before the router is back is lost to it.
    let lost = || router.metric("thinglog_router_disconnects_total", &["file"]);
    until("the loss is noticed", || lost() > 0.0).await;
    let mut device = Client::connect(broker.port, "device");
    let path = data.path().to_owned();
    let deadline = std::time::Instant::now() + common::PATIENCE;
    while !messages(&path).contains(&"after".to_owned()) {
        assert!(
            std::time::Instant::now() < deadline,
            "the router does not come back"
        );
        device.publish("thinglog/logs/lamp-7/app", "after").await;
    }
    router.stop().await;
}

#[tokio::test]
async fn small_files_are_rotated_and_hold_everything() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let mut config = config(broker.port, data.path());
    let file = serde_json::json!({"type": "file", "rotate_bytes": 1 << 20});
    config
        .destinations
        .insert("file".into(), serde_json::from_value(file).unwrap());
    let mut device = Client::connect(broker.port, "device");
    let total = 20_000;
    for round in 0..2 {
        let router = Running::start(config.clone()).await;
        for first in (round * total / 2..(round + 1) * total / 2).step_by(500) {
            device
                .publish("thinglog/logs/lamp-7/app", batch(7, first..first + 500))
                .await;
        }
        let expected = ((round + 1) * total / 2) as usize;
        until("all events", || events(data.path()).len() >= expected).await;
        router.stop().await;
    }
    let expected: Vec<String> = (0..total).map(|n| format!("event {n}")).collect();
    assert_eq!(messages(data.path()), expected);
    assert!(
        data.path()
            .join("router/file/events-00000001.ndjson")
            .exists()
    );
}

/// Not a test of its own: the process that the next test kills.
#[test]
fn router_process() {
    let Some(config) = std::env::var_os("THINGLOG_TEST_ROUTER") else {
        return;
    };
    let config: Config = serde_json::from_str(config.to_str().unwrap()).unwrap();
    let router = Router::build(config, &prometheus::Registry::new()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(router.run(CancellationToken::new()))
        .unwrap();
}

fn spawn_router(port: u16, data: &Path) -> Child {
    let config = serde_json::to_string(&config(port, data)).unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "router_process", "--nocapture"])
        .env("THINGLOG_TEST_ROUTER", config)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Publishes batches of one device until told to stop, every seventh twice; gives the events sent.
async fn publish_until(stop: CancellationToken, port: u16, device: String) -> u64 {
    let mut client = Client::connect(port, &device);
    let topic = format!("thinglog/logs/{device}/app");
    let mut sent = 0;
    while !stop.is_cancelled() {
        let payload = batch(7, sent..sent + 20);
        client.publish(&topic, payload.clone()).await;
        if sent % 140 == 0 {
            client.publish(&topic, payload).await;
        }
        sent += 20;
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_router_neither_loses_nor_repeats() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let (port, path) = (broker.port, data.path());
    // The session must exist before anything is published: mosquitto keeps no past.
    Running::start(config(port, path)).await.stop().await;
    let stop = CancellationToken::new();
    let devices = ["lamp-0", "lamp-1", "lamp-2"];
    let publish = |device: &&str| publish_until(stop.clone(), port, (*device).to_owned());
    let publishing: Vec<_> = devices.iter().map(publish).map(tokio::spawn).collect();
    let mut seed = 12345u64;
    for _ in 0..8 {
        let mut router = spawn_router(port, path);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        tokio::time::sleep(std::time::Duration::from_millis(20 + (seed >> 33) % 200)).await;
        router.kill().unwrap();
        router.wait().unwrap();
    }
    stop.cancel();
    let mut sent = Vec::new();
    for publishing in publishing {
        sent.push(publishing.await.unwrap());
    }
    let total = sent.iter().sum::<u64>() as usize;
    let router = Running::start(config(port, path)).await;
    until("all events", || events(path).len() >= total).await;
    router.stop().await;
    for (device, sent) in devices.iter().zip(sent) {
        let of_device = events(path)
            .into_iter()
            .filter(|event| event.device == (*device).into());
        let messages: Vec<String> = of_device.map(|event| event.message).collect();
        let expected: Vec<String> = (0..sent).map(|seq| format!("event {seq}")).collect();
        assert!(
            messages == expected,
            "{device}: {} of {sent} events",
            messages.len()
        );
    }
}

#[tokio::test]
async fn two_routers_cannot_share_a_folder() {
    let data = tempfile::tempdir().unwrap();
    let build = || Router::build(config(1883, data.path()), &prometheus::Registry::new());
    let first = build().unwrap();
    let error = build().err().unwrap().to_string();
    assert!(error.contains("in use by another router"), "{error}");
    drop(first);
    assert!(build().is_ok());
}
