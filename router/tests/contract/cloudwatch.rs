//! CloudWatch Logs, against a server that holds to
//! https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html and "Create a
//! signed AWS API request":
//!
//! - A signature (version 4) of the key it knows, over host, date, token, target and type; a body as signed.
//! - Groups and streams must have been created; names have the characters that they may have.
//! - At most 10,000 events and 1,048,576 bytes (here 64 KiB), messages and 26 for each; none is empty;
//!   sorted by time, within 24 hours.
//! - What is too old or too new is named by its place; where a clock is given.
//!
//! And against moto, which knows groups, streams and order, but neither signatures nor limits, and
//! counts what it rejects otherwise than the service says that it does.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use ring::{digest, hmac};
use serde_json::{Value, json};

use crate::common::until;
use crate::harness::{Bench, Fault, Got, Subject, books};
use crate::http_server::{HttpRequest, HttpServer, Reply, Service};
use crate::moto::Moto;

const MAX_BYTES: usize = 64 << 10;
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const TOKEN: &str = "session-token";
const DAY: u64 = 86_400_000;

pub(crate) struct CloudWatch {
    server: HttpServer,
    service: Arc<Logs>,
}

/// What the service has.
#[derive(Default)]
struct Logs {
    groups: Mutex<HashSet<String>>,
    streams: Mutex<HashSet<(String, String)>>,
    /// The service's time, ms; without it no event is too old.
    now: Mutex<Option<u64>>,
    /// What is answered next to a request of events.
    errors: Mutex<Vec<Value>>,
    tokens: Mutex<Vec<String>>,
}

struct Shared(Arc<Logs>);

impl Subject for CloudWatch {
    async fn start() -> Option<CloudWatch> {
        let service = Arc::new(Logs::default());
        let server = HttpServer::serve(Shared(Arc::clone(&service))).await;
        Some(CloudWatch { server, service })
    }

    fn config(&self) -> Value {
        json!({
            "type": "cloudwatch",
            "region": "eu-central-1",
            "endpoint": format!("http://{}", self.server.address),
            "log_group": "fleet/{{source}}",
            "credentials": {
                "access_key_id": "AKIDEXAMPLE",
                "secret_access_key": SECRET,
                "session_token": TOKEN,
            },
            "http": {"timeout_ms": 1000},
            "batch": {"max_events": Self::MAX_EVENTS, "max_bytes": MAX_BYTES, "max_age_ms": 50},
            "retry": {"from_ms": 5, "max_ms": 50},
            "memory_bytes": 10 << 20,
        })
    }

    crate::asked_of_server!();
}

/// The signature as ring makes it, over what arrived.
fn check_signature(request: &HttpRequest) -> Result<(), String> {
    let header = |name: &str| request.header(name).ok_or(format!("no {name}"));
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
    let hash = |bytes: &[u8]| hex(digest::digest(&digest::SHA256, bytes).as_ref());
    let names = "content-type;host;x-amz-date;x-amz-security-token;x-amz-target";
    let mut text = String::from("POST\n/\n\n");
    for name in names.split(';') {
        text.push_str(&format!("{name}:{}\n", header(name)?));
    }
    text.push_str(&format!("\n{names}\n{}", hash(&request.raw)));
    let date = header("x-amz-date")?;
    let scope = format!("{}/eu-central-1/logs/aws4_request", &date[..8]);
    let text = format!(
        "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
        hash(text.as_bytes())
    );
    let sign = |key: &[u8], text: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
    };
    let key = scope
        .split('/')
        .fold(format!("AWS4{SECRET}").into_bytes(), |key, part| {
            sign(&key, part)
        });
    let expected = format!(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{scope}, SignedHeaders={names}, Signature={}",
        hex(&sign(&key, &text))
    );
    match header("authorization")? == expected && header("x-amz-security-token")? == TOKEN {
        true => Ok(()),
        false => Err(format!("not signed as {expected}")),
    }
}

fn text<'a>(body: &'a Value, key: &str) -> Result<&'a str, String> {
    body[key].as_str().ok_or(format!("no {key}"))
}

/// Events with their times.
fn events(body: &Value) -> Result<Vec<(u64, Got)>, String> {
    let events = body["logEvents"].as_array().ok_or("no logEvents")?;
    let event = |event: &Value| {
        let time = event["timestamp"].as_u64().ok_or("no timestamp")?;
        let message = text(event, "message")?;
        if message.is_empty() {
            return Err("an empty message".into());
        }
        let inner: Value = serde_json::from_str(message).map_err(|error| error.to_string())?;
        let got = Got {
            device: text(&inner, "device")?.to_owned(),
            message: text(&inner, "message")?.to_owned(),
        };
        Ok::<_, String>((time, got))
    };
    let read: Vec<(u64, Got)> = events.iter().map(event).collect::<Result<_, _>>()?;
    let lengths = events
        .iter()
        .map(|event| event["message"].as_str().unwrap().len() + 26);
    let bytes: usize = lengths.sum();
    if read.is_empty() || read.len() > CloudWatch::MAX_EVENTS || bytes > MAX_BYTES {
        return Err(format!("{} events of {bytes} bytes", read.len()));
    }
    if !read.is_sorted_by_key(|(time, _)| *time) {
        return Err("not sorted by time".into());
    }
    match read[read.len() - 1].0 - read[0].0 {
        0..=DAY => Ok(read),
        span => Err(format!("{span} ms in one request")),
    }
}

