//! Who asks, and what they may see and do.

use std::sync::Arc;

use super::change::{Change, Target};
use super::refusal::{Code, Refusal};
use super::view::View;

/// Who asks, and as what. Made by whatever has verified it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user, as changes are signed with it; `anonymous` where nobody signs in.
    pub name: Arc<str>,
    /// What it may do at all.
    pub role: Role,
    /// The groups that an operator is limited to, subgroups included; none is no limit.
    pub groups: Vec<String>,
}

/// What a caller is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// Everything; with groups, it sees these and their devices only, and sets levels and overrides of
    /// them only.
    Operator,
    /// Nothing here: devices, routers, and users without a role.
    Other,
}

impl Caller {
    /// Who calls where nobody signs in: it has all rights.
    pub fn anonymous() -> Caller {
        Caller {
            name: Arc::from("anonymous"),
            role: Role::Admin,
            groups: Vec::new(),
        }
    }

    /// Whether all of the fleet is open to it.
    pub fn is_unlimited(&self) -> bool {
        match self.role {
            Role::Admin => true,
            Role::Operator => self.groups.is_empty(),
            Role::Other => false,
        }
    }

    /// Refuses who may not even look.
    pub fn may_look(&self) -> Result<(), Refusal> {
        match self.role {
            Role::Admin | Role::Operator => Ok(()),
            Role::Other => {
                Err(self.refused("it takes the role operator or admin to see the fleet"))
            }
        }
    }

    /// Refuses scoped callers what concerns the whole fleet.
    pub fn may_see_all(&self) -> Result<(), Refusal> {
        self.may_look()?;
        match self.is_unlimited() {
            true => Ok(()),
            false => Err(self.refused("this concerns the whole fleet, not your groups alone")),
        }
    }

    /// Whether the caller may see a device.
    pub fn sees_device(&self, view: &View<'_>, device: &str) -> bool {
        match self.role {
            Role::Other => false,
            _ if self.is_unlimited() => true,
            _ => {
                let of_device = view.groups_that_grant(device);
                of_device.iter().any(|group| self.groups.contains(group))
            }
        }
    }

    /// Whether the caller may see a group: one of its own, or below one.
    pub fn sees_group(&self, view: &View<'_>, group: &str) -> bool {
        match self.role {
            Role::Other => false,
            _ if self.is_unlimited() => true,
            _ => view
                .chain(group)
                .iter()
                .any(|group| self.groups.contains(group)),
        }
    }

    /// Whether the caller may see the documents of a target.
    pub fn sees(&self, view: &View<'_>, target: &Target) -> bool {
        match target {
            Target::Device(device) => self.sees_device(view, device),
            Target::Group(group) => self.sees_group(view, group),
            _ => self.may_see_all().is_ok(),
        }
    }

    /// Refuses changes that are not the caller's to make.
    pub fn may_change(&self, view: &View<'_>, change: &Change) -> Result<(), Refusal> {
        self.may_look()?;
        if self.is_unlimited() {
            return Ok(());
        }
        let allowed = change
            .level_target()
            .is_some_and(|target| self.sees(view, target));
        match allowed {
            true => Ok(()),
            false => Err(self.refused(
                "you may set levels and overrides of your groups and of their devices only",
            )),
        }
    }

    fn refused(&self, why: &str) -> Refusal {
        Refusal::new(Code::Unauthorized, format!("{}: {why}", self.name))
    }
}
