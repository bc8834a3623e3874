//! One rule, ready to use. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use thinglog_schemas::query::{EventQuery, Facts, Query, Thing, Wanted};
use thinglog_schemas::{Event, hash};

use super::track::Alert;
use crate::config::{AlertConfig, By, ConfigError, Span};
use crate::routes::template::Template;

/// Most events of a `count`.
const MOST_COUNT: usize = 1_000_000;
/// Most times that the keys of one rule may remember together: 32 MiB.
const MOST_TIMES: usize = 4 << 20;
/// Most keys of a rule unless it says so.
const KEYS: usize = 10_000;
/// The same of a rule that waits for devices to be silent.
const SILENT_KEYS: usize = 100_000;
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
    /// Which devices are to say something; all.
    of: Option<Query>,
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
    /// No event for so many nanoseconds.
    Silence { after: u64 },
}

impl Rule {
    /// Makes a rule; an error names its key.
    pub(crate) fn new(name: &str, config: &AlertConfig) -> Result<Rule, ConfigError> {
        let kind = Kind::of(config)?;
        let when = config.when.as_ref().map(|when| when.0.clone());
        let labels = templates("labels", &config.labels)?;
        let annotations = templates("annotations", &config.annotations)?;
        let asks = |all: &[(String, Template)]| all.iter().any(|(_, it)| it.asks_for_facts());
        let asks_for_facts = config.by == By::Group
            || when.as_ref().is_some_and(EventQuery::asks_for_facts)
            || asks(&labels)
            || asks(&annotations);
        let text = when.as_ref().map(EventQuery::text);
        let of = config.of.as_ref().map(|of| of.0.clone());
        let of_text = of.as_ref().map(Query::text);
        let spec = format!("{text:?} {of_text:?} {kind:?} {:?}", config.by);
        Ok(Rule {
            name: Arc::from(name),
            spec: hash::fnv1a(spec.as_bytes()),
            when,
            of,
            kind,
            by: config.by,
            group_wait: config.group_wait.ns(),
            cooldown: config.cooldown.ns(),
            resolved: config
                .resolved
                .unwrap_or(!matches!(kind, Kind::Match { .. })),
            severity: config.severity.clone(),
            labels,
            annotations,
            to: config.to.clone(),
            max_keys: kind.max_keys(config)?,
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

    /// Whether a device is to say something.
    pub(crate) fn expects(&self, device: &str, facts: &Facts) -> bool {
        let groups = |wanted: Wanted<'_>| facts.groups.iter().any(|group| wanted(group));
        self.of.as_ref().is_none_or(|of| {
            of.matches(&Thing {
                name: device,
                kind: facts.kind.as_deref(),
                operator: Some(&facts.attributes),
                reported: None,
                online: Some(facts.online),
                any_group: &groups,
            })
        })
    }

    /// Which events, as it was written.
    pub(crate) fn when(&self) -> &str {
        self.when.as_ref().map_or("", EventQuery::text)
    }

    /// What opens an alert, in words.
    pub(crate) fn opens(&self) -> String {
        let span = |ns: u64| String::from(Span::millis(ns / 1_000_000));
        match self.kind {
            Kind::Match { .. } => "each event".into(),
            Kind::Count { events, within } => format!("{events} within {}", span(within)),
            Kind::Silence { after } => {
                let of = self
                    .of
                    .as_ref()
                    .map_or(String::new(), |of| format!(" of {}", of.text()));
                format!("none for {}{of}", span(after))
            }
        }
    }

    /// An alert that an event opens.
    pub(super) fn opened(
        &self,
        key: &str,
        events: u64,
        event: &Event,
        facts: &Facts,
        at: u64,
    ) -> Alert {
        let mut text = format!("{key}\n").into_bytes();
        event.id.write(&event.device, &mut text);
        if event.id == thinglog_schemas::EventId::None {
            text.extend_from_slice(&event.received.to_le_bytes());
            text.extend_from_slice(event.message.as_bytes());
        }
        let [labels, annotations] = self.texts(event, facts);
        Alert {
            id: format!("{}/{:016x}", self.name, hash::fnv1a(&text)),
            starts: at,
            last: at,
            count: events,
            labels,
            annotations,
            ..Alert::default()
        }
    }

    /// An alert of a device that says nothing.
    pub(super) fn silent(&self, key: &Arc<str>, since: u64, heard: u64, facts: &Facts) -> Alert {
        let after = match self.kind {
            Kind::Silence { after } => after,
            _ => 0,
        };
        let mut text = format!("{key}\n").into_bytes();
        text.extend_from_slice(&since.to_le_bytes());
        let event = Event {
            device: Arc::clone(key),
            source: Arc::from(""),
            id: thinglog_schemas::EventId::None,
            time: since,
            time_estimated: false,
            severity: thinglog_schemas::Severity::WARN,
            message: self.opens(),
            truncated: false,
            attributes: thinglog_schemas::Attributes::new(),
            received: since,
        };
        let [labels, annotations] = self.texts(&event, facts);
        Alert {
            id: format!("{}/{:016x}", self.name, hash::fnv1a(&text)),
            starts: since.saturating_add(after),
            last: heard,
            labels,
            annotations,
            ..Alert::default()
        }
    }

    /// Labels and annotations of an alert that an event opens.
    fn texts(&self, event: &Event, facts: &Facts) -> [BTreeMap<String, String>; 2] {
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

impl Kind {
    fn of(config: &AlertConfig) -> Result<Kind, ConfigError> {
        Ok(match (config.count, config.within, config.absent_for) {
            (_, _, Some(after)) => Kind::Silence { after: after.ns() },
            (Some(events @ 1..=MOST_COUNT), Some(within), _) => Kind::Count {
                events,
                within: within.ns(),
            },
            (Some(events), _, _) => {
                let reason = format!("{events} is not 1 to {MOST_COUNT}");
                return Err(ConfigError::new("count", reason));
            }
            _ => Kind::Match {
                over_after: config.resolve_after.ns(),
            },
        })
    }

    fn max_keys(self, config: &AlertConfig) -> Result<usize, ConfigError> {
        let (times, usual) = match self {
            Kind::Match { .. } => (1, KEYS),
            Kind::Silence { .. } => (1, SILENT_KEYS),
            Kind::Count { events, .. } => (events, KEYS.min(MOST_TIMES / events).max(1)),
        };
        let most = MOST_KEYS.min(MOST_TIMES / times).max(1);
        match config.max_keys.unwrap_or(usual) {
            keys if keys > 0 && keys <= most => Ok(keys),
            keys => {
                let reason = format!("{keys} is not 1 to {most}, the most for this rule");
                Err(ConfigError::new("max_keys", reason))
            }
        }
    }

    /// Whether each event of an open alert is told.
    pub(super) fn tells_each(self) -> bool {
        matches!(self, Kind::Match { .. })
    }

    /// Whether it waits for devices to be silent.
    pub(super) fn is_silence(self) -> bool {
        matches!(self, Kind::Silence { .. })
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
