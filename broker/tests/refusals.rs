//! What is refused whoever asks, and whom that leaves alone.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;
#[path = "harness/login.rs"]
#[allow(dead_code)]
mod login;
#[path = "harness/site.rs"]
mod site;

use harness::Running;
use login::Login;
use site::{Site, connect, root};

#[tokio::test]
async fn who_is_connected_is_for_the_broker_alone_to_say() {
    let site = Site::new("");
    let broker = site.start().await;
    let mut admin = connect(root(5), &broker).await;
    assert_eq!(
        admin.publish("thinglog/connected/lamp", 1, true).await,
        0x87
    );
    assert_eq!(admin.publish("thinglog/connecting", 1, false).await, 0);
    let will = Login {
        will: Some("thinglog/connected/lamp"),
        ..root(5)
    };
    assert_eq!(will.connect(broker.address).await.err(), Some(0x87));
    let reason = "connected/ is the broker's own";
    assert_eq!(broker.refused(reason), 2);
    broker.stop().await;
}

#[tokio::test]
async fn a_subscription_that_is_refused_is_counted_once_by_its_reason() {
    let site = Site::new("");
    let mut config = site.config();
    config.limits.subscriptions = 1;
    let broker = Running::start_with(config).await;
    let mut lamp = connect(site.lamp(5), &broker).await;
    assert_eq!(lamp.subscribe("thinglog/desired/door").await, 0x87);
    assert_eq!(lamp.subscribe("thinglog/desired/lamp").await, 1);
    assert_eq!(lamp.subscribe("thinglog/request/lamp").await, 0x97);
    for reason in [
        "not allowed to subscribe",
        "too many subscriptions of one session",
    ] {
        assert_eq!(broker.refused(reason), 1, "{reason}");
    }
    assert_eq!(broker.refused("subscription refused"), 0);
    broker.stop().await;
}

#[tokio::test]
async fn a_user_has_so_many_sessions_and_others_have_theirs() {
    let site = Site::new("");
    let mut config = site.config();
    config.limits.sessions_per_user = 2;
    let broker = Running::start_with(config.clone()).await;
    let lamp = |id| Login {
        id,
        clean: false,
        ..site.lamp(5)
    };
    connect(lamp("lamp/1"), &broker).await;
    let second = connect(lamp("lamp/2"), &broker).await;
    let third = lamp("lamp/3").connect(broker.address).await;
    assert_eq!(third.err(), Some(0x97));
    assert_eq!(broker.refused("too many sessions of one user"), 1);
    connect(Login::new(5, "door", &site.door), &broker).await;
    connect(lamp("lamp/1"), &broker).await;
    drop(second);
    broker.stop().await;
    // Sessions of the last run count; one that ends makes room.
    let broker = Running::start_with(config).await;
    assert_eq!(
        lamp("lamp/3").connect(broker.address).await.err(),
        Some(0x97)
    );
    let ends = Login {
        clean: true,
        ..lamp("lamp/2")
    };
    let mut ends = connect(ends, &broker).await;
    ends.raw.send(0xE0, &[]).await;
    assert!(ends.raw.is_closed().await);
    connect(lamp("lamp/3"), &broker).await;
    broker.stop().await;
}

#[tokio::test]
async fn clients_without_a_name_hold_up_nobody_who_has_one() {
    let site = Site::new("");
    let broker = site.start().await;
    let mut nameless = tokio::task::JoinSet::new();
    for n in 0..100 {
        nameless.spawn(async move {
            let id = format!("nobody-{n}");
            Login::nobody(5, &id).connect(broker.address).await.err()
        });
    }
    // All but the few that wait for their turn have been answered.
    for _ in 0..80 {
        assert_eq!(nameless.join_next().await.unwrap().unwrap(), Some(0x87));
    }
    connect(root(5), &broker).await;
    connect(site.lamp(5), &broker).await;
    let guess = Login::new(5, "alice", "guess");
    assert_eq!(guess.connect(broker.address).await.err(), Some(0x86));
    broker.stop().await;
}
