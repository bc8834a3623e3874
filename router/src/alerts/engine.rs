//! The rules and everything they remember: events and time in, notifications out. Pure: both clocks are
//! arguments. `now` is the router's, by which people are left in peace (`group_wait`, `cooldown`); `at`
//! is how far the stream of events has been read by the broker's clock, by which windows go.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thinglog_schemas::Event;
use thinglog_schemas::query::Facts;

use super::lane::{BELIEVED_FOR, Lane, POSTED, REPEAT_EVERY, UNSENT, offer, wait_for_end};
use super::notice::{self, EXAMPLES, Notice, REPEAT, Status};
use super::rule::Rule;
use super::track::{Alert, Receivers, Track};
use crate::config::By;

/// Between looks at everything that a rule remembers, ns.
const LOOK_EVERY: u64 = 1_000_000_000;

/// The rules of a router.
#[derive(Debug, Default)]
pub(crate) struct Engine {
    pub(super) rules: Vec<Tracked>,
    /// Notifications that were made and not sent, by number.
    pub(super) unsent: BTreeMap<u64, Notice>,
    pub(super) changes: Changes,
    next: u64,
    /// How far the stream has been read.
    at: u64,
    /// Since when it has been read without a break.
    begun: u64,
}

/// What the next commit has to keep.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Numbers of notifications.
    pub(super) made: Vec<u64>,
    pub(super) gone: Vec<u64>,
}

/// A rule and what it remembers.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) rule: Rule,
    pub(super) tracks: BTreeMap<Arc<str>, Track>,
    lanes: Vec<Lane>,
    /// Keys that have changed since the last commit.
    pub(super) changed: BTreeSet<Arc<str>>,
    pub(super) counts: Counts,
    /// Devices that are to say something, while they are being told.
    expected: BTreeSet<Arc<str>>,
    look_at: u64,
}

/// What a rule counts, to be taken by metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Events it is for.
    pub(crate) matched: u64,
    /// Events of keys that found no room.
    pub(crate) beyond: u64,
    /// Times that a cooldown kept somebody from being told.
    pub(crate) held: u64,
}

impl Engine {
    /// An engine that remembers nothing.
    pub(crate) fn new(rules: Vec<Rule>) -> Engine {
        Engine {
            rules: rules.into_iter().map(Tracked::new).collect(),
            ..Engine::default()
        }
    }

    /// These receivers are Alertmanagers.
    pub(crate) fn with_alertmanagers(mut self, names: &BTreeSet<String>) -> Engine {
        for tracked in &mut self.rules {
            for (to, lane) in tracked.rule.to.iter().zip(&mut tracked.lanes) {
                lane.is_alertmanager = names.contains(to);
            }
        }
        self
    }

    /// Events are read from now on: what was silent before may not have been heard.
    pub(crate) fn begin(&mut self, at: u64) {
        self.begun = self.begun.max(at);
        for tracked in self.rules.iter_mut().filter(|it| it.rule.kind.is_silence()) {
            let tracks = tracked.tracks.values_mut();
            tracks.for_each(|track| track.measure_from(at));
        }
    }

    /// Whether a rule waits for devices to be silent.
    pub(crate) fn waits_for_silence(&self) -> bool {
        self.rules.iter().any(|it| it.rule.kind.is_silence())
    }

    /// A device that there is. When all have been told, [`Engine::all_expected`].
    pub(crate) fn expect(&mut self, device: &Arc<str>, facts: &Facts) {
        for tracked in self.rules.iter_mut().filter(|it| it.rule.kind.is_silence()) {
            if !tracked.rule.expects(device, facts) {
                continue;
            }
            match tracked.expected.len() < tracked.rule.max_keys {
                true => drop(tracked.expected.insert(Arc::clone(device))),
                false => tracked.counts.beyond += 1,
            }
        }
    }

    /// All devices have been told: of others nothing is expected.
    pub(crate) fn all_expected(&mut self, now: u64) {
        let at = self.at.max(self.begun);
        for tracked in self.rules.iter_mut().filter(|it| it.rule.kind.is_silence()) {
            tracked.all_expected(now, at);
        }
    }

