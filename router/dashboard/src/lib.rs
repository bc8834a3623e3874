//! The dashboard: pages for a browser, which show a fleet and its logs.
//!
//! What is in `web/` is part of the program; builds for debugging read the folder with every request.
//! The pages hold no data: they are the same for everybody, and ask the HTTP API for all they show.
//! `web/index.html` answers all paths of pages, and finds out itself which one it is to be; the folder is
//! served below `/assets/`. Nothing here runs while nobody asks.

mod conditions;
mod files;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::files::{File, Files};

/// The paths that are pages.
const PAGES: [&str; 6] = [
    "/",
    "/devices/{name}",
    "/logs",
    "/levels",
    "/destinations",
    "/sign-in",
];

/// Scripts, styles and connections are our own, nothing is written into the page, nobody frames it. An
/// image may be a `data:` address: icons within the style sheet.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; \
    frame-ancestors 'none'";

/// What every answer carries.
const HEADERS: [(HeaderName, &str); 7] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    // Names do not change with what is in the files: each is asked for again, and answered by 304.
    (CACHE_CONTROL, "no-cache"),
];

/// The routes of the pages and their files. They show nothing of a fleet, so no sign-in is needed.
pub fn routes() -> Router {
    let pages = PAGES
        .iter()
        .fold(Router::new(), |router, path| router.route(path, get(page)));
    pages
        .route("/assets/{*path}", get(asset))
        .with_state(Arc::new(Files::default()))
}

async fn page(State(files): State<Arc<Files>>, headers: HeaderMap) -> Response {
    respond(files.get("index.html"), &headers)
}

async fn asset(
    State(files): State<Arc<Files>>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Response {
    respond(files.get(&path), &headers)
}

/// A file, or that there is none, as the request's conditions want it.
fn respond(file: Option<File>, asked: &HeaderMap) -> Response {
    let mut response = match file {
        Some(file) => shown(file, asked),
        None => (StatusCode::NOT_FOUND, "no such file\n").into_response(),
    };
    for (name, value) in HEADERS {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

fn shown(file: File, asked: &HeaderMap) -> Response {
    let packed = conditions::accepts_gzip(values(asked, &ACCEPT_ENCODING))
        .then(|| file.gzip())
        .flatten();
    let tag = match packed {
        Some(_) => format!("\"{}-gzip\"", file.hash),
        None => format!("\"{}\"", file.hash),
    };
    let is_known = conditions::names(values(asked, &IF_NONE_MATCH), &tag);
    let mut response = match (is_known, packed) {
        (true, _) => StatusCode::NOT_MODIFIED.into_response(),
        (false, Some(packed)) => {
            ([(CONTENT_ENCODING, "gzip")], axum::body::Body::from(packed)).into_response()
        }
        (false, None) => axum::body::Body::from(file.data).into_response(),
    };
    let headers = response.headers_mut();
    if !is_known {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.kind));
    }
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(ETAG, tag);
    }
    response
}

/// The values of a header that are text.
fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    values.filter_map(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests;
