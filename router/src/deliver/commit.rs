//! The committing thread of a destination: data durable, then the state, then the acknowledgements
//! to the broker. One job at a time, in order; after a failure none is carried out any more.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Sync;
use crate::mqtt::Settled;
use crate::mqtt::inbox::Inbox;
use crate::mqtt::outbox::Outbox;
use crate::state::StateLog;
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

fn run(mut parts: Parts, queue: &Receiver<Job>, shared: &Shared) {
    for job in queue {
        let begun = Instant::now();
        let failed = shared.progress.lock().failed.is_some();
        let result = if failed { Ok(()) } else { parts.commit(job) };
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
        if let Some(sync) = job.sync {
            sync()?;
        }
        match job.state {
            Write::Nothing => {}
            Write::Append(framed) => self.log.append(&framed)?,
            Write::Rewrite(framed) => self.log.rewrite(&framed)?,
        }
        self.books.settle(job.tally);
        if let Some(settled) = job.settled {
            self.outbox.settle(settled);
        }
        Ok(())
    }
}