impl Service for Shared {
    fn read(&self, request: &HttpRequest) -> Result<Vec<Got>, String> {
        check_signature(request)?;
        if request.header("content-type") != Some("application/x-amz-json-1.1") {
            return Err("content-type".into());
        }
        let body: Value =
            serde_json::from_slice(&request.body).map_err(|error| error.to_string())?;
        let group = text(&body, "logGroupName")?;
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-_./#".contains(c);
        if !(1..=512).contains(&group.len()) || !group.chars().all(is_word) {
            return Err(format!("group {group:?}"));
        }
        if body.get("logEvents").is_none() {
            return Ok(Vec::new());
        }
        let stream = text(&body, "logStreamName")?;
        if stream.is_empty() || stream.contains([':', '*']) {
            return Err(format!("stream {stream:?}"));
        }
        let events = events(&body)?;
        if events.iter().any(|(_, got)| got.device != stream) {
            return Err(format!("events of others in {stream:?}"));
        }
        Ok(events.into_iter().map(|(_, got)| got).collect())
    }

    fn answer(&self, request: &HttpRequest, events: Vec<Got>, poison: bool) -> Reply {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let name = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        let (group, stream) = (name("logGroupName"), name("logStreamName"));
        let target = request.header("x-amz-target").unwrap_or_default();
        let is_new = match target.rsplit('.').next() {
            Some("CreateLogGroup") => self.0.groups.lock().insert(group),
            Some("CreateLogStream") if !self.0.groups.lock().contains(&group) => return missing(),
            Some("CreateLogStream") => self.0.streams.lock().insert((group, stream)),
            Some("PutLogEvents") => return self.0.put(&body, (group, stream), events, poison),
            _ => return failure("UnknownOperationException"),
        };
        match is_new {
            true => Reply {
                status: 200,
                ..Reply::default()
            },
            false => failure("ResourceAlreadyExistsException"),
        }
    }
}

fn failure(kind: &str) -> Reply {
    reply(
        400,
        &json!({"__type": format!("com.amazonaws.logs#{kind}"), "message": kind}),
    )
}

fn missing() -> Reply {
    failure("ResourceNotFoundException")
}

fn reply(status: u16, body: &Value) -> Reply {
    Reply {
        status,
        body: body.to_string().into(),
        accepted: Vec::new(),
    }
}

impl Logs {
    fn put(&self, body: &Value, place: (String, String), got: Vec<Got>, poison: bool) -> Reply {
        if !self.streams.lock().contains(&place) {
            return missing();
        }
        if poison && got.iter().any(Got::is_poison) {
            return failure("InvalidParameterException");
        }
        if let Some(token) = body["sequenceToken"].as_str() {
            self.tokens.lock().push(token.to_owned());
        } else if let Some(error) = self.errors.lock().pop() {
            return reply(400, &error);
        }
        let times: Vec<u64> = events(body).unwrap().iter().map(|event| event.0).collect();
        let mut rejected = serde_json::Map::new();
        let mut taken = 0..times.len();
        if let Some(now) = *self.now.lock() {
            taken = times.partition_point(|time| time + 14 * DAY < now)
                ..times.partition_point(|time| *time <= now + DAY / 12);
            if taken.start > 0 {
                rejected.insert("tooOldLogEventEndIndex".into(), taken.start.into());
            }
            if taken.end < times.len() {
                rejected.insert("tooNewLogEventStartIndex".into(), taken.end.into());
            }
        }
        let mut answer = json!({"nextSequenceToken": "49590302"});
        if !rejected.is_empty() {
            answer["rejectedLogEventsInfo"] = rejected.into();
        }
        Reply {
            accepted: got[taken].to_vec(),
            ..reply(200, &answer)
        }
    }
}

