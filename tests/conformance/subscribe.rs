//! Subscriptions: sections 3.8 to 3.11 and 4.7.

use crate::raw::{self, BOTH, V5, V311, first, packet, props};
use crate::{Broker, TOPICS};

#[test]
fn a_subscribe_without_a_filter_ends_the_connection() {
    let broker = Broker::start();
    for version in BOTH {
        for bytes in [
            raw::subscribe(version, 1, &props(), &[]),
            raw::unsubscribe(version, 1, &[]),
        ] {
            let reason = broker.client(version, "c").refused(&bytes);
            assert!(version == V311 || reason == 0x82);
        }
    }
}

#[test]
fn reserved_options_of_a_subscription_end_the_connection() {
    let broker = Broker::start();
    for (version, options) in [
        (V311, &[3, 4, 8, 0x10, 0x40, 0x80, 0xFF][..]),
        (V5, &[3, 0x30, 0x40, 0x80, 0xFF]),
    ] {
        for options in options {
            let bytes = raw::subscribe(version, 1, &props(), &[(b"t", *options)]);
            broker.client(version, "c").refused(&bytes);
        }
    }
}

#[test]
fn a_subscribe_cut_short_ends_the_connection() {
    let broker = Broker::start();
    for version in BOTH {
        for whole in [
            raw::subscribe(version, 1, &props(), &[(b"a/b", 1)]),
            raw::unsubscribe(version, 1, &[b"a/b"]),
        ] {
            for length in 0..whole.len() - 2 {
                let bytes = packet(whole[0], &whole[2..][..length]);
                broker.client(version, "c").refused(&bytes);
            }
        }
    }
}

#[test]
fn each_filter_gets_its_code_in_order() {
    let broker = Broker::start();
    for version in BOTH {
        let mut raw = broker.client(version, "c");
        let filters: [(&[u8], u8); 5] =
            [(b"a", 0), (b"b/#/c", 1), (b"c", 1), (b"d+", 0), (b"e/+", 1)];
        let codes = raw.subscribe_with(&props(), &filters);
        let refused = if version == V5 { 0x8F } else { 0x80 };
        assert_eq!(codes, [0, refused, 1, refused, 1]);
        raw.publish("a", 1, "x");
        assert_eq!(raw.delivery().qos, 0);
        raw.send(&raw::unsubscribe(version, 9, &[b"a", b"unknown", b"e/+"]));
        let unsuback = raw.packet();
        assert_eq!((unsuback.first, unsuback.pkid()), (first::UNSUBACK, 9));
        let expected: &[u8] = if version == V5 { &[0, 0x11, 0] } else { &[] };
        assert_eq!(unsuback.codes(), expected);
        raw.publish("a", 1, "x");
        raw.publish("e/f", 1, "x");
        raw.publish("c", 0, "the one that is left");
        assert_eq!(raw.delivery().topic, "c");
    }
}

#[test]
fn a_filter_that_is_none_is_refused() {
    let broker = Broker::start();
    for version in BOTH {
        let mut raw = broker.client(version, "c");
        for filter in [
            "", "#/a", "a/#/b", "a#", "a/b#", "##", "+a", "a+/b", "a/+b", "++",
        ] {
            assert!(raw.subscribe(filter, 1) >= 0x80, "{filter}");
        }
    }
}

/// Filters, topics, and whether the one matches the other.
const MATCHES: [(&str, &str, bool); 28] = [
    ("a/b", "a/b", true),
    ("a/b", "a/B", false),
    ("a/b", "a/b/", false),
    ("a/b", "/a/b", false),
    ("#", "a", true),
    ("#", "/a//b", true),
    ("a/#", "a", true),
    ("a/#", "a/b/c", true),
    ("a/#", "ab", false),
    ("+", "a", true),
    ("+", "/a", false),
    ("+", "a/b", false),
    ("+/+", "/a", true),
    ("/+", "/a", true),
    ("a/+", "a/", true),
    ("a/+", "a", false),
    ("a/+/c", "a/b/c", true),
    ("a/+/c", "a//c", true),
    ("a/+/c", "a/b/b/c", false),
    ("+/b/#", "a/b", true),
    ("a//b", "a/b", false),
    ("#", "$x/a", false),
    ("+/a", "$x/a", false),
    ("$x/#", "$x/a", true),
    ("$x/+", "$x/a", true),
    ("a b", "a b", true),
    ("é", "e\u{301}", false),
    ("a/+", "a/\u{FEFF}", true),
];

