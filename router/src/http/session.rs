//! `/api/v1/session`: a browser signs in once, and shows a cookie since.
//!
//! The cookie is for this origin's own pages: scripts cannot read it (`HttpOnly`), requests of other sites
//! do not carry it (`SameSite=Strict`), and it ends with the browser. Changes are checked for their origin
//! as all others are. Whom it stands for is looked up with every request, so who is removed, or has
//! another password now, is out.

use std::sync::Arc;

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, COOKIE, ORIGIN, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::error;

use super::authenticate::{Shown, SignedIn};
use super::caller::{Caller, Role};
use super::sessions::{Sessions, Token};
use super::sign_in::{self, Refused, unauthorized};
use super::{Shared, refusal};
use crate::clock;

const PATH: &str = "/api/v1/session";
const COOKIE_NAME: &str = "thinglog_session";
/// Largest body, bytes: tokens of issuers are long.
const BODY_BYTES: usize = 16 << 10;

/// Behind the sign-in: who one is.
pub(super) fn routes() -> axum::Router<Arc<Shared>> {
    axum::Router::new().route(PATH, get(tell))
}

/// Before it: to sign in and out.
pub(super) fn open() -> axum::Router<Arc<Shared>> {
    let methods = post(begin).delete(end).fallback(no_such_method);
    axum::Router::new().route(PATH, methods)
}

/// What somebody signs in with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, untagged)]
enum Credentials {
    Password { name: String, password: String },
    Token { token: String },
}

async fn no_such_method() -> Response {
    let told = "a session is read by GET, begun by POST and ended by DELETE";
    refusal::answer(StatusCode::METHOD_NOT_ALLOWED, "InvalidRequest", told)
}

async fn tell(State(shared): State<Arc<Shared>>, caller: Caller) -> Response {
    described(&caller, shared.doorkeeper.is_some())
}

async fn begin(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let begun = try_begin(&shared, request).await;
    begun.unwrap_or_else(Refused::into_own)
}

async fn try_begin(shared: &Shared, request: Request) -> Result<Response, Refused> {
    let Some(doorkeeper) = &shared.doorkeeper else {
        return Err(invalid("nobody signs in here: everybody may do everything"));
    };
    let address = sign_in::address(&request);
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_BYTES).await.map_err(|_| {
        let told = format!("the body is no sign-in: more than {BODY_BYTES} bytes, or cut off");
        Refused::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "LimitExceededException",
            "LimitExceeded",
            told,
        )
    })?;
    let credentials: Credentials = serde_json::from_slice(&body).map_err(|_| {
        invalid("the body is neither {\"name\": …, \"password\": …} nor {\"token\": …}")
    })?;
    let shown = match &credentials {
        Credentials::Password { name, password } => Shown::Password {
            user: name,
            password,
        },
        Credentials::Token { token } => Shown::Bearer(token),
    };
    let SignedIn { caller, still } = sign_in::sign_in(&**doorkeeper, shown, address).await?;
    sign_in::may_come_in(&caller)?;
    let token = random_token()?;
    {
        let mut sessions = shared.sessions.lock();
        tokens(&parts.headers).for_each(|token| sessions.end(&token));
        sessions.begin(&token, Arc::clone(&caller.name), still, clock::now_ns());
    }
    let mut answer = described(&caller, true);
    set_cookie(&mut answer, &parts.headers, &token.encode(), "");
    Ok(answer)
}

async fn end(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let mut sessions = shared.sessions.lock();
    tokens(&headers).for_each(|token| sessions.end(&token));
    drop(sessions);
    let mut answer = StatusCode::NO_CONTENT.into_response();
    set_cookie(&mut answer, &headers, "", "; Max-Age=0");
    answer
}

/// Whose session the request shows; an error when it shows one that has ended.
pub(super) fn found(
    sessions: &Mutex<Sessions>,
    headers: &HeaderMap,
) -> Result<Option<SignedIn>, Refused> {
    let mut is_shown = false;
    for token in tokens(headers) {
        is_shown = true;
        let found = sessions.lock().find(&token, clock::now_ns());
        let Some(still) = found else { continue };
        match still() {
            Some(caller) => return Ok(Some(SignedIn { caller, still })),
            None => sessions.lock().end(&token),
        }
    }
    match is_shown {
        true => Err(unauthorized("the session has ended: sign in again")),
        false => Ok(None),
    }
}

/// The sessions that the request's cookies name.
fn tokens(headers: &HeaderMap) -> impl Iterator<Item = Token> {
    let values = headers.get_all(COOKIE).into_iter();
    let pairs = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    pairs.filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        Token::decode(value).filter(|_| name == COOKIE_NAME)
    })
}

fn random_token() -> Result<Token, Refused> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        error!(%error, "no session can be begun: the system gives no random bytes");
        let told = "the system gives no random bytes; try again later";
        Refused::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailableException",
            "ServiceUnavailable",
            told,
        )
    })?;
    Ok(Token(bytes))
}

/// Sets the cookie, for TLS alone where the page came by TLS: its own origin says so, also behind a proxy.
fn set_cookie(answer: &mut Response, headers: &HeaderMap, value: &str, lasts: &str) {
    let is_secure = headers
        .get(ORIGIN)
        .is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    let secure = if is_secure { "; Secure" } else { "" };
    let cookie = format!("{COOKIE_NAME}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{lasts}");
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        answer.headers_mut().insert(SET_COOKIE, cookie);
    }
}

fn described(caller: &Caller, sign_in: bool) -> Response {
    let role = match caller.role {
        Role::Admin => "admin",
        Role::Operator => "operator",
        Role::Other => "other",
    };
    let name = sign_in.then_some(&*caller.name);
    let groups = match caller.is_unlimited() {
        true => Value::Null,
        false => json!(caller.groups),
    };
    let body = json!({"name": name, "role": role, "groups": groups, "sign_in": sign_in});
    let no_store = [(CACHE_CONTROL, "no-store")];
    (no_store, axum::Json(body)).into_response()
}

fn invalid(message: &str) -> Refused {
    Refused::new(
        StatusCode::BAD_REQUEST,
        "InvalidRequestException",
        "InvalidRequest",
        message,
    )
}