/// The time of the events that tests publish as batches, ms.
const THEN: u64 = 1_767_323_045_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_old_or_too_new_is_a_dead_letter_and_the_rest_is_taken() {
    let Some(mut bench) = Bench::<CloudWatch>::start().await else {
        return;
    };
    *bench.subject.service.now.lock() = Some(THEN);
    bench.publish("lamp-1", 20).await;
    for (message, time) in [
        ("ancient", THEN - 14 * DAY - 1),
        ("just in time", THEN - 14 * DAY),
        ("early", THEN + DAY / 12),
        ("too early", THEN + DAY / 12 + 1),
    ] {
        let seconds = time as f64 / 1000.0;
        let event = json!({"message": message, "time": seconds}).to_string();
        bench
            .device
            .publish("thinglog/logs/lamp-1/app", event)
            .await;
    }
    bench.publish("lamp-1", 20).await;
    let router = bench.router().await;
    books(&router, 42, 2).await;
    let got: Vec<String> = bench
        .subject
        .got()
        .into_iter()
        .map(|got| got.message)
        .collect();
    assert!(
        got.contains(&"just in time".into()) && got.contains(&"early".into()),
        "{got:?}"
    );
    let letters = bench.dead_letters();
    let said = |message: &str| {
        let letter = letters.iter().find(|it| it["event"]["message"] == message);
        letter.unwrap()["reason"].as_str().unwrap().to_owned()
    };
    assert!(said("ancient").contains("too old"), "{letters:?}");
    assert!(said("too early").contains("too new"), "{letters:?}");
    bench.no_violations();
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throttling_tokens_and_repeats_cost_no_event() {
    let Some(mut bench) = Bench::<CloudWatch>::start().await else {
        return;
    };
    let error = |kind: &str| json!({"__type": kind, "message": "as it is"});
    let mut token = error("InvalidSequenceTokenException");
    token["expectedSequenceToken"] = "49590301".into();
    // The last comes first.
    *bench.subject.service.errors.lock() = vec![
        error("DataAlreadyAcceptedException"),
        token,
        error("ExpiredTokenException"),
        error("ThrottlingException"),
    ];
    let router = bench.router().await;
    bench.publish("lamp-1", 10).await;
    bench.exactly().await;
    books(&router, 10, 0).await;
    let retries = router.metric("thinglog_router_retries_total", &["subject"]);
    assert_eq!(retries, 2.0);
    assert_eq!(*bench.subject.service.tokens.lock(), ["49590301"]);
    bench.publish("lamp-1", 10).await;
    books(&router, 20, 0).await;
    let duplicates = router.metric("thinglog_router_events_total", &["subject", "duplicate"]);
    assert_eq!(duplicates, 10.0, "the service said that it had them");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_created_where_that_is_not_wanted() {
    let Some(mut bench) = Bench::<CloudWatch>::start().await else {
        return;
    };
    let mut config = bench.config();
    let mut subject = bench.subject.config();
    subject["create"] = false.into();
    let subject = serde_json::from_value(subject).unwrap();
    config.destinations.insert("subject".into(), subject);
    let router = crate::common::Running::start(config).await;
    bench.publish("lamp-1", 10).await;
    until("the destination is not ready", || {
        !router.is_ready("subject")
    })
    .await;
    assert!(bench.subject.service.groups.lock().is_empty());
    let place = ("fleet/app".to_owned(), "lamp-1".to_owned());
    bench.subject.service.streams.lock().insert(place);
    bench.exactly().await;
    books(&router, 10, 0).await;
    router.stop().await;
}

/// A router with its events in moto.
struct InMoto(Moto);

impl Subject for InMoto {
    async fn start() -> Option<InMoto> {
        Some(InMoto(Moto::start().await?))
    }

    fn config(&self) -> Value {
        json!({
            "type": "cloudwatch",
            "region": "eu-central-1",
            "endpoint": format!("http://127.0.0.1:{}", self.0.port),
            "credentials": {"access_key_id": "AKIDEXAMPLE", "secret_access_key": SECRET},
            "batch": {"max_age_ms": 50},
            "retry": {"from_ms": 5, "max_ms": 50},
        })
    }

    fn got(&self) -> Vec<Got> {
        let streams = ["lamp-1", "lamp-2"];
        let events = streams
            .into_iter()
            .flat_map(|stream| self.0.log_events("thinglog", stream));
        let got = events.map(|message| Got {
            device: text(&message, "device").unwrap().to_owned(),
            message: text(&message, "message").unwrap().to_owned(),
        });
        got.collect()
    }

    fn fail(&self, _fault: Fault) -> bool {
        false
    }

    async fn stop(&mut self) {
        self.0.stop();
    }

    async fn resume(&mut self) {
        self.0.resume().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_found_in_moto_by_group_and_stream() {
    let Some(mut bench) = Bench::<InMoto>::start().await else {
        return;
    };
    let router = bench.router().await;
    for n in 0..40 {
        bench
            .publish_text("lamp-1", &format!("one \"{n}\" é"))
            .await;
        bench.publish_text("lamp-2", &format!("two {n}")).await;
    }
    bench.exactly().await;
    books(&router, 80, 0).await;
    router.stop().await;
}

crate::contract!(CloudWatch);
