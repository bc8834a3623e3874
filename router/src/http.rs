//! `/metrics`, `/healthz` and `/readyz`, of a router or of whatever else has a registry and a health.
//!
//! Requests must name a host that is meant: an IP address, `localhost`, or one of the allow-list. A
//! web page elsewhere whose name is made to point here (DNS rebinding) therefore reads nothing.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio_util::sync::CancellationToken;

use crate::config::HttpConfig;
use crate::health::Health;

/// Longest wait for requests under way when the router stops.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// The bound listener, not yet serving.
#[derive(Debug)]
pub struct Http {
    listener: TcpListener,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    registry: Registry,
    health: Health,
    hosts: Vec<String>,
}

impl Http {
    /// Binds, so that a taken port fails at the start.
    pub fn bind(config: &HttpConfig, registry: Registry, health: Health) -> std::io::Result<Http> {
        let listener = TcpListener::bind(config.address)?;
        listener.set_nonblocking(true)?;
        Ok(Http {
            listener,
            shared: Arc::new(Shared {
                registry,
                health,
                hosts: config.hosts.clone(),
            }),
        })
    }

    /// Where it listens; the port is the real one when 0 was asked for.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`.
    pub async fn run(self, stop: CancellationToken) -> std::io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let app = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readiness))
            .layer(middleware::from_fn_with_state(
                Arc::clone(&self.shared),
                check_host,
            ))
            .with_state(self.shared);
        let orderly = stop.clone().cancelled_owned();
        let serving = axum::serve(listener, app).with_graceful_shutdown(orderly);
        tokio::select! {
            served = serving.into_future() => served,
            // A client that never finishes its request must not keep the router from stopping.
            () = async {
                stop.cancelled().await;
                tokio::time::sleep(STOP_WITHIN).await;
            } => Ok(()),
        }
    }
}

async fn check_host(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    if is_meant(request.headers(), &shared.hosts) {
        return next.run(request).await;
    }
    let reason = "this host name is not served here; add it to router.http.hosts (monitor.hosts of a broker alone)\n";
    (StatusCode::MISDIRECTED_REQUEST, reason).into_response()
}

fn is_meant(headers: &HeaderMap, hosts: &[String]) -> bool {
    let Some(host) = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
    else {
        return false;
    };
    let name = without_port(host);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok()
        || hosts
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(name))
}

/// `example.org:80` and `[::1]:80` without port and brackets.
fn without_port(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        is_meant(&headers, &["logs.example".into()])
    }

    #[tokio::test]
    async fn half_a_request_does_not_hold_up_the_end() {
        use tokio::io::AsyncWriteExt;

        let config = HttpConfig {
            address: "127.0.0.1:0".parse().unwrap(),
            ..HttpConfig::default()
        };
        let http = Http::bind(&config, Registry::new(), Health::new()).unwrap();
        let address = http.address().unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(http.run(stop.clone()));
        let connect = || tokio::net::TcpStream::connect(address);
        let mut half = connect().await.unwrap();
        half.write_all(b"GET /he").await.unwrap();
        // Answering the next one, the server has looked at the first.
        let mut whole = connect().await.unwrap();
        let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        whole.write_all(request).await.unwrap();
        whole.readable().await.unwrap();
        stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), running).await;
        ended.unwrap().unwrap().unwrap();
    }

    #[test]
    fn only_meant_hosts_are_served() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:8080",
            "[::1]:8080",
            "logs.example",
            "Logs.Example:80",
        ] {
            assert!(meant(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:8080", "", ":80"] {
            assert!(!meant(host), "{host}");
        }
        assert!(!is_meant(&HeaderMap::new(), &[]));
    }
}
