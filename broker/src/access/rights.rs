//! What one client may do: the rules of its role, of its groups, of its name and of everybody, and
//! which of them decides.
//!
//! A rule that denies wins; else one rule that allows is enough; else it is not allowed.

use std::{fmt, path::PathBuf, sync::Arc};

use thinglog_schemas::{Topics, name};

use super::{
    acl::Acl,
    roles::{Grant, Role, RoleRules},
    rules::{Access, Action, Names, Rule},
};
use crate::shared::unshared;

/// All rules of one reading of the files.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) roles: RoleRules,
    pub(crate) acl: Acl,
    /// Where the ACL file is, for explanations.
    pub(crate) acl_path: Option<PathBuf>,
}

impl Rules {
    pub(crate) fn new(topics: &Topics, acl: Acl, acl_path: Option<PathBuf>) -> Rules {
        Rules {
            roles: RoleRules::new(topics),
            acl,
            acl_path,
        }
    }
}

/// What one client may do.
#[derive(Debug)]
pub(crate) struct Rights {
    rules: Arc<Rules>,
    principal: Option<Arc<str>>,
    /// The client id if it is bound to the principal.
    bound: Option<Arc<str>>,
    grant: Grant,
    of_groups: Vec<Rule>,
    own: Arc<[Rule]>,
    /// Some rule denies something.
    denies: bool,
    /// No rule needs to be asked.
    unlimited: bool,
}

/// How far a subscription goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Nothing that it matches may be read.
    Nothing,
    /// Each delivery is to be checked.
    Checked,
    /// Everything that it matches may be read.
    Everything,
}

impl Rights {
    /// Of a client of a broker that asks nobody who they are.
    pub(crate) fn unlimited(rules: Arc<Rules>) -> Rights {
        Rights {
            rules,
            principal: None,
            bound: None,
            grant: Grant::default(),
            of_groups: Vec::new(),
            own: Arc::default(),
            denies: false,
            unlimited: true,
        }
    }

    pub(crate) fn new(
        rules: Arc<Rules>,
        principal: Option<Arc<str>>,
        client_id: &str,
        grant: &Grant,
    ) -> Rights {
        let mut grant = grant.clone();
        // A name that needs escaping would share its topics with the escaped one.
        if grant.role == Some(Role::Device) && !principal.as_deref().is_some_and(name::is_valid) {
            grant.role = None;
        }
        let own = match &principal {
            Some(principal) => rules.acl.of_user(principal),
            None => rules.acl.anonymous.clone(),
        };
        let denies = own
            .iter()
            .chain(&rules.acl.patterns)
            .any(|rule| rule.access == Access::Deny);
        Rights {
            unlimited: grant.role == Some(Role::Admin) && !denies,
            of_groups: rules.roles.of_groups(&grant),
            bound: principal
                .clone()
                .filter(|principal| **principal == *client_id),
            rules,
            principal,
            grant,
            own,
            denies,
        }
    }

    fn names(&self) -> Names<'_> {
        Names::new(self.principal.as_deref(), self.bound.as_deref())
    }

    /// Every rule that may speak, those of the role first.
    fn rules(&self) -> impl Iterator<Item = &Rule> {
        let shared = self.rules.roles.shared(&self.grant);
        shared
            .iter()
            .chain(&self.of_groups)
            .chain(self.own.iter())
            .chain(&self.rules.acl.patterns)
    }

    fn is_built_in(rule: &Rule) -> bool {
        rule.line == 0
    }

    /// The rule that decides, if any speaks.
    fn deciding(&self, action: Action, topic: &str) -> Option<&Rule> {
        let names = self.names();
        let mut allowing = None;
        for rule in self.rules() {
            let denies = rule.access == Access::Deny;
            if !(denies || allowing.is_none() && rule.access.allows(action))
                || !rule.speaks_of(action, topic, &names)
            {
                continue;
            }
            if denies {
                return Some(rule);
            }
            allowing = Some(rule);
            if !self.denies {
                break;
            }
        }
        allowing
    }

    fn may(&self, action: Action, topic: &str) -> bool {
        self.unlimited
            || self
                .deciding(action, topic)
                .is_some_and(|rule| rule.access != Access::Deny)
    }

    /// Whether a message on `topic` may be delivered.
    pub(crate) fn may_read(&self, topic: &str) -> bool {
        self.may(Action::Read, topic)
    }

    /// Whether a message may be published on `topic`.
    pub(crate) fn may_write(&self, topic: &str) -> bool {
        self.may(Action::Write, topic)
    }

    /// How far a subscription to `filter` goes; the filter behind `$share/<group>/` for a shared one.
    pub(crate) fn reach(&self, filter: &str) -> Reach {
        if self.unlimited {
            return Reach::Everything;
        }
        let filter = unshared(filter);
        if !self.may(Action::Subscribe, filter) {
            return Reach::Nothing;
        }
        let names = self.names();
        let covers =
            |rule: &Rule| rule.access.allows(Action::Read) && rule.filter.covers(filter, &names);
        let touches =
            |rule: &Rule| rule.access == Access::Deny && rule.filter.overlaps(filter, &names);
        if self.rules().any(covers) && !(self.denies && self.rules().any(touches)) {
            Reach::Everything
        } else {
            Reach::Checked
        }
    }

    /// Whether the client is told where messages come from (`thinglog-*` properties) and may choose
    /// where a durable subscription starts.
    pub(crate) fn is_trusted(&self) -> bool {
        self.unlimited || matches!(self.grant.role, Some(Role::Router | Role::Admin))
    }

    /// Which rule decides, in words.
    pub(crate) fn explain(&self, action: Action, topic: &str) -> Decision {
        let topic = match action {
            Action::Subscribe => unshared(topic),
            Action::Read | Action::Write => topic,
        };
        let rule = self.deciding(action, topic);
        let because = match rule {
            None => Because::NoRule,
            Some(rule) if Self::is_built_in(rule) => Because::Role {
                role: self.grant.role.map_or("", Role::word),
                rule: format!("{} {}", rule.access.word(), rule.filter.text()),
            },
            Some(rule) => Because::Line {
                file: self.rules.acl_path.clone().unwrap_or_default(),
                line: rule.line,
                rule: format!("{} {}", rule.access.word(), rule.filter.text()),
            },
        };
        Decision {
            allowed: rule.is_some_and(|rule| rule.access != Access::Deny),
            because,
        }
    }
}

