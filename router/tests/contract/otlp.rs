//! OTLP, against a receiver that reads requests by the official definitions (`opentelemetry-proto`) and
//! holds to "OTLP Specification", https://opentelemetry.io/docs/specs/otlp/:
//!
//! - `POST /v1/logs`, `application/x-protobuf`, gzip.
//! - A resource names its service (semantic conventions); attribute keys are unique and not empty.
//! - A severity number is 0 to 24; time and observed time are set.
//! - What cannot be taken for good is 400, and of a part of it a success tells (`partial_success`).

use std::collections::HashSet;

use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message;
use serde_json::{Value, json};

use crate::harness::{Bench, Fault, Got, Subject, books};
use crate::http_server::{HttpRequest, HttpServer, Reply, Service};

const MAX_BYTES: usize = 64 << 10;

pub(crate) struct Otlp {
    server: HttpServer,
}

/// A receiver; `partial`: it tells of what it rejects with a success.
struct Receiver {
    partial: bool,
}

impl Otlp {
    async fn receiver(partial: bool) -> Otlp {
        let server = HttpServer::serve(Receiver { partial }).await;
        Otlp { server }
    }
}

impl Subject for Otlp {
    async fn start() -> Option<Otlp> {
        Some(Otlp::receiver(false).await)
    }

    fn config(&self) -> Value {
        json!({
            "type": "otlp",
            "url": format!("http://{}", self.server.address),
            "resource": {"deployment.environment.name": "test"},
            "batch": {"max_events": Self::MAX_EVENTS, "max_bytes": MAX_BYTES, "max_age_ms": 50},
            "retry": {"from_ms": 5, "max_ms": 50},
            "http": {"timeout_ms": 1000},
            "memory_bytes": 10 << 20,
        })
    }

    crate::asked_of_server!();
}

fn text(value: &Option<AnyValue>) -> Option<String> {
    match value.as_ref()?.value.as_ref()? {
        Any::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

/// The value of a key that must be there; all keys are unique.
fn attribute(all: &[KeyValue], key: &str) -> Result<String, String> {
    let unique: HashSet<&str> = all.iter().map(|pair| pair.key.as_str()).collect();
    if unique.len() != all.len() || unique.contains("") {
        return Err(format!("keys of {all:?}"));
    }
    let found = all.iter().find(|pair| pair.key == key);
    found
        .and_then(|pair| text(&pair.value))
        .ok_or(format!("no {key} in {all:?}"))
}

impl Service for Receiver {
    fn read(&self, request: &HttpRequest) -> Result<Vec<Got>, String> {
        if (request.method.as_str(), request.path.as_str()) != ("POST", "/v1/logs") {
            return Err(format!("{} {}", request.method, request.path));
        }
        for (name, value) in [
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "gzip"),
        ] {
            if request.header(name) != Some(value) {
                return Err(format!("{name}: {:?}", request.header(name)));
            }
        }
        if request.body.len() > MAX_BYTES {
            return Err(format!("{} bytes", request.body.len()));
        }
        let logs = ExportLogsServiceRequest::decode(&request.body[..])
            .map_err(|error| format!("protobuf: {error}"))?;
        let mut got = Vec::new();
        for resource_logs in &logs.resource_logs {
            let resource = resource_logs.resource.as_ref().ok_or("no resource")?;
            let device = attribute(&resource.attributes, "device.id")?;
            attribute(&resource.attributes, "service.name")?;
            attribute(&resource.attributes, "deployment.environment.name")?;
            let records = resource_logs
                .scope_logs
                .iter()
                .flat_map(|it| &it.log_records);
            for record in records {
                let is_set = record.time_unix_nano > 0 && record.observed_time_unix_nano > 0;
                if !is_set || !(1..=24).contains(&record.severity_number) {
                    return Err(format!("{record:?}"));
                }
                if !record.attributes.is_empty() {
                    attribute(&record.attributes, "log.record.uid")?;
                }
                got.push(Got {
                    device: device.clone(),
                    message: text(&record.body).ok_or(format!("body of {record:?}"))?,
                });
            }
        }
        Ok(got)
    }

    fn answer(&self, _request: &HttpRequest, mut events: Vec<Got>, poison: bool) -> Reply {
        let before = events.len();
        let mut response = ExportLogsServiceResponse::default();
        if poison && events.iter().any(Got::is_poison) {
            if !self.partial {
                return Reply {
                    status: 400,
                    body: b"poison".into(),
                    ..Reply::default()
                };
            }
            events.retain(|event| !event.is_poison());
            response.partial_success = Some(ExportLogsPartialSuccess {
                rejected_log_records: (before - events.len()) as i64,
                error_message: "too bitter".into(),
            });
        }
        Reply {
            status: 200,
            body: response.encode_to_vec(),
            accepted: events,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_success_tells_to_be_rejected_is_kept_and_never_sent_again() {
    let Some(mut bench) = Bench::<Otlp>::start().await else {
        return;
    };
    bench.subject.stop().await;
    bench.subject = Otlp::receiver(true).await;
    bench.subject.fail(Fault::Poison);
    bench.publish("lamp-1", 9).await;
    bench.publish_text("lamp-1", "poison").await;
    let router = bench.router().await;
    books(&router, 0, 10).await;
    let letters = bench.dead_letters();
    let reason = letters[0]["reason"].as_str().unwrap();
    assert!(reason.contains("too bitter"), "{reason}");
    assert!(
        letters
            .iter()
            .any(|letter| letter["event"]["message"] == "poison")
    );
    // What it took is there, once: nothing was sent again.
    assert_eq!(bench.subject.got().len(), 9);
    assert_eq!(bench.subject.requests().len(), 1);
    bench.no_violations();
    router.stop().await;
}

crate::contract!(Otlp);
