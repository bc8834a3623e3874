//! Credentials that change while the publisher runs: files are looked at every few seconds; when they
//! hold something new that can be used, what is in flight is awaited, and the connection is made anew.

use std::time::{Duration, Instant};

use super::Worker;
use crate::{
    connection::{Credentials, credentials::Proof},
    levels::Now,
};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long acknowledgements are awaited before the old connection ends.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// A token that ends so soon should have been renewed by now, seconds.
const WARN_AHEAD: u64 = 60;

#[derive(Debug)]
pub(super) struct Renewal {
    look_at: Instant,
    /// New credentials are there: the connection ends when nothing is in flight, or then.
    draining_until: Option<Instant>,
    /// Our own DISCONNECT is on its way.
    leaving: bool,
    /// End of the token in use, seconds since the Unix epoch, until it was warned of.
    expires: Option<u64>,
}

impl Renewal {
    pub(super) fn new(now: Instant) -> Renewal {
        Renewal {
            look_at: now,
            draining_until: None,
            leaving: false,
            expires: None,
        }
    }

    /// A connection is about to be made with this.
    pub(super) fn loaded(&mut self, proof: &Proof) {
        self.expires = proof.expires;
        self.draining_until = None;
        self.leaving = false;
    }

    /// Nothing new may be sent over this connection.
    pub(super) fn is_draining(&self) -> bool {
        self.draining_until.is_some()
    }

    /// The connection ended; whether that was the wish.
    pub(super) fn finished(&mut self) -> bool {
        self.leaving = false;
        self.draining_until.take().is_some()
    }

    pub(super) fn deadline(&self, credentials: &Credentials) -> Option<Instant> {
        let look = credentials.has_files().then_some(self.look_at);
        look.into_iter().chain(self.draining_until).min()
    }
}

impl Worker {
    pub(super) fn renewal_tick(&mut self, now: Now) {
        if !self.credentials.has_files() || self.farewell_until.is_some() {
            return;
        }
        if now.mono >= self.renewal.look_at {
            self.renewal.look_at = now.mono + LOOK_EVERY;
            self.look_at_credentials(now);
        }
        let Some(until) = self.renewal.draining_until else {
            return;
        };
        let quiet = self.outbox.window.is_quiet() && self.report_pkid.is_none();
        if now.mono >= until {
            self.down(super::Cause::Other, "", now.mono);
        } else if quiet && self.handed.is_empty() && !self.renewal.leaving {
            self.renewal.leaving = self.link.as_ref().is_some_and(|link| link.disconnect());
        }
    }

    fn look_at_credentials(&mut self, now: Now) {
        match self.credentials.look() {
            Ok(false) => {}
            Ok(true) if self.limits.is_some() => {
                tracing::info!("new credentials are there; the connection is made anew");
                self.renewal.draining_until = Some(now.mono + DRAIN_WITHIN);
            }
            // Perhaps they are what was waited for; who is connecting began with the old ones.
            Ok(true) => {
                self.link = None;
                self.backoff.reset();
                self.connect_at = now.mono;
            }
            Err(error) => {
                tracing::warn!(%error, "new credentials cannot be used; the old ones stay in use");
            }
        }
        let soon = |end: u64| {
            let wall = now.wall.map(|wall| wall / 1_000_000_000);
            wall.is_some_and(|wall| wall + WARN_AHEAD >= end)
        };
        if self.renewal.expires.is_some_and(soon) {
            self.renewal.expires = None;
            let who = self.credentials.describe();
            tracing::warn!(%who, "the token ends within a minute or has ended; nobody has renewed it");
        }
    }
}
