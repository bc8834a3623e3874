use std::sync::Arc;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish};
use thinglog_schemas::Event;

use super::encode::number;
use super::verdict::{Failure, verdict};
use super::*;
use crate::deliver::remote::request::{Item, Request};
use crate::deliver::remote::verdict::{ItemVerdict, Verdict};
use crate::deliver::remote::{Encoder, Unfit};
use crate::testing::decoded;

fn config(text: &str) -> MqttConfig {
    serde_json::from_str(text).unwrap()
}

fn item(message: &str, change: impl FnOnce(&mut Event)) -> Item {
    let mut decoded = decoded(message);
    change(&mut decoded.events[0]);
    Item {
        decoded: Arc::new(decoded),
        index: 0,
        ticket: 0,
    }
}

/// The packets of one request, read by another codec than the one that wrote them; never larger than
/// was said.
fn sent(text: &str, items: Vec<Item>) -> Vec<Publish> {
    let (mut encoder, _) = build(&config(text), "other", "0123456789abcdef").unwrap();
    let mut request = Request::new(&encoder.key(items[0].event()));
    for item in items {
        let mut piece = Vec::new();
        let cost = encoder.encode(item.event(), &mut piece).unwrap();
        request.push(item, &piece, cost);
    }
    let mut body = Vec::new();
    encoder.body(&request, &mut body);
    assert!(body.len() <= encoder.limits().overhead + request.cost());
    let ends = number(&mut body);
    assert_eq!(ends.last(), Some(&body.len()));
    let mut rest = BytesMut::from(&body[..]);
    let packets = ends.iter().map(|_| match Packet::read(&mut rest, None) {
        Ok(Packet::Publish(publish)) => publish,
        other => panic!("{other:?}"),
    });
    packets.collect()
}

#[test]
fn each_event_is_a_publish_on_the_topic_of_the_template() {
    let text = r#"{"broker": "mqtt://h", "topic": "a/{{device}}/{{attributes.room|url}}",
                   "retain": true, "expiry_s": 60}"#;
    let set = |event: &mut Event| drop(event.attributes.insert("room".into(), "x/+#".into()));
    let items = vec![item("one", set), item(&"long ".repeat(60), |_| {})];
    let packets = sent(text, items);
    assert_eq!(&packets[0].topic[..], b"a/lamp-7/x%2F%2B%23");
    assert_eq!(&packets[1].topic[..], b"a/lamp-7/");
    assert_eq!(packets.iter().map(|it| it.pkid).collect::<Vec<_>>(), [1, 2]);
    for packet in packets {
        assert_eq!((packet.qos, packet.retain), (QoS::AtLeastOnce, true));
        let properties = packet.properties.unwrap();
        assert_eq!(properties.payload_format_indicator, Some(1));
        assert_eq!(properties.message_expiry_interval, Some(60));
        assert_eq!(properties.content_type.as_deref(), Some("application/json"));
        assert!(packet.payload.starts_with(b"{\"time\":"));
    }
}

#[test]
fn lines_of_one_topic_are_one_publish() {
    let text = r#"{"broker": "mqtt://h", "topic": "a/{{device}}", "format": "ndjson"}"#;
    let packets = sent(
        text,
        (0..300).map(|n| item(&n.to_string(), |_| {})).collect(),
    );
    assert_eq!(packets.len(), 1);
    assert_eq!(packets[0].payload.split(|byte| *byte == b'\n').count(), 300);
}

#[test]
fn the_log_emitter_reaches_its_broker_however_that_is_named() {
    for address in ["h:1883", "mqtt://h", "mqtts://h:8884"] {
        let broker = Endpoint {
            address: address.into(),
            ..Endpoint::default()
        };
        let topics = Topics::default();
        assert!(emitter(&EmitterConfig::default(), "all", &broker, &topics).is_ok());
    }
}

#[test]
fn the_log_emitter_publishes_below_out() {
    let broker = Endpoint::default();
    let (mut encoder, _) = emitter(
        &EmitterConfig::default(),
        "all",
        &broker,
        &Topics::default(),
    )
    .unwrap();
    let mut piece = Vec::new();
    let event = item("one", |_| {});
    encoder.encode(event.event(), &mut piece).unwrap();
    number(&mut piece);
    let Ok(Packet::Publish(publish)) = Packet::read(&mut BytesMut::from(&piece[..]), None) else {
        panic!("no PUBLISH");
    };
    assert_eq!(&publish.topic[..], b"thinglog/out/all/lamp-7");
    assert!(!publish.retain);
}

#[test]
fn a_topic_that_is_too_long_makes_a_dead_letter() {
    let text = r#"{"broker": "mqtt://h", "topic": "a/{{message|url}}"}"#;
    let (mut encoder, _) = build(&config(text), "other", "0123456789abcdef").unwrap();
    let event = item(&"é".repeat(20_000), |_| {});
    let unfit = encoder.encode(event.event(), &mut Vec::new()).unwrap_err();
    assert!(unfit.0.contains("120002 bytes"), "{unfit:?}");
}

