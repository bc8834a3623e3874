//! Which groups each device is in, static and dynamic together, kept up as documents and reports
//! change. A device is in at most [`MAX_GROUPS`] groups: its memberships come first, then the dynamic
//! groups that match, the oldest first.

use std::{collections::BTreeSet, ops::Bound, sync::Arc};

use super::{
    Affected, ConfigError, Fleet, MAX_DEVICES, Problem, Refusal, Report, apply::member_topic,
    forest::Name, members::MAX_GROUPS,
};
use crate::{
    query::{Query, Thing, Wanted},
    topic::ConfigTopic,
};

/// Memberships that stand no longer, or again, as group and device; and whose were looked at.
#[derive(Debug, Default)]
pub(super) struct Regrouped {
    pub(super) displaced: Vec<(Name, Name)>,
    pub(super) restored: Vec<(Name, Name)>,
    pub(super) devices: BTreeSet<Name>,
}

impl Fleet {
    /// The device's name as it is shared.
    pub(super) fn name(&self, device: &str) -> Name {
        match self.devices.get_key_value(device) {
            Some((name, _)) => name.clone(),
            None => Name::from(device),
        }
    }

    /// The group's name as it is shared.
    pub(super) fn group_name(&self, group: &str) -> Name {
        match self.claimed.get_key_value(group) {
            Some((name, _)) => name.clone(),
            None => self.forest.name(group),
        }
    }

    /// Decides anew which memberships of a device stand.
    pub(super) fn settle_device(&mut self, device: &Name, regrouped: &mut Regrouped) {
        let Some(entry) = self.devices.get_mut(device) else {
            return;
        };
        let lost_claims = &mut self.lost_claims;
        entry.claims.settle(&self.forest, |group, stands| {
            let pair = (group.clone(), device.clone());
            if stands {
                *lost_claims -= 1;
                regrouped.restored.push(pair);
            } else {
                *lost_claims += 1;
                regrouped.displaced.push(pair);
            }
        });
        regrouped.devices.insert(device.clone());
        match self.dynamic.ask_for_groups() {
            true => self.ask_queries(device),
            false => self.regroup(device),
        }
    }

    /// Decides anew which memberships stand in these groups and in whatever is below them.
    pub(super) fn settle_below(&mut self, groups: &[Name]) -> Regrouped {
        let below = self.forest.claimed_below(groups);
        let claimed = below.iter().filter_map(|group| self.claimed.get(group));
        let devices: BTreeSet<Name> = claimed.flatten().cloned().collect();
        let mut regrouped = Regrouped::default();
        for device in &devices {
            self.settle_device(device, &mut regrouped);
        }
        regrouped
    }

    /// Asks every query of one device.
    pub(super) fn ask_queries(&mut self, device: &Name) {
        let matches: Vec<Name> = match self.devices.get(device) {
            Some(_) => self.matching(device, true).cloned().collect(),
            None => Vec::new(),
        };
        let Some(entry) = self.devices.get_mut(device) else {
            return;
        };
        if entry.matches != matches {
            let before = std::mem::replace(&mut entry.matches, matches.clone());
            for group in before.iter().filter(|group| !matches.contains(group)) {
                self.dynamic.note(group, device, false);
            }
            for group in matches.iter().filter(|group| !before.contains(group)) {
                self.dynamic.note(group, device, true);
            }
        }
        self.regroup(device);
    }

    /// The dynamic groups that match a device, the oldest first. `reported`: what the device says of
    /// itself counts as well.
    fn matching<'a>(&'a self, device: &'a str, reported: bool) -> impl Iterator<Item = &'a Name> {
        let standing = self.dynamic.standing();
        let matching = standing.filter(move |(_, query)| self.matches(query, device, reported));
        matching.map(|(name, _)| name)
    }