    /// Takes an event.
    pub(crate) fn take(&mut self, event: &Event, facts: &Facts, now: u64) {
        self.at = self.at.max(event.received);
        for at in 0..self.rules.len() {
            if self.rules[at].rule.is_for(event, facts) {
                self.take_by(at, event, facts, now);
            }
        }
    }

    /// Whether some rule may be for events of a source.
    pub(crate) fn may_be_for(&self, device: &str, source: &str, facts: &Facts) -> bool {
        let mut rules = self.rules.iter();
        rules.any(|it| it.rule.decides(device, source, facts) != Some(false))
    }

    /// Whether what is known of devices is asked for.
    pub(crate) fn asks_for_facts(&self) -> bool {
        self.rules.iter().any(|it| it.rule.asks_for_facts)
    }

    fn take_by(&mut self, at: usize, event: &Event, facts: &Facts, now: u64) {
        let tracked = &mut self.rules[at];
        tracked.counts.matched += 1;
        match tracked.rule.by {
            By::Device => tracked.note(&event.device, event, facts, self.at, now),
            By::Fleet => tracked.note(&Arc::from(""), event, facts, self.at, now),
            By::Group => {
                for group in &facts.groups {
                    tracked.note(&Arc::from(group.as_str()), event, facts, self.at, now);
                }
            }
        }
        self.tell(at, now);
    }

    /// Does what time demands: `read_to` is how far the stream is known to have been read.
    /// `facts` gives what is known of a device.
    pub(crate) fn tick(
        &mut self,
        now: u64,
        read_to: Option<u64>,
        facts: &mut dyn FnMut(&Arc<str>) -> Facts,
    ) {
        self.at = self.at.max(read_to.unwrap_or(0));
        for at in 0..self.rules.len() {
            let tracked = &mut self.rules[at];
            // A clock that was put back must not stop the looks.
            let is_due = tracked.look_at <= now || tracked.look_at > now + 2 * LOOK_EVERY;
            if is_due && !tracked.tracks.is_empty() {
                tracked.look_at = now + LOOK_EVERY;
                tracked.look(now, self.at, facts);
            }
            self.tell(at, now);
        }
    }

    /// When the next tick is due, by the router's clock.
    pub(crate) fn next_tick(&self) -> Option<u64> {
        let due = |it: &Tracked| {
            let lanes = it.lanes.iter().filter(|lane| lane.may_tell());
            let told = lanes.map(|lane| lane.tell_at).min();
            let looked = (!it.tracks.is_empty()).then_some(it.look_at);
            [told, looked].into_iter().flatten().min()
        };
        self.rules.iter().filter_map(due).min()
    }

    /// Makes the notifications of a rule that are due.
    fn tell(&mut self, at: usize, now: u64) {
        let tracked = &mut self.rules[at];
        for receiver in 0..tracked.lanes.len() {
            // A clock that was put back holds up nobody for longer than the wait.
            let most = now.saturating_add(tracked.rule.group_wait);
            let lane = &mut tracked.lanes[receiver];
            lane.tell_at = lane.tell_at.min(most);
            if !lane.may_tell() || lane.tell_at > now {
                continue;
            }
            for body in tracked.bodies(receiver, now) {
                let notice = Notice {
                    number: self.next,
                    rule: tracked.rule.name.to_string(),
                    receiver: tracked.rule.to[receiver].clone(),
                    body,
                };
                tracked.lanes[receiver].unsent += 1;
                self.changes.made.push(self.next);
                self.unsent.insert(self.next, notice);
                self.next += 1;
            }
        }
    }

    /// What Alertmanagers are to be told again, if it is time.
    pub(crate) fn repeats(&mut self, now: u64) -> Vec<Notice> {
        let mut notices = Vec::new();
        for tracked in &mut self.rules {
            for receiver in 0..tracked.lanes.len() {
                notices.extend(tracked.repeats(receiver, now));
            }
        }
        notices
    }

