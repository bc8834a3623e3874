use std::sync::Arc;

use serde_json::{Value, json};
use thinglog_schemas::{Event, EventId};

use super::*;
use crate::deliver::remote::Encoder;
use crate::deliver::remote::request::Item;
use crate::deliver::remote::verdict::ItemVerdict;
use crate::testing::decoded;

fn item(message: &str, change: impl FnOnce(&mut Event)) -> Item {
    let mut decoded = decoded(message);
    let event = &mut decoded.events[0];
    event.time = 1_767_323_045_003_456_789;
    event.id = EventId::Spooled { epoch: 1, seq: 2 };
    change(event);
    Item {
        decoded: Arc::new(decoded),
        index: 0,
        ticket: 0,
    }
}

/// A request as it would be sent; never larger than was said.
fn sent(text: &str, items: Vec<Item>) -> (Head, String) {
    let config: SplunkConfig = serde_json::from_str(text).unwrap();
    let (mut encoder, sink) = build(&config).unwrap();
    let mut request = Request::new(&encoder.key(items[0].event()));
    for item in items {
        let mut piece = Vec::new();
        let cost = encoder.encode(item.event(), &mut piece).unwrap();
        request.push(item, &piece, cost);
    }
    let mut body = Vec::new();
    encoder.body(&request, &mut body);
    assert!(body.len() <= encoder.limits().overhead + request.cost());
    let channel = sink.channel.lock().clone();
    (
        sink.data_head(&request, &channel),
        String::from_utf8(body).unwrap(),
    )
}

const PLAIN: &str = r#"{"url": "https://h:8088/", "index": "fleet"}"#;

#[test]
fn an_event_has_its_time_host_source_and_flat_fields() {
    let set = |event: &mut Event| {
        let attributes =
            json!({"room": "attic", "watts": 5, "nested": {"a": [1]}, "id": "x", "": "y"});
        event.attributes = attributes.as_object().unwrap().clone();
    };
    let (head, body) = sent(PLAIN, vec![item("say \"hi\"", set)]);
    assert_eq!(head.url, "https://h:8088/services/collector/event");
    assert!(
        body.starts_with("{\"time\":1767323045.003456789,"),
        "{body}"
    );
    let mut event: Value = serde_json::from_str(&body).unwrap();
    event.as_object_mut().unwrap().remove("time");
    let expected = json!({
        "host": "lamp-7", "source": "app", "sourcetype": "thinglog", "index": "fleet",
        "event": "say \"hi\"",
        "fields": {
            "level": "info", "severity": "9", "id": "lamp-7/0000000000000001/2", "room": "attic",
            "watts": "5", "nested": "{\"a\":[1]}", "id_": "x", "_": "y",
        },
    });
    assert_eq!(event, expected);
}

#[test]
fn a_blank_message_is_an_event_all_the_same() {
    let (_, body) = sent(PLAIN, vec![item(" ", |_| {})]);
    let event: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(event["event"], json!({"message": " "}));
}

#[test]
fn raw_lines_tell_host_and_source_in_the_address() {
    let text = r#"{"url": "https://h", "form": "raw", "sourcetype": "syslog"}"#;
    let (head, body) = sent(text, vec![item("one", |_| {}), item("two\n", |_| {})]);
    let expected = "https://h/services/collector/raw?host=lamp-7&source=app&sourcetype=syslog";
    assert_eq!(head.url, expected);
    assert!(head.headers.contains_key(CHANNEL));
    assert_eq!(body, "one\ntwo\n");
    let config: SplunkConfig = serde_json::from_str(text).unwrap();
    let (mut encoder, _) = build(&config).unwrap();
    let blank = encoder.encode(item("\n", |_| {}).event(), &mut Vec::new());
    assert!(blank.is_err(), "a line that would vanish");
}

