//! Wills: sections 3.1.2.5 to 3.1.2.7, 3.1.3.2 to 3.1.3.4 and 3.14.4.

use std::time::{Duration, Instant};

use crate::raw::{self, BOTH, Raw, V5, V311, Version, first, packet, props, will};
use crate::{Broker, TOPICS};

/// Somebody who watches, and a client with a will.
fn watched(broker: &Broker, version: Version, connect: raw::Connect) -> (Raw, Raw) {
    let mut watcher = broker.client(version, "watcher");
    for topic in TOPICS {
        watcher.subscribe(topic, 2);
    }
    (watcher, Raw::connect(broker.address(), &connect))
}

#[test]
fn the_will_of_a_client_that_vanishes_is_sent() {
    let broker = Broker::start();
    for version in BOTH {
        for topic in TOPICS {
            for qos in 0..3 {
                let mut will = will(topic, "gone");
                will.qos = qos;
                let connect = raw::connect(version, "c").will(will);
                let (mut watcher, mortal) = watched(&broker, version, connect);
                mortal.vanish();
                let delivery = watcher.delivery();
                assert_eq!(
                    (delivery.topic.as_str(), delivery.text().as_str()),
                    (topic, "gone")
                );
                // A filter on durable topics is granted QoS 1 at most.
                let most = if topic == TOPICS[0] { 2 } else { 1 };
                assert_eq!((delivery.qos, delivery.retain), (qos.min(most), false));
            }
        }
    }
}

#[test]
fn the_will_of_a_client_that_breaks_the_protocol_or_falls_silent_is_sent() {
    let broker = Broker::start();
    for version in BOTH {
        let connect = raw::connect(version, "c").will(will(TOPICS[0], "gone"));
        let (mut watcher, mortal) = watched(&broker, version, connect.clone());
        mortal.refused(&packet(first::CONNACK, &[0, 0]));
        assert_eq!(watcher.delivery().text(), "gone");
        let mut silent = connect.clone();
        silent.keep_alive = 1;
        Raw::connect(broker.address(), &silent).last_words();
        assert_eq!(watcher.delivery().text(), "gone");
        let _old = Raw::connect(broker.address(), &connect);
        let _new = broker.client(version, "c");
        assert_eq!(
            watcher.delivery().text(),
            "gone",
            "of a connection that was taken over"
        );
    }
}

#[test]
fn a_disconnect_discards_the_will() {
    let broker = Broker::start();
    for version in BOTH {
        for connect in [
            raw::connect(version, "c"),
            raw::connect(version, "c").lasting(),
        ] {
            let connect = connect.will(will(TOPICS[0], "gone"));
            let (mut watcher, mortal) = watched(&broker, version, connect.clone());
            mortal.disconnect();
            // Whatever comes next does not bring it back.
            Raw::connect(broker.address(), &raw::connect(version, "c")).disconnect();
            watcher.nothing();
        }
    }
}

#[test]
fn a_client_that_reconnects_at_once_after_disconnect_leaves_no_will() {
    let broker = Broker::start();
    for version in BOTH {
        let mut watcher = broker.client(version, "watcher");
        watcher.subscribe(TOPICS[0], 1);
        for _ in 0..20 {
            let connect = raw::connect(version, "c").will(will(TOPICS[0], "gone"));
            Raw::connect(broker.address(), &connect).disconnect();
            broker.client(version, "c").disconnect();
        }
        watcher.nothing();
    }
}

#[test]
fn a_disconnect_may_ask_for_the_will() {
    let broker = Broker::start();
    let connect = raw::connect(V5, "c").will(will(TOPICS[0], "gone"));
    let (mut watcher, mortal) = watched(&broker, V5, connect);
    mortal.disconnect_with(&[4]);
    assert_eq!(watcher.delivery().text(), "gone");
}

#[test]
fn without_a_will_nothing_is_sent() {
    let broker = Broker::start();
    for version in BOTH {
        let (mut watcher, mortal) = watched(&broker, version, raw::connect(version, "c"));
        mortal.vanish();
        watcher.nothing();
    }
}