#[test]
fn filters_match_as_they_should() {
    let broker = Broker::start();
    for version in BOTH {
        for (filter, topic, matches) in MATCHES {
            let mut raw = broker.client(version, "c");
            raw.subscribe(filter, 0);
            raw.subscribe("mark", 0);
            let send = |topic: &str| raw::publish(version, 0, topic.as_bytes(), 0, &props(), b"");
            raw.send(&send(topic));
            raw.send(&send("mark"));
            let expected = if matches { topic } else { "mark" };
            assert_eq!(raw.delivery().topic, expected, "{filter} {topic}");
        }
    }
}

#[test]
fn filters_match_durable_topics_as_they_should() {
    let broker = Broker::start();
    for (filter, device, matches) in [
        ("thinglog/logs/+/app", "lamp", true),
        ("thinglog/+/lamp/+", "lamp", true),
        ("+/+/+/+", "lamp", true),
        ("+/+/+", "lamp", false),
        ("thinglog/logs/#", "lamp", true),
        ("#", "lamp", true),
        ("thinglog/logs/lam", "lamp", false),
    ] {
        let mut raw = broker.client(V5, "c");
        raw.subscribe(filter, 1);
        raw.subscribe("thinglog/out/mark", 1);
        raw.publish_with(&format!("thinglog/logs/{device}/app"), 0, &props(), "");
        raw.publish_with("thinglog/out/mark", 0, &props(), "");
        let topic = raw.delivery().topic;
        assert_eq!(topic.ends_with("/app"), matches, "{filter}: {topic}");
        while matches && !raw.delivery().topic.ends_with("mark") {}
    }
}

#[test]
fn a_second_subscription_to_a_filter_replaces_the_first() {
    let broker = Broker::start();
    for version in BOTH {
        for topic in TOPICS {
            let mut raw = broker.client(version, "c");
            assert_eq!(raw.subscribe(topic, 1), 1);
            assert_eq!(raw.subscribe(topic, 0), 0);
            let mut writer = broker.client(version, "writer");
            writer.publish(topic, 1, "x");
            assert_eq!(raw.delivery().qos, 0);
            raw.nothing();
            raw.unsubscribe(topic);
            writer.publish(topic, 1, "x");
            raw.nothing();
        }
    }
}

#[test]
fn replacing_a_subscription_loses_nothing_that_waits() {
    let broker = Broker::start();
    for topic in TOPICS {
        let connect = raw::connect(V5, "c").properties(props().two(33, 1));
        let mut raw = raw::Raw::connect(broker.address(), &connect);
        raw.subscribe(topic, 1);
        let mut writer = broker.client(V5, "writer");
        for n in 0..5 {
            writer.publish(topic, 1, &n.to_string());
        }
        let first = raw.taken();
        raw.subscribe(topic, 1);
        raw.send(&packet(first::PUBACK, &first.pkid.to_be_bytes()));
        for n in 1..5 {
            assert_eq!(raw.delivery().text(), n.to_string());
        }
    }
}

#[test]
fn overlapping_subscriptions_bring_a_message_at_the_highest_qos() {
    let broker = Broker::start();
    for version in BOTH {
        for topic in TOPICS {
            let mut raw = broker.client(version, "c");
            let level = topic.rsplit_once('/').unwrap().0;
            raw.subscribe(topic, 0);
            raw.subscribe(&format!("{level}/#"), 1);
            raw.subscribe(&format!("{level}/+"), 0);
            broker.client(version, "writer").publish(topic, 1, "x");
            assert_eq!(raw.delivery().qos, 1);
            raw.nothing();
        }
    }
}

