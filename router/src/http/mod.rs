//! HTTP: `/metrics`, `/healthz` and `/readyz`, and whatever routes other parts mount; of a router or of
//! whatever else has a registry and a health.
//!
//! Every request names a host that is meant, and one that changes something comes from no foreign page
//! ([`origin`]). All but `/healthz` and `/readyz` need a [`Caller`] where a sign-in is configured
//! ([`sign_in`]); elsewhere only loopback is served, and whoever is there may do everything.
//! Connections, heads, bodies and times are limited ([`serve`], [`config`]).

pub mod authenticate;
mod caller;
mod config;
mod origin;
mod pages;
mod patience;
pub(crate) mod refusal;
mod serve;
mod sign_in;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

pub use caller::{Caller, Role};
pub use config::HttpConfig;

use self::authenticate::Authenticate;
use crate::health::Health;

/// The bound listener, not yet serving.
pub struct Http {
    listener: TcpListener,
    shared: Arc<Shared>,
    mounted: axum::Router,
}

/// What requests share.
pub(crate) struct Shared {
    registry: Registry,
    health: Health,
    config: HttpConfig,
    /// `None` where nobody signs in.
    doorkeeper: Option<Arc<dyn Authenticate>>,
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
        };
        Ok(Http {
            listener,
            shared: Arc::new(shared),
            mounted: axum::Router::new(),
        })
    }

    /// Adds routes: they are behind the sign-in, and their handlers may take a [`Caller`].
    pub fn mount(&mut self, routes: axum::Router) {
        self.mounted = std::mem::take(&mut self.mounted).merge(routes);
    }

    /// Where it listens; the port is the real one when 0 was asked for.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`.
    pub async fn run(self, stop: CancellationToken) -> std::io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let with = || Arc::clone(&self.shared);
        let app = pages::routes()
            .with_state(with())
            .merge(self.mounted)
            .layer(DefaultBodyLimit::max(self.shared.config.body_bytes))
            .layer(middleware::from_fn_with_state(with(), sign_in::admit))
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

#[cfg(test)]
mod tests;