    /// Whether a query matches a device. With `reported` false only what operators say of it counts,
    /// and whether it is online is unknown: for groups that grant access.
    pub fn matches(&self, query: &Query, device: &str, reported: bool) -> bool {
        let entry = self.devices.get(device);
        let document = entry.and_then(|entry| entry.document.as_deref());
        let report = entry.and_then(|entry| entry.report.as_deref());
        let report = report.filter(|_| reported);
        let groups = |wanted: Wanted<'_>| {
            let standing = entry.into_iter().flat_map(|entry| entry.claims.standing());
            let mut all = standing.flat_map(|group| self.forest.chain(group));
            all.any(wanted)
        };
        query.matches(&Thing {
            name: device,
            kind: document.and_then(|document| document.kind.as_deref()),
            operator: document.map(|document| &document.attributes),
            reported: report.map(|report| &report.attributes),
            online: reported.then(|| report.is_some_and(|report| report.online)),
            any_group: &groups,
        })
    }

    /// Asks the query of one group of every device; adds those for whom the answer is another.
    pub(super) fn ask_devices(&mut self, group: &Name, concerned: &mut BTreeSet<Name>) {
        let query = self.dynamic.standing_query(group).cloned();
        let mut changed = Vec::new();
        for (device, entry) in &self.devices {
            let matches = query
                .as_deref()
                .is_some_and(|query| self.matches(query, device, true));
            if matches != entry.matches.contains(group) {
                changed.push(device.clone());
            }
        }
        for device in changed {
            self.ask_queries(&device);
            concerned.insert(device);
        }
    }

    /// The groups of a device follow from its memberships and matches.
    fn regroup(&mut self, device: &Name) {
        let Some(entry) = self.devices.get(device) else {
            return;
        };
        let groups = together(entry.claims.standing(), entry.matches.iter());
        let groups = self.intern(groups);
        if let Some(entry) = self.devices.get_mut(device) {
            let before = std::mem::replace(&mut entry.groups, groups);
            self.release(before);
        }
    }

    fn intern(&mut self, groups: Vec<Name>) -> Option<Arc<[Name]>> {
        if groups.is_empty() {
            return None;
        }
        if let Some(known) = self.sets.get(&groups[..]) {
            return Some(known.clone());
        }
        let set: Arc<[Name]> = groups.into();
        self.sets.insert(set.clone());
        Some(set)
    }

    /// Forgets a set that only the table of sets knows.
    fn release(&mut self, set: Option<Arc<[Name]>>) {
        if let Some(set) = set.filter(|set| Arc::strong_count(set) == 2) {
            self.sets.remove(&set);
        }
    }

    /// Forgets a device of which nothing is known.
    pub(super) fn forget_if_bare(&mut self, device: &Name) {
        let Some(entry) = self.devices.get(device) else {
            return;
        };
        let known = entry.document.is_some() || entry.window.is_some() || entry.report.is_some();
        if known || !entry.claims.is_empty() {
            return;
        }
        if let Some(entry) = self.devices.remove(device) {
            for group in &entry.matches {
                self.dynamic.note(group, device, false);
            }
            self.release(entry.groups);
        }
    }

    /// What a device reports of itself (`reported/<device>`), or merely that it is there; `None`: it
    /// reports nothing any more. Its dynamic groups follow. Of more than 1,000,000 devices the rest is
    /// not noted.
    pub fn report(&mut self, device: &str, report: Option<Report>) -> Affected {
        let known = self.devices.get(device);
        let before = known.and_then(|entry| entry.report.as_deref());
        let full = known.is_none() && self.devices.len() >= MAX_DEVICES;
        if before == report.as_ref() || full {
            return Affected::Nobody;
        }
        let groups = self.groups_for(device);
        let name = self.name(device);
        self.devices.entry(name.clone()).or_default().report = report.map(Arc::new);
        self.ask_queries(&name);
        self.forget_if_bare(&name);
        // What devices in the same groups share follows from documents: it is as good as before.
        self.generation += 1;
        if self.groups_for(device) == groups {
            return Affected::Nobody;
        }
        Affected::Device(device.to_owned())
    }

    /// The groups a device is in itself, sorted. Of a device that nothing names those whose query
    /// matches its name.
    pub(super) fn groups_for(&self, device: &str) -> Arc<[Name]> {
        match self.devices.get(device) {
            Some(entry) => entry.groups.clone().unwrap_or_default(),
            None => together([].into_iter(), self.matching(device, true)).into(),
        }
    }

    pub(super) fn is_in(&self, group: &str, device: &str) -> bool {
        let entry = self.devices.get(device);
        let groups = entry.and_then(|entry| entry.groups.as_deref());
        groups.is_some_and(|groups| groups.iter().any(|of| &**of == group))
    }

    /// The devices of a group and of its descendants, by their shared names.
    pub(super) fn member_names(&self, group: &str) -> BTreeSet<Name> {
        let groups = self.forest.subtree(group).into_iter();
        groups
            .flat_map(|group| self.direct(group))
            .cloned()
            .collect()
    }

    /// The devices that are in the group itself, sorted.
    pub(super) fn direct<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a Name> {
        self.direct_behind(group, None)
    }

    /// Those of them whose names come behind `after`.
    pub(super) fn direct_behind<'a>(
        &'a self,
        group: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Name> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind =
            move |devices: &'a BTreeSet<Name>| devices.range::<str, _>((from, Bound::Unbounded));
        let claimed = self.claimed.get(group).into_iter().flat_map(behind);
        // A group is either static or dynamic: one of the two is empty, or counts as absent.
        let matching = self.dynamic.members(group).into_iter().flat_map(behind);
        let candidates = claimed.chain(matching);
        let mut last: Option<&Name> = None;
        candidates.filter(move |device| {
            let again = last.replace(device) == Some(device);
            !again && self.is_in(group, device)
        })
    }

    pub(super) fn group_refusal(&self, group: &str) -> Option<Refusal> {
        if self.dynamic.lost().any(|lost| &**lost == group) {
            return Some(Refusal::Dynamic);
        }
        self.forest.refusal(group)
    }

    pub(super) fn member_refusal(&self, group: &str, device: &str) -> Option<Refusal> {
        let claims = &self.devices.get(device)?.claims;
        let at = claims.iter().position(|claim| &*claim.group == group)?;
        claims.refusals(&self.forest).into_iter().nth(at)?
    }

    /// Every document that is there and does not act as it reads, by topic.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = self.conflicts();
        problems.extend(self.refused.values().map(unreadable));
        problems.extend(self.overflows());
        problems.sort_by(|a, b| a.topic.cmp(&b.topic));
        problems
    }

    /// Documents that cannot stand beside others.
    pub(super) fn conflicts(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let groups = self.forest.lost().chain(self.dynamic.lost());
        for group in groups {
            let topic = ConfigTopic::Group(group).to_string();
            problems.extend(self.group_refusal(group).map(|it| it.problem(topic)));
        }
        let devices = self.devices.iter().filter(|_| self.lost_claims > 0);
        for (device, entry) in devices.filter(|(_, entry)| !entry.claims.is_empty()) {
            let refusals = entry.claims.refusals(&self.forest);
            for (claim, refusal) in entry.claims.iter().zip(refusals) {
                let topic = || member_topic(&claim.group, device);
                problems.extend(refusal.map(|refusal| refusal.problem(topic())));
            }
        }
        problems
    }

    /// Dynamic groups that lack devices that match.
    fn overflows(&self) -> impl Iterator<Item = Problem> {
        self.dynamic.standing().filter_map(|(group, _)| {
            let missing = self.dynamic.matching(group);
            let mut missing = missing.filter(|device| !self.is_in(group, device));
            let first = missing.next()?.clone();
            let refusal = Refusal::Overflow(1 + missing.count(), first);
            Some(refusal.problem(ConfigTopic::Group(group).to_string()))
        })
    }

    /// Whether the group grants its members what it grants: the device is in it or below it by a
    /// membership, or by a query over what operators say of it alone.
    pub fn grants(&self, group: &str, device: &str) -> bool {
        let entry = self.devices.get(device);
        let mut standing = entry.into_iter().flat_map(|entry| entry.claims.standing());
        if standing.any(|of| self.forest.chain(of).any(|of| of == group)) {
            return true;
        }
        let query = self.dynamic.standing_query(group);
        query.is_some_and(|query| self.matches(query, device, false))
    }

    /// The groups that grant the device something, ancestors included, sorted: those of
    /// [`Fleet::grants`].
    pub fn granting(&self, device: &str) -> Vec<String> {
        let entry = self.devices.get(device);
        let standing = entry.into_iter().flat_map(|entry| entry.claims.standing());
        let groups = standing.flat_map(|group| self.forest.chain(group));
        let dynamic = self.matching(device, false).map(|group| &**group);
        let groups: BTreeSet<&str> = groups.chain(dynamic).collect();
        groups.into_iter().map(str::to_owned).collect()
    }
}

/// Memberships and then matches, as many as there may be, sorted.
fn together<'a>(
    standing: impl Iterator<Item = &'a Name>,
    matches: impl Iterator<Item = &'a Name>,
) -> Vec<Name> {
    let mut groups: Vec<Name> = standing.chain(matches).take(MAX_GROUPS).cloned().collect();
    groups.sort();
    groups
}

pub(super) fn unreadable(error: &ConfigError) -> Problem {
    Problem {
        topic: error.topic.clone(),
        reason: error.reason.clone(),
        fault: error.fault,
        last_good: true,
    }
}
