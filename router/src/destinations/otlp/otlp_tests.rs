use std::sync::Arc;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs};
use prost::Message;
use serde_json::json;
use thinglog_schemas::{Event, EventId, Severity};

use super::*;
use crate::deliver::remote::Encoder;
use crate::deliver::remote::request::Item;
use crate::deliver::remote::verdict::ItemVerdict;
use crate::testing::decoded;

fn item(device: &str, message: &str, change: impl FnOnce(&mut Event)) -> Item {
    let mut decoded = decoded(message);
    let event = &mut decoded.events[0];
    event.device = Arc::from(device);
    event.time = 1_767_323_045_123_456_789;
    event.received = 1_767_323_046_000_000_000;
    event.id = EventId::Spooled { epoch: 1, seq: 2 };
    change(event);
    Item {
        decoded: Arc::new(decoded),
        index: 0,
        ticket: 0,
    }
}

fn config(text: &str) -> OtlpConfig {
    serde_json::from_str(text).unwrap()
}

/// What a receiver reads by the official definitions; never larger than was said.
fn exported(text: &str, items: Vec<Item>) -> ExportLogsServiceRequest {
    let config = config(text);
    let (mut encoder, _) = build(&config).unwrap();
    let mut request = Request::new("");
    for item in items {
        let mut piece = Vec::new();
        let cost = encoder.encode(item.event(), &mut piece).unwrap();
        request.push(item, &piece, cost);
    }
    let mut body = Vec::new();
    encoder.body(&request, &mut body);
    assert!(body.len() <= encoder.limits().overhead + request.cost());
    match config.encoding {
        OtlpEncoding::Protobuf => ExportLogsServiceRequest::decode(&body[..]).unwrap(),
        OtlpEncoding::Json => serde_json::from_slice(&body).unwrap(),
    }
}

const PROTOBUF: &str = r#"{"url": "http://h", "resource": {"service.namespace": "home"}}"#;
const JSON: &str =
    r#"{"url": "http://h", "encoding": "json", "resource": {"service.namespace": "home"}}"#;

fn items() -> Vec<Item> {
    let set = |event: &mut Event| {
        event.severity = Severity::WARN;
        event.time_estimated = true;
        let attributes = json!({
            "room": "attic \"1\"", "watts": 5, "cold": -3, "ratio": 0.25, "on": true, "off": false,
            "list": [1, "two"], "nested": {"a": {"b": 1}}, "large": u64::MAX,
        });
        event.attributes = attributes.as_object().unwrap().clone();
    };
    vec![
        item("lamp-7", "one\n\"two\"", set),
        item("lamp-8", "three", |_| {}),
        item("lamp-7", "four", |event| event.truncated = true),
    ]
}

fn body(record: &LogRecord) -> &str {
    match record.body.as_ref().unwrap().value.as_ref().unwrap() {
        Any::StringValue(text) => text,
        other => panic!("{other:?}"),
    }
}

fn records(logs: &ResourceLogs) -> &[LogRecord] {
    assert_eq!(logs.scope_logs.len(), 1);
    assert_eq!(logs.scope_logs[0].scope.as_ref().unwrap().name, "thinglog");
    &logs.scope_logs[0].log_records
}

fn attribute(record: &LogRecord, key: &str) -> Option<Any> {
    let found = record.attributes.iter().find(|pair| pair.key == key)?;
    found
        .value
        .as_ref()
        .and_then(|value: &AnyValue| value.value.clone())
}

#[test]
fn a_resource_is_a_device_and_its_source() {
    let logs = exported(PROTOBUF, items());
    let names = |logs: &ResourceLogs| {
        let attributes = &logs.resource.as_ref().unwrap().attributes;
        let value = |value: &AnyValue| match value.value.as_ref().unwrap() {
            Any::StringValue(text) => text.clone(),
            other => panic!("{other:?}"),
        };
        let pairs = attributes.iter();
        let pairs =
            pairs.map(|pair| format!("{}={}", pair.key, value(pair.value.as_ref().unwrap())));
        pairs.collect::<Vec<_>>().join(" ")
    };
    let found: Vec<String> = logs.resource_logs.iter().map(names).collect();
    let expected = |device| {
        format!("service.name=app host.name={device} device.id={device} service.namespace=home")
    };
    assert_eq!(found, [expected("lamp-7"), expected("lamp-8")]);
    let first = records(&logs.resource_logs[0]);
    assert_eq!(
        first.iter().map(body).collect::<Vec<_>>(),
        ["one\n\"two\"", "four"]
    );
}

