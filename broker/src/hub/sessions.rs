//! Sessions come, change hands, expire and go.

use std::sync::Arc;

use super::{Attached, Hub, Wait, publish::DISK_FULL};
use crate::{
    access::Pass,
    clock,
    codec::{Connect, Reason},
    load::Charge,
    session::{ConnectionId, Inner, Session, Stored},
    state::Kind,
    tracked::Guard,
    trie::SessionKey,
};

impl Hub {
    /// Gives a connection its session; a previous connection of the same client id is evicted.
    pub(crate) fn attach(
        &self,
        connect: &Connect,
        client_id: &Arc<str>,
        connection: ConnectionId,
        pass: &Arc<Pass>,
    ) -> Result<Attached, (Reason, &'static str)> {
        let _handover = self.handover.lock();
        let existing = self.sessions.lock().get(client_id).cloned();
        if existing
            .as_ref()
            .is_some_and(|session| !may_take(session, pass))
        {
            let text = "the session of this client id belongs to somebody else";
            return Err((Reason::ClientIdInvalid, text));
        }
        // A session that ends here must not come back, nor a new one be forgotten, by a crash.
        let ends_stored = existing
            .as_ref()
            .is_some_and(|session| connect.clean_start && session.inner.lock().stored);
        let resumed = existing.filter(|session| self.evict(session, connect.clean_start));
        let session = match resumed {
            Some(session) => session,
            None => {
                self.room_for_session(connect.expiry > 0, pass)
                    .map_err(|text| (Reason::QuotaExceeded, text))?;
                self.add_session(client_id.clone(), None)
            }
        };
        let mut inner = session.inner.lock();
        let present = inner.disconnected_at.is_some();
        inner.owner = connection;
        let principal = pass.principal().or(inner.principal.as_ref()).cloned();
        self.belongs_to(&mut inner, principal);
        inner.watch = self.interest.watch(pass);
        inner.pass = Some(pass.clone());
        inner.wake = Arc::default();
        inner.disconnected_at = None;
        inner.receive_maximum = connect.receive_maximum;
        let expiry = connect.expiry.min(self.config.limits.session_seconds);
        session.set_expiry(&mut inner, expiry);
        inner.will = connect.will.clone();
        inner.will_charge = match &inner.will {
            Some(will) => Charge::new(&self.wills, will.weight()),
            None => Charge::default(),
        };
        inner.will_at = None;
        self.keep_will(&session, &mut inner);
        for filter in inner.subscriptions.keys() {
            self.interest.add(filter, inner.watch);
        }
        let mut until = Wait::default();
        if inner.is_persistent() {
            let ticket = self.store(&session, &mut inner);
            until.state = (!present).then_some(ticket);
        } else if inner.stored || ends_stored {
            until.state = Some(self.unstore(&session.client_id));
            inner.stored = false;
        }
        self.rejoin_groups(&session, &mut inner);
        let wake = inner.wake.clone();
        drop(inner);
        Ok(Attached {
            session,
            present,
            wake,
            until,
        })
    }

