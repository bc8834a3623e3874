use std::sync::Arc;

use serde_json::{Value, json};
use thinglog_schemas::{Event, EventId, Severity};

use super::*;
use crate::deliver::remote::Encoder;
use crate::deliver::remote::request::Item;
use crate::deliver::remote::verdict::ItemVerdict;
use crate::testing::decoded;

fn item(message: &str, change: impl FnOnce(&mut Event)) -> Item {
    let mut decoded = decoded(message);
    let event = &mut decoded.events[0];
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

/// The lines as they are sent; never more than was said.
fn lines(text: &str, items: Vec<Item>) -> Vec<Value> {
    let config: ElasticsearchConfig = serde_json::from_str(text).unwrap();
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
    let text = String::from_utf8(body).unwrap();
    assert!(text.ends_with('\n'), "the last line ends as well");
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

const PLAIN: &str = r#"{"url": "https://h"}"#;

#[test]
fn an_event_is_created_under_its_id_with_fields_of_ecs() {
    let set = |event: &mut Event| {
        event.severity = Severity::WARN;
        event.attributes.insert("room".into(), "attic".into());
        event.truncated = true;
    };
    let id = "lamp-7/0000000000000001/2";
    let expected = json!([
        {"create": {"_index": "logs-thinglog-default", "_id": id}},
        {
            "@timestamp": "2026-01-02T03:04:05.123456789Z", "message": "say \"hi\"\n",
            "log.level": "warn", "event.severity": 13, "event.id": id, "event.sequence": 2,
            "event.created": "2026-01-02T03:04:06.000000000Z",
            "host.name": "lamp-7", "device.id": "lamp-7", "service.name": "app",
            "labels": {"room": "attic"}, "tags": ["truncated"], "ecs.version": "8.11.0",
        },
    ]);
    assert_eq!(
        Value::from(lines(PLAIN, vec![item("say \"hi\"\n", set)])),
        expected
    );
}

#[test]
fn an_event_without_an_id_gets_one_from_the_service() {
    let lines = lines(PLAIN, vec![item("one", |event| event.id = EventId::None)]);
    assert_eq!(
        lines[0],
        json!({"create": {"_index": "logs-thinglog-default"}})
    );
    assert_eq!(lines[1].get("event.id"), None);
}

#[test]
fn labels_are_text_and_their_names_unique() {
    let set = |event: &mut Event| {
        let attributes = json!({
            "a.b": 1, "a*b": {"c": [true]}, "a_b": 2.5, "": "x", "_": null,
        });
        event.attributes = attributes.as_object().unwrap().clone();
    };
    let lines = lines(PLAIN, vec![item("one", set)]);
    let labels = lines[1]["labels"].as_object().unwrap();
    assert_eq!(labels.len(), 5, "{labels:?}");
    assert!(labels.values().all(Value::is_string), "{labels:?}");
    assert!(
        labels.keys().all(|key| !key.contains(['.', '*'])),
        "{labels:?}"
    );
    assert_eq!(labels["a_b"], "2.5");
}

#[test]
fn an_index_follows_the_event() {
    let text = r#"{"url": "https://h", "index": "{{source}}-%Y.%m.%d"}"#;
    let lines = lines(text, vec![item("one", |_| {})]);
    assert_eq!(lines[0]["create"]["_index"], "app-2026.01.02");
}

fn verdict(status: u16, body: &Value) -> Verdict {
    let config: ElasticsearchConfig = serde_json::from_str(PLAIN).unwrap();
    let (mut encoder, sink) = build(&config).unwrap();
    let mut request = Request::new("");
    for n in 0..5 {
        let item = item(&n.to_string(), |_| {});
        let mut piece = Vec::new();
        let cost = encoder.encode(item.event(), &mut piece).unwrap();
        request.push(item, &piece, cost);
    }
    let answer = Answer {
        status,
        headers: HeaderMap::new(),
        body: body.to_string().into(),
    };
    sink.service().verdict(&request, &answer)
}

#[test]
fn each_item_has_a_verdict_of_its_own() {
    let error = |kind: &str, reason: &str| json!({"type": kind, "reason": reason});
    let body = json!({"took": 3, "errors": true, "items": [
        {"create": {"status": 201}},
        {"create": {"status": 409, "error": error("version_conflict_engine_exception", "exists")}},
        {"create": {"status": 429, "error": error("es_rejected_execution_exception", "queue")}},
        {"create": {"status": 400, "error": error("document_parsing_exception", "field [x]")}},
        {"create": {"status": 400, "error": error("validation_exception",
            "this action would add [2] shards, but this cluster currently has [1000]/[1000]")}},
    ]});
    let Verdict::Items(items) = verdict(200, &body) else {
        panic!();
    };
    assert_eq!(items[0], ItemVerdict::Accepted);
    assert_eq!(items[1], ItemVerdict::Duplicate);
    let retry = "429 es_rejected_execution_exception: queue";
    assert_eq!(items[2], ItemVerdict::Retry(retry.into()));
    let refused = "400 document_parsing_exception: field [x]";
    assert_eq!(items[3], ItemVerdict::Refused(refused.into()));
    assert!(matches!(&items[4], ItemVerdict::Retry(_)), "{:?}", items[4]);
}

#[test]
fn a_whole_request_has_a_verdict_too() {
    let fine = json!({"errors": false, "items": vec![json!({"create": {"status": 201}}); 5]});
    assert_eq!(verdict(200, &fine), Verdict::Accepted);
    // Something in between that answers for it, or an answer of less than was sent.
    assert!(matches!(
        verdict(200, &json!("hello")),
        Verdict::Retry { .. }
    ));
    let few = json!({"errors": false, "items": [{"create": {"status": 201}}]});
    assert_eq!(
        verdict(200, &few),
        Verdict::Items(vec![ItemVerdict::Accepted])
    );
    assert!(matches!(verdict(413, &json!({})), Verdict::Refused { .. }));
    assert!(matches!(verdict(429, &json!({})), Verdict::Retry { .. }));
    assert!(matches!(verdict(401, &json!({})), Verdict::Retry { .. }));
}

#[test]
fn what_it_would_not_take_is_refused_by_key() {
    for (text, key) in [
        (r#"{"type": "elasticsearch", "url": "elastic:9200"}"#, "url"),
        (
            r#"{"type": "elasticsearch", "url": "http://h", "index": "A b"}"#,
            "index",
        ),
        (
            r#"{"type": "elasticsearch", "url": "http://h", "pipeline": "a&b"}"#,
            "pipeline",
        ),
        (
            r#"{"type": "elasticsearch", "url": "http://h", "compression": "zstd"}"#,
            "compression",
        ),
    ] {
        let destination = serde_json::from_str(text).unwrap();
        let config = crate::Config {
            destinations: [("es".to_owned(), destination)].into(),
            ..crate::Config::default()
        };
        let error = config.validate().unwrap_err();
        assert_eq!(error.key, format!("destinations.es.{key}"), "{error}");
    }
}
