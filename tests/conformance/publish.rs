//! PUBLISH: sections 3.3, 4.5 and 4.7 as far as one publish goes.

use crate::raw::{self, BOTH, Raw, V5, V311, first, packet, props, publish};
use crate::{Broker, TOPICS};

#[test]
fn qos_3_ends_the_connection() {
    let broker = Broker::start();
    for version in BOTH {
        let bytes = publish(version, 6, b"t", 1, &props(), b"x");
        broker.client(version, "c").refused(&bytes);
    }
}

#[test]
fn dup_at_qos_0_ends_the_connection() {
    let broker = Broker::start();
    for version in BOTH {
        let bytes = publish(version, 8, b"t", 0, &props(), b"x");
        broker.client(version, "c").refused(&bytes);
    }
}

#[test]
fn a_topic_name_with_a_wildcard_or_without_a_character_ends_the_connection() {
    let broker = Broker::start();
    for version in BOTH {
        for topic in ["", "#", "+", "a/#", "a/+/b", "a+", "thinglog/logs/+/x"] {
            for flags in [0, 2] {
                let bytes = publish(version, flags, topic.as_bytes(), 1, &props(), b"x");
                broker.client(version, "c").refused(&bytes);
            }
        }
    }
}

#[test]
fn a_publish_cut_short_ends_the_connection() {
    let broker = Broker::start();
    for version in BOTH {
        let body = [0, 3, b'a', b'/', b'b', 0, 7, 0];
        let whole = if version == V5 { 8 } else { 7 };
        for length in 0..whole {
            let bytes = packet(first::PUBLISH | 2, &body[..length]);
            broker.client(version, "c").refused(&bytes);
        }
    }
}

#[test]
fn dup_of_a_publish_is_not_passed_on() {
    let broker = Broker::start();
    for version in BOTH {
        for topic in TOPICS {
            let mut raw = broker.client(version, "c");
            raw.subscribe(topic, 1);
            raw.publish_with(topic, 8 | 2, &props(), "x");
            let delivery = raw.delivery();
            assert_eq!((delivery.qos, delivery.dup), (1, false));
        }
    }
}

#[test]
fn a_delivery_has_the_lower_qos_of_publish_and_subscription() {
    let broker = Broker::start();
    for version in BOTH {
        // A filter on durable topics is granted QoS 1 at most.
        for (topic, most) in [(TOPICS[0], 2), (TOPICS[1], 1)] {
            for asked in 0..3 {
                for published in 0..3 {
                    let mut raw = broker.client(version, "c");
                    let granted = raw.subscribe(topic, asked);
                    assert_eq!(granted, asked.min(most));
                    raw.publish(topic, published, "x");
                    assert_eq!(raw.delivery().qos, granted.min(published));
                }
            }
        }
    }
}

#[test]
fn an_empty_payload_is_a_message_like_any_other() {
    let broker = Broker::start();
    for version in BOTH {
        for topic in TOPICS {
            let mut raw = broker.client(version, "c");
            raw.subscribe(topic, 1);
            raw.publish(topic, 1, "");
            assert!(raw.delivery().payload.is_empty());
        }
    }
}

#[test]
fn topic_and_payload_come_as_they_were_sent() {
    let broker = Broker::start();
    for version in BOTH {
        let mut raw = broker.client(version, "c");
        raw.subscribe("#", 1);
        for topic in [
            "/",
            "//",
            "a//b",
            "/a",
            "a/",
            " ",
            "Ünï/日本",
            "A/B",
            "thinglog/logs/l//x",
        ] {
            let payload: Vec<u8> = (0..=255).collect();
            let id = raw.id();
            raw.send(&publish(
                version,
                2,
                topic.as_bytes(),
                id,
                &props(),
                &payload,
            ));
            // A delivery may overtake the acknowledgement of what it delivers.
            let mut two = [raw.packet(), raw.packet()];
            two.sort_by_key(|packet| packet.kind());
            let delivery = two[0].publish();
            assert_eq!(
                (delivery.topic.as_str(), &delivery.payload),
                (topic, &payload)
            );
            raw.send(&packet(first::PUBACK, &delivery.pkid.to_be_bytes()));
        }
    }
}

