//! `/api/v1/destinations`: how destinations are, what they are being sent, and their dead letters.
//! All of it concerns the whole fleet: callers who are limited to groups are refused.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use hyper::body::Frame;
use serde::Deserialize;
use serde_json::{Value, json};
use thinglog_schemas::json as event_json;

use super::body::{Asked, asked, read};
use super::list::{Page, limit};
use super::{Answer, By, ok};
use crate::clock;
use crate::deliver::remote::look;
use crate::deliver::remote::replay::What;
use crate::deliver::tap::Watcher;
use crate::destinations::running::{Shown, View};
use crate::health::Health;
use crate::registry::{Code, Refusal};

/// Longest wait for an order about dead letters, in looks.
const LOOKS: u32 = 100;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What handlers look at.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) shown: Shown,
    pub(crate) health: Health,
}

/// The routes, to be mounted where every request has a caller in its extensions.
pub(crate) fn routes(desk: Desk) -> Router {
    Router::new()
        .route("/api/v1/destinations", get(all))
        .route("/api/v1/destinations/{name}", get(one))
        .route("/api/v1/destinations/{name}/tap", get(tap))
        .route("/api/v1/destinations/{name}/dead-letters", get(letters))
        .route("/api/v1/destinations/{name}/dead-letters/{n}", get(letter))
        .route(
            "/api/v1/destinations/{name}/dead-letters/replay",
            post(replay),
        )
        .route(
            "/api/v1/destinations/{name}/dead-letters/drop",
            post(drop_letters),
        )
        .with_state(desk)
}

impl Desk {
    fn find(&self, name: &str) -> Result<View, Refusal> {
        let found = self.shown.read().get(name).cloned();
        found.ok_or_else(|| Refusal::not_found(format!("the destination {name:?}")))
    }

    /// A destination and how it is.
    fn described(&self, name: &str, view: &View) -> Value {
        let parts = self.health.parts();
        let subscription = format!("{name} subscription");
        let reason = [name, &subscription]
            .into_iter()
            .find_map(|part| parts.get(part).cloned().flatten());
        let mut described = json!({
            "name": name,
            "type": view.kind,
            "routes": view.routes,
            "ready": reason.is_none(),
            "events": view.books.figures(),
            "retries": view.books.retries.get(),
            "restarts": view.books.restarts.get(),
            "redelivered": view.books.redelivered.get(),
            "bytes": view.books.bytes.get(),
            "lag_ms": view.books.lag_ms.get(),
        });
        if let Some(reason) = reason {
            described["reason"] = reason.into();
        }
        if let Some(remote) = &view.remote {
            described["requests"] = json!({
                "sent": remote.requests.get(),
                "done": remote.requests_done.get(),
            });
            described["in_hand_bytes"] = remote.memory.get().into();
        }
        if let (Some(remote), true) = (&view.remote, view.letters) {
            described["dead_letters"] = remote.letters.get().into();
            described["dead_letters_lost"] = remote.letters_lost.get().into();
        }
        described
    }
}

async fn all(caller: By, State(desk): State<Desk>) -> Answer {
    caller.may_see_all()?;
    let shown: Vec<(String, View)> = {
        let shown = desk.shown.read();
        let pairs = shown.iter();
        pairs
            .map(|(name, view)| (name.clone(), view.clone()))
            .collect()
    };
    let items: Vec<Value> = shown
        .iter()
        .map(|(name, view)| desk.described(name, view))
        .collect();
    Ok(ok(&json!({"items": items})))
}

async fn one(caller: By, State(desk): State<Desk>, Path(name): Path<String>) -> Answer {
    caller.may_see_all()?;
    let view = desk.find(&name)?;
    Ok(ok(&desk.described(&name, &view)))
}

/// Events as they are delivered, a JSON object a line, until the caller has enough.
async fn tap(caller: By, State(desk): State<Desk>, Path(name): Path<String>) -> Answer {
    caller.may_see_all()?;
    let view = desk.find(&name)?;
    let watcher = view.tap.watch().ok_or_else(|| {
        let reason = format!("too many look at {name:?} already; end another one");
        Refusal::new(Code::LimitExceeded, reason)
    })?;
    let body = Body::new(Lines { watcher });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, body).into_response())
}

