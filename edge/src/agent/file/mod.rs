//! Source: log files, each followed through rotation by rename and by copy and truncate, with the
//! places remembered once everything before them is durable.

mod follow;
mod open;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use thinglog_schemas::Severity;
use tokio_util::sync::CancellationToken;

use super::{
    SourceError,
    keeper::Keeper,
    recognise::Recogniser,
    sink::Sink,
    state::{StateDir, key},
};
use crate::{Record, clock};
pub use follow::StartAt;
pub(crate) use follow::siblings;
use follow::{Follower, Found};
use open::Position;

/// How often a file is looked at while nothing happens.
const POLL: Duration = Duration::from_millis(250);

/// What to follow and how.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// The log file; it need not exist yet.
    pub path: PathBuf,
    /// The source of its events; `None`: the file's stem (`access` for `/var/log/nginx/access.log`).
    pub source: Option<String>,
    /// Where to begin when nothing is remembered.
    pub start: StartAt,
    /// Where to remember how far it was read; `None`: nowhere, every start is the first.
    pub state: Option<StateDir>,
    /// How long events may take to become durable at the end, so that the place can be remembered.
    pub drain: Duration,
}

impl FileOptions {
    /// From the beginning, remembering nothing.
    pub fn new(path: impl Into<PathBuf>) -> FileOptions {
        FileOptions {
            path: path.into(),
            source: None,
            start: StartAt::Beginning,
            state: None,
            drain: Duration::from_secs(5),
        }
    }

    pub(crate) fn source(&self) -> String {
        let stem = self.path.file_stem().map(|stem| stem.to_string_lossy());
        match (&self.source, stem) {
            (Some(source), _) => source.clone(),
            (None, Some(stem)) => stem.into_owned(),
            (None, None) => "file".to_owned(),
        }
    }
}

/// Follows a file until `cancel`, and waits with the file when the publisher has no room: no line is
/// lost while the broker is away. Lines are at least once: after a crash those since the last
/// remembered place come again, as new events.
pub async fn run_file_source(
    sink: &Sink,
    options: FileOptions,
    cancel: CancellationToken,
) -> Result<(), SourceError> {
    let path = absolute(&options.path)?;
    let name = key("file", path.as_os_str().as_encoded_bytes());
    let mut keeper: Keeper<Vec<Position>> = Keeper::new(options.state.clone(), name);
    let remembered = keeper.load().unwrap_or_default();
    let follower = Follower::new(&path, options.start, remembered, clock::mono());
    let recogniser = Recogniser::new(&options.source(), Severity::INFO);
    let mut reading = Some(Reading {
        follower,
        recogniser,
        records: Vec::new(),
    });
    let mut complained = false;
    while !cancel.is_cancelled() {
        let Some(taken) = reading.take() else { break };
        let (mut taken, found) = tokio::task::spawn_blocking(|| taken.block())
            .await
            .map_err(|error| SourceError::Ended(error.to_string()))?;
        let idle = report(&path, found, &mut complained);
        for record in taken.records.drain(..) {
            let sent = tokio::select! {
                sent = sink.emit_waiting(record) => sent,
                () = cancel.cancelled() => false,
            };
            if !sent {
                // What was read and not queued must be read again: the last place stands.
                keeper.finish(None, sink.publisher(), options.drain).await;
                return Ok(());
            }
        }
        keeper.offer(taken.follower.positions(), sink.publisher());
        reading = Some(taken);
        if idle {
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = cancel.cancelled() => {}
            }
        }
    }
    let positions = reading.map(|reading| reading.follower.positions());
    keeper
        .finish(positions, sink.publisher(), options.drain)
        .await;
    Ok(())
}

/// Logs trouble once until it is over; true when there is nothing to read right now.
fn report(path: &Path, found: io::Result<Found>, complained: &mut bool) -> bool {
    let path = path.display();
    match found {
        Ok(Found::More) => {
            *complained = false;
            false
        }
        Ok(Found::Nothing) => true,
        Ok(Found::Missing) => {
            if !std::mem::replace(complained, true) {
                tracing::info!(%path, "no such file yet; waiting for it");
            }
            true
        }
        Err(error) => {
            if !std::mem::replace(complained, true) {
                tracing::warn!(%path, %error, "the file cannot be read; trying again");
            }
            true
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf, SourceError> {
    std::path::absolute(path).map_err(|source| SourceError::Io {
        what: path.display().to_string(),
        source,
    })
}

struct Reading {
    follower: Follower,
    recogniser: Recogniser,
    records: Vec<Record>,
}

impl Reading {
    /// Reads one block, off the runtime's threads.
    fn block(mut self) -> (Reading, io::Result<Found>) {
        let Reading {
            follower,
            recogniser,
            records,
        } = &mut self;
        let found = follower.read(clock::mono(), |line| {
            records.push(recogniser.record(line));
        });
        (self, found)
    }
}
