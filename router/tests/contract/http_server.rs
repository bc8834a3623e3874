//! A small HTTP/1.1 server that is strict about what it is sent and fails as it is told. What a
//! service would check and answer is the test's: a [`Service`].

use std::collections::VecDeque;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::harness::{Fault, Got, Request};

/// A request, read whole and decompressed.
#[derive(Clone, Debug, Default)]
pub(crate) struct HttpRequest {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// As it came.
    pub(crate) raw: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl HttpRequest {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Reads the events of a request; the error says what the service would not accept.
pub(crate) type Check = fn(&HttpRequest) -> Result<Vec<Got>, String>;
/// The answer to a request with poison: status and body, and what of it is accepted.
pub(crate) type Refuse = fn(&[Got]) -> (u16, String, Vec<Got>);

#[derive(Default)]
struct State {
    got: Vec<Got>,
    requests: Vec<Request>,
    violations: Vec<String>,
    faults: VecDeque<Fault>,
    poison: bool,
}

/// What is particular about a service.
pub(crate) trait Service: Send + Sync + 'static {
    /// The events of a request; the error says what no service may be sent.
    fn read(&self, request: &HttpRequest) -> Result<Vec<Got>, String>;

    /// The answer to a request without faults. With `poison`, events that say so are refused.
    fn answer(&self, request: &HttpRequest, events: Vec<Got>, poison: bool) -> Reply;
}

/// An answer, and what was accepted of the request.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) accepted: Vec<Got>,
}

/// A service that takes all or nothing, unless `refuse` says otherwise.
struct Plain {
    check: Check,
    refuse: Refuse,
}

impl Service for Plain {
    fn read(&self, request: &HttpRequest) -> Result<Vec<Got>, String> {
        (self.check)(request)
    }

    fn answer(&self, _request: &HttpRequest, events: Vec<Got>, poison: bool) -> Reply {
        if poison && events.iter().any(Got::is_poison) {
            let (status, body, accepted) = (self.refuse)(&events);
            return Reply {
                status,
                body: body.into(),
                accepted,
            };
        }
        Reply {
            status: 200,
            body: b"{}".into(),
            accepted: events,
        }
    }
}

impl Got {
    pub(crate) fn is_poison(&self) -> bool {
        self.message.contains("poison")
    }
}

/// The server.
pub(crate) struct HttpServer {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    service: Arc<dyn Service>,
    task: Option<JoinHandle<()>>,
}

impl HttpServer {
    pub(crate) async fn start(check: Check, refuse: Refuse) -> HttpServer {
        HttpServer::serve(Plain { check, refuse }).await
    }

    pub(crate) async fn serve(service: impl Service) -> HttpServer {
        let mut server = HttpServer {
            address: ([127, 0, 0, 1], 0).into(),
            state: Arc::default(),
            service: Arc::new(service),
            task: None,
        };
        server.resume().await;
        server
    }

    pub(crate) async fn resume(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let (state, service) = (Arc::clone(&self.state), Arc::clone(&self.service));
        self.task = Some(tokio::spawn(async move {
            // Connections end with the listener.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&state), Arc::clone(&service)));
            }
        }));
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    pub(crate) fn fail(&self, fault: Fault) -> bool {
        let mut state = self.state.lock();
        match fault {
            Fault::Poison => state.poison = true,
            Fault::Antidote => state.poison = false,
            fault => state.faults.push_back(fault),
        }
        true
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.state.lock().got.clone()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.lock().requests.clone()
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.state.lock().violations.clone()
    }
}

/// One connection, kept alive.
async fn serve(
    mut stream: TcpStream,
    state: Arc<Mutex<State>>,
    service: Arc<dyn Service>,
) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let request = read(&mut stream, &mut buffer).await?;
        let checked = service.read(&request);
        let at = Instant::now();
        let events = checked.as_ref().map_or(0, Vec::len);
        let fault = {
            let mut state = state.lock();
            state.requests.push(Request { at, events });
            state.faults.pop_front()
        };
        let answer = match (fault, checked) {
            (Some(Fault::Hang), _) => return std::future::pending().await,
            (Some(Fault::Reset), _) => {
                // Unread bytes and no lingering make it a reset.
                stream.set_zero_linger().ok()?;
                return None;
            }
            (Some(Fault::TooMany { retry_after_s }), _) => respond(
                429,
                &format!("Retry-After: {retry_after_s}\r\n"),
                b"slow down",
            ),
            (Some(_), _) => respond(503, "", b"unavailable"),
            (None, Err(reason)) => {
                state.lock().violations.push(reason.clone());
                respond(400, "", reason.as_bytes())
            }
            (None, Ok(events)) => {
                let mut state = state.lock();
                let reply = service.answer(&request, events, state.poison);
                state.got.extend(reply.accepted);
                // Stores name what they have.
                respond(reply.status, "ETag: \"tag\"\r\n", &reply.body)
            }
        };
        stream.write_all(&answer).await.ok()?;
    }
}

fn respond(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

/// The next request of a connection.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<HttpRequest> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        fill(stream, buffer).await?;
    };
    let head = String::from_utf8(buffer[..head_end].to_vec()).ok()?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let mut request = HttpRequest {
        method: first.next()?.into(),
        path: first.next()?.into(),
        ..HttpRequest::default()
    };
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    request.headers = headers.collect();
    let length = request.header("content-length").unwrap_or("0");
    let length: usize = length.parse().ok()?;
    while buffer.len() < head_end + 4 + length {
        fill(stream, buffer).await?;
    }
    request.raw = buffer[head_end + 4..head_end + 4 + length].to_vec();
    buffer.drain(..head_end + 4 + length);
    request.body = match request.header("content-encoding") {
        None => request.raw.clone(),
        Some("gzip") => {
            let mut body = Vec::new();
            flate2::read::GzDecoder::new(&request.raw[..])
                .read_to_end(&mut body)
                .ok()?;
            body
        }
        Some("zstd") => zstd::decode_all(&request.raw[..]).ok()?,
        Some(_) => return None,
    };
    Some(request)
}

async fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut piece = vec![0; 64 << 10];
    let read = stream
        .read(&mut piece)
        .await
        .ok()
        .filter(|read| *read > 0)?;
    buffer.extend_from_slice(&piece[..read]);
    Some(())
}

/// Of a [`crate::harness::Subject`]: what its field `server` says and does.
#[macro_export]
macro_rules! asked_of_server {
    () => {
        fn got(&self) -> Vec<$crate::harness::Got> {
            self.server.got()
        }

        fn requests(&self) -> Vec<$crate::harness::Request> {
            self.server.requests()
        }

        fn violations(&self) -> Vec<String> {
            self.server.violations()
        }

        fn fail(&self, fault: $crate::harness::Fault) -> bool {
            self.server.fail(fault)
        }

        async fn stop(&mut self) {
            self.server.stop().await;
        }

        async fn resume(&mut self) {
            self.server.resume().await;
        }
    };
}
