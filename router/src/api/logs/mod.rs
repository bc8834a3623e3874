//! `/api/v1/logs`: what was logged, from the store: pages, counts over time, a live tail, downloads; and
//! `DELETE /api/v1/devices/{name}/logs`. Callers who are limited to groups find their devices only.
//!
//! Events are JSON objects as everywhere, with a `place` that can be given as `cursor`: to go on from
//! there, or, with the other `order`, back.

pub(crate) mod answer;
mod counts;
pub(in crate::api) mod question;
mod stream;
mod thread;

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Extension, Router};
use thinglog_schemas::topic::ConfigTopic;
use thinglog_store::{Effort, Order, Page, Place, Search};

use self::answer::Library;
use self::question::{Asked, place_text};
use super::body::{self, asked};
use super::{Answer, By, nothing};
use crate::clock;
use crate::destinations::running::Shown;
use crate::destinations::store::Shelf;
use crate::http::authenticate::Still;
use crate::registry::{Caller, Code, Refusal};

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
        .route("/api/v1/logs/counts", get(counts::counts))
        .route("/api/v1/logs/tail", get(tail))
        .route("/api/v1/logs/download", get(download))
        .route("/api/v1/devices/{name}/logs", delete(clear))
        .with_state(reading)
}

impl Reading {
    /// The same for a request with several searches: they run one after the other, and share the time and
    /// the size of one answer.
    #[cfg(feature = "graphql")]
    pub(in crate::api) fn one_after_the_other(&self) -> Reading {
        Reading {
            shown: self.shown.clone(),
            library: self.library.one_after_the_other(),
        }
    }

    /// A page of what was logged.
    pub(in crate::api) async fn page(
        &self,
        caller: &Caller,
        asked: &Asked,
    ) -> Result<Page, Refusal> {
        let search = asked.search(clock::now_ns())?;
        let shelf = self.shelf(asked.store.as_deref())?;
        self.library.page(caller, &shelf, search).await
    }

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
    let page = reading.page(&caller, &asked(query)?).await?;
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

/// Server-sent events (WHATWG HTML, section 9.2): what was logged last, then what arrives, without a gap
/// and without a repeat. `Last-Event-ID` goes on where a connection broke.
async fn tail(
    caller: By,
    still: Option<Extension<Still>>,
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
        still: still.map(|still| still.0),
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
async fn download(
    caller: By,
    still: Option<Extension<Still>>,
    State(reading): State<Reading>,
    query: body::Asked<Asked>,
) -> Answer {
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
        still: still.map(|still| still.0),
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
