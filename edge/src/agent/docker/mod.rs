//! Source: the output of containers, through the socket of Docker's or Podman's engine.
//!
//! Every container has a place of its own, which is kept with its events: restarts of this program,
//! of the engine and of the container neither repeat nor miss a line, as far as the engine keeps it.
//! What ended while this program was away is read as long as the container has not been removed.
//! Containers that are removed as they end (`--rm`) may take their last lines with them. Engines
//! keep logs by their `json-file`, `local` and `journald` drivers; of others there is nothing to read.
//!
//! | of a line | becomes |
//! |---|---|
//! | Compose's service, else the container's name | the source |
//! | output | attribute `stream`: `stdout` or `stderr` |
//! | container | attributes `container.name` (unless it is the source), `container.id`, `container.image` |
//! | labels that are asked for | attributes `container.label.<label>` |
//! | label `thinglog.multiline` | which lines are one event, instead of the option: a preset or `none` |
//! | time of the engine | the time, unless the line says one within five minutes of it |

mod engine;
mod follow;
mod frames;
mod history;
mod line;
mod place;
mod select;

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use serde::{Deserialize, Deserializer};
use thinglog_schemas::Severity;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::{
    engine::{Engine, EngineError, Happened},
    follow::{Follower, Places},
    place::Place,
};
use super::{
    SourceError,
    keeper::Keeper,
    lines::Lines,
    multiline::MultilineOptions,
    recognise::{LineOptions, Parse, Zone},
    sink::Sink,
    state::{StateDir, key},
};
use crate::{backoff::Backoff, clock};
pub(crate) use history::DockerHistory;
pub use select::ContainerPattern;

/// Which engine and containers, and what becomes of their lines.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DockerOptions {
    /// The engine's socket; Podman's is /run/podman/podman.sock.
    pub socket: PathBuf,
    /// Containers to carry; empty: all.
    pub include: Vec<ContainerPattern>,
    /// Containers not to carry, even if they are included.
    pub exclude: Vec<ContainerPattern>,
    /// Not the container this program runs in, if it does.
    pub exclude_own: bool,
    /// The source of all lines; `None`: as `source_from` says.
    pub source: Option<String>,
    /// What names the source.
    pub source_from: NameFrom,
    /// Labels that become attributes.
    pub labels: Vec<String>,
    /// The severity of lines on stderr that do not say; many programs write all they say there.
    #[serde(deserialize_with = "severity")]
    pub stderr: Severity,
    /// What lines are.
    pub parse: Parse,
    /// Of times in lines that name no zone.
    pub timezone: Zone,
    /// Which lines are one event; a container's label `thinglog.multiline` stands above it.
    pub multiline: Option<MultilineOptions>,
    /// When nothing is remembered at all: begin with what the engine still has (true), or with what
    /// is said next.
    pub backlog: bool,
    /// Where to remember how far each container was read; `None`: nowhere.
    #[serde(skip)]
    pub state: Option<StateDir>,
    /// How long events may take to become durable at the end, so that the places can be remembered.
    #[serde(skip, default = "drain")]
    pub drain: Duration,
}

impl Default for DockerOptions {
    fn default() -> DockerOptions {
        let labels = ["com.docker.compose.project", "com.docker.compose.service"];
        DockerOptions {
            socket: "/var/run/docker.sock".into(),
            include: Vec::new(),
            exclude: Vec::new(),
            exclude_own: true,
            source: None,
            source_from: NameFrom::Service,
            labels: labels.map(str::to_owned).into(),
            stderr: Severity::INFO,
            parse: Parse::Auto,
            timezone: Zone::Local,
            multiline: None,
            backlog: true,
            state: None,
            drain: drain(),
        }
    }
}

impl DockerOptions {
    fn line_options(&self) -> LineOptions {
        LineOptions {
            parse: self.parse,
            timezone: self.timezone.clone(),
        }
    }
}

/// What names the source of a container's lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NameFrom {
    /// Its service in Docker Compose, else its name.
    #[default]
    Service,
    /// Its name.
    Name,
}

fn drain() -> Duration {
    Duration::from_secs(5)
}

fn severity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Severity, D::Error> {
    let word = String::deserialize(deserializer)?;
    word.parse().map_err(serde::de::Error::custom)
}

/// Containers that are followed at once; each costs a connection.
const MAX_CONTAINERS: usize = 256;
/// The longest event of an engine that is read.
const MAX_EVENT: usize = 1 << 20;
/// How often the list of containers is looked at, should an event have been missed.
const LOOK: Duration = Duration::from_secs(60);

/// Follows all containers until `cancel`, and waits with their logs when the publisher has no room.
/// An engine that is not there, or goes away, is waited for.
pub async fn run_docker_source(
    sink: &Sink,
    options: DockerOptions,
    cancel: CancellationToken,
) -> Result<(), SourceError> {
    let name = key("docker", options.socket.as_os_str().as_encoded_bytes());
    let mut keeper: Keeper<BTreeMap<String, Place>> = Keeper::new(options.state.clone(), name);
    let remembered = keeper.load();
    let first = remembered.is_none() && !options.backlog;
    let beginning = first.then(|| Place::at(clock::wall()));
    let mut source = Source {
        engine: Engine {
            socket: options.socket.clone(),
        },
        places: Arc::new(Places::new(remembered.unwrap_or_default(), beginning)),
        options: Arc::new(options),
        sink: sink.clone(),
        cancel,
        keeper,
        followers: JoinSet::new(),
        active: HashSet::new(),
        again: HashSet::new(),
        begun: false,
        seen: HashSet::new(),
    };
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    while let Err(error) = source.session().await {
        // Once is enough to say.
        if source.begun {
            backoff.reset();
            tracing::warn!(%error, "the container engine is gone; waiting for it");
        } else if backoff.failures() == 0 {
            tracing::warn!(%error, "no container engine; waiting for it");
        }
        let pause = backoff.next(crate::random());
        if source.pause(pause).await {
            break;
        }
    }
    source.finish().await;
    Ok(())
}

