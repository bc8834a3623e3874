//! Finds out who makes a request, before anything else looks at it.
//!
//! Four ways: a user name with password or token (Basic), a token of an issuer (Bearer), a signature
//! with an access key (AWS Signature Version 4), the cookie of a [`session`]. Refusals are in the form of
//! the interface that was asked. What was shown is never logged.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tracing::info;

use super::authenticate::{Authenticate, Denied, Shown, SignedIn, Still};
use super::caller::{Caller, Role};
use super::serve::Peer;
use super::{Shared, origin, refusal, session};
use crate::aws::{self, signature};
use crate::clock;

const METRICS: &str = "/metrics";

/// Why a request is not let in.
pub(super) struct Refused {
    status: StatusCode,
    /// As AWS calls it.
    aws: &'static str,
    /// As our own interface does.
    own: &'static str,
    message: String,
}

impl Refused {
    pub(super) fn new(
        status: StatusCode,
        aws: &'static str,
        own: &'static str,
        message: impl Into<String>,
    ) -> Refused {
        let message = message.into();
        Refused {
            status,
            aws,
            own,
            message,
        }
    }

    fn busy(reason: &str) -> Refused {
        Refused::new(
            StatusCode::TOO_MANY_REQUESTS,
            "ThrottlingException",
            "Throttling",
            format!("{reason}; try again later"),
        )
    }

    /// In the form of AWS, or in ours.
    fn answer(self, is_aws: bool, is_script: bool) -> Response {
        if is_aws {
            // AWS IoT throttles with another status than RFC 6585 has.
            let status = match self.status {
                StatusCode::TOO_MANY_REQUESTS => StatusCode::BAD_REQUEST,
                status => status,
            };
            return aws::Error::new(status, self.aws, self.message).into_response();
        }
        let asks = self.status == StatusCode::UNAUTHORIZED && !is_script;
        let mut answer = self.into_own();
        if asks {
            let asks = HeaderValue::from_static("Basic realm=\"thinglog\", charset=\"UTF-8\"");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, asks);
        }
        answer
    }

    /// In the form of our own interface.
    pub(super) fn into_own(self) -> Response {
        refusal::answer(self.status, self.own, &self.message)
    }
}

/// Lets a request through that took at most the configured time to arrive and be answered.
pub(super) async fn in_time(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let limit = Duration::from_secs(shared.config.timeout_s);
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(answer) => answer,
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "this took too long\n").into_response(),
    }
}

/// Lets a request through that changes nothing for a page of another origin.
pub(super) async fn at_home(request: Request, next: Next) -> Response {
    if !origin::is_foreign(request.method(), request.headers()) {
        return next.run(request).await;
    }
    let refused = Refused::new(
        StatusCode::FORBIDDEN,
        "AccessDeniedException",
        "Unauthorized",
        "a page of another origin may change nothing here (Origin and Host differ)",
    );
    refused.answer(is_aws(&request), true)
}

/// Lets a request through that may come in, with its [`Caller`].
pub(super) async fn admit(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let is_metrics = request.uri().path() == METRICS;
    if is_metrics && shared.config.shows_metrics() {
        return next.run(request).await;
    }
    let (is_aws, is_script) = (is_aws(&request), is_script(request.headers()));
    match judge(&shared, request, is_metrics).await {
        Ok(request) => next.run(request).await,
        Err(refused) => refused.answer(is_aws, is_script),
    }
}

async fn judge(shared: &Shared, request: Request, is_metrics: bool) -> Result<Request, Refused> {
    let (mut request, caller) = match &shared.doorkeeper {
        None => (request, Caller::anonymous()),
        Some(doorkeeper) => {
            let (mut request, found) = identify(shared, doorkeeper, request).await?;
            // For answers that go on for long.
            request.extensions_mut().insert(found.still);
            (request, found.caller)
        }
    };
    if !is_metrics {
        may_come_in(&caller)?;
    }
    request.extensions_mut().insert(caller);
    Ok(request)
}

/// Refuses who has no rights here.
pub(super) fn may_come_in(caller: &Caller) -> Result<(), Refused> {
    if caller.role != Role::Other {
        return Ok(());
    }
    Err(Refused::new(
        StatusCode::FORBIDDEN,
        "AccessDeniedException",
        "Unauthorized",
        format!(
            "{} has no rights here: it takes the role operator or admin",
            caller.name
        ),
    ))
}

/// Whether the request speaks as AWS's clients do.
fn is_aws(request: &Request) -> bool {
    aws::serves(request.uri().path()) || is_signed(request)
}

/// Whether the request shows a signature.
pub(super) fn is_signed(request: &Request) -> bool {
    scheme(request) == Some(signature::ALGORITHM)
}

/// Whether a page in a browser asks: it shows a sign-in of its own, and a challenge would have the browser
/// show one as well. Browsers say so over TLS and on loopback; our pages do everywhere.
fn is_script(headers: &HeaderMap) -> bool {
    let accepts = headers.get(header::ACCEPT);
    headers.contains_key("sec-fetch-site")
        || headers.contains_key("x-requested-with")
        || accepts.is_some_and(|accepts| accepts == "text/event-stream")
}

