//! The publisher and the real broker: TLS, logins and their rotation, modes of upload, what a device
//! reports of itself.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use thinglog_edge::{Builder, Publisher, Record, Tls};
use thinglog_schemas::{Severity, config::Upload};
use thinglog_tests::{
    certificates::{Authority, Identity},
    mqtt::{Connection, Version},
    site::{Site, free_address},
    wait,
};

fn builder(address: SocketAddr) -> Builder {
    Publisher::builder("lamp-7")
        .broker(address.ip().to_string(), address.port())
        .backoff(Duration::from_millis(50), Duration::from_millis(200))
}

fn say(publisher: &Publisher, message: &str) {
    publisher.emit(Record::new("app", Severity::INFO, message));
}

/// A site whose broker serves TLS for this machine.
fn secure_site(more: &str) -> (Site, SocketAddr, Authority) {
    let site = Site::new();
    let authority = Authority::new(site.path(), "authority");
    let Identity { certificate, key } = authority.issue(site.path(), "broker");
    let listen = free_address();
    site.configure(&format!(
        "[broker.tls]\nlisten = \"{listen}\"\ncertificate = {certificate:?}\nkey = {key:?}\n{more}"
    ));
    (site, listen, authority)
}

/// A publisher that tries and does not get in.
fn never_connects(site: &Site, publisher: &Publisher, refused_before: u64) {
    wait::until("the broker to have refused another connection", || {
        (refused(site) > refused_before).then_some(())
    });
    assert_eq!(publisher.counters().connects, 0);
}

/// Connections that the broker refused, whatever the reason.
fn refused(site: &Site) -> u64 {
    let metrics = site.get("/metrics");
    let lines = metrics.lines();
    let refused = lines.filter(|line| line.starts_with("thinglog_broker_refused_total{"));
    let counts = refused.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    counts.sum()
}

#[test]
fn a_publisher_speaks_tls_to_whom_its_authorities_vouch_for() {
    let (site, secure, authority) = secure_site("");
    let _up = site.up();
    let url = format!("mqtts://localhost:{}", secure.port())
        .parse()
        .unwrap();
    let trusting = Tls::new().ca(&authority.file);
    let publisher = builder(secure)
        .broker_url(&url)
        .tls(trusting.clone())
        .start()
        .unwrap();
    say(&publisher, "encrypted");
    assert_eq!(site.event("encrypted")["device"], "lamp-7");
    let named = builder(secure)
        .tls(trusting.clone().server_name("localhost"))
        .start()
        .unwrap();
    say(&named, "by another name");
    site.event("by another name");

    let stranger = Authority::new(site.path(), "stranger");
    for wrong in [
        Tls::new().ca(&stranger.file),
        trusting.server_name("broker.example.com"),
    ] {
        let before = refused(&site);
        let publisher = builder(secure).tls(wrong).start().unwrap();
        say(&publisher, "never");
        never_connects(&site, &publisher, before);
    }
    assert!(!site.has_event("never"));
}

#[test]
fn a_certificate_is_shown_and_a_renewed_one_used_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let devices = Authority::new(folder.path(), "devices");
    let required = format!("client_ca = {:?}", devices.file);
    let (site, secure, authority) = secure_site(&required);
    let mut up = site.up();
    let trusting = Tls::new().ca(&authority.file);
    let before = refused(&site);
    let nobody = builder(secure).tls(trusting.clone()).start().unwrap();
    say(&nobody, "nobody");
    never_connects(&site, &nobody, before);

    let Identity { certificate, key } = devices.issue(site.path(), "lamp-7");
    let publisher = builder(secure)
        .tls(trusting.identity(&certificate, &key))
        .start()
        .unwrap();
    say(&publisher, "myself");
    site.event("myself");
    assert!(!site.has_event("nobody"));

    // Another authority takes over; what the device has counts for nothing until it is renewed.
    let next = Authority::new(folder.path(), "next");
    fs::copy(&next.file, &devices.file).unwrap();
    up.hang_up();
    let renewed = next.issue(folder.path(), "lamp-7");
    fs::rename(&renewed.key, &key).unwrap();
    fs::rename(&renewed.certificate, &certificate).unwrap();
    wait::until("the connection to be made anew", || {
        (publisher.counters().connects == 2).then_some(())
    });
    say(&publisher, "renewed");
    site.event("renewed");
    up.assert_running();
}

