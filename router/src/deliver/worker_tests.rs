use std::collections::VecDeque;

use parking_lot::Mutex;

use super::*;
use crate::deliver::commit::{Parts, Write};
use crate::deliver::stage::Closing;
use crate::deliver::syncing;
use crate::health::Health;
use crate::mqtt::outbox::Outbox;
use crate::state::{StateError, StateLog};
use crate::telemetry::Tally;
use crate::testing::{delivery, telemetry};

/// A stage that writes down what happens to it and answers as it is told.
#[derive(Clone, Default)]
struct Script {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    answers: VecDeque<Pushed>,
    taken: Vec<u64>,
    pushes: usize,
    commits: usize,
    sync_fails: bool,
    /// The next commit is a barrier.
    barrier: bool,
    /// Commits before each barrier was passed.
    passed: Vec<usize>,
}

impl Stage for Script {
    fn take(&mut self, delivery: &Delivery, _now: u64) -> usize {
        self.shared.lock().taken.push(delivery.number);
        delivery.payload.len()
    }

    fn is_full(&self) -> bool {
        false
    }

    fn push(&mut self) -> Pushed {
        let mut shared = self.shared.lock();
        shared.pushes += 1;
        shared.answers.pop_front().unwrap_or(Pushed::Done)
    }

    fn commit(&mut self) -> Result<Closing, StateError> {
        let mut shared = self.shared.lock();
        shared.commits += 1;
        let fails = shared.sync_fails;
        let sync = move || match fails {
            true => Err(std::io::Error::other("the disk is gone")),
            false => Ok(()),
        };
        Ok(Closing {
            sync: Some(syncing(sync)),
            state: Write::Nothing,
            tally: Tally::default(),
            barrier: std::mem::take(&mut shared.barrier),
        })
    }

    fn committed(&mut self) -> std::io::Result<()> {
        let mut shared = self.shared.lock();
        let commits = shared.commits;
        shared.passed.push(commits);
        Ok(())
    }
}

struct Bench {
    script: Script,
    inbox: Arc<Inbox>,
    outbox: Arc<Outbox>,
    thread: std::thread::JoinHandle<Exit>,
    _folder: tempfile::TempDir,
}

fn start(script: Script) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = StateLog::open::<u64>(&folder.path().join("state")).unwrap();
    let (inbox, outbox) = (Arc::new(Inbox::default()), Arc::new(Outbox::default()));
    inbox.begin(1);
    let books = telemetry().books("test");
    let parts = Parts {
        log,
        inbox: Arc::clone(&inbox),
        outbox: Arc::clone(&outbox),
        books: books.clone(),
    };
    let committer = Committer::start("test", parts).unwrap();
    let health = Health::new().part("test");
    let worker = Worker::new(script.clone(), Arc::clone(&inbox), committer, books, health);
    let thread = std::thread::spawn(move || worker.run());
    Bench {
        script,
        inbox,
        outbox,
        thread,
        _folder: folder,
    }
}

impl Bench {
    fn send(&self, offsets: &[u64]) {
        let mut items = offsets
            .iter()
            .map(|offset| delivery("x", Some(*offset)))
            .collect();
        self.inbox.push(&mut items);
    }

    /// The next acknowledgement.
    fn settled(&self) -> Settled {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(settled) = self.outbox.take(false).settled {
                return settled;
            }
            assert!(Instant::now() < deadline, "nothing is acknowledged");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_delivery_is_acknowledged_when_its_commit_stands() {
    let bench = start(Script::default());
    bench.send(&[0, 1, 2]);
    let expected = Settled {
        generation: 1,
        number: 2,
    };
    assert_eq!(bench.settled(), expected);
    bench.inbox.close();
    assert_eq!(bench.thread.join().unwrap(), Exit::Stopped);
    assert_eq!(
        bench.script.shared.lock().commits,
        1,
        "nothing new, no commit"
    );
}

#[test]
fn a_retry_offers_the_same_chunk_again() {
    let script = Script::default();
    let retry = Pushed::Retry {
        after: None,
        reason: "busy".into(),
    };
    script.shared.lock().answers = VecDeque::from([retry.clone(), retry]);
    let bench = start(script);
    bench.send(&[0, 1]);
    assert_eq!(bench.settled().number, 1);
    let shared = bench.script.shared.lock();
    assert_eq!((shared.pushes, &shared.taken[..]), (3, &[0, 1][..]));
}

#[test]
fn stopping_while_a_chunk_waits_for_its_retry_commits_nothing_of_it() {
    let script = Script::default();
    let retry = Pushed::Retry {
        after: Some(Duration::from_secs(3600)),
        reason: "busy".into(),
    };
    script.shared.lock().answers = VecDeque::from([retry]);
    let bench = start(script);
    bench.send(&[0]);
    while bench.script.shared.lock().pushes == 0 {
        std::thread::yield_now();
    }
    bench.inbox.close();
    assert_eq!(bench.thread.join().unwrap(), Exit::Stopped);
    assert_eq!(bench.script.shared.lock().commits, 0);
    assert_eq!(bench.outbox.take(false).settled, None);
}

#[test]
fn what_follows_a_barrier_is_recorded_at_once() {
    let script = Script::default();
    script.shared.lock().barrier = true;
    let bench = start(script);
    bench.send(&[0]);
    bench.settled();
    bench.inbox.close();
    assert_eq!(bench.thread.join().unwrap(), Exit::Stopped);
    let shared = bench.script.shared.lock();
    assert_eq!((&shared.passed[..], shared.commits), (&[1][..], 2));
}

#[test]
fn a_failed_sync_acknowledges_nothing_and_breaks() {
    let script = Script::default();
    script.shared.lock().sync_fails = true;
    let bench = start(script);
    bench.send(&[0]);
    assert_eq!(
        bench.thread.join().unwrap(),
        Exit::Broken("the disk is gone".into())
    );
    assert_eq!(bench.outbox.take(false).settled, None);
}
