//! What goes to disk behind the clients' backs, a few times a second: cursors, outstanding letters,
//! packet ids of QoS 2. Nothing is acknowledged on the strength of it: it bounds what is delivered
//! again and read again after a crash.

use std::sync::Arc;

use thinglog_journal::{Outcome, cursor::Cursor};

use super::Hub;
use crate::{
    clock,
    inbound::{Marks, Place},
    outgoing::Outgoing,
    session::{Inner, Session},
    state::{Kind, Outcome as StateOutcome},
};

/// The journals' marks are stored at most this often, ns.
const MARKS_EVERY: u64 = 1_000_000_000;

/// How far the marks on disk are.
#[derive(Debug, Default)]
pub(super) struct Progress {
    queued: Marks,
    /// When marks were queued last, ns since the epoch.
    at: u64,
    /// Ticket of the queued marks, while it is not settled.
    ticket: Option<u64>,
    stored: Marks,
}

impl Hub {
    /// Queues for the disk what moved; wills that are due are sent, sessions whose time is over
    /// forgotten.
    pub(crate) fn checkpoint(&self) {
        let sessions: Vec<Arc<Session>> = self.sessions.lock().values().cloned().collect();
        let now = clock::now();
        let marks = {
            // Whatever has been posted has also been noted in its session.
            let _mailing = self.mailing.lock();
            Marks {
                log: self.journal.settled(),
                mail: self.mail.settled(),
            }
        };
        for session in sessions {
            let mut inner = session.inner.lock();
            if inner.is_persistent() {
                self.store_progress(&session, &mut inner, marks);
            }
            drop(inner);
            self.see_to_absent(&session, now);
        }
        self.send_orphans(now);
        self.store_marks(marks, now);
    }

    fn store_progress(&self, session: &Session, inner: &mut Inner, marks: Marks) {
        let id = &*session.client_id;
        if std::mem::take(&mut inner.cursor_moved) {
            let cursor = inner.cursor.as_ref().map(Cursor::encode);
            self.state.change(Kind::Cursor, id, cursor);
        }
        if inner.mail_changed {
            self.store_outgoing(session, inner);
        }
        if inner.inbound.changed {
            let ids = inner
                .inbound
                .checkpoint(marks, |place| self.is_durable(place));
            self.state.change(Kind::Inbound, id, Some(ids));
        }
        if !inner.unscanned.is_empty() && inner.has_retained() {
            inner.unscanned.clear();
            self.store(session, inner);
        }
    }

    fn is_durable(&self, place: Place) -> bool {
        let outcome = match place {
            Place::Memory => return false,
            Place::Log(offset) => self.journal.outcome(offset),
            Place::Mail(offset) => self.mail.outcome(offset),
        };
        outcome == Outcome::Durable
    }

    /// Queues what is under way to a session's client for the disk.
    pub(crate) fn store_outgoing(&self, session: &Session, inner: &mut Inner) -> u64 {
        inner.mail_changed = false;
        inner.given_up = 0;
        let bytes = Outgoing::of(inner).encode();
        self.state
            .change(Kind::Outgoing, &session.client_id, Some(bytes))
    }

    fn store_marks(&self, marks: Marks, now: u64) {
        let mut progress = self.progress.lock();
        if progress
            .ticket
            .is_some_and(|ticket| self.state.outcome(ticket) == StateOutcome::Stored)
        {
            progress.stored = progress.queued;
            progress.ticket = None;
        }
        if marks == progress.queued || now.saturating_sub(progress.at) < MARKS_EVERY {
            return;
        }
        progress.queued = marks;
        progress.at = now;
        // Behind the sessions' packet ids, which are complete up to the marks.
        progress.ticket = Some(
            self.state
                .change(Kind::Marks, "journals", Some(marks.encode())),
        );
    }

    /// Gives the state everything again when the disk has lost what memory still has.
    pub(crate) fn renew_state(&self) {
        if !self.state.wants_everything() {
            return;
        }
        self.store_all_retained();
        let sessions: Vec<Arc<Session>> = self.sessions.lock().values().cloned().collect();
        for session in sessions {
            let mut inner = session.inner.lock();
            inner.inbound.changed = true;
            if inner.stored {
                self.store(&session, &mut inner);
                self.store_outgoing(&session, &mut inner);
            }
            self.store_will(&session, &inner);
        }
        self.store_orphans();
        *self.progress.lock() = Progress::default();
        // Packet ids and marks.
        self.checkpoint();
        self.state.gave_everything();
    }

    /// Deletes what nobody needs any more from the mail journal (blocking).
    pub(crate) fn tidy_mail(&self) -> std::io::Result<()> {
        let mark = self.progress.lock().stored.mail;
        self.mail.upkeep(mark)
    }
}
