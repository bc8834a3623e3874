//! What connections share: sessions, subscriptions, retained messages, the journal and the state on
//! disk. Every method is quick and none waits for the disk, but for a subscription that starts at a
//! point in time: finding that reads a few blocks of the journal, under no lock.
//!
//! Locks are taken in this order: handover, retaining, mailing; sessions, by_key, trie, shared (one of
//! them at a time, but that members of a group are looked at under its lock); a session's; groups, a
//! group's; retained, of_user, the mail journal's, the state's.

mod announce;
mod census;
mod checkpoint;
mod groups;
mod publish;
mod recover;
mod sessions;
mod topics;
mod wills;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use thinglog_journal::{Journal, Outcome as JournalOutcome};
use thinglog_schemas::Topics;
use tokio::sync::{Notify, watch};
use tokio_util::task::TaskTracker;

pub(crate) use census::Census;
pub(crate) use publish::Refusal;
pub(crate) use recover::log_end;

use crate::{
    access::Access,
    clock,
    config::Config,
    filter::DurableTopics,
    interest::Interest,
    load::{Account, Load},
    mail::Mail,
    rate::Rate,
    retained::Retained,
    session::Session,
    shared::{self, Group},
    state::{Loaded, Outcome as StateOutcome, State},
    telemetry::Telemetry,
    timers::Timers,
    tracked::Changed,
    trie::{SessionKey, Subscription, Trie},
};

/// The shared heart of the broker.
pub(crate) struct Hub {
    pub(crate) config: Config,
    pub(crate) topics: Topics,
    pub(crate) access: Arc<Access>,
    pub(crate) journal: Journal,
    pub(crate) journal_settled: watch::Receiver<u64>,
    pub(crate) state: State,
    pub(crate) mail: Mail,
    /// What all sessions' queues and windows hold.
    pub(crate) load: Arc<Load>,
    /// When no room was found although it was sought, ns since the epoch.
    no_room_at: AtomicU64,
    /// What all wills take.
    pub(crate) wills: Arc<Account>,
    /// How often a client may publish.
    pub(crate) publish_rate: Option<Rate>,
    pub(crate) durable_filters: Vec<String>,
    pub(crate) durable: DurableTopics,
    pub(crate) interest: Interest,
    pub(crate) telemetry: Telemetry,
    sessions: Mutex<HashMap<Arc<str>, Arc<Session>>>,
    /// Sessions that may have changed since the last checkpoint.
    changed: Arc<Changed<SessionKey>>,
    /// When sessions without a client end, and wills are due.
    timers: Mutex<Timers<SessionKey>>,
    /// Held while a session changes hands or ends, so that nobody takes up one that is ending.
    handover: Mutex<()>,
    by_key: RwLock<HashMap<SessionKey, Arc<Session>>>,
    /// How many sessions each user has.
    of_user: Mutex<HashMap<Arc<str>, usize>>,
    trie: RwLock<Trie<SessionKey, Subscription>>,
    shared: shared::Ordinary,
    /// Durable groups by their whole filters; changed while `handover` is held only.
    groups: Mutex<HashMap<Arc<str>, Arc<Group>>>,
    remembered: Arc<shared::Remembered>,
    /// The drivers of groups with connected members.
    pub(crate) drivers: TaskTracker,
    retained: Mutex<Retained>,
    /// Held while a retained message is set and routed, so that subscribers see the values of a topic
    /// in the order in which they replaced each other. Taken before all locks but `handover`.
    retaining: Mutex<()>,
    /// Held while a letter is posted and queued: sessions get letters in the order of their ids. Taken
    /// before all locks but `handover` and `retaining`.
    mailing: Mutex<()>,
    /// Journal offsets below this may have been unread by sessions that were lost.
    lost_below: u64,
    next_key: AtomicU64,
    /// Wills of clients that have not come back since the start, and when they are due, ns.
    orphans: Mutex<HashMap<Arc<str>, wills::Orphan>>,
    progress: Mutex<checkpoint::Progress>,
    /// Held while what it holds is announced: before all locks but `handover`.
    present: announce::Present,
}

/// What is on disk, open.
pub(crate) struct Disk {
    pub(crate) journal: Journal,
    /// Follows what the journal has settled.
    pub(crate) journal_settled: watch::Receiver<u64>,
    pub(crate) mail: Mail,
    pub(crate) state: State,
}

/// A client's session, as CONNECT left it.
pub(crate) struct Attached {
    pub(crate) session: Arc<Session>,
    pub(crate) present: bool,
    pub(crate) wake: Arc<Notify>,
    /// What CONNACK waits for: a client that is told of a session finds it again.
    pub(crate) until: Wait,
}

/// What has to be on disk before an answer goes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wait {
    /// The log, up to and including this offset.
    pub(crate) log: Option<u64>,
    /// The mail journal, up to and including this offset.
    pub(crate) mail: Option<u64>,
    /// The state, up to and including this ticket.
    pub(crate) state: Option<u64>,
}