    /// Whether there may be another session; the reason if not.
    fn room_for_session(&self, lasts: bool, pass: &Pass) -> Result<(), &'static str> {
        let limits = &self.config.limits;
        let of_user = pass
            .principal()
            .and_then(|user| self.of_user.lock().get(user).copied());
        if self.sessions.lock().len() >= limits.sessions {
            Err("no room for another session")
        } else if limits.sessions_per_user > 0 && of_user >= Some(limits.sessions_per_user) {
            Err("too many sessions of one user")
        } else if lasts && !self.state.accepts() {
            Err(DISK_FULL)
        } else {
            Ok(())
        }
    }

    /// Notes whose session it is, which counts among theirs.
    pub(super) fn belongs_to(&self, inner: &mut Inner, principal: Option<Arc<str>>) {
        let mut of_user = self.of_user.lock();
        if let Some(before) = inner.principal.take()
            && let Some(count) = of_user.get_mut(&before)
        {
            *count -= 1;
            if *count == 0 {
                of_user.remove(&before);
            }
        }
        if let Some(user) = &principal {
            *of_user.entry(user.clone()).or_default() += 1;
        }
        inner.principal = principal;
    }

    /// After a reload: rings every connected client, to look at what it may do now; renews what is known
    /// of those that are away.
    pub(crate) fn renew_everybody(&self) {
        let sessions: Vec<Arc<Session>> = self.sessions.lock().values().cloned().collect();
        for session in sessions {
            let mut inner = session.inner.lock();
            let renewed = match &inner.pass {
                // One that may not log in any more keeps what it has; it gets nothing delivered.
                Some(pass) if inner.owner == 0 => self.access.renew(pass).ok(),
                _ => None,
            };
            inner.pass = renewed.or(inner.pass.take());
            inner.wake.notify_one();
        }
    }

    /// Counts what a connected client watches by its new rights.
    pub(crate) fn watch_anew(&self, inner: &mut Inner, pass: &Pass) {
        let (old, new) = (inner.watch, self.interest.watch(pass));
        if old == new {
            return;
        }
        for filter in inner.subscriptions.keys() {
            self.interest.remove(filter, old);
            self.interest.add(filter, new);
        }
        inner.watch = new;
    }

    /// Takes a session from the connection that owns it, if one does. False when the session ends
    /// with that: a clean start, or one that was not to outlive its connection.
    fn evict(&self, session: &Arc<Session>, clean_start: bool) -> bool {
        let now = clock::now();
        let mut inner = session.inner.lock();
        if inner.owner != 0 {
            self.release(session, &mut inner, now);
            inner.wake.notify_one();
        }
        let expired = inner.expires_at().is_some_and(|at| at <= now);
        let ends = clean_start || expired || !inner.is_persistent();
        self.part(session, inner, ends, now);
        !ends
    }

    /// The connection is gone: the session and the delay of its will start to run.
    fn release(&self, session: &Session, inner: &mut Inner, now: u64) {
        inner.leave_groups(now);
        inner.owner = 0;
        inner.disconnected_at = Some(now);
        inner.will_at = inner
            .will
            .as_ref()
            .map(|will| now.saturating_add(u64::from(will.delay) * 1_000_000_000));
        for filter in inner.subscriptions.keys() {
            self.interest.remove(filter, inner.watch);
        }
        if inner.is_persistent() {
            self.store(session, inner);
        }
    }

    /// What follows the end of a connection: the session is forgotten, or its will sent if due.
    fn part(
        &self,
        session: &Arc<Session>,
        mut inner: Guard<'_, SessionKey, Inner>,
        ends: bool,
        now: u64,
    ) {
        let due = inner.take_due_will(now);
        if inner.will.is_none() {
            self.drop_will(session, &mut inner);
        }
        let pass = inner.pass.clone();
        drop(inner);
        if let Some(will) = due {
            self.publish_will(&session.client_id, pass.as_ref(), will);
        }
        if ends {
            self.forget(session);
        }
    }

    /// Ends a connection's hold on its session; the will of a `polite` client is not sent.
    pub(crate) fn detach(&self, session: &Arc<Session>, connection: ConnectionId, polite: bool) {
        let _handover = self.handover.lock();
        let now = clock::now();
        let mut inner = session.inner.lock();
        if inner.owner != connection {
            return;
        }
        if polite {
            inner.renounce_will();
        }
        self.release(session, &mut inner, now);
        let ends = !inner.is_persistent();
        self.part(session, inner, ends, now);
    }

    /// Removes a session with everything it has; a will that waited is sent
    /// (MQTT 5.0 section 3.1.3.2.2).
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
        let mut inner = std::mem::take(&mut *session.inner.lock());
        inner.leave_groups(clock::now());
        self.belongs_to(&mut inner, None);
        for filter in inner.subscriptions.keys() {
            self.unroute(session, filter);
            self.forget_member(session.key, filter);
        }
        let orphans = inner.abandon(&self.mail);
        if inner.stored {
            self.unstore(&session.client_id);
        }
        self.pass_on(orphans);
        self.drop_will(session, &mut inner);
        if let Some(will) = inner.will {
            self.publish_will(&session.client_id, inner.pass.as_ref(), will);
        }
    }

    /// Removes every session.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn forget_all(&self) {
        let _handover = self.handover.lock();
        let sessions: Vec<Arc<Session>> = self.sessions.lock().values().cloned().collect();
        for session in sessions {
            self.forget(&session);
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
            Some(Stored::of(session.number, inner).encode()),
        )
    }

    /// Queues the removal of everything a session has on disk.
    fn unstore(&self, client_id: &str) -> u64 {
        for kind in [Kind::Cursor, Kind::Outgoing, Kind::Inbound] {
            self.state.change(kind, client_id, None);
        }
        self.state.change(Kind::Session, client_id, None)
    }

    /// The oldest offset that some session or group has still to read; `None` when none reads the log.
    pub(crate) fn unread_from(&self) -> Option<u64> {
        let sessions: Vec<Arc<Session>> = self.sessions.lock().values().cloned().collect();
        let positions = sessions
            .iter()
            .filter_map(|session| Some(session.inner.lock().cursor.as_ref()?.position()));
        let groups = self.all_groups();
        positions
            .chain(groups.iter().map(|group| group.position()))
            .min()
    }

    /// Sends the will of a disconnected client that is due, forgets the session when its time is over.
    pub(super) fn see_to_absent(&self, session: &Arc<Session>, now: u64) {
        let is_over = |inner: &Inner| inner.expires_at().is_some_and(|at| at <= now);
        let is_due = |inner: &Inner| inner.will_at.is_some_and(|at| at <= now);
        {
            let inner = session.inner.lock();
            if !is_over(&inner) && !is_due(&inner) {
                return;
            }
        }
        let _handover = self.handover.lock();
        let inner = session.inner.lock();
        let ends = is_over(&inner);
        if ends {
            self.telemetry.session_expired();
        }
        self.part(session, inner, ends, now);
    }
}

/// Whether a client may take up a session: its own, or one whose time is over anyway.
fn may_take(session: &Session, pass: &Pass) -> bool {
    let inner = session.inner.lock();
    inner.expires_at().is_some_and(|at| at <= clock::now())
        || pass.may_take(inner.principal.as_deref())
}