fn scheme(request: &Request) -> Option<&str> {
    let shown = request
        .headers()
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?;
    shown.split_ascii_whitespace().next()
}

/// Where a request comes from.
pub(super) fn address(request: &Request) -> IpAddr {
    let peer = request.extensions().get::<Peer>();
    peer.map_or(Ipv4Addr::LOCALHOST.into(), |peer| peer.0)
}

/// Who sent the request, and the request, whose body may have been read on the way.
async fn identify(
    shared: &Shared,
    doorkeeper: &Arc<dyn Authenticate>,
    request: Request,
) -> Result<(Request, SignedIn), Refused> {
    let address = address(&request);
    let unreadable =
        || unauthorized("the Authorization header is none of Basic, Bearer and AWS4-HMAC-SHA256");
    let headers = request.headers();
    let mut shown = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = shown.next() else {
        if let Some(found) = session::found(&shared.sessions, headers)? {
            return Ok((request, found));
        }
        return Err(Refused::new(
            match aws::serves(request.uri().path()) {
                true => StatusCode::FORBIDDEN,
                false => StatusCode::UNAUTHORIZED,
            },
            "MissingAuthenticationTokenException",
            "Unauthorized",
            "sign in: Basic with user and password, Bearer with a token, or a signature with an access key",
        ));
    };
    let value = value.to_str().map_err(|_| unreadable())?.to_owned();
    if shown.next().is_some() {
        return Err(unauthorized("more than one Authorization header"));
    }
    let (scheme, rest) = value.split_once(' ').ok_or_else(unreadable)?;
    let rest = rest.trim();
    if scheme == signature::ALGORITHM {
        let body_bytes = shared.config.body_bytes;
        return signed(doorkeeper, request, &value, (address, body_bytes)).await;
    }
    let signed_in = if scheme.eq_ignore_ascii_case("basic") {
        let decoded = BASE64.decode(rest).ok();
        let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let (user, password) = decoded
            .as_deref()
            .and_then(|text| text.split_once(':'))
            .ok_or_else(unreadable)?;
        sign_in(&**doorkeeper, Shown::Password { user, password }, address).await?
    } else if scheme.eq_ignore_ascii_case("bearer") {
        sign_in(&**doorkeeper, Shown::Bearer(rest), address).await?
    } else {
        return Err(unreadable());
    };
    Ok((request, signed_in))
}

pub(super) fn unauthorized(reason: &'static str) -> Refused {
    let status = StatusCode::UNAUTHORIZED;
    Refused::new(status, "UnauthorizedException", "Unauthorized", reason)
}

pub(super) async fn sign_in(
    doorkeeper: &dyn Authenticate,
    shown: Shown<'_>,
    address: IpAddr,
) -> Result<SignedIn, Refused> {
    match doorkeeper.sign_in(shown, address).await {
        Ok(signed_in) => Ok(signed_in),
        Err(Denied::Wrong(reason)) => {
            info!(%address, reason, "an HTTP sign-in was refused");
            Err(unauthorized(reason))
        }
        Err(Denied::Busy(reason)) => Err(Refused::busy(reason)),
    }
}

/// The caller whose key signed the request.
async fn signed(
    doorkeeper: &Arc<dyn Authenticate>,
    request: Request,
    authorization: &str,
    (address, body_bytes): (IpAddr, usize),
) -> Result<(Request, SignedIn), Refused> {
    let verified = async {
        let signed = signature::Authorization::parse(authorization)?;
        let key = doorkeeper.access_key(signed.key_id);
        let key = key.ok_or(signature::Error::UnknownKey)?;
        let (parts, body) = request.into_parts();
        signed.check(&parts, clock::now_ns())?;
        let body = to_bytes(body, body_bytes)
            .await
            .map_err(|_| signature::Error::TooLarge(body_bytes))?;
        signed.verify(&key.secret, &parts, &body, clock::now_ns())?;
        let request = Request::from_parts(parts, Body::from(body));
        let (keys, id) = (Arc::clone(doorkeeper), signed.key_id.to_owned());
        let still: Still = Arc::new(move || keys.access_key(&id).map(|key| key.caller));
        let caller = key.caller;
        Ok((request, SignedIn { caller, still }))
    };
    let refused: signature::Error = match verified.await {
        Ok(verified) => return Ok(verified),
        Err(refused) => refused,
    };
    info!(%address, reason = %refused, "a signed HTTP request was refused");
    wait_if(refused.is_guess(), doorkeeper.refused(address)).await;
    let (status, code) = refused.answer();
    Err(Refused::new(
        status,
        code,
        "Unauthorized",
        refused.to_string(),
    ))
}

async fn wait_if(needed: bool, pause: impl Future<Output = ()>) {
    if needed {
        pause.await;
    }
}
