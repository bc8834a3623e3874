//! One rule, ready to use. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use thinglog_schemas::query::{EventQuery, Facts};
use thinglog_schemas::{Event, hash};

use crate::config::{AlertConfig, By, ConfigError};
use crate::routes::template::Template;

/// Most events of a `count`.
const MOST_COUNT: usize = 1_000_000;
/// Most times that the keys of one rule may remember together: 32 MiB.
const MOST_TIMES: usize = 4 << 20;
/// Most keys of a rule unless it says so.
const KEYS: usize = 10_000;
/// Most keys that it may ask for.
const MOST_KEYS: usize = 1_000_000;
/// Longest value of a label or annotation, bytes.
const LONGEST: usize = 1024;

/// A rule.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) name: Arc<str>,
    /// Stands for what makes it what it is: state of another one is not taken up.
    pub(crate) spec: u64,
    when: Option<EventQuery>,
    pub(crate) kind: Kind,
    pub(crate) by: By,
    /// Nanoseconds.
    pub(crate) group_wait: u64,
    /// Nanoseconds.
    pub(crate) cooldown: u64,
    /// Whether the end of an alert is told.
    pub(crate) resolved: bool,
    pub(crate) severity: Option<String>,
    labels: Vec<(String, Template)>,
    annotations: Vec<(String, Template)>,
    pub(crate) to: Vec<String>,
    pub(crate) max_keys: usize,
    pub(crate) asks_for_facts: bool,
}

/// What opens an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Each event; it is over so many nanoseconds after the last.
    Match { over_after: u64 },
    /// So many within so many nanoseconds.
    Count { events: usize, within: u64 },
}

impl Rule {
    /// Makes a rule; an error names its key.
    pub(crate) fn new(name: &str, config: &AlertConfig) -> Result<Rule, ConfigError> {
        let kind = match (config.count, config.within) {
            (Some(events @ 1..=MOST_COUNT), Some(within)) => Kind::Count {
                events,
                within: within.ns(),
            },
            (Some(events), _) => {
                let reason = format!("{events} is not 1 to {MOST_COUNT}");
                return Err(ConfigError::new("count", reason));
            }
            _ => Kind::Match {
                over_after: config.resolve_after.ns(),
            },
        };
        let times = config.count.unwrap_or(1);
        let max_keys = config
            .max_keys
            .unwrap_or(KEYS.min(MOST_TIMES / times).max(1));
        if max_keys == 0 || max_keys > MOST_KEYS || max_keys.saturating_mul(times) > MOST_TIMES {
            let reason = format!(
                "{max_keys} is not 1 to {MOST_KEYS}, or with this count more than {MOST_TIMES} times \
                 would have to be remembered"
            );
            return Err(ConfigError::new("max_keys", reason));
        }
        let when = config.when.as_ref().map(|when| when.0.clone());
        let labels = templates("labels", &config.labels)?;
        let annotations = templates("annotations", &config.annotations)?;
        let asks = |all: &[(String, Template)]| all.iter().any(|(_, it)| it.asks_for_facts());
        let asks_for_facts = config.by == By::Group
            || when.as_ref().is_some_and(EventQuery::asks_for_facts)
            || asks(&labels)
            || asks(&annotations);
        let text = when.as_ref().map(EventQuery::text);
        let spec = format!("{text:?} {kind:?} {:?}", config.by);
        Ok(Rule {
            name: Arc::from(name),
            spec: hash::fnv1a(spec.as_bytes()),
            when,
            kind,
            by: config.by,
            group_wait: config.group_wait.ns(),
            cooldown: config.cooldown.ns(),
            resolved: config.resolved.unwrap_or(config.count.is_some()),
            severity: config.severity.clone(),
            labels,
            annotations,
            to: config.to.clone(),
            max_keys,
            asks_for_facts,
        })
    }

    /// Whether it is for all events of a source, or for none; `None` if that hangs on the event.
    pub(crate) fn decides(&self, device: &str, source: &str, facts: &Facts) -> Option<bool> {
        match &self.when {
            Some(when) => when.decides(device, source, facts),
            None => Some(true),
        }
    }

    /// Whether it is for an event.
    pub(crate) fn is_for(&self, event: &Event, facts: &Facts) -> bool {
        self.when
            .as_ref()
            .is_none_or(|when| when.matches(event, facts))
    }

    /// Labels and annotations of an alert that an event opens.
    pub(crate) fn texts(&self, event: &Event, facts: &Facts) -> [BTreeMap<String, String>; 2] {
        [&self.labels, &self.annotations].map(|templates| {
            let text = |template: &Template| match template.value(event, facts) {
                serde_json::Value::String(text) => cut(text),
                serde_json::Value::Null => String::new(),
                other => cut(other.to_string()),
            };
            let texts = templates.iter();
            texts.map(|(name, it)| (name.clone(), text(it))).collect()
        })
    }
}

fn templates(
    key: &str,
    texts: &BTreeMap<String, String>,
) -> Result<Vec<(String, Template)>, ConfigError> {
    let parse = |(name, text): (&String, &String)| match Template::parse_with_device(text) {
        Ok(template) => Ok((name.clone(), template)),
        Err(reason) => Err(ConfigError::new(format!("{key}.{name}"), reason)),
    };
    texts.iter().map(parse).collect()
}

/// At most so much of a text, whole characters.
pub(crate) fn cut(mut text: String) -> String {
    if text.len() > LONGEST {
        let ends = (0..=LONGEST).rev();
        let end = ends.into_iter().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
}
