//! TLS and WebSocket, end to end: mosquitto's clients with certificates in files, certificates replaced
//! under way, and MQTT.js in a real browser.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::SocketAddr;

use thinglog_tests::browser::{self, Browser, Pages};
use thinglog_tests::certificates::{Authority, Identity};
use thinglog_tests::mosquitto::{self, VERSIONS, Watch};
use thinglog_tests::site::{Site, free_address};
use thinglog_tests::wait;

/// The table that has the broker serve TLS.
fn tls(listen: SocketAddr, identity: &Identity, more: &str) -> String {
    let (certificate, key) = (&identity.certificate, &identity.key);
    format!(
        "[broker.tls]\nlisten = \"{listen}\"\ncertificate = {certificate:?}\nkey = {key:?}\n{more}"
    )
}

fn trusting(authority: &Authority) -> [&str; 2] {
    ["--cafile", authority.file.to_str().unwrap()]
}

#[test]
fn mosquitto_clients_speak_tls() {
    if !mosquitto::installed("mosquitto_clients_speak_tls") {
        return;
    }
    let site = Site::new();
    let authority = Authority::new(site.path(), "authority");
    let secure = free_address();
    site.configure(&tls(secure, &authority.issue(site.path(), "broker"), ""));
    let _up = site.up();
    for version in VERSIONS {
        for tls in ["tlsv1.2", "tlsv1.3"] {
            let text = format!("{version} over {tls}");
            let options = ["-V", version, "--tls-version", tls];
            let options = [&trusting(&authority)[..], &options].concat();
            mosquitto::publish(
                secure,
                "thinglog/logs/lamp-7/app",
                text.as_bytes(),
                &options,
            );
            assert_eq!(site.event(&text)["device"], "lamp-7");
        }
    }
    let stranger = Authority::new(site.path(), "stranger");
    let topic = "thinglog/logs/lamp-7/app";
    assert!(mosquitto::try_publish(secure, topic, b"no", &trusting(&stranger)).is_err());
}

#[test]
fn a_router_and_an_operator_reach_their_broker_by_tls_and_believe_no_other() {
    if !mosquitto::installed("a_router_and_an_operator_reach_their_broker_by_tls") {
        return;
    }
    let site = Site::new();
    let authority = Authority::new(site.path(), "authority");
    let secure = free_address();
    let identity = authority.issue(site.path(), "broker");
    let stranger = Authority::new(site.path(), "stranger");
    let at = format!("mqtts://localhost:{}", secure.port());
    site.configure(&tls(secure, &identity, ""));
    let file = site.path().join("thinglog.toml");
    let plain = fs::read_to_string(&file).unwrap();
    let configure = |believed: &Authority| {
        let there = format!("[router.broker]\naddress = \"{}\"", site.mqtt);
        let table = format!(
            "[router.broker]\naddress = \"{at}\"\ntls.ca = {:?}",
            believed.file
        );
        assert!(plain.contains(&there), "{plain}");
        fs::write(&file, plain.replace(&there, &table)).unwrap();
    };
    configure(&stranger);
    let _broker = site.broker();
    mosquitto::publish(site.mqtt, "thinglog/logs/lamp-7/app", b"over tls", &[]);
    let distrustful = site.router();
    wait::until("the router to say why it does not connect", || {
        let output = distrustful.output();
        (output.contains("UnknownIssuer") && output.contains("localhost")).then_some(())
    });
    drop(distrustful);
    configure(&authority);
    let mut router = site.router();
    site.wait_for_router(&mut router);
    assert_eq!(site.event("over tls")["device"], "lamp-7");
    // Larger than any record of TLS and any buffer of a socket, both ways.
    let large = "x".repeat(200_000);
    mosquitto::publish(site.mqtt, "thinglog/logs/lamp-7/app", large.as_bytes(), &[]);
    let ca = authority.file.to_str().unwrap();
    let configured = site.thinglog("configured", &["tail"]);
    let named = site.thinglog("named", &["tail", "--broker", &at, "--ca", ca]);
    for tail in [&configured, &named] {
        wait::until("an event in the tail", || {
            mosquitto::publish(site.mqtt, "thinglog/logs/lamp-8/app", b"live", &[]);
            tail.output().contains("lamp-8").then_some(())
        });
    }
    assert_eq!(site.event(&large)["device"], "lamp-7");
}

#[test]
fn a_client_certificate_says_who_publishes() {
    if !mosquitto::installed("a_client_certificate_says_who_publishes") {
        return;
    }
    let site = Site::new();
    let authority = Authority::new(site.path(), "authority");
    let secure = free_address();
    let required = format!("client_ca = {:?}", authority.file);
    let broker = authority.issue(site.path(), "broker");
    site.configure(&tls(secure, &broker, &required));
    let _broker = site.broker();
    let with = |identity: &Identity| {
        let mut options: Vec<String> = trusting(&authority).map(str::to_owned).into();
        for (option, file) in [("--cert", &identity.certificate), ("--key", &identity.key)] {
            options.extend([option.to_owned(), file.to_str().unwrap().to_owned()]);
        }
        options
    };
    let topic = "thinglog/logs/lamp-7/app";
    let watch = Watch::start(site.mqtt, topic, &["-V", "mqttv5", "-F", "%P %p"]);
    wait::until("the watch to be subscribed", || {
        mosquitto::publish(site.mqtt, topic, b"probe", &[]);
        (!watch.lines().is_empty()).then_some(())
    });

    assert!(mosquitto::try_publish(secure, topic, b"nobody", &trusting(&authority)).is_err());
    let stranger = Authority::new(site.path(), "stranger").issue(site.path(), "stranger-lamp");
    let options = with(&stranger);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    assert!(mosquitto::try_publish(secure, topic, b"stranger", &options).is_err());
    let options = with(&authority.issue(site.path(), "lamp-7"));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    mosquitto::publish(secure, topic, b"itself", &options);

    let line = wait::until("the device's own message", || {
        let lines = watch.lines();
        lines.into_iter().find(|line| line.ends_with("itself"))
    });
    assert!(line.contains("thinglog-principal:lamp-7"), "{line}");
    let refused = |line: &String| line.ends_with("nobody") || line.ends_with("stranger");
    assert!(!watch.lines().iter().any(refused));
}

