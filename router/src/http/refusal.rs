//! Errors as the interfaces of our own answer them: `{"error": {"code", "message"}}`.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// An error: `code` is one of AWS's names without `Exception`, `message` is for people.
pub(crate) fn answer(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({"error": {"code": code, "message": message}}).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
