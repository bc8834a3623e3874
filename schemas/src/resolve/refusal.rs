//! Why a document that can be read does not act: it cannot stand beside another one.

use std::fmt;

use super::{
    Fault, Problem,
    dynamic::MAX_DYNAMIC,
    forest::{MAX_CHILDREN, MAX_LEVELS, Name},
    members::MAX_GROUPS,
};

/// What stands against a parent, a membership or a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Cycle(Name),
    Depth(usize),
    Children(Name),
    DynamicParent(Name),
    DynamicMember,
    SameHierarchy(Name),
    Groups,
    Dynamic,
    /// A dynamic group and so many devices that match and are in too many groups without it, one of
    /// them by name.
    Overflow(usize, Name),
}

impl Refusal {
    fn fault(&self) -> Fault {
        match self {
            Refusal::Cycle(_) | Refusal::DynamicParent(_) | Refusal::DynamicMember => {
                Fault::Invalid
            }
            Refusal::SameHierarchy(_) => Fault::Conflict,
            Refusal::Depth(_)
            | Refusal::Children(_)
            | Refusal::Groups
            | Refusal::Dynamic
            | Refusal::Overflow(..) => Fault::Limit,
        }
    }

    pub(super) fn problem(&self, topic: String) -> Problem {
        Problem {
            topic,
            reason: self.to_string(),
            fault: self.fault(),
            last_good: false,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Cycle(parent) => write!(
                f,
                "parent {parent:?} is the group itself or below it: a cycle; its `parent` counts as \
                 absent"
            ),
            Refusal::Depth(levels) => write!(
                f,
                "a hierarchy of {levels} levels, at most {MAX_LEVELS}; its `parent` counts as absent"
            ),
            Refusal::Children(parent) => write!(
                f,
                "parent {parent:?} has {MAX_CHILDREN} children, the most there may be; its `parent` \
                 counts as absent"
            ),
            Refusal::DynamicParent(parent) => write!(
                f,
                "parent {parent:?} is a dynamic group, which has no children; its `parent` counts as \
                 absent"
            ),
            Refusal::DynamicMember => f.write_str(
                "the group is dynamic: who is in it follows from its `query` alone; the membership \
                 counts as absent",
            ),
            Refusal::SameHierarchy(other) => write!(
                f,
                "the device is in {other:?} of the same hierarchy, and a device is in at most one \
                 group of a hierarchy; the membership counts as absent until it is removed there"
            ),
            Refusal::Groups => write!(
                f,
                "the device is in {MAX_GROUPS} groups, the most there may be; the membership counts \
                 as absent"
            ),
            Refusal::Dynamic => write!(
                f,
                "there are {MAX_DYNAMIC} older dynamic groups, the most there may be; nothing matches \
                 its `query`"
            ),
            Refusal::Overflow(devices, one) => write!(
                f,
                "{devices} of the devices that match, {one:?} among them, are in {MAX_GROUPS} groups \
                 without it, the most there may be, and are not in it"
            ),
        }
    }
}