#[test]
fn a_topic_name_may_have_the_greatest_length() {
    let broker = Broker::start();
    for version in BOTH {
        let topic = "t".repeat(65_535);
        let mut raw = broker.client(version, "c");
        raw.subscribe("+", 1);
        raw.publish_with(&topic, 0, &props(), "x");
        assert_eq!(raw.delivery().topic, topic);
    }
}

#[test]
fn properties_come_unchanged_and_user_properties_in_order() {
    let broker = Broker::start();
    for topic in TOPICS {
        let mut raw = broker.client(V5, "c");
        raw.subscribe(topic, 1);
        let properties = props()
            .user("b", "2")
            .byte(1, 1)
            .bytes(3, b"text/plain")
            .user("a", "1")
            .bytes(8, b"answer/here")
            .bytes(9, &[0, 255])
            .user("b", "1")
            .user("b", "1");
        assert_eq!(raw.publish_with(topic, 2, &properties, "x"), 0);
        let delivery = raw.delivery();
        assert_eq!(delivery.values(1), [[1]]);
        assert_eq!(raw::text(delivery.values(3)[0]), "text/plain");
        assert_eq!(raw::text(delivery.values(8)[0]), "answer/here");
        assert_eq!(&delivery.values(9)[0][2..], [0, 255]);
        assert_eq!(
            delivery.values(38)[..4],
            [
                &b"\0\x01b\0\x012"[..],
                b"\0\x01a\0\x011",
                b"\0\x01b\0\x011",
                b"\0\x01b\0\x011"
            ]
        );
    }
}

#[test]
fn a_message_of_either_version_reaches_clients_of_the_other() {
    let broker = Broker::start();
    for topic in TOPICS {
        let mut new = broker.client(V5, "new");
        let mut old = broker.client(V311, "old");
        new.subscribe(topic, 1);
        old.subscribe(topic, 1);
        new.publish_with(topic, 0, &props().user("k", "v").four(2, 60), "from 5");
        assert_eq!(
            (old.delivery().text(), new.delivery().text()),
            ("from 5".into(), "from 5".into())
        );
        old.publish_with(topic, 0, &props(), "from 3");
        assert_eq!(
            (old.delivery().text(), new.delivery().text()),
            ("from 3".into(), "from 3".into())
        );
    }
}

#[test]
fn the_expiry_that_is_left_comes_with_a_message() {
    let broker = Broker::start();
    for topic in TOPICS {
        let mut raw = broker.lasting(V5, "c");
        raw.subscribe(topic, 1);
        raw.vanish();
        let mut writer = broker.client(V5, "writer");
        writer.publish_with(topic, 2, &props().four(2, 1), "short");
        writer.publish_with(topic, 2, &props().four(2, 3600), "long");
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let mut raw = broker.lasting(V5, "c");
        let delivery = raw.delivery();
        assert_eq!(delivery.text(), "long", "the other one is over");
        let left = raw::number(delivery.values(2)[0]);
        assert!((3500..3600).contains(&left), "{left}");
        raw.vanish();
        broker.client(V5, "c").disconnect();
    }
}

#[test]
fn a_topic_alias_stands_for_its_topic_within_its_connection() {
    let broker = Broker::start();
    for topic in TOPICS {
        let mut reader = broker.client(V5, "reader");
        reader.subscribe("#", 1);
        let mut writer = broker.client(V5, "writer");
        assert_eq!(writer.publish_with(topic, 2, &props().two(35, 1), "1"), 0);
        assert_eq!(writer.publish_with("", 2, &props().two(35, 1), "2"), 0);
        assert_eq!(writer.publish_with("other", 2, &props().two(35, 1), "3"), 0);
        assert_eq!(writer.publish_with("", 2, &props().two(35, 1), "4"), 0);
        let mut got: Vec<_> = (0..4).map(|_| reader.delivery()).collect();
        got.sort_by_key(|delivery| delivery.text());
        let topics: Vec<&str> = got.iter().map(|delivery| delivery.topic.as_str()).collect();
        assert_eq!(topics, [topic, topic, "other", "other"]);
        assert!(got.iter().all(|delivery| delivery.values(35).is_empty()));
        writer.vanish();
        let bytes = publish(V5, 0, b"", 0, &props().two(35, 1), b"x");
        assert!(matches!(
            broker.client(V5, "writer").refused(&bytes),
            0x82 | 0x94
        ));
    }
}

