use std::sync::Arc;

use thinglog_schemas::{Event, EventId};

use super::*;
use crate::deliver::remote::Encoder;
use crate::deliver::remote::request::Item;
use crate::testing::decoded;

fn config(text: &str) -> WebhookConfig {
    serde_json::from_str(text).unwrap()
}

fn item(message: &str, change: impl FnOnce(&mut Event)) -> Item {
    let mut decoded = decoded(message);
    decoded.events[0].id = EventId::Spooled { epoch: 1, seq: 2 };
    change(&mut decoded.events[0]);
    Item {
        decoded: Arc::new(decoded),
        index: 0,
        ticket: 0,
    }
}

/// One request with these events, as it would be sent; never larger than was said.
fn sent(text: &str, items: Vec<Item>) -> (Head, String) {
    let (mut encoder, sink) = build(&config(text)).unwrap();
    let mut request = Request::new(&encoder.key(items[0].event()));
    for item in items {
        let mut piece = Vec::new();
        let cost = encoder.encode(item.event(), &mut piece).unwrap();
        request.push(item, &piece, cost);
    }
    let mut body = Vec::new();
    encoder.body(&request, &mut body);
    assert!(body.len() <= encoder.limits().overhead + request.cost());
    let head = sink
        .service()
        .head(&request, &body, 1_767_323_045_000_000_000);
    (head, String::from_utf8(body).unwrap())
}

#[test]
fn a_template_makes_a_line_of_each_event() {
    let text =
        r#"{"url": "https://h/", "format": "template", "template": "{{device}}: {{message}}"}"#;
    let items = vec![item("one", |_| {}), item("two", |_| {})];
    let (head, body) = sent(text, items);
    assert_eq!(body, "lamp-7: one\nlamp-7: two\n");
    assert_eq!(head.headers["content-type"], "text/plain; charset=utf-8");
}

#[test]
fn an_event_may_name_the_path_but_not_leave_its_place() {
    let text = r#"{"url": "https://h/{{device|url}}/{{attributes.room|url}}", "method": "PUT"}"#;
    let set = |event: &mut Event| drop(event.attributes.insert("room".into(), "../x".into()));
    let (head, _) = sent(text, vec![item("one", set)]);
    assert_eq!(head.url, "https://h/lamp-7/..%2Fx");
    assert_eq!(head.method, HttpMethod::PUT);
}

#[test]
fn single_events_are_objects() {
    let (encoder, _) = build(&config(r#"{"url": "http://h/", "single": true}"#)).unwrap();
    assert_eq!(encoder.limits().events, 1);
    let (_, body) = sent(
        r#"{"url": "http://h/", "single": true}"#,
        vec![item("one", |_| {})],
    );
    assert!(
        body.starts_with("{\"id\":") && body.ends_with('}'),
        "{body}"
    );
}

/// Made with `printf '1767323045.[{}]' | openssl dgst -sha256 -hmac hush`.
#[test]
fn a_signature_is_the_hmac_of_time_and_body() {
    let expected =
        "t=1767323045,v1=07fc5d3baf2fbb44311bbdcbe7ccf6b28442fe8c66a93b6ac7a9b6ce6643695e";
    assert_eq!(signature("hush", 1_767_323_045, b"[{}]"), expected);
}

#[test]
fn datadog_gets_its_own_fields() {
    let text = r#"{"url": "https://h/api/v2/logs", "preset": "datadog"}"#;
    let set = |event: &mut Event| {
        event.time = 1_767_323_045_123_000_000;
        event.attributes.insert("room".into(), "attic".into());
    };
    let (_, body) = sent(text, vec![item("one", set)]);
    let expected = serde_json::json!([{
        "message": "one", "ddsource": "thinglog", "service": "app", "hostname": "lamp-7",
        "status": "info", "timestamp": 1_767_323_045_123u64,
        "thinglog_id": "lamp-7/0000000000000001/2", "attributes": {"room": "attic"},
    }]);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&body).unwrap(),
        expected
    );
}

#[test]
fn sumo_logic_hears_of_one_device_and_source_a_request() {
    let text = r#"{"url": "https://h/receiver", "preset": "sumo-logic"}"#;
    let (head, body) = sent(text, vec![item("one", |_| {})]);
    assert_eq!(head.url, "https://h/receiver");
    assert_eq!(head.headers["x-sumo-host"], "lamp-7");
    assert_eq!(head.headers["x-sumo-name"], "app");
    assert!(body.ends_with("}\n"), "{body}");
}

#[test]
fn what_could_let_an_event_break_out_is_refused() {
    for (text, key) in [
        (
            r#"{"type": "webhook", "url": "https://{{device|url}}/"}"#,
            "url",
        ),
        (
            r#"{"type": "webhook", "url": "https://h/{{device}}"}"#,
            "url",
        ),
        (r#"{"type": "webhook", "url": "ftp://h/"}"#, "url"),
        (
            r#"{"type": "webhook", "url": "https://h/", "format": "template",
                "content_type": "application/json", "template": "{\"text\": \"{{message}}\"}"}"#,
            "template",
        ),
        (
            r#"{"type": "webhook", "url": "https://h/", "format": "template"}"#,
            "template",
        ),
        (
            r#"{"type": "webhook", "url": "https://h/", "http": {"username": "u"}}"#,
            "http.username",
        ),
    ] {
        let destination = serde_json::from_str(text).unwrap();
        let config = crate::Config {
            destinations: [("hook".to_owned(), destination)].into(),
            ..crate::Config::default()
        };
        let error = config.validate().unwrap_err();
        assert_eq!(error.key, format!("destinations.hook.{key}"), "{error}");
    }
}
