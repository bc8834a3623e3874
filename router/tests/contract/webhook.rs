//! The webhook, against a server that checks form, size and signature.

use serde_json::{Value, json};

use crate::harness::{Fault, Got, Request, Subject};
use crate::http_server::{HttpRequest, HttpServer};

const MAX_BYTES: usize = 64 << 10;

pub(crate) struct Webhook {
    server: HttpServer,
}

impl Subject for Webhook {
    async fn start() -> Option<Webhook> {
        let server = HttpServer::start(check, |_| (400, "poison".into(), Vec::new())).await;
        Some(Webhook { server })
    }

    fn config(&self) -> Value {
        json!({
            "type": "webhook",
            "url": format!("http://{}/hook", self.server.address),
            "compression": "gzip",
            "secret": "hush",
            "batch": {"max_events": Self::MAX_EVENTS, "max_bytes": MAX_BYTES, "max_age_ms": 50},
            "retry": {"from_ms": 5, "max_ms": 50},
            "http": {"timeout_ms": 1000},
            "memory_bytes": 10 << 20,
        })
    }

    fn got(&self) -> Vec<Got> {
        self.server.got()
    }

    fn requests(&self) -> Vec<Request> {
        self.server.requests()
    }

    fn violations(&self) -> Vec<String> {
        self.server.violations()
    }

    fn fail(&self, fault: Fault) -> bool {
        self.server.fail(fault)
    }

    async fn stop(&mut self) {
        self.server.stop().await;
    }

    async fn resume(&mut self) {
        self.server.resume().await;
    }
}

fn check(request: &HttpRequest) -> Result<Vec<Got>, String> {
    if (request.method.as_str(), request.path.as_str()) != ("POST", "/hook") {
        return Err(format!("{} {}", request.method, request.path));
    }
    for (name, value) in [
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
    ] {
        if request.header(name) != Some(value) {
            return Err(format!("{name}: {:?}", request.header(name)));
        }
    }
    if request.body.len() > MAX_BYTES {
        return Err(format!("{} bytes", request.body.len()));
    }
    check_signature(request)?;
    let events: Vec<Value> =
        serde_json::from_slice(&request.body).map_err(|error| error.to_string())?;
    let text = |event: &Value, key: &str| {
        let text = event[key].as_str().ok_or(format!("{key} of {event}"));
        text.map(str::to_owned)
    };
    let got = events.iter().map(|event| {
        Ok(Got {
            device: text(event, "device")?,
            message: text(event, "message")?,
        })
    });
    got.collect()
}

/// As a receiver would write it, with another library than ours.
fn check_signature(request: &HttpRequest) -> Result<(), String> {
    let header = request.header("thinglog-signature").ok_or("no signature")?;
    let (time, hex) = header
        .strip_prefix("t=")
        .and_then(|rest| rest.split_once(",v1="))
        .ok_or(format!("signature {header}"))?;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"hush");
    let mut signed = format!("{time}.").into_bytes();
    signed.extend_from_slice(&request.raw);
    let tag = ring::hmac::sign(&key, &signed);
    let expected: String = tag
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if hex == expected {
        Ok(())
    } else {
        Err("a wrong signature".into())
    }
}

crate::contract!(Webhook);
