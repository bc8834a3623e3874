use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use thinglog_schemas::Event;
use thinglog_schemas::payload::Decoded;

use super::*;
use crate::testing::decoded;

/// Pieces are messages; the key is the source.
struct Plain;

impl Encoder for Plain {
    fn limits(&self) -> Limits {
        limits()
    }

    fn key<'a>(&self, event: &'a Event) -> Cow<'a, str> {
        Cow::Borrowed(&event.source)
    }

    fn encode(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<usize, Unfit> {
        out.extend_from_slice(event.message.as_bytes());
        Ok(out.len() + 1)
    }

    fn body(&mut self, request: &Request, out: &mut Vec<u8>) {
        out.extend_from_slice(request.joined());
    }
}

fn limits() -> Limits {
    Limits {
        events: 4,
        bytes: 30,
        overhead: 2,
        event_bytes: 20,
        span_ns: 1000,
        age: Duration::from_secs(1),
    }
}

fn item(source: &str, message: &str, time: u64) -> Item {
    let mut decoded: Decoded = decoded(message);
    decoded.events[0].source = Arc::from(source);
    decoded.events[0].time = time;
    Item {
        decoded: Arc::new(decoded),
        index: 0,
        ticket: 0,
    }
}

fn offer(form: &mut Form, item: Item, now: Instant) -> Option<Request> {
    match form.offer(&mut Plain, item, now) {
        Offered::Taken(closed) => closed,
        Offered::Unfit(_, unfit) => panic!("{unfit:?}"),
    }
}

fn messages(request: &Request) -> Vec<&str> {
    request
        .events()
        .map(|event| event.message.as_str())
        .collect()
}

#[test]
fn a_request_is_due_when_it_is_complete_or_old() {
    let now = Instant::now();
    let mut form = Form::new(limits());
    for message in ["a", "b", "c"] {
        assert!(offer(&mut form, item("s", message, 0), now).is_none());
    }
    assert!(form.due(now).is_none());
    assert_eq!(form.next_due(), Some(now + Duration::from_secs(1)));
    let old = form.due(now + Duration::from_secs(1)).unwrap();
    assert_eq!(messages(&old), ["a", "b", "c"]);
    for message in ["a", "b", "c", "d"] {
        offer(&mut form, item("s", message, 0), now);
    }
    assert_eq!(form.due(now).unwrap().len(), 4);
}

#[test]
fn what_does_not_fit_closes_the_request_before_it() {
    let now = Instant::now();
    let mut form = Form::new(limits());
    offer(&mut form, item("s", "0123456789", 0), now);
    let closed = offer(&mut form, item("s", "01234567890123456", 0), now).unwrap();
    assert_eq!(messages(&closed), ["0123456789"]);
    let closed = offer(&mut form, item("s", "late", 1001), now).unwrap();
    assert_eq!(closed.len(), 1, "more than a span between two events");
    assert!(offer(&mut form, item("s", "x", 500), now).is_none());
}

#[test]
fn an_event_that_fits_no_request_is_handed_back() {
    let mut form = Form::new(limits());
    let offered = form.offer(
        &mut Plain,
        item("s", "01234567890123456789", 0),
        Instant::now(),
    );
    let Offered::Unfit(_, Unfit(reason)) = offered else {
        panic!("taken");
    };
    assert!(
        reason.contains("21 bytes") && reason.contains("20"),
        "{reason}"
    );
    assert!(form.any().is_none());
}

#[test]
fn keys_do_not_mix_and_together_take_the_room_of_one_request() {
    let now = Instant::now();
    let mut form = Form::new(limits());
    assert!(offer(&mut form, item("a", "0123456789", 0), now).is_none());
    assert!(offer(&mut form, item("b", "0123456789", 0), now).is_none());
    let closed = offer(&mut form, item("c", "0123456789", 0), now).unwrap();
    assert_eq!(closed.key(), "a", "the oldest goes");
    offer(&mut form, item("b", "x", 0), now);
    let rest: Vec<String> = std::iter::from_fn(|| form.any())
        .map(|request| format!("{}{}", request.key(), request.len()))
        .collect();
    assert_eq!(rest, ["b2", "c1"]);
}

proptest! {
    #[test]
    fn nothing_is_lost_repeated_or_too_large(
        events in proptest::collection::vec((0..3u8, 0..25usize, 0..3000u64), 0..200),
    ) {
        let now = Instant::now();
        let mut form = Form::new(limits());
        let (mut closed, mut unfit) = (Vec::new(), 0);
        for (n, (source, length, time)) in events.iter().enumerate() {
            let message = format!("{n:0length$}");
            match form.offer(&mut Plain, item(&source.to_string(), &message, *time), now) {
                Offered::Taken(request) => closed.extend(request),
                Offered::Unfit(..) => unfit += 1,
            }
            closed.extend(form.due(now));
        }
        closed.extend(std::iter::from_fn(|| form.any()));
        let mut seen = Vec::new();
        for request in &closed {
            let mut body = Vec::new();
            Plain.body(request, &mut body);
            prop_assert!(body.len() + 2 + request.len() <= 30 && request.len() <= 4);
            prop_assert!(request.events().all(|event| *event.source == *request.key()));
            let times = || request.events().map(|event| event.time);
            prop_assert!(times().max().unwrap() - times().min().unwrap() <= 1000);
            seen.extend(request.events().map(|event| event.message.parse::<usize>().unwrap()));
        }
        prop_assert_eq!(seen.len() + unfit, events.len());
        seen.sort_unstable();
        seen.dedup();
        prop_assert_eq!(seen.len() + unfit, events.len());
    }
}
