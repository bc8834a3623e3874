//! What is remembered of one device, group or fleet of a rule, and how that changes. Pure.
//!
//! Windows go by `received`, the broker's own clock: see the head of [`super`].

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::rule::Kind;

/// Receivers of a rule as bits, by their places in its `to`.
pub(crate) type Receivers = u32;

/// One key of a rule.
#[derive(Debug, Default)]
pub(crate) struct Track {
    /// When the last events of a count were received, oldest first; no more than it takes.
    times: VecDeque<u64>,
    /// How many of these, the newest ones, are not in the state yet.
    unkept: usize,
    /// When a rule that waits for silence heard of the device; 0: not in this life.
    pub(crate) heard: u64,
    /// Since when the silence is measured; 0: it is not yet.
    since: u64,
    /// The device is to say something.
    pub(crate) is_expected: bool,
    pub(crate) alert: Option<Alert>,
}

/// An alert: open, or over and not told to everybody.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Alert {
    pub(crate) id: String,
    /// When the event that opened it was received, ns since the Unix epoch.
    pub(crate) starts: u64,
    /// The same of its last event.
    pub(crate) last: u64,
    /// When it was over.
    pub(crate) ends: Option<u64>,
    /// Its events.
    pub(crate) count: u64,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// Who was told and will hear of its end.
    pub(crate) told: Receivers,
    /// Who is to be told.
    pub(crate) to_tell: Receivers,
    /// Before this time nobody is told again.
    pub(crate) quiet_until: u64,
    /// There is something to tell then.
    pub(crate) is_held: bool,
}

/// What the state keeps of a key at a commit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Times behind those that are kept already.
    times: Vec<u64>,
    alert: Option<Alert>,
}

impl Alert {
    /// Whether it is not over.
    pub(crate) fn is_open(&self) -> bool {
        self.ends.is_none()
    }

    /// Whether a receiver is to be told that it is over.
    pub(crate) fn end_waits_for(&self, receiver: Receivers) -> bool {
        !self.is_open() && self.told & receiver != 0
    }

    /// Whether nobody has anything to hear any more.
    fn is_done(&self) -> bool {
        !self.is_open() && self.told == 0 && self.to_tell == 0 && !self.is_held
    }
}

impl Track {
    /// An event was received at `at`; says whether the rule holds with it.
    pub(crate) fn note(&mut self, kind: Kind, at: u64) -> bool {
        let (events, within) = match kind {
            Kind::Match { .. } => return true,
            Kind::Silence { .. } => {
                (self.heard, self.since) = (at, self.since.max(at));
                return false;
            }
            Kind::Count { events, within } => (events, within),
        };
        self.times.push_back(at);
        if self.times.len() > events {
            self.times.pop_front();
        }
        self.unkept = (self.unkept + 1).min(self.times.len());
        self.times.len() == events && at.saturating_sub(self.oldest()) < within
    }

    fn oldest(&self) -> u64 {
        self.times.front().copied().unwrap_or_default()
    }

    /// Silence is measured from `at` on, or from a later event.
    pub(crate) fn measure_from(&mut self, at: u64) {
        self.since = self.since.max(at);
    }

    /// Since when the device has been silent, if that is long enough by `at`.
    pub(crate) fn silent_since(&mut self, kind: Kind, at: u64) -> Option<u64> {
        let Kind::Silence { after } = kind else {
            return None;
        };
        if self.since == 0 {
            self.since = at;
        }
        let is_silent = self.is_expected && at.saturating_sub(self.since) >= after;
        is_silent.then_some(self.since)
    }

    /// Events that an alert begins with.
    pub(crate) fn events(&self) -> u64 {
        self.times.len().max(1) as u64
    }

    /// When the alert is over if no further event comes.
    pub(crate) fn over_at(&self, kind: Kind) -> Option<u64> {
        let alert = self.alert.as_ref().filter(|alert| alert.is_open())?;
        Some(match kind {
            Kind::Match { over_after } => alert.last.saturating_add(over_after),
            Kind::Count { within, .. } => self.oldest().saturating_add(within),
            Kind::Silence { .. } if self.heard > alert.last => self.heard,
            Kind::Silence { .. } => return None,
        })
    }

    /// Ends the alert if it is over by `at`; says whether it did.
    pub(crate) fn settle(&mut self, kind: Kind, at: u64) -> bool {
        let over = self.over_at(kind).filter(|over| *over <= at);
        match (&mut self.alert, over) {
            (Some(alert), Some(over)) => {
                alert.ends = Some(over);
                true
            }
            _ => false,
        }
    }

    /// The alert that goes on with another event, with which the rule holds or not: an open one, or one
    /// of which there is still something to tell, which is open again.
    pub(crate) fn goes_on(&mut self, holds: bool) -> Option<&mut Alert> {
        let goes_on = |alert: &&mut Alert| alert.is_open() || holds && !alert.is_done();
        let alert = self.alert.as_mut().filter(goes_on)?;
        alert.ends = None;
        Some(alert)
    }

    /// Whether nothing has to be remembered; `now` and `at` are the clock and what was received.
    pub(crate) fn is_idle(&self, kind: Kind, now: u64, at: u64) -> bool {
        let is_quiet = self
            .alert
            .as_ref()
            .is_none_or(|alert| alert.is_done() && alert.quiet_until <= now);
        let newest = self.times.back().copied();
        let is_past = match kind {
            Kind::Match { .. } => true,
            Kind::Silence { .. } => !self.is_expected,
            Kind::Count { within, .. } => newest.is_none_or(|it| it.saturating_add(within) <= at),
        };
        is_quiet && is_past
    }

    /// What changed since the last time.
    pub(crate) fn take_changes(&mut self) -> Kept {
        let from = self.times.len() - self.unkept;
        self.unkept = 0;
        Kept {
            times: self.times.range(from..).copied().collect(),
            alert: self.alert.clone(),
        }
    }

    /// Everything.
    pub(crate) fn whole(&self) -> Kept {
        Kept {
            times: self.times.iter().copied().collect(),
            alert: self.alert.clone(),
        }
    }

    /// Repeats a change of the past. `bits` translates receivers of then into those of now.
    pub(crate) fn replay(&mut self, kept: Kept, kind: Kind, bits: impl Fn(Receivers) -> Receivers) {
        if let Kind::Count { events, .. } = kind {
            self.times.extend(kept.times);
            let surplus = self.times.len().saturating_sub(events);
            self.times.drain(..surplus);
        }
        self.alert = kept.alert.map(|alert| Alert {
            told: bits(alert.told),
            to_tell: bits(alert.to_tell),
            ..alert
        });
    }
}