/// Portions of events as lines.
struct Lines {
    watcher: Watcher,
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Poll::Ready(portion) = self.watcher.portions.poll_recv(context) else {
            return Poll::Pending;
        };
        let Some(portion) = portion else {
            return Poll::Ready(None);
        };
        let mut lines = Vec::new();
        for event in portion.events() {
            event_json::write(event, &mut lines);
            lines.push(b'\n');
        }
        match self.watcher.missed() {
            0 => {}
            missed => lines.extend_from_slice(format!("{{\"missed\":{missed}}}\n").as_bytes()),
        }
        Poll::Ready(Some(Ok(Frame::data(lines.into()))))
    }
}

/// The folder of a destination's dead letters.
fn folder_of(view: &View, name: &str) -> Result<std::path::PathBuf, Refusal> {
    match view.letters {
        true => Ok(view.folder.join("dead")),
        false => Err(Refusal::invalid(format!(
            "{name:?} is of type {}, which refuses nothing: there are no dead letters",
            view.kind
        ))),
    }
}

async fn letters(
    caller: By,
    State(desk): State<Desk>,
    Path(name): Path<String>,
    query: Asked<Page>,
) -> Answer {
    caller.may_see_all()?;
    let page = asked(query)?;
    let limit = limit(page.limit.as_deref())?;
    let after = page.cursor.map(|cursor| number(&cursor)).transpose()?;
    let folder = folder_of(&desk.find(&name)?, &name)?;
    let (items, next) = on_disk(move || look::page(&folder, after, limit)).await?;
    Ok(ok(&match next {
        Some(next) => json!({"items": items, "next": next.to_string()}),
        None => json!({"items": items}),
    }))
}

async fn letter(
    caller: By,
    State(desk): State<Desk>,
    Path((name, n)): Path<(String, String)>,
) -> Answer {
    caller.may_see_all()?;
    let folder = folder_of(&desk.find(&name)?, &name)?;
    let n = number(&n)?;
    let found = on_disk(move || look::one(&folder, n)).await?;
    let found =
        found.ok_or_else(|| Refusal::not_found(format!("the dead letter {n} of {name:?}")))?;
    Ok(ok(&found))
}

fn number(text: &str) -> Result<u64, Refusal> {
    let number = text.parse();
    number.map_err(|_| Refusal::invalid(format!("{text:?} is no number of a dead letter")))
}

/// Which letters: some by number, or all there are.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    #[serde(default)]
    letters: Vec<u64>,
    #[serde(default)]
    all: bool,
}

async fn replay(
    caller: By,
    State(desk): State<Desk>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer {
    ordered(caller, desk, name, &body, What::Replay).await
}

async fn drop_letters(
    caller: By,
    State(desk): State<Desk>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer {
    ordered(caller, desk, name, &body, What::Drop).await
}

/// Has something done with dead letters and waits for it for a while.
async fn ordered(caller: By, desk: Desk, name: String, body: &[u8], what: What) -> Answer {
    caller.may_see_all()?;
    let which: Which = read(body)?;
    if which.all != which.letters.is_empty() {
        let reason = "name letters by their numbers, or say \"all\": true";
        return Err(Refusal::invalid(reason));
    }
    let folder = folder_of(&desk.find(&name)?, &name)?;
    let order = format!("{:020}-{}", clock::now_ns(), std::process::id());
    let (asked, path) = on_disk(move || {
        let there = look::numbers(&folder)?;
        let wanted = match which.all {
            true => there,
            false => there
                .intersection(&which.letters.into_iter().collect())
                .copied()
                .collect(),
        };
        let asked = wanted.len();
        look::order(&folder, &order, what, wanted).map(|path| (asked, path))
    })
    .await?;
    tracing::info!(destination = name, by = %caller.name, ?what, letters = asked, "dead letters");
    for _ in 0..LOOKS {
        let path = path.clone();
        if let Some(done) = on_disk(move || look::answer(&path)).await? {
            let mut answer = json!({"asked": asked, "done": true, "dropped": done.dropped,
                "accepted": done.accepted, "refused": done.refused});
            if let Some(error) = done.error {
                answer["error"] = error.into();
            }
            return Ok(ok(&answer));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    // It goes on all the same.
    Ok(ok(&json!({"asked": asked, "done": false})))
}

/// Does what may wait for a disk.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Refusal> {
    let failed = |error: &dyn std::fmt::Display| {
        Refusal::new(Code::ServiceUnavailable, format!("dead letters: {error}"))
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| failed(&error)),
        Err(panic) => Err(failed(&panic)),
    }
}
