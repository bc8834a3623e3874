//! Routes, changes of the configuration while events flow, and looks at what is delivered: with a real
//! broker, over the router's public interfaces.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use common::http::ask;
use common::{Client, Mosquitto, Running, batch, config, events_of, until};
use serde_json::{Value, json};
use thinglog_router::{Config, Reloaded};
use tokio_util::sync::CancellationToken;

/// The usual configuration with these destinations and routes.
fn with(port: u16, data: &Path, destinations: Value, routes: Value) -> Config {
    let mut config = config(port, data);
    config.destinations = serde_json::from_value(destinations).unwrap();
    config.routes = serde_json::from_value(routes).unwrap();
    config
}

fn messages_of(data: &Path, destination: &str) -> Vec<String> {
    let events = events_of(data, destination);
    events.into_iter().map(|event| event.message).collect()
}

async fn reload(router: &Running, config: Config) -> Result<Reloaded, String> {
    let reloader = router.reloader.clone();
    let reload = move || reloader.reload(config).map_err(|error| error.to_string());
    tokio::task::spawn_blocking(reload).await.unwrap()
}

fn outcome(router: &Running, destination: &str, what: &str) -> f64 {
    router.metric("thinglog_router_events_total", &[destination, what])
}

#[tokio::test]
async fn events_go_where_routes_lead_them_and_what_goes_nowhere_is_counted() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let config = with(
        broker.port,
        data.path(),
        json!({"file": {"type": "file"}, "pager": {"type": "file"},
               "quiet": {"type": "file", "when": "level < ERROR"}}),
        json!({"bad": {"when": "level = ERROR and group = world", "to": ["pager"],
                       "set": {"message": "{{device}}: {{message}}", "groups": "{{groups}}",
                               "model": "{{device.model}}"},
                       "redact": [{"pattern": "token=\\S+"}]}}),
    );
    let router = Running::start(config).await;
    let mut client = Client::connect(broker.port, "client");
    for (topic, document) in [
        ("group/world", "{}"),
        ("group/eu", r#"{"parent": "world"}"#),
        ("member/eu/lamp-7", "{}"),
        ("device/lamp-7", r#"{"attributes": {"model": "x1"}}"#),
    ] {
        client
            .retain(&format!("thinglog/config/{topic}"), document)
            .await;
    }
    let fleet = router.fleet.clone();
    until("the fleet is known", || {
        fleet
            .read(|view| view.fleet().facts("lamp-7"))
            .is_ok_and(|facts| facts.groups.len() == 2 && !facts.attributes.is_empty())
    })
    .await;
    for (device, text) in [
        (
            "lamp-7",
            r#"{"level": "error", "message": "refused token=s3cret"}"#,
        ),
        ("lamp-7", r#"{"level": "info", "message": "all is well"}"#),
        (
            "lamp-8",
            r#"{"level": "error", "message": "not of the group"}"#,
        ),
    ] {
        client
            .publish(&format!("thinglog/logs/{device}/app"), text)
            .await;
    }
    until("everything is settled", || {
        ["file", "pager", "quiet"].iter().all(|name| {
            outcome(&router, name, "delivered") + outcome(&router, name, "filtered") >= 3.0
        })
    })
    .await;
    assert_eq!(
        messages_of(data.path(), "file").len(),
        3,
        "no route names it"
    );
    assert_eq!(messages_of(data.path(), "quiet"), ["all is well"]);
    let paged = events_of(data.path(), "pager");
    assert_eq!(paged.len(), 1);
    assert_eq!(paged[0].message, "lamp-7: refused [redacted]");
    assert_eq!(paged[0].attributes["groups"], json!(["eu", "world"]));
    assert_eq!(paged[0].attributes["model"], json!("x1"));
    for (name, filtered) in [("file", 0.0), ("pager", 2.0), ("quiet", 2.0)] {
        assert_eq!(outcome(&router, name, "filtered"), filtered, "{name}");
        assert_eq!(outcome(&router, name, "received"), 3.0, "{name}");
    }
    router.stop().await;
}

#[tokio::test]
async fn a_change_takes_effect_while_the_router_runs_and_a_bad_one_changes_nothing() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let make = |destinations, routes| with(broker.port, data.path(), destinations, routes);
    let two = || json!({"file": {"type": "file"}, "other": {"type": "file"}});
    let router = Running::start(make(two(), json!({}))).await;
    let mut client = Client::connect(broker.port, "client");
    let topic = "thinglog/logs/lamp-7/app";
    client.publish(topic, "one").await;
    let has = |name: &'static str, texts: &'static [&'static str]| {
        let path = data.path().to_owned();
        async move { until(name, || messages_of(&path, name) == texts).await }
    };
    has("file", &["one"]).await;
    has("other", &["one"]).await;

    let same = reload(&router, make(two(), json!({}))).await.unwrap();
    assert_eq!(same, Reloaded::default());
    for (bad, word) in [
        (make(two(), json!({"r": {"to": ["nowhere"]}})), "nowhere"),
        (
            make(
                json!({"file": {"type": "file", "rotate_bytes": 1}}),
                json!({}),
            ),
            "rotate_bytes",
        ),
        (
            make(
                json!({"file": {"type": "file"}, "hook": {"type": "webhook", "url": "http://h/",
                       "secret": {"file": "/nowhere/secret"}}}),
                json!({}),
            ),
            "/nowhere/secret",
        ),
    ] {
        let error = reload(&router, bad).await.unwrap_err();
        assert!(error.contains(word), "{error}");
    }
    client.publish(topic, "two").await;
    has("file", &["one", "two"]).await;
    has("other", &["one", "two"]).await;
    assert!(router.health.is_ready(), "{:?}", router.health.parts());

    let routes = json!({"r": {"when": "message != three", "to": ["file"]}});
    let destinations = json!({"file": {"type": "file"}, "third": {"type": "file", "from": "tail"}});
    let done = reload(&router, make(destinations, routes)).await.unwrap();
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|name| name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(done.added, names(&["third"]));
    assert_eq!(done.changed, names(&["file"]));
    assert_eq!(done.removed, names(&["other"]));
    until("the new ones are ready", || router.health.is_ready()).await;
    client.publish(topic, "three").await;
    client.publish(topic, "four").await;
    has("third", &["three", "four"]).await;
    has("file", &["one", "two", "four"]).await;
    has("other", &["one", "two"]).await;

    // Named again it goes on where it was.
    let done = reload(&router, make(two(), json!({}))).await.unwrap();
    assert_eq!(done.added, names(&["other"]));
    has("other", &["one", "two", "three", "four"]).await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_under_load_neither_lose_nor_repeat() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let (port, path) = (broker.port, data.path());
    let version = |n: u64| {
        with(
            port,
            path,
            json!({"file": {"type": "file", "rotate_bytes": (1 << 20) + n}}),
            json!({"all": {"to": ["file"], "when": format!("message != {n}")}}),
        )
    };
    let router = Running::start(version(0)).await;
    let stop = CancellationToken::new();
    let publishing = tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut client = Client::connect(port, "client");
            let mut sent = 0;
            while !stop.is_cancelled() {
                let payload = batch(7, sent..sent + 20);
                client.publish("thinglog/logs/lamp-7/app", payload).await;
                sent += 20;
            }
            sent
        }
    });
    for n in 1..=8 {
        let before = outcome(&router, "file", "delivered");
        let done = reload(&router, version(n)).await.unwrap();
        assert_eq!(done.changed, ["file"]);
        until("events flow again", || {
            outcome(&router, "file", "delivered") > before
        })
        .await;
    }
    stop.cancel();
    let sent: u64 = publishing.await.unwrap();
    until("all events", || {
        events_of(path, "file").len() >= sent as usize
    })
    .await;
    let expected: Vec<String> = (0..sent).map(|seq| format!("event {seq}")).collect();
    let got = messages_of(path, "file");
    assert!(got == expected, "{} of {sent} events", got.len());
    let all = ["delivered", "filtered", "duplicate", "rejected", "returned"];
    let settled: f64 = all.iter().map(|what| outcome(&router, "file", what)).sum();
    let in_flight = router.metric("thinglog_router_events_in_flight", &["file"]);
    assert_eq!(outcome(&router, "file", "received"), settled + in_flight);
    router.stop().await;
}