    /// A notification needs not be sent any more.
    pub(crate) fn sent(&mut self, number: u64) {
        if let Some(notice) = self.unsent.remove(&number) {
            self.changes.gone.push(number);
            let mut rules = self.rules.iter_mut();
            if let Some(tracked) = rules.find(|it| *it.rule.name == *notice.rule) {
                tracked.release(&notice.receiver);
            }
        }
    }

    /// A notification that is still to be sent.
    pub(crate) fn unsent(&self, number: u64) -> Option<&Notice> {
        self.unsent.get(&number)
    }

    /// Numbers of all of them, oldest first.
    pub(crate) fn all_unsent(&self) -> impl Iterator<Item = u64> + '_ {
        self.unsent.keys().copied()
    }

    /// Numbers of those that the next commit will stand for.
    pub(crate) fn made(&self) -> impl Iterator<Item = u64> + '_ {
        self.changes.made.iter().copied()
    }

    /// Rules with their open alerts.
    pub(crate) fn open(
        &self,
    ) -> impl Iterator<Item = (&Rule, impl Iterator<Item = (&Arc<str>, &Alert)>)> {
        self.rules.iter().map(|it| {
            let alerts = it.tracks.iter();
            let alerts = alerts.filter_map(|(key, track)| Some((key, track.alert.as_ref()?)));
            (&it.rule, alerts.filter(|(_, alert)| alert.is_open()))
        })
    }

    /// What has been counted since the last time, by rule.
    pub(crate) fn take_counts(&mut self) -> impl Iterator<Item = (&Rule, Counts, usize)> {
        self.rules.iter_mut().map(|it| {
            let open = |track: &&Track| track.alert.as_ref().is_some_and(Alert::is_open);
            let open = it.tracks.values().filter(open).count();
            (&it.rule, std::mem::take(&mut it.counts), open)
        })
    }

    /// Whether a commit has something to keep.
    pub(crate) fn has_changes(&self) -> bool {
        let is_changed = |it: &Tracked| !it.changed.is_empty();
        !self.changes.made.is_empty()
            || !self.changes.gone.is_empty()
            || self.rules.iter().any(is_changed)
    }

    /// Takes up a notification of an earlier life.
    pub(super) fn take_up(&mut self, notice: Notice) {
        self.next = self.next.max(notice.number + 1);
        self.unsent.insert(notice.number, notice);
    }

    /// What was replayed is complete: what waits is told anew.
    pub(super) fn replayed(&mut self) {
        for tracked in &mut self.rules {
            tracked.wait_again();
        }
        let gone: Vec<u64> = self
            .unsent
            .values()
            .filter(|notice| {
                let mut rules = self.rules.iter_mut();
                let tracked = rules.find(|it| *it.rule.name == *notice.rule);
                !tracked.is_some_and(|tracked| tracked.hold(&notice.receiver))
            })
            .map(|notice| notice.number)
            .collect();
        for number in gone {
            self.unsent.remove(&number);
            self.changes.gone.push(number);
        }
    }
}

impl Tracked {
    fn new(rule: Rule) -> Tracked {
        Tracked {
            lanes: rule.to.iter().map(|_| Lane::default()).collect(),
            rule,
            tracks: BTreeMap::new(),
            changed: BTreeSet::new(),
            counts: Counts::default(),
            expected: BTreeSet::new(),
            look_at: 0,
        }
    }

    /// An event of a key.
    fn note(&mut self, key: &Arc<str>, event: &Event, facts: &Facts, at: u64, now: u64) {
        if self.rule.kind.is_silence() {
            return self.hear(key, at, now);
        }
        let is_full = self.tracks.len() >= self.rule.max_keys;
        let track = match self.tracks.entry(Arc::clone(key)) {
            Entry::Occupied(track) => track.into_mut(),
            Entry::Vacant(_) if is_full => {
                self.counts.beyond += 1;
                return;
            }
            Entry::Vacant(place) => place.insert(Track::default()),
        };
        self.changed.insert(Arc::clone(key));
        if track.settle(self.rule.kind, at) {
            wait_for_end(&mut self.lanes, &self.rule, key, track, now);
        }
        let holds = track.note(self.rule.kind, at);
        let tells = match track.goes_on(holds) {
            Some(alert) => {
                alert.last = at;
                alert.count += 1;
                self.rule.kind.tells_each()
            }
            None if holds => {
                let quiet_until = track.alert.take().map_or(0, |before| before.quiet_until);
                track.alert = Some(self.rule.opened(key, track.events(), event, facts, at));
                if let Some(alert) = &mut track.alert {
                    alert.quiet_until = quiet_until;
                }
                true
            }
            None => return,
        };
        let Some(alert) = &mut track.alert else {
            return;
        };
        if tells {
            self.counts.held += u64::from(!offer(&mut self.lanes, &self.rule, key, alert, now));
        }
        if alert.to_tell != 0 {
            for lane in &mut self.lanes {
                if lane.events.len() < EXAMPLES {
                    lane.events.push(notice::example(event));
                }
            }
        }
    }

