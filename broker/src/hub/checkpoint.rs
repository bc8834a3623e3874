//! What goes to disk behind the clients' backs, a few times a second: cursors, outstanding letters,
//! packet ids of QoS 2. Nothing is acknowledged on the strength of it: it bounds what is delivered
//! again and read again after a crash.

use std::sync::Arc;

use thinglog_journal::{Outcome, cursor::Cursor};

use super::Hub;
use crate::{
    clock,
    config::OnFull,
    inbound::{Marks, Place},
    outgoing::Outgoing,
    session::{Inner, Session},
    state::{Kind, Outcome as StateOutcome},
};

/// The journals' marks are stored at most this often, ns.
const MARKS_EVERY: u64 = 1_000_000_000;

/// How far what is on disk has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    queued: Reach,
    /// When marks were queued last, ns since the epoch.
    at: u64,
    /// Ticket of the queued marks, while it is not settled.
    ticket: Option<u64>,
    stored: Reach,
}

/// What one checkpoint covers: once it is on disk, nothing below is needed after a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reach {
    marks: Marks,
    /// The oldest letter that somebody waited for; `None` when nobody did.
    letter: Option<u64>,
    /// The oldest record that a session had to read, where that decides what may go; `None` when no
    /// session reads the log.
    unread: Option<u64>,
}

impl Hub {
    /// Queues for the disk what moved; wills that are due are sent, sessions whose time is over
    /// forgotten.
    pub(crate) fn checkpoint(&self) {
        self.checkpoint_marks(MARKS_EVERY);
    }

    /// The same when nothing comes any more: the marks are stored however short ago they were.
    pub(crate) fn last_checkpoint(&self) {
        self.checkpoint_marks(0);
    }

    /// `every`: how long the marks wait after they were stored, ns.
    fn checkpoint_marks(&self, every: u64) {
        let now = clock::now();
        let unread = match self.config.retention.on_full {
            OnFull::Refuse => self.unread_from(),
            OnFull::Cut => None,
        };
        let reach = {
            // Whatever has been posted has also been noted in its session.
            let _mailing = self.mailing.lock();
            Reach {
                marks: Marks {
                    log: self.journal.settled(),
                    mail: self.mail.settled(),
                },
                letter: self.mail.oldest(),
                unread,
            }
        };
        // Taken after the reach: what changes from here on lies beyond it.
        for key in self.changed.take() {
            let session = self.by_key.read().get(&key).cloned();
            let mut due = None;
            if let Some(session) = session {
                session.inner.settle(|inner| {
                    due = inner.next_due();
                    inner.is_persistent() && self.store_progress(&session, inner, reach.marks)
                });
            }
            self.timers.lock().set(key, due);
        }
        self.see_to_due(now);
        self.checkpoint_groups(now);
        self.send_orphans(now);
        self.store_marks(reach, now, every);
    }

    /// Sends the wills that are due and forgets the sessions whose time is over.
    fn see_to_due(&self, now: u64) {
        loop {
            let Some(key) = self.timers.lock().next_due(now) else {
                return;
            };
            let session = self.by_key.read().get(&key).cloned();
            if let Some(session) = session {
                self.see_to_absent(&session, now);
                // Whatever is left comes later, so that this comes to an end.
                let due = session.inner.lock().next_due();
                let due = due.map(|due| due.max(now + 1));
                self.timers.lock().set(key, due);
            }
        }
    }

    /// Queues what moved; whether more will have to be when the journals have settled further.
    fn store_progress(&self, session: &Session, inner: &mut Inner, marks: Marks) -> bool {
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
        inner.inbound.changed
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

    fn store_marks(&self, reach: Reach, now: u64, every: u64) {
        let mut progress = self.progress.lock();
        if progress
            .ticket
            .is_some_and(|ticket| self.state.outcome(ticket) == StateOutcome::Stored)
        {
            progress.stored = progress.queued;
            progress.ticket = None;
        }
        if reach == progress.queued || now.saturating_sub(progress.at) < every {
            return;
        }
        progress.queued = reach;
        progress.at = now;
        // Behind the sessions' packet ids, which are complete up to the marks.
        progress.ticket = Some(self.state.change(
            Kind::Marks,
            "journals",
            Some(reach.marks.encode()),
        ));
    }

    /// Gives the state everything again when the disk has lost what memory still has.
    pub(crate) fn renew_state(&self) {
        let Some(request) = self.state.wants_everything() else {
            return;
        };
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
        self.store_all_groups();
        self.store_orphans();
        *self.progress.lock() = Progress::default();
        // Packet ids and marks.
        self.checkpoint();
        self.state.gave_everything(request);
    }

    /// Deletes what nobody needs any more from the mail journal (blocking): letters only once it is on
    /// disk that they were settled, packet ids once they are in a checkpoint.
    pub(crate) fn tidy_mail(&self) -> std::io::Result<()> {
        let stored = self.progress.lock().stored;
        let letter = stored.letter.unwrap_or(u64::MAX);
        self.mail.upkeep(stored.marks.mail.min(letter))
    }

    /// Below this nobody needs the log after a crash either; `None` when no session reads it.
    pub(crate) fn released_to(&self) -> Option<u64> {
        let stored = self.progress.lock().stored;
        let unread = self.unread_from()?.min(stored.unread?);
        Some(unread.min(stored.marks.log))
    }
}
