use bytes::Bytes;
use prometheus::Registry;

use super::*;
use crate::{
    access::Login,
    codec::{Connect, Filter, Version},
    config::Config,
    hub::Attached,
    server::Broker,
};

fn attach(hub: &Hub, id: &str, connection: ConnectionId, clean_start: bool) -> Attached {
    let connect = Connect {
        clean_start,
        expiry: 3600,
        ..Connect::plain(Version::V5, id)
    };
    let pass = hub.access.pass(Login::open(), id.into());
    hub.attach(&connect, &id.into(), connection, &pass).unwrap()
}

#[tokio::test]
async fn a_session_that_ends_while_it_is_sent_a_message_leaves_no_letter_behind() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: dir.path().to_owned(),
        ..Config::default()
    };
    let hub = Broker::bind(config, &Registry::new()).await.unwrap().hub();
    let session = attach(&hub, "reader", 1, false).session;
    let filter = Filter {
        path: "request/a".into(),
        qos: 1,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    };
    assert_eq!(hub.subscribe((&session, 1), &filter, None, None), Ok(1));
    let message = Message {
        topic: "request/a".into(),
        payload: Bytes::from_static(b"x"),
        qos: 1,
        retain: false,
        expires: None,
        client: 0,
        properties: Bytes::new(),
    };
    let message = Arc::new(message);
    let mut wanted = hub.recipients(&message);
    assert_eq!(wanted.len(), 1);
    attach(&hub, "reader", 2, true);
    // What `publish` does with those it has found.
    hub.post(&message, &mut wanted, None).unwrap();
    for (session, queued) in wanted {
        hub.enqueue(&session, queued);
    }
    assert_eq!(hub.mail.waiting(), 0);
}

#[tokio::test]
async fn a_message_for_a_member_that_ends_meanwhile_goes_to_another() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: dir.path().to_owned(),
        ..Config::default()
    };
    let hub = Broker::bind(config, &Registry::new()).await.unwrap().hub();
    let filter = Filter {
        path: "$share/g/request/a".into(),
        qos: 1,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    };
    let first = attach(&hub, "first", 1, false).session;
    hub.subscribe((&first, 1), &filter, None, None).unwrap();
    let message = Arc::new(Message {
        topic: "request/a".into(),
        payload: Bytes::from_static(b"x"),
        qos: 1,
        retain: false,
        expires: None,
        client: 0,
        properties: Bytes::new(),
    });
    let mut wanted = hub.recipients(&message);
    let second = attach(&hub, "second", 2, false).session;
    hub.subscribe((&second, 2), &filter, None, None).unwrap();
    attach(&hub, "first", 3, true);
    hub.post(&message, &mut wanted, None).unwrap();
    let orphans = hub.enqueue_all(wanted);
    assert_eq!(orphans.len(), 1);
    hub.pass_on(orphans);
    assert_eq!(second.inner.lock().queue.len(), 1);
    assert_eq!(hub.mail.waiting(), 1);
}
