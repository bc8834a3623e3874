//! Sessions come, change hands, expire and go.

use std::sync::Arc;

use super::{Attached, Hub};
use crate::{
    clock,
    codec::{Connect, Reason, Will},
    session::{ConnectionId, Inner, Session, Stored},
    state::Kind,
};
use thinglog_journal::cursor::Cursor;

impl Hub {
    /// Gives a connection its session; a previous connection of the same client id is evicted.
    pub(crate) fn attach(
        &self,
        connect: &Connect,
        client_id: &Arc<str>,
        connection: ConnectionId,
    ) -> Result<Attached, Reason> {
        let _handover = self.handover.lock();
        let existing = self.sessions.lock().get(client_id).cloned();
        let resumed = existing.filter(|session| self.evict(session, connect.clean_start));
        let session = match resumed {
            Some(session) => session,
            None if self.sessions.lock().len() >= self.config.limits.sessions => {
                return Err(Reason::QuotaExceeded);
            }
            None => self.add_session(client_id.clone()),
        };
        let mut inner = session.inner.lock();
        let present = inner.disconnected_at.is_some();
        inner.owner = connection;
        inner.disconnected_at = None;
        inner.expiry = connect.expiry.min(self.config.limits.session_seconds);
        inner.will = connect.will.clone();
        for filter in inner.subscriptions.keys() {
            self.interest.add(filter);
        }
        if inner.is_persistent() {
            self.store(&session, &mut inner);
        }
        drop(inner);
        Ok(Attached { session, present })
    }

    /// Takes a session from the connection that owns it, if one does. False when the session ends
    /// with that: a clean start, or one that was not to outlive its connection.
    fn evict(&self, session: &Arc<Session>, clean_start: bool) -> bool {
        let mut inner = session.inner.lock();
        let mut will = None;
        if inner.owner != 0 {
            will = self.release(session, &mut inner);
            session.wake.notify_one();
        }
        let expired = inner
            .expires_at(self.config.limits.session_seconds)
            .is_some_and(|at| at <= clock::now());
        let ends = clean_start || expired || !inner.is_persistent();
        drop(inner);
        if ends {
            self.forget(session);
        }
        if let Some(will) = will.filter(|will| ends || will.delay == 0) {
            self.publish_will(&session.client_id, will);
        }
        !ends
    }

    /// The connection is gone: its will is given back, the session starts to expire.
    fn release(&self, session: &Session, inner: &mut Inner) -> Option<Will> {
        inner.owner = 0;
        inner.disconnected_at = Some(clock::now());
        for filter in inner.subscriptions.keys() {
            self.interest.remove(filter);
        }
        if inner.is_persistent() {
            self.store(session, inner);
        }
        inner.will.take()
    }

    /// Ends a connection's hold on its session. Gives the will that is to be published.
    pub(crate) fn detach(&self, session: &Arc<Session>, connection: ConnectionId) -> Option<Will> {
        let _handover = self.handover.lock();
        let mut inner = session.inner.lock();
        if inner.owner != connection {
            return None;
        }
        let will = self.release(session, &mut inner);
        let ends = !inner.is_persistent();
        drop(inner);
        if ends {
            self.forget(session);
        }
        will
    }

    /// Removes a session with everything it has.
    fn forget(&self, session: &Arc<Session>) {
        let mut sessions = self.sessions.lock();
        if sessions
            .get(&session.client_id)
            .is_some_and(|current| current.key == session.key)
        {
            sessions.remove(&session.client_id);
        }
        self.telemetry.sessions.set(sessions.len() as i64);
        drop(sessions);
        self.by_key.write().remove(&session.key);
        let inner = std::mem::take(&mut *session.inner.lock());
        let mut trie = self.trie.write();
        for filter in inner.subscriptions.keys() {
            trie.remove(filter, session.key);
        }
        drop(trie);
        if inner.stored {
            self.state.change(Kind::Session, &session.client_id, None);
            self.state.change(Kind::Cursor, &session.client_id, None);
        }
    }

    /// Queues the session's record for the disk.
    pub(crate) fn store(&self, session: &Session, inner: &mut Inner) -> u64 {
        inner.stored = true;
        if let Some(cursor) = &inner.cursor {
            self.state
                .change(Kind::Cursor, &session.client_id, Some(cursor.encode()));
        }
        self.state.change(
            Kind::Session,
            &session.client_id,
            Some(Stored::of(inner).encode()),
        )
    }

    /// Queues the cursors that moved for the disk; sessions whose time is over are forgotten.
    pub(crate) fn checkpoint(&self) {
        let sessions: Vec<Arc<Session>> = self.sessions.lock().values().cloned().collect();
        let now = clock::now();
        for session in sessions {
            let mut inner = session.inner.lock();
            if inner.cursor_moved && inner.is_persistent() {
                inner.cursor_moved = false;
                let cursor = inner.cursor.as_ref().map(Cursor::encode);
                self.state.change(Kind::Cursor, &session.client_id, cursor);
            }
            drop(inner);
            self.forget_expired(&session, now);
        }
    }

    fn forget_expired(&self, session: &Arc<Session>, now: u64) {
        let is_over = |inner: &Inner| {
            inner
                .expires_at(self.config.limits.session_seconds)
                .is_some_and(|at| at <= now)
        };
        if !is_over(&session.inner.lock()) {
            return;
        }
        let _handover = self.handover.lock();
        let over = is_over(&session.inner.lock());
        if over {
            self.forget(session);
        }
    }
}
