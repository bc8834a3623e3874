//! Which group is in which. Documents may name any parent, in any order of arrival; the hierarchies
//! that stand are a function of the set of documents alone.
//!
//! The rule: parents are taken up one after the other, the oldest document first (by `created`, else
//! `at`, else as if it were the oldest of all; then by the group's name), and one that cannot stand
//! beside those taken up before counts as absent: a cycle, an 8th level, a 101st child, a parent that
//! is dynamic.
//!
//! What can stand stays so when something else is taken away, because every part of a valid forest is
//! valid. So a parent that fits into what stands changes nothing else, whatever its age, and one that
//! counted as absent leaves without a trace; only the component of a conflict is worked out anew.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::Refusal;
use crate::{config::LevelDocument, json};

/// Levels of a hierarchy, its root included (AWS IoT quotas, "Maximum depth of a thing group
/// hierarchy").
pub(super) const MAX_LEVELS: usize = 7;
/// Direct children of a group (the same page, "Maximum number of direct child groups").
pub(super) const MAX_CHILDREN: usize = 100;

/// A name that many places share.
pub(super) type Name = Arc<str>;

#[derive(Clone, Debug, Default)]
pub(super) struct Forest {
    nodes: HashMap<Name, Node>,
    /// Parents that count as absent.
    lost: usize,
}

/// A group that has a document or that a document names as its parent.
#[derive(Clone, Debug, Default)]
struct Node {
    document: Option<Arc<LevelDocument>>,
    parent: Option<Name>,
    /// The parent stands.
    stands: bool,
    age: u64,
    /// Every group that names this one as its parent.
    claimed: BTreeSet<Name>,
    /// Those of them whose parent stands.
    children: usize,
}

/// What a document did to the hierarchies.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// Groups whose standing parent is another than before.
    pub(super) groups: Vec<Name>,
    /// Groups whose parent counts as absent from now on.
    pub(super) displaced: Vec<Name>,
    /// Groups whose parent stands again.
    pub(super) restored: Vec<Name>,
}

/// How old what a document says is, ns since the Unix epoch; 0 where it does not tell.
pub(super) fn age(created: Option<&str>, at: Option<&str>) -> u64 {
    created.or(at).and_then(json::parse_time).unwrap_or(0)
}

impl Forest {
    pub(super) fn documents(&self) -> impl Iterator<Item = (&Name, &Arc<LevelDocument>)> {
        let nodes = self.nodes.iter();
        nodes.filter_map(|(name, node)| Some((name, node.document.as_ref()?)))
    }

    pub(super) fn document(&self, group: &str) -> Option<&Arc<LevelDocument>> {
        self.nodes.get(group)?.document.as_ref()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.nodes.keys()
    }

    pub(super) fn exists(&self, group: &str) -> bool {
        self.nodes.contains_key(group)
    }

    pub(super) fn is_dynamic(&self, group: &str) -> bool {
        self.document(group)
            .is_some_and(|document| document.query.is_some())
    }

