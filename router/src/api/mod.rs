//! The native HTTP API under `/api/v1`: levels, overrides, groups, devices, explanations, history. JSON
//! in and out, thin over [`crate::registry`]; what it answers is written down in [`openapi`].
//!
//! Every request carries a [`Caller`], which whoever mounts the routes has put there. Errors are
//! `{"error": {"code", "message"}}`. Lists are `{"items": […], "next": …}`, see [`list`].

mod body;
pub(crate) mod destinations;
mod devices;
mod explain;
mod groups;
mod levels;
mod list;
mod openapi;
mod overrides;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use crate::registry::{Caller, Refusal, Registry};

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
        .with_state(registry)
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
    let json = [(header::CONTENT_TYPE, "application/json")];
    (status, json, body.to_string()).into_response()
}

fn nothing() -> Response {
    StatusCode::NO_CONTENT.into_response()
}
