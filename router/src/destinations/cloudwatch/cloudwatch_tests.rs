use std::sync::Arc;

use serde_json::{Value, json};
use thinglog_schemas::Event;

use super::*;
use crate::deliver::remote::Encoder;
use crate::deliver::remote::form::{Form, Offered};
use crate::deliver::remote::request::Item;
use crate::testing::decoded;

const NOW: u64 = 1_767_323_045_123_456_789;
const DAY: u64 = 86_400_000_000_000;

fn item(message: &str, change: impl FnOnce(&mut Event)) -> Item {
    let mut decoded = decoded(message);
    let event = &mut decoded.events[0];
    event.time = NOW;
    change(event);
    Item {
        decoded: Arc::new(decoded),
        index: 0,
        ticket: 0,
    }
}

fn encoder(more: Value) -> CloudWatchEncoder {
    let mut config = json!({"region": "eu-central-1"});
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    CloudWatchEncoder::new(&serde_json::from_value(config).unwrap()).unwrap()
}

/// One request of these.
fn request(encoder: &mut CloudWatchEncoder, items: Vec<Item>) -> Request {
    let mut request = Request::new(&encoder.key(items[0].event()));
    for item in items {
        let mut piece = Vec::new();
        let cost = encoder.encode(item.event(), &mut piece).unwrap();
        request.push(item, &piece, cost);
    }
    request
}

