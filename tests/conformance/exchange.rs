//! How a message changes hands at each quality of service: sections 3.4 to 3.7, 4.3 and 4.4.

use crate::raw::{self, BOTH, Raw, V5, V311, first, packet, props, publish};
use crate::{Broker, TOPICS};

fn with_id(kind: u8, id: u16) -> Vec<u8> {
    packet(kind, &id.to_be_bytes())
}

#[test]
fn qos_1_may_use_a_packet_id_again_once_it_is_acknowledged() {
    let broker = Broker::start();
    for version in BOTH {
        for topic in TOPICS {
            let mut raw = broker.client(version, "c");
            raw.subscribe(topic, 0);
            for text in ["one", "two"] {
                raw.send(&publish(
                    version,
                    2,
                    topic.as_bytes(),
                    7,
                    &props(),
                    text.as_bytes(),
                ));
                let mut two = [raw.packet(), raw.packet()];
                two.sort_by_key(|packet| packet.kind());
                assert_eq!(two[0].publish().text(), text);
                assert_eq!((two[1].first, two[1].pkid()), (first::PUBACK, 7));
            }
        }
    }
}

#[test]
fn acknowledgements_come_in_the_order_of_the_publishes() {
    let broker = Broker::start();
    for version in BOTH {
        let mut raw = broker.client(version, "c");
        let mut bytes = Vec::new();
        for id in 1..=50u16 {
            let topic = TOPICS[usize::from(id) % 2].as_bytes();
            bytes.extend(publish(version, 2, topic, id, &props(), b"x"));
        }
        raw.send(&bytes);
        for id in 1..=50 {
            assert_eq!(raw.answer(first::PUBACK, id), 0);
        }
    }
}

#[test]
fn a_qos_2_publish_is_passed_on_once_however_often_it_is_sent() {
    let broker = Broker::start();
    for version in BOTH {
        for topic in TOPICS {
            let mut reader = broker.client(version, "reader");
            reader.subscribe(topic, 1);
            let mut raw = broker.client(version, "c");
            let send = |flags| publish(version, flags, topic.as_bytes(), 7, &props(), b"x");
            raw.send(&send(4));
            assert_eq!(raw.answer(first::PUBREC, 7), 0);
            raw.send(&send(12));
            raw.answer(first::PUBREC, 7);
            raw.send(&with_id(first::PUBREL, 7));
            assert_eq!(raw.answer(first::PUBCOMP, 7), 0);
            assert_eq!(reader.delivery().qos, 1);
            reader.nothing();
            // Once it is complete the packet id stands for a new message.
            raw.send(&send(4));
            assert_eq!(raw.answer(first::PUBREC, 7), 0);
            raw.send(&with_id(first::PUBREL, 7));
            assert_eq!(raw.answer(first::PUBCOMP, 7), 0);
            assert_eq!(reader.delivery().text(), "x");
            reader.nothing();
        }
    }
}

#[test]
fn a_qos_2_publish_is_remembered_across_connections() {
    let broker = Broker::start();
    for version in BOTH {
        for topic in TOPICS {
            let mut reader = broker.client(version, "reader");
            reader.subscribe(topic, 1);
            let send = |flags| publish(version, flags, topic.as_bytes(), 7, &props(), b"x");
            let mut raw = broker.lasting(version, "c");
            raw.send(&send(4));
            assert_eq!(raw.answer(first::PUBREC, 7), 0);
            raw.vanish();
            let mut raw = broker.lasting(version, "c");
            raw.send(&send(12));
            raw.answer(first::PUBREC, 7);
            raw.send(&with_id(first::PUBREL, 7));
            assert_eq!(raw.answer(first::PUBCOMP, 7), 0);
            assert_eq!(reader.delivery().text(), "x");
            reader.nothing();
            raw.vanish();
            broker.client(version, "c").disconnect();
        }
    }
}

