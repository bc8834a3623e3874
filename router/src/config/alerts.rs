//! What an operator may set of alerts: rules, and who hears of them. What they mean stands in
//! [`crate::alerts`].

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thinglog_schemas::query::Query;
use thinglog_schemas::units;

use super::ConfigError;
use super::remote::{ClientConfig, Secret, check_base_url};
use super::routes::Condition;
use super::webhook::Method;
use crate::alerts::rule::Rule;

/// The receiver that is always there: `<root>/alerts/<rule>` at the router's own broker.
pub(crate) const MQTT_RECEIVER: &str = "mqtt";
/// Most receivers of one rule.
const MOST_RECEIVERS: usize = 16;
/// Topics below `<root>/alerts/` that others publish on.
const TAKEN: [&str; 2] = ["config", "retention"];

/// A span of time, `200ms`, `5s`, `10m`, `1h`, `7d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span {
    ms: u64,
}

impl Span {
    /// This many milliseconds.
    pub const fn millis(ms: u64) -> Span {
        Span { ms }
    }

    /// In nanoseconds.
    pub(crate) fn ns(self) -> u64 {
        self.ms.saturating_mul(1_000_000)
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Span, String> {
        units::millis(&text).map(|ms| Span { ms })
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        match span.ms % 1000 {
            0 => format!("{}s", span.ms / 1000),
            _ => format!("{}ms", span.ms),
        }
    }
}

/// When somebody is told of events, and how: a rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertConfig {
    /// Which events; all unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
    /// So many of them `within` a time; without it, each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// The window of `count`, by the time the broker received them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<Span>,
    /// None of them for this time from a device that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absent_for: Option<Span>,
    /// With `absent_for`: of which devices; all unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<Devices>,
    /// What has alerts of its own: each device, each group, or the fleet as a whole.
    pub by: By,
    /// How long a notification waits for other alerts of the rule.
    pub group_wait: Span,
    /// Shortest time between two notifications that the same device, group or fleet is alerted.
    pub cooldown: Span,
    /// When an alert without `count` is over: so long after its last event.
    pub resolve_after: Span,
    /// Whether the end of an alert is told; unless given, of rules with `count` or
    /// `absent_for`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved: Option<bool>,
    /// How grave it is, in the receivers' words: `critical`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// Labels: templates ([`crate::routes::template`]) of the event that opened the alert.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Texts for people, likewise.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Receivers by name; `mqtt` is always there.
    pub to: Vec<String>,
    /// Most devices or groups that are followed at a time; 10,000, less for a large `count`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_keys: Option<usize>,
}

impl Default for AlertConfig {
    fn default() -> Self {
        AlertConfig {
            when: None,
            count: None,
            within: None,
            absent_for: None,
            of: None,
            by: By::Device,
            group_wait: Span::default(),
            cooldown: Span::default(),
            resolve_after: Span::millis(300_000),
            resolved: None,
            severity: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            to: vec![MQTT_RECEIVER.into()],
            max_keys: None,
        }
    }
}

/// Devices, in the language of dynamic groups.
#[derive(Clone, Debug)]
pub struct Devices(pub(crate) Query);

impl PartialEq for Devices {
    fn eq(&self, other: &Devices) -> bool {
        self.0.text() == other.0.text()
    }
}

impl<'de> Deserialize<'de> for Devices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Devices, D::Error> {
        let text = String::deserialize(deserializer)?;
        Query::parse(&text)
            .map(Devices)
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for Devices {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.text())
    }
}

/// What has alerts of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// Each device.
    #[default]
    Device,
    /// Each group; an event counts for every group of its device, ancestors and dynamic groups
    /// included.
    Group,
    /// The fleet.
    Fleet,
}

/// Who hears of alerts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ReceiverConfig {
    /// HTTP requests with the JSON of a notification, to anybody.
    Webhook {
        /// Where they go.
        url: String,
        /// `POST`, `PUT` or `PATCH`.
        #[serde(default)]
        method: Method,
        /// Signs each request as the destination of this type does: `Thinglog-Signature`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        secret: Option<Secret>,
        /// How the service is reached.
        #[serde(default)]
        http: Box<ClientConfig>,
    },
    /// Prometheus' Alertmanager, by its API v2.
    Alertmanager {
        /// Its address; `/api/v2/alerts` is added.
        url: String,
        /// How it is reached.
        #[serde(default)]
        http: Box<ClientConfig>,
    },
}

