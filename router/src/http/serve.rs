//! Takes connections and serves them, each limit in one place: how many there are, also of one address,
//! how large and how late the head of a request may be, how long an answer may go unread.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::config::HttpConfig;
use super::patience::Patient;

/// Longest wait for requests under way when the router stops.
const STOP_WITHIN: Duration = Duration::from_secs(1);
/// Largest head of a request, bytes, and most fields of it.
const HEAD_BYTES: usize = 32 << 10;
const HEAD_FIELDS: usize = 100;
/// How long to wait when the system gives no more connections.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// What one connection too many hears.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 21\r\nContent-Type: text/plain\r\n\
    Retry-After: 1\r\nConnection: close\r\n\r\ntoo many connections\n";

/// Where a request comes from, as every request carries it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// Serves until `stop`.
pub(super) async fn serve(
    listener: TcpListener,
    app: axum::Router,
    config: &HttpConfig,
    stop: CancellationToken,
) {
    let crowd = Arc::new(Crowd::new(config));
    let timeout = Duration::from_secs(config.timeout_s);
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "no HTTP connection can be taken");
                tokio::time::sleep(EXHAUSTED).await;
                continue;
            }
        };
        let Some(place) = crowd.enter(peer) else {
            // Fits into any fresh socket's buffer: nobody waits for it.
            let _ = stream.try_write(FULL);
            continue;
        };
        let (app, stop) = (app.clone(), stop.clone());
        tasks.spawn(async move {
            connection(stream, peer, app, timeout, stop).await;
            drop(place);
        });
    }
    tasks.close();
    // A client that never finishes its request must not keep the router from stopping.
    let _ = tokio::time::timeout(STOP_WITHIN, tasks.wait()).await;
}

/// Serves one connection until it ends; from `stop` on without another request.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    app: axum::Router,
    timeout: Duration,
    stop: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let app = TowerToHyperService::new(app);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request
            .extensions_mut()
            .insert(Peer(peer.ip().to_canonical()));
        let answer = app.call(request);
        async move { Ok::<Response, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEAD_FIELDS)
        .serve_connection(TokioIo::new(Patient::new(stream, timeout)), service)
        .with_upgrades();
    let mut serving = std::pin::pin!(serving);
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        debug!(%error, %peer, "an HTTP connection ended");
    }
}

/// Who is connected.
struct Crowd {
    most: usize,
    most_of_address: usize,
    here: Mutex<Here>,
}

#[derive(Default)]
struct Here {
    all: usize,
    of_address: HashMap<IpAddr, usize>,
}

/// A connection's place, until it is dropped.
struct Place {
    crowd: Arc<Crowd>,
    address: Option<IpAddr>,
}

impl Crowd {
    fn new(config: &HttpConfig) -> Crowd {
        Crowd {
            most: config.connections,
            most_of_address: config.connections_per_address,
            here: Mutex::default(),
        }
    }

    fn enter(self: &Arc<Crowd>, peer: SocketAddr) -> Option<Place> {
        let mut here = self.here.lock();
        if here.all >= self.most {
            return None;
        }
        let ip = peer.ip().to_canonical();
        // Behind a proxy of this machine everybody comes from loopback.
        let address = (!ip.is_loopback()).then(|| network(ip));
        if let Some(address) = address {
            let count = here.of_address.entry(address).or_default();
            if *count >= self.most_of_address {
                return None;
            }
            *count += 1;
        }
        here.all += 1;
        Some(Place {
            crowd: Arc::clone(self),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut here = self.crowd.here.lock();
        here.all = here.all.saturating_sub(1);
        if let Some(address) = self.address
            && let Some(count) = here.of_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                here.of_address.remove(&address);
            }
        }
    }
}

/// What counts as one address: of IPv6 the network of 64 bits, which one customer has to itself.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(connections: usize, connections_per_address: usize) -> Arc<Crowd> {
        Arc::new(Crowd::new(&HttpConfig {
            connections,
            connections_per_address,
            ..HttpConfig::default()
        }))
    }

    #[test]
    fn one_address_leaves_places_for_others() {
        let crowd = crowd(3, 2);
        let peer = |text: &str| text.parse::<SocketAddr>().unwrap();
        let first = crowd.enter(peer("192.0.2.1:1"));
        let second = crowd.enter(peer("[::ffff:192.0.2.1]:2"));
        assert!(first.is_some() && second.is_some());
        assert!(crowd.enter(peer("192.0.2.1:3")).is_none());
        let other = crowd.enter(peer("[2001:db8::1]:1"));
        assert!(other.is_some());
        assert!(crowd.enter(peer("192.0.2.9:1")).is_none(), "full");
        drop((first, second, other));
        assert_eq!(crowd.here.lock().all, 0);
        assert!(crowd.here.lock().of_address.is_empty());
    }

    #[test]
    fn loopback_is_limited_by_the_whole_only() {
        let crowd = crowd(3, 1);
        let peer: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let held: Vec<_> = (0..4).map(|_| crowd.enter(peer)).collect();
        assert_eq!(held.iter().flatten().count(), 3);
    }
}