    /// The parent that stands.
    pub(super) fn parent<'a>(&'a self, group: &str) -> Option<&'a str> {
        let node = self.nodes.get(group).filter(|node| node.stands)?;
        node.parent.as_deref()
    }

    /// The group and its ancestors, nearest first.
    pub(super) fn chain<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a str> {
        std::iter::successors(Some(group), |group| self.parent(group))
    }

    pub(super) fn root<'a>(&'a self, group: &'a str) -> &'a str {
        self.chain(group).last().unwrap_or(group)
    }

    /// Groups that are directly in it, sorted.
    pub(super) fn children<'a>(&'a self, group: &str) -> impl Iterator<Item = &'a Name> {
        let claimed = self
            .nodes
            .get(group)
            .into_iter()
            .flat_map(|node| &node.claimed);
        claimed.filter(|child| self.nodes.get(*child).is_some_and(|node| node.stands))
    }

    /// The group and its descendants.
    pub(super) fn subtree<'a>(&'a self, group: &'a str) -> Vec<&'a str> {
        let mut groups = vec![group];
        let mut next = 0;
        while let Some(group) = groups.get(next) {
            groups.extend(self.children(group).map(|child| &**child));
            next += 1;
        }
        groups
    }

    fn height(&self, group: &str) -> usize {
        let heights = self.children(group).map(|child| self.height(child));
        1 + heights.max().unwrap_or(0)
    }

    /// Whether the group could be in `parent` as all stands.
    fn fits(&self, group: &str, parent: &str) -> Result<(), Refusal> {
        if self.is_dynamic(parent) {
            return Err(Refusal::DynamicParent(parent.into()));
        }
        if self.chain(parent).any(|ancestor| ancestor == group) {
            return Err(Refusal::Cycle(parent.into()));
        }
        let levels = self.chain(parent).count() + self.height(group);
        if levels > MAX_LEVELS {
            return Err(Refusal::Depth(levels));
        }
        let node = self.nodes.get(parent);
        let siblings = node.map_or(0, |node| node.children);
        let already = self.parent(group) == Some(parent);
        if siblings - usize::from(already) >= MAX_CHILDREN {
            return Err(Refusal::Children(parent.into()));
        }
        Ok(())
    }

    /// Why the parent of a group counts as absent, if it does.
    pub(super) fn refusal(&self, group: &str) -> Option<Refusal> {
        let node = self.nodes.get(group).filter(|node| !node.stands)?;
        let parent = node.parent.as_deref()?;
        // What stood against it when it was its turn stands still.
        self.fits(group, parent).err()
    }

    /// Groups whose parent counts as absent.
    pub(super) fn lost(&self) -> impl Iterator<Item = &Name> {
        let nodes = self.nodes.iter().filter(|_| self.lost > 0);
        nodes
            .filter(|(_, node)| node.parent.is_some() && !node.stands)
            .map(|(name, _)| name)
    }

    /// Puts a document in the place of the one before; what it did to the hierarchies.
    pub(super) fn set(&mut self, group: &Name, document: Option<Arc<LevelDocument>>) -> Moved {
        let new = document.as_deref();
        let parent = new.and_then(|document| document.parent.as_deref());
        let parent: Option<Name> = parent.map(|parent| self.name(parent));
        let age = new.map_or(0, |new| age(new.created.as_deref(), new.at.as_deref()));
        let dynamic = new.is_some_and(|new| new.query.is_some());
        let flips = dynamic != self.is_dynamic(group);
        let node = self.nodes.entry(group.clone()).or_default();
        let before = node.parent.clone();
        let same = before == parent && !flips && (node.age == age || parent.is_none());
        node.document = document;
        node.age = age;
        if same {
            self.forget_if_unnamed(group);
            return Moved::default();
        }
        let stood = node.stands;
        let conflicts = self.lost > usize::from(before.is_some() && !stood);
        self.take_out(group);
        let fits = match &parent {
            Some(parent) => {
                self.put_in(group, parent);
                self.fits(group, parent).is_ok()
            }
            None => true,
        };
        if fits && !flips && !(stood && conflicts) {
            self.stand(group);
            let stood = before.as_ref().filter(|_| stood);
            let mut moved = Moved::default();
            if stood != parent.as_ref() {
                moved.groups.push(group.clone());
            }
            before
                .iter()
                .for_each(|before| self.forget_if_unnamed(before));
            self.forget_if_unnamed(group);
            return moved;
        }
        let seeds = [Some(group.clone()), before.clone(), parent];
        self.settle(seeds.into_iter().flatten(), group, before.filter(|_| stood))
    }

    /// The name that is shared already, if the group is known.
    pub(super) fn name(&self, group: &str) -> Name {
        match self.nodes.get_key_value(group) {
            Some((name, _)) => name.clone(),
            None => Name::from(group),
        }
    }

    /// Takes a group out of its parent, as if its document named none.
    fn take_out(&mut self, group: &Name) {
        self.fall(group);
        let node = self.nodes.get_mut(group);
        let Some(parent) = node.and_then(|node| node.parent.take()) else {
            return;
        };
        self.lost -= 1;
        if let Some(node) = self.nodes.get_mut(&parent) {
            node.claimed.remove(group);
        }
    }

    /// Notes the parent that a document names; it does not stand yet.
    fn put_in(&mut self, group: &Name, parent: &Name) {
        self.lost += 1;
        self.nodes.entry(group.clone()).or_default().parent = Some(parent.clone());
        let node = self.nodes.entry(parent.clone()).or_default();
        node.claimed.insert(group.clone());
    }

    fn stand(&mut self, group: &Name) {
        self.set_stands(group, true);
    }

    fn fall(&mut self, group: &Name) {
        self.set_stands(group, false);
    }

    fn set_stands(&mut self, group: &Name, stands: bool) {
        let node = self.nodes.get_mut(group);
        let Some(node) = node.filter(|node| node.parent.is_some() && node.stands != stands) else {
            return;
        };
        node.stands = stands;
        let parent = node.parent.clone();
        let Some(parent) = parent.and_then(|parent| self.nodes.get_mut(&parent)) else {
            return;
        };
        if stands {
            parent.children += 1;
            self.lost -= 1;
        } else {
            parent.children -= 1;
            self.lost += 1;
        }
    }

    /// Works out anew what stands among the groups that are connected with the seeds. `changed` is the
    /// group whose document has changed, `before` the parent of it that stood.
    fn settle(
        &mut self,
        seeds: impl Iterator<Item = Name>,
        changed: &Name,
        before: Option<Name>,
    ) -> Moved {
        let component = self.component(seeds);
        let mut order: Vec<(u64, Name, bool)> = Vec::new();
        for group in &component {
            if let Some(node) = self.nodes.get(group).filter(|node| node.parent.is_some()) {
                order.push((node.age, group.clone(), node.stands));
            }
        }
        order.sort();
        order.iter().for_each(|(_, group, _)| self.fall(group));
        let mut moved = Moved::default();
        for (_, group, stood) in &order {
            let parent = self.nodes.get(group).and_then(|node| node.parent.clone());
            let Some(parent) = parent else { continue };
            let stands = self.fits(group, &parent).is_ok();
            if stands {
                self.stand(group);
            }
            if group == changed {
                if !stands {
                    moved.displaced.push(group.clone());
                }
                continue;
            }
            match (stood, stands) {
                (true, false) => moved.displaced.push(group.clone()),
                (false, true) => moved.restored.push(group.clone()),
                _ => continue,
            }
            moved.groups.push(group.clone());
        }
        if self.parent(changed) != before.as_deref() {
            moved.groups.push(changed.clone());
        }
        component
            .iter()
            .for_each(|group| self.forget_if_unnamed(group));
        moved
    }

    /// The groups that documents connect with the seeds, standing or not.
    fn component(&self, seeds: impl Iterator<Item = Name>) -> HashSet<Name> {
        let mut found: HashSet<Name> = HashSet::new();
        let mut next: Vec<Name> = seeds.collect();
        while let Some(group) = next.pop() {
            if !found.insert(group.clone()) {
                continue;
            }
            if let Some(node) = self.nodes.get(&group) {
                next.extend(node.parent.iter().cloned());
                next.extend(node.claimed.iter().cloned());
            }
        }
        found
    }

    /// The groups and whatever documents put below them, standing or not.
    pub(super) fn claimed_below(&self, groups: &[Name]) -> BTreeSet<Name> {
        let mut found = BTreeSet::new();
        let mut next: Vec<Name> = groups.to_vec();
        while let Some(group) = next.pop() {
            let node = self.nodes.get(&group);
            if found.insert(group) {
                next.extend(node.iter().flat_map(|node| node.claimed.iter().cloned()));
            }
        }
        found
    }

    fn forget_if_unnamed(&mut self, group: &str) {
        let unnamed = |node: &Node| node.document.is_none() && node.claimed.is_empty();
        if self.nodes.get(group).is_some_and(unnamed) {
            self.nodes.remove(group);
        }
    }

    /// The documents of the components that the groups are in: what a change of them can move.
    pub(super) fn part(&self, groups: impl Iterator<Item = Name>) -> Forest {
        let mut part = Forest::default();
        for group in self.component(groups) {
            if let Some(node) = self.nodes.get(&group) {
                part.lost += usize::from(node.parent.is_some() && !node.stands);
                part.nodes.insert(group, node.clone());
            }
        }
        part
    }
}