#[test]
fn a_will_is_sent_once() {
    let broker = Broker::start();
    for version in BOTH {
        let connect = raw::connect(version, "c")
            .lasting()
            .will(will(TOPICS[0], "gone"));
        let (mut watcher, mortal) = watched(&broker, version, connect);
        mortal.vanish();
        assert_eq!(watcher.delivery().text(), "gone");
        broker.lasting(version, "c").vanish();
        broker.client(version, "c").disconnect();
        watcher.nothing();
    }
}

#[test]
fn a_will_is_retained_if_it_says_so() {
    let broker = Broker::start();
    for version in BOTH {
        for retain in [false, true] {
            let mut testament = will("house/will", "gone");
            testament.retain = retain;
            let connect = raw::connect(version, "c").will(testament);
            Raw::connect(broker.address(), &connect).vanish();
            let mut late = broker.client(version, "late");
            late.subscribe("house/will", 1);
            if retain {
                let delivery = late.delivery();
                assert!(delivery.retain && delivery.text() == "gone");
                late.retain("house/will", 1, "");
            } else {
                late.nothing();
            }
        }
    }
}

#[test]
fn a_delayed_will_is_sent_after_its_delay_or_with_the_end_of_the_session() {
    let broker = Broker::start();
    let connect = |delay, expiry| {
        let mut testament = will(TOPICS[0], "gone");
        testament.properties = props().four(24, delay);
        let properties = props().four(17, expiry);
        raw::connect(V5, "c").will(testament).properties(properties)
    };
    for (delay, expiry) in [(1, 3600), (3600, 1)] {
        let (mut watcher, mortal) = watched(&broker, V5, connect(delay, expiry));
        let since = Instant::now();
        mortal.vanish();
        watcher.nothing();
        assert_eq!(watcher.delivery().text(), "gone");
        assert!(since.elapsed() >= Duration::from_millis(900));
        broker.client(V5, "c").disconnect();
    }
}

#[test]
fn who_comes_back_within_the_delay_leaves_no_will() {
    let broker = Broker::start();
    let mut testament = will(TOPICS[0], "gone");
    testament.properties = props().four(24, 1);
    let connect = raw::connect(V5, "c").lasting().will(testament);
    let (mut watcher, mortal) = watched(&broker, V5, connect);
    mortal.vanish();
    let mut back = broker.lasting(V5, "c");
    // A second will, due later than the first one would have been, comes alone.
    let mut later = will(TOPICS[0], "later");
    later.properties = props().four(24, 2);
    let other = raw::connect(V5, "other").lasting().will(later);
    Raw::connect(broker.address(), &other).vanish();
    assert_eq!(watcher.delivery().text(), "later");
    back.ping();
}

#[test]
fn the_properties_of_a_will_come_with_it() {
    let broker = Broker::start();
    let mut testament = will(TOPICS[0], "gone");
    testament.properties = props()
        .byte(1, 1)
        .bytes(3, b"text/plain")
        .bytes(8, b"answer/here")
        .bytes(9, &[0, 255])
        .user("b", "2")
        .user("a", "1")
        .user("b", "1");
    let connect = raw::connect(V5, "c").will(testament);
    let (mut watcher, mortal) = watched(&broker, V5, connect);
    mortal.vanish();
    let delivery = watcher.delivery();
    assert_eq!(delivery.values(1), [[1]]);
    assert_eq!(raw::text(delivery.values(3)[0]), "text/plain");
    assert_eq!(raw::text(delivery.values(8)[0]), "answer/here");
    assert_eq!(&delivery.values(9)[0][2..], [0, 255]);
    assert_eq!(
        delivery.values(38),
        [b"\0\x01b\0\x012", b"\0\x01a\0\x011", b"\0\x01b\0\x011"]
    );
}

#[test]
fn a_will_to_a_topic_that_is_none_is_refused() {
    let broker = Broker::start();
    for version in BOTH {
        for topic in ["", "a/+", "#"] {
            let connect = raw::connect(version, "c").will(will(topic, "x"));
            let (mut raw, connack) = match version {
                V5 => Raw::connack(broker.address(), &connect),
                V311 => {
                    let mut raw = Raw::open(broker.address(), version);
                    raw.send(&connect.bytes());
                    assert!(raw.last_words().iter().all(|packet| packet.reason() != 0));
                    continue;
                }
            };
            assert_eq!(connack.reason(), 0x90);
            assert!(raw.last_words().is_empty());
        }
    }
}