impl AlertConfig {
    /// Checks everything but that the receivers are there.
    fn validate(&self) -> Result<(), ConfigError> {
        if self.to.is_empty() || self.to.len() > MOST_RECEIVERS {
            let reason = format!("a rule has 1 to {MOST_RECEIVERS} receivers: to = [\"mqtt\"]");
            return Err(ConfigError::new("to", reason));
        }
        if self.count.is_some() != self.within.is_some() {
            let reason = "count and within go together: count = 5, within = \"10m\"";
            return Err(ConfigError::new("within", reason));
        }
        for (key, span) in [("within", self.within), ("absent_for", self.absent_for)] {
            if span == Some(Span::default()) {
                return Err(ConfigError::new(key, "must be longer than nothing"));
            }
        }
        if self.absent_for.is_some() && (self.count.is_some() || self.by != By::Device) {
            let reason = "silence is watched by device and has no count";
            return Err(ConfigError::new("absent_for", reason));
        }
        if self.of.is_some() && self.absent_for.is_none() {
            let reason = "names devices that are to say something: it goes with absent_for";
            return Err(ConfigError::new("of", reason));
        }
        for name in self.labels.keys().chain(self.annotations.keys()) {
            let letters = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if !name.chars().all(letters)
                || name.starts_with(|c: char| c.is_ascii_digit())
                || name.is_empty()
            {
                let reason = format!(
                    "{name:?} is no name of a label or annotation: A-Z a-z 0-9 _, no digit first"
                );
                return Err(ConfigError::new("labels", reason));
            }
        }
        Rule::new("", self).map(drop)
    }
}

impl ReceiverConfig {
    /// The word of `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            ReceiverConfig::Webhook { .. } => "webhook",
            ReceiverConfig::Alertmanager { .. } => "alertmanager",
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        if !cfg!(feature = "webhook") {
            let reason = format!("this build has no {}", self.kind());
            return Err(ConfigError::new("type", reason));
        }
        match self {
            ReceiverConfig::Webhook { url, http, .. } => {
                http.validate()?;
                match url.contains(['?', '#']) {
                    // A query is part of the address of many hooks.
                    true => check_base_url(url.split(['?', '#']).next().unwrap_or_default()),
                    false => check_base_url(url),
                }
            }
            ReceiverConfig::Alertmanager { url, http } => {
                http.validate()?;
                check_base_url(url)
            }
        }
    }
}

/// Checks rules and receivers; keys are those below `router`.
pub(super) fn validate(
    alerts: &BTreeMap<String, AlertConfig>,
    receivers: &BTreeMap<String, ReceiverConfig>,
) -> Result<(), ConfigError> {
    let below = |table: &str, name: &str, error: ConfigError| {
        ConfigError::new(format!("{table}.{name}.{}", error.key), error.reason)
    };
    for (name, receiver) in receivers {
        check_name("receivers", name, &[MQTT_RECEIVER])?;
        let checked = receiver.validate();
        checked.map_err(|error| below("receivers", name, error))?;
    }
    for (name, alert) in alerts {
        check_name("alerts", name, &TAKEN)?;
        let checked = alert.validate();
        checked.map_err(|error| below("alerts", name, error))?;
        let unknown = |to: &&String| *to != MQTT_RECEIVER && !receivers.contains_key(*to);
        if let Some(to) = alert.to.iter().find(unknown) {
            let reason = format!("there is no receiver {to:?}: add [router.receivers.{to}]");
            return Err(ConfigError::new(format!("alerts.{name}.to"), reason));
        }
    }
    Ok(())
}

fn check_name(table: &str, name: &str, taken: &[&str]) -> Result<(), ConfigError> {
    let key = format!("{table}.{name}");
    if !thinglog_schemas::name::is_valid(name) {
        let reason = "a name is 1-128 characters of A-Z a-z 0-9 . _ : -";
        return Err(ConfigError::new(key, reason));
    }
    match taken.contains(&name) {
        true => Err(ConfigError::new(
            key,
            "this name has another meaning; choose another",
        )),
        false => Ok(()),
    }
}
