use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse,
};
use kafka_protocol::records::RecordBatchDecoder;
use serde_json::json;
use thinglog_schemas::{Event, EventId};

use super::answer::{Outcome, outcome, verdict};
use super::batch::{Batch, Numbers, divide};
use super::encode::Parts;
use super::producer::Producer;
use super::*;
use crate::config::Compression;
use crate::deliver::remote::Encoder;
use crate::deliver::remote::request::{Item, Request};
use crate::deliver::remote::verdict::{ItemVerdict, Verdict};
use crate::testing::decoded;

fn encoder(topic: &str) -> KafkaEncoder {
    let config = json!({"servers": ["kafka://h"], "topic": topic});
    build(&serde_json::from_value(config).unwrap(), "bus")
        .unwrap()
        .0
}

fn event(change: impl FnOnce(&mut Event)) -> Event {
    let mut event = decoded("hello").events.remove(0);
    change(&mut event);
    event
}

fn request(events: &[Event]) -> Request {
    let mut encoder = encoder("logs");
    let mut request = Request::new("logs");
    for event in events {
        let mut piece = Vec::new();
        let cost = encoder.encode(event, &mut piece).unwrap();
        let mut decoded = decoded("");
        decoded.events = vec![event.clone()];
        let item = Item {
            decoded: Arc::new(decoded),
            index: 0,
            ticket: 0,
        };
        request.push(item, &piece, cost);
    }
    request
}

fn device(name: &str) -> Event {
    event(|event| event.device = name.into())
}

#[test]
fn a_piece_holds_what_a_record_is_made_of() {
    let event = event(|event| {
        event.id = EventId::Spooled { epoch: 1, seq: 2 };
        event.time = 1_767_323_045_123_456_789;
    });
    let mut piece = Vec::new();
    encoder("logs").encode(&event, &mut piece).unwrap();
    let parts = Parts::of(&piece).unwrap();
    assert_eq!(parts.time, 1_767_323_045_123);
    assert_eq!((parts.key, parts.level), (&b"lamp-7"[..], &b"INFO"[..]));
    assert_eq!(parts.id, b"lamp-7/0000000000000001/2");
    assert!(parts.value.starts_with(b"{\"id\":\"lamp-7/"));
    assert_eq!(Parts::of(&piece[..20]), None);
}

#[test]
fn no_event_leaves_the_names_of_topics() {
    let topic = |template: &str, message: &str| {
        let event = event(|event| event.message = message.into());
        let mut encoder = encoder(template);
        let fits = encoder.encode(&event, &mut Vec::new()).is_ok();
        (encoder.key(&event).into_owned(), fits)
    };
    assert_eq!(topic("logs.{{source}}", "x"), ("logs.app".into(), true));
    assert_eq!(topic("l-{{message}}", "a/b\0ä"), ("l-a_b___".into(), true));
    assert_eq!(topic("{{message}}", ""), ("".into(), false));
    assert_eq!(topic("{{message}}", ".."), ("..".into(), false));
    assert_eq!(topic("{{message}}", &"x".repeat(300)).0.len(), 249);
}

#[test]
fn a_batch_is_never_larger_than_was_said() {
    let events: Vec<Event> = (0..300u64)
        .map(|n| {
            event(|event| {
                event.id = EventId::Spooled {
                    epoch: u64::MAX,
                    seq: n,
                };
                event.time = if n % 2 == 0 { 0 } else { u64::MAX };
                event.message = "m".repeat(n as usize % 7);
            })
        })
        .collect();
    let request = request(&events);
    let pieces: Vec<Bytes> = request.pieces().map(Bytes::copy_from_slice).collect();
    let numbers = Numbers {
        producer: i64::MAX,
        epoch: 0,
        first: 7,
    };
    let [batch] = &divide(&request, 1)[..] else {
        panic!();
    };
    let encoded = batch.encode(&pieces, numbers, Compression::None).unwrap();
    let most = encoder("logs").limits().overhead + request.cost();
    assert!(encoded.len() <= most, "{} of {most}", encoded.len());
    let infos = RecordBatchDecoder::decode_batch_info(&mut encoded.clone()).unwrap();
    assert_eq!((infos.len(), infos[0].record_count), (1, 300));
    assert_eq!(
        (infos[0].base_sequence, infos[0].producer_id),
        (7, i64::MAX)
    );
}

#[test]
fn a_device_has_one_partition_and_its_order() {
    let names = ["a", "b", "c", "d", "a", "c", "a"];
    let events: Vec<Event> = names.iter().map(|name| device(name)).collect();
    let batches = divide(&request(&events), 3);
    let mut places: Vec<usize> = batches.iter().flat_map(|it| it.places.clone()).collect();
    for batch in &batches {
        assert!(batch.places.is_sorted());
    }
    let of = |name: &str| {
        let place = names.iter().position(|other| *other == name).unwrap();
        let mut found = batches.iter().filter(|it| it.places.contains(&place));
        found.next().unwrap().clone()
    };
    assert!([0, 4, 6].iter().all(|place| of("a").places.contains(place)));
    places.sort_unstable();
    assert_eq!(places, [0, 1, 2, 3, 4, 5, 6]);
}

fn batch(partition: i32, places: &[usize]) -> Batch {
    Batch {
        partition,
        places: places.to_vec(),
    }
}

