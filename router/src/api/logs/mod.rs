//! `/api/v1/logs`: what was logged, from the store: pages, counts over time, a live tail, downloads; and
//! `DELETE /api/v1/devices/{name}/logs`. Callers who are limited to groups find their devices only.
//!
//! Events are JSON objects as everywhere, with a `place` that can be given as `cursor`: to go on from
//! there, or, with the other `order`, back.

pub(crate) mod answer;
mod question;
mod stream;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use thinglog_schemas::topic::ConfigTopic;
use thinglog_store::{Effort, Order, Place, Search};

use self::answer::Library;
use self::question::{Asked, place_text, span};
use super::body::{self, asked};
use super::{Answer, By, nothing};
use crate::clock;
use crate::destinations::running::Shown;
use crate::destinations::store::Shelf;
use crate::registry::{Caller, Code, Refusal, time_text};

/// Where counts begin for callers who are limited to groups, unless told, ns.
const DAY: u64 = 86_400_000_000_000;
/// Most steps of counts.
const STEPS: usize = 500;
/// Events before a tail unless told, and at most.
const HISTORY: usize = 10;
const MOST_HISTORY: usize = 1000;

/// What handlers look at.
#[derive(Clone)]
pub(crate) struct Reading {
    pub(crate) shown: Shown,
    pub(crate) library: Library,
}

/// The routes, to be mounted where every request has a caller in its extensions.
pub(crate) fn routes(reading: Reading) -> Router {
    Router::new()
        .route("/api/v1/logs", get(page))
        .route("/api/v1/logs/counts", get(counts))
        .route("/api/v1/logs/tail", get(tail))
        .route("/api/v1/logs/download", get(download))
        .route("/api/v1/devices/{name}/logs", delete(clear))
        .with_state(reading)
}

impl Reading {
    /// The store of that name; without one the only or first there is.
    fn shelf(&self, name: Option<&str>) -> Result<Arc<Shelf>, Refusal> {
        let shown = self.shown.read();
        let mut stores = shown
            .iter()
            .filter_map(|(name, view)| Some((name, view.shelf.as_ref()?)));
        let found = match name {
            Some(name) => stores.find(|(of, _)| *of == name),
            None => stores.next(),
        };
        found.map(|(_, shelf)| Arc::clone(shelf)).ok_or_else(|| {
            let reason = "there is no such store; a destination of type = \"store\" keeps logs to be searched";
            Refusal::new(Code::ResourceNotFound, reason)
        })
    }
}

async fn page(caller: By, State(reading): State<Reading>, query: body::Asked<Asked>) -> Answer {
    let asked = asked(query)?;
    let search = asked.search(clock::now_ns())?;
    let shelf = reading.shelf(asked.store.as_deref())?;
    let page = reading.library.page(&caller, &shelf, search).await?;
    let mut out = b"{\"items\":[".to_vec();
    for (at, found) in page.events.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        answer::write(found, &mut out);
    }
    out.push(b']');
    if let Some(next) = page.next {
        out.extend_from_slice(format!(",\"next\":\"{}\"", place_text(next)).as_bytes());
    }
    if caller.is_unlimited() {
        out.extend_from_slice(format!(",\"effort\":{}", effort(page.effort)).as_bytes());
    }
    out.push(b'}');
    Ok(json(out))
}

fn effort(effort: Effort) -> serde_json::Value {
    serde_json::json!({"blocks": effort.blocks, "read": effort.read, "events": effort.rows})
}

