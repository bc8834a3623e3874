//! Splunk's HTTP Event Collector, against a server that holds to
//! https://help.splunk.com/en/splunk-enterprise/get-data-in/collect-http-event-data, "Format events",
//! "Indexer Acknowledgment" and "Troubleshoot":
//!
//! - `Authorization: Splunk <token>`; with acknowledgement a channel, which is a GUID.
//! - Objects one behind the other; `event` is there and not blank, `time` a number, `fields` flat.
//! - Events before an invalid one are taken; the answer names it, and nothing behind it is read.
//! - A number of acknowledgement belongs to its channel, and is told once.
//!
//! Once with acknowledgement and once without.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::harness::{Bench, Fault, Got, Request, Subject};
use crate::http_server::{HttpRequest, HttpServer, Reply, Service};

const MAX_BYTES: usize = 64 << 10;

/// What collector and indexer remember.
#[derive(Default)]
struct Collector {
    acknowledge: bool,
    /// Per channel: whether each number has been asked for before.
    asked: Mutex<HashMap<String, Vec<bool>>>,
    /// Requests that the indexer will lose: they are read, and never acknowledged.
    lose: AtomicUsize,
}

/// The service, shared with the test.
struct Shared(Arc<Collector>);

pub(crate) struct Acknowledged {
    server: HttpServer,
    collector: Arc<Collector>,
}

pub(crate) struct Plain(Acknowledged);

impl Acknowledged {
    async fn serve(acknowledge: bool) -> Acknowledged {
        let collector = Arc::new(Collector {
            acknowledge,
            ..Collector::default()
        });
        let server = HttpServer::serve(Shared(Arc::clone(&collector))).await;
        Acknowledged { server, collector }
    }

    fn config(&self, acknowledge: bool) -> Value {
        json!({
            "type": "splunk",
            "url": format!("http://{}", self.server.address),
            "acknowledge": acknowledge,
            "ack_timeout_ms": 1000,
            "ack_every_ms": 5,
            "http": {"timeout_ms": 1000, "token": "11111111-2222-3333-4444-555555555555"},
            "batch": {"max_events": Self::MAX_EVENTS, "max_bytes": MAX_BYTES, "max_age_ms": 50},
            "retry": {"from_ms": 5, "max_ms": 50},
            "memory_bytes": 10 << 20,
        })
    }
}

impl Subject for Acknowledged {
    const ORDERED: bool = false;

    async fn start() -> Option<Acknowledged> {
        Some(Acknowledged::serve(true).await)
    }

    fn config(&self) -> Value {
        self.config(true)
    }

    fn got(&self) -> Vec<Got> {
        self.server.got()
    }

    fn requests(&self) -> Vec<Request> {
        let mut requests = self.server.requests();
        // Questions for acknowledgements have none.
        requests.retain(|request| request.events > 0);
        requests
    }

    fn violations(&self) -> Vec<String> {
        self.server.violations()
    }

    fn fail(&self, fault: Fault) -> bool {
        // Nothing confirms the events before an invalid one, so they come twice: a test of its own.
        !matches!(fault, Fault::Poison | Fault::Antidote) && self.server.fail(fault)
    }

    async fn stop(&mut self) {
        self.server.stop().await;
    }

    async fn resume(&mut self) {
        self.server.resume().await;
    }
}

impl Subject for Plain {
    const ORDERED: bool = false;

    async fn start() -> Option<Plain> {
        Some(Plain(Acknowledged::serve(false).await))
    }

    fn config(&self) -> Value {
        self.0.config(false)
    }

    fn got(&self) -> Vec<Got> {
        self.0.got()
    }

    fn requests(&self) -> Vec<Request> {
        self.0.requests()
    }

    fn violations(&self) -> Vec<String> {
        self.0.violations()
    }

    fn fail(&self, fault: Fault) -> bool {
        self.0.server.fail(fault)
    }

    async fn stop(&mut self) {
        self.0.stop().await;
    }

    async fn resume(&mut self) {
        self.0.resume().await;
    }
}

fn is_guid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    let is_hex = |c: char| c.is_ascii_hexdigit() || c == '-';
    lengths == [8, 4, 4, 4, 12] && text.chars().all(is_hex)
}

fn event(value: &Value) -> Result<Got, String> {
    let wrong = |what: &str| format!("{what} of {value}");
    value["time"].as_f64().ok_or(wrong("time"))?;
    let fields = value["fields"].as_object().ok_or(wrong("fields"))?;
    if fields.values().any(|field| !field.is_string()) {
        return Err(wrong("fields"));
    }
    let known = [
        "time",
        "host",
        "source",
        "sourcetype",
        "index",
        "event",
        "fields",
    ];
    let keys = value.as_object().ok_or(wrong("form"))?.keys();
    if keys.into_iter().any(|key| !known.contains(&key.as_str())) {
        return Err(wrong("keys"));
    }
    let message = value["event"].as_str().unwrap_or_default();
    if message.trim().is_empty() {
        return Err(wrong("event"));
    }
    Ok(Got {
        device: value["host"].as_str().ok_or(wrong("host"))?.to_owned(),
        message: message.to_owned(),
    })
}