/// The lines of a look at a destination.
fn tap(to: SocketAddr, destination: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    let path = format!("/api/v1/destinations/{destination}/tap");
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 2 {
        line.clear();
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tap_shows_what_a_destination_is_sent() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let config = with(
        broker.port,
        data.path(),
        json!({"file": {"type": "file"}}),
        json!({"r": {"to": ["file"], "when": "message != one", "set": {"message": "<{{message}}>"}}}),
    );
    let router = Running::start(config).await;
    let http = router.http;
    let mut lines = tokio::task::spawn_blocking(move || tap(http, "file"))
        .await
        .unwrap();
    let mut client = Client::connect(broker.port, "client");
    for text in ["one", "two"] {
        client.publish("thinglog/logs/lamp-7/app", text).await;
    }
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        lines.read_line(&mut line).map(|_| line)
    });
    let line = line.await.unwrap().unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["message"], "<two>");
    until("it is delivered too", || {
        messages_of(data.path(), "file") == ["<two>"]
    })
    .await;

    let all = ask(http, "GET", "/api/v1/destinations", None).await;
    let file = &all.body["items"][0];
    assert_eq!(file["name"], "file");
    assert_eq!(file["ready"], true);
    assert_eq!(file["routes"], json!(["r"]));
    until("it is counted", || {
        outcome(&router, "file", "delivered") == 1.0
    })
    .await;
    let one = ask(http, "GET", "/api/v1/destinations/file", None).await;
    assert_eq!(one.body["events"]["filtered"], 1);
    let nobody = ask(http, "GET", "/api/v1/destinations/none/tap", None).await;
    assert_eq!((nobody.status, nobody.code()), (404, "ResourceNotFound"));
    let letters = ask(http, "GET", "/api/v1/destinations/file/dead-letters", None).await;
    assert_eq!(letters.code(), "InvalidRequest");
    router.stop().await;
}
