use std::path::Path;

use bytes::Bytes;
use prometheus::Registry;

use super::*;
use crate::{
    access::{Auth, Login},
    codec::Filter,
    config::{Config, Limits},
    peer::Transport,
    server::Broker,
};

async fn hub(dir: &Path, limits: Limits) -> Arc<Hub> {
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: dir.to_owned(),
        limits,
        ..Config::default()
    };
    Broker::bind(config, &Registry::new()).await.unwrap().hub()
}

fn connect(hub: &Arc<Hub>, id: &str, connection: ConnectionId, clean_start: bool) -> Client {
    let connect = Connect {
        clean_start,
        expiry: 3600,
        receive_maximum: 10,
        ..Connect::plain(Version::V5, id)
    };
    let pass = hub.access.pass(Login::open(), id.into());
    let attached = hub.attach(&connect, &id.into(), connection, &pass).unwrap();
    let peer = Peer {
        address: [127, 0, 0, 1].into(),
        certificate: None,
        transport: Transport::Tcp,
    };
    Client::new(hub.clone(), attached, connection, &connect, (peer, pass))
}

fn subscribe(client: &Client, path: &str) -> u8 {
    let filter = Filter {
        path: path.into(),
        qos: 1,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    };
    let owner = (&*client.session, client.connection);
    client.hub.subscribe(owner, &filter, None, None)
}

fn message(topic: &str, bytes: usize, retain: bool) -> crate::message::Message {
    crate::message::Message {
        topic: topic.into(),
        payload: Bytes::from(vec![b'x'; bytes]),
        qos: 1,
        retain,
        expires: None,
        client: 0,
        properties: Bytes::new(),
    }
}

/// Whether `wake` was rung since the last look.
fn rung(wake: &Notify) -> bool {
    use std::{pin::pin, task};
    let ring = pin!(wake.notified());
    let mut context = task::Context::from_waker(task::Waker::noop());
    ring.poll(&mut context).is_ready()
}

#[tokio::test]
async fn retained_messages_that_wait_for_acknowledgements_ask_for_no_further_turn() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path(), Limits::default()).await;
    for n in 0..600 {
        hub.publish(message(&format!("config/{n}"), 10, true), None)
            .unwrap();
    }
    let mut client = connect(&hub, "reader", 1, true);
    subscribe(&client, "config/#");
    while client.fill() {}
    let inner = client.session.inner.lock();
    assert_eq!(inner.window.outstanding().count(), 10);
    assert!(!inner.scans.is_empty(), "some are left for later");
}

#[tokio::test]
async fn repeated_subscriptions_make_one_walk_over_retained_messages() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path(), Limits::default()).await;
    let client = connect(&hub, "reader", 1, true);
    for _ in 0..100 {
        subscribe(&client, "config/#");
        subscribe(&client, "desired/#");
    }
    assert_eq!(client.session.inner.lock().scans.len(), 2);
}

#[tokio::test]
async fn a_replaced_connection_leaves_no_subscription_behind() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path(), Limits::default()).await;
    let old = connect(&hub, "same", 1, true);
    let _new = connect(&hub, "same", 2, true);
    assert!(subscribe(&old, "thinglog/live/#") >= 0x80);
    assert_eq!(hub.interest.payload(), "[]");
}

#[tokio::test]
async fn a_replaced_connection_neither_ends_nor_wakes_instead_of_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path(), Limits::default()).await;
    let mut old = connect(&hub, "same", 1, false);
    subscribe(&old, "request/#");
    let new = connect(&hub, "same", 2, false);
    assert!(rung(&old.wake) && !rung(&new.wake));
    hub.publish(message("request/a", 1, false), None).unwrap();
    assert!(!rung(&old.wake) && rung(&new.wake));
    // DISCONNECT with a session expiry of 0.
    old.take_input(&mut BytesMut::from(&b"\xE0\x07\0\x05\x11\0\0\0\0"[..]));
    assert!(new.session.inner.lock().is_persistent());
}

#[tokio::test]
async fn unacknowledged_messages_are_bounded_by_the_bytes_of_a_session() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        queue_bytes: 3_000,
        ..Limits::default()
    };
    let hub = hub(dir.path(), limits).await;
    let mut client = connect(&hub, "reader", 1, true);
    subscribe(&client, "request/#");
    for _ in 0..8 {
        hub.publish(message("request/a", 1_000, false), None)
            .unwrap();
        client.fill();
    }
    assert!(client.session.inner.lock().window.bytes() < 5_000);
}

#[tokio::test]
async fn overlapping_subscriptions_make_one_delivery_of_the_highest_qos() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path(), Limits::default()).await;
    let clients: Vec<Client> = (1..4)
        .map(|n| connect(&hub, &format!("reader {n}"), n, true))
        .collect();
    for filter in ["request/#", "request/a", "+/a"] {
        for client in &clients {
            subscribe(client, filter);
        }
    }
    hub.publish(message("request/a", 1, false), None).unwrap();
    for client in &clients {
        let mut inner = client.session.inner.lock();
        assert_eq!(inner.queue.pop().map(|queued| queued.qos), Some(1));
        assert!(inner.queue.pop().is_none());
    }
}