#[test]
fn a_password_that_changes_in_its_file_is_used_within_seconds_and_nothing_is_lost() {
    let site = Site::new();
    site.configure("[broker.auth]\npasswords = \"passwords\"\ntokens = \"tokens\"");
    fs::write(site.path().join("passwords"), "").unwrap();
    fs::write(site.path().join("tokens"), "").unwrap();
    let file = site.path().join("lamp-7.token");
    fs::write(&file, device_token(&site)).unwrap();
    let up = site.up();
    let publisher = builder(site.mqtt)
        .password_file("lamp-7", &file)
        .start()
        .unwrap();
    say(&publisher, "with the first token");
    site.event("with the first token");

    site.done(&["device", "remove", "lamp-7"], "");
    let second = device_token(&site);
    up.hang_up();
    wait::until("the device to be sent away", || {
        (!publisher.counters().connected).then_some(())
    });
    say(&publisher, "between");
    fs::write(&file, second).unwrap();
    say(&publisher, "with the second token");
    site.event("with the second token");
    assert!(site.has_event("between"));
}

fn device_token(site: &Site) -> String {
    let added = site.done(&["device", "add", "lamp-7", "--json"], "");
    let added: Value = serde_json::from_str(&added).unwrap();
    added["token"].as_str().unwrap().to_owned()
}

const SECRET: &str = "a secret of at least thirty-two bytes";

fn write_jwt(path: &Path, seconds: u64) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let claims = json!({"sub": "lamp-7", "exp": now + seconds});
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap();
    let new = path.with_extension("new");
    fs::write(&new, token).unwrap();
    fs::rename(&new, path).unwrap();
}

#[test]
fn a_jwt_is_renewed_before_it_ends_and_the_connection_made_anew_in_an_orderly_way() {
    let site = Site::new();
    site.configure("[broker.auth]\njwt = { keys = \"secret\" }");
    fs::write(site.path().join("secret"), SECRET).unwrap();
    let _up = site.up();
    let file = site.path().join("lamp-7.jwt");
    write_jwt(&file, 600);
    let publisher = builder(site.mqtt)
        .token_file("lamp-7", &file)
        .start()
        .unwrap();
    say(&publisher, "first");
    assert!(publisher.flush_blocking(wait::PATIENCE));
    write_jwt(&file, 1200);
    let mut said = 0;
    wait::until("the connection to be made anew", || {
        say(&publisher, &format!("meanwhile {said}"));
        said += 1;
        (publisher.counters().connects == 2).then_some(())
    });
    assert!(publisher.flush_blocking(wait::PATIENCE));
    let counters = publisher.counters();
    assert_eq!(counters.dropped, 0);
    assert_eq!(counters.acknowledged, 1 + said);
    for number in 0..said {
        site.event(&format!("meanwhile {number}"));
    }
}

