//! Which static groups a device is in. Memberships are taken up one after the other, the oldest first
//! (by `at`, else as if it were the oldest of all; then by the group's name); one that cannot stand
//! beside those taken up before counts as absent: a second group of one hierarchy, an 11th group, a
//! group that is dynamic. Hierarchies come first: see [`super::forest`].

use super::{
    Refusal,
    forest::{Forest, Name, age},
};
use crate::config::Member;

/// Groups of a device (AWS IoT Developer Guide, "Static thing groups").
pub(super) const MAX_GROUPS: usize = 10;

/// One `config/member/<group>/<device>`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Claim {
    age: u64,
    pub(super) group: Name,
    pub(super) stands: bool,
    /// What it says beside being there; boxed because most say nothing.
    signature: Option<Box<Member>>,
}

impl Claim {
    pub(super) fn new(group: Name, document: Member) -> Claim {
        Claim {
            age: age(None, document.at.as_deref()),
            group,
            stands: false,
            signature: Some(document)
                .filter(|document| *document != Member::default())
                .map(Box::new),
        }
    }

    pub(super) fn document(&self) -> Member {
        self.signature.as_deref().cloned().unwrap_or_default()
    }
}

/// The memberships of one device, in the order in which they are taken up.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Claims(Vec<Claim>);

impl Claims {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Claim> {
        self.0.iter()
    }

    pub(super) fn get(&self, group: &str) -> Option<&Claim> {
        self.0.iter().find(|claim| &*claim.group == group)
    }

    /// The groups that stand.
    pub(super) fn standing(&self) -> impl Iterator<Item = &Name> {
        let standing = self.0.iter().filter(|claim| claim.stands);
        standing.map(|claim| &claim.group)
    }

    /// Takes a membership in, or out; whether anything changed.
    pub(super) fn set(&mut self, group: &Name, claim: Option<Claim>) -> bool {
        let before = self.0.iter().position(|claim| claim.group == *group);
        let before = before.map(|at| self.0.remove(at));
        let same = match (&before, &claim) {
            (Some(before), Some(claim)) => before.signature == claim.signature,
            (None, None) => true,
            _ => false,
        };
        let put = match same {
            true => before,
            false => claim,
        };
        if let Some(claim) = put {
            let key = |claim: &Claim| (claim.age, claim.group.clone());
            let at = self.0.partition_point(|other| key(other) < key(&claim));
            self.0.insert(at, claim);
        }
        !same
    }

    /// Decides anew which stand; calls `changed` with those that do no longer, or do again.
    pub(super) fn settle(&mut self, forest: &Forest, mut changed: impl FnMut(&Name, bool)) {
        let refusals = self.refusals(forest);
        for (claim, refusal) in self.0.iter_mut().zip(refusals) {
            let stands = refusal.is_none();
            if claim.stands != stands {
                claim.stands = stands;
                changed(&claim.group, stands);
            }
        }
    }

    /// For each membership why it cannot stand, if it cannot.
    pub(super) fn refusals(&self, forest: &Forest) -> Vec<Option<Refusal>> {
        let mut taken: Vec<(&str, &Name)> = Vec::new();
        let mut refusals = Vec::with_capacity(self.0.len());
        for Claim { group, .. } in &self.0 {
            let root = forest.root(group);
            let refusal = if forest.is_dynamic(group) {
                Some(Refusal::DynamicMember)
            } else if let Some((_, other)) = taken.iter().find(|(other, _)| *other == root) {
                Some(Refusal::SameHierarchy((*other).clone()))
            } else if taken.len() >= MAX_GROUPS {
                Some(Refusal::Groups)
            } else {
                taken.push((root, group));
                None
            };
            refusals.push(refusal);
        }
        refusals
    }
}
