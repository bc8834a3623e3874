//! Chapters 1 and 2: strings, lengths, reserved bits, packet ids.

use crate::raw::{self, BOTH, Raw, V5, V311, first, packet, props, publish};
use crate::{Broker, TOPICS};

/// Every field that has to be text, holding `bad`: whole packets for a connected client.
fn packets_with(version: raw::Version, bad: &[u8]) -> Vec<Vec<u8>> {
    let mut packets = vec![
        publish(version, 2, bad, 1, &props(), b"x"),
        raw::subscribe(version, 1, &props(), &[(bad, 0)]),
        raw::unsubscribe(version, 1, &[bad]),
    ];
    if version == V5 {
        for id in [3, 8] {
            let properties = props().bytes(id, bad);
            packets.push(publish(V5, 0, b"t", 0, &properties, b""));
        }
        let mut pair = props();
        for half in [b"key".as_slice(), bad] {
            if half == bad {
                raw::put_bytes(&mut pair.0, half);
            } else {
                pair = pair.bytes(38, half);
            }
        }
        packets.push(publish(V5, 0, b"t", 0, &pair, b""));
        let mut swapped = props().bytes(38, bad);
        raw::put_bytes(&mut swapped.0, b"value");
        packets.push(raw::subscribe(V5, 1, &swapped, &[(b"t", 0)]));
        let mut body = vec![0];
        let reason = props().bytes(31, bad);
        body.push(reason.0.len() as u8);
        body.extend(&reason.0);
        packets.push(packet(first::DISCONNECT, &body));
    }
    packets
}

/// CONNECTs with `bad` in each field of text.
fn connects_with(version: raw::Version, bad: &[u8]) -> Vec<raw::Connect> {
    let plain = raw::connect(version, "c");
    let mut with_id = plain.clone();
    with_id.id = bad.to_vec();
    let mut will = raw::will("t", "x");
    will.topic = bad.to_vec();
    let with_will = plain.clone().will(will);
    let mut with_user = plain;
    with_user.username = Some(bad.to_vec());
    vec![with_id, with_will, with_user]
}

fn no_text_may_hold(bad: &[u8]) {
    let broker = Broker::start();
    for version in BOTH {
        for bytes in packets_with(version, bad) {
            let reason = broker.client(version, "c").refused(&bytes);
            assert!(
                version == V311 || reason == 0x81,
                "{bytes:02x?}: {reason:#x}"
            );
        }
        for connect in connects_with(version, bad) {
            let mut raw = Raw::open(broker.address(), version);
            raw.send(&connect.bytes());
            match (version, raw.last_words().as_slice()) {
                (V311, []) => {}
                (V5, [connack]) => assert_eq!(connack.reason(), 0x81),
                (_, words) => panic!("{words:02x?}"),
            }
        }
    }
}

#[test]
fn ill_formed_utf8_ends_the_connection() {
    for bad in [
        &[0xED, 0xA0, 0x80][..],   // U+D800
        &[0xED, 0xBF, 0xBF],       // U+DFFF
        &[0xC0, 0x80],             // U+0000, too long
        &[b'a', 0xE2, 0x82],       // cut short
        &[0xF4, 0x90, 0x80, 0x80], // beyond U+10FFFF
    ] {
        no_text_may_hold(bad);
    }
}

#[test]
fn u_0000_in_text_ends_the_connection() {
    no_text_may_hold(b"a\0b");
}

#[test]
fn u_feff_is_a_character_like_any_other() {
    let broker = Broker::start();
    for version in BOTH {
        let mut raw = broker.client(version, "c");
        raw.subscribe("\u{FEFF}a", 1);
        raw.publish("a", 0, "without");
        raw.publish_with("\u{FEFF}a", 0, &props(), "with");
        let delivery = raw.delivery();
        assert_eq!(
            (delivery.topic.as_str(), delivery.text().as_str()),
            ("\u{FEFF}a", "with")
        );
    }
}

#[test]
fn a_length_takes_no_more_bytes_than_it_needs() {
    let broker = Broker::start();
    let long = [
        &[first::PINGREQ, 0x80, 0][..],                  // the packet's
        &[first::PUBLISH, 6, 0, 1, b't', 0x80, 0, b'x'], // the properties'
        &[first::SUBSCRIBE, 9, 0, 1, 3, 11, 0x81, 0, 0, 1, b't', 0], // an identifier's
    ];
    for bytes in long {
        assert_eq!(broker.client(V5, "c").refused(bytes), 0x81, "{bytes:02x?}");
    }
}

