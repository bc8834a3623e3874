use serde_json::json;
use thinglog_schemas::{Event, EventId, Severity};
use tokio_postgres::error::SqlState;

use super::encode::{COLUMNS, arrays};
use super::sink::{accepted, is_refusal};
use super::*;
use crate::config::DestinationConfig;
use crate::deliver::remote::Encoder;
use crate::deliver::remote::request::{Item, Request};
use crate::deliver::remote::verdict::{ItemVerdict, Verdict};
use crate::testing::decoded;

fn event(change: impl FnOnce(&mut Event)) -> Event {
    let mut event = decoded("hello").events.remove(0);
    change(&mut event);
    event
}

fn request(events: &[Event]) -> (Request, RowEncoder) {
    let mut encoder = RowEncoder::default();
    let mut request = Request::new("");
    for event in events {
        let mut piece = Vec::new();
        let cost = encoder.encode(event, &mut piece).unwrap();
        let mut decoded = decoded("");
        decoded.events = vec![event.clone()];
        let item = Item {
            decoded: std::sync::Arc::new(decoded),
            index: 0,
            ticket: 0,
        };
        request.push(item, &piece, cost);
    }
    (request, encoder)
}

/// The values of an array; `None` is NULL.
fn values(array: &[u8]) -> Vec<Option<Vec<u8>>> {
    let word = |at: usize| i32::from_be_bytes(array[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), word(16)), (1, 1), "one dimension from 1");
    let (mut at, mut out) = (20, Vec::new());
    for _ in 0..word(12) {
        let length = word(at);
        at += 4;
        out.push(
            usize::try_from(length)
                .ok()
                .map(|length| array[at..at + length].to_vec()),
        );
        at += usize::try_from(length).unwrap_or(0);
    }
    assert_eq!(at, array.len());
    out
}

#[test]
fn a_body_has_an_array_a_column_and_no_more_bytes_than_was_said() {
    let first = event(|event| {
        event.id = EventId::Spooled { epoch: 1, seq: 2 };
        event.time = 946_684_800_000_001_999;
        event.severity = Severity::ERROR;
        event.truncated = true;
        event.attributes.insert("a".into(), json!([1, "x"]));
    });
    let (request, mut encoder) = request(&[first, event(|_| {})]);
    let mut body = Vec::new();
    encoder.body(&request, &mut body);
    assert_eq!(body.len(), encoder.limits().overhead + request.cost());
    let arrays: Vec<Vec<Option<Vec<u8>>>> = arrays(&body).map(values).collect();
    assert_eq!(arrays.len(), COLUMNS.len());
    let column = |name: &str| {
        let at = COLUMNS.iter().position(|(column, ..)| *column == name);
        arrays[at.unwrap()].clone()
    };
    assert_eq!(
        column("id"),
        [Some(b"lamp-7/0000000000000001/2".to_vec()), None]
    );
    assert_eq!(column("time")[0], Some(1i64.to_be_bytes().to_vec()));
    assert_eq!(
        column("time")[1],
        Some((-946_684_800_000_000i64).to_be_bytes().to_vec())
    );
    assert_eq!(column("severity")[0], Some(17i16.to_be_bytes().to_vec()));
    assert_eq!(column("level")[0], Some(b"ERROR".to_vec()));
    assert_eq!(
        column("attributes")[0],
        Some(b"\x01{\"a\":[1,\"x\"]}".to_vec())
    );
    assert_eq!(column("attributes")[1], Some(b"\x01{}".to_vec()));
    assert_eq!(column("truncated"), [Some(vec![1]), Some(vec![0])]);
}

#[test]
fn nul_becomes_a_sign_and_no_attribute_takes_anothers_name() {
    let odd = event(|event| {
        event.message = "a\0b".into();
        event.attributes.insert("k\0".into(), json!({"\0": 1}));
        event
            .attributes
            .insert("k\u{2400}".into(), json!("\\u0000"));
    });
    let (request, mut encoder) = request(&[odd]);
    let mut body = Vec::new();
    encoder.body(&request, &mut body);
    let arrays: Vec<Vec<Option<Vec<u8>>>> = arrays(&body).map(values).collect();
    assert_eq!(arrays[7][0], Some("a\u{2400}b".into()));
    let attributes: serde_json::Value =
        serde_json::from_slice(&arrays[8][0].as_ref().unwrap()[1..]).unwrap();
    let expected = json!({
        "k\u{2400}": {"\u{2400}": 1},
        "k\u{2400}\u{2400}": "\\u0000",
    });
    assert_eq!(attributes, expected);
}

