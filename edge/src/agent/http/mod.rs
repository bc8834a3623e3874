//! The agent's local HTTP interface, as balena's supervisor has it: `POST /v2/journal-logs` streams the
//! systemd journal, `GET /ping` says that somebody is there. Closed unless configured; never open
//! without a key. Browsers cannot be made to ask on somebody's behalf: a request with an `Origin` is
//! refused, and so is a `Host` that is a name nobody configured (DNS rebinding).

mod journal;
mod key;
mod query;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Frame, Incoming},
    header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, ORIGIN, RETRY_AFTER},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::SourceError;
use journal::Failure;
use key::ApiKey;
pub use key::KeyError;
use query::Query;

/// Connections at once.
const MAX_CONNECTIONS: usize = 32;
/// Journals that are read at once, and how many of them may be followed.
const MAX_READERS: usize = 8;
const MAX_FOLLOWERS: usize = 4;
/// A request's body, bytes.
const MAX_BODY: usize = 16 << 10;
/// How long a request's head and its body may take.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// What hyper buffers of a connection, bytes.
const MAX_BUFFER: usize = 16 << 10;
/// After an error of the system in accepting.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Where the agent serves HTTP, and to whom.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpOptions {
    /// The address; balena's supervisor has port 48484.
    pub listen: SocketAddr,
    /// File with the key that requests must carry; it is made, readable by its owner only, when there
    /// is none.
    pub api_key_file: PathBuf,
    /// Names by which the device is addressed, beside `localhost` and addresses.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// The program that reads the journal.
    #[serde(skip, default = "journalctl")]
    pub program: PathBuf,
}

fn journalctl() -> PathBuf {
    "journalctl".into()
}

impl HttpOptions {
    /// With the journal of the system.
    pub fn new(listen: SocketAddr, api_key_file: impl Into<PathBuf>) -> HttpOptions {
        HttpOptions {
            listen,
            api_key_file: api_key_file.into(),
            hosts: Vec::new(),
            program: journalctl(),
        }
    }
}

/// Why HTTP cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be used.
    #[error("http.listen {address}: {source}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// There is no key to ask for.
    #[error("http.api_key_file {}: {reason}", path.display())]
    Key {
        /// As configured.
        path: PathBuf,
        /// What is wrong and what would be right.
        reason: KeyError,
    },
}

/// A server that is bound and has its key.
pub struct HttpServer {
    listener: TcpListener,
    service: Arc<Service>,
}

struct Service {
    key: ApiKey,
    hosts: Vec<String>,
    program: PathBuf,
    readers: Arc<Semaphore>,
    followers: Arc<Semaphore>,
}

