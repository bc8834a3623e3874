//! Counts what sessions hold, for metrics and `$SYS`: one walk over all of them, now and then, beside
//! the async threads.

use std::sync::Arc;

use super::Hub;
use crate::{session::Session, sys::Now};

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    /// Sessions with a client.
    pub(crate) connected: u64,
    /// Sessions that wait for their client.
    pub(crate) away: u64,
    /// Sessions that outlive their connection.
    pub(crate) persistent: u64,
    pub(crate) subscriptions: u64,
    /// Messages in all queues.
    pub(crate) queued: u64,
    /// Records of the log that persistent sessions and groups have still to read, all together.
    pub(crate) lag: u64,
    /// The sessions and groups furthest behind, with their places in the log.
    pub(crate) furthest: Vec<(Arc<str>, u64)>,
}

impl Hub {
    /// Counts everything.
    pub(crate) fn count(&self, most: usize) -> Now {
        let census = self.census(most);
        let retained = self.retained.lock();
        Now {
            census,
            retained: retained.len() as u64,
            retained_bytes: retained.bytes() as u64,
            queued_bytes: self.load.bytes() as u64,
            mail_bytes: self.mail.bytes(),
        }
    }

    /// Counts sessions; names no more than `most` of those behind.
    fn census(&self, most: usize) -> Census {
        let settled = self.journal.settled();
        let sessions: Vec<Arc<Session>> = self.sessions.lock().values().cloned().collect();
        let mut census = Census::default();
        for session in sessions {
            let is_persistent = session.is_persistent();
            census.persistent += u64::from(is_persistent);
            let inner = session.inner.lock();
            match inner.owner {
                0 => census.away += 1,
                _ => census.connected += 1,
            }
            census.subscriptions += inner.subscriptions.len() as u64;
            census.queued += inner.queue.len() as u64;
            let position = inner.cursor.as_ref().map(|cursor| cursor.position());
            drop(inner);
            let behind = position.filter(|position| is_persistent && *position < settled);
            if let Some(position) = behind {
                census.lag += settled - position;
                census.furthest.push((session.client_id.clone(), position));
            }
        }
        for group in self.all_groups() {
            let position = group.position();
            if position < settled {
                census.lag += settled - position;
                census.furthest.push((group.share.clone(), position));
            }
        }
        census.furthest.sort_by_key(|(_, position)| *position);
        census.furthest.truncate(most);
        census
    }
}
