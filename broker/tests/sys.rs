//! What the broker says of itself: `$SYS/broker`, which devices are connected, and metrics.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;
#[path = "harness/login.rs"]
#[allow(dead_code)]
mod login;

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use harness::Running;
use login::{Client, Login};
use thinglog_broker::{
    Config,
    access::{Auth, Grant, password, token},
};
use tokio::time::timeout;

const CONNECTED: &str = "thinglog/connected/lamp";

fn config(dir: &Path) -> Config {
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: dir.join("data"),
        sys_seconds: 1,
        ..Config::default()
    }
}

/// A broker that knows the device `lamp`, whose token is given, and the admin `root`.
async fn start_with_logins(dir: &Path) -> (Running, String) {
    let (tokens, lamp) = token::add("", "lamp", false).unwrap();
    fs::write(dir.join("tokens"), tokens).unwrap();
    let admin: Grant = "role=admin".parse().unwrap();
    let secret = password::Secret::Hash(password::hash(b"secret").unwrap());
    let users = password::set("", "root", secret, Some(&admin)).unwrap();
    fs::write(dir.join("passwords"), users).unwrap();
    let auth = Auth {
        tokens: Some(dir.join("tokens")),
        passwords: Some(dir.join("passwords")),
        ..Auth::default()
    };
    let config = Config {
        auth,
        ..config(dir)
    };
    (Running::start_with(config).await, lamp)
}

/// Takes deliveries until `is_enough` of the last value of every topic.
async fn watch(
    client: &mut Client,
    seen: &mut BTreeMap<String, String>,
    is_enough: impl Fn(&BTreeMap<String, String>) -> bool,
) {
    let watching = async {
        while !is_enough(seen) {
            let received = client.next().await;
            seen.insert(received.topic, received.payload);
        }
    };
    let watched = timeout(Duration::from_secs(10), watching).await;
    assert!(watched.is_ok(), "in vain: {seen:#?}");
}

#[tokio::test]
async fn sys_topics_are_there_at_once_and_follow_what_happens() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start_with(config(dir.path())).await;
    let login = Login::nobody(5, "watcher");
    let mut watcher = login.connect(broker.address).await.unwrap();
    assert_eq!(watcher.subscribe("$SYS/broker/#").await, 1);
    let mut seen = BTreeMap::new();
    let value = |seen: &BTreeMap<String, String>, topic: &str| -> Option<f64> {
        seen.get(&format!("$SYS/broker/{topic}"))?.parse().ok()
    };
    watch(&mut watcher, &mut seen, |seen| {
        seen.contains_key("$SYS/broker/uptime")
            && value(seen, "load/bytes/received/15min").is_some()
            && value(seen, "clients/connected") == Some(1.0)
            && value(seen, "subscriptions/count") == Some(1.0)
    })
    .await;
    assert!(seen["$SYS/broker/version"].starts_with("thinglog version "));
    let absent = Login {
        clean: false,
        ..Login::nobody(5, "absent")
    };
    let mut absent = absent.connect(broker.address).await.unwrap();
    for n in 0..10 {
        absent.publish(&format!("kept/{n}"), 1, true).await;
    }
    drop(absent);
    watch(&mut watcher, &mut seen, |seen| {
        value(seen, "clients/disconnected") == Some(1.0)
            && value(seen, "clients/total") == Some(2.0)
            && value(seen, "clients/maximum") == Some(2.0)
            && value(seen, "publish/messages/received") == Some(10.0)
            && value(seen, "publish/bytes/received") == Some(60.0)
            && value(seen, "retained messages/count") >= Some(10.0)
            && value(seen, "publish/messages/sent") > Some(30.0)
            && value(seen, "load/messages/received/1min") > Some(0.0)
    })
    .await;
    let login = Login::nobody(5, "liar");
    let mut liar = login.connect(broker.address).await.unwrap();
    assert!(liar.publish("$SYS/broker/uptime", 1, true).await >= 0x80);
    broker.stop().await;
}