#[test]
fn certificates_are_replaced_while_clients_stay_connected() {
    if !mosquitto::installed("certificates_are_replaced_while_clients_stay_connected") {
        return;
    }
    let site = Site::new();
    let (old, new) = (
        Authority::new(site.path(), "old"),
        Authority::new(site.path(), "new"),
    );
    let secure = free_address();
    let broker = old.issue(site.path(), "broker");
    site.configure(&tls(secure, &broker, ""));
    let mut process = site.broker();
    let watch = Watch::start(secure, "news/#", &trusting(&old));
    wait::until("the watch to be subscribed", || {
        mosquitto::publish(site.mqtt, "news/today", b"probe", &[]);
        (!watch.lines().is_empty()).then_some(())
    });

    new.issue(site.path(), "broker");
    process.hang_up();
    wait::until("the new certificate to be served", || {
        mosquitto::try_publish(secure, "news/today", b"renewed", &trusting(&new)).ok()
    });
    assert!(mosquitto::try_publish(secure, "news/today", b"old", &trusting(&old)).is_err());
    wait::until("the client of the old certificate to hear of it", || {
        watch.lines().contains(&"renewed".to_owned()).then_some(())
    });

    fs::write(&broker.key, "spilled coffee").unwrap();
    process.hang_up();
    let complaint = "the certificates stay as they were: broker.tls.key: ";
    wait::until("the broker to say what is wrong", || {
        process.output().contains(complaint).then_some(())
    });
    mosquitto::publish(secure, "news/today", b"still there", &trusting(&new));
    wait::until("the client of the old certificate to hear more", || {
        watch
            .lines()
            .contains(&"still there".to_owned())
            .then_some(())
    });
    process.assert_running();
}

/// A broker with WebSocket listeners for pages of one origin; gives their ports.
fn site_for(pages: &Pages) -> (Site, u16, u16) {
    let site = Site::new();
    let authority = Authority::new(site.path(), "authority");
    let identity = authority.issue(site.path(), "broker");
    let (plain, secure) = (free_address(), free_address());
    let origin = format!("http://localhost:{}", pages.address.port());
    site.configure(&tls(free_address(), &identity, ""));
    site.configure(&format!(
        "[broker.websocket]\nlisten = \"{plain}\"\ntls_listen = \"{secure}\"\norigins = [\"{origin}\"]"
    ));
    (site, plain.port(), secure.port())
}

#[test]
fn a_page_of_an_allowed_origin_subscribes_and_publishes() {
    let name = "a_page_of_an_allowed_origin_subscribes_and_publishes";
    if !mosquitto::installed(name) || !browser::installed(name) {
        return;
    }
    let pages = Pages::serve();
    let (site, plain, secure) = site_for(&pages);
    let _broker = site.broker();
    let watch = Watch::start(site.mqtt, "answers/#", &[]);
    for broker in [
        format!("ws://localhost:{plain}/mqtt"),
        format!("wss://localhost:{secure}/mqtt"),
    ] {
        let pages_before = pages.reports().len();
        // The authority is the test's own.
        let flags = ["--ignore-certificate-errors"];
        let _browser = Browser::open(&pages.url("localhost", &broker), &flags);
        wait::until("the page to be subscribed", || {
            pages.reports()[pages_before..]
                .contains(&"subscribed".to_owned())
                .then_some(())
        });
        let news = format!("news over {broker}");
        mosquitto::publish(site.mqtt, "news/today", news.as_bytes(), &[]);
        pages.wait_for(&format!("received news/today {news}"));
        wait::until("the page's answer", || {
            watch
                .lines()
                .contains(&format!("seen {news}"))
                .then_some(())
        });
    }
}

#[test]
fn a_page_of_another_origin_cannot_connect() {
    let name = "a_page_of_another_origin_cannot_connect";
    if !mosquitto::installed(name) || !browser::installed(name) {
        return;
    }
    let (pages, foreign) = (Pages::serve(), Pages::serve());
    let (site, plain, _) = site_for(&pages);
    let _up = site.up();
    let refused = |reason: &str| {
        let line = format!("thinglog_broker_refused_total{{reason=\"{reason}\"}}");
        wait::until(&format!("the broker to count {reason:?}"), || {
            site.get("/metrics").contains(&line).then_some(())
        });
    };
    {
        let url = foreign.url("localhost", &format!("ws://localhost:{plain}/mqtt"));
        let _browser = Browser::open(&url, &[]);
        foreign.wait_for("closed");
        refused("WebSocket origin not allowed");
    }
    {
        // Its owner has pointed the page's own name at this machine.
        let url = foreign.url("evil.test", &format!("ws://evil.test:{plain}/mqtt"));
        let rebinding = "--host-resolver-rules=MAP evil.test 127.0.0.1";
        let _browser = Browser::open(&url, &[rebinding]);
        refused("WebSocket host not allowed");
    }
    let connected = |report: &String| report == "connected";
    assert!(!foreign.reports().iter().any(connected));
}