fn json(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Counts by level, in steps that begin at multiples of their width.
async fn counts(caller: By, State(reading): State<Reading>, query: body::Asked<Asked>) -> Answer {
    let asked = asked(query)?;
    let now = clock::now_ns();
    let mut search = asked.search(now)?;
    let shelf = reading.shelf(asked.store.as_deref())?;
    if search.from == 0 {
        // How far back others go is not for those who may not see them.
        search.from = match caller.is_unlimited() {
            true => answer::opened(&shelf)?.size().oldest.unwrap_or(now),
            false => now.saturating_sub(DAY),
        };
    }
    search.until = search.until.min(now.saturating_add(1));
    let step = match asked.step.as_deref() {
        None => round(search.until.saturating_sub(search.from) / 60),
        Some(text) => span(text).filter(|step| *step > 0).ok_or_else(|| {
            Refusal::invalid(format!("step is {text:?}, it must be like 30s, 5m, 1h"))
        })?,
    };
    let first = search.from / step * step;
    if (search.until.saturating_sub(first)) / step > STEPS as u64 {
        let reason =
            format!("these would be more than {STEPS} steps; give a larger step or a shorter time");
        return Err(Refusal::invalid(reason));
    }
    // Steps are the same whenever one asks.
    let from = std::mem::replace(&mut search.from, first);
    let counts = reading
        .library
        .counts(&caller, &shelf, search, (step, STEPS + 1))
        .await?;
    let items: Vec<serde_json::Value> = counts.steps.iter().map(|(at, [debug, info, warn, error])| {
        serde_json::json!({"time": time_text(*at), "debug": debug, "info": info, "warn": warn, "error": error})
    }).collect();
    let mut answer = serde_json::json!({
        "items": items, "step_s": step as f64 / 1e9, "since": time_text(from), "partial": counts.is_partial,
    });
    if caller.is_unlimited() {
        answer["effort"] = effort(counts.effort);
    }
    Ok(super::ok(&answer))
}

/// A width that people count in, at least so long.
fn round(ns: u64) -> u64 {
    const SECOND: u64 = 1_000_000_000;
    let widths = [
        1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200,
        86_400,
    ];
    let width = widths
        .into_iter()
        .map(|seconds| seconds * SECOND)
        .find(|width| *width >= ns);
    width.unwrap_or_else(|| ns.div_ceil(86_400 * SECOND) * 86_400 * SECOND)
}

/// Server-sent events (WHATWG HTML, section 9.2): what was logged last, then what arrives, without a gap
/// and without a repeat. `Last-Event-ID` goes on where a connection broke.
async fn tail(
    caller: By,
    State(reading): State<Reading>,
    headers: HeaderMap,
    query: body::Asked<Asked>,
) -> Answer {
    let asked = asked(query)?;
    let search = asked.search(clock::now_ns())?;
    let shelf = reading.shelf(asked.store.as_deref())?;
    caller.may_look()?;
    let last = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok()?.parse::<u64>().ok());
    let history = asked.history.unwrap_or(HISTORY).min(MOST_HISTORY);
    let follow = stream::Follow {
        library: reading.library.clone(),
        caller: caller.0.clone(),
        shelf,
        search,
    };
    let body = stream::tail(follow, last, history)?;
    let head = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((head, body).into_response())
}

/// Everything that matches, oldest first unless told, as a file.
async fn download(caller: By, State(reading): State<Reading>, query: body::Asked<Asked>) -> Answer {
    let mut asked = asked(query)?;
    let form = match asked.format.take().as_deref() {
        None | Some("ndjson") => stream::Form::Ndjson,
        Some("text") => stream::Form::Text,
        Some(other) => {
            return Err(Refusal::invalid(format!(
                "format is {other:?}, it must be ndjson or text"
            )));
        }
    };
    let gzip = asked.gzip.unwrap_or(false);
    let mut search = asked.search(clock::now_ns())?;
    if !asked.says_order() {
        search.order = Order::Oldest;
    }
    let shelf = reading.shelf(asked.store.as_deref())?;
    // The first page here, so that what is wrong is an answer.
    let first = Search {
        limit: stream::MANY,
        ..search
    };
    let page = reading.library.page(&caller, &shelf, first.clone()).await?;
    let follow = stream::Follow {
        library: reading.library.clone(),
        caller: caller.0.clone(),
        shelf,
        search: first,
    };
    let (kind, name) = form.kind(gzip);
    let head = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}\""),
        ),
    ];
    Ok((head, stream::download(follow, page, form, gzip)).into_response())
}

/// Forgets what a device logged.
async fn clear(caller: By, State(reading): State<Reading>, Path(name): Path<String>) -> Answer {
    let registry = reading.library.registry();
    caller.may_look()?;
    let may = registry.read(|view| caller.sees_device(&view, &name))?;
    if !may {
        return Err(not_yours(&caller, &name));
    }
    let stores: Vec<Arc<Shelf>> = reading
        .shown
        .read()
        .values()
        .filter_map(|view| view.shelf.clone())
        .collect();
    for shelf in stores {
        let (store, device) = (answer::opened(&shelf)?, name.clone());
        let cleared = tokio::task::spawn_blocking(move || store.clear(&device)).await;
        let cleared = cleared.unwrap_or_else(|panic| Err(std::io::Error::other(panic.to_string())));
        cleared.map_err(|error| {
            Refusal::new(Code::ServiceUnavailable, format!("the store: {error}"))
        })?;
    }
    tracing::info!(device = name, by = %caller.name, "logs cleared");
    registry.history().note_deed(
        ConfigTopic::Device(&name),
        "logs cleared",
        &caller.name,
        clock::now_ns(),
    );
    Ok(nothing())
}

fn not_yours(caller: &Caller, device: &str) -> Refusal {
    Refusal::new(
        Code::Unauthorized,
        format!("{}: {device:?} is not a device of your groups", caller.name),
    )
}

/// The place before all rows from `row` on, in the order of arrival.
fn before(row: u64) -> Option<Place> {
    Some(Place { at: u64::MAX, row })
}