#[test]
fn numbers_are_kept_until_a_batch_is_answered_for() {
    let mut producer = Producer::new((9, 0));
    let (first, other) = (batch(1, &[0, 1, 2]), batch(2, &[3]));
    producer.sent("logs", &first);
    assert_eq!(
        (producer.first("logs", 1), producer.first("more", 1)),
        (3, 0)
    );
    let (print, another) = ([1; 32], [2; 32]);
    producer.keep("logs", &other, print);
    assert!(!producer.is_clear());
    assert!(producer.goes_on("logs", &[(2, print)]));
    assert!(producer.goes_on("logs", &[(1, another), (2, print)]));
    assert!(!producer.goes_on("logs", &[(2, another)]), "other events");
    assert!(!producer.goes_on("logs", &[(1, another)]), "nothing of it");
    assert!(!producer.goes_on("more", &[(2, print)]), "another topic");
    assert_eq!(producer.first("logs", 2), 0, "the same number again");
    producer.sent("logs", &other);
    assert!(producer.is_clear());
    assert_eq!(producer.first("logs", 2), 1);
    producer.keep("logs", &first, print);
    producer.close("logs", &first);
    assert!(producer.is_clear(), "what was refused has no numbers");
    assert_eq!(producer.first("logs", 1), 3);
}

#[test]
fn a_partition_that_is_lost_goes_on_under_another_id_and_the_others_do_not() {
    let mut producer = Producer::new((9, 0));
    let (first, other) = (batch(1, &[0, 1, 2]), batch(2, &[3]));
    producer.sent("logs", &first);
    producer.keep("logs", &other, [2; 32]);
    producer.lose("logs", &first);
    assert!(producer.goes_on("logs", &[(1, [1; 32]), (2, [2; 32])]));
    assert!(producer.lacks_identity());
    producer.go_on_as((10, 0));
    assert!(!producer.lacks_identity());
    assert_eq!(producer.identity("logs", 1), (10, 0));
    assert_eq!(producer.identity("logs", 2), (9, 0));
    assert_eq!(producer.first("logs", 1), 0, "numbers begin anew");
    producer.sent("logs", &other);
    assert!(producer.is_clear() && producer.is_used_up());
}

fn said(code: i16, records: &[i32]) -> Outcome {
    let records = records
        .iter()
        .map(|at| BatchIndexAndErrorMessage::default().with_batch_index(*at));
    let said = PartitionProduceResponse::default()
        .with_error_code(code)
        .with_record_errors(records.collect());
    outcome(&said)
}

#[test]
fn an_error_says_what_follows() {
    assert_eq!(said(0, &[]), Outcome::Accepted);
    assert_eq!(said(46, &[]), Outcome::Duplicate);
    for code in [10, 17, 18, 32, 87] {
        assert!(matches!(said(code, &[]), Outcome::Refused { .. }), "{code}");
    }
    for code in [3, 5, 6, 56, 74] {
        assert!(matches!(said(code, &[]), Outcome::Moved(_)), "{code}");
    }
    for code in [45, 47, 59, 90] {
        assert!(matches!(said(code, &[]), Outcome::Lost(_)), "{code}");
    }
    for code in [-1, 2, 7, 13, 19, 20, 29, 31, 76, 9999] {
        assert!(matches!(said(code, &[]), Outcome::Retry(_)), "{code}");
    }
}

#[test]
fn a_verdict_speaks_of_each_event() {
    let all = vec![
        (batch(0, &[0, 1]), said(0, &[])),
        (batch(1, &[2]), said(0, &[])),
    ];
    assert_eq!(verdict(3, all), Verdict::Accepted);
    let whole = vec![(batch(0, &[0, 1]), said(10, &[]))];
    assert!(matches!(verdict(2, whole), Verdict::Refused { .. }));
    let mixed = vec![
        (batch(0, &[0, 3]), said(87, &[1])),
        (batch(1, &[1]), said(10, &[])),
        (batch(2, &[2]), said(6, &[])),
        (batch(3, &[4]), said(46, &[])),
        (batch(4, &[5, 6]), said(10, &[])),
    ];
    let Verdict::Items(items) = verdict(7, mixed) else {
        panic!();
    };
    assert!(matches!(items[0], ItemVerdict::Retry(_)));
    assert!(matches!(items[3], ItemVerdict::Refused(_)), "named");
    assert!(matches!(items[1], ItemVerdict::Refused(_)), "alone");
    assert!(matches!(items[2], ItemVerdict::Retry(_)));
    assert_eq!(items[4], ItemVerdict::Duplicate);
    assert!(matches!(items[5], ItemVerdict::Retry(_)), "by itself next");
}

#[test]
fn what_cannot_be_is_refused_by_key() {
    for (changes, key) in [
        (json!({"servers": []}), "servers"),
        (json!({"servers": ["h:9092"]}), "servers"),
        (
            json!({"servers": ["kafka://h", "kafka+ssl://h"]}),
            "servers",
        ),
        (json!({"topic": ""}), "topic"),
        (json!({"topic": "a b"}), "topic"),
        (json!({"topic": "{{nothing}}"}), "topic"),
        (json!({"username": "u"}), "username"),
        (json!({"tls": {"ca": "x"}}), "tls"),
        (json!({"timeout_ms": 1}), "timeout_ms"),
    ] {
        let mut value = json!({"type": "kafka", "servers": ["kafka://h"], "topic": "logs"});
        for (key, change) in changes.as_object().unwrap() {
            value[key] = change.clone();
        }
        let value = json!({"destinations": {"bus": value}});
        let config: crate::Config = serde_json::from_value(value).unwrap();
        let error = config.validate().unwrap_err();
        assert_eq!(error.key, format!("destinations.bus.{key}"), "{changes}");
    }
}
