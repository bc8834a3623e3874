//! Events through a real broker: what reaches the file, the live topics and the quarantine, and what
//! the fleet's configuration does to it.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};

use common::{Client, Mosquitto, Running, batch, config, events, messages, until};

#[tokio::test]
async fn text_json_and_batches_reach_the_file_and_the_live_topics() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let mut watcher = Client::connect(broker.port, "watcher");
    watcher.subscribe("thinglog/live/#").await;
    let router = Running::start(config(broker.port, data.path())).await;
    let mut device = Client::connect(broker.port, "device");
    device.publish("thinglog/logs/lamp-7/app", "hello").await;
    device
        .publish(
            "thinglog/logs/lamp-7/app",
            r#"{"level":"error","msg":"burnt","room":"attic"}"#,
        )
        .await;
    device
        .publish("thinglog/logs/lamp-7/app", batch(7, 0..3))
        .await;
    until("five events in the file", || events(data.path()).len() == 5).await;
    let expected = ["hello", "burnt", "event 0", "event 1", "event 2"];
    assert_eq!(messages(data.path()), expected);
    assert_eq!(events(data.path())[1].attributes["room"], "attic");
    let (topic, event) = watcher.next(|_| true).await;
    assert_eq!(topic, "thinglog/live/lamp-7/info/app");
    assert_eq!(event["message"], "hello");
    let (topic, _) = watcher.next(|_| true).await;
    assert_eq!(topic, "thinglog/live/lamp-7/error/app");
    router.stop().await;
}

#[tokio::test]
async fn what_is_no_event_goes_into_quarantine_and_blocks_nothing() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let router = Running::start(config(broker.port, data.path())).await;
    let mut device = Client::connect(broker.port, "device");
    device
        .publish("thinglog/logs/lamp-7/app", b"\xFF\xFE\x00".to_vec())
        .await;
    device
        .publish(
            "thinglog/logs/lamp-7/app",
            b"\xFFtlg\x01\x00broken".to_vec(),
        )
        .await;
    device.publish("thinglog/logs/lamp-7", "no source").await;
    device.publish("thinglog/logs/lamp 7/app", "a space").await;
    device
        .publish("thinglog/logs/lamp-7/app", "after all")
        .await;
    until("the good event", || messages(data.path()) == ["after all"]).await;
    let path = data
        .path()
        .join("router/quarantine/quarantine-00000000.jsonl");
    let lines = || std::fs::read_to_string(&path).unwrap_or_default();
    until("four lines in quarantine", || lines().lines().count() == 4).await;
    for line in lines().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(
            line["reason"]
                .as_str()
                .is_some_and(|reason| !reason.is_empty()),
            "{line}"
        );
        assert!(
            line["topic"]
                .as_str()
                .unwrap()
                .starts_with("thinglog/logs/"),
            "{line}"
        );
    }
    assert_eq!(
        router.metric("thinglog_router_quarantined_total", &["payload"]),
        2.0
    );
    router.stop().await;
}

#[tokio::test]
async fn a_retained_level_filters_and_is_pushed_to_the_device() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let mut operator = Client::connect(broker.port, "operator");
    operator
        .retain("thinglog/config/device/lamp-7", r#"{"level":"ERROR"}"#)
        .await;
    operator.subscribe("thinglog/desired/lamp-7").await;
    let router = Running::start(config(broker.port, data.path())).await;
    let (_, desired) = operator.next(|_| true).await;
    assert_eq!(desired["level"], "ERROR");
    // In force from the first event on, although both arrived together.
    operator.publish("thinglog/logs/lamp-7/app", "quiet").await;
    operator.publish("thinglog/logs/lamp-8/app", "other").await;
    until("the other device", || messages(data.path()) == ["other"]).await;
    operator
        .retain("thinglog/config/device/lamp-7", r#"{"level":"DEBUG"}"#)
        .await;
    let (_, desired) = operator.next(|_| true).await;
    assert_eq!(desired["level"], "DEBUG");
    operator
        .publish(
            "thinglog/logs/lamp-7/app",
            r#"{"level":"debug","msg":"loud"}"#,
        )
        .await;
    until("the debug event", || {
        messages(data.path()) == ["other", "loud"]
    })
    .await;
    let outcome = |what| router.metric("thinglog_router_events_total", &["file", what]);
    let books = || {
        (
            outcome("received"),
            outcome("delivered"),
            outcome("filtered"),
        )
    };
    until("the commit is counted", || books() == (3.0, 2.0, 1.0)).await;
    router.stop().await;
}

#[tokio::test]
async fn a_document_without_retain_changes_nothing_and_is_explained() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let _router = Running::start(config(broker.port, data.path())).await;
    let mut operator = Client::connect(broker.port, "operator");
    operator.subscribe("thinglog/alerts/config").await;
    operator
        .publish("thinglog/config/default", r#"{"level":"ERROR"}"#)
        .await;
    let (_, alert) = operator.next(|_| true).await;
    assert_eq!(alert["topic"], "thinglog/config/default");
    assert!(
        alert["reason"].as_str().unwrap().contains("RETAIN"),
        "{alert}"
    );
    operator
        .publish("thinglog/logs/lamp-7/app", "still told")
        .await;
    until("the event", || messages(data.path()) == ["still told"]).await;
}

#[tokio::test]
async fn a_device_that_publishes_gets_a_desired_document() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let router = Running::start(config(broker.port, data.path())).await;
    let mut device = Client::connect(broker.port, "device");
    device.subscribe("thinglog/desired/+").await;
    device.publish("thinglog/logs/lamp-9/app", "hello").await;
    let (topic, desired) = device.next(|_| true).await;
    assert_eq!(
        (topic.as_str(), &desired["level"]),
        ("thinglog/desired/lamp-9", &"INFO".into())
    );
    router.stop().await;
}

