//! One type for every topic, both ways: `format` and `parse` round-trip. Parsing borrows from the
//! topic and allocates only to explain a refusal.

use std::fmt;

use crate::{Level, name};

/// Topics below one root (default `thinglog`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    root: String,
}

/// A topic of thinglog's. Borrowed names; valid ones only (see [`name`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic<'a> {
    /// `logs/<device>/<source>`: what a device logs; durable.
    Logs {
        /// Who logged.
        device: &'a str,
        /// Program or stream on the device.
        source: &'a str,
    },
    /// `live/<device>/<level>/<source>`: one event for whoever watches.
    Live {
        /// Who logged.
        device: &'a str,
        /// Of the event; never DISABLED.
        level: Level,
        /// Program or stream on the device.
        source: &'a str,
    },
    /// `live-group/<group>/<device>/<level>/<source>`: the same for each group of the device.
    LiveGroup {
        /// A group of the device, ancestors included.
        group: &'a str,
        /// Who logged.
        device: &'a str,
        /// Of the event; never DISABLED.
        level: Level,
        /// Program or stream on the device.
        source: &'a str,
    },
    /// `out/<route>/<device>`: levelled events for consumers that must not miss any; durable.
    Out {
        /// Name of the route.
        route: &'a str,
        /// Who logged.
        device: &'a str,
    },
    /// `config/…`
    Config(ConfigTopic<'a>),
    /// `desired/<device>`: the resolved configuration, retained.
    Desired {
        /// Whom it is for.
        device: &'a str,
    },
    /// `reported/<device>`: what the device says of itself, retained.
    Reported {
        /// Who reports.
        device: &'a str,
    },
    /// `request/<device>`: on-demand upload.
    Request {
        /// Who is asked.
        device: &'a str,
    },
    /// `response/<device>/<id>`
    Response {
        /// Who answers.
        device: &'a str,
        /// Of the request.
        id: &'a str,
    },
    /// `connected/<device>`: principal, address, since; retained.
    Connected {
        /// Who is connected.
        device: &'a str,
    },
    /// `alerts/<rule>`
    Alerts {
        /// Name of the rule; `config` for refused documents.
        rule: &'a str,
    },
}

