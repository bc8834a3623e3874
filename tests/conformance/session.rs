//! Sessions: sections 3.1.2.4, 3.1.2.11.2, 3.1.4, 3.2.2.1.1, 4.1, 4.4 and 4.6.

use thinglog_tests::wait;

use crate::raw::{self, BOTH, Raw, V5, V311, first, packet, props};
use crate::{Broker, TOPICS};

#[test]
fn a_session_is_present_when_it_is_taken_up_and_only_then() {
    let broker = Broker::start();
    for version in BOTH {
        let present = |connect: &raw::Connect| {
            let (raw, connack) = Raw::connack(broker.address(), connect);
            assert_eq!(connack.reason(), 0);
            raw.vanish();
            connack.body[0]
        };
        let clean = raw::connect(version, "c");
        let kept = clean.clone().lasting();
        let mut cleaned_then_kept = kept.clone();
        cleaned_then_kept.clean = version == V5;
        assert_eq!(present(&kept), 0, "nothing to take up");
        assert_eq!(present(&kept), 1);
        assert_eq!(present(&clean), 0, "a clean start takes nothing up");
        assert_eq!(present(&kept), 0, "and leaves nothing");
        if version == V5 {
            assert_eq!(present(&cleaned_then_kept), 0);
            assert_eq!(present(&kept), 1);
        }
        assert_eq!(present(&clean), 0);
    }
}

#[test]
fn a_clean_start_forgets_subscriptions_and_messages() {
    let broker = Broker::start();
    for version in BOTH {
        for topic in TOPICS {
            let mut raw = broker.lasting(version, "c");
            raw.subscribe(topic, 1);
            raw.vanish();
            broker.client(version, "writer").publish(topic, 1, "lost");
            let mut raw = broker.client(version, "c");
            raw.nothing();
            broker
                .client(version, "writer")
                .publish(topic, 1, "unheard");
            raw.nothing();
            raw.vanish();
            let mut raw = broker.lasting(version, "c");
            raw.nothing();
            raw.vanish();
            broker.client(version, "c").disconnect();
        }
    }
}

#[test]
fn what_comes_while_a_client_is_away_waits_for_it_in_order() {
    let broker = Broker::start();
    for version in BOTH {
        for topic in TOPICS {
            let mut raw = broker.lasting(version, "c");
            raw.subscribe(topic, 1);
            raw.disconnect();
            let mut writer = broker.client(version, "writer");
            for n in 0..20 {
                writer.publish(topic, 1, &n.to_string());
            }
            let mut raw = broker.lasting(version, "c");
            for n in 0..20 {
                let delivery = raw.delivery();
                assert_eq!((delivery.text(), delivery.dup), (n.to_string(), false));
            }
            raw.nothing();
            raw.vanish();
            broker.client(version, "c").disconnect();
        }
    }
}

#[test]
fn what_was_not_acknowledged_comes_again_in_order_with_dup_and_its_packet_id() {
    let broker = Broker::start();
    for version in BOTH {
        for topic in TOPICS {
            let mut raw = broker.lasting(version, "c");
            raw.subscribe(topic, 1);
            let mut writer = broker.client(version, "writer");
            for n in 0..4 {
                writer.publish(topic, 1, &n.to_string());
            }
            let first: Vec<_> = (0..4).map(|_| raw.taken()).collect();
            assert!(first.iter().all(|publish| !publish.dup));
            raw.send(&packet(first::PUBACK, &first[1].pkid.to_be_bytes()));
            raw.ping();
            raw.vanish();
            writer.publish(topic, 1, "4");
            let mut raw = broker.lasting(version, "c");
            for publish in [&first[0], &first[2], &first[3]] {
                let again = raw.delivery();
                assert_eq!((again.pkid, again.text()), (publish.pkid, publish.text()));
                assert!(again.dup);
            }
            let new = raw.delivery();
            assert_eq!((new.text().as_str(), new.dup), ("4", false));
            raw.vanish();
            broker.client(version, "c").disconnect();
        }
    }
}

#[test]
fn nothing_is_sent_again_over_the_same_connection() {
    let broker = Broker::start();
    for version in BOTH {
        for topic in TOPICS {
            let mut raw = broker.client(version, "c");
            raw.subscribe(topic, 1);
            let mut writer = broker.client(version, "writer");
            writer.publish(topic, 1, "once");
            let taken = raw.taken();
            raw.nothing();
            raw.send(&packet(first::PUBACK, &taken.pkid.to_be_bytes()));
            raw.nothing();
        }
    }
}

#[test]
fn another_connection_with_the_client_id_takes_the_place_of_the_first() {
    let broker = Broker::start();
    for version in BOTH {
        for connect in [
            raw::connect(version, "c"),
            raw::connect(version, "c").lasting(),
        ] {
            let mut old = Raw::connect(broker.address(), &connect);
            let mut new = Raw::connect(broker.address(), &connect);
            let words = old.last_words();
            match version {
                V311 => assert!(words.is_empty()),
                V5 => assert_eq!((words.len(), words[0].reason()), (1, 0x8E)),
            }
            new.ping();
            new.vanish();
        }
        broker.client(version, "c").disconnect();
    }
}