#[test]
fn a_pubrel_that_stands_for_nothing_is_answered() {
    let broker = Broker::start();
    for version in BOTH {
        let mut raw = broker.client(version, "c");
        raw.send(&with_id(first::PUBREL, 9));
        let reason = raw.answer(first::PUBCOMP, 9);
        assert_eq!(reason, if version == V5 { 0x92 } else { 0 });
    }
}

#[test]
fn a_qos_2_delivery_takes_its_four_packets() {
    let broker = Broker::start();
    for version in BOTH {
        let mut raw = broker.client(version, "c");
        assert_eq!(raw.subscribe(TOPICS[0], 2), 2);
        let mut writer = broker.client(version, "writer");
        writer.publish(TOPICS[0], 2, "x");
        let taken = raw.taken();
        assert_eq!((taken.qos, taken.dup), (2, false));
        assert!(taken.pkid > 0);
        raw.nothing();
        raw.send(&with_id(first::PUBREC, taken.pkid));
        assert_eq!(raw.answer(first::PUBREL, taken.pkid), 0);
        raw.nothing();
        raw.send(&with_id(first::PUBCOMP, taken.pkid));
        raw.nothing();
    }
}

#[test]
fn a_qos_2_delivery_goes_on_where_the_connection_broke() {
    let broker = Broker::start();
    for version in BOTH {
        let mut raw = broker.lasting(version, "c");
        raw.subscribe(TOPICS[0], 2);
        let mut writer = broker.client(version, "writer");
        for n in 0..3 {
            writer.publish(TOPICS[0], 2, &n.to_string());
        }
        let taken: Vec<_> = (0..3).map(|_| raw.taken()).collect();
        raw.send(&with_id(first::PUBREC, taken[0].pkid));
        raw.answer(first::PUBREL, taken[0].pkid);
        raw.vanish();
        let mut raw = broker.lasting(version, "c");
        // The first had come to PUBREL, the others come again: in the order of old.
        let mut again = vec![raw.packet(), raw.packet(), raw.packet()];
        let rel = again
            .iter()
            .position(|packet| packet.first == first::PUBREL);
        let rel = again.remove(rel.expect("PUBREL"));
        assert_eq!(rel.pkid(), taken[0].pkid);
        for (packet, before) in again.iter().zip(&taken[1..]) {
            let publish = packet.publish();
            assert_eq!((publish.pkid, publish.text()), (before.pkid, before.text()));
            assert!(publish.dup && publish.qos == 2);
        }
        raw.send(&with_id(first::PUBCOMP, taken[0].pkid));
        for before in &taken[1..] {
            raw.send(&with_id(first::PUBREC, before.pkid));
            raw.answer(first::PUBREL, before.pkid);
            raw.send(&with_id(first::PUBCOMP, before.pkid));
        }
        raw.nothing();
        raw.vanish();
        broker.client(version, "c").disconnect();
    }
}

#[test]
fn a_pubrec_that_refuses_ends_the_delivery() {
    let broker = Broker::start();
    let connect = raw::connect(V5, "c")
        .lasting()
        .properties(props().two(33, 1));
    let mut raw = Raw::connect(broker.address(), &connect);
    raw.subscribe(TOPICS[0], 2);
    let mut writer = broker.client(V5, "writer");
    writer.publish(TOPICS[0], 2, "refused");
    writer.publish(TOPICS[0], 2, "next");
    let id = raw.taken().pkid.to_be_bytes();
    raw.send(&packet(first::PUBREC, &[id[0], id[1], 0x83]));
    assert_eq!(raw.delivery().text(), "next");
    raw.vanish();
    let mut raw = Raw::connect(broker.address(), &connect);
    raw.nothing();
}

#[test]
fn a_refused_qos_2_publish_leaves_its_packet_id_free() {
    let broker = Broker::start();
    let mut raw = broker.client(V5, "c");
    raw.subscribe("house/hall", 0);
    for _ in 0..2 {
        raw.send(&publish(V5, 4, b"$SYS/x", 7, &props(), b"x"));
        assert_eq!(raw.answer(first::PUBREC, 7), 0x87);
    }
    raw.send(&publish(V5, 4, b"house/hall", 7, &props(), b"x"));
    let mut two = [raw.packet(), raw.packet()];
    two.sort_by_key(|packet| packet.kind());
    assert_eq!(two[0].publish().text(), "x");
    assert_eq!((two[1].first, two[1].reason()), (first::PUBREC, 0));
}

