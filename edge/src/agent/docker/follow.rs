//! Follows one container's log, through restarts of the container, until it has ended and everything
//! it wrote was passed on.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::BodyExt;
use parking_lot::Mutex;
use thinglog_schemas::hash::fnv1a;
use tokio_util::sync::CancellationToken;

use super::{
    DockerOptions,
    engine::{Container, Engine, EngineError},
    frames::{BadFrame, Entries},
    line::{Joiner, name_of},
    place::Place,
};
use crate::{Record, agent::sink::Sink, backoff::Backoff, clock};

/// How far each container was read.
#[derive(Default)]
pub(super) struct Places {
    places: Mutex<BTreeMap<String, Place>>,
    /// For containers that were there before this source ever ran, when it is not to carry what they
    /// said until then.
    beginning: Option<Place>,
}

impl Places {
    pub(super) fn new(places: BTreeMap<String, Place>, beginning: Option<Place>) -> Places {
        Places {
            places: Mutex::new(places),
            beginning,
        }
    }

    pub(super) fn all(&self) -> BTreeMap<String, Place> {
        self.places.lock().clone()
    }

    /// Forgets containers that are no more.
    pub(super) fn retain(&self, there: impl Fn(&str) -> bool) {
        self.places.lock().retain(|id, _| there(id));
    }

    fn forget(&self, id: &str) {
        self.places.lock().remove(id);
    }

    fn set(&self, id: &str, place: Place) {
        let mut places = self.places.lock();
        match places.get_mut(id) {
            Some(known) => *known = place,
            None => {
                places.insert(id.to_owned(), place);
            }
        }
    }

    /// Where to go on: what is in the spool knows best.
    fn get(&self, sink: &Sink, id: &str, old: bool) -> Place {
        let spooled = sink.publisher().kept_place(key(id));
        let spooled = spooled.and_then(|place| serde_json::from_slice(&place).ok());
        let known = spooled.or_else(|| self.places.lock().get(id).copied());
        let place = known.or(self.beginning.filter(|_| old));
        place.unwrap_or_default()
    }
}

/// A log that could be followed for so long is read again at once when it breaks off.
const STEADY: Duration = Duration::from_secs(10);

/// Pauses before an engine that has troubles is asked again.
const AGAIN: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

/// Of the places of a container in the spool.
fn key(id: &str) -> u64 {
    fnv1a(format!("container {id}").as_bytes())
}

/// What follows one container.
pub(super) struct Follower {
    pub(super) engine: Engine,
    pub(super) options: Arc<DockerOptions>,
    pub(super) places: Arc<Places>,
    pub(super) sink: Sink,
    pub(super) id: String,
    /// It was there when the source began.
    pub(super) old: bool,
    pub(super) cancel: CancellationToken,
}

/// Why a log was not read to its end.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Frame(#[from] BadFrame),
    #[error("told to stop")]
    Told,
}

