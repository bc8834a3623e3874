use std::sync::Arc;

use prost::Message;
use thinglog_schemas::{Event, EventId, Severity};

use super::*;
use crate::deliver::remote::Encoder;
use crate::deliver::remote::request::Item;
use crate::deliver::remote::verdict::ItemVerdict;
use crate::testing::decoded;

#[derive(Clone, PartialEq, Message)]
struct Push {
    #[prost(message, repeated, tag = "1")]
    streams: Vec<Stream>,
}

#[derive(Clone, PartialEq, Message)]
struct Stream {
    #[prost(string, tag = "1")]
    labels: String,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<Time>,
    #[prost(string, tag = "2")]
    line: String,
    #[prost(message, repeated, tag = "3")]
    metadata: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
struct Time {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

impl Entry {
    fn metadata(&self, name: &str) -> Option<&str> {
        let found = self.metadata.iter().find(|pair| pair.name == name);
        found.map(|pair| pair.value.as_str())
    }
}

fn item(device: &str, message: &str, change: impl FnOnce(&mut Event)) -> Item {
    let mut decoded = decoded(message);
    let event = &mut decoded.events[0];
    event.device = Arc::from(device);
    event.time = 1_767_323_045_123_456_000;
    event.id = EventId::Spooled { epoch: 1, seq: 2 };
    change(event);
    Item {
        decoded: Arc::new(decoded),
        index: 0,
        ticket: 0,
    }
}

fn request(encoder: &mut LokiEncoder, items: Vec<Item>) -> Request {
    let mut request = Request::new("");
    for item in items {
        let mut piece = Vec::new();
        let cost = encoder.encode(item.event(), &mut piece).unwrap();
        request.push(item, &piece, cost);
    }
    request
}

fn config(text: &str) -> LokiConfig {
    serde_json::from_str(text).unwrap()
}

/// What Loki reads; never larger than was said.
fn pushed(text: &str, items: Vec<Item>) -> Push {
    let (mut encoder, _) = build(&config(text)).unwrap();
    let request = request(&mut encoder, items);
    let mut body = Vec::new();
    encoder.body(&request, &mut body);
    let raw = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    let most = encoder.limits().overhead + request.cost();
    assert!(body.len() <= most && raw.len() <= most);
    Push::decode(&raw[..]).unwrap()
}

const PLAIN: &str = r#"{"url": "http://h"}"#;

#[test]
fn a_device_is_a_stream_in_its_order() {
    let items = vec![
        item("lamp-7", "one", |_| {}),
        item("lamp-8", "two", |event| event.severity = Severity::WARN),
        item("lamp-7", "three\n", |_| {}),
    ];
    let push = pushed(PLAIN, items);
    let lines = |stream: &Stream| {
        let lines = stream.entries.iter().map(|entry| entry.line.clone());
        (stream.labels.clone(), lines.collect::<Vec<_>>())
    };
    let streams: Vec<_> = push.streams.iter().map(lines).collect();
    let expected = [
        (
            r#"{device="lamp-7", job="thinglog"}"#,
            vec!["one", "three\n"],
        ),
        (r#"{device="lamp-8", job="thinglog"}"#, vec!["two"]),
    ];
    let expected = expected.map(|(labels, lines)| {
        let lines = lines.into_iter().map(str::to_owned).collect();
        (labels.to_owned(), lines)
    });
    assert_eq!(streams, expected);
    let entry = &push.streams[1].entries[0];
    assert_eq!(entry.metadata("level"), Some("warn"));
    assert_eq!(entry.metadata("severity_number"), Some("13"));
    assert_eq!(entry.metadata("source"), Some("app"));
    assert_eq!(entry.metadata("id"), Some("lamp-8/0000000000000001/2"));
    assert_eq!(entry.metadata("device"), None, "it is a label");
    let time = entry.timestamp.as_ref().unwrap();
    assert_eq!(time.seconds, 1_767_323_045);
    assert_eq!(time.nanos / 1000, 123_456);
}

#[test]
fn labels_are_chosen_and_escaped() {
    let text = r#"{"url": "http://h", "labels": {"room": "{{attributes.room}}", "source": "{{source}}",
                   "level": "{{level|lower}}"}}"#;
    let set = |event: &mut Event| drop(event.attributes.insert("room".into(), "a\"\\\n".into()));
    let push = pushed(
        text,
        vec![item("lamp-7", "one", set), item("lamp-7", "two", |_| {})],
    );
    assert_eq!(
        push.streams[0].labels,
        r#"{level="info", room="a\"\\\n", source="app"}"#
    );
    assert_eq!(push.streams[1].labels, r#"{level="info", source="app"}"#);
    assert_eq!(
        push.streams[0].entries[0].metadata("device"),
        Some("lamp-7")
    );
}

#[test]
fn no_attribute_takes_the_name_of_something_else() {
    let set = |event: &mut Event| {
        for name in ["device", "id", "http.status", "http-status", "1st"] {
            event.attributes.insert(name.into(), name.into());
        }
        event
            .attributes
            .insert("nested".into(), serde_json::json!({"a": [1]}));
    };
    let push = pushed(PLAIN, vec![item("lamp-7", "one", set)]);
    let entry = &push.streams[0].entries[0];
    assert_eq!(entry.metadata("id"), Some("lamp-7/0000000000000001/2"));
    for (name, value) in [
        ("device_extracted", "device"),
        ("id_extracted", "id"),
        ("_1st", "1st"),
        ("nested", r#"{"a":[1]}"#),
    ] {
        assert_eq!(entry.metadata(name), Some(value));
    }
    let both = ["http_status", "http_status_extracted"].map(|name| entry.metadata(name));
    assert!(both.contains(&Some("http.status")) && both.contains(&Some("http-status")));
}

#[test]
fn loki_is_not_sent_more_metadata_than_it_takes() {
    let set = |event: &mut Event| {
        for n in 0..128 {
            event.attributes.insert(format!("a{n:03}"), n.into());
        }
    };
    let push = pushed(PLAIN, vec![item("lamp-7", "one", set)]);
    let entry = &push.streams[0].entries[0];
    assert!(entry.metadata.len() <= 128, "{}", entry.metadata.len());
    let rest: serde_json::Value =
        serde_json::from_str(entry.metadata("attributes").unwrap()).unwrap();
    assert_eq!(rest.as_object().unwrap().len(), 28);
}

#[test]
fn equal_lines_of_one_moment_stay_apart_and_in_order() {
    let numbered = |seq| move |event: &mut Event| event.id = EventId::Spooled { epoch: 1, seq };
    let times = |text, items| {
        let push = pushed(text, items);
        let times = push.streams[0].entries.iter();
        times
            .map(|entry| entry.timestamp.as_ref().unwrap().nanos)
            .collect::<Vec<_>>()
    };
    // A device whose own digits leave room.
    let equal = || {
        vec![
            item("lamp-7", "x", numbered(1)),
            item("lamp-7", "x", numbered(2)),
        ]
    };
    let found = times(PLAIN, equal());
    assert!(found[0] != found[1], "{found:?}");
    assert_eq!(found, times(PLAIN, equal()), "the same when sent again");
    let exact = |event: &mut Event| event.time += 7;
    assert_eq!(
        times(PLAIN, vec![item("lamp-7", "x", exact)]),
        [123_456_007]
    );
}

#[test]
fn a_line_that_loki_would_not_take_is_told_from_the_others() {
    let text = r#"{"url": "http://h", "line": "json", "max_line_bytes": 300}"#;
    let (mut encoder, _) = build(&config(text)).unwrap();
    let mut piece = Vec::new();
    let long = item("lamp-7", &"x".repeat(300), |_| {});
    let unfit = encoder.encode(long.event(), &mut piece).unwrap_err();
    assert!(unfit.0.contains("max_line_bytes = 300"), "{unfit:?}");
    let push = pushed(text, vec![item("lamp-7", "one", |_| {})]);
    assert!(push.streams[0].entries[0].line.starts_with("{\"id\":"));
}

fn verdict(body: &str, items: Vec<Item>) -> Verdict {
    let (mut encoder, sink) = build(&config(PLAIN)).unwrap();
    let request = request(&mut encoder, items);
    let answer = Answer {
        status: 400,
        headers: HeaderMap::new(),
        body: body.into(),
    };
    sink.service().verdict(&request, &answer)
}

fn fates(verdict: &Verdict) -> String {
    let Verdict::Items(items) = verdict else {
        return format!("{verdict:?}");
    };
    let letter = |item: &ItemVerdict| match item {
        ItemVerdict::Refused(_) => 'x',
        ItemVerdict::Retry(_) => 'r',
        _ => '?',
    };
    items.iter().map(letter).collect()
}

#[test]
fn what_is_too_old_is_refused_at_once_and_the_rest_sent_again() {
    let old = |event: &mut Event| event.time -= 3_600_000_000_000;
    let items = || {
        vec![
            item("lamp-7", "old", old),
            item("lamp-7", "new", |_| {}),
            item("lamp-8", "old", old),
        ]
    };
    let by_clock = "entry for stream '{device=\"lamp-7\", job=\"thinglog\"}' has timestamp too old: \
                    2026-01-02T02:04:05Z, oldest acceptable timestamp is: 2026-01-02T03:00:00Z";
    assert_eq!(fates(&verdict(by_clock, items())), "xrx");
    let behind = "entry with timestamp 2026-01-02 02:04:05.123456 +0000 UTC ignored, reason: 'entry \
                  too far behind, entry timestamp is: 2026-01-02T02:04:05Z, oldest acceptable \
                  timestamp is: 2026-01-02T03:00:00Z',\nuser 'fake', total ignored: 1 out of 2 for \
                  stream: {device=\"lamp-7\", job=\"thinglog\"}";
    assert_eq!(fates(&verdict(behind, items())), "xrr");
    let other = verdict("error parsing labels", items());
    assert!(matches!(other, Verdict::Refused { .. }), "{other:?}");
}

#[test]
fn what_loki_would_not_take_is_refused_by_key() {
    for (text, key) in [
        (r#"{"type": "loki", "url": "loki:3100"}"#, "url"),
        (
            r#"{"type": "loki", "url": "http://h", "labels": {}}"#,
            "labels",
        ),
        (
            r#"{"type": "loki", "url": "http://h", "labels": {"a-b": "x"}}"#,
            "labels.a-b",
        ),
        (
            r#"{"type": "loki", "url": "http://h", "labels": {"a": "{{x}}"}}"#,
            "labels.a",
        ),
    ] {
        let destination = serde_json::from_str(text).unwrap();
        let config = crate::Config {
            destinations: [("loki".to_owned(), destination)].into(),
            ..crate::Config::default()
        };
        let error = config.validate().unwrap_err();
        assert_eq!(error.key, format!("destinations.loki.{key}"), "{error}");
    }
}

#[test]
fn the_tenant_and_the_path_are_told() {
    let text = r#"{"url": "http://h/prefix/", "tenant": "fleet-1"}"#;
    let (mut encoder, sink) = build(&config(text)).unwrap();
    let request = request(&mut encoder, vec![item("lamp-7", "one", |_| {})]);
    let head = sink.service().head(&request, b"", 0);
    assert_eq!(head.url, "http://h/prefix/loki/api/v1/push");
    assert_eq!(head.headers["x-scope-orgid"], "fleet-1");
}
