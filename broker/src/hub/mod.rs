//! What connections share: sessions, subscriptions, retained messages, the journal and the state on
//! disk. Every method is quick and none waits for the disk, but for a subscription that starts at a
//! point in time: finding that reads a few blocks of the journal, under no lock.

mod sessions;
mod topics;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use thinglog_journal::{Journal, cursor::Cursor};
use thinglog_schemas::Topics;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use crate::{
    access::Access,
    clock,
    config::Config,
    feed::{DurableTopics, may_be_durable},
    interest::Interest,
    message::Message,
    record::Record,
    retained::Retained,
    session::{Inner, Session, Stored},
    state::{Loaded, State},
    telemetry::Telemetry,
    trie::{SessionKey, Trie},
};

/// The shared heart of the broker.
pub(crate) struct Hub {
    pub(crate) config: Config,
    pub(crate) access: Access,
    pub(crate) journal: Journal,
    pub(crate) journal_settled: watch::Receiver<u64>,
    pub(crate) state: State,
    pub(crate) durable_filters: Vec<String>,
    pub(crate) durable: DurableTopics,
    pub(crate) interest: Interest,
    pub(crate) telemetry: Telemetry,
    sessions: Mutex<HashMap<Arc<str>, Arc<Session>>>,
    /// Held while a session changes hands or ends, so that nobody takes up one that is ending.
    handover: Mutex<()>,
    by_key: RwLock<HashMap<SessionKey, Arc<Session>>>,
    trie: RwLock<Trie>,
    retained: Mutex<Retained>,
    /// Held while a retained message is set and routed, so that subscribers see the values of a topic
    /// in the order in which they replaced each other. Taken before all locks but `handover`.
    retaining: Mutex<()>,
    /// Journal offsets below this may have been unread by sessions that were lost.
    lost_below: u64,
    next_key: AtomicU64,
}

/// A client's session, as CONNECT left it.
pub(crate) struct Attached {
    pub(crate) session: Arc<Session>,
    pub(crate) present: bool,
    pub(crate) wake: Arc<Notify>,
}

/// What a publish waits for before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    Nothing,
    /// The journal, up to and including this offset.
    Journal(u64),
    /// A ticket of the state.
    State(u64),
}

impl Hub {
    pub(crate) fn new(
        (config, access): (Config, Access),
        topics: &Topics,
        journal: Journal,
        journal_settled: watch::Receiver<u64>,
        state: State,
        loaded: Loaded,
        telemetry: Telemetry,
    ) -> Hub {
        let durable_filters = config.durable_filters();
        let hub = Hub {
            durable: DurableTopics::new(&durable_filters),
            durable_filters,
            interest: Interest::new(topics),
            access,
            journal,
            journal_settled,
            state,
            telemetry,
            sessions: Mutex::default(),
            handover: Mutex::default(),
            by_key: RwLock::default(),
            trie: RwLock::default(),
            retained: Mutex::default(),
            retaining: Mutex::default(),
            lost_below: loaded.lost_below,
            next_key: AtomicU64::new(1),
            config,
        };
        hub.revive(loaded);
        hub
    }

    /// Takes up what the last run left on disk.
    fn revive(&self, mut loaded: Loaded) {
        let now = clock::now();
        let mut retained = self.retained.lock();
        for (topic, bytes) in &loaded.retained {
            match Record::decode(bytes) {
                Some(record) => retained.set(Arc::new(Message {
                    topic: topic.as_str().into(),
                    payload: Bytes::copy_from_slice(record.payload),
                    qos: record.qos,
                    retain: true,
                    expires: record.expires,
                    client: record.client,
                    properties: Bytes::copy_from_slice(record.properties),
                })),
                None => warn!(
                    topic,
                    "a retained message on disk cannot be read and is left out"
                ),
            }
        }
        self.telemetry.retained.set(retained.len() as i64);
        drop(retained);
        for (client_id, bytes) in loaded.sessions {
            let Some(stored) = Stored::decode(&bytes) else {
                warn!(
                    client = client_id,
                    "a session on disk cannot be read and is left out"
                );
                continue;
            };
            let mut inner = stored.revive(now, self.config.limits.session_seconds);
            inner.cursor = match loaded
                .cursors
                .remove(&client_id)
                .map(|bytes| Cursor::decode(&bytes))
            {
                Some(Some(cursor)) => Some(self.within_journal(&client_id, &mut inner, cursor)),
                Some(None) => {
                    warn!(
                        client = client_id,
                        "a cursor on disk cannot be read; its session starts at the oldest record"
                    );
                    Some(Cursor::at(self.journal.first()))
                }
                None if inner
                    .subscriptions
                    .keys()
                    .any(|filter| may_be_durable(filter, &self.durable_filters)) =>
                {
                    Some(Cursor::at(self.journal.first()))
                }
                None => None,
            };
            let session = self.add_session(client_id.as_str().into());
            let mut trie = self.trie.write();
            for (filter, subscription) in &inner.subscriptions {
                trie.insert(filter, session.key, subscription.clone());
            }
            *session.inner.lock() = inner;
        }
        let sessions = self.sessions.lock().len();
        if sessions > 0 {
            info!(sessions, "sessions restored");
        }
    }

    /// A cursor beyond the end of the journal comes from before a loss: the offsets from there on
    /// are given again, to records that this session has never seen.
    fn within_journal(&self, client_id: &str, inner: &mut Inner, cursor: Cursor) -> Cursor {
        let next = self.journal.next();
        if cursor.highest() <= next {
            return cursor;
        }
        warn!(
            client = client_id,
            cursor = cursor.highest(),
            next,
            "the durable log ends before what a session has read: it goes on at the end of the log"
        );
        inner.cursor_moved = true;
        Cursor::at(cursor.position().min(next))
    }

    fn add_session(&self, client_id: Arc<str>) -> Arc<Session> {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let session = Arc::new(Session::new(key, client_id.clone()));
        self.by_key.write().insert(key, session.clone());
        let mut sessions = self.sessions.lock();
        sessions.insert(client_id, session.clone());
        self.telemetry.sessions.set(sessions.len() as i64);
        session
    }
}