#[test]
fn a_login_that_fails_is_told_with_who_and_which_file_and_without_the_secret() {
    let site = Site::new();
    site.configure("[broker.auth]\npasswords = \"passwords\"\ntokens = \"tokens\"");
    for file in ["passwords", "tokens"] {
        fs::write(site.path().join(file), "").unwrap();
    }
    fs::write(site.path().join("wrong"), "hunter2").unwrap();
    let _broker = site.broker();
    let lamp = site.edge("lamp", "lamp-7", &["--password-file", "wrong", "pipe"]);
    let said = wait::until("the agent to complain", || {
        let output = lamp.output();
        output
            .contains("no connection to the broker")
            .then_some(output)
    });
    assert!(said.contains("lamp-7"), "{said}");
    assert!(said.contains("the broker refused: "), "{said}");
    assert!(said.contains("the password in wrong"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

fn upload(json: Value) -> Upload {
    serde_json::from_value(json).unwrap()
}

/// Publishes a retained document, or removes it.
fn retain(site: &Site, topic: &str, document: &str) {
    let mut operator = Connection::open(site.mqtt, "operator", Version::V4).unwrap();
    operator.retain(topic, document.as_bytes()).unwrap();
    operator.acknowledged().unwrap();
}

#[test]
fn in_mode_manual_everything_waits_until_it_is_asked_for() {
    let site = Site::new();
    let _up = site.up();
    let publisher = builder(site.mqtt)
        .upload(upload(json!({"mode": "manual"})))
        .flush_age(Duration::from_millis(20))
        .start()
        .unwrap();
    publisher.emit(Record::new("app", Severity::ERROR, "kept"));
    // Another publisher's event is through: there was time.
    let other = builder(site.mqtt).start().unwrap();
    say(&other, "not kept");
    site.event("not kept");
    let counters = publisher.counters();
    assert_eq!((counters.queued_events, counters.acknowledged), (1, 0));
    publisher.upload_now();
    site.event("kept");
    wait::until("the acknowledgement", || {
        (publisher.counters().acknowledged == 1).then_some(())
    });
    say(&publisher, "kept again");
    say(&other, "not kept either");
    site.event("not kept either");
    assert!(!site.has_event("kept again"));
}

#[test]
fn an_operator_changes_the_mode_of_a_fleet_that_runs() {
    let site = Site::new();
    let _up = site.up();
    let publisher = builder(site.mqtt).start().unwrap();
    say(&publisher, "realtime");
    site.event("realtime");
    let topic = "thinglog/config/default";
    retain(
        &site,
        topic,
        r#"{"upload": {"mode": "interval", "interval_s": 86400, "errors_at_once": true, "flush_ms": 20}}"#,
    );
    wait::until("the device to report its mode", || {
        (reported(&site, "lamp-7")["upload"] == "interval").then_some(())
    });
    say(&publisher, "waits");
    let other = Publisher::builder("lamp-8")
        .broker(site.mqtt.ip().to_string(), site.mqtt.port())
        .upload(upload(json!({"mode": "realtime"})))
        .start()
        .unwrap();
    assert!(other.flush_blocking(wait::PATIENCE));
    assert_eq!(publisher.counters().queued_events, 1);
    publisher.emit(Record::new("app", Severity::ERROR, "does not wait"));
    site.event("does not wait");
    site.event("waits");

    say(&publisher, "waits for the next document");
    retain(&site, topic, "");
    site.event("waits for the next document");
}

/// `reported/<device>` as it is retained now; null without one.
fn reported(site: &Site, device: &str) -> Value {
    let mut reader = Connection::open(site.mqtt, "reader", Version::V4).unwrap();
    reader
        .subscribe(&format!("thinglog/reported/{device}"))
        .unwrap();
    match reader.delivery() {
        Ok((_, payload)) => serde_json::from_slice(&payload).unwrap(),
        Err(_) => Value::Null,
    }
}

#[test]
fn on_error_the_debug_events_around_it_are_sent_and_pass_the_router() {
    let site = Site::new();
    let _up = site.up();
    let publisher = builder(site.mqtt).start().unwrap();
    say(&publisher, "hello");
    site.event("hello");
    retain(
        &site,
        "thinglog/config/default",
        r#"{"level": "WARN", "upload": {"mode": "on-error", "after_s": 3600}}"#,
    );
    wait::until("the device to report its mode", || {
        (reported(&site, "lamp-7")["upload"] == "on-error").then_some(())
    });
    let emit = |severity, message: &str| publisher.emit(Record::new("app", severity, message));
    emit(Severity::DEBUG, "before");
    emit(Severity::WARN, "a warning");
    site.event("a warning");
    assert!(!site.has_event("before"));
    emit(Severity::ERROR, "the error");
    emit(Severity::DEBUG, "after");
    site.event("after");
    let order: Vec<Value> = site
        .events()
        .iter()
        .map(|event| event["message"].clone())
        .collect();
    assert_eq!(
        order,
        ["hello", "a warning", "before", "the error", "after"]
    );
}
