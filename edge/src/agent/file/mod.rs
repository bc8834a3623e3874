//! Source: log files by name and by pattern, each followed through rotation by rename and by copy and
//! truncate, with the places remembered once everything before them is durable.

mod follow;
mod naming;
mod open;
mod options;
mod outgoing;
mod patterns;
mod places;
mod position;
mod rotation;
mod set;
#[cfg(test)]
mod set_tests;
mod siblings;
mod taken;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use super::{
    SourceError,
    keeper::Keeper,
    sink::Sink,
    state::{StateDir, key},
};
use crate::clock;
pub use options::{FilesOptions, StartAt};
use outgoing::Outgoing;
use places::Places;
use set::{FileSet, Pace};
pub(crate) use siblings::{Sibling, siblings};
use taken::Taken;

/// Events that are read before they are handed on, about.
const ENOUGH: usize = 1024;
/// With a spool the places travel with the events; what is stored beside them, so often, only helps
/// to know files that were rotated.
const WITH_SPOOL: Duration = Duration::from_secs(30);
/// Rounds follow on each other at this distance when there is nothing to read.
const BREATH: Duration = Duration::from_millis(10);
/// The source of what the agent itself has to say.
const OWN: &str = "thinglog";
/// What the places of sets are called in the state directory.
const STATE: &str = "files";

/// Follows files until `cancel`, and waits with them when the publisher has no room: no line is lost
/// while the broker is away. After a crash, lines since the last remembered place come again, as new
/// events: those of a second at most where no spool keeps the places.
pub async fn run_files_source(
    sink: &Sink,
    options: FilesOptions,
    cancel: CancellationToken,
) -> Result<(), SourceError> {
    options.check()?;
    let compiled = options.compile()?;
    let name = key(STATE, options.paths.join("\n").as_bytes());
    let mut keeper: Keeper<Places> = Keeper::new(options.state.clone(), name);
    let spooled = sink.publisher().keeps_places();
    if spooled {
        keeper.store_every(WITH_SPOOL);
    }
    let mut remembered = remembered(&mut keeper, options.state.as_ref());
    remembered.correct(compiled.patterns.walk().found, |path| {
        let key = set::key(path, &compiled.naming.source(path));
        position::decode(&sink.publisher().kept_place(key)?)
    });
    let lines = compiled.text.of_lines();
    let set = FileSet::new(compiled, remembered, clock::mono());
    let mut wake = Wake::new(set.descriptor());
    let mut outgoing = Outgoing::new(sink, spooled);
    let mut reading = Some(Reading {
        set,
        taken: Taken::new(sink, lines, outgoing.needs_places()),
        next: clock::mono(),
    });
    while !cancel.is_cancelled() {
        let Some(mut taken) = reading.take() else {
            break;
        };
        outgoing.look(sink);
        taken.taken.mark(outgoing.needs_places());
        let pace = outgoing.pace();
        let held = pace.held.clone();
        let mut taken = tokio::task::spawn_blocking(|| taken.round(pace))
            .await
            .map_err(|error| SourceError::Ended(error.to_string()))?;
        for note in taken.set.take_notes() {
            outgoing::tell(sink, note);
        }
        outgoing.add(taken.taken.batches());
        let gone = outgoing.give(sink, &cancel).await;
        if gone && keeper.wants() {
            keeper.offer(taken.places(&outgoing), sink.publisher());
        }
        // The round passed over what left only now.
        if held.into_iter().any(|key| !outgoing.holds(key)) {
            taken.next = clock::mono();
        }
        let dues = keeper.due().into_iter().chain(outgoing.due());
        let next = dues.fold(taken.next, Instant::min);
        reading = Some(taken);
        if !gone {
            break;
        }
        wake.until(next, &cancel).await;
    }
    // Without knowing the places, what was read and not queued must be read again.
    let places = reading.map(|reading| reading.places(&outgoing));
    let places = places.filter(|_| outgoing.is_empty() || outgoing.needs_places());
    keeper.finish(places, sink.publisher(), options.drain).await;
    Ok(())
}

/// What this set knew, and what others did, which may have had the same files.
fn remembered(keeper: &mut Keeper<Places>, state: Option<&StateDir>) -> Places {
    let mut places = keeper.load().unwrap_or_default();
    for name in state.map(|state| state.names(STATE)).unwrap_or_default() {
        let other = state.and_then(|state| state.load(&name));
        places.merge(other.unwrap_or_default());
    }
    places
}

/// Waits between rounds.
struct Wake {
    changes: Option<AsyncFd<Arc<OwnedFd>>>,
}

impl Wake {
    fn new(descriptor: Option<Arc<OwnedFd>>) -> Wake {
        #[expect(
            deprecated,
            reason = "its successor is unsafe; this descriptor is owned for as long as it is registered"
        )]
        let changes = descriptor.map(AsyncFd::new).transpose();
        let changes = changes.inspect_err(|error| {
            tracing::info!(%error, "changes of files are not told; they are looked at in turn");
        });
        Wake {
            changes: changes.ok().flatten(),
        }
    }

    /// Until then, or until the kernel tells of a change.
    async fn until(&mut self, next: Instant, cancel: &CancellationToken) {
        let now = clock::mono();
        if next <= now {
            return;
        }
        let breath = tokio::time::sleep(BREATH.min(next - now));
        tokio::select! {
            () = breath => {}
            () = cancel.cancelled() => return,
        }
        let told = async {
            match &self.changes {
                // What there is to tell is read with the next round.
                Some(changes) => match changes.readable().await {
                    Ok(mut ready) => ready.clear_ready(),
                    Err(_) => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            () = told => {}
            () = cancel.cancelled() => {}
        }
    }
}

struct Reading {
    set: FileSet,
    taken: Taken,
    next: Instant,
}

impl Reading {
    /// Reads what there is, off the runtime's threads.
    fn round(mut self, pace: Pace) -> Reading {
        loop {
            let now = clock::mono();
            let enough = ENOUGH.saturating_sub(self.taken.events());
            self.next = self.set.round(now, enough, &pace, &mut self.taken);
            // Where a rate is waited for, each block is handed on before the next is read.
            if self.next > now || !pace.is_free() || self.taken.events() >= ENOUGH {
                return self;
            }
        }
    }

    /// Where everything stands that has left.
    fn places(&self, outgoing: &Outgoing) -> Places {
        self.set.places(|key| outgoing.stands(key))
    }
}
