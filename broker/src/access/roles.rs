//! The roles a client can have, and what each may do without a word in the ACL file.
//!
//! | role | writes | reads |
//! |---|---|---|
//! | `device` | `logs/<id>/#`, `reported/<id>`, `response/<id>/#` | `desired/<id>`, `request/<id>` |
//! | `operator` | `config/#`, `request/#` | everything below the root, `$SYS/#` |
//! | `operator` of groups | nothing | `live-group/<group>/#` of each |
//! | `router` | everything below the root | everything below the root, `$SYS/#` |
//! | `admin` | everything | everything, `$SYS/#` |
//!
//! Topics stand below the root; `<id>` is the authenticated name, never the client id.

use std::{fmt, str::FromStr};

use thinglog_schemas::{Topics, name};

use super::rules::{Access, Rule, Template};

/// Most groups of one operator.
const MAX_GROUPS: usize = 100;

/// What a client is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Publishes its own logs.
    Device,
    /// Watches, configures, asks.
    Operator,
    /// Consumes logs and resolves configuration: `thinglog router`.
    Router,
    /// Anything.
    Admin,
}

impl Role {
    const ALL: [Role; 4] = [Role::Device, Role::Operator, Role::Router, Role::Admin];

    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Role::Device => "device",
            Role::Operator => "operator",
            Role::Router => "router",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(word: &str) -> Result<Role, String> {
        Role::ALL
            .into_iter()
            .find(|role| role.word() == word)
            .ok_or_else(|| format!("{word:?} is no role; write device, operator, router or admin"))
    }
}

/// A role with the groups that an operator is limited to. Written `role=operator,group=eu,group=us`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Without one only the ACL file's rules count.
    pub role: Option<Role>,
    /// Of an operator; none is no limit.
    pub groups: Vec<String>,
}

impl Grant {
    /// A role, for an operator with the groups it is limited to.
    pub fn new(role: Option<Role>, groups: Vec<String>) -> Result<Grant, String> {
        if !groups.is_empty() && role != Some(Role::Operator) {
            return Err("only the role operator can be limited to groups".into());
        }
        if groups.len() > MAX_GROUPS {
            return Err(format!(
                "more than {MAX_GROUPS} groups; give the operator a group above them"
            ));
        }
        if let Some(bad) = groups.iter().find(|group| !name::is_valid(group)) {
            return Err(format!(
                "{bad:?} is no group name: 1-128 characters of A-Z a-z 0-9 . _ : -"
            ));
        }
        Ok(Grant { role, groups })
    }

    /// Without groups.
    pub(crate) fn of(role: Role) -> Grant {
        Grant {
            role: Some(role),
            groups: Vec::new(),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(role) = self.role {
            write!(f, "role={role}")?;
        }
        self.groups
            .iter()
            .try_for_each(|group| write!(f, ",group={group}"))
    }
}

impl FromStr for Grant {
    type Err = String;

    fn from_str(text: &str) -> Result<Grant, String> {
        let (mut role, mut groups) = (None, Vec::new());
        for part in text.split(',').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("role", word)) if role.is_none() => role = Some(word.parse()?),
                Some(("group", group)) => groups.push(group.to_owned()),
                _ => {
                    return Err(format!(
                        "{part:?} is neither one role=… nor group=…, as in role=operator,group=eu"
                    ));
                }
            }
        }
        Grant::new(role, groups)
    }
}

/// The rules of every role, made once for a root.
#[derive(Debug)]
pub(crate) struct RoleRules {
    root: String,
    device: Vec<Rule>,
    operator: Vec<Rule>,
    router: Vec<Rule>,
    admin: Vec<Rule>,
}

impl RoleRules {
    pub(crate) fn new(topics: &Topics) -> RoleRules {
        let root = topics.root();
        let rule = |access, filter: &str| Rule {
            access,
            filter: Template::literal(filter),
            line: 0,
        };
        let below = |access, filter: &str| rule(access, &format!("{root}/{filter}"));
        let own = |access, filter: &str| Rule {
            access,
            filter: Template::pattern_below(root, filter),
            line: 0,
        };
        let system = || rule(Access::Read, "$SYS/#");
        RoleRules {
            device: vec![
                own(Access::Write, "logs/%u/#"),
                own(Access::Write, "reported/%u"),
                own(Access::Write, "response/%u/#"),
                own(Access::Read, "desired/%u"),
                own(Access::Read, "request/%u"),
            ],
            operator: vec![
                below(Access::Read, "#"),
                system(),
                below(Access::Write, "config/#"),
                below(Access::Write, "request/#"),
            ],
            router: vec![below(Access::ReadWrite, "#"), system()],
            admin: vec![
                rule(Access::ReadWrite, "#"),
                rule(Access::ReadWrite, "$SYS/#"),
            ],
            root: root.to_owned(),
        }
    }

    /// The rules that every bearer of the role shares.
    pub(crate) fn shared(&self, grant: &Grant) -> &[Rule] {
        match grant.role {
            None => &[],
            Some(Role::Device) => &self.device,
            Some(Role::Operator) if grant.groups.is_empty() => &self.operator,
            Some(Role::Operator) => &[],
            Some(Role::Router) => &self.router,
            Some(Role::Admin) => &self.admin,
        }
    }

    /// The rules of an operator's groups.
    pub(crate) fn of_groups(&self, grant: &Grant) -> Vec<Rule> {
        let rule = |group: &String| Rule {
            access: Access::Read,
            filter: Template::literal(&format!("{}/live-group/{group}/#", self.root)),
            line: 0,
        };
        grant.groups.iter().map(rule).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_grant_is_read_as_it_is_written() {
        for text in ["", "role=admin", "role=operator,group=eu,group=us:east"] {
            assert_eq!(text.parse::<Grant>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn grants_that_mean_nothing_are_refused_with_a_reason() {
        for (text, hint) in [
            ("role=boss", "device, operator, router or admin"),
            ("role=device,group=eu", "only the role operator"),
            ("role=operator,group=e/u", "no group name"),
            ("role=operator,group=+", "no group name"),
            ("role=operator,role=admin", "one role"),
            ("operator", "role=operator"),
        ] {
            let error = text.parse::<Grant>().unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,60}") {
            if let Ok(grant) = text.parse::<Grant>() {
                prop_assert_eq!(grant.to_string().parse::<Grant>(), Ok(grant));
            }
        }
    }
}
