//! `/metrics`, `/healthz` and `/readyz`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Encoder, TextEncoder};

use super::Shared;

pub(super) fn routes() -> axum::Router<Arc<Shared>> {
    axum::Router::new().route("/metrics", get(metrics))
}

/// What says whether the process lives and works, for who starts it.
pub(super) fn open() -> axum::Router<Arc<Shared>> {
    axum::Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&shared.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// 200 when every part is ready, else 503; the body says which is not and why.
async fn readiness(State(shared): State<Arc<Shared>>) -> Response {
    let parts = shared.health.parts();
    let ready = parts.values().all(Option::is_none);
    let part = |(name, reason): (String, Option<String>)| {
        (name, reason.map_or("ready".into(), serde_json::Value::from))
    };
    let parts: serde_json::Map<String, serde_json::Value> = parts.into_iter().map(part).collect();
    let body = serde_json::json!({ "ready": ready, "parts": parts }).to_string();
    let status = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