#[test]
fn every_topic_alias_up_to_the_maximum_is_taken_and_none_beyond() {
    let broker = Broker::start();
    let (mut raw, connack) = Raw::connack(broker.address(), &raw::connect(V5, "c"));
    let most = raw::number(raw::values(&connack.properties(), 34)[0]) as u16;
    for alias in 1..=most {
        let topic = format!("t/{alias}");
        assert_eq!(raw.publish_with(&topic, 2, &props().two(35, alias), "x"), 0);
    }
    for alias in 1..=most {
        assert_eq!(raw.publish_with("", 2, &props().two(35, alias), "x"), 0);
    }
    for alias in [0, most + 1] {
        let bytes = publish(V5, 0, b"t", 0, &props().two(35, alias), b"x");
        assert_eq!(broker.client(V5, "d").refused(&bytes), 0x94);
    }
}

#[test]
fn topic_aliases_towards_a_client_stay_within_its_maximum() {
    let broker = Broker::start();
    for topic in TOPICS {
        let mut writer = broker.client(V5, "writer");
        for most in [0u16, 1, 3] {
            let mut connect = raw::connect(V5, "reader");
            if most > 0 {
                connect = connect.properties(props().two(34, most));
            }
            let mut reader = Raw::connect(broker.address(), &connect);
            reader.subscribe(&format!("{topic}/#"), 1);
            let mut known: Vec<Option<String>> = vec![None; usize::from(most)];
            let mut saved = 0;
            for n in 0..24 {
                let full = format!("{topic}/{}", [0, 1, 0, 2, 0, 3][n % 6]);
                writer.publish(&full, (n / 2 % 2) as u8, "x");
                let delivery = reader.delivery();
                let alias = delivery
                    .values(35)
                    .first()
                    .map(|value| raw::number(value) as usize);
                if let Some(alias) = alias {
                    assert!(
                        (1..=usize::from(most)).contains(&alias),
                        "alias {alias} of {most}"
                    );
                    if !delivery.topic.is_empty() {
                        known[alias - 1] = Some(delivery.topic.clone());
                    }
                }
                let topic = match delivery.topic.as_str() {
                    "" => {
                        saved += 1;
                        known[alias.unwrap() - 1].clone().unwrap()
                    }
                    topic => topic.to_owned(),
                };
                assert_eq!(topic, full);
            }
            assert!(most < 3 || saved > 6, "aliases are of use");
            reader.vanish();
        }
    }
}

#[test]
fn what_a_client_publishes_to_itself_comes_back() {
    let broker = Broker::start();
    for version in BOTH {
        for topic in TOPICS {
            let mut raw = broker.client(version, "c");
            raw.subscribe(topic, 0);
            raw.publish(topic, 1, "x");
            assert_eq!(raw.delivery().text(), "x");
        }
    }
}

#[test]
fn a_publish_that_may_not_be_is_told_to_version_5_and_ends_3_1_1() {
    let broker = Broker::start();
    for topic in ["$SYS/broker/clients", "$SYS/x"] {
        let reason = broker.client(V5, "c").publish_with(topic, 2, &props(), "x");
        assert_eq!(reason, 0x87);
        let bytes = publish(V311, 2, topic.as_bytes(), 1, &props(), b"x");
        broker.client(V311, "c").refused(&bytes);
    }
}

#[test]
fn requests_and_responses_find_each_other() {
    let broker = Broker::start();
    let asking = raw::connect(V5, "asking").properties(props().byte(25, 1));
    let (mut asking, connack) = Raw::connack(broker.address(), &asking);
    let place = raw::text(raw::values(&connack.properties(), 26)[0]).to_owned();
    asking.subscribe(&format!("{place}/#"), 1);
    let mut serving = broker.client(V5, "serving");
    serving.subscribe("service", 1);
    let answer_to = format!("{place}/1");
    let request = props().bytes(8, answer_to.as_bytes()).bytes(9, b"42");
    asking.publish_with("service", 2, &request, "question");
    let request = serving.delivery();
    let answer_to = raw::text(request.values(8)[0]).to_owned();
    let matching = props().bytes(9, &request.values(9)[0][2..]);
    serving.publish_with(&answer_to, 2, &matching, "answer");
    let response = asking.delivery();
    assert_eq!(response.text(), "answer");
    assert_eq!(&response.values(9)[0][2..], b"42");
}
