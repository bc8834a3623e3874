//! Dynamic groups: their queries, and who matches. Each change asks as little as it can: one device's
//! attributes ask all queries of that device, one group's query asks that group of all devices.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::forest::Name;
use crate::query::Query;

/// Dynamic groups of a fleet (AWS General Reference, "AWS IoT Device Management endpoints and quotas":
/// dynamic groups of an account). Of more the oldest stand (by `created`, else `at`, else as if the
/// oldest of all; then by name).
pub(super) const MAX_DYNAMIC: usize = 100;

#[derive(Clone, Debug, Default)]
pub(super) struct Dynamic {
    queries: BTreeMap<(u64, Name), Arc<Query>>,
    ages: HashMap<Name, u64>,
    /// The devices that match.
    members: HashMap<Name, BTreeSet<Name>>,
}

impl Dynamic {
    /// The groups that stand with their queries, the oldest first.
    pub(super) fn standing(&self) -> impl Iterator<Item = (&Name, &Arc<Query>)> {
        let standing = self.queries.iter().take(MAX_DYNAMIC);
        standing.map(|((_, name), query)| (name, query))
    }

    /// Groups beyond the most there may be.
    pub(super) fn lost(&self) -> impl Iterator<Item = &Name> {
        let lost = self.queries.keys().skip(MAX_DYNAMIC);
        lost.map(|(_, name)| name)
    }

    pub(super) fn query(&self, group: &str) -> Option<&Arc<Query>> {
        let (name, age) = self.ages.get_key_value(group)?;
        self.queries.get(&(*age, name.clone()))
    }

    pub(super) fn age(&self, group: &str) -> Option<u64> {
        self.ages.get(group).copied()
    }

    /// Whether some query asks for static groups.
    pub(super) fn ask_for_groups(&self) -> bool {
        self.standing().any(|(_, query)| query.asks_for_groups())
    }

    /// Sets or removes a query. The groups for which every device is to be asked again.
    pub(super) fn set(&mut self, group: &Name, query: Option<(u64, Arc<Query>)>) -> Vec<Name> {
        let before: BTreeSet<Name> = self.standing().map(|(name, _)| name.clone()).collect();
        if let Some(age) = self.ages.remove(group) {
            self.queries.remove(&(age, group.clone()));
        }
        if let Some((age, query)) = query {
            self.ages.insert(group.clone(), age);
            self.queries.insert((age, group.clone()), query);
        }
        let after: BTreeSet<Name> = self.standing().map(|(name, _)| name.clone()).collect();
        let mut ask: BTreeSet<Name> = before.symmetric_difference(&after).cloned().collect();
        ask.insert(group.clone());
        ask.into_iter().collect()
    }

    /// The query that stands for a group.
    pub(super) fn standing_query(&self, group: &str) -> Option<&Arc<Query>> {
        let mut standing = self.standing();
        standing
            .find(|(name, _)| &***name == group)
            .map(|(_, query)| query)
    }

    pub(super) fn note(&mut self, group: &Name, device: &Name, matches: bool) {
        if matches {
            let members = self.members.entry(group.clone()).or_default();
            members.insert(device.clone());
        } else if let Some(members) = self.members.get_mut(group) {
            members.remove(device);
            if members.is_empty() {
                self.members.remove(group);
            }
        }
    }

    /// The devices that match, sorted; those in too many other groups included.
    pub(super) fn matching(&self, group: &str) -> impl Iterator<Item = &Name> {
        self.members.get(group).into_iter().flatten()
    }

    /// The same as a set, if there are any.
    pub(super) fn members(&self, group: &str) -> Option<&BTreeSet<Name>> {
        self.members.get(group)
    }

    /// The queries without who matches.
    pub(super) fn part(&self) -> Dynamic {
        Dynamic {
            queries: self.queries.clone(),
            ages: self.ages.clone(),
            members: HashMap::new(),
        }
    }
}
