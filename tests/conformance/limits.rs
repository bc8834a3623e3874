//! Receive Maximum, Maximum Packet Size and Request Problem Information: sections 3.1.2.11, 3.2.2.3,
//! 3.3.4 and 4.9.

use crate::raw::{self, BOTH, Raw, V5, V311, first, packet, props, publish};
use crate::{Broker, TOPICS};

#[test]
fn no_more_than_receive_maximum_goes_unacknowledged_to_a_client() {
    let broker = Broker::start();
    for topic in TOPICS {
        let connect = raw::connect(V5, "c").properties(props().two(33, 2));
        let mut raw = Raw::connect(broker.address(), &connect);
        raw.subscribe(topic, 1);
        let mut writer = broker.client(V5, "writer");
        for n in 0..6 {
            writer.publish(topic, 1, &n.to_string());
        }
        let mut held: Vec<_> = (0..2).map(|_| raw.taken()).collect();
        // Other packets are answered while the quota is used up.
        raw.nothing();
        raw.subscribe("other", 1);
        for n in 2..6 {
            raw.send(&packet(first::PUBACK, &held.remove(0).pkid.to_be_bytes()));
            let next = raw.taken();
            assert_eq!(next.text(), n.to_string());
            held.push(next);
            raw.nothing();
        }
        // QoS 0 is not held back.
        raw.subscribe("unheld", 0);
        writer.publish("unheld", 0, "x");
        assert_eq!(raw.delivery().topic, "unheld");
    }
}

#[test]
fn an_acknowledgement_that_refuses_gives_the_quota_back_and_ends_the_delivery() {
    let broker = Broker::start();
    for topic in TOPICS {
        let connect = raw::connect(V5, "c")
            .lasting()
            .properties(props().two(33, 1));
        let mut raw = Raw::connect(broker.address(), &connect);
        raw.subscribe(topic, 1);
        let mut writer = broker.client(V5, "writer");
        writer.publish(topic, 1, "refused");
        writer.publish(topic, 1, "next");
        let refused = raw.taken().pkid.to_be_bytes();
        raw.send(&packet(first::PUBACK, &[refused[0], refused[1], 0x83]));
        let next = raw.taken();
        assert_eq!(next.text(), "next");
        raw.ping();
        raw.vanish();
        let mut raw = Raw::connect(broker.address(), &connect);
        assert_eq!(
            raw.delivery().text(),
            "next",
            "the other one does not come again"
        );
        raw.nothing();
        raw.vanish();
        broker.client(V5, "c").disconnect();
    }
}

#[test]
fn a_client_may_have_receive_maximum_publishes_under_way() {
    let broker = Broker::start();
    let (mut raw, connack) = Raw::connack(broker.address(), &raw::connect(V5, "c"));
    let most = raw::number(raw::values(&connack.properties(), 33)[0]) as u16;
    let mut bytes = Vec::new();
    for id in 1..=most {
        bytes.extend(publish(V5, 2, TOPICS[1].as_bytes(), id, &props(), b"x"));
    }
    raw.send(&bytes);
    for id in 1..=most {
        assert_eq!(raw.answer(first::PUBACK, id), 0);
    }
}

#[test]
fn who_goes_beyond_the_receive_maximum_hears_so_although_it_goes_on_sending() {
    let broker = Broker::start();
    let (mut raw, connack) = Raw::connack(broker.address(), &raw::connect(V5, "c"));
    let most = raw::number(raw::values(&connack.properties(), 33)[0]) as u16;
    for id in 1..=most + 1 {
        raw.send(&publish(V5, 4, TOPICS[0].as_bytes(), id, &props(), b"x"));
    }
    for id in 1..=most {
        assert_eq!(raw.answer(first::PUBREC, id), 0);
        raw.send(&packet(first::PUBREL, &id.to_be_bytes()));
    }
    let words = raw.last_words();
    assert_eq!((words.len(), words[0].first), (1, first::DISCONNECT));
    assert_eq!(words[0].reason(), 0x93);
}

#[test]
fn no_packet_is_larger_than_the_client_takes() {
    let broker = Broker::start();
    for topic in TOPICS {
        let connect = raw::connect(V5, "c").properties(props().four(39, 300));
        let mut raw = Raw::connect(broker.address(), &connect);
        raw.subscribe(topic, 1);
        let mut writer = broker.client(V5, "writer");
        writer.publish(topic, 1, &"x".repeat(400));
        writer.publish(topic, 1, "small");
        // The large one counts as delivered: the small one comes, and comes alone.
        assert_eq!(raw.delivery().text(), "small");
        raw.nothing();
    }
}

#[test]
fn an_acknowledgement_too_large_for_the_client_is_not_sent() {
    let broker = Broker::start();
    let connect = raw::connect(V5, "c").properties(props().four(39, 100));
    let mut raw = Raw::connect(broker.address(), &connect);
    let names: Vec<String> = (0..200).map(|n| format!("t/{n}")).collect();
    let filters: Vec<(&[u8], u8)> = names.iter().map(|name| (name.as_bytes(), 0)).collect();
    raw.send(&raw::subscribe(V5, 1, &props(), &filters));
    let words = raw.last_words();
    assert_eq!(
        (words.len(), words[0].first, words[0].reason()),
        (1, first::DISCONNECT, 0x95)
    );
    assert!(words[0].body.len() <= 98);
}

#[test]
fn a_client_that_takes_no_connack_is_not_sent_one() {
    let broker = Broker::start();
    for (size, answers) in [(4, 0), (5, 1), (20, 1)] {
        let connect = raw::connect(V5, "c").properties(props().four(39, size));
        let mut raw = Raw::open(broker.address(), V5);
        raw.send(&connect.bytes());
        let words = raw.last_words();
        assert_eq!(words.len(), answers, "{size}");
        for connack in words {
            assert_eq!(connack.reason(), 0x95);
            assert!(connack.body.len() + 2 <= size as usize);
        }
    }
}

#[test]
fn reasons_are_told_in_words_to_who_asks_and_takes_them() {
    let broker = Broker::start();
    let words = |properties| {
        let connect = raw::connect(V5, "c").properties(properties);
        let mut raw = Raw::connect(broker.address(), &connect);
        let id = raw.id();
        raw.send(&publish(V5, 2, b"$SYS/x", id, &props(), b"x"));
        let puback = raw.packet();
        assert_eq!((puback.first, puback.reason()), (first::PUBACK, 0x87));
        let told = !raw::values(&puback.properties(), 31).is_empty();
        raw.send(&packet(first::CONNACK, &[]));
        let disconnect = raw.packet();
        assert_eq!(disconnect.first, first::DISCONNECT);
        let told_at_the_end = !raw::values(&disconnect.properties(), 31).is_empty();
        (told, told_at_the_end)
    };
    assert_eq!(words(props()), (true, true));
    assert_eq!(words(props().byte(23, 1)), (true, true));
    assert_eq!(
        words(props().byte(23, 0)),
        (false, true),
        "DISCONNECT may tell all the same"
    );
    assert_eq!(words(props().four(39, 32)), (false, false), "no room");
}

#[test]
fn a_packet_larger_than_the_broker_takes_ends_the_connection() {
    let broker = Broker::start();
    for version in BOTH {
        let bytes = [first::PUBLISH, 0xFF, 0xFF, 0xFF, 0x7F];
        let reason = broker.client(version, "c").refused(&bytes);
        assert!(version == V311 || reason == 0x95);
    }
}
