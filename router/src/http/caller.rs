//! How handlers get at who makes a request: they take a [`Caller`] as an argument.

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;

pub use crate::registry::{Caller, Role};

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = StatusCode;

    /// The caller that the sign-in found; every route behind it has one.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Caller, StatusCode> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.ok_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}
