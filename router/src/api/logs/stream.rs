//! Answers without a fixed end: the tail and downloads. Pages are searched one after the other, as fast as
//! they are read.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use flate2::Compression;
use flate2::write::GzEncoder;
use thinglog_schemas::json;
use thinglog_store::{Found, Order, Page, Search};
use tokio::sync::mpsc;

use super::answer::{self, Library};
use super::before;
use crate::api::channel::Channel;
use crate::destinations::stdout;
use crate::destinations::store::Shelf;
use crate::http::authenticate::Still;
use crate::registry::{Caller, Code, Refusal};

/// Events that a tail searches at a time.
const PAGE: usize = 1000;
/// Those of a download: more at a time, because the same blocks are read for each page.
pub(super) const MANY: usize = 20_000;
/// Portions that may wait to be read.
const WAITING: usize = 2;
/// How often a tail shows that it is there.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
/// Until a search that failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// What is searched, over and over.
pub(super) struct Follow {
    pub(super) library: Library,
    pub(super) caller: Caller,
    /// Who that is later; `None` where nobody signs in.
    pub(super) still: Option<Still>,
    pub(super) shelf: Arc<Shelf>,
    pub(super) search: Search,
}

impl Follow {
    /// Whether the caller is who it was, with the same rights: an answer may go on for days.
    fn is_let(&self) -> bool {
        let still = self.still.as_ref();
        still.is_none_or(|still| still().as_ref() == Some(&self.caller))
    }

    async fn page(&self, search: &Search) -> Result<Page, Refusal> {
        if !self.is_let() {
            return Err(Refusal::new(
                Code::Unauthorized,
                "this sign-in no longer counts, or for other things: sign in again",
            ));
        }
        self.library
            .page(&self.caller, &self.shelf, search.clone())
            .await
    }
}

/// The form of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Ndjson,
    Text,
}

impl Form {
    /// Content type and name of the file.
    pub(super) fn kind(self, gzip: bool) -> (&'static str, &'static str) {
        match (self, gzip) {
            (_, true) => ("application/gzip", self.name().1),
            (_, false) => (self.name().0, self.name().2),
        }
    }

    fn name(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Form::Ndjson => ("application/x-ndjson", "logs.ndjson.gz", "logs.ndjson"),
            Form::Text => ("text/plain; charset=utf-8", "logs.txt.gz", "logs.txt"),
        }
    }

    fn write(self, found: &Found, out: &mut Vec<u8>) {
        match self {
            Form::Ndjson => json::write(&found.event, out),
            Form::Text => stdout::write_text(&found.event, false, out),
        }
        out.push(b'\n');
    }
}