#[tokio::test]
async fn a_bad_document_changes_nothing_and_is_explained() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let mut operator = Client::connect(broker.port, "operator");
    operator.subscribe("thinglog/alerts/config").await;
    operator
        .retain("thinglog/config/device/lamp-7", r#"{"level":"ERROR"}"#)
        .await;
    let router = Running::start(config(broker.port, data.path())).await;
    operator
        .retain("thinglog/config/device/lamp-7", r#"{"levle":"DEBUG"}"#)
        .await;
    let (_, alert) = operator.next(|_| true).await;
    assert_eq!(alert["topic"], "config/device/lamp-7");
    assert!(
        alert["reason"].as_str().unwrap().contains("levle"),
        "{alert}"
    );
    operator
        .publish("thinglog/logs/lamp-7/app", "still quiet")
        .await;
    operator.publish("thinglog/logs/lamp-8/app", "other").await;
    until("the other device", || messages(data.path()) == ["other"]).await;
    router.stop().await;
}

#[tokio::test]
async fn a_hole_nobody_declared_becomes_an_event() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let router = Running::start(config(broker.port, data.path())).await;
    let mut device = Client::connect(broker.port, "device");
    device
        .publish("thinglog/logs/lamp-7/app", batch(0xab, 0..3))
        .await;
    device
        .publish("thinglog/logs/lamp-7/app", batch(0xab, 10..12))
        .await;
    let found = || {
        events(data.path())
            .into_iter()
            .find(|event| &*event.source == "thinglog")
    };
    until("the gap event", || found().is_some()).await;
    let gap = found().unwrap();
    assert_eq!(gap.id.text("").unwrap(), "gap/00000000000000ab/3-9");
    assert_eq!(
        (&*gap.device, gap.severity),
        ("lamp-7", thinglog_schemas::Severity::WARN)
    );
    assert_eq!(gap.attributes["lost_count"], 7);
    assert_eq!(gap.attributes["lost_source"], "app");
    router.stop().await;
}

#[tokio::test]
async fn live_topics_can_be_turned_off() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let mut config = config(broker.port, data.path());
    config.live.enabled = false;
    let router = Running::start(config).await;
    let mut watcher = Client::connect(broker.port, "watcher");
    watcher.subscribe("thinglog/live/#").await;
    watcher.subscribe("thinglog/marker").await;
    watcher.publish("thinglog/logs/lamp-7/app", "unseen").await;
    until("the event in the file", || messages(data.path()).len() == 1).await;
    watcher.publish("thinglog/marker", "1").await;
    assert_eq!(watcher.next(|_| true).await.0, "thinglog/marker");
    router.stop().await;
}

#[tokio::test]
async fn http_tells_health_readiness_and_metrics() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let router = Running::start(config(broker.port, data.path())).await;
    let address = router.http;
    let get = |path: &'static str, host: &'static str| {
        tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            )
            .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        })
    };
    assert!(
        get("/healthz", "localhost")
            .await
            .unwrap()
            .starts_with("HTTP/1.1 200")
    );
    let ready = get("/readyz", "127.0.0.1").await.unwrap();
    assert!(
        ready.starts_with("HTTP/1.1 200") && ready.contains(r#""levels":"ready""#),
        "{ready}"
    );
    let metrics = get("/metrics", "localhost").await.unwrap();
    assert!(
        metrics.contains("thinglog_router_events_total"),
        "{metrics}"
    );
    assert!(
        get("/metrics", "evil.example")
            .await
            .unwrap()
            .starts_with("HTTP/1.1 421")
    );
    router.stop().await;
}
