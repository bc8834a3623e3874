//! HTTP: `/metrics`, `/healthz` and `/readyz`, sessions, and whatever routes other parts mount; of a
//! router or of whatever else has a registry and a health.
//!
//! Every request names a host that is meant, and one that changes something comes from no foreign page
//! ([`origin`]). All but `/healthz`, `/readyz`, the beginning of a session and what is
//! [shown](Http::show) to everybody need a [`Caller`] where a sign-in is configured ([`sign_in`],
//! [`session`]); elsewhere only loopback is served, and whoever is there may do everything. What nobody
//! else has routes for is answered here. Connections, heads, bodies and times are limited ([`serve`],
//! [`config`]).

pub mod authenticate;
mod caller;
mod config;
mod origin;
mod pages;
mod patience;
pub(crate) mod refusal;
mod serve;
mod session;
mod sessions;
mod sign_in;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

pub use caller::{Caller, Role};
pub use config::HttpConfig;

use self::authenticate::Authenticate;
use self::sessions::Sessions;
use crate::aws;
use crate::health::Health;

/// The bound listener, not yet serving.
pub struct Http {
    listener: TcpListener,
    shared: Arc<Shared>,
    mounted: axum::Router,
    shown: axum::Router,
}

/// What requests share.
pub(crate) struct Shared {
    registry: Registry,
    health: Health,
    config: HttpConfig,
    /// `None` where nobody signs in.
    doorkeeper: Option<Arc<dyn Authenticate>>,
    sessions: Mutex<Sessions>,
}

impl Http {
    /// Binds, so that a taken port fails at the start. Without a doorkeeper nobody signs in.
    pub fn bind(
        config: &HttpConfig,
        registry: Registry,
        health: Health,
        doorkeeper: Option<Arc<dyn Authenticate>>,
    ) -> std::io::Result<Http> {
        let listener = TcpListener::bind(config.address)?;
        listener.set_nonblocking(true)?;
        let shared = Shared {
            registry,
            health,
            config: config.clone(),
            doorkeeper,
            sessions: Mutex::default(),
        };
        Ok(Http {
            listener,
            shared: Arc::new(shared),
            mounted: axum::Router::new(),
            shown: axum::Router::new(),
        })
    }

    /// Adds routes: they are behind the sign-in, and their handlers may take a [`Caller`].
    pub fn mount(&mut self, routes: axum::Router) {
        self.mounted = std::mem::take(&mut self.mounted).merge(routes);
    }

    /// Adds routes that are served to everybody, whoever signs in or not.
    pub fn show(&mut self, routes: axum::Router) {
        self.shown = std::mem::take(&mut self.shown).merge(routes);
    }

    /// Where it listens; the port is the real one when 0 was asked for.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`.
    pub async fn run(self, stop: CancellationToken) -> std::io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let with = || Arc::clone(&self.shared);
        let open = pages::open()
            .merge(session::open())
            .with_state(with())
            .merge(self.shown);
        let app = pages::routes()
            .merge(session::routes())
            .with_state(with())
            .merge(self.mounted)
            .fallback(elsewhere)
            .layer(DefaultBodyLimit::max(self.shared.config.body_bytes))
            .layer(middleware::from_fn_with_state(with(), sign_in::admit))
            .merge(open)
            .layer(middleware::map_response(as_it_says))
            .layer(middleware::from_fn(sign_in::at_home))
            .layer(middleware::from_fn_with_state(with(), check_host))
            .layer(middleware::from_fn_with_state(with(), sign_in::in_time));
        serve::serve(listener, app, &self.shared.config, stop).await;
        Ok(())
    }
}

async fn check_host(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    if origin::is_meant(request.headers(), &shared.config.hosts) {
        return next.run(request).await;
    }
    let reason = "this host name is not served here; add it to router.http.hosts (monitor.hosts of a broker alone)\n";
    (StatusCode::MISDIRECTED_REQUEST, reason).into_response()
}

/// Browsers are to take an answer for what it says it is, and to keep none that does not ask for it: what
/// one user saw is not to be read from the disk by the next (RFC 9111, 5.2.2.5).
async fn as_it_says(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let kept = headers.entry(CACHE_CONTROL);
    kept.or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What no part has a route for; an operation of AWS's that is not here is answered as one.
async fn elsewhere(method: Method, uri: Uri, request: Request) -> Response {
    if sign_in::is_signed(&request) {
        return aws::unknown(&method, uri.path()).into_response();
    }
    let told = "nothing is at this path; the dashboard is at /, the HTTP interface below /api/v1, and \
                /api/openapi.json describes it\n";
    (StatusCode::NOT_FOUND, told).into_response()
}

#[cfg(test)]
mod tests;