#[tokio::test]
async fn what_is_unread_is_known_by_the_slowest_session() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path(), Limits::default()).await;
    assert_eq!(hub.unread_from(), None);
    let fast = connect(&hub, "fast", 1, true);
    let slow = connect(&hub, "slow", 2, true);
    for client in [&fast, &slow] {
        subscribe(client, "thinglog/logs/#");
    }
    if let Some(cursor) = &mut fast.session.inner.lock().cursor {
        cursor.done(0..7);
    }
    assert_eq!(hub.unread_from(), Some(0));
    hub.detach(&slow.session, 2, true);
    assert_eq!(
        hub.unread_from(),
        Some(0),
        "a session that is away still counts"
    );
}

#[tokio::test]
async fn a_will_outlives_the_broker_unless_its_client_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let will = |topic: &str| crate::codec::Will {
        topic: topic.into(),
        payload: Bytes::from_static(b"offline"),
        qos: 1,
        retain: true,
        delay: 0,
        expiry: None,
        properties: Vec::new(),
    };
    let attach = |hub: &Arc<Hub>, id: &str, connection| {
        let connect = Connect {
            will: Some(will(&format!("reported/{id}"))),
            ..Connect::plain(Version::V5, id)
        };
        let pass = hub.access.pass(Login::open(), id.into());
        hub.attach(&connect, &id.into(), connection, &pass).unwrap()
    };
    let first = hub(dir.path(), Limits::default()).await;
    for (connection, id) in [(1, "back"), (2, "gone"), (3, "polite")] {
        let attached = attach(&first, id, connection);
        if id == "polite" {
            first.detach(&attached.session, connection, true);
        }
    }
    drop(first);
    let second = hub(dir.path(), Limits::default()).await;
    attach(&second, "back", 1);
    let now = crate::clock::now();
    second.send_orphans(now);
    assert_eq!(
        second.retained_topics(),
        [""; 0],
        "clients have time to return"
    );
    second.send_orphans(now + 61_000_000_000);
    assert_eq!(second.retained_topics(), ["reported/gone"]);
}

#[tokio::test]
async fn a_will_that_outlives_the_broker_is_sent_if_its_principal_still_may() {
    let dir = tempfile::tempdir().unwrap();
    let (passwords, acl) = (dir.path().join("passwords"), dir.path().join("acl"));
    std::fs::write(&passwords, "alice:*\n").unwrap();
    let start = async |rules: &str| {
        std::fs::write(&acl, rules).unwrap();
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            data: dir.path().join("data"),
            auth: Auth {
                passwords: Some(passwords.clone()),
                acl: Some(acl.clone()),
                ..Auth::default()
            },
            ..Config::default()
        };
        Broker::bind(config, &Registry::new()).await.unwrap().hub()
    };
    let first = start("user alice\ntopic write wills/#\n").await;
    for (connection, topic) in [(1, "wills/kept"), (2, "wills/lost")] {
        let will = crate::codec::Will {
            topic: topic.into(),
            payload: Bytes::from_static(b"offline"),
            qos: 1,
            retain: true,
            delay: 0,
            expiry: None,
            properties: Vec::new(),
        };
        let connect = Connect {
            will: Some(will),
            ..Connect::plain(Version::V5, topic)
        };
        let pass = first.access.absent(Some("alice"), topic.into());
        let id = topic.into();
        first.attach(&connect, &id, connection, &pass).unwrap();
    }
    drop(first);
    let second = start("user alice\ntopic write wills/kept\n").await;
    second.send_orphans(crate::clock::now() + 61_000_000_000);
    assert_eq!(second.retained_topics(), ["wills/kept"]);
}

#[tokio::test]
async fn live_topics_that_a_client_may_not_read_are_not_published_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let passwords = dir.path().join("passwords");
    let write = |users: &str| std::fs::write(&passwords, users).unwrap();
    write("lamp:*:role=device\n");
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: dir.path().join("data"),
        auth: Auth {
            passwords: Some(passwords.clone()),
            ..Auth::default()
        },
        ..Config::default()
    };
    let hub = Broker::bind(config, &Registry::new()).await.unwrap().hub();
    let pass = hub.access.absent(Some("lamp"), "lamp".into());
    let connect = Connect::plain(Version::V5, "lamp");
    let attached = hub.attach(&connect, &"lamp".into(), 1, &pass).unwrap();
    let peer = Peer {
        address: [127, 0, 0, 1].into(),
        certificate: None,
        transport: Transport::Tcp,
    };
    let mut client = Client::new(hub.clone(), attached, 1, &connect, (peer, pass));
    assert_eq!(subscribe(&client, "#"), 1);
    assert_eq!(hub.interest.payload(), "[]");
    // The right comes with a reload, and goes with the client.
    write("lamp:*:role=operator\n");
    hub.access.reload().unwrap();
    client.fill();
    assert_eq!(hub.interest.payload(), r##"["#"]"##);
    hub.detach(&client.session, 1, true);
    assert_eq!(hub.interest.payload(), "[]");
}