impl HttpServer {
    /// Binds the address and reads or makes the key, so that what cannot work fails at the start.
    pub async fn bind(options: &HttpOptions) -> Result<HttpServer, HttpError> {
        let key = ApiKey::load_or_make(&options.api_key_file);
        let key = key.map_err(|reason| HttpError::Key {
            path: options.api_key_file.clone(),
            reason,
        })?;
        let address = options.listen;
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| HttpError::Listen { address, source })?;
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "HTTP is served beyond this device, unencrypted: its key can be read on the way");
        }
        Ok(HttpServer {
            listener,
            service: Arc::new(Service {
                key,
                hosts: options.hosts.clone(),
                program: options.program.clone(),
                readers: Arc::new(Semaphore::new(MAX_READERS)),
                followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
            }),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `cancel`; connections that are open then are closed.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), SourceError> {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = accept(&self.listener, &room) => accepted,
                Some(_) = connections.join_next() => continue,
                () = cancel.cancelled() => return Ok(()),
            };
            match accepted {
                Ok((stream, place)) => {
                    let service = self.service.clone();
                    connections.spawn(async move {
                        service.connection(stream).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "an HTTP connection could not be accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }
}

/// The next connection, once there is room for one.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = room.clone().acquire_owned().await;
    let place = place.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // A follower that vanished without a word is noticed some day.
    let _ = rustix::net::sockopt::set_socket_keepalive(&stream, true);
    Ok((stream, place))
}

impl Service {
    async fn connection(self: Arc<Service>, stream: TcpStream) {
        let answer = service_fn(move |request| {
            let service = self.clone();
            async move {
                let answer = service.answer(request).await;
                Ok::<_, Infallible>(answer.unwrap_or_else(|failure| failure.into_response()))
            }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(REQUEST_WITHIN)
            .max_buf_size(MAX_BUFFER)
            .keep_alive(false);
        if let Err(error) = http.serve_connection(TokioIo::new(stream), answer).await {
            tracing::debug!(%error, "an HTTP connection ended early");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Answer>, Failure> {
        self.check_sender(request.headers())?;
        let (head, body) = request.into_parts();
        let allowed = match head.uri.path() {
            "/ping" if matches!(head.method, Method::GET | Method::HEAD) => {
                return Ok(Response::new(Answer::text("OK")));
            }
            "/ping" => "GET",
            path => {
                if !self
                    .key
                    .is_in(head.uri.query(), head.headers.get(AUTHORIZATION))
                {
                    return Err(Failure::new(
                        StatusCode::UNAUTHORIZED,
                        "needs the API key, as ?apikey=KEY or Authorization: Bearer KEY",
                    ));
                }
                match (path, head.method) {
                    ("/v2/journal-logs", Method::POST) => {
                        return self.journal_logs(&head.headers, body).await;
                    }
                    ("/v2/journal-logs", _) => "POST",
                    _ => return Err(Failure::new(StatusCode::NOT_FOUND, "no such endpoint")),
                }
            }
        };
        Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, &format!("use {allowed}")).allow(allowed))
    }

    /// Refuses what a browser may have been tricked into sending.
    fn check_sender(&self, headers: &HeaderMap) -> Result<(), Failure> {
        if headers.contains_key(ORIGIN) {
            return Err(Failure::new(
                StatusCode::FORBIDDEN,
                "requests of web pages (with an Origin) are not answered",
            ));
        }
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        if host.is_some_and(|host| self.is_ours(host)) {
            return Ok(());
        }
        Err(Failure::new(
            StatusCode::FORBIDDEN,
            "the Host header names another host; use an address or localhost, or add the name to http.hosts",
        ))
    }

    /// An address can be no attacker's name that resolves to this device.
    fn is_ours(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let bare = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        bare.unwrap_or(name).parse::<std::net::IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    async fn journal_logs(
        &self,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<Response<Answer>, Failure> {
        let body = read_body(body).await?;
        let is_json = headers.get(CONTENT_TYPE).is_some_and(|kind| {
            let kind = kind.as_bytes().to_ascii_lowercase();
            kind.starts_with(b"application/json")
        });
        if !body.is_empty() && !is_json {
            return Err(Failure::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "send the options as JSON, with Content-Type: application/json",
            ));
        }
        let query = Query::parse(&body);
        let query = query.map_err(|reason| Failure::new(StatusCode::BAD_REQUEST, &reason))?;
        let place = |places: &Arc<Semaphore>, what: &str| {
            let place = places.clone().try_acquire_owned();
            place.map_err(|_| {
                let text = format!("too many {what} already; try again later");
                Failure::new(StatusCode::SERVICE_UNAVAILABLE, &text)
            })
        };
        let mut places = vec![place(&self.readers, "requests read the journal")?];
        if query.follow {
            places.push(place(&self.followers, "requests follow the journal")?);
        }
        let (first, rest) = journal::start(&self.program, &query, places).await?;
        let mut response = Response::new(Answer::Stream { first, rest });
        let kind = query.content_type().parse().ok();
        response
            .headers_mut()
            .extend(kind.map(|kind| (CONTENT_TYPE, kind)));
        Ok(response)
    }
}

async fn read_body(body: Incoming) -> Result<Bytes, Failure> {
    let collected = timeout(REQUEST_WITHIN, Limited::new(body, MAX_BODY).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            &format!("a request has at most {MAX_BODY} bytes"),
        )),
        Ok(Err(error)) => Err(Failure::new(StatusCode::BAD_REQUEST, &error.to_string())),
        Err(_) => Err(Failure::new(
            StatusCode::REQUEST_TIMEOUT,
            "the request did not come in time",
        )),
    }
}

impl Failure {
    /// In the form of balena's supervisor.
    fn into_response(self) -> Response<Answer> {
        let text = serde_json::json!({"status": "failed", "message": self.message}).to_string();
        let mut response = Response::new(Answer::text(text));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let mut add = |name, value: &str| headers.extend(value.parse().ok().map(|v| (name, v)));
        add(CONTENT_TYPE, "application/json");
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            add(RETRY_AFTER, "5");
        }
        if let Some(allow) = self.allow {
            add(ALLOW, allow);
        }
        response
    }
}

/// What goes out: a text, or what the journal's program says, as it says it.
enum Answer {
    Text(Full<Bytes>),
    Stream {
        first: Option<Bytes>,
        rest: mpsc::Receiver<Result<Bytes, Failure>>,
    },
}

impl Answer {
    fn text(text: impl Into<Bytes>) -> Answer {
        Answer::Text(Full::new(text.into()))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Answer::Text(text) => {
                let frame = ready!(Pin::new(text).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(|never| match never {})))
            }
            Answer::Stream { first, rest } => {
                if let Some(first) = first.take() {
                    return Poll::Ready(Some(Ok(Frame::data(first))));
                }
                let next = ready!(rest.poll_recv(cx));
                // An answer that breaks off is seen to: its last chunk is missing.
                Poll::Ready(next.map(|next| match next {
                    Ok(bytes) => Ok(Frame::data(bytes)),
                    Err(failure) => Err(io::Error::other(failure.message)),
                }))
            }
        }
    }
}
