//! The committing thread of a destination: data durable, then the state, then the acknowledgements
//! to the broker. One job at a time, in order; after a failure none is carried out any more.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Sync;
use crate::mqtt::Settled;
use crate::mqtt::inbox::Inbox;
use crate::mqtt::outbox::Outbox;
use crate::state::{Growth, StateError, StateLog};
use crate::telemetry::{Books, Tally};

/// One commit.
pub(crate) struct Job {
    pub(crate) sync: Option<Sync>,
    pub(crate) state: Write,
    /// What it settles; `None` when it only records what time has changed.
    pub(crate) settled: Option<Settled>,
    pub(crate) tally: Tally,
}

/// What to do to the state log; the bytes are framed records.
pub(crate) enum Write {
    Nothing,
    Append(Vec<u8>),
    Rewrite(Vec<u8>),
}

impl Write {
    /// What is to be written for framed changes: they are appended until a snapshot of everything is
    /// worth it.
    pub(crate) fn of(
        changes: Vec<u8>,
        growth: &mut Growth,
        snapshot: impl FnOnce() -> Result<Vec<u8>, StateError>,
    ) -> Result<Write, StateError> {
        if growth.wants_rewrite() {
            let framed = snapshot()?;
            growth.rewritten(framed.len());
            return Ok(Write::Rewrite(framed));
        }
        if changes.is_empty() {
            return Ok(Write::Nothing);
        }
        growth.appended(changes.len());
        Ok(Write::Append(changes))
    }
}

/// Handle to the thread.
pub(crate) struct Committer {
    jobs: Option<SyncSender<Job>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    progress: Mutex<Progress>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    /// Jobs handed in and not ended.
    open: usize,
    /// Duration of the last one, until it is asked for.
    took: Option<Duration>,
    failed: Option<String>,
}

/// What the thread needs.
pub(crate) struct Parts {
    pub(crate) log: StateLog,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) books: Books,
}

impl Committer {
    pub(crate) fn start(name: &str, parts: Parts) -> io::Result<Committer> {
        // One under way, one handed in: submitting a third waits.
        let (jobs, queue) = sync_channel(1);
        let shared = Arc::new(Shared::default());
        let progress = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name(format!("commit {name}"))
            .spawn(move || run(parts, &queue, &progress))?;
        Ok(Committer {
            jobs: Some(jobs),
            shared,
            thread: Some(thread),
        })
    }

    /// Hands in a commit; waits while one is waiting already.
    pub(crate) fn submit(&self, job: Job) {
        self.shared.progress.lock().open += 1;
        let gone = match &self.jobs {
            Some(jobs) => jobs.send(job).is_err(),
            None => true,
        };
        if gone {
            let mut shared = self.shared.progress.lock();
            shared.open -= 1;
            shared
                .failed
                .get_or_insert("the committing thread is gone".into());
        }
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.shared.progress.lock().open > 0
    }

    /// Waits until everything handed in has ended.
    pub(crate) fn wait_idle(&self) {
        let mut progress = self.shared.progress.lock();
        while progress.open > 0 {
            self.shared.ended.wait(&mut progress);
        }
    }

    /// Duration of the commit that ended since the last call.
    pub(crate) fn took(&self) -> Option<Duration> {
        self.shared.progress.lock().took.take()
    }

    /// Why commits have stopped, if they have.
    pub(crate) fn failure(&self) -> Option<String> {
        self.shared.progress.lock().failed.clone()
    }

    /// Carries out what was handed in and ends the thread.
    pub(crate) fn finish(mut self) -> Result<(), String> {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            return Err("the committing thread panicked".into());
        }
        self.failure().map_or(Ok(()), Err)
    }
}

/// Whatever becomes of the worker: nobody may open the files again while a commit writes to them.
impl Drop for Committer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(mut parts: Parts, queue: &Receiver<Job>, shared: &Shared) {
    for job in queue {
        let begun = Instant::now();
        let failed = shared.progress.lock().failed.is_some();
        let result = if failed {
            Ok(())
        } else {
            // A panic has to end the part like an error: whoever waits must hear of it.
            catch_unwind(AssertUnwindSafe(|| parts.commit(job)))
                .unwrap_or_else(|_| Err(io::Error::other("the committing thread panicked")))
        };
        let mut progress = shared.progress.lock();
        progress.open -= 1;
        progress.took = Some(begun.elapsed());
        if let Err(error) = result {
            progress.failed = Some(error.to_string());
        }
        drop(progress);
        shared.ended.notify_all();
        parts.books.commits.observe(begun.elapsed().as_secs_f64());
        parts.inbox.poke();
    }
}

impl Parts {
    fn commit(&mut self, job: Job) -> io::Result<()> {
        let mut tally = job.tally;
        if let Some(sync) = job.sync {
            let settlement = sync()?;
            tally.delivered += settlement.delivered;
            tally.duplicate += settlement.duplicate;
            tally.rejected += settlement.rejected;
        }
        match job.state {
            Write::Nothing => {}
            Write::Append(framed) => self.log.append(&framed)?,
            Write::Rewrite(framed) => self.log.rewrite(&framed)?,
        }
        self.books.settle(tally);
        if let Some(settled) = job.settled {
            self.outbox.settle(settled);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::deliver::syncing;
    use crate::testing::telemetry;

    fn start() -> (Committer, Arc<Outbox>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let (log, _) = StateLog::open::<u64>(&folder.path().join("state")).unwrap();
        let outbox = Arc::new(Outbox::default());
        let parts = Parts {
            log,
            inbox: Arc::new(Inbox::default()),
            outbox: Arc::clone(&outbox),
            books: telemetry().books("test"),
        };
        (Committer::start("test", parts).unwrap(), outbox, folder)
    }

    fn job(sync: impl FnOnce() -> io::Result<()> + Send + 'static) -> Job {
        Job {
            sync: Some(syncing(sync)),
            state: Write::Nothing,
            settled: Some(Settled {
                generation: 1,
                number: 0,
            }),
            tally: Tally::default(),
        }
    }

    #[test]
    fn a_dropped_committer_has_ended_its_commit() {
        let (committer, outbox, _folder) = start();
        let (begun, has_begun) = sync_channel(1);
        let (go_on, gate) = sync_channel(1);
        committer.submit(job(move || {
            begun.send(()).unwrap();
            gate.recv().map_err(io::Error::other)
        }));
        has_begun.recv().unwrap();
        let dropping = std::thread::spawn(move || drop(committer));
        go_on.send(()).unwrap();
        dropping.join().unwrap();
        assert!(outbox.take(false).settled.is_some());
    }

    #[test]
    fn a_panic_is_a_failure_and_acknowledges_nothing() {
        let (committer, outbox, _folder) = start();
        committer.submit(job(|| panic!("on purpose")));
        committer.wait_idle();
        assert!(committer.failure().is_some());
        assert!(outbox.take(false).settled.is_none());
    }
}