struct Source {
    engine: Engine,
    options: Arc<DockerOptions>,
    places: Arc<Places>,
    sink: Sink,
    cancel: CancellationToken,
    keeper: Keeper<BTreeMap<String, Place>>,
    followers: JoinSet<String>,
    active: HashSet<String>,
    /// Containers that started while they were still followed from before.
    again: HashSet<String>,
    /// There was a session since the last failure.
    begun: bool,
    /// Containers that were looked at in this session.
    seen: HashSet<String>,
}

impl Source {
    /// As long as the engine is there. Ok when told to end.
    async fn session(&mut self) -> Result<(), EngineError> {
        self.begun = false;
        self.seen.clear();
        self.look().await?;
        self.begun = true;
        let engine = self.engine.clone();
        let asking = engine.starts();
        tokio::pin!(asking);
        // Docker answers at once, Podman with the first start.
        let mut happening = None;
        let mut lines = Lines::up_to(MAX_EVENT);
        let mut started = Vec::new();
        let mut look_at = clock::mono() + LOOK;
        loop {
            let frame = tokio::select! {
                answer = &mut asking, if happening.is_none() => {
                    happening = Some(answer?);
                    // What started before it listened.
                    self.look().await?;
                    continue;
                }
                frame = next_frame(&mut happening) => frame,
                Some(ended) = self.followers.join_next() => {
                    self.ended(ended.ok());
                    continue;
                }
                // Places become durable while nothing is said, too.
                () = tokio::time::sleep(Duration::from_secs(1)) => {
                    if self.keeper.wants() {
                        self.keeper.offer(self.places.all(), self.sink.publisher());
                    }
                    if clock::mono() >= look_at {
                        look_at = clock::mono() + LOOK;
                        self.look().await?;
                    }
                    continue;
                }
                () = self.cancel.cancelled() => return Ok(()),
            };
            let Some(frame) = frame else {
                return Err(EngineError::Unread("its events ended".into()));
            };
            if let Ok(bytes) = frame?.into_data() {
                lines.feed(&bytes, |line| {
                    let happened: Result<Happened, _> = serde_json::from_slice(line.bytes);
                    started.extend(happened.ok().map(|happened| happened.actor.id));
                });
            }
            for id in started.drain(..) {
                self.follow(id, false);
            }
        }
    }

    /// Looks at what containers there are, follows those it has not seen in this session, and
    /// forgets those that are no more.
    async fn look(&mut self) -> Result<(), EngineError> {
        let there: HashSet<String> = self
            .engine
            .list()
            .await?
            .into_iter()
            .map(|c| c.id)
            .collect();
        self.places.retain(|id| there.contains(id));
        self.seen.retain(|id| there.contains(id));
        for id in there {
            if self.seen.insert(id.clone()) {
                self.follow(id, true);
            }
        }
        Ok(())
    }

    fn follow(&mut self, id: String, old: bool) {
        if self.active.contains(&id) {
            // It started again, or the engine did: its follower may just be at its end.
            self.again.insert(id);
            return;
        }
        if self.active.len() >= MAX_CONTAINERS {
            tracing::warn!(%id, limit = MAX_CONTAINERS, "too many containers; this one is not followed");
            return;
        }
        self.active.insert(id.clone());
        let follower = Follower {
            engine: self.engine.clone(),
            options: self.options.clone(),
            places: self.places.clone(),
            sink: self.sink.clone(),
            id,
            old,
            cancel: self.cancel.clone(),
        };
        self.followers.spawn(follower.run());
    }

    fn ended(&mut self, id: Option<String>) {
        let Some(id) = id else { return };
        self.active.remove(&id);
        if self.again.remove(&id) {
            self.follow(id, false);
        }
    }

    /// Waits for the engine's return; true when told to end.
    async fn pause(&mut self, time: Duration) -> bool {
        let until = tokio::time::sleep(time);
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => return false,
                () = self.cancel.cancelled() => return true,
                Some(ended) = self.followers.join_next() => self.ended(ended.ok()),
            }
        }
    }

    async fn finish(mut self) {
        while self.followers.join_next().await.is_some() {}
        let keeper = self.keeper;
        let places = self.places.all();
        keeper
            .finish(Some(places), self.sink.publisher(), self.options.drain)
            .await;
    }
}

/// Of the engine's events, once it answers.
async fn next_frame(body: &mut Option<Incoming>) -> Option<Result<Frame<Bytes>, hyper::Error>> {
    match body {
        Some(body) => body.frame().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_unknown_ones_refused() {
        let text = r#"{"include": ["web-*", "label:app=x"], "stderr": "WARN", "parse": "json", "labels": []}"#;
        let options: DockerOptions = serde_json::from_str(text).unwrap();
        assert_eq!(options.include[0], ContainerPattern::Name("web-*".into()));
        assert_eq!(options.stderr, Severity::WARN);
        assert_eq!(options.drain, drain());
        assert_eq!(options.socket, PathBuf::from("/var/run/docker.sock"));
        let error = serde_json::from_str::<DockerOptions>(r#"{"stderr": "loud"}"#).unwrap_err();
        assert!(error.to_string().contains("loud"), "{error}");
        let error = serde_json::from_str::<DockerOptions>(r#"{"sock": "x"}"#).unwrap_err();
        assert!(error.to_string().contains("`socket`"), "{error}");
    }
}
