//! How fast one core makes requests of events, compressed as they are sent, beside a copy of the same
//! bytes; counted in the time that the processor spent on it. Not a test: run it by hand with
//!
//! ```text
//! cargo test --release -p thinglog-router encoders -- --ignored --nocapture --test-threads=1
//! ```

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use thinglog_schemas::payload::Decoded;
use thinglog_schemas::{Attributes, EventId};

use super::http::Connection;
use super::{elasticsearch, loki, otlp, splunk};
use crate::config::{ClientConfig, Compression};
use crate::deliver::remote::Encoder;
use crate::deliver::remote::form::{Form, Offered};
use crate::deliver::remote::request::{Item, Request};
use crate::testing::{Spent, decoded};

const EVENTS: u64 = 100_000;
const ROUNDS: usize = 5;
/// Copies of a round, so that there is something to measure.
const COPIES: usize = 10;

/// Events of 50 devices with lines as of a web server and three attributes.
fn items() -> Vec<Item> {
    let attributes = json!({"room": "attic", "watts": 5, "firmware": "2.4.1"});
    let attributes: Attributes = attributes.as_object().cloned().unwrap_or_default();
    let event = |n: u64| {
        let mut event = decoded("").events.remove(0);
        event.device = Arc::from(format!("lamp-{}", n / 500 % 50));
        event.id = EventId::Spooled {
            epoch: n / 500 % 50,
            seq: n,
        };
        event.time = 1_767_323_045_000_000_000 + n * 1_000_000;
        event.received = event.time + 5_000_000;
        event.attributes = attributes.clone();
        event.message = format!(
            "GET /api/v1/rooms/{}/state HTTP/1.1 {} {} \"-\" \"thermostat/2.{} (linux; armv7)\" took={}us",
            n % 97,
            200 + n % 5,
            300 + n * 7 % 9000,
            n % 10,
            n * 31 % 100_000
        );
        event
    };
    let payload = |at: u64| {
        let events = (at..at + 500).map(event).collect();
        Arc::new(Decoded { events, lane: None })
    };
    let payloads = (0..EVENTS).step_by(500).map(payload);
    let items = payloads.flat_map(|decoded| {
        (0..500).map(move |index| Item {
            decoded: Arc::clone(&decoded),
            index,
            ticket: 0,
        })
    });
    items.collect()
}

/// From events to what is sent; gives the bytes before and behind compression.
fn run<E: Encoder>(encoder: &mut E, connection: &Connection, items: &[Item]) -> (usize, usize) {
    let mut form = Form::new(encoder.limits());
    let (mut raw, mut packed) = (0, 0);
    let now = Instant::now();
    let mut send = |encoder: &mut E, request: Request| {
        let mut body = Vec::with_capacity(request.joined().len());
        encoder.body(&request, &mut body);
        raw += body.len();
        packed += connection.compress(body).unwrap().len();
    };
    for item in items {
        match form.offer(encoder, item.clone(), now) {
            Offered::Taken(Some(request)) => send(encoder, request),
            Offered::Taken(None) => {}
            Offered::Unfit(_, unfit) => panic!("{unfit:?}"),
        }
    }
    while let Some(request) = form.any() {
        send(encoder, request);
    }
    (raw, packed)
}

/// Seconds of the processor for one of some rounds, the median.
fn median(mut round: impl FnMut()) -> f64 {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begun = Spent::now();
            round();
            begun.elapsed()
        })
        .collect();
    times.sort();
    times[ROUNDS / 2].as_secs_f64()
}

fn measure<E: Encoder>(what: &str, mut encoder: E, compression: Compression, items: &[Item]) {
    let connection = Connection::new(&ClientConfig::default(), compression, "Bearer").unwrap();
    let mut bytes = (0, 0);
    let seconds = median(|| bytes = run(&mut encoder, &connection, items));
    let source = vec![7u8; bytes.0];
    let copying = median(|| {
        for _ in 0..COPIES {
            black_box(black_box(&source).to_vec());
        }
    }) / COPIES as f64;
    println!(
        "{what:<24} {:>9.0} events/s {:>7.1} MB/s ({:.2} of it sent), memcpy {:>7.0} MB/s",
        items.len() as f64 / seconds,
        bytes.0 as f64 / 1e6 / seconds,
        bytes.1 as f64 / bytes.0 as f64,
        bytes.0 as f64 / 1e6 / copying
    );
}

#[test]
#[ignore = "a measurement"]
fn encoders() {
    let items = items();
    let plain = r#"{"url": "http://h"}"#;
    let (encoder, _) = loki::build(&serde_json::from_str(plain).unwrap()).unwrap();
    measure("loki (snappy)", encoder, Compression::None, &items);
    for compression in [Compression::None, Compression::Gzip] {
        let (encoder, _) = otlp::build(&serde_json::from_str(plain).unwrap()).unwrap();
        measure(
            &format!("otlp protobuf {compression:?}"),
            encoder,
            compression,
            &items,
        );
        let json = r#"{"url": "http://h", "encoding": "json"}"#;
        let (encoder, _) = otlp::build(&serde_json::from_str(json).unwrap()).unwrap();
        measure(
            &format!("otlp json {compression:?}"),
            encoder,
            compression,
            &items,
        );
        let (encoder, _) = elasticsearch::build(&serde_json::from_str(plain).unwrap()).unwrap();
        measure(
            &format!("_bulk {compression:?}"),
            encoder,
            compression,
            &items,
        );
        let (encoder, _) = splunk::build(&serde_json::from_str(plain).unwrap()).unwrap();
        measure(
            &format!("splunk {compression:?}"),
            encoder,
            compression,
            &items,
        );
    }
}
