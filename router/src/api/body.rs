//! Bodies and queries of requests: JSON objects and known parameters, with errors that name what is
//! wrong.

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::registry::Refusal;

/// A query whose parameters are all known.
pub(super) type Asked<T> = Result<Query<T>, QueryRejection>;

/// The parameters, or what is wrong with them.
pub(super) fn asked<T>(query: Asked<T>) -> Result<T, Refusal> {
    match query {
        Ok(Query(asked)) => Ok(asked),
        Err(rejection) => Err(Refusal::invalid(rejection.body_text())),
    }
}

/// A body of known fields. Objects only: serde would also take an array, field by field.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Refusal::invalid("the body is not a JSON object"));
    }
    serde_json::from_slice(body)
        .map_err(|error| Refusal::invalid(format!("the body cannot be read: {error}")))
}

/// A body whose fields somebody else knows.
pub(super) fn fields(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    read(body)
}

/// A field that may be absent, `null`, or have a value: `None`, `Some(None)`, `Some(Some(_))`.
pub(super) fn nullable<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de>,
{
    serde::Deserialize::deserialize(deserializer).map(Some)
}