#[test]
fn a_session_that_is_taken_over_goes_on() {
    let broker = Broker::start();
    for version in BOTH {
        for topic in TOPICS {
            let mut old = broker.lasting(version, "c");
            old.subscribe(topic, 1);
            broker.client(version, "writer").publish(topic, 1, "x");
            let taken = old.taken();
            let mut new = broker.lasting(version, "c");
            let again = new.delivery();
            assert_eq!((again.pkid, again.dup), (taken.pkid, true));
            new.vanish();
            broker.client(version, "c").disconnect();
        }
    }
}

#[test]
fn client_ids_keep_sessions_apart() {
    let broker = Broker::start();
    for version in BOTH {
        let mut one = broker.lasting(version, "one");
        one.subscribe("t", 1);
        one.vanish();
        let (other, connack) =
            Raw::connack(broker.address(), &raw::connect(version, "ONE").lasting());
        assert_eq!(connack.body[0], 0, "another client id has no session");
        other.vanish();
        for id in ["one", "ONE"] {
            broker.client(version, id).disconnect();
        }
    }
}

#[test]
fn a_session_ends_when_its_expiry_has_passed() {
    let broker = Broker::start();
    let mut connect = raw::connect(V5, "c");
    connect.clean = false;
    connect.properties = props().four(17, 1);
    Raw::connect(broker.address(), &connect).vanish();
    let (raw, connack) = Raw::connack(broker.address(), &connect);
    assert_eq!(connack.body[0], 1, "within the interval");
    raw.vanish();
    // Without an expiry of its own, so that it takes up what is there and keeps nothing alive.
    wait::until("the session to end", || {
        let (raw, connack) = Raw::connack(broker.address(), &connect);
        if connack.body[0] == 0 {
            return Some(());
        }
        raw.vanish();
        std::thread::sleep(std::time::Duration::from_millis(1500));
        None
    });
}

#[test]
fn without_an_expiry_a_session_ends_with_its_connection() {
    let broker = Broker::start();
    let mut connect = raw::connect(V5, "c");
    connect.clean = false;
    Raw::connect(broker.address(), &connect).vanish();
    let (_, connack) = Raw::connack(broker.address(), &connect);
    assert_eq!(connack.body[0], 0);
}

#[test]
fn a_disconnect_may_change_the_expiry() {
    let broker = Broker::start();
    let kept = raw::connect(V5, "c").lasting();
    Raw::connect(broker.address(), &kept).disconnect_with(&[0, 5, 17, 0, 0, 0, 0]);
    wait::until("the session to end", || {
        let (raw, connack) = Raw::connack(broker.address(), &kept);
        if connack.body[0] == 0 {
            return Some(());
        }
        raw.disconnect_with(&[0, 5, 17, 0, 0, 0, 0]);
        None
    });
}

#[test]
fn an_expiry_beyond_what_the_broker_keeps_is_answered_with_the_broker_s() {
    let broker = Broker::with("[broker.limits]\nsession_seconds = 100\n");
    let connect = raw::connect(V5, "c").properties(props().four(17, u32::MAX));
    let (_, connack) = Raw::connack(broker.address(), &connect);
    let properties = connack.properties();
    assert_eq!(raw::number(raw::values(&properties, 17)[0]), 100);
}

#[test]
fn a_session_outlives_the_broker() {
    let mut broker = Broker::start();
    for version in BOTH {
        let id = format!("{version:?}");
        let mut raw = broker.lasting(version, &id);
        for topic in TOPICS {
            raw.subscribe(topic, 1);
        }
        raw.disconnect();
    }
    broker.restart();
    for version in BOTH {
        let connect = raw::connect(version, &format!("{version:?}")).lasting();
        let (mut raw, connack) = Raw::connack(broker.address(), &connect);
        assert_eq!(connack.body[0], 1);
        for topic in TOPICS {
            broker.client(version, "writer").publish(topic, 1, topic);
            assert_eq!(raw.delivery().text(), topic);
        }
        raw.vanish();
        broker.client(version, &format!("{version:?}")).disconnect();
    }
}

#[test]
fn messages_of_a_topic_come_in_the_order_they_were_published_in() {
    let broker = Broker::start();
    for version in BOTH {
        for topic in TOPICS {
            let mut raw = broker.client(version, "c");
            raw.subscribe(topic, 1);
            let mut writer = broker.client(version, "writer");
            for n in 0..100 {
                writer.publish_with(topic, (n % 2) << 1, &props(), &n.to_string());
            }
            let got: Vec<u8> = (0..100)
                .map(|_| raw.delivery().text().parse().unwrap())
                .collect();
            // At QoS 0 and 1 each; between them no order is promised.
            for qos in 0..2 {
                let of: Vec<u8> = got.iter().copied().filter(|n| n % 2 == qos).collect();
                assert!(of.is_sorted() && of.len() == 50, "{of:?}");
            }
        }
    }
}
