//! Elasticsearch, against a server that holds to the rules of
//! https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk and "Data streams":
//!
//! - `application/x-ndjson`, every line ends with a line break, an action line and a document in turn.
//! - A data stream takes `create` only, and documents with `@timestamp`.
//! - A name of an index has small letters and opens with none of `- _ +`; an `_id` has at most 512 bytes.
//! - No object has a key twice, with dots expanded.
//! - An `_id` that is there is 409 for its item; the answer has an item for each action, in order.
//! - Here each 7th request finds the write queue full for its first item (429).

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::harness::{Got, Subject};
use crate::http_server::{HttpRequest, HttpServer, Reply, Service};

const MAX_BYTES: usize = 64 << 10;

pub(crate) struct Elasticsearch {
    server: HttpServer,
}

/// What the index has.
#[derive(Default)]
struct Index {
    ids: Mutex<HashSet<String>>,
    requests: AtomicUsize,
}

impl Subject for Elasticsearch {
    const ORDERED: bool = false;
    const DEDUPLICATES: bool = true;

    async fn start() -> Option<Elasticsearch> {
        let server = HttpServer::serve(Index::default()).await;
        Some(Elasticsearch { server })
    }

    fn config(&self) -> Value {
        json!({
            "type": "elasticsearch",
            "url": format!("http://{}", self.server.address),
            "http": {"timeout_ms": 1000, "token": "a2V5OnNlY3JldA=="},
            "batch": {"max_events": Self::MAX_EVENTS, "max_bytes": MAX_BYTES, "max_age_ms": 50},
            "retry": {"from_ms": 5, "max_ms": 50},
            "memory_bytes": 10 << 20,
        })
    }

    crate::asked_of_server!();
}

/// Actions with their documents.
fn actions(request: &HttpRequest) -> Result<Vec<(Value, Value)>, String> {
    let text = std::str::from_utf8(&request.body).map_err(|error| error.to_string())?;
    if !text.ends_with('\n') {
        return Err("the last line has no end".into());
    }
    let lines: Vec<&str> = text.lines().collect();
    let parse = |line: &str| serde_json::from_str(line).map_err(|error| format!("{error}: {line}"));
    let pairs = lines.chunks(2).map(|pair| match pair {
        [action, document] => Ok((parse(action)?, parse(document)?)),
        _ => Err("an action without a document".into()),
    });
    pairs.collect()
}

fn check(action: &Value, document: &Value) -> Result<Got, String> {
    let create = action.get("create").ok_or(format!("{action}"))?;
    let index = create["_index"].as_str().unwrap_or_default();
    let is_allowed = |c: char| !c.is_uppercase() && !"\\/*?\"<>| ,#:".contains(c);
    if index.is_empty() || index.starts_with(['-', '_', '+']) || !index.chars().all(is_allowed) {
        return Err(format!("index {index:?}"));
    }
    if create["_id"].as_str().is_some_and(|id| id.len() > 512) {
        return Err(format!("{create}"));
    }
    document["@timestamp"].as_str().ok_or("no @timestamp")?;
    let text = |key: &str| {
        let text = document[key]
            .as_str()
            .ok_or(format!("{key} of {document}"))?;
        Ok::<_, String>(text.to_owned())
    };
    Ok(Got {
        device: text("device.id")?,
        message: text("message")?,
    })
}

impl Service for Index {
    fn read(&self, request: &HttpRequest) -> Result<Vec<Got>, String> {
        let path = request.path.split('?').next();
        if (request.method.as_str(), path) != ("POST", Some("/_bulk")) {
            return Err(format!("{} {}", request.method, request.path));
        }
        for (name, value) in [
            ("content-type", "application/x-ndjson"),
            ("content-encoding", "gzip"),
            ("authorization", "ApiKey a2V5OnNlY3JldA=="),
        ] {
            if request.header(name) != Some(value) {
                return Err(format!("{name}: {:?}", request.header(name)));
            }
        }
        if request.body.len() > MAX_BYTES {
            return Err(format!("{} bytes", request.body.len()));
        }
        let actions = actions(request)?;
        let got = actions
            .iter()
            .map(|(action, document)| check(action, document));
        got.collect()
    }

    fn answer(&self, request: &HttpRequest, events: Vec<Got>, poison: bool) -> Reply {
        let is_full = self.requests.fetch_add(1, Ordering::Relaxed) % 7 == 6;
        let error = |status: u16, kind: &str| json!({"create": {"status": status, "error": {"type": kind, "reason": "as it is"}}});
        let (mut items, mut accepted) = (Vec::new(), Vec::new());
        let text = std::str::from_utf8(&request.body).unwrap();
        let actions = text.lines().step_by(2);
        for (at, (event, action)) in events.into_iter().zip(actions).enumerate() {
            let action: Value = serde_json::from_str(action).unwrap();
            let id = action["create"]["_id"].as_str();
            let item = if is_full && at == 0 {
                error(429, "es_rejected_execution_exception")
            } else if poison && event.is_poison() {
                error(400, "document_parsing_exception")
            } else if id.is_some_and(|id| !self.ids.lock().insert(id.to_owned())) {
                error(409, "version_conflict_engine_exception")
            } else {
                accepted.push(event);
                json!({"create": {"status": 201}})
            };
            items.push(item);
        }
        let errors = items.iter().any(|item| item["create"]["status"] != 201);
        Reply {
            status: 200,
            body: json!({"errors": errors, "items": items}).to_string().into(),
            accepted,
        }
    }
}

crate::contract!(Elasticsearch);
