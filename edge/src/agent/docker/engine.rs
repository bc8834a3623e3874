//! What is asked of a container engine: HTTP/1.1 over its Unix socket, a connection for each request.
//! Docker's Engine API, which Podman serves as well; paths without a version mean the newest that
//! the engine has.

use std::{collections::BTreeMap, io, path::PathBuf, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, Response, StatusCode, body::Incoming, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

/// The longest an answer may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest answer that is read as a whole.
const MAX_ANSWER: usize = 16 << 20;

/// What an engine knows of a container; what is needed of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Container {
    pub(super) id: String,
    /// With a slash before it.
    pub(super) name: String,
    pub(super) config: ContainerConfig,
    pub(super) state: ContainerState,
}

/// See [`Container`].
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ContainerConfig {
    #[serde(default)]
    pub(super) tty: bool,
    #[serde(default)]
    pub(super) image: String,
    /// Null where there are none.
    #[serde(default)]
    pub(super) labels: Option<BTreeMap<String, String>>,
}

/// See [`Container`].
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ContainerState {
    #[serde(default)]
    pub(super) running: bool,
}

/// An entry of the list of containers.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    pub(super) id: String,
}

/// Something happened to a container.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Happened {
    pub(super) actor: Actor,
}

/// See [`Happened`].
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Actor {
    #[serde(rename = "ID")]
    pub(super) id: String,
}

/// Why an engine gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    #[error("{path}: {source}")]
    Connect { path: String, source: io::Error },
    #[error("the container engine does not answer")]
    Silent,
    #[error("the connection to the container engine broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("the container engine refuses: {status}: {reason}")]
    Refused { status: StatusCode, reason: String },
    #[error("the container engine says what is not understood: {0}")]
    Garbled(#[from] serde_json::Error),
    #[error("the container engine's answer is too long or ends too early: {0}")]
    Unread(String),
}

impl EngineError {
    /// There is no such container.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, EngineError::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }

    /// The engine is there, and asking again would not help: 501 is for logs that it cannot read back,
    /// other errors of its own it may get over.
    pub(super) fn is_final(&self) -> bool {
        match self {
            EngineError::Refused { status, .. } => {
                status.is_client_error() || *status == StatusCode::NOT_IMPLEMENTED
            }
            error => matches!(error, EngineError::Garbled(_)),
        }
    }
}

/// Where an engine listens.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    pub(super) socket: PathBuf,
}

impl Engine {
    /// All containers, those that ended included.
    pub(super) async fn list(&self) -> Result<Vec<Listed>, EngineError> {
        self.whole("/containers/json?all=1").await
    }

    pub(super) async fn inspect(&self, id: &str) -> Result<Container, EngineError> {
        self.whole(&format!("/containers/{id}/json")).await
    }

    /// What happens from now on: a line of JSON for each start of a container. The answer may begin
    /// only with the first.
    pub(super) async fn starts(&self) -> Result<Incoming, EngineError> {
        // {"type":["container"],"event":["start"]}
        let filters = "%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22start%22%5D%7D";
        let answer = self.request(&format!("/events?filters={filters}")).await?;
        body(answer).await
    }

    /// A container's log, followed to its end unless that has come: Podman ends a log that is followed
    /// when the container has, whether all of it was read or not. The answer may begin only with the
    /// first line.
    pub(super) async fn logs(
        &self,
        id: &str,
        follow: bool,
        since: Option<&str>,
    ) -> Result<Incoming, EngineError> {
        let follow = u8::from(follow);
        let mut path = format!(
            "/containers/{id}/logs?follow={follow}&stdout=1&stderr=1&timestamps=1&tail=all"
        );
        if let Some(since) = since {
            path.push_str("&since=");
            path.push_str(since);
        }
        body(self.request(&path).await?).await
    }

    /// What a container's log has of a span (nanoseconds since the epoch), and no more.
    pub(super) async fn past(&self, id: &str, from: u64, to: u64) -> Result<Incoming, EngineError> {
        let time = |ns: u64| format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
        let (since, until) = (time(from), time(to));
        let path = format!(
            "/containers/{id}/logs?follow=0&stdout=1&stderr=1&timestamps=1&tail=all&since={since}&until={until}"
        );
        self.get(&path).await
    }

    async fn whole<T: DeserializeOwned>(&self, path: &str) -> Result<T, EngineError> {
        let body = self.get(path).await?;
        Ok(serde_json::from_slice(&read(body).await?)?)
    }

    async fn get(&self, path: &str) -> Result<Incoming, EngineError> {
        let answer = timeout(PATIENCE, self.request(path)).await;
        body(answer.map_err(|_| EngineError::Silent)??).await
    }

    async fn request(&self, path: &str) -> Result<Response<Incoming>, EngineError> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|source| EngineError::Connect {
            path: self.socket.display().to_string(),
            source,
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the answer's body, or when nobody reads that any more.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the container engine broke");
            }
        });
        let request = Request::get(path)
            .header(HOST, "localhost")
            .body(Empty::<Bytes>::new());
        let request = request.map_err(|error| EngineError::Unread(error.to_string()))?;
        Ok(sender.send_request(request).await?)
    }
}

/// What was asked for, or why not.
async fn body(answer: Response<Incoming>) -> Result<Incoming, EngineError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer.into_body());
    }
    let body = read(answer.into_body()).await.unwrap_or_default();
    let reason = String::from_utf8_lossy(&body);
    Err(EngineError::Refused {
        status,
        reason: reason.trim().chars().take(200).collect(),
    })
}

async fn read(body: Incoming) -> Result<Bytes, EngineError> {
    let unread = |error: String| EngineError::Unread(error);
    let whole = timeout(PATIENCE, Limited::new(body, MAX_ANSWER).collect()).await;
    let whole = whole.map_err(|_| EngineError::Silent)?;
    Ok(whole.map_err(|error| unread(error.to_string()))?.to_bytes())
}
