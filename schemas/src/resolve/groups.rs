//! Thing groups: who is in which, and AWS IoT's limits on them. A group exists as soon as anything
//! names it, because retained documents arrive in any order; one without a document says nothing
//! and has no parent. Every subset of a valid set of documents is valid, so order does not matter
//! for a fleet that keeps the rules.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use crate::config::LevelDocument;

/// Levels of a hierarchy, its root included.
pub(super) const MAX_LEVELS: usize = 7;
/// Direct children of a group.
pub(super) const MAX_CHILDREN: usize = 100;
/// Groups of a device.
pub(super) const MAX_GROUPS: usize = 10;

#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    documents: HashMap<String, Arc<LevelDocument>>,
    children: HashMap<String, BTreeSet<String>>,
    members: HashMap<String, BTreeSet<String>>,
    of_device: HashMap<String, BTreeSet<String>>,
}

/// AWS's alphabet for group names, narrower than that of topics.
pub(super) fn check_name(group: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_' | b'-');
    if !group.is_empty() && group.len() <= 128 && group.bytes().all(allowed) {
        return Ok(());
    }
    let group = group.chars().take(130).collect::<String>();
    Err(format!(
        "{group:?} is no group name: 1-128 characters of a-z A-Z 0-9 : _ -"
    ))
}

impl Groups {
    pub(super) fn documents(&self) -> impl Iterator<Item = (&String, &Arc<LevelDocument>)> {
        self.documents.iter()
    }

    /// Every group that anything names, sorted.
    pub(super) fn names(&self) -> Vec<&str> {
        let named = self
            .documents
            .keys()
            .chain(self.children.keys())
            .chain(self.members.keys());
        let named: BTreeSet<&str> = named.map(String::as_str).collect();
        named.into_iter().collect()
    }

    pub(super) fn exists(&self, group: &str) -> bool {
        self.documents.contains_key(group)
            || self.children.contains_key(group)
            || self.members.contains_key(group)
    }

    pub(super) fn children(&self, group: &str) -> impl Iterator<Item = &str> {
        let children = self.children.get(group).into_iter().flatten();
        children.map(String::as_str)
    }

    pub(super) fn direct_members(&self, group: &str) -> impl Iterator<Item = &str> {
        let members = self.members.get(group).into_iter().flatten();
        members.map(String::as_str)
    }

    pub(super) fn document(&self, group: &str) -> Option<&Arc<LevelDocument>> {
        self.documents.get(group)
    }

    /// The group and its ancestors, nearest first.
    pub(super) fn chain<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a str> {
        let parent = |group: &&'a str| self.documents.get(*group)?.parent.as_deref();
        std::iter::successors(Some(group), parent)
    }

    fn root<'a>(&'a self, group: &'a str) -> &'a str {
        self.chain(group).last().unwrap_or(group)
    }

    /// The groups a device is in directly, sorted.
    pub(super) fn of_device(&self, device: &str) -> impl Iterator<Item = &str> {
        self.of_device
            .get(device)
            .into_iter()
            .flatten()
            .map(String::as_str)
    }

    /// Devices that are in any group.
    pub(super) fn devices(&self) -> impl Iterator<Item = &str> {
        self.of_device.keys().map(String::as_str)
    }

    /// Devices of the group and of its descendants.
    pub(super) fn members(&self, group: &str) -> BTreeSet<&str> {
        let groups = self.subtree(group);
        let members = groups.iter().filter_map(|group| self.members.get(*group));
        members.flatten().map(String::as_str).collect()
    }

    /// The group and its descendants.
    fn subtree<'a>(&'a self, group: &'a str) -> Vec<&'a str> {
        let mut groups = vec![group];
        let mut next = 0;
        while let Some(group) = groups.get(next) {
            groups.extend(
                self.children
                    .get(*group)
                    .into_iter()
                    .flatten()
                    .map(String::as_str),
            );
            next += 1;
        }
        groups
    }

    fn height(&self, group: &str) -> usize {
        let children = self.children.get(group).into_iter().flatten();
        1 + children.map(|child| self.height(child)).max().unwrap_or(0)
    }

    pub(super) fn set(&mut self, group: &str, document: LevelDocument) -> Result<(), String> {
        check_name(group)?;
        if let Some(parent) = &document.parent {
            self.check_parent(group, parent)?;
        }
        self.remove(group);
        if let Some(parent) = &document.parent {
            self.children
                .entry(parent.clone())
                .or_default()
                .insert(group.to_owned());
        }
        self.documents.insert(group.to_owned(), Arc::new(document));
        Ok(())
    }

    /// Forgets the document; members and children stay, the children as roots of their own below
    /// a group that says nothing.
    pub(super) fn remove(&mut self, group: &str) {
        let Some(document) = self.documents.remove(group) else {
            return;
        };
        if let Some(parent) = &document.parent {
            remove_from(&mut self.children, parent, group);
        }
    }

    fn check_parent(&self, group: &str, parent: &str) -> Result<(), String> {
        check_name(parent)?;
        if self.chain(parent).any(|ancestor| ancestor == group) {
            return Err(format!(
                "parent {parent:?} is {group:?} itself or below it: a cycle"
            ));
        }
        let levels = self.chain(parent).count() + self.height(group);
        if levels > MAX_LEVELS {
            return Err(format!(
                "a hierarchy of {levels} levels, at most {MAX_LEVELS}"
            ));
        }
        let siblings = self.children.get(parent).into_iter().flatten();
        if siblings.filter(|sibling| *sibling != group).count() >= MAX_CHILDREN {
            return Err(format!(
                "parent {parent:?} has {MAX_CHILDREN} children, the most there may be"
            ));
        }
        let (root, subtree) = (self.root(parent), self.subtree(group));
        for device in self.members(group) {
            let other = self
                .of_device(device)
                .find(|other| !subtree.contains(other) && self.root(other) == root);
            if let Some(other) = other {
                return Err(format!(
                    "device {device:?} is in {other:?} of the same hierarchy; a device is in at most \
                     one group of a hierarchy"
                ));
            }
        }
        Ok(())
    }

    pub(super) fn is_member(&self, group: &str, device: &str) -> bool {
        self.of_device
            .get(device)
            .is_some_and(|groups| groups.contains(group))
    }

    pub(super) fn join(&mut self, group: &str, device: &str) -> Result<(), String> {
        check_name(group)?;
        let root = self.root(group);
        if let Some(other) = self
            .of_device(device)
            .find(|other| self.root(other) == root)
        {
            return Err(format!(
                "the device is in {other:?} of the same hierarchy already; remove it there first"
            ));
        }
        if self.of_device(device).count() >= MAX_GROUPS {
            return Err(format!(
                "the device is in {MAX_GROUPS} groups, the most there may be"
            ));
        }
        self.members
            .entry(group.to_owned())
            .or_default()
            .insert(device.to_owned());
        self.of_device
            .entry(device.to_owned())
            .or_default()
            .insert(group.to_owned());
        Ok(())
    }

    pub(super) fn leave(&mut self, group: &str, device: &str) {
        remove_from(&mut self.members, group, device);
        remove_from(&mut self.of_device, device, group);
    }
}

fn remove_from(map: &mut HashMap<String, BTreeSet<String>>, key: &str, value: &str) {
    if let Some(values) = map.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            map.remove(key);
        }
    }
}