/// All pages, beginning with one that is there. An error in the middle ends the answer early, which whoever
/// reads sees: it is chunked.
pub(super) fn download(follow: Follow, first: Page, form: Form, gzip: bool) -> Body {
    let (sender, body) = Channel::new(WAITING);
    tokio::spawn(async move {
        let mut search = follow.search.clone();
        let mut gzip = gzip.then(|| GzEncoder::new(Vec::new(), Compression::default()));
        let mut page = first;
        loop {
            let next = page.next;
            // Thousands of events are no work for an async thread.
            let written = tokio::task::spawn_blocking(move || written(&page, form, gzip)).await;
            let Ok(Ok((portion, compressor))) = written else {
                return;
            };
            gzip = compressor;
            if !portion.is_empty() && sender.send(Ok(portion.into())).await.is_err() {
                return;
            }
            let Some(next) = next else { break };
            search.after = Some(next);
            let found = tokio::select! {
                found = follow.page(&search) => found,
                () = sender.closed() => return,
            };
            page = match found {
                Ok(page) => page,
                Err(refusal) => {
                    let error = std::io::Error::other(refusal.message);
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            };
        }
        if let Some(Ok(rest)) = gzip.map(GzEncoder::finish) {
            let _ = sender.send(Ok(rest.into())).await;
        }
    });
    Body::new(body)
}

type Gzip = Option<GzEncoder<Vec<u8>>>;

/// A page as a portion of the file.
fn written(page: &Page, form: Form, gzip: Gzip) -> std::io::Result<(Vec<u8>, Gzip)> {
    let mut lines = Vec::new();
    page.events
        .iter()
        .for_each(|found| form.write(found, &mut lines));
    let Some(mut gzip) = gzip else {
        return Ok((lines, None));
    };
    gzip.write_all(&lines)?;
    let portion = std::mem::take(gzip.get_mut());
    Ok((portion, Some(gzip)))
}

/// What was logged last, then what arrives.
pub(super) fn tail(follow: Follow, last: Option<u64>, history: usize) -> Result<Body, Refusal> {
    answer::opened(&follow.shelf)?;
    let mut changes = follow.shelf.changes();
    let from = changes.borrow_and_update().to_owned();
    let (sender, body) = Channel::new(WAITING);
    tokio::spawn(async move {
        // Rows below this have been told, or were there before.
        let mut row = last.map_or(from, |last| last.saturating_add(1).min(from));
        if last.is_none() && history > 0 && !tell_history(&follow, history, from, &sender).await {
            return;
        }
        while follow.is_let() {
            match tell_new(&follow, &mut row, &sender).await {
                Some(true) => {}
                Some(false) => return,
                None => tokio::time::sleep(AGAIN_AFTER).await,
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(ALIVE_EVERY) => {
                    if sender.send(Ok(Bytes::from_static(b": here\n\n"))).await.is_err() {
                        return;
                    }
                }
                () = sender.closed() => return,
            }
        }
    });
    Ok(Body::new(body))
}

type Sender = mpsc::Sender<std::io::Result<Bytes>>;

/// Tells the last events below a row, the oldest of them first; `false` when nobody listens.
async fn tell_history(follow: &Follow, count: usize, below: u64, sender: &Sender) -> bool {
    let search = Search {
        order: Order::Newest,
        limit: count,
        after: None,
        ..follow.search.clone()
    };
    let page = match follow.page(&search).await {
        Ok(page) => page,
        Err(refusal) => return sender.send(Ok(failure(&refusal))).await.is_ok(),
    };
    let mut out = Vec::new();
    for found in page
        .events
        .iter()
        .rev()
        .filter(|found| found.place.row < below)
    {
        message(found, None, &mut out);
    }
    // From here on a connection can be gone on with.
    if let Some(last) = below.checked_sub(1) {
        out.extend_from_slice(format!("id: {last}\n").as_bytes());
    }
    out.extend_from_slice(b"event: history\ndata: end\n\n");
    sender.send(Ok(out.into())).await.is_ok()
}

/// Tells what has arrived from a row on; `None` if that could not be found out.
async fn tell_new(follow: &Follow, row: &mut u64, sender: &Sender) -> Option<bool> {
    let shown = follow.shelf.store()?.shown();
    let mut search = Search {
        order: Order::Arrival,
        limit: PAGE,
        after: before(*row),
        ..follow.search.clone()
    };
    while *row < shown {
        let found = tokio::select! {
            found = follow.page(&search) => found,
            () = sender.closed() => return Some(false),
        };
        let page = match found {
            Ok(page) => page,
            Err(refusal) => {
                return match sender.send(Ok(failure(&refusal))).await {
                    Ok(()) => None,
                    Err(_) => Some(false),
                };
            }
        };
        let mut out = Vec::new();
        for found in &page.events {
            message(found, Some(found.place.row), &mut out);
        }
        // What a filter left out need not be looked at again.
        *row = match page.next {
            Some(next) if next.at == u64::MAX => next.row,
            Some(next) => next.row + 1,
            None => shown.max(page.events.last().map_or(0, |last| last.place.row + 1)),
        };
        search.after = before(*row);
        if !out.is_empty() && sender.send(Ok(out.into())).await.is_err() {
            return Some(false);
        }
    }
    Some(true)
}

/// One message of the stream. JSON has no line breaks.
fn message(found: &Found, id: Option<u64>, out: &mut Vec<u8>) {
    if let Some(id) = id {
        out.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    out.extend_from_slice(b"data: ");
    answer::write(found, out);
    out.extend_from_slice(b"\n\n");
}

fn failure(refusal: &Refusal) -> Bytes {
    let data = serde_json::json!({"code": refusal.code.name(), "message": refusal.message});
    format!("event: failure\ndata: {data}\n\n").into()
}