#[tokio::test]
async fn a_device_is_said_to_be_connected_while_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, token) = start_with_logins(dir.path()).await;
    let root = Login::new(5, "root", "secret");
    let mut watcher = root.connect(broker.address).await.unwrap();
    let device = |id| Login {
        id,
        ..Login::new(5, "lamp", &token)
    };
    let first = device("lamp").connect(broker.address).await.unwrap();
    // Retained: there for whoever comes later.
    watcher.subscribe("thinglog/connected/+").await;
    let said = watcher.next().await;
    assert_eq!(said.topic, CONNECTED);
    let document: serde_json::Value = serde_json::from_str(&said.payload).unwrap();
    assert_eq!(document["principal"], "lamp");
    assert_eq!(document["client_id"], "lamp");
    assert_eq!(document["address"], "127.0.0.1");
    assert!(document["since"].as_u64() > Some(1_600_000_000_000_000_000));
    // Another connection of the same device, and the end of both.
    let second = device("lamp/2").connect(broker.address).await.unwrap();
    let said = watcher.next().await.payload;
    assert!(said.contains(r#""client_id":"lamp/2""#), "{said}");
    drop(second);
    let said = watcher.next().await.payload;
    assert!(said.contains(r#""client_id":"lamp""#), "{said}");
    drop(first);
    let cleared = watcher.next().await;
    assert_eq!(
        (cleared.topic.as_str(), cleared.payload.as_str()),
        (CONNECTED, "")
    );
    broker.stop().await;
}

#[tokio::test]
async fn what_the_broker_says_of_itself_does_not_outlive_it() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, token) = start_with_logins(dir.path()).await;
    let lamp = Login::new(5, "lamp", &token).connect(broker.address).await;
    // What is on disk comes back, so that what is not is seen to be missing.
    let root = Login::new(5, "root", "secret");
    let mut admin = root.connect(broker.address).await.unwrap();
    assert!(admin.publish("thinglog/config/default", 1, true).await < 0x80);
    admin.subscribe(CONNECTED).await;
    assert_eq!(admin.next().await.topic, CONNECTED);
    let data = dir.path().join("data");
    let copy = dir.path().join("after-a-crash");
    copy_all(&data, &copy);
    drop(lamp);
    broker.stop().await;
    let config = Config {
        data: copy,
        ..config(dir.path())
    };
    let broker = Running::start_with(config).await;
    let login = Login::nobody(5, "watcher");
    let mut watcher = login.connect(broker.address).await.unwrap();
    watcher.subscribe("thinglog/#").await;
    let first = watcher.next().await;
    assert_eq!(first.topic, "thinglog/config/default");
    broker.stop().await;
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_all(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[tokio::test]
async fn metrics_say_who_lags_and_what_was_carried() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start_with(config(dir.path())).await;
    let reader = Login {
        clean: false,
        ..Login::nobody(5, "reader")
    };
    let mut reader = reader.connect(broker.address).await.unwrap();
    reader.subscribe("thinglog/logs/#").await;
    drop(reader);
    let login = Login::nobody(4, "lamp");
    let mut lamp = login.connect(broker.address).await.unwrap();
    for _ in 0..7 {
        lamp.publish("thinglog/logs/lamp/app", 1, false).await;
    }
    lamp.publish("thinglog/test", 0, false).await;
    lamp.raw.ping().await;
    let received = |qos| broker.counted("thinglog_broker_received_messages_total", qos);
    assert_eq!((received("0"), received("1"), received("2")), (1, 7, 0));
    let look = async {
        while broker.measured("thinglog_broker_lag_records", "reader") != Some(7.0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), look)
        .await
        .expect("the lag");
    assert_eq!(
        broker.measured("thinglog_broker_connections", "mqtt"),
        Some(1.0)
    );
    broker.stop().await;
}
