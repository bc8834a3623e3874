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
    let owner = (&client.session, client.connection);
    let granted = client.hub.subscribe(owner, &filter, None, None);
    granted.unwrap_or_else(|(reason, _)| reason as u8)
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

/// A QoS 2 PUBLISH of version 5 on `request/a`.
fn publish_of_qos_2(pkid: u8, payload: &str) -> BytesMut {
    let mut bytes = BytesMut::from(&[0x34, 14 + payload.len() as u8, 0, 9][..]);
    bytes.extend_from_slice(b"request/a");
    bytes.extend_from_slice(&[0, pkid, 0]);
    bytes.extend_from_slice(payload.as_bytes());
    bytes
}

/// What a persistent session's client is to get, subscribed at QoS 2.
fn subscribe_at_qos_2(client: &Client, path: &str) {
    let filter = Filter {
        path: path.into(),
        qos: 2,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    };
    let owner = (&client.session, client.connection);
    assert_eq!(client.hub.subscribe(owner, &filter, None, None), Ok(2));
}

async fn publish_at_qos_2(hub: &Hub, topic: &str) {
    let message = crate::message::Message {
        qos: 2,
        ..message(topic, 1, false)
    };
    let until = hub.publish(message, None).unwrap();
    let mut mail = hub.mail.watch();
    let stored = mail.wait_for(|_| hub.settled(&until) != crate::hub::Settled::Pending);
    stored.await.unwrap();
}

/// Waits until the state has all that was queued for it.
async fn state_is_stored(hub: &Hub) {
    let ticket = hub
        .state
        .change(crate::state::Kind::Retained, "probe", None);
    let mut settled = hub.state.settled();
    settled.wait_for(|at| *at >= ticket).await.unwrap();
}

/// Takes the bytes that go out.
fn output(client: &mut Client) -> Vec<u8> {
    client.out.split().to_vec()
}

#[tokio::test]
async fn a_replaced_connection_brings_no_publish_of_qos_2_and_frees_no_packet_id() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path(), Limits::default()).await;
    let reader = connect(&hub, "reader", 1, true);
    subscribe(&reader, "request/#");
    let mut old = connect(&hub, "writer", 2, false);
    // Received and released over the old connection, whose PUBCOMP is not out yet.
    old.take_input(&mut publish_of_qos_2(7, "one"));
    old.take_input(&mut BytesMut::from(&[0x62, 2, 0, 7][..]));
    let mut new = connect(&hub, "writer", 3, false);
    let mut mail = hub.mail.watch();
    for _ in 0..2 {
        new.take_input(&mut BytesMut::from(&[0x62, 2, 0, 7][..]));
        mail.wait_for(|at| *at == hub.mail.next()).await.unwrap();
        new.settle();
    }
    new.take_input(&mut publish_of_qos_2(7, "two"));
    mail.wait_for(|at| *at == hub.mail.next()).await.unwrap();
    old.settle();
    old.take_input(&mut publish_of_qos_2(8, "stale"));
    new.take_input(&mut publish_of_qos_2(7, "two"));
    let mut inner = reader.session.inner.lock();
    let mut payloads = Vec::new();
    while let Some(queued) = inner.queue.pop() {
        payloads.push(queued.message.payload.clone());
    }
    assert_eq!(payloads, ["one", "two"]);
}

#[tokio::test]
async fn a_packet_id_whose_release_is_on_disk_is_in_no_later_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    for topic in ["request/a", "thinglog/logs/lamp/app"] {
        let hub = hub(&dir.path().join(topic), Limits::default()).await;
        let mut client = connect(&hub, "writer", 1, false);
        let mut bytes = BytesMut::from(&[0x34, 5 + topic.len() as u8, 0, topic.len() as u8][..]);
        bytes.extend_from_slice(topic.as_bytes());
        bytes.extend_from_slice(&[0, 7, 0]);
        let (mut mail, mut log) = (hub.mail.watch(), hub.journal_settled.clone());
        for bytes in [&mut bytes, &mut BytesMut::from(&[0x62, 2, 0, 7][..])] {
            client.take_input(bytes);
            mail.wait_for(|at| *at == hub.mail.next()).await.unwrap();
            log.wait_for(|at| *at == hub.journal.next()).await.unwrap();
        }
        // On disk, but nobody has looked yet.
        hub.checkpoint();
        client.settle();
        assert_eq!(
            output(&mut client),
            [0x50, 2, 0, 7, 0x70, 2, 0, 7],
            "{topic}"
        );
        state_is_stored(&hub).await;
        drop((client, mail, log));
        drop(hub);
        let hub = self::hub(&dir.path().join(topic), Limits::default()).await;
        let mut client = connect(&hub, "writer", 1, false);
        assert!(
            !client.is_repeated(7),
            "{topic}: the next publish of this id is lost"
        );
    }
}