impl Service for Shared {
    fn read(&self, request: &HttpRequest) -> Result<Vec<Got>, String> {
        let token = Some("Splunk 11111111-2222-3333-4444-555555555555");
        if request.method != "POST" || request.header("authorization") != token {
            return Err(format!("{request:?}"));
        }
        let channel = request.header("x-splunk-request-channel");
        if self.0.acknowledge && !channel.is_some_and(is_guid) {
            return Err(format!("channel {channel:?}"));
        }
        match request.path.as_str() {
            "/services/collector/ack" => Ok(Vec::new()),
            "/services/collector/event" if request.body.len() > MAX_BYTES => {
                Err(format!("{} bytes", request.body.len()))
            }
            "/services/collector/event" => {
                if request.header("content-encoding") != Some("gzip") {
                    return Err("not compressed".into());
                }
                let values = serde_json::Deserializer::from_slice(&request.body).into_iter();
                let values = values.map(|value| value.map_err(|error| error.to_string()));
                values.map(|value| event(&value?)).collect()
            }
            path => Err(path.to_owned()),
        }
    }

    fn answer(&self, request: &HttpRequest, mut events: Vec<Got>, poison: bool) -> Reply {
        let channel = request.header("x-splunk-request-channel");
        let channel = channel.unwrap_or_default().to_owned();
        if request.path.ends_with("/ack") {
            return self.0.acks(&channel, &request.body);
        }
        if let Some(at) = events.iter().position(|event| poison && event.is_poison()) {
            let said =
                json!({"text": "Invalid data format", "code": 6, "invalid-event-number": at});
            events.truncate(at);
            return Reply {
                status: 400,
                body: said.to_string().into(),
                accepted: events,
            };
        }
        let mut said = json!({"text": "Success", "code": 0});
        if self.0.acknowledge {
            let mut asked = self.0.asked.lock();
            let asked = asked.entry(channel).or_default();
            said["ackId"] = asked.len().into();
            let lose = self.0.lose.load(Ordering::Relaxed);
            // Never acknowledged: as if it had been told already.
            asked.push(lose > 0);
            if lose > 0 {
                self.0.lose.store(lose - 1, Ordering::Relaxed);
                events.clear();
            }
        }
        Reply {
            status: 200,
            body: said.to_string().into(),
            accepted: events,
        }
    }
}

impl Collector {
    /// What is indexed is told, once.
    fn acks(&self, channel: &str, body: &[u8]) -> Reply {
        let question: Value = serde_json::from_slice(body).unwrap();
        let mut asked = self.asked.lock();
        let asked = asked.entry(channel.to_owned()).or_default();
        let ids = question["acks"].as_array().unwrap().iter();
        let told = ids.map(|id| {
            let id = id.as_u64().unwrap();
            let told = asked.get_mut(id as usize);
            let is_new = told.is_some_and(|told| !std::mem::replace(told, true));
            (id.to_string(), Value::Bool(is_new))
        });
        let told: serde_json::Map<String, Value> = told.collect();
        Reply {
            status: 200,
            body: json!({"acks": told}).to_string().into(),
            accepted: Vec::new(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_indexer_does_not_acknowledge_is_sent_again() {
    let Some(mut bench) = Bench::<Acknowledged>::start().await else {
        return;
    };
    bench.subject.collector.lose.store(2, Ordering::Relaxed);
    bench.publish("lamp-1", 120).await;
    let router = bench.router().await;
    bench.exactly().await;
    let retries = router.metric("thinglog_router_retries_total", &["subject"]);
    assert!(retries >= 2.0, "{retries} retries");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_acknowledgement_an_invalid_event_costs_no_other() {
    let Some(mut bench) = Bench::<Acknowledged>::start().await else {
        return;
    };
    bench.subject.server.fail(Fault::Poison);
    bench.publish("lamp-1", 20).await;
    bench.publish_text("lamp-1", "poison").await;
    bench.publish("lamp-1", 20).await;
    let router = bench.router().await;
    bench.sent.retain(|sent| !sent.message.contains("poison"));
    bench.at_least().await;
    crate::harness::books(&router, 40, 1).await;
    let letters = bench.dead_letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["event"]["message"], "poison");
    router.stop().await;
}

mod acknowledged {
    use super::Acknowledged;

    crate::contract!(Acknowledged);
}

mod plain {
    use super::Plain;

    crate::contract!(Plain);
}