/// What a retained configuration document is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConfigTopic<'a> {
    /// `config/default`: every device.
    Default,
    /// `config/group/<group>`
    Group(&'a str),
    /// `config/device/<device>`
    Device(&'a str),
    /// `config/source/<source>`: the source of that name on every device.
    Source(&'a str),
    /// `config/principal/<principal>`: whoever authenticates so.
    Principal(&'a str),
    /// `config/source-ip/<ip>`: whoever connects from there.
    SourceIp(&'a str),
    /// `config/override/default`
    OverrideDefault,
    /// `config/override/group/<group>`
    OverrideGroup(&'a str),
    /// `config/override/device/<device>`
    OverrideDevice(&'a str),
    /// `config/member/<group>/<device>`
    Member {
        /// The group that has the device.
        group: &'a str,
        /// The device in the group.
        device: &'a str,
    },
}

impl fmt::Display for ConfigTopic<'_> {
    /// The topic without its root: `config/device/lamp-7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigTopic::Default => f.write_str("config/default"),
            ConfigTopic::Group(name) => write!(f, "config/group/{name}"),
            ConfigTopic::Device(name) => write!(f, "config/device/{name}"),
            ConfigTopic::Source(name) => write!(f, "config/source/{name}"),
            ConfigTopic::Principal(name) => write!(f, "config/principal/{name}"),
            ConfigTopic::SourceIp(ip) => write!(f, "config/source-ip/{ip}"),
            ConfigTopic::OverrideDefault => f.write_str("config/override/default"),
            ConfigTopic::OverrideGroup(name) => write!(f, "config/override/group/{name}"),
            ConfigTopic::OverrideDevice(name) => write!(f, "config/override/device/{name}"),
            ConfigTopic::Member { group, device } => write!(f, "config/member/{group}/{device}"),
        }
    }
}

impl<'a> ConfigTopic<'a> {
    /// The inverse of its text: a topic without its root.
    pub fn parse(topic: &'a str) -> Result<ConfigTopic<'a>, TopicError> {
        match parse_below(topic) {
            Ok(Topic::Config(config)) => Ok(config),
            Ok(_) => Err(BAD_SHAPE),
            Err(reason) => Err(reason),
        }
        .map_err(|reason| TopicError::Malformed {
            topic: cut(topic),
            reason,
        })
    }
}

/// Why a topic or a root was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Not one of ours.
    #[error("topic {topic:?} is not below {root:?}")]
    Foreign {
        /// The topic as received.
        topic: String,
        /// The root it should have been below.
        root: String,
    },
    /// Ours, but not of a form that exists.
    #[error("topic {topic:?}: {reason}")]
    Malformed {
        /// The topic as received.
        topic: String,
        /// What is wrong and what would be right.
        reason: &'static str,
    },
}

const BAD_NAME: &str = "a name is 1-128 characters of A-Z a-z 0-9 . _ : - (others as %XX)";
const BAD_LEVEL: &str = "the level is error, warn, info or debug, in lower case";
const BAD_SHAPE: &str = "no topic of thinglog has this form";
const BAD_ROOT: &str =
    "a root is one or more non-empty topic levels without + # $ or NUL, at most 512 bytes";

impl Topics {
    /// `root` is one or more topic levels without wildcards.
    pub fn new(root: &str) -> Result<Topics, TopicError> {
        let bad = |level: &str| level.is_empty() || level.contains(['+', '#', '$', '\0']);
        if root.len() > 512 || root.split('/').any(bad) {
            return Err(TopicError::Malformed {
                topic: cut(root),
                reason: BAD_ROOT,
            });
        }
        Ok(Topics {
            root: root.to_owned(),
        })
    }

    /// The root, without a trailing slash.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The topic's text.
    pub fn format(&self, topic: Topic<'_>) -> String {
        let root = &self.root;
        match topic {
            Topic::Logs { device, source } => self.join(&["logs", device, source]),
            Topic::Live {
                device,
                level,
                source,
            } => self.join(&["live", device, level.topic_name(), source]),
            Topic::LiveGroup {
                group,
                device,
                level,
                source,
            } => self.join(&["live-group", group, device, level.topic_name(), source]),
            Topic::Out { route, device } => self.join(&["out", route, device]),
            Topic::Config(config) => format!("{root}/{config}"),
            Topic::Desired { device } => self.join(&["desired", device]),
            Topic::Reported { device } => self.join(&["reported", device]),
            Topic::Request { device } => self.join(&["request", device]),
            Topic::Response { device, id } => self.join(&["response", device, id]),
            Topic::Connected { device } => self.join(&["connected", device]),
            Topic::Alerts { rule } => self.join(&["alerts", rule]),
        }
    }

    fn join(&self, levels: &[&str]) -> String {
        let length = levels.iter().map(|level| level.len() + 1).sum::<usize>();
        let mut topic = String::with_capacity(self.root.len() + length);
        topic.push_str(&self.root);
        for level in levels {
            topic.push('/');
            topic.push_str(level);
        }
        topic
    }

    /// What a topic means; names are checked.
    pub fn parse<'a>(&self, topic: &'a str) -> Result<Topic<'a>, TopicError> {
        let below = topic
            .strip_prefix(self.root.as_str())
            .and_then(|rest| rest.strip_prefix('/'));
        let Some(below) = below else {
            return Err(TopicError::Foreign {
                topic: cut(topic),
                root: self.root.clone(),
            });
        };
        parse_below(below).map_err(|reason| TopicError::Malformed {
            topic: cut(topic),
            reason,
        })
    }

    /// `<root>/logs/#`
    pub fn all_logs(&self) -> String {
        self.join(&["logs", "#"])
    }

    /// `<root>/config/#`
    pub fn all_config(&self) -> String {
        self.join(&["config", "#"])
    }

    /// `<root>/desired/#`
    pub fn all_desired(&self) -> String {
        self.join(&["desired", "#"])
    }
}

impl Default for Topics {
    fn default() -> Self {
        Topics {
            root: "thinglog".into(),
        }
    }
}

/// At most this many levels stand below the root.
const MAX_LEVELS: usize = 5;

fn parse_below(below: &str) -> Result<Topic<'_>, &'static str> {
    let mut levels = [""; MAX_LEVELS];
    let mut count = 0;
    for level in below.split('/') {
        *levels.get_mut(count).ok_or(BAD_SHAPE)? = level;
        count += 1;
    }
    let topic = match levels[..count] {
        ["logs", device, source] => Topic::Logs {
            device: checked(device)?,
            source: checked(source)?,
        },
        ["live", device, level, source] => Topic::Live {
            device: checked(device)?,
            level: live_level(level)?,
            source: checked(source)?,
        },
        ["live-group", group, device, level, source] => Topic::LiveGroup {
            group: checked(group)?,
            device: checked(device)?,
            level: live_level(level)?,
            source: checked(source)?,
        },
        ["out", route, device] => Topic::Out {
            route: checked(route)?,
            device: checked(device)?,
        },
        ["config", ref rest @ ..] => Topic::Config(parse_config(rest)?),
        ["desired", device] => Topic::Desired {
            device: checked(device)?,
        },
        ["reported", device] => Topic::Reported {
            device: checked(device)?,
        },
        ["request", device] => Topic::Request {
            device: checked(device)?,
        },
        ["response", device, id] => Topic::Response {
            device: checked(device)?,
            id: checked(id)?,
        },
        ["connected", device] => Topic::Connected {
            device: checked(device)?,
        },
        ["alerts", rule] => Topic::Alerts {
            rule: checked(rule)?,
        },
        _ => return Err(BAD_SHAPE),
    };
    Ok(topic)
}

fn parse_config<'a>(levels: &[&'a str]) -> Result<ConfigTopic<'a>, &'static str> {
    let topic = match *levels {
        ["default"] => ConfigTopic::Default,
        ["group", name] => ConfigTopic::Group(checked(name)?),
        ["device", name] => ConfigTopic::Device(checked(name)?),
        ["source", name] => ConfigTopic::Source(checked(name)?),
        ["principal", name] => ConfigTopic::Principal(checked(name)?),
        ["source-ip", ip] => ConfigTopic::SourceIp(checked(ip)?),
        ["override", "default"] => ConfigTopic::OverrideDefault,
        ["override", "group", name] => ConfigTopic::OverrideGroup(checked(name)?),
        ["override", "device", name] => ConfigTopic::OverrideDevice(checked(name)?),
        ["member", group, device] => ConfigTopic::Member {
            group: checked(group)?,
            device: checked(device)?,
        },
        _ => return Err(BAD_SHAPE),
    };
    Ok(topic)
}

