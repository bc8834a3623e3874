//! Properties of version 5 (section 2.2.2): which may stand where, how often, and within their block.

use crate::Broker;
use crate::raw::{self, Props, Raw, V5, first, packet, props, publish};

/// A valid property of every identifier there is.
fn every_property() -> Vec<(u8, Props)> {
    let text = |id| (id, props().bytes(id, b"t"));
    let mut list: Vec<(u8, Props)> = [3, 8, 9, 18, 21, 22, 26, 28, 31].map(text).into();
    list.extend([1, 23, 25, 36, 37, 40, 41, 42].map(|id| (id, props().byte(id, 1))));
    list.extend([19, 33, 34, 35].map(|id| (id, props().two(id, 1))));
    list.extend([2, 17, 24, 39].map(|id| (id, props().four(id, 1000))));
    list.push((11, props().varint(11, 1)));
    list.push((38, props().user("k", "v")));
    list
}

fn with_block(head: &[u8], properties: &Props, tail: &[u8]) -> Vec<u8> {
    let mut body = head.to_vec();
    raw::put_varint(&mut body, properties.0.len());
    body.extend(&properties.0);
    body.extend(tail);
    body
}

/// A packet of each type that carries properties, with these; what may stand there.
fn packets(properties: &Props) -> Vec<(Vec<u8>, &'static [u8])> {
    let ack = with_block(&[0, 1, 0], properties, &[]);
    vec![
        (
            publish(V5, 0, b"t", 0, properties, b""),
            &[1, 2, 3, 8, 9, 35, 38],
        ),
        (packet(first::PUBACK, &ack), &[31, 38]),
        (packet(first::PUBREC, &ack), &[31, 38]),
        (packet(first::PUBREL, &ack), &[31, 38]),
        (packet(first::PUBCOMP, &ack), &[31, 38]),
        (raw::subscribe(V5, 1, properties, &[(b"t", 0)]), &[11, 38]),
        (
            packet(
                first::UNSUBSCRIBE,
                &with_block(&[0, 1], properties, b"\0\x01t"),
            ),
            &[38],
        ),
        (
            packet(first::DISCONNECT, &with_block(&[0], properties, &[])),
            &[17, 31, 38],
        ),
    ]
}

#[test]
fn a_property_where_it_does_not_belong_ends_the_connection() {
    let broker = Broker::start();
    for (id, property) in every_property() {
        for (bytes, allowed) in packets(&property) {
            if !allowed.contains(&id) {
                let reason = broker.client(V5, "c").refused(&bytes);
                assert!(matches!(reason, 0x81 | 0x82), "{bytes:02x?}: {reason:#x}");
            }
        }
    }
}

#[test]
fn an_unknown_property_ends_the_connection() {
    let broker = Broker::start();
    for id in [0, 4, 99, 200] {
        for (bytes, _) in packets(&props().byte(id, 1)) {
            assert_eq!(broker.client(V5, "c").refused(&bytes), 0x81);
        }
    }
}

#[test]
fn a_property_that_comes_twice_is_a_protocol_error() {
    let broker = Broker::start();
    for (id, property) in every_property().into_iter().filter(|(id, _)| *id != 38) {
        let mut twice = property.clone();
        twice.0.extend(&property.0);
        for (bytes, allowed) in packets(&twice) {
            // Session expiry at DISCONNECT is an error of its own in a session that has none.
            if allowed.contains(&id) && id != 17 {
                assert_eq!(broker.client(V5, "c").refused(&bytes), 0x82, "{bytes:02x?}");
            }
        }
    }
}

#[test]
fn properties_that_cross_their_packet_end_the_connection() {
    let broker = Broker::start();
    for bytes in [
        &[first::PUBLISH, 4, 0, 1, b't', 5][..],
        &[first::PUBLISH, 9, 0, 1, b't', 3, 2, 0, 0, 0, 9], // the property crosses its block
        &[first::PUBACK, 4, 0, 1, 0, 3],
        &[first::DISCONNECT, 2, 0, 9],
        &[first::SUBSCRIBE, 8, 0, 1, 1, 11, 0, 1, b't', 0],
    ] {
        assert_eq!(broker.client(V5, "c").refused(bytes), 0x81, "{bytes:02x?}");
    }
}

#[test]
fn connect_takes_its_own_properties_once_and_no_others() {
    const ALLOWED: [u8; 9] = [17, 21, 22, 23, 25, 33, 34, 38, 39];
    const OF_WILL: [u8; 7] = [1, 2, 3, 8, 9, 24, 38];
    let broker = Broker::start();
    let refusal = |connect: raw::Connect| {
        let mut raw = Raw::open(broker.address(), V5);
        raw.send(&connect.bytes());
        let words = raw.last_words();
        assert_eq!(words.len(), 1, "{words:02x?}");
        assert_eq!(words[0].first, first::CONNACK);
        words[0].reason()
    };
    for (id, property) in every_property() {
        let connect = || raw::connect(V5, "c");
        let with_will = |property: &Props| {
            let mut will = raw::will("t", "x");
            will.properties = property.clone();
            connect().will(will)
        };
        let mut twice = property.clone();
        twice.0.extend(&property.0);
        if !ALLOWED.contains(&id) {
            assert_eq!(
                refusal(connect().properties(property.clone())),
                0x81,
                "{id}"
            );
        } else if id != 38 {
            assert_eq!(
                refusal(connect().properties(twice.clone())),
                0x82,
                "{id} twice"
            );
        }
        if !OF_WILL.contains(&id) {
            assert_eq!(refusal(with_will(&property)), 0x81, "{id} of a will");
        } else if id != 38 {
            assert_eq!(refusal(with_will(&twice)), 0x82, "{id} of a will twice");
        }
    }
}

#[test]
fn values_out_of_range_are_protocol_errors() {
    let broker = Broker::start();
    for property in [
        props().two(33, 0),
        props().four(39, 0),
        props().byte(23, 2),
        props().byte(25, 2),
        props().bytes(22, b"data without a method"),
    ] {
        let (mut raw, connack) = Raw::connack(
            broker.address(),
            &raw::connect(V5, "c").properties(property),
        );
        assert_eq!(connack.reason(), 0x82);
        assert!(raw.last_words().is_empty());
    }
    for (property, reason) in [
        (props().byte(1, 2), 0x82),
        (props().two(35, 0), 0x94),
        (props().varint(11, 1), 0x82),
        (props().bytes(8, b"a/+"), 0x82),
        (props().bytes(8, b"a/#"), 0x82),
    ] {
        let bytes = publish(V5, 0, b"t", 0, &property, b"");
        assert_eq!(
            broker.client(V5, "c").refused(&bytes),
            reason,
            "{bytes:02x?}"
        );
    }
    let zero = raw::subscribe(V5, 1, &props().varint(11, 0), &[(b"t", 0)]);
    assert_eq!(broker.client(V5, "c").refused(&zero), 0x82);
}