#[test]
fn a_length_of_more_than_four_bytes_ends_the_connection() {
    let broker = Broker::start();
    for version in BOTH {
        let endless = [first::PUBLISH, 0xFF, 0xFF, 0xFF, 0xFF, 1];
        broker.client(version, "c").refused(&endless);
    }
}

#[test]
fn reserved_flags_of_a_fixed_header_end_the_connection() {
    let broker = Broker::start();
    for version in BOTH {
        let mut subscribe = raw::subscribe(version, 1, &props(), &[(b"t", 0)]);
        let mut unsubscribe = raw::unsubscribe(version, 1, &[b"t"]);
        for flags in (0..16).filter(|flags| *flags != 2) {
            subscribe[0] = 0x80 | flags;
            unsubscribe[0] = 0xA0 | flags;
            for bytes in [&subscribe, &unsubscribe, &packet(0x60 | flags, &[0, 1])] {
                broker.client(version, "c").refused(bytes);
            }
        }
        for kind in [first::PUBACK, first::PUBREC, first::PUBCOMP] {
            broker
                .client(version, "c")
                .refused(&packet(kind | 2, &[0, 1]));
        }
        for kind in [first::PINGREQ, first::DISCONNECT, first::AUTH] {
            broker.client(version, "c").refused(&packet(kind | 1, &[]));
        }
        let mut connect = raw::connect(version, "c").bytes();
        connect[0] |= 1;
        let mut raw = Raw::open(broker.address(), version);
        raw.send(&connect);
        assert!(raw.last_words().is_empty());
    }
}

#[test]
fn packets_that_only_a_server_sends_end_the_connection() {
    let broker = Broker::start();
    for version in BOTH {
        for bytes in [
            packet(0x00, &[]),
            packet(first::CONNACK, &[0, 0]),
            packet(first::SUBACK, &[0, 1, 0]),
            packet(first::UNSUBACK, &[0, 1]),
            packet(first::PINGRESP, &[]),
        ] {
            broker.client(version, "c").refused(&bytes);
        }
    }
}

#[test]
fn packet_id_0_ends_the_connection() {
    let broker = Broker::start();
    for version in BOTH {
        for bytes in [
            publish(version, 2, b"t", 0, &props(), b"x"),
            publish(version, 4, b"t", 0, &props(), b"x"),
            raw::subscribe(version, 0, &props(), &[(b"t", 0)]),
            raw::unsubscribe(version, 0, &[b"t"]),
        ] {
            broker.client(version, "c").refused(&bytes);
        }
    }
}

#[test]
fn a_delivery_at_qos_0_has_no_packet_id() {
    let broker = Broker::start();
    for version in BOTH {
        for topic in TOPICS {
            let mut raw = broker.client(version, "c");
            raw.subscribe(topic, 0);
            raw.publish(topic, 1, "x");
            let delivery = raw.delivery();
            // With a packet id the payload would begin with it.
            assert_eq!((delivery.qos, delivery.text().as_str()), (0, "x"));
            assert!(!delivery.dup);
        }
    }
}

#[test]
fn packet_ids_of_what_is_not_acknowledged_differ() {
    let broker = Broker::start();
    for version in BOTH {
        let mut raw = broker.client(version, "reader");
        let mut writer = broker.client(version, "writer");
        for topic in TOPICS {
            raw.subscribe(topic, 1);
        }
        let mut ids = std::collections::BTreeSet::new();
        for n in 0..20 {
            writer.publish(TOPICS[n % 2], 1, "x");
            let publish = raw.taken();
            assert_eq!((publish.qos, publish.dup), (1, false));
            assert!(publish.pkid > 0 && ids.insert(publish.pkid));
        }
    }
}

#[test]
fn an_acknowledgement_has_the_packet_id_of_what_it_acknowledges() {
    let broker = Broker::start();
    for version in BOTH {
        let mut raw = broker.client(version, "c");
        for id in [1, 7, 65_535] {
            raw.send(&raw::subscribe(version, id, &props(), &[(b"t", 1)]));
            raw.answer(first::SUBACK, id);
            for topic in ["u", TOPICS[1]] {
                raw.send(&publish(version, 2, topic.as_bytes(), id, &props(), b"x"));
                assert_eq!(raw.answer(first::PUBACK, id), 0);
            }
            raw.send(&raw::unsubscribe(version, id, &[b"t"]));
            raw.answer(first::UNSUBACK, id);
        }
    }
}