    /// A device that is expected to has said something.
    fn hear(&mut self, key: &Arc<str>, at: u64, now: u64) {
        let Some(track) = self.tracks.get_mut(key) else {
            return;
        };
        track.note(self.rule.kind, at);
        if track.settle(self.rule.kind, at) {
            self.changed.insert(Arc::clone(key));
            wait_for_end(&mut self.lanes, &self.rule, key, track, now);
        }
    }

    fn all_expected(&mut self, now: u64, at: u64) {
        let expected = std::mem::take(&mut self.expected);
        for (key, track) in &mut self.tracks {
            track.is_expected = expected.contains(key);
            let open = track.alert.as_mut().filter(|alert| alert.is_open());
            if let Some(alert) = open.filter(|_| !track.is_expected) {
                alert.ends = Some(at.max(alert.starts));
                self.changed.insert(Arc::clone(key));
                wait_for_end(&mut self.lanes, &self.rule, key, track, now);
            }
        }
        for key in expected {
            let track = self.tracks.entry(key).or_insert_with(|| {
                let mut track = Track::default();
                track.measure_from(at);
                track
            });
            track.is_expected = true;
        }
    }

    /// Opens alerts of devices that have been silent for long enough.
    fn look_for_silence(&mut self, now: u64, at: u64, facts: &mut dyn FnMut(&Arc<str>) -> Facts) {
        let (rule, lanes) = (&self.rule, &mut self.lanes);
        for (key, track) in &mut self.tracks {
            let is_open = track.alert.as_ref().is_some_and(Alert::is_open);
            let Some(since) = track.silent_since(rule.kind, at).filter(|_| !is_open) else {
                continue;
            };
            self.changed.insert(Arc::clone(key));
            let heard = track.heard;
            if let Some(alert) = track.goes_on(true) {
                alert.last = heard;
                continue;
            }
            let before = track.alert.take();
            let mut alert = rule.silent(key, since, heard, &facts(key));
            alert.quiet_until = before.map_or(0, |before| before.quiet_until);
            let alert = track.alert.insert(alert);
            self.counts.held += u64::from(!offer(lanes, rule, key, alert, now));
        }
    }

    /// Looks at everything: what is over, what was held, what can be forgotten.
    fn look(&mut self, now: u64, at: u64, facts: &mut dyn FnMut(&Arc<str>) -> Facts) {
        if self.rule.kind.is_silence() {
            self.look_for_silence(now, at, facts);
        }
        let (rule, lanes, changed) = (&self.rule, &mut self.lanes, &mut self.changed);
        self.tracks.retain(|key, track| {
            if track.settle(rule.kind, at) {
                changed.insert(Arc::clone(key));
                wait_for_end(lanes, rule, key, track, now);
            }
            if let Some(alert) = track.alert.as_mut().filter(|alert| alert.is_held)
                && offer(lanes, rule, key, alert, now)
            {
                changed.insert(Arc::clone(key));
            }
            let keep = !track.is_idle(rule.kind, now, at);
            if !keep {
                changed.insert(Arc::clone(key));
            }
            keep
        });
    }