#[test]
fn a_record_says_what_the_event_does() {
    let logs = exported(PROTOBUF, items());
    let record = &records(&logs.resource_logs[0])[0];
    assert_eq!(record.time_unix_nano, 1_767_323_045_123_456_789);
    assert_eq!(record.observed_time_unix_nano, 1_767_323_046_000_000_000);
    assert_eq!(
        (record.severity_number, record.severity_text.as_str()),
        (13, "WARN")
    );
    let id = Any::StringValue("lamp-7/0000000000000001/2".into());
    assert_eq!(attribute(record, "log.record.uid"), Some(id));
    assert_eq!(
        attribute(record, "room"),
        Some(Any::StringValue("attic \"1\"".into()))
    );
    assert_eq!(attribute(record, "watts"), Some(Any::IntValue(5)));
    assert_eq!(attribute(record, "cold"), Some(Any::IntValue(-3)));
    assert_eq!(attribute(record, "ratio"), Some(Any::DoubleValue(0.25)));
    assert_eq!(attribute(record, "on"), Some(Any::BoolValue(true)));
    assert_eq!(
        attribute(record, "thinglog.time_estimated"),
        Some(Any::BoolValue(true))
    );
    let Some(Any::ArrayValue(list)) = attribute(record, "list") else {
        panic!("{record:?}");
    };
    assert_eq!(list.values.len(), 2);
    let Some(Any::KvlistValue(nested)) = attribute(record, "nested") else {
        panic!("{record:?}");
    };
    assert_eq!(nested.values[0].key, "a");
    let cut = &records(&logs.resource_logs[0])[1];
    assert_eq!(
        attribute(cut, "thinglog.truncated"),
        Some(Any::BoolValue(true))
    );
}

#[test]
fn both_encodings_say_the_same() {
    assert_eq!(exported(JSON, items()), exported(PROTOBUF, items()));
}

#[test]
fn the_id_is_ours_to_give() {
    let set = |event: &mut Event| {
        event
            .attributes
            .insert("log.record.uid".into(), "another".into());
    };
    for text in [PROTOBUF, JSON] {
        let logs = exported(text, vec![item("lamp-7", "one", set)]);
        let record = &records(&logs.resource_logs[0])[0];
        assert_eq!(record.attributes.len(), 1, "{record:?}");
        let id = Any::StringValue("lamp-7/0000000000000001/2".into());
        assert_eq!(attribute(record, "log.record.uid"), Some(id));
    }
}

fn verdict(encoding: OtlpEncoding, status: u16, body: &[u8]) -> Verdict {
    let answer = Answer {
        status,
        headers: HeaderMap::new(),
        body: body.to_vec(),
    };
    answer::verdict(encoding, 3, &answer)
}

#[test]
fn statuses_mean_what_the_specification_says() {
    for status in [429, 502, 503, 504, 401, 403, 404, 302] {
        let verdict = verdict(OtlpEncoding::Protobuf, status, b"");
        assert!(matches!(verdict, Verdict::Retry { .. }), "{status}");
    }
    for status in [400, 413, 422, 500, 501] {
        let verdict = verdict(OtlpEncoding::Protobuf, status, b"");
        assert!(matches!(verdict, Verdict::Refused { .. }), "{status}");
    }
    assert_eq!(verdict(OtlpEncoding::Protobuf, 200, b""), Verdict::Accepted);
    // A warning without rejected records.
    let warning = br#"{"partialSuccess": {"errorMessage": "slow down"}}"#;
    assert_eq!(verdict(OtlpEncoding::Json, 200, warning), Verdict::Accepted);
}

#[test]
fn rejected_records_are_not_sent_again() {
    let text = br#"{"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "too bitter"}}"#;
    let Verdict::Items(items) = verdict(OtlpEncoding::Json, 200, text) else {
        panic!();
    };
    assert_eq!(items.len(), 3);
    for item in items {
        let ItemVerdict::Refused(reason) = item else {
            panic!("{item:?}");
        };
        assert!(
            reason.contains("rejected 1 of the 3") && reason.contains("too bitter"),
            "{reason}"
        );
    }
}

#[test]
fn what_no_receiver_would_take_is_refused_by_key() {
    for (text, key) in [
        (r#"{"type": "otlp", "url": "collector:4318"}"#, "url"),
        (
            r#"{"type": "otlp", "url": "http://h", "compression": "zstd"}"#,
            "compression",
        ),
        (
            r#"{"type": "otlp", "url": "http://h", "resource": {"host.name": "x"}}"#,
            "resource.host.name",
        ),
    ] {
        let destination = serde_json::from_str(text).unwrap();
        let config = crate::Config {
            destinations: [("otlp".to_owned(), destination)].into(),
            ..crate::Config::default()
        };
        let error = config.validate().unwrap_err();
        assert_eq!(error.key, format!("destinations.otlp.{key}"), "{error}");
    }
}