/// Whether something is allowed, and which rule decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// It is.
    pub allowed: bool,
    /// The reason.
    pub because: Because,
}

/// Which rule decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Because {
    /// None speaks of the topic, so it is not allowed.
    NoRule,
    /// A line of the ACL file.
    Line {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// As it was understood.
        rule: String,
    },
    /// The broker keeps the topic for itself.
    Own(&'static str),
    /// What is built in for a role.
    Role {
        /// The role.
        role: &'static str,
        /// As it would stand in an ACL file.
        rule: String,
    },
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Because::NoRule => f.write_str("no rule speaks of it"),
            Because::Own(reason) => f.write_str(reason),
            Because::Line { file, line, rule } => write!(f, "{}:{line}: {rule}", file.display()),
            Because::Role { role, rule } => write!(f, "role {role}: {rule}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn rights(acl: &str, principal: Option<&str>, client: &str, grant: &str) -> Rights {
        let acl = Acl::parse(Path::new("acl"), acl).unwrap();
        let rules = Rules::new(&Topics::default(), acl, Some("acl".into()));
        let grant = grant.parse().unwrap();
        Rights::new(Arc::new(rules), principal.map(Into::into), client, &grant)
    }

    #[test]
    fn a_device_writes_and_reads_its_own_topics_only() {
        let device = rights("", Some("lamp"), "lamp/1", "role=device");
        for topic in ["logs/lamp/app", "reported/lamp", "response/lamp/7"] {
            assert!(device.may_write(&format!("thinglog/{topic}")), "{topic}");
            assert!(!device.may_read(&format!("thinglog/{topic}")), "{topic}");
        }
        for topic in ["desired/lamp", "request/lamp"] {
            assert!(device.may_read(&format!("thinglog/{topic}")), "{topic}");
            assert!(!device.may_write(&format!("thinglog/{topic}")), "{topic}");
        }
        for topic in [
            "logs/lamp2/app",
            "reported/lamp/x",
            "config/default",
            "desired/other",
        ] {
            assert!(!device.may_write(&format!("thinglog/{topic}")), "{topic}");
            assert!(!device.may_read(&format!("thinglog/{topic}")), "{topic}");
        }
        assert!(!device.may_read("$SYS/broker/uptime"));
        assert_eq!(device.reach("thinglog/desired/lamp"), Reach::Everything);
        assert_eq!(device.reach("thinglog/desired/+"), Reach::Checked);
        assert_eq!(device.reach("#"), Reach::Checked);
        assert_eq!(device.reach("thinglog/logs/#"), Reach::Nothing);
        assert!(!device.is_trusted());
    }

    #[test]
    fn a_device_whose_name_would_need_escaping_has_no_topics() {
        for name in ["a/b", "+", "#", "lamp 7", "$SYS", ""] {
            let device = rights("", Some(name), name, "role=device");
            for topic in [
                "thinglog/logs/a/b",
                "thinglog/logs/a/b/c",
                "thinglog/logs/lamp 7/x",
            ] {
                assert!(!device.may_write(topic), "{name:?} {topic}");
            }
            assert_eq!(device.reach("#"), Reach::Nothing, "{name:?}");
        }
    }

    #[test]
    fn operators_watch_and_configure_and_those_of_groups_watch_theirs_only() {
        let operator = rights("", Some("alice"), "x", "role=operator");
        assert!(operator.may_read("thinglog/live/lamp/error/app"));
        assert!(operator.may_read("$SYS/broker/uptime"));
        assert!(operator.may_write("thinglog/config/default"));
        assert!(operator.may_write("thinglog/request/lamp"));
        assert!(!operator.may_write("thinglog/desired/lamp"));
        assert!(!operator.may_write("thinglog/logs/lamp/app"));
        let scoped = rights("", Some("bob"), "x", "role=operator,group=eu,group=us");
        for group in ["eu", "us"] {
            assert!(scoped.may_read(&format!("thinglog/live-group/{group}/lamp/error/app")));
        }
        for topic in [
            "live-group/asia/l/error/a",
            "live/l/error/a",
            "config/default",
        ] {
            assert!(!scoped.may_read(&format!("thinglog/{topic}")), "{topic}");
        }
        assert!(!scoped.may_write("thinglog/config/default"));
        assert!(!scoped.may_read("$SYS/thinglog/interest"));
        assert_eq!(scoped.reach("thinglog/live-group/eu/#"), Reach::Everything);
        assert_eq!(
            scoped.reach("$share/g/thinglog/live-group/eu/#"),
            Reach::Everything
        );
        assert_eq!(scoped.reach("$share/g/thinglog/live/#"), Reach::Nothing);
    }

    #[test]
    fn routers_have_the_root_and_admins_everything() {
        let router = rights("", Some("r"), "x", "role=router");
        assert!(router.may_write("thinglog/desired/lamp") && router.may_read("$SYS/a"));
        assert!(!router.may_write("other") && router.is_trusted());
        assert_eq!(router.reach("thinglog/logs/#"), Reach::Everything);
        let admin = rights("", Some("a"), "x", "role=admin");
        assert!(admin.may_write("other") && admin.unlimited);
    }

    #[test]
    fn deny_wins_wherever_it_stands_and_over_roles() {
        let acl = "user a\ntopic deny x/secret\ntopic readwrite x/#\npattern deny y/#\n";
        let user = rights(acl, Some("a"), "x", "");
        assert!(user.may_read("x/open") && !user.may_read("x/secret"));
        assert_eq!(user.reach("x/#"), Reach::Checked);
        assert_eq!(user.reach("x/secret"), Reach::Nothing);
        let admin = rights(acl, Some("a"), "x", "role=admin");
        assert!(!admin.may_write("y/z") && admin.may_write("z") && !admin.unlimited);
    }

    #[test]
    fn the_client_id_counts_only_where_it_is_the_users_name() {
        let acl = "pattern readwrite by-id/%c/#\n";
        assert!(rights(acl, Some("a"), "a", "").may_write("by-id/a/x"));
        assert!(!rights(acl, Some("a"), "b", "").may_write("by-id/b/x"));
        assert!(!rights(acl, None, "b", "").may_write("by-id/b/x"));
    }

    #[test]
    fn clients_without_a_name_have_the_rules_before_the_first_user() {
        let acl = "topic read weather/#\nuser a\ntopic read a/#\n";
        let nobody = rights(acl, None, "x", "");
        assert!(nobody.may_read("weather/x") && !nobody.may_read("a/x"));
        let user = rights(acl, Some("a"), "x", "");
        assert!(!user.may_read("weather/x") && user.may_read("a/x"));
    }

    #[test]
    fn an_explanation_names_the_rule_that_decides() {
        let acl = "user lamp\ntopic read x/#\ntopic deny x/y\n";
        let device = rights(acl, Some("lamp"), "lamp", "role=device");
        for (action, topic, allowed, because) in [
            (Action::Read, "x/z", true, "acl:2: read x/#"),
            (Action::Read, "x/y", false, "acl:3: deny x/y"),
            (Action::Write, "x/z", false, "no rule speaks of it"),
            (
                Action::Write,
                "thinglog/logs/lamp/a",
                true,
                "role device: write thinglog/logs/%u/#",
            ),
            (Action::Subscribe, "x/#", true, "acl:2: read x/#"),
        ] {
            let decision = device.explain(action, topic);
            assert_eq!(decision.allowed, allowed, "{topic}");
            assert_eq!(decision.because.to_string(), because);
        }
    }

    fn topic() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just("a"), Just("b"), Just("u")];
        proptest::collection::vec(level, 1..4).prop_map(|levels| levels.join("/"))
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just("a"), Just("b"), Just("%u"), Just("+")];
        (proptest::collection::vec(level, 1..4), any::<bool>())
            .prop_map(|(levels, hash)| levels.join("/") + if hash { "/#" } else { "" })
    }

    proptest! {
        #[test]
        fn what_a_subscription_reaches_agrees_with_its_deliveries(
            rules in proptest::collection::vec((prop_oneof![Just("read"), Just("deny"), Just("write")], filter()), 0..6),
            asked in filter(), topic in topic(),
        ) {
            let acl: String = rules.iter().map(|(access, filter)| format!("pattern {access} {filter}\n")).collect();
            let user = rights(&acl, Some("u"), "u", "");
            let asked = asked.replace("%u", "u");
            if thinglog_schemas::topic::matches(&asked, &topic) {
                match user.reach(&asked) {
                    Reach::Nothing => prop_assert!(!user.may_read(&topic)),
                    Reach::Everything => prop_assert!(user.may_read(&topic)),
                    Reach::Checked => {}
                }
            }
        }
    }
}
