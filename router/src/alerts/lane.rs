//! The way from a rule to one of its receivers: what waits to be told there. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::rule::Rule;
use super::track::{Alert, Receivers, Track};

/// Notifications of a rule that a receiver may have before it; what comes then is gathered into one.
pub(super) const UNSENT: usize = 8;
/// Alerts of one post to Alertmanager.
pub(super) const POSTED: usize = 500;
/// How often Alertmanager is told again that alerts fire, ns.
pub(super) const REPEAT_EVERY: u64 = 60_000_000_000;
/// How long it believes that: some repetitions may fail.
pub(super) const BELIEVED_FOR: u64 = 4 * REPEAT_EVERY;

/// The way from a rule to one of its receivers.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// The receiver is an Alertmanager, which gathers and repeats by itself.
    pub(super) is_alertmanager: bool,
    /// When it is told again what fires.
    pub(super) repeat_at: u64,
    /// Keys of which there is something to tell.
    pub(super) waiting: BTreeSet<Arc<str>>,
    /// When it is told.
    pub(super) tell_at: u64,
    /// The first events of what waits.
    pub(super) events: Vec<Value>,
    pub(super) unsent: usize,
}

impl Lane {
    pub(super) fn may_tell(&self) -> bool {
        !self.waiting.is_empty() && self.unsent < UNSENT
    }

    /// Takes the first keys of what waits.
    pub(super) fn take_waiting(&mut self, most: usize) -> BTreeSet<Arc<str>> {
        let rest = match self.waiting.iter().nth(most).cloned() {
            Some(first) => self.waiting.split_off(&first),
            None => BTreeSet::new(),
        };
        std::mem::replace(&mut self.waiting, rest)
    }

    /// An Alertmanager gathers by itself.
    fn wait(&mut self, key: &Arc<str>, rule: &Rule, now: u64) {
        if self.waiting.is_empty() {
            let wait = if self.is_alertmanager {
                0
            } else {
                rule.group_wait
            };
            self.tell_at = now.saturating_add(wait);
        }
        self.waiting.insert(Arc::clone(key));
    }
}

/// Has everybody told of an alert, unless its cooldown holds that up; says whether it does not.
pub(super) fn offer(
    lanes: &mut [Lane],
    rule: &Rule,
    key: &Arc<str>,
    alert: &mut Alert,
    now: u64,
) -> bool {
    // A clock that was put back holds up nobody for longer than the cooldown.
    let most = now.saturating_add(rule.cooldown);
    alert.quiet_until = alert.quiet_until.min(most);
    alert.is_held = now < alert.quiet_until;
    if alert.is_held {
        return false;
    }
    alert.quiet_until = most;
    for (at, lane) in lanes.iter_mut().enumerate() {
        let bit: Receivers = 1 << at;
        // An Alertmanager knows it already and gathers by itself.
        if lane.is_alertmanager && alert.told & bit != 0 {
            continue;
        }
        alert.to_tell |= bit;
        lane.wait(key, rule, now);
    }
    true
}

/// Has the end of an alert told to whoever knows of it, or is about to.
pub(super) fn wait_for_end(
    lanes: &mut [Lane],
    rule: &Rule,
    key: &Arc<str>,
    track: &Track,
    now: u64,
) {
    let Some(alert) = &track.alert else {
        return;
    };
    for (at, lane) in lanes.iter_mut().enumerate() {
        if (alert.told | alert.to_tell) & (1 << at) != 0 {
            lane.wait(key, rule, now);
        }
    }
}