#[test]
fn a_qos_2_delivery_that_expires_under_way_is_completed() {
    let broker = Broker::start();
    let mut raw = broker.lasting(V5, "c");
    raw.subscribe(TOPICS[0], 2);
    broker
        .client(V5, "writer")
        .publish_with(TOPICS[0], 4, &props().four(2, 1), "x");
    let taken = raw.taken();
    raw.vanish();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let mut raw = broker.lasting(V5, "c");
    let again = raw.delivery();
    assert_eq!((again.pkid, again.dup), (taken.pkid, true));
}

#[test]
fn acknowledgements_with_wrong_reasons_end_the_connection() {
    let broker = Broker::start();
    for (kind, reason) in [
        (first::PUBACK, 0x92),
        (first::PUBREC, 0x01),
        (first::PUBREL, 0x10),
        (first::PUBCOMP, 0x97),
    ] {
        let bytes = packet(kind, &[0, 1, reason]);
        assert!(matches!(
            broker.client(V5, "c").refused(&bytes),
            0x81 | 0x82
        ));
        broker.client(V311, "c").refused(&bytes);
    }
}

#[test]
fn acknowledgements_of_every_form_are_taken() {
    let broker = Broker::start();
    let mut raw = broker.client(V5, "c");
    raw.subscribe(TOPICS[0], 1);
    let mut writer = broker.client(V5, "writer");
    for form in [
        &[][..],
        &[0],
        &[0x10],
        &[0, 0],
        &[0, 4, 31, 0, 1, b'x'],
        &[0x97, 0],
    ] {
        writer.publish(TOPICS[0], 1, "x");
        let mut body = raw.taken().pkid.to_be_bytes().to_vec();
        body.extend(form);
        raw.send(&packet(first::PUBACK, &body));
        raw.nothing();
    }
}

#[test]
fn answers_of_qos_2_come_in_the_order_of_what_they_answer() {
    let broker = Broker::start();
    for version in BOTH {
        let mut raw = broker.client(version, "c");
        let mut bytes = Vec::new();
        for id in 1..=20u16 {
            let topic = TOPICS[usize::from(id) % 2].as_bytes();
            bytes.extend(publish(version, 4, topic, id, &props(), b"x"));
        }
        raw.send(&bytes);
        for id in 1..=20 {
            assert_eq!(raw.answer(first::PUBREC, id), 0);
        }
        for id in 1..=20 {
            raw.send(&with_id(first::PUBREL, id));
        }
        for id in 1..=20 {
            assert_eq!(raw.answer(first::PUBCOMP, id), 0);
        }
        raw.subscribe(TOPICS[0], 2);
        let mut writer = broker.client(version, "writer");
        for _ in 0..10 {
            writer.publish(TOPICS[0], 2, "x");
        }
        let ids: Vec<u16> = (0..10).map(|_| raw.taken().pkid).collect();
        for id in &ids {
            raw.send(&with_id(first::PUBREC, *id));
        }
        for id in &ids {
            assert_eq!(raw.answer(first::PUBREL, *id), 0);
        }
    }
}

#[test]
fn a_qos_2_publish_that_expires_under_way_is_completed() {
    let broker = Broker::start();
    for topic in TOPICS {
        let mut raw = broker.client(V5, "c");
        let expiry = props().four(2, 1);
        raw.send(&publish(V5, 4, topic.as_bytes(), 7, &expiry, b"x"));
        assert_eq!(raw.answer(first::PUBREC, 7), 0);
        std::thread::sleep(std::time::Duration::from_millis(1100));
        raw.send(&with_id(first::PUBREL, 7));
        assert_eq!(raw.answer(first::PUBCOMP, 7), 0);
    }
}