#[test]
fn what_comes_back_is_not_published_again() {
    let text = r#"{"broker": "mqtt://h", "topic": "t"}"#;
    let mut here = build(&config(text), "a", "aaaa").unwrap().0;
    let mut there = build(&config(text), "a", "bbbb").unwrap().0;
    let mut via = serde_json::Value::Null;
    let mut publish = |encoder: &mut MqttEncoder| {
        // As a router that receives it keeps what it does not know.
        let item = item("hello", |event| {
            event.attributes.insert("via".into(), via.clone());
        });
        let mut piece = Vec::new();
        encoder.encode(item.event(), &mut piece)?;
        let object = &piece[piece.windows(2).position(|it| it == b"{\"").unwrap()..];
        let object: serde_json::Value = serde_json::from_slice(object).unwrap();
        via = object["via"].clone();
        Ok::<_, Unfit>(via.to_string())
    };
    assert_eq!(publish(&mut here).unwrap(), r#"["aaaa"]"#);
    assert_eq!(publish(&mut there).unwrap(), r#"["aaaa","bbbb"]"#);
    let unfit = publish(&mut here).unwrap_err();
    assert!(unfit.0.contains("circle"), "{unfit:?}");
    for n in 0..14 {
        publish(&mut build(&config(text), "a", &format!("{n}")).unwrap().0).unwrap();
    }
    let mut last = build(&config(text), "a", "cccc").unwrap().0;
    assert!(publish(&mut last).is_err(), "sixteen are enough");
}

#[test]
fn a_reason_says_whether_a_message_is_tried_again() {
    let reasons = [
        Some(0),
        Some(0x10),
        Some(0x97),
        Some(0x87),
        Some(0x90),
        Some(0x99),
        None,
    ];
    let Verdict::Items(items) = verdict(7, &reasons, Some(Failure::new("broken"))) else {
        panic!("not item by item");
    };
    let kinds = items.iter().map(|item| match item {
        ItemVerdict::Accepted | ItemVerdict::Duplicate => 'a',
        ItemVerdict::Retry(_) => 'r',
        ItemVerdict::Refused(_) => 'x',
    });
    assert_eq!(kinds.collect::<String>(), "aarrxxr");
    assert_eq!(verdict(2, &[Some(0), Some(0x10)], None), Verdict::Accepted);
    assert!(matches!(
        verdict(300, &[Some(0x97)], None),
        Verdict::Retry { .. }
    ));
    assert!(matches!(
        verdict(300, &[Some(0x99)], None),
        Verdict::Refused { .. }
    ));
}

/// Some brokers answer a message they will never take by closing the connection.
#[test]
fn a_connection_closed_because_of_a_message_leads_to_the_message() {
    let closed = |reason| Failure {
        text: "closed".into(),
        reason: Some(reason),
    };
    let none = [None, None];
    assert!(matches!(
        verdict(2, &none, Some(closed(0x95))),
        Verdict::Refused { .. }
    ));
    let retry = verdict(2, &none, Some(closed(0x8B)));
    let item = ItemVerdict::Retry("closed".into());
    assert_eq!(retry, Verdict::Items(vec![item.clone(), item.clone()]));
    let some = verdict(2, &[Some(0), None], Some(closed(0x95)));
    assert_eq!(some, Verdict::Items(vec![ItemVerdict::Accepted, item]));
}

#[test]
fn what_cannot_be_is_refused_by_key() {
    for (text, key) in [
        (
            r#"{"type": "mqtt", "broker": "h:1883", "topic": "a"}"#,
            "broker",
        ),
        (
            r#"{"type": "mqtt", "broker": "mqtt://h", "topic": ""}"#,
            "topic",
        ),
        (
            r#"{"type": "mqtt", "broker": "mqtt://h", "topic": "a/#"}"#,
            "topic",
        ),
        (
            r#"{"type": "mqtt", "broker": "mqtt://h", "topic": "$SYS/a"}"#,
            "topic",
        ),
        (
            r#"{"type": "mqtt", "broker": "mqtt://h", "topic": "{{message}}"}"#,
            "topic",
        ),
        (
            r#"{"type": "mqtt", "broker": "mqtt://h", "topic": "a", "tls": {"insecure": true}}"#,
            "tls",
        ),
        (
            r#"{"type": "mqtt", "broker": "mqtt://h", "topic": "a", "password": "x"}"#,
            "username",
        ),
        (r#"{"type": "emitter", "route": "a/b"}"#, "route"),
    ] {
        let text = format!(r#"{{"destinations": {{"other": {text}}}}}"#);
        let config: crate::Config = serde_json::from_str(&text).unwrap();
        let error = config.validate().unwrap_err();
        assert_eq!(error.key, format!("destinations.other.{key}"), "{error}");
    }
}
