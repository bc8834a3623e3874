//! Sections 3.1, 3.2, 3.12, 3.14 and 3.15: how a connection begins and ends.

use crate::Broker;
use crate::raw::{self, BOTH, Raw, V5, V311, Version, first, packet, props, publish};

/// What the broker answers to a CONNECT that it refuses: the code, or nothing.
#[track_caller]
fn refusal(broker: &Broker, version: Version, connect: &[u8]) -> Option<u8> {
    let mut raw = Raw::open(broker.address(), version);
    raw.send(connect);
    let words = raw.last_words();
    assert!(words.len() <= 1, "{words:02x?}");
    words.first().map(|connack| {
        assert_eq!((connack.first, connack.body[0]), (first::CONNACK, 0));
        assert_ne!(connack.reason(), 0, "accepted");
        connack.reason()
    })
}

#[test]
fn the_first_packet_has_to_be_connect() {
    let broker = Broker::start();
    for version in BOTH {
        for bytes in [
            packet(first::PINGREQ, &[]),
            publish(version, 0, b"t", 0, &props(), b"x"),
            packet(first::DISCONNECT, &[]),
            packet(first::AUTH, &[]),
        ] {
            assert_eq!(refusal(&broker, version, &bytes), None);
        }
    }
}

#[test]
fn a_second_connect_ends_the_connection() {
    let broker = Broker::start();
    for version in BOTH {
        let again = raw::connect(version, "c").bytes();
        let reason = broker.client(version, "c").refused(&again);
        assert!(version == V311 || reason == 0x82);
    }
}

#[test]
fn another_protocol_name_or_level_is_refused() {
    let broker = Broker::start();
    let with = |name: &[u8], level: u8| {
        let mut body = Vec::new();
        raw::put_bytes(&mut body, name);
        body.extend([level, 2, 0, 60]);
        if level > 4 {
            body.push(0);
        }
        raw::put_bytes(&mut body, b"c");
        packet(first::CONNECT, &body)
    };
    assert_eq!(refusal(&broker, V311, &with(b"MQTT", 3)), Some(1));
    assert_eq!(refusal(&broker, V311, &with(b"MQIsdp", 3)), Some(1));
    assert_eq!(refusal(&broker, V5, &with(b"MQTT", 6)), Some(0x84));
    for name in [&b"mqtt"[..], b"MQT", b"MQTTT", b"HTTP", b""] {
        assert_eq!(refusal(&broker, V311, &with(name, 4)), None);
    }
}

#[test]
fn flags_of_connect_have_to_fit_each_other_and_the_fields() {
    let broker = Broker::start();
    for version in BOTH {
        let plain = raw::connect(version, "c");
        let with_will = plain.clone().will(raw::will("t", "x"));
        let mut wrong = vec![
            plain.bytes_with(0x03),     // reserved
            plain.bytes_with(0x0A),     // will QoS 1 without a will
            plain.bytes_with(0x12),     // will QoS 2 without a will
            plain.bytes_with(0x22),     // will retain without a will
            plain.bytes_with(0x06),     // a will that is not there
            plain.bytes_with(0x82),     // a user name that is not there
            plain.bytes_with(0xC2),     // a user name and a password that are not there
            with_will.bytes_with(0x1E), // will QoS 3
            with_will.bytes_with(0x02), // a will that is not announced
        ];
        let mut with_user = plain.clone();
        with_user.username = Some(b"user".to_vec());
        wrong.push(with_user.bytes_with(0x02)); // a user name that is not announced
        wrong.push(with_user.bytes_with(0xC2)); // a password that is not there
        with_user.password = Some(b"secret".to_vec());
        wrong.push(with_user.bytes_with(0x82)); // a password that is not announced
        for bytes in wrong {
            let answer = refusal(&broker, version, &bytes);
            let expected = (version == V5).then_some(0x81);
            assert_eq!(answer, expected, "{bytes:02x?}");
        }
    }
}

#[test]
fn only_version_5_takes_a_password_without_a_user_name() {
    let broker = Broker::start();
    let mut connect = raw::connect(V311, "c");
    connect.password = Some(vec![0, 0xFF]);
    assert_eq!(refusal(&broker, V311, &connect.bytes()), None);
    connect.version = V5;
    Raw::connect(broker.address(), &connect).ping();
}

#[test]
fn a_password_may_be_any_bytes() {
    let broker = Broker::start();
    for version in BOTH {
        let mut connect = raw::connect(version, "c");
        connect.username = Some(b"user".to_vec());
        connect.password = Some(vec![0, 0xFF, 0xC0]);
        Raw::connect(broker.address(), &connect).ping();
    }
}

#[test]
fn a_connect_cut_short_or_with_more_than_its_fields_is_refused() {
    let broker = Broker::start();
    for version in BOTH {
        let whole = raw::connect(version, "client")
            .will(raw::will("t", "x"))
            .bytes();
        for length in 2..whole.len() - 2 {
            let short = packet(first::CONNECT, &whole[2..][..length - 2]);
            let answer = refusal(&broker, version, &short);
            assert!(matches!(answer, None | Some(0x81)), "{length}: {answer:?}");
        }
        let mut long = whole[2..].to_vec();
        long.extend([0, 1, b'x']);
        let answer = refusal(&broker, version, &packet(first::CONNECT, &long));
        assert_eq!(answer, (version == V5).then_some(0x81));
    }
}