/// Whether what an answer waits for is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    Pending,
    Stored,
    Failed,
}

/// A journal in which a sync failed. The system may have dropped what was to be synced and forget about
/// it, so that only a start, which reads what is on disk, can tell what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    Log,
    Mail,
}

impl Failed {
    pub(crate) const ALL: [Failed; 2] = [Failed::Log, Failed::Mail];

    /// In the words of the metrics: the directory's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Failed::Log => "log",
            Failed::Mail => "mail",
        }
    }

    /// What an operator is told.
    pub(crate) fn trouble(self) -> &'static str {
        match self {
            Failed::Log => {
                "a sync of the durable log failed: no publish to it is acknowledged any more; see to the \
                 disk, then start the broker again"
            }
            Failed::Mail => {
                "a sync of the queued messages failed: none of QoS 1 or 2 for a session that lasts is taken \
                 any more; see to the disk, then start the broker again"
            }
        }
    }
}

impl Hub {
    pub(crate) fn new(
        (config, access): (Config, Arc<Access>),
        topics: &Topics,
        disk: Disk,
        loaded: Loaded,
        telemetry: Telemetry,
    ) -> Hub {
        let durable_filters = config.durable_filters();
        let hub = Hub {
            durable: DurableTopics::new(&durable_filters),
            durable_filters,
            interest: Interest::new(topics),
            topics: topics.clone(),
            access,
            journal: disk.journal,
            journal_settled: disk.journal_settled,
            state: disk.state,
            mail: disk.mail,
            telemetry,
            sessions: Mutex::default(),
            changed: Arc::default(),
            timers: Mutex::default(),
            handover: Mutex::default(),
            by_key: RwLock::default(),
            of_user: Mutex::default(),
            trie: RwLock::default(),
            shared: shared::Ordinary::default(),
            groups: Mutex::default(),
            remembered: Arc::default(),
            drivers: TaskTracker::new(),
            retained: Mutex::default(),
            retaining: Mutex::default(),
            mailing: Mutex::default(),
            load: Arc::new(Load::new(config.limits.queued_bytes)),
            no_room_at: AtomicU64::new(0),
            wills: Account::new(&Arc::new(Load::new(config.limits.wills_bytes))),
            publish_rate: Rate::new(config.limits.publishes_per_second, 1),
            lost_below: loaded.lost_below,
            next_key: AtomicU64::new(1),
            orphans: Mutex::default(),
            progress: Mutex::default(),
            present: Mutex::default(),
            config,
        };
        hub.revive(loaded);
        hub
    }

    /// Sessions and retained messages held.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn sizes(&self) -> (usize, usize) {
        let sessions = self.sessions.lock().len();
        assert_eq!(sessions, self.by_key.read().len(), "one key a session");
        (sessions, self.retained.lock().len())
    }

    /// The journals that take nothing more until the broker is started again.
    pub(crate) fn failed_journals(&self) -> impl Iterator<Item = Failed> {
        let log = self.journal.stats().poisoned.then_some(Failed::Log);
        let mail = self.mail.is_poisoned().then_some(Failed::Mail);
        log.into_iter().chain(mail)
    }

    /// Whether everything an answer waits for is on disk.
    pub(crate) fn settled(&self, wait: &Wait) -> Settled {
        let journal = |outcome| match outcome {
            JournalOutcome::Pending => Settled::Pending,
            JournalOutcome::Durable => Settled::Stored,
            JournalOutcome::Failed(_) => Settled::Failed,
        };
        let state = |ticket| match self.state.outcome(ticket) {
            StateOutcome::Pending => Settled::Pending,
            StateOutcome::Stored => Settled::Stored,
            StateOutcome::Failed => Settled::Failed,
        };
        let parts = [
            wait.log.map(|offset| journal(self.journal.outcome(offset))),
            wait.mail.map(|offset| journal(self.mail.outcome(offset))),
            wait.state.map(state),
        ];
        let is = |what| parts.iter().flatten().any(|part| *part == what);
        if is(Settled::Pending) {
            Settled::Pending
        } else if is(Settled::Failed) {
            Settled::Failed
        } else {
            Settled::Stored
        }
    }

    /// Makes a session; `number` is that of one that was on disk.
    fn add_session(&self, client_id: Arc<str>, number: Option<u64>) -> Arc<Session> {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let number = number.unwrap_or_else(random_number);
        let session = Arc::new(Session::new(
            key,
            number,
            client_id.clone(),
            self.changed.clone(),
            &self.load,
        ));
        self.by_key.write().insert(key, session.clone());
        let mut sessions = self.sessions.lock();
        sessions.insert(client_id, session.clone());
        self.telemetry.sessions.set(sessions.len() as i64);
        session
    }
}

/// A number that no session on disk has; 0 is none.
fn random_number() -> u64 {
    getrandom::u64().map_or_else(|_| clock::now(), |number| number.max(1))
}
