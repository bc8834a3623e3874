//! `/graphql`: what `/api/v1` has for reading, in one request and with the fields that are wanted. Thin
//! over the same questions and searches as the HTTP API ([`crate::api::logs`], [`crate::api::devices`]),
//! so that callers who are limited to groups see here what they see there.
//!
//! POST only, of JSON: a page elsewhere can neither read nor ask. What a request may cost is limited before
//! anything is looked up ([`limits`]); its searches run one after the other and share the time of one.

mod count;
mod fleet;
mod limits;
mod logs;
mod query;
#[cfg(test)]
mod tests;

use std::time::Duration;

use async_graphql::{
    EmptyMutation, EmptySubscription, ErrorExtensionValues, ErrorExtensions, Response, Schema,
    ServerError, Value,
};
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;

use super::logs::Reading;
use super::{By, body};
use crate::registry::{Caller, Code, Refusal};

/// Largest request, bytes.
const MOST_BYTES: usize = 64 << 10;
/// Longest time for a request: less than HTTP gives it, so that it is told in words of GraphQL.
const WITHIN: Duration = Duration::from_secs(25);

type Api = Schema<query::Query, EmptyMutation, EmptySubscription>;

/// What resolvers look at.
struct Asking {
    caller: Caller,
    reading: Reading,
}

#[derive(Clone)]
struct Service {
    reading: Reading,
    schema: Api,
}

/// The route, to be mounted where every request has a caller in its extensions.
pub(crate) fn routes(reading: Reading) -> Router {
    let schema = schema();
    Router::new()
        .route("/graphql", post(ask))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .with_state(Service { reading, schema })
}

fn schema() -> Api {
    Schema::build(query::Query, EmptyMutation, EmptySubscription)
        .limit_depth(limits::MOST_DEPTH)
        .limit_complexity(limits::MOST_COMPLEXITY)
        .limit_directives(limits::MOST_DIRECTIVES)
        .finish()
}

async fn ask(
    caller: By,
    State(service): State<Service>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> axum::response::Response {
    let answer = match request(&caller, &headers, body) {
        Ok(request) => {
            let asking = Asking {
                caller: caller.0.clone(),
                reading: service.reading.one_after_the_other(),
            };
            let asked = service.schema.execute(request.data(asking));
            let answer = tokio::time::timeout(WITHIN, asked).await;
            answer.map_err(|_| {
                let reason = format!(
                    "this takes longer than {} s; ask for less",
                    WITHIN.as_secs()
                );
                Refusal::new(Code::LimitExceeded, reason)
            })
        }
        Err(refusal) => Err(refusal),
    };
    match answer {
        Ok(answer) => answered(StatusCode::OK, answer),
        Err(refusal) => {
            let status = StatusCode::from_u16(refusal.code.status());
            let mut error = ServerError::new(refusal.message, None);
            let mut values = ErrorExtensionValues::default();
            values.set("code", refusal.code.name());
            error.extensions = Some(values);
            answered(
                status.unwrap_or(StatusCode::BAD_REQUEST),
                Response::from_errors(vec![error]),
            )
        }
    }
}

/// The request, if it is one and worth answering.
fn request(
    caller: &Caller,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<async_graphql::Request, Refusal> {
    caller.may_look()?;
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        // What a page may send without asking first is not taken.
        return Err(Refusal::invalid(
            "the content type must be application/json",
        ));
    }
    let body = body.map_err(|rejection| {
        let code = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Code::LimitExceeded,
            _ => Code::InvalidRequest,
        };
        Refusal::new(code, rejection.body_text())
    })?;
    let mut request: async_graphql::Request = body::read(&body)?;
    let document = limits::read(&request.query)?;
    request.set_parsed_query(document);
    Ok(request)
}

/// Errors of the library's own get a code as well.
fn answered(status: StatusCode, mut answer: Response) -> axum::response::Response {
    for error in &mut answer.errors {
        let ServerError { extensions, .. } = error;
        let extensions = extensions.get_or_insert_with(ErrorExtensionValues::default);
        if extensions.get("code").is_none() {
            extensions.set("code", Code::InvalidRequest.name());
        }
    }
    let json = [(header::CONTENT_TYPE, "application/json")];
    match serde_json::to_vec(&answer) {
        Ok(body) => (status, json, body).into_response(),
        Err(error) => Refusal::new(Code::ServiceUnavailable, error.to_string()).into_response(),
    }
}

/// A refusal, with its code beside the message.
fn refused(refusal: Refusal) -> async_graphql::Error {
    let code = Value::from(refusal.code.name());
    async_graphql::Error::new(refusal.message).extend_with(|_, values| values.set("code", code))
}