fn checked(name: &str) -> Result<&str, &'static str> {
    if name::is_valid(name) {
        Ok(name)
    } else {
        Err(BAD_NAME)
    }
}

fn live_level(word: &str) -> Result<Level, &'static str> {
    let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug];
    levels
        .into_iter()
        .find(|level| level.topic_name() == word)
        .ok_or(BAD_LEVEL)
}

/// A topic may be 65,535 bytes of anything: an error message needs its beginning only.
fn cut(topic: &str) -> String {
    topic.chars().take(200).collect()
}

/// The broker's topic of live filters: a JSON array of filter strings (or `["#"]`).
pub const INTEREST: &str = "$SYS/thinglog/interest";

/// Whether a valid filter matches a topic name (MQTT 5.0 section 4.7): `+` is one level, `#` the
/// parent and everything below it, and a leading wildcard does not match topics that begin with `$`.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut topic_levels = topic.split('/');
    for level in filter.split('/') {
        match (level, topic_levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(topic_level)) if level == topic_level => {}
            _ => return false,
        }
    }
    topic_levels.next().is_none()
}

/// Whether a filter is well-formed (MQTT 5.0 section 4.7.1): 1–65,535 bytes, no NUL, wildcards
/// alone in their level, `#` last.
pub fn valid_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.len() > 65_535 || filter.contains('\0') {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let well_formed = match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            _ => !level.contains(['+', '#']),
        };
        if !well_formed {
            return false;
        }
    }
    true
}

/// Whether some topic could match both filters.
pub fn overlap(a: &str, b: &str) -> bool {
    let wild = |filter: &str| filter.starts_with(['+', '#']);
    if (wild(a) && b.starts_with('$')) || (wild(b) && a.starts_with('$')) {
        return false;
    }
    let (mut a, mut b) = (a.split('/'), b.split('/'));
    loop {
        match (a.next(), b.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(left), Some(right)) if left == right => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
#[path = "topic_tests.rs"]
mod tests;