#[test]
fn a_channel_is_a_random_guid() {
    let (one, other) = (new_channel(), new_channel());
    assert_ne!(one, other);
    let text = one.to_str().unwrap();
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12]);
    assert_eq!(&text[14..15], "4");
}

/// What becomes of five events; `confirmed` as in `hec::verdict`.
fn fates(status: u16, body: &str, confirmed: bool) -> String {
    let answer = Answer {
        status,
        headers: HeaderMap::new(),
        body: body.into(),
    };
    let verdict = match hec::read(&answer) {
        Some(said) => hec::verdict(&said, 5, confirmed, &answer),
        None => answer.verdict(),
    };
    match verdict {
        Verdict::Accepted => "accepted".into(),
        Verdict::Retry { .. } => "retry".into(),
        Verdict::Refused { .. } => "refused".into(),
        Verdict::Items(items) => {
            let letter = |item: &ItemVerdict| match item {
                ItemVerdict::Accepted => 'a',
                ItemVerdict::Duplicate => 'd',
                ItemVerdict::Retry(_) => 'r',
                ItemVerdict::Refused(_) => 'x',
            };
            items.iter().map(letter).collect()
        }
    }
}

#[test]
fn the_collectors_codes_mean_what_its_pages_say() {
    for (status, body, fate) in [
        (200, r#"{"text":"Success","code":0}"#, "accepted"),
        (403, r#"{"text":"Token disabled","code":1}"#, "retry"),
        (403, r#"{"text":"Invalid token","code":4}"#, "retry"),
        (
            400,
            r#"{"text":"Incorrect index","code":7,"invalid-event-number":1}"#,
            "retry",
        ),
        (
            400,
            r#"{"text":"Data channel is missing","code":10}"#,
            "retry",
        ),
        (500, r#"{"text":"Internal server error","code":8}"#, "retry"),
        (503, r#"{"text":"Server is busy","code":9}"#, "retry"),
        (
            503,
            r#"{"text":"Server is busy","code":9,"invalid-event-number":2}"#,
            "aarrr",
        ),
        (
            400,
            r#"{"text":"Invalid data format","code":6,"invalid-event-number":3}"#,
            "aaaxr",
        ),
        (
            400,
            r#"{"text":"Event field cannot be blank","code":13,"invalid-event-number":0}"#,
            "xrrrr",
        ),
        (400, r#"{"text":"Invalid data format","code":6}"#, "refused"),
        (
            400,
            r#"{"text":"Invalid data format","code":6,"invalid-event-number":9}"#,
            "refused",
        ),
        (429, r#"{"text":"Queue at capacity","code":26}"#, "retry"),
        (413, "<html>too large</html>", "refused"),
        (502, "<html>bad gateway</html>", "retry"),
    ] {
        assert_eq!(fates(status, body, false), fate, "{body}");
    }
}

#[test]
fn what_nothing_confirms_is_sent_again() {
    let invalid = r#"{"text":"Invalid data format","code":6,"invalid-event-number":2}"#;
    assert_eq!(fates(400, invalid, true), "rrxrr");
}

#[test]
fn what_splunk_would_not_take_is_refused_by_key() {
    for (text, key) in [
        (r#"{"type": "splunk", "url": "splunk:8088"}"#, "url"),
        (
            r#"{"type": "splunk", "url": "http://h", "index": "a b"}"#,
            "index",
        ),
        (
            r#"{"type": "splunk", "url": "http://h", "ack_every_ms": 0}"#,
            "ack_every_ms",
        ),
        (
            r#"{"type": "splunk", "url": "http://h", "compression": "zstd"}"#,
            "compression",
        ),
    ] {
        let destination = serde_json::from_str(text).unwrap();
        let config = crate::Config {
            destinations: [("splunk".to_owned(), destination)].into(),
            ..crate::Config::default()
        };
        let error = config.validate().unwrap_err();
        assert_eq!(error.key, format!("destinations.splunk.{key}"), "{error}");
    }
}