#[test]
fn every_client_id_of_the_least_that_servers_take_is_taken() {
    let broker = Broker::start();
    let letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for version in BOTH {
        for id in [
            &letters[..1],
            &letters[..23],
            &letters[23..46],
            &letters[39..],
        ] {
            broker.client(version, id).ping();
        }
        broker.client(version, &letters.repeat(4)).ping();
        broker.client(version, "ünïcode/+#").ping();
    }
}

#[test]
fn an_empty_client_id_is_given_one_of_its_own() {
    let broker = Broker::start();
    let mut given = Vec::new();
    for _ in 0..2 {
        let (_, connack) = Raw::connack(broker.address(), &raw::connect(V5, ""));
        let properties = connack.properties();
        let id = raw::values(&properties, 18);
        assert_eq!((connack.reason(), id.len()), (0, 1));
        given.push(raw::text(id[0]).to_owned());
    }
    assert_ne!(given[0], given[1]);
    let (_, connack) = Raw::connack(broker.address(), &raw::connect(V5, &given[0]));
    assert!(raw::values(&connack.properties(), 18).is_empty());
    // Two nameless clients of 3.1.1 do not take each other's place.
    let mut one = broker.client(V311, "");
    let mut other = broker.client(V311, "");
    one.ping();
    other.ping();
}

#[test]
fn an_empty_client_id_of_3_1_1_needs_a_clean_session() {
    let broker = Broker::start();
    let connect = raw::connect(V311, "").lasting();
    assert_eq!(refusal(&broker, V311, &connect.bytes()), Some(2));
}

#[test]
fn a_client_id_that_is_not_taken_is_refused_with_its_code() {
    let broker = Broker::start();
    let long = "x".repeat(2000);
    for (version, code) in [(V311, 2), (V5, 0x85)] {
        let connect = raw::connect(version, &long);
        assert_eq!(refusal(&broker, version, &connect.bytes()), Some(code));
    }
}

#[test]
fn connack_comes_first_and_once() {
    let broker = Broker::start();
    for version in BOTH {
        let mut kept = broker.lasting(version, "c");
        kept.subscribe("t", 1);
        kept.vanish();
        broker.client(version, "writer").publish("t", 1, "waiting");
        let (mut raw, connack) =
            Raw::connack(broker.address(), &raw::connect(version, "c").lasting());
        assert_eq!(connack.body[0], 1, "session present, and no other flag");
        assert_eq!(raw.delivery().text(), "waiting");
        raw.nothing();
        raw.disconnect();
    }
}

#[test]
fn what_follows_a_refused_connect_is_not_looked_at() {
    let broker = Broker::start();
    for version in BOTH {
        let mut reader = broker.client(version, "reader");
        reader.subscribe("t", 1);
        let mut bytes = raw::connect(version, &"x".repeat(2000)).bytes();
        bytes.extend(publish(version, 0, b"t", 0, &props(), b"unheard"));
        assert!(refusal(&broker, version, &bytes).is_some());
        reader.nothing();
    }
}

#[test]
fn packets_sent_before_connack_came_are_taken() {
    let broker = Broker::start();
    for version in BOTH {
        let mut raw = Raw::open(broker.address(), version);
        let mut bytes = raw::connect(version, "eager").bytes();
        bytes.extend(packet(first::PINGREQ, &[]));
        raw.send(&bytes);
        assert_eq!(raw.packet().first, first::CONNACK);
        assert_eq!(raw.packet().first, first::PINGRESP);
    }
}

#[test]
fn connack_says_what_the_broker_does() {
    let broker = Broker::start();
    let (_, connack) = Raw::connack(broker.address(), &raw::connect(V5, "c"));
    let properties = connack.properties();
    let number = |id| {
        raw::values(&properties, id)
            .first()
            .map(|value| raw::number(value))
    };
    assert!(number(33).is_some_and(|receive_maximum| receive_maximum > 0));
    assert!(number(39).is_some_and(|packet| packet >= 1 << 20));
    assert!(number(34).is_some_and(|aliases| aliases > 0));
    for (id, name) in [(37, "retain"), (40, "wildcards"), (41, "identifiers")] {
        assert_ne!(number(id), Some(0), "{name}");
    }
    for id in [17, 18, 19, 21, 22, 26, 28, 31] {
        assert_eq!(number(id), None, "nothing to say about {id}");
    }
}

#[test]
fn a_server_keep_alive_counts_in_place_of_the_clients() {
    let broker = Broker::with("[broker.limits]\nkeep_alive_seconds = 1\n");
    for asked in [0, 60] {
        let mut connect = raw::connect(V5, "c");
        connect.keep_alive = asked;
        let (mut raw, connack) = Raw::connack(broker.address(), &connect);
        let properties = connack.properties();
        assert_eq!(raw::number(raw::values(&properties, 19)[0]), 1);
        let words = raw.last_words();
        assert_eq!((words.len(), words[0].reason()), (1, 0x8D));
    }
    let mut connect = raw::connect(V5, "c");
    connect.keep_alive = 1;
    let (_, connack) = Raw::connack(broker.address(), &connect);
    assert!(raw::values(&connack.properties(), 19).is_empty());
}

