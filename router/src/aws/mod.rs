//! AWS IoT's REST interface for logging and thing groups, as AWS's own clients speak it, and their
//! signatures.
//!
//! Paths, shapes and errors are those of AWS's service description of IoT, version 2015-05-28.

pub(crate) mod signature;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// The first segments of the paths that AWS's clients ask for.
const PATHS: [&str; 6] = [
    "v2LoggingOptions",
    "v2LoggingLevel",
    "loggingOptions",
    "thing-groups",
    "dynamic-thing-groups",
    "things",
];

/// Names the error, for clients that look no further.
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// Whether the path is one of AWS's.
pub(crate) fn serves(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next();
    first.is_some_and(|first| PATHS.contains(&first))
}

/// An error in AWS's form: its name in `x-amzn-ErrorType`, its message in the body.
pub(crate) fn error(status: StatusCode, name: &'static str, message: &str) -> Response {
    let body = json!({ "message": message }).to_string();
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (ERROR_TYPE, HeaderValue::from_static(name)),
    ];
    (status, headers, body).into_response()
}