impl Follower {
    /// Reads until the container ended, is gone or the engine is; gives back its id.
    pub(super) async fn run(self) -> String {
        let mut backoff = Backoff::new(AGAIN, LONGEST);
        let mut container = match self.inspect().await {
            Some(container) if wants(&self.options, &container) => container,
            _ => return self.id,
        };
        loop {
            let begun = clock::mono();
            let place = self.places.get(&self.sink, &self.id, self.old);
            let mut joiner = Joiner::new(&self.options, &container, place);
            let running = container.state.running;
            let read = self.read(&container, &mut joiner, place).await;
            let name = name_of(&container).to_owned();
            match &read {
                Ok(()) => {}
                Err(Stopped::Told) => break,
                Err(Stopped::Engine(error)) if error.is_final() && !error.is_gone() => {
                    tracing::warn!(%name, %error, "the log of a container cannot be read");
                    break;
                }
                Err(error) => tracing::debug!(%name, %error, "the log of a container broke off"),
            }
            if begun.elapsed() > STEADY {
                backoff.reset();
            }
            match self.inspect().await {
                Some(found) if found.state.running || read.is_err() => container = found,
                // The engine may end a log that is followed before its last line is in it.
                Some(found) if running => {
                    container = found;
                    continue;
                }
                Some(_) => {
                    let mut last = Vec::new();
                    joiner.finish(clock::mono(), &mut last);
                    for (record, place) in last {
                        self.emit(record, place).await;
                    }
                    break;
                }
                None => break,
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next(crate::random())) => {}
                () = self.cancel.cancelled() => break,
            }
        }
        self.id
    }

    /// What the engine says of the container; `None` when it is no more, or when told to stop. An engine
    /// that has troubles is asked again: nobody else would begin to follow the container anew.
    async fn inspect(&self) -> Option<Container> {
        let mut backoff = Backoff::new(AGAIN, LONGEST);
        loop {
            let found = tokio::select! {
                found = self.engine.inspect(&self.id) => found,
                () = self.cancel.cancelled() => return None,
            };
            match found {
                Ok(container) => return Some(container),
                Err(error) if error.is_gone() => {
                    self.places.forget(&self.id);
                    return None;
                }
                Err(error) if error.is_final() => {
                    tracing::warn!(id = %self.id, %error, "a container cannot be inspected and is not followed");
                    return None;
                }
                Err(error) => {
                    tracing::debug!(id = %self.id, %error, "a container cannot be inspected; trying again");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next(crate::random())) => {}
                () = self.cancel.cancelled() => return None,
            }
        }
    }

    async fn read(
        &self,
        container: &Container,
        joiner: &mut Joiner,
        place: Place,
    ) -> Result<(), Stopped> {
        let (since, running) = (place.since(), container.state.running);
        let mut body = tokio::select! {
            body = self.engine.logs(&self.id, running, since.as_deref()) => body?,
            () = self.cancel.cancelled() => return Err(Stopped::Told),
        };
        let mut entries = Entries::new(container.config.tty);
        let mut records = Vec::new();
        loop {
            let frame = tokio::select! {
                frame = body.frame() => Some(frame),
                () = until(joiner.due()) => None,
                () = self.cancel.cancelled() => return Err(Stopped::Told),
            };
            match frame {
                Some(Some(frame)) => {
                    let Ok(bytes) = frame.map_err(EngineError::Broken)?.into_data() else {
                        continue;
                    };
                    let now = clock::mono();
                    entries.feed(&bytes, |entry| joiner.take(entry, now, &mut records))?;
                }
                Some(None) => return Ok(()),
                None => joiner.poll(clock::mono(), &mut records),
            }
            for (record, place) in records.drain(..) {
                if !self.emit(record, place).await {
                    return Err(Stopped::Told);
                }
            }
        }
    }

    async fn emit(&self, record: Record, place: Place) -> bool {
        let record = match serde_json::to_vec(&place) {
            Ok(place) => record.marked(key(&self.id), place),
            Err(_) => record,
        };
        let sent = tokio::select! {
            sent = self.sink.emit_waiting(record) => sent,
            () = self.cancel.cancelled() => false,
        };
        if sent {
            self.places.set(&self.id, place);
        }
        sent
    }
}

/// Until what is held is complete.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Whether a container is to be carried.
pub(super) fn wants(options: &DockerOptions, container: &Container) -> bool {
    let none = BTreeMap::new();
    let labels = container.config.labels.as_ref().unwrap_or(&none);
    let name = name_of(container);
    let DockerOptions {
        include, exclude, ..
    } = options;
    let included = include.is_empty() || include.iter().any(|p| p.matches(name, labels));
    let excluded = exclude.iter().any(|pattern| pattern.matches(name, labels));
    let own = options.exclude_own && is_own(&container.id);
    included && !excluded && !own
}

/// Whether this program runs in that container: an engine mounts files of its own into each, from a
/// folder that has its id. On the engine's own machine the id is found in other mounts as well.
fn is_own(id: &str) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    names(&mounts, id)
}

/// Lines of proc_pid_mountinfo(5): the fourth field is what is mounted, the fifth where.
fn names(mounts: &str, id: &str) -> bool {
    const MOUNTED: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, at) = (fields.next(), fields.next());
        at.is_some_and(|at| MOUNTED.contains(&at))
            && root.is_some_and(|root| root.split('/').any(|part| part == id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_container_is_known_by_its_mounts() {
        let id = "ab".repeat(32);
        let other = "cd".repeat(32);
        let docker = format!(
            "625 601 254:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw - ext4 /dev/vda rw"
        );
        let podman = format!(
            "625 601 0:1 /containers/overlay-containers/{id}/userdata/hosts /etc/hosts rw - tmpfs tmpfs rw"
        );
        for mounts in [docker, podman] {
            assert!(names(&mounts, &id));
            assert!(!names(&mounts, &other));
        }
        let host = format!("31 22 0:26 / /run/vfs-containers/{id}/userdata/shm rw - tmpfs shm rw");
        assert!(!names(&host, &id));
    }
}