fn body(encoder: &mut CloudWatchEncoder, items: Vec<Item>) -> Value {
    let request = request(encoder, items);
    let mut body = Vec::new();
    encoder.body(&request, &mut body);
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn a_request_is_of_one_stream_and_sorted_by_time() {
    let mut encoder = encoder(json!({"line": "message"}));
    let at = |ms: u64| move |event: &mut Event| event.time = NOW + ms * 1_000_000;
    let items = vec![
        item("c \"é\"\n", at(7)),
        item("a", at(0)),
        item("b", at(0)),
        item("", at(3)),
    ];
    let body = body(&mut encoder, items);
    assert_eq!(body["logGroupName"], "thinglog");
    assert_eq!(body["logStreamName"], "lamp-7");
    let events = body["logEvents"].as_array().unwrap();
    assert_eq!(
        events[0],
        json!({"timestamp": NOW / 1_000_000, "message": "a"})
    );
    assert_eq!(events[1]["message"], "b", "of one moment, in order");
    // No message is empty.
    let whole: Value = serde_json::from_str(events[2]["message"].as_str().unwrap()).unwrap();
    assert_eq!(whole["device"], "lamp-7");
    assert_eq!(events[3]["message"], "c \"é\"\n");
}

#[test]
fn a_body_of_what_is_long_in_json_has_at_most_twice_the_bytes_that_are_counted() {
    let mut encoder = encoder(json!({"line": "message"}));
    let limits = encoder.limits();
    let mut form = Form::new(limits);
    let now = std::time::Instant::now();
    let message = "\u{1}".repeat(10_000);
    let mut bodies = Vec::new();
    for _ in 0..200 {
        if let Offered::Taken(Some(request)) = form.offer(&mut encoder, item(&message, |_| ()), now)
        {
            let mut body = Vec::new();
            encoder.body(&request, &mut body);
            bodies.push(body.len());
        }
    }
    assert!(bodies.len() > 3, "{bodies:?}");
    assert!(
        bodies.iter().all(|body| *body <= 2 * limits.bytes + 200),
        "{bodies:?}"
    );
    // The longest message that there is is sent all the same.
    let longest = item(&"\u{1}".repeat(256 << 10), |_| ());
    assert!(matches!(
        form.offer(&mut encoder, longest, now),
        Offered::Taken(_)
    ));
}

#[test]
fn a_group_of_awss_own_is_not_asked_for() {
    let encoder = encoder(json!({"log_group": "{{message}}"}));
    let group = |message: &str| {
        let key = encoder.key(item(message, |_| ()).event()).into_owned();
        key.split_once('\n').unwrap().0.to_owned()
    };
    assert_eq!(group("aws/lambda"), "aws_lambda");
    assert_eq!(group("/aws/lambda"), "/aws/lambda");
}

#[test]
fn an_event_costs_its_message_in_utf_8_and_26_bytes() {
    let mut encoder = encoder(json!({"line": "message"}));
    for message in ["x", "é", "\u{1}\"\\", "日本"] {
        let cost = encoder.encode(item(message, |_| ()).event(), &mut Vec::new());
        assert_eq!(cost.unwrap(), message.len() + 26, "{message:?}");
    }
    let mut form = Form::new(encoder.limits());
    let mut offer = |bytes: usize| {
        let item = item(&"x".repeat(bytes), |_| ());
        form.offer(&mut encoder, item, std::time::Instant::now())
    };
    assert!(matches!(offer(1_048_551), Offered::Unfit(..)));
    assert!(matches!(offer(1_048_550 - 27), Offered::Taken(None)));
    assert!(matches!(offer(1), Offered::Taken(None)), "exactly full");
    assert!(matches!(offer(1), Offered::Taken(Some(full)) if full.len() == 2));
}

#[test]
fn ten_thousand_events_and_a_day_are_a_request() {
    let mut encoder = encoder(json!({}));
    assert_eq!(encoder.limits().events, 10_000);
    let mut form = Form::new(encoder.limits());
    let mut offer = |time: u64| {
        let item = item("x", |event| event.time = time);
        form.offer(&mut encoder, item, std::time::Instant::now())
    };
    assert!(matches!(offer(NOW), Offered::Taken(None)));
    assert!(matches!(offer(NOW + DAY - 1_000_000), Offered::Taken(None)));
    assert!(matches!(offer(NOW + DAY), Offered::Taken(Some(_))));
}

#[test]
fn no_event_leaves_the_names_that_are_allowed() {
    let more =
        json!({"log_group": "fleet/{{attributes.site}}", "log_stream": "{{attributes.room}}"});
    let encoder = encoder(more);
    let set = |event: &mut Event| {
        event.attributes.insert("site".into(), "a:b *\né".into());
        event.attributes.insert("room".into(), "x:*\n日".into());
    };
    assert_eq!(encoder.key(item("x", set).event()), "fleet/a_b____\nx___日");
    let missing = item("x", |_| ());
    assert_eq!(encoder.key(missing.event()), "fleet/\n_");
    let long = item("x", |event| {
        event
            .attributes
            .insert("room".into(), "é".repeat(600).into());
    });
    let key = encoder.key(long.event()).into_owned();
    assert_eq!(key.split_once('\n').unwrap().1.chars().count(), 512);
}

fn answer(status: u16, body: Value) -> Answer {
    Answer {
        status,
        headers: HeaderMap::new(),
        body: body.to_string().into(),
    }
}

#[test]
fn what_is_rejected_is_named_by_its_place_in_what_was_sent() {
    let mut encoder = encoder(json!({}));
    let at = |days: u64| {
        item("x", move |event| {
            event.time = NOW + days * 3_600_000_000_000
        })
    };
    // Sent as 0, 1, 2, 3.
    let request = request(&mut encoder, vec![at(2), at(0), at(3), at(1)]);
    let rejected = json!({"nextSequenceToken": "1", "rejectedLogEventsInfo": {
        "tooOldLogEventEndIndex": 2, "expiredLogEventEndIndex": 1, "tooNewLogEventStartIndex": 3,
    }});
    let Verdict::Items(items) = answer::taken(&request, &answer(200, rejected)) else {
        panic!();
    };
    assert_eq!(items[0], ItemVerdict::Accepted);
    let refused = |at: usize, word: &str| matches!(&items[at], ItemVerdict::Refused(reason) if reason.contains(word));
    assert!(refused(1, "retention") && refused(3, "too old") && refused(2, "too new"));
    let fine = answer(200, json!({"nextSequenceToken": "1"}));
    assert_eq!(answer::taken(&request, &fine), Verdict::Accepted);
    let strange = answer(200, json!("hello"));
    assert!(matches!(
        answer::taken(&request, &strange),
        Verdict::Retry { .. }
    ));
}

#[test]
fn errors_are_told_apart_by_their_names() {
    let said = |body: Value| answer::read(&answer(400, body));
    let kind = |kind: &str| json!({"__type": kind, "message": "as it is"});
    assert_eq!(
        said(kind("com.amazonaws.logs#ResourceNotFoundException")),
        Said::Missing
    );
    assert_eq!(said(kind("ResourceAlreadyExistsException")), Said::Exists);
    assert_eq!(
        said(kind("DataAlreadyAcceptedException")),
        Said::AlreadyAccepted
    );
    let token = json!({"__type": "InvalidSequenceTokenException", "expectedSequenceToken": "49"});
    assert_eq!(said(token), Said::Token("49".into()));
    let mut by_header = answer(400, json!({}));
    let value = "ResourceNotFoundException:http://internal.amazon.com/coral/";
    by_header
        .headers
        .insert("x-amzn-errortype", value.parse().unwrap());
    assert_eq!(answer::read(&by_header), Said::Missing);
    for name in [
        "ThrottlingException",
        "AccessDeniedException",
        "ExpiredTokenException",
        "LimitExceededException",
    ] {
        let answer = answer(400, kind(name));
        let verdict = answer::verdict(answer::read(&answer), &answer);
        assert!(matches!(verdict, Verdict::Retry { .. }), "{name}");
    }
    for (status, body) in [
        (400, kind("InvalidParameterException")),
        (413, json!({})),
        (400, json!("")),
    ] {
        let answer = answer(status, body);
        let verdict = answer::verdict(answer::read(&answer), &answer);
        assert!(matches!(verdict, Verdict::Refused { .. }), "{verdict:?}");
    }
    assert!(answer::is_about_credentials(&answer(
        400,
        kind("UnrecognizedClientException")
    )));
    assert!(!answer::is_about_credentials(&answer(200, json!({}))));
}

#[test]
fn a_token_is_added_where_it_is_asked_for() {
    let body = encode::with_token(br#"{"logEvents":[]}"#.to_vec(), "49\"");
    let read: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(read, json!({"logEvents": [], "sequenceToken": "49\""}));
}

#[test]
fn what_it_would_not_take_is_refused_by_key() {
    for (more, key) in [
        (json!({"region": ""}), "region"),
        (json!({"endpoint": "logs:443"}), "endpoint"),
        (json!({"log_group": ""}), "log_group"),
        (json!({"log_stream": "{{devise}}"}), "log_stream"),
        (json!({"http": {"token": "t"}}), "http.token"),
        (
            json!({"credentials": {"access_key_id": "a b", "secret_access_key": "s"}}),
            "credentials.access_key_id",
        ),
    ] {
        let mut text = json!({"type": "cloudwatch", "region": "eu-central-1"});
        text.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let destination = serde_json::from_value(text).unwrap();
        let config = crate::Config {
            destinations: [("cw".to_owned(), destination)].into(),
            ..crate::Config::default()
        };
        let error = config.validate().unwrap_err();
        assert_eq!(error.key, format!("destinations.cw.{key}"), "{error}");
    }
}