#[tokio::test]
async fn every_release_is_sent_again_to_a_client_that_takes_one_message_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path(), Limits::default()).await;
    let mut old = connect(&hub, "reader", 1, false);
    subscribe_at_qos_2(&old, "request/#");
    for _ in 0..2 {
        publish_at_qos_2(&hub, "request/a").await;
    }
    old.fill();
    state_is_stored(&hub).await;
    old.fill();
    old.take_input(&mut BytesMut::from(&[0x50, 2, 0, 1, 0x50, 2, 0, 2][..]));
    let mut new = connect(&hub, "reader", 2, false);
    new.receiver.receive_maximum = 1;
    for pkid in [1, 2] {
        // What the connection's loop does for as long as it is not told to wait.
        new.settle();
        while new.fill() {
            new.settle();
        }
        assert!(
            new.awaits_state(),
            "the release of {pkid} waits for the disk"
        );
        state_is_stored(&hub).await;
        new.settle();
        assert_eq!(output(&mut new), [0x62, 2, 0, pkid]);
        new.take_input(&mut BytesMut::from(&[0x70, 2, 0, pkid][..]));
    }
}

#[tokio::test]
async fn a_message_of_qos_2_is_sent_over_no_connection_before_its_packet_id_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path(), Limits::default()).await;
    let mut old = connect(&hub, "reader", 1, false);
    subscribe_at_qos_2(&old, "request/#");
    publish_at_qos_2(&hub, "request/a").await;
    old.fill();
    let (ticket, _) = *old.prepared.front().unwrap();
    let mut new = connect(&hub, "reader", 2, false);
    new.fill();
    let sent = output(&mut new);
    let until = Wait {
        state: Some(ticket),
        ..Wait::default()
    };
    let stored = hub.settled(&until) == crate::hub::Settled::Stored;
    assert!(sent.is_empty() || stored, "sent before it is on disk");
    state_is_stored(&hub).await;
    new.fill();
    assert!(!(sent.is_empty() && new.out.is_empty()), "sent afterwards");
}

#[tokio::test]
async fn queued_messages_are_sent_beside_a_log_that_is_far_behind() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path(), Limits::default()).await;
    let mut writer = connect(&hub, "writer", 1, true);
    for pkid in 1..40 {
        let mut bytes = BytesMut::from(&[0x32, 27, 0, 22][..]);
        bytes.extend_from_slice(b"thinglog/logs/lamp/app");
        bytes.extend_from_slice(&[0, pkid, 0]);
        writer.take_input(&mut bytes);
    }
    let mut log = hub.journal_settled.clone();
    log.wait_for(|at| *at == hub.journal.next()).await.unwrap();
    let mut reader = connect(&hub, "reader", 2, true);
    let filter = Filter {
        path: "#".into(),
        qos: 1,
        no_local: false,
        retain_as_published: false,
        retain_handling: 2,
    };
    let owner = (&reader.session, 2);
    hub.subscribe(owner, &filter, None, Some("earliest"))
        .unwrap();
    reader.feed = Feed::new(
        hub.journal.clone(),
        &reader.session.inner.lock(),
        &hub.durable_filters,
    );
    reader.fill();
    hub.publish(message("request/a", 1, false), None).unwrap();
    reader.take_input(&mut BytesMut::from(&[0x40, 2, 0, 1][..]));
    output(&mut reader);
    reader.fill();
    let sent = output(&mut reader);
    assert!(
        sent.windows(9).any(|bytes| bytes == b"request/a"),
        "the log leaves it a place"
    );
}

#[tokio::test]
async fn a_client_that_comes_back_without_a_will_has_none_after_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let will = crate::codec::Will {
        topic: "reported/lamp".into(),
        payload: Bytes::from_static(b"offline"),
        qos: 1,
        retain: true,
        delay: 0,
        expiry: None,
        properties: Vec::new(),
    };
    for will in [Some(will), None] {
        let hub = hub(dir.path(), Limits::default()).await;
        let connect = Connect {
            will,
            ..Connect::plain(Version::V5, "lamp")
        };
        let pass = hub.access.pass(Login::open(), "lamp".into());
        hub.attach(&connect, &"lamp".into(), 1, &pass).unwrap();
    }
    let hub = hub(dir.path(), Limits::default()).await;
    hub.send_orphans(crate::clock::now() + 61_000_000_000);
    assert_eq!(hub.retained_topics(), [""; 0]);
}

#[tokio::test]
async fn of_what_a_full_queue_had_no_room_for_little_comes_back_with_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        queue_bytes: 300,
        ..Limits::default()
    };
    let first = hub(dir.path(), limits.clone()).await;
    let reader = connect(&first, "reader", 1, false);
    subscribe(&reader, "request/#");
    first.store(&reader.session, &mut reader.session.inner.lock());
    for _ in 0..20 {
        publish_at_qos_2(&first, "request/a").await;
        first.checkpoint();
    }
    assert_eq!(reader.session.inner.lock().queue.iter().count(), 2);
    state_is_stored(&first).await;
    drop((reader, first));
    let second = hub(dir.path(), limits).await;
    let reader = connect(&second, "reader", 1, false);
    let restored = reader.session.inner.lock().queue.iter().count();
    assert!((2..6).contains(&restored), "{restored}");
    assert_eq!(second.mail.waiting(), restored);
}
