//! Shared subscriptions: section 4.8.2.

use crate::raw::{self, Raw, V5, first, packet, props};
use crate::{Broker, TOPICS};

fn shared(topic: &str) -> String {
    format!("$share/group/{topic}")
}

#[test]
fn each_message_of_a_group_goes_to_one_member() {
    let broker = Broker::start();
    for topic in TOPICS {
        let mut members = ["a", "b"].map(|id| broker.client(V5, id));
        for member in &mut members {
            assert_eq!(member.subscribe(&shared(topic), 1), 1);
        }
        let mut alone = broker.client(V5, "alone");
        alone.subscribe(topic, 1);
        let mut writer = broker.client(V5, "writer");
        for n in 0..10u8 {
            writer.publish(topic, 1, &n.to_string());
        }
        for n in 0..10u8 {
            assert_eq!(
                alone.delivery().text(),
                n.to_string(),
                "an ordinary one gets all"
            );
        }
        let mut got = Vec::new();
        for member in &mut members {
            got.extend(member.drain().iter().map(|delivery| delivery.text()));
        }
        got.sort();
        let all: Vec<String> = (0..10u8).map(|n| n.to_string()).collect();
        assert_eq!(got, all);
    }
}

#[test]
fn a_shared_filter_has_a_name_and_a_filter() {
    let broker = Broker::start();
    let mut raw = broker.client(V5, "c");
    for filter in [
        "$share/",
        "$share//t",
        "$share/group",
        "$share/group/",
        "$share/gr+up/t",
        "$share/group#/t",
        "$share/group/t#",
    ] {
        assert_eq!(raw.subscribe(filter, 1), 0x8F, "{filter}");
    }
}

#[test]
fn a_member_of_a_group_gets_the_qos_it_was_granted() {
    let broker = Broker::start();
    for topic in TOPICS {
        for granted in 0..2 {
            let mut raw = broker.client(V5, "c");
            assert_eq!(raw.subscribe(&shared(topic), granted), granted);
            broker.client(V5, "writer").publish(topic, 1, "x");
            assert_eq!(raw.delivery().qos, granted);
        }
    }
}

#[test]
fn a_shared_subscription_brings_no_retained_messages() {
    let broker = Broker::start();
    broker.client(V5, "writer").retain(TOPICS[0], 1, "kept");
    let mut raw = broker.client(V5, "c");
    raw.subscribe(&shared(TOPICS[0]), 1);
    raw.nothing();
}

/// A member that has taken one message at `qos` and not acknowledged it, and another that came later.
fn one_under_way(broker: &Broker, topic: &str, qos: u8) -> (Raw, raw::Publish, Raw) {
    let mut member = broker.lasting(V5, "member");
    member.subscribe(&shared(topic), qos);
    broker.client(V5, "writer").publish(topic, qos, "x");
    let taken = member.taken();
    let mut other = broker.client(V5, "other");
    other.subscribe(&shared(topic), qos);
    (member, taken, other)
}

#[test]
fn a_qos_2_delivery_of_a_group_is_completed_with_its_member() {
    let broker = Broker::start();
    let (member, taken, mut other) = one_under_way(&broker, TOPICS[0], 2);
    member.vanish();
    other.nothing();
    let mut member = broker.lasting(V5, "member");
    let again = member.delivery();
    assert_eq!((again.pkid, again.dup), (taken.pkid, true));
    member.unsubscribe(&shared(TOPICS[0]));
    member.vanish();
    broker.client(V5, "member").disconnect();
    drop(other);
    let (member, _, mut other) = one_under_way(&broker, TOPICS[0], 2);
    member.vanish();
    broker.client(V5, "member").disconnect();
    other.nothing();
}

#[test]
fn a_delivery_that_a_member_refuses_goes_to_nobody_else() {
    let broker = Broker::start();
    for topic in TOPICS {
        let (mut member, taken, mut other) = one_under_way(&broker, topic, 1);
        let id = taken.pkid.to_be_bytes();
        member.send(&packet(first::PUBACK, &[id[0], id[1], 0x83]));
        member.nothing();
        other.nothing();
        member.vanish();
        broker.client(V5, "member").disconnect();
        other.nothing();
    }
}

#[test]
fn a_shared_subscription_with_no_local_is_a_protocol_error() {
    let broker = Broker::start();
    let bytes = raw::subscribe(V5, 1, &props(), &[(b"$share/group/t", 1 | 4)]);
    assert_eq!(broker.client(V5, "c").refused(&bytes), 0x82);
}
