//! The webhook, against a server that checks form, size and signature.

use serde_json::{Value, json};

use crate::common::http::ask;
use crate::harness::{Bench, Fault, Got, Subject, books};
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

    crate::asked_of_server!();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_shown_replayed_and_dropped_over_http() {
    let Some(mut bench) = Bench::<Webhook>::start().await else {
        return;
    };
    bench.subject.fail(Fault::Poison);
    let router = bench.router().await;
    for n in 0..3 {
        bench.publish_text("lamp-1", &format!("poison {n}")).await;
    }
    books(&router, 0, 3).await;
    let http = router.http;
    let letters = "/api/v1/destinations/subject/dead-letters";
    let path = |rest: &str| format!("{letters}{rest}");
    let page = ask(http, "GET", &path("?limit=2"), None).await.body;
    assert_eq!(page["items"][1]["event"]["message"], "poison 1");
    let next = page["next"].as_str().unwrap();
    let page = ask(http, "GET", &path(&format!("?cursor={next}")), None)
        .await
        .body;
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    assert_eq!(page["next"], Value::Null);
    let one = ask(http, "GET", &path("/1"), None).await.body;
    assert_eq!(
        (&one["n"], &one["event"]["device"]),
        (&json!(1), &json!("lamp-1"))
    );
    assert_eq!(ask(http, "GET", &path("/7"), None).await.status, 404);

    // Refused again, it stays.
    let replay = || path("/replay");
    let done = ask(http, "POST", &replay(), Some(json!({"letters": [0, 7]})))
        .await
        .body;
    assert_eq!((&done["asked"], &done["refused"]), (&json!(1), &json!(1)));
    bench.subject.fail(Fault::Antidote);
    let done = ask(http, "POST", &replay(), Some(json!({"letters": [0]})))
        .await
        .body;
    assert_eq!(
        (&done["done"], &done["accepted"]),
        (&json!(true), &json!(1))
    );
    let done = ask(http, "POST", &path("/drop"), Some(json!({"all": true})))
        .await
        .body;
    assert_eq!(done["dropped"], 2);
    let left = ask(http, "GET", letters, None).await.body;
    assert_eq!(left["items"], json!([]));
    for body in [
        json!({}),
        json!({"letters": [1], "all": true}),
        json!({"letter": [1]}),
    ] {
        assert_eq!(ask(http, "POST", &replay(), Some(body)).await.status, 400);
    }
    let got = bench.subject.got();
    assert_eq!(got.len(), 1, "{got:?}");
    router.stop().await;
}

crate::contract!(Webhook);