#[test]
fn all_subscription_identifiers_come_with_a_message() {
    let broker = Broker::start();
    for topic in TOPICS {
        let mut raw = broker.client(V5, "c");
        let level = topic.rsplit_once('/').unwrap().0;
        let wide = format!("{level}/#");
        raw.subscribe_with(&props().varint(11, 1), &[(topic.as_bytes(), 1)]);
        raw.subscribe_with(&props().varint(11, 268_435_455), &[(wide.as_bytes(), 0)]);
        raw.subscribe("#", 0);
        let ids = |raw: &mut raw::Raw| {
            broker.client(V5, "writer").publish(topic, 1, "x");
            let delivery = raw.delivery();
            let mut ids: Vec<usize> = delivery
                .values(11)
                .iter()
                .map(|id| raw::varint(id).0)
                .collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(ids(&mut raw), [1, 268_435_455]);
        raw.subscribe_with(&props().varint(11, 7), &[(topic.as_bytes(), 1)]);
        assert_eq!(
            ids(&mut raw),
            [7, 268_435_455],
            "replaced with its subscription"
        );
        raw.subscribe(topic, 1);
        assert_eq!(
            ids(&mut raw),
            [268_435_455],
            "and gone with a subscription without one"
        );
    }
}

#[test]
fn no_local_keeps_a_client_s_messages_from_itself() {
    let broker = Broker::start();
    for topic in TOPICS {
        let mut raw = broker.client(V5, "c");
        raw.subscribe(topic, 1 | 4);
        raw.publish(topic, 1, "own");
        broker.client(V5, "other").publish(topic, 1, "other's");
        assert_eq!(raw.delivery().text(), "other's");
        raw.nothing();
    }
}

#[test]
fn after_unsubscribe_nothing_new_comes_and_what_was_sent_is_completed() {
    let broker = Broker::start();
    for version in BOTH {
        for topic in TOPICS {
            let mut raw = broker.lasting(version, "c");
            raw.subscribe(topic, 1);
            let mut writer = broker.client(version, "writer");
            writer.publish(topic, 1, "begun");
            let begun = raw.taken();
            raw.unsubscribe(topic);
            writer.publish(topic, 1, "unheard");
            raw.nothing();
            raw.vanish();
            let mut raw = broker.lasting(version, "c");
            let again = raw.delivery();
            assert_eq!(
                (again.pkid, again.dup),
                (begun.pkid, true),
                "{version:?} {topic}"
            );
            raw.nothing();
            raw.vanish();
            broker.client(version, "c").disconnect();
        }
    }
}

#[test]
fn an_unsubscribe_compares_filters_letter_by_letter() {
    let broker = Broker::start();
    for version in BOTH {
        let mut raw = broker.client(version, "c");
        raw.subscribe("house/+", 0);
        for other in ["house/#", "house/hall", "House/+", "house/+/"] {
            raw.unsubscribe(other);
        }
        raw.publish("house/hall", 1, "x");
        assert_eq!(raw.delivery().text(), "x");
    }
}

#[test]
fn messages_do_not_come_before_their_subscription() {
    let broker = Broker::start();
    for version in BOTH {
        for topic in TOPICS {
            broker
                .client(version, "writer")
                .publish(topic, 1, "earlier");
            let mut raw = broker.client(version, "c");
            raw.subscribe(topic, 1);
            raw.nothing();
        }
    }
}

#[test]
fn many_overlapping_subscriptions_bring_all_their_identifiers() {
    let broker = Broker::start();
    for topic in TOPICS {
        let mut raw = broker.client(V5, "c");
        let mut filters = vec![topic.to_owned(), format!("{topic}/#"), "#".to_owned()];
        let levels: Vec<&str> = topic.split('/').collect();
        for n in 0..levels.len() {
            let mut some = levels.clone();
            some[n] = "+";
            filters.push(some.join("/"));
            filters.push(format!("{}/#", some.join("/")));
            filters.push(format!("{}/#", levels[..n].join("/")));
        }
        filters.retain(|filter| !filter.starts_with('/'));
        for (n, filter) in filters.iter().enumerate() {
            raw.subscribe_with(&props().varint(11, n + 1), &[(filter.as_bytes(), 1)]);
        }
        broker.client(V5, "writer").publish(topic, 1, "x");
        let delivery = raw.delivery();
        let mut ids: Vec<usize> = delivery
            .values(11)
            .iter()
            .map(|id| raw::varint(id).0)
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, (1..=filters.len()).collect::<Vec<_>>(), "{filters:?}");
        raw.nothing();
    }
}

#[test]
fn a_durable_filter_is_granted_at_most_qos_1() {
    let broker = Broker::start();
    for version in BOTH {
        let mut raw = broker.client(version, "c");
        assert_eq!(raw.subscribe(TOPICS[1], 2), 1);
        raw.publish(TOPICS[1], 2, "x");
        assert_eq!(raw.delivery().qos, 1);
    }
}
