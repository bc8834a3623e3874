//! Loki, against a server that reads `push.proto` with another library than ours and holds to Loki's
//! rules: "Loki HTTP API, Ingest logs" and "Limits" of https://grafana.com/docs/loki/latest/.
//!
//! - The body is snappy without framing; the type is `application/x-protobuf`.
//! - A stream has 1 to 15 labels, `name="value"` in braces, sorted; a value at most 2,048 bytes.
//! - A line has at most 256 KiB, an entry at most 128 pairs of metadata and 64 KiB of them.
//! - An entry that is an hour older than the newest of its stream is refused.
//! - Of what is refused 400 speaks; the rest of the request is taken.
//! - An entry whose time and line its stream has already is dropped without a word.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use prost::Message;
use serde_json::{Value, json};

use crate::harness::{Bench, Got, Subject, books};
use crate::http_server::{HttpRequest, HttpServer, Reply, Service};

const MAX_BYTES: usize = 64 << 10;
const HOUR: i128 = 3_600_000_000_000;

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
    #[prost(uint64, tag = "3")]
    hash: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    line: String,
    #[prost(message, repeated, tag = "3")]
    metadata: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
struct Timestamp {
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

/// What Loki remembers.
#[derive(Default)]
struct Rules {
    had: Mutex<HashSet<(String, i128, String)>>,
    newest: Mutex<HashMap<String, i128>>,
}

pub(crate) struct Loki {
    server: HttpServer,
}

impl Subject for Loki {
    const DEDUPLICATES: bool = true;

    async fn start() -> Option<Loki> {
        let server = HttpServer::serve(Rules::default()).await;
        Some(Loki { server })
    }

    fn config(&self) -> Value {
        json!({
            "type": "loki",
            "url": format!("http://{}", self.server.address),
            "tenant": "fleet",
            "batch": {"max_events": Self::MAX_EVENTS, "max_bytes": MAX_BYTES, "max_age_ms": 50},
            "retry": {"from_ms": 5, "max_ms": 50},
            "http": {"timeout_ms": 1000},
            "memory_bytes": 10 << 20,
        })
    }

    crate::asked_of_server!();
}

/// The streams of a request.
fn streams(request: &HttpRequest) -> Result<Vec<Stream>, String> {
    let raw = snap::raw::Decoder::new()
        .decompress_vec(&request.body)
        .map_err(|error| format!("snappy: {error}"))?;
    if raw.len() > MAX_BYTES {
        return Err(format!("{} bytes", raw.len()));
    }
    let push = Push::decode(&raw[..]).map_err(|error| format!("protobuf: {error}"))?;
    Ok(push.streams)
}

/// Labels by name, as Prometheus' parser would take them.
fn labels(text: &str) -> Result<Vec<(String, String)>, String> {
    let wrong = || format!("labels {text}");
    let mut rest = text
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .ok_or_else(wrong)?;
    let mut found: Vec<(String, String)> = Vec::new();
    while !rest.is_empty() {
        let (name, quoted) = rest.split_once('=').ok_or_else(wrong)?;
        let mut values = serde_json::Deserializer::from_str(quoted).into_iter::<String>();
        let value = values.next().and_then(Result::ok).ok_or_else(wrong)?;
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_sorted = found.last().is_none_or(|(last, _)| last.as_str() < name);
        if !name.chars().all(word) || !is_sorted || value.len() > 2048 {
            return Err(wrong());
        }
        let after = &quoted[values.byte_offset()..];
        rest = after.strip_prefix(", ").unwrap_or(after);
        found.push((name.to_owned(), value));
    }
    match found.len() {
        1..=15 => Ok(found),
        _ => Err(wrong()),
    }
}

impl Service for Rules {
    fn read(&self, request: &HttpRequest) -> Result<Vec<Got>, String> {
        if (request.method.as_str(), request.path.as_str()) != ("POST", "/loki/api/v1/push") {
            return Err(format!("{} {}", request.method, request.path));
        }
        for (name, value) in [
            ("content-type", "application/x-protobuf"),
            ("x-scope-orgid", "fleet"),
        ] {
            if request.header(name) != Some(value) {
                return Err(format!("{name}: {:?}", request.header(name)));
            }
        }
        let mut got = Vec::new();
        for stream in streams(request)? {
            let labels = labels(&stream.labels)?;
            let device = labels.iter().find(|(name, _)| name == "device");
            let (_, device) = device.ok_or("no device")?;
            for entry in stream.entries {
                let size = |pair: &Pair| pair.name.len() + pair.value.len();
                let size: usize = entry.metadata.iter().map(size).sum();
                if entry.metadata.len() > 128 || size > 64 << 10 || entry.line.len() > 256 << 10 {
                    return Err(format!("an entry of stream {}", stream.labels));
                }
                got.push(Got {
                    device: device.clone(),
                    message: entry.line,
                });
            }
        }
        Ok(got)
    }

    fn answer(&self, request: &HttpRequest, _events: Vec<Got>, poison: bool) -> Reply {
        let mut reply = Reply {
            status: 204,
            ..Reply::default()
        };
        for stream in streams(request).unwrap() {
            let device = labels(&stream.labels).unwrap();
            let device = device
                .into_iter()
                .find(|(name, _)| name == "device")
                .unwrap()
                .1;
            for entry in stream.entries {
                let at = entry.timestamp.unwrap();
                let time = i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
                let got = Got {
                    device: device.clone(),
                    message: entry.line.clone(),
                };
                let mut newest = self.newest.lock();
                let newest = newest
                    .entry(stream.labels.clone())
                    .or_insert(i128::MIN + HOUR);
                if poison && got.is_poison() {
                    reply.status = 400;
                    reply.body = b"Max entry size '6' bytes exceeded".to_vec();
                } else if time < *newest - HOUR {
                    reply.status = 400;
                    reply.body = too_far_behind(*newest - HOUR, &stream.labels).into();
                } else if self
                    .had
                    .lock()
                    .insert((stream.labels.clone(), time, entry.line))
                {
                    *newest = time.max(*newest);
                    reply.accepted.push(got);
                }
            }
        }
        reply
    }
}

/// As Loki words it; a time of this century, in whole seconds.
fn too_far_behind(oldest: i128, labels: &str) -> String {
    let time = thinglog_router::config::StartFrom::Time(u64::try_from(oldest).unwrap());
    format!(
        "entry with timestamp T ignored, reason: 'entry too far behind, entry timestamp is: T, oldest \
         acceptable timestamp is: {}',\nuser 'fleet', total ignored: 1 out of 2 for stream: {labels}",
        String::from(time)
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_uploaded_too_late_costs_no_request_an_event() {
    let Some(mut bench) = Bench::<Loki>::start().await else {
        return;
    };
    let router = bench.router().await;
    // Stamped now; the batch's events are from the beginning of 2026.
    bench.publish_text("lamp-1", "of today").await;
    bench.everything().await;
    let before = bench.subject.requests().len();
    bench.publish("lamp-1", 500).await;
    books(&router, 1, 500).await;
    let requests = bench.subject.requests().len() - before;
    assert!(requests <= 20, "{requests} requests");
    let letters = bench.dead_letters();
    let reason = letters[0]["reason"].as_str().unwrap();
    assert!(reason.contains("too far behind"), "{reason}");
    bench.no_violations();
    router.stop().await;
}

crate::contract!(Loki);