    /// What a receiver is told of what waits for it.
    fn bodies(&mut self, receiver: usize, now: u64) -> Vec<String> {
        let bit: Receivers = 1 << receiver;
        let lane = &mut self.lanes[receiver];
        let is_alertmanager = lane.is_alertmanager;
        let most = if is_alertmanager { POSTED } else { usize::MAX };
        let waiting = lane.take_waiting(most);
        let events = std::mem::take(&mut lane.events);
        let mut bodies = Vec::new();
        for status in [Status::Firing, Status::Resolved] {
            let is_for = |alert: &&mut Alert| match status {
                Status::Firing => alert.to_tell & bit != 0,
                Status::Resolved => alert.end_waits_for(bit),
            };
            let mut keys = Vec::new();
            for key in &waiting {
                let alert = self.tracks.get_mut(key).and_then(|it| it.alert.as_mut());
                let Some(alert) = alert.filter(is_for) else {
                    continue;
                };
                match status {
                    Status::Firing => {
                        alert.to_tell &= !bit;
                        let hears = self.rule.resolved || is_alertmanager;
                        alert.told |= if hears { bit } else { 0 };
                    }
                    Status::Resolved => alert.told &= !bit,
                }
                self.changed.insert(Arc::clone(key));
                keys.push(key);
            }
            let alerts: Vec<(&str, &Alert)> = keys
                .into_iter()
                .filter_map(|key| Some((&**key, self.tracks.get(key)?.alert.as_ref()?)))
                .collect();
            if alerts.is_empty() {
                continue;
            }
            let until = now.saturating_add(BELIEVED_FOR);
            bodies.push(match is_alertmanager {
                true => notice::for_alertmanager(&self.rule, &alerts, until),
                false => notice::body(&self.rule, status, &alerts, &events, now),
            });
        }
        bodies
    }

    /// What an Alertmanager was told and is still so.
    fn repeats(&mut self, receiver: usize, now: u64) -> Vec<Notice> {
        let lane = &mut self.lanes[receiver];
        let is_due = lane.repeat_at <= now || lane.repeat_at > now + 2 * REPEAT_EVERY;
        // With as much on its way as there may be, the receiver takes nothing.
        if !lane.is_alertmanager || !is_due || lane.unsent >= UNSENT {
            return Vec::new();
        }
        lane.repeat_at = now.saturating_add(REPEAT_EVERY);
        let bit: Receivers = 1 << receiver;
        let told = |track: &Track| {
            let alert = track.alert.as_ref()?;
            (alert.is_open() && alert.told & bit != 0).then(|| alert.clone())
        };
        let tracks = self.tracks.iter();
        let open: Vec<(&Arc<str>, Alert)> = tracks
            .filter_map(|(key, track)| Some((key, told(track)?)))
            .collect();
        let notice = |alerts: &[(&Arc<str>, Alert)]| {
            let alerts: Vec<(&str, &Alert)> =
                alerts.iter().map(|(key, alert)| (&***key, alert)).collect();
            Notice {
                number: REPEAT,
                rule: self.rule.name.to_string(),
                receiver: self.rule.to[receiver].clone(),
                body: notice::for_alertmanager(&self.rule, &alerts, now + BELIEVED_FOR),
            }
        };
        open.chunks(POSTED).map(notice).collect()
    }

    fn lane_of(&mut self, receiver: &str) -> Option<&mut Lane> {
        let at = self.rule.to.iter().position(|to| to == receiver)?;
        self.lanes.get_mut(at)
    }

    fn release(&mut self, receiver: &str) {
        if let Some(lane) = self.lane_of(receiver) {
            lane.unsent = lane.unsent.saturating_sub(1);
        }
    }

    /// Says whether there is such a receiver.
    fn hold(&mut self, receiver: &str) -> bool {
        let lane = self.lane_of(receiver);
        lane.map(|lane| lane.unsent += 1).is_some()
    }

    fn wait_again(&mut self) {
        for (key, track) in &self.tracks {
            let Some(alert) = &track.alert else { continue };
            for (at, lane) in self.lanes.iter_mut().enumerate() {
                let bit = 1 << at;
                if alert.to_tell & bit != 0 || alert.end_waits_for(bit) {
                    lane.waiting.insert(Arc::clone(key));
                }
            }
        }
    }
}
