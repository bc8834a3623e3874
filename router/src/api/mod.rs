//! The native HTTP API under `/api/v1`: levels, overrides, groups, devices, explanations, history. JSON
//! in and out, thin over [`crate::registry`]; what it answers is written down in [`openapi`].
//!
//! Every request carries a [`Caller`], which whoever mounts the routes has put there. Errors are
//! `{"error": {"code", "message"}}`. Lists are `{"items": […], "next": …}`, see [`list`].

pub(crate) mod alerts;
mod body;
mod channel;
pub(crate) mod destinations;
mod devices;
mod explain;
#[cfg(feature = "graphql")]
pub(crate) mod graphql;
mod groups;
mod history;
mod levels;
mod list;
pub(crate) mod logs;
mod openapi;
mod overrides;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::body::to_bytes;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use serde_json::{Value, json};

use crate::registry::{Caller, Code, Refusal, Registry};

/// Longest reason of axum's own that is repeated, bytes.
const LONGEST_REASON: usize = 4096;

/// What handlers answer.
type Answer = Result<Response, Refusal>;
/// Who asks.
type By = axum::Extension<Caller>;
/// What they ask.
type Fleet = axum::extract::State<Registry>;

/// The routes, to be mounted where every request has a [`Caller`] in its extensions.
pub(crate) fn routes(registry: Registry) -> Router {
    Router::new()
        .route("/api/openapi.json", get(openapi::document))
        .merge(levels::routes())
        .merge(overrides::routes())
        .merge(groups::routes())
        .merge(devices::routes())
        .merge(explain::routes())
        .merge(history::routes())
        .route("/api/{*unknown}", any(unknown))
        .with_state(registry)
        .layer(map_response(in_our_words))
}

async fn unknown(uri: Uri) -> Refusal {
    Refusal::not_found(uri.path())
}

/// What axum refuses by itself (a body that is too large, a path that is no text, a method that a path
/// does not have) is answered like every other refusal.
async fn in_our_words(response: Response) -> Response {
    let status = response.status();
    let is_json = |value: &HeaderValue| value.as_bytes().starts_with(b"application/json");
    let is_ours = response.headers().get(CONTENT_TYPE).is_some_and(is_json);
    if is_ours || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let body = to_bytes(body, LONGEST_REASON).await.unwrap_or_default();
    let message = match body.is_empty() {
        true => status.canonical_reason().unwrap_or_default().into(),
        false => String::from_utf8_lossy(&body),
    };
    let code = match status {
        StatusCode::PAYLOAD_TOO_LARGE => Code::LimitExceeded,
        status if status.is_server_error() => Code::ServiceUnavailable,
        _ => Code::InvalidRequest,
    };
    let body = json!({"error": {"code": code.name(), "message": message}}).to_string();
    parts.headers.remove(CONTENT_LENGTH);
    let json = HeaderValue::from_static("application/json");
    parts.headers.insert(CONTENT_TYPE, json);
    Response::from_parts(parts, body.into())
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({"error": {"code": self.code.name(), "message": self.message}});
        let status = StatusCode::from_u16(self.code.status());
        answer(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &body)
    }
}

fn ok(body: &Value) -> Response {
    answer(StatusCode::OK, body)
}

fn answer(status: StatusCode, body: &Value) -> Response {
    let json = [(CONTENT_TYPE, "application/json")];
    (status, json, body.to_string()).into_response()
}

fn nothing() -> Response {
    StatusCode::NO_CONTENT.into_response()
}
