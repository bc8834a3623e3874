//! On-demand upload: answers requests on `request/<device>` with what the configured sources logged
//! earlier. One request at a time; it is read back in two passes, one to count what is asked for and
//! one to send the newest of it, so that neither takes memory by how much there is. Sources are asked
//! for by name and their rules apply: what is redacted in ordinary events is redacted here.

mod chunks;
mod desk;
mod filter;
mod search;

use std::{sync::Arc, time::Duration};

use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::{Value, json};
use thinglog_schemas::request::{
    self, DEFAULT_DEADLINE_S, DEFAULT_LINES, Done, Kind, Progress, Request, State,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    history::{History, RingHistory},
    sink::Sink,
};
use crate::{Publisher, Requests, clock};
use desk::{Desk, Order};
use search::Search;

/// How a device answers requests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RequestOptions {
    /// Whether it does at all.
    pub enabled: bool,
    /// Lines that one request may have of each source, at most.
    pub max_lines: u64,
    /// Bytes of events that one request may have, at most.
    pub max_bytes: u64,
    /// Seconds that one request may take, at most.
    pub max_seconds: u64,
}

impl Default for RequestOptions {
    fn default() -> RequestOptions {
        RequestOptions {
            enabled: true,
            max_lines: 100_000,
            max_bytes: 16 << 20,
            max_seconds: 600,
        }
    }
}

/// A source that operators may ask for.
#[derive(Clone)]
pub struct Readable {
    /// Where its past is.
    pub history: Arc<dyn History>,
    /// Its way to the publisher, with its rules.
    pub sink: Sink,
}

/// The sources that operators may ask for; they may become others while requests are answered.
#[derive(Clone, Default)]
pub struct Catalogue(Arc<RwLock<Vec<Readable>>>);

impl Catalogue {
    /// From now on these.
    pub fn set(&self, sources: Vec<Readable>) {
        *self.0.write() = sources;
    }

    fn sources(&self) -> Vec<Readable> {
        self.0.read().clone()
    }
}

impl From<Vec<Readable>> for Catalogue {
    fn from(sources: Vec<Readable>) -> Catalogue {
        Catalogue(Arc::new(RwLock::new(sources)))
    }
}

/// What a device says when it is asked for its `status`.
pub type Status = Arc<dyn Fn() -> Value + Send + Sync>;

/// Answers requests until `cancel`.
pub async fn run_requests(
    publisher: &Publisher,
    mut requests: Requests,
    sources: impl Into<Catalogue>,
    options: RequestOptions,
    status: Status,
    cancel: CancellationToken,
) {
    let office = Arc::new(Office {
        device: requests.device().to_owned(),
        publisher: publisher.clone(),
        sources: sources.into(),
        options,
        status,
    });
    let mut desk = Desk::default();
    let mut running: Option<Running> = None;
    loop {
        let orders = tokio::select! {
            request = requests.next() => match request {
                Some(payload) => desk.arrive(&payload),
                None => break,
            },
            state = ended(&mut running) => {
                running = None;
                desk.finished(state)
            }
            () = cancel.cancelled() => break,
        };
        for order in orders {
            match order {
                Order::Answer(id, state) => office.answer(&id, &state),
                Order::Start(request) => running = Some(Running::start(&office, request)),
                Order::Cancel => {
                    if let Some(running) = &running {
                        running.cancel.cancel();
                    }
                }
            }
        }
    }
    if let Some(running) = running {
        running.task.abort();
    }
}

/// The request under way.
struct Running {
    task: JoinHandle<State>,
    cancel: CancellationToken,
}

impl Running {
    fn start(office: &Arc<Office>, request: Request) -> Running {
        let cancel = CancellationToken::new();
        let (office, cancelled) = (office.clone(), cancel.clone());
        let task = tokio::spawn(async move { office.serve(request, cancelled).await });
        Running { task, cancel }
    }
}

/// How the request under way ended, once it does.
async fn ended(running: &mut Option<Running>) -> State {
    match running {
        None => std::future::pending().await,
        Some(running) => match (&mut running.task).await {
            Ok(state) => state,
            Err(error) => desk::failure(format!("the request broke down: {error}")),
        },
    }
}

/// What serving a request takes.
struct Office {
    device: String,
    publisher: Publisher,
    sources: Catalogue,
    options: RequestOptions,
    status: Status,
}

impl Office {
    fn answer(&self, id: &str, state: &State) {
        let payload = request::write(id, clock::wall(), state);
        if !self.publisher.answer(id, payload) {
            tracing::warn!(
                id,
                "too many answers wait for the broker; one to a request is lost"
            );
        }
    }

    /// Says how far a request is, unless something waits for the broker already: the answer it ends
    /// with must find room.
    fn tell(&self, id: &str, state: &State) {
        if !self.publisher.answers_wait() {
            self.answer(id, state);
        }
    }

    async fn serve(&self, request: Request, cancel: CancellationToken) -> State {
        let seconds = request.deadline_s.unwrap_or(DEFAULT_DEADLINE_S);
        let deadline = Duration::from_secs(seconds.min(self.options.max_seconds));
        self.answer(&request.id, &State::Executing(Progress::default()));
        match request.kind {
            Kind::Logs => {
                self.logs(&request, self.sources.sources(), deadline, &cancel)
                    .await
            }
            Kind::Ring => {
                self.logs(&request, vec![self.ring()], deadline, &cancel)
                    .await
            }
            Kind::Status => State::Successful(Done {
                status: Some(self.status()),
                ..Done::default()
            }),
            Kind::Flush => self.flush(deadline, &cancel).await,
            Kind::Cancel => State::Successful(Done::default()),
        }
    }

    async fn logs(
        &self,
        request: &Request,
        sources: Vec<Readable>,
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> State {
        let lines = request.lines.unwrap_or(DEFAULT_LINES);
        let lines = lines.min(self.options.max_lines);
        let mut search = Search::new(self, request, lines);
        let reason = tokio::select! {
            done = search.run(&sources) => match done {
                Ok(done) => return State::Successful(done),
                Err(reason) => reason,
            },
            () = cancel.cancelled() => "cancelled".to_owned(),
            () = tokio::time::sleep(deadline) => {
                format!("it took longer than {} s; ask for less, or give it more time", deadline.as_secs())
            }
        };
        State::Failed {
            reason,
            progress: search.progress(),
        }
    }

    async fn flush(&self, deadline: Duration, cancel: &CancellationToken) -> State {
        tokio::select! {
            durable = self.publisher.flush(deadline) => match durable {
                true => State::Successful(Done::default()),
                false => desk::failure(
                    "not everything became durable in time, or something was dropped; it goes on".into(),
                ),
            },
            () = cancel.cancelled() => desk::failure("cancelled".into()),
        }
    }

    /// The publisher's memory as a source; what is in it has been through the rules of its own.
    fn ring(&self) -> Readable {
        Readable {
            history: Arc::new(RingHistory::new(self.publisher.clone())),
            sink: Sink::new(self.publisher.clone()),
        }
    }

    fn status(&self) -> Value {
        let known = self.sources.sources();
        let sources = known.iter().flat_map(|source| source.history.sources());
        let mut status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "readable": sources.collect::<Vec<_>>(),
        });
        if let (Value::Object(status), Value::Object(more)) = (&mut status, (self.status)()) {
            status.extend(more);
        }
        status
    }
}