#[test]
fn a_client_that_says_nothing_for_one_and_a_half_keep_alive_is_disconnected() {
    let broker = Broker::start();
    for version in BOTH {
        let mut connect = raw::connect(version, "c");
        connect.keep_alive = 1;
        let mut silent = Raw::connect(broker.address(), &connect);
        let words = silent.last_words();
        match version {
            V311 => assert!(words.is_empty()),
            V5 => assert_eq!((words.len(), words[0].reason()), (1, 0x8D)),
        }
    }
}

#[test]
fn a_keep_alive_of_0_is_none() {
    let broker = Broker::start();
    for version in BOTH {
        let mut lasting = raw::connect(version, "silent");
        lasting.keep_alive = 0;
        let mut silent = Raw::connect(broker.address(), &lasting);
        let mut short = raw::connect(version, "short");
        short.keep_alive = 1;
        // Outlives one that is cut for its silence.
        Raw::connect(broker.address(), &short).last_words();
        silent.ping();
    }
}

#[test]
fn a_ping_is_answered() {
    let broker = Broker::start();
    for version in BOTH {
        let mut raw = broker.client(version, "c");
        for _ in 0..3 {
            raw.ping();
        }
    }
}

#[test]
fn after_disconnect_nothing_is_taken_and_the_connection_ends() {
    let broker = Broker::start();
    for version in BOTH {
        let mut reader = broker.client(version, "reader");
        reader.subscribe("t", 1);
        let mut raw = broker.client(version, "c");
        let mut bytes = packet(first::DISCONNECT, &[]);
        bytes.extend(publish(version, 0, b"t", 0, &props(), b"unheard"));
        raw.send(&bytes);
        assert_eq!(raw.last_words(), []);
        reader.nothing();
    }
}

#[test]
fn a_disconnect_of_3_1_1_has_no_body() {
    let broker = Broker::start();
    broker
        .client(V311, "c")
        .refused(&packet(first::DISCONNECT, &[0]));
}

#[test]
fn a_disconnect_gives_a_reason_that_clients_give() {
    let broker = Broker::start();
    for reason in [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x99] {
        broker.client(V5, "c").disconnect_with(&[reason]);
    }
    for reason in [0x01, 0x18, 0x87, 0x8B, 0x8E, 0x9D, 0xA2, 0xFF] {
        let bytes = packet(first::DISCONNECT, &[reason]);
        assert!(matches!(
            broker.client(V5, "c").refused(&bytes),
            0x81 | 0x82
        ));
    }
}

#[test]
fn a_disconnect_may_not_give_an_expiry_to_a_session_that_had_none() {
    let broker = Broker::start();
    let bytes = packet(first::DISCONNECT, &[0, 5, 17, 0, 0, 0, 9]);
    assert_eq!(broker.client(V5, "c").refused(&bytes), 0x82);
}

#[test]
fn a_broker_that_stops_says_so() {
    let mut broker = Broker::start();
    let mut raw = broker.client(V5, "c");
    let mut old = broker.client(V311, "d");
    broker.process.terminate();
    let words = raw.last_words();
    assert_eq!(
        (words.len(), words[0].first, words[0].reason()),
        (1, first::DISCONNECT, 0x8B)
    );
    assert!(raw::values(&words[0].properties(), 17).is_empty());
    assert!(old.last_words().is_empty());
}

#[test]
fn enhanced_authentication_is_refused() {
    let broker = Broker::start();
    let method = props().bytes(21, b"SCRAM-SHA-256").bytes(22, b"n,,n=user");
    let connect = raw::connect(V5, "c").properties(method);
    assert_eq!(refusal(&broker, V5, &connect.bytes()), Some(0x8C));
}

#[test]
fn auth_without_a_method_in_connect_ends_the_connection() {
    let broker = Broker::start();
    for bytes in [
        packet(first::AUTH, &[]),
        packet(first::AUTH, &[0x18, 4, 21, 0, 1, b'X']),
        packet(first::AUTH, &[0x19, 0]),
    ] {
        assert_eq!(broker.client(V5, "c").refused(&bytes), 0x82);
        broker.client(V311, "c").refused(&bytes);
    }
}

#[test]
fn response_information_comes_only_when_asked_for() {
    let broker = Broker::start();
    for (asked, expected) in [(None, 0), (Some(0), 0), (Some(1), 1)] {
        let mut connect = raw::connect(V5, "caller");
        if let Some(asked) = asked {
            connect = connect.properties(props().byte(25, asked));
        }
        let (_, connack) = Raw::connack(broker.address(), &connect);
        let properties = connack.properties();
        let places = raw::values(&properties, 26);
        assert_eq!(places.len(), expected);
        for place in places {
            assert_eq!(raw::text(place), "thinglog/response/caller");
        }
    }
}