#[test]
fn an_error_says_whether_it_lies_with_the_rows() {
    for code in [
        "22P05", "22021", "23514", "23502", "44000", "54000", "P0001",
    ] {
        assert!(is_refusal(Some(&SqlState::from_code(code))), "{code}");
    }
    for code in [
        "08006", "0A000", "25006", "28P01", "3D000", "40001", "40P01", "42P01", "42501", "53100",
        "53300", "55P03", "57P03", "58030", "XX000",
    ] {
        assert!(!is_refusal(Some(&SqlState::from_code(code))), "{code}");
    }
    assert!(!is_refusal(None));
}

#[test]
fn rows_that_were_there_before_are_counted() {
    assert_eq!(accepted(3, 3), Verdict::Accepted);
    // A partitioned table's trigger may say that nothing was inserted by itself.
    assert_eq!(accepted(0, 1), Verdict::Items(vec![ItemVerdict::Duplicate]));
    let Verdict::Items(items) = accepted(2, 5) else {
        panic!();
    };
    let duplicates = items.iter().filter(|item| **item == ItemVerdict::Duplicate);
    assert_eq!((items.len(), duplicates.count()), (5, 3));
}

#[test]
fn a_table_is_named_in_quotes_and_a_hypertable_is_unique_by_time() {
    assert_eq!(
        table::insert("\"t\""),
        "INSERT INTO \"t\" (id, time, received, device, source, severity, level, message, \
         attributes, time_estimated, truncated) SELECT * FROM unnest($1::text[], \
         $2::timestamptz[], $3::timestamptz[], $4::text[], $5::text[], $6::int2[], $7::text[], \
         $8::text[], $9::jsonb[], $10::bool[], $11::bool[]) ON CONFLICT DO NOTHING"
    );
    assert!(table::create("\"t\"", true).contains("UNIQUE (id, time)"));
    assert!(table::create("\"t\"", false).contains("UNIQUE (id)"));
}

fn config(changes: serde_json::Value) -> Result<PostgresqlConfig, String> {
    let mut value = json!({"type": "postgresql", "url": "postgresql://h/d", "username": "u"});
    for (key, change) in changes.as_object().unwrap() {
        value[key] = change.clone();
    }
    let all = json!({"destinations": {"db": value.clone()}});
    let all: crate::Config = serde_json::from_value(all).unwrap();
    all.validate().map_err(|error| error.key)?;
    let one: DestinationConfig = serde_json::from_value(value).unwrap();
    match one.kind {
        crate::config::DestinationKind::Postgresql(config) => Ok(*config),
        _ => panic!(),
    }
}

#[test]
fn a_place_and_a_table_are_read() {
    let (address, database) = config(json!({"url": "postgres://[::1]:5433/logs"}))
        .unwrap()
        .place()
        .unwrap();
    assert_eq!((address.host.as_str(), address.port), ("::1", 5433));
    assert_eq!(database, "logs");
    let table = config(json!({"table": "logs.Device_events"})).unwrap();
    assert_eq!(table.quoted_table().unwrap(), "\"logs\".\"Device_events\"");
}

#[test]
fn what_cannot_be_is_refused_by_key() {
    for (changes, key) in [
        (json!({"url": "postgresql://h"}), "url"),
        (json!({"url": "postgresql://h/"}), "url"),
        (json!({"url": "mysql://h/d"}), "url"),
        (json!({"url": "postgresql://u:p@h/d"}), "url"),
        (json!({"url": "postgresql://h/d?sslmode=require"}), "url"),
        (json!({"table": "a.b.c"}), "table"),
        (json!({"table": "a\"b"}), "table"),
        (json!({"table": ""}), "table"),
        (json!({"table": "x".repeat(64)}), "table"),
        (json!({"hypertable": true, "create": false}), "hypertable"),
        (json!({"username": ""}), "username"),
        (json!({"sslmode": "disable", "tls": {"ca": "x"}}), "tls"),
        (json!({"tls": {"key": "x"}}), "tls.certificate"),
        (json!({"timeout_ms": 0}), "timeout_ms"),
    ] {
        let error = config(changes.clone()).unwrap_err();
        assert_eq!(error, format!("destinations.db.{key}"), "{changes}");
    }
}
