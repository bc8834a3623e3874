//! Rules and their open alerts, as others may see them: written by the stage, read by HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::Value;

use super::engine::Engine;
use super::notice;
use super::track::Alert;
use crate::config::By;

/// What others see; clones share it.
pub(crate) type Shown = Arc<RwLock<Arc<[Rule]>>>;

/// A rule.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) name: Arc<str>,
    pub(crate) when: String,
    /// What opens an alert, in words.
    pub(crate) opens: String,
    pub(crate) by: By,
    pub(crate) severity: Option<String>,
    pub(crate) to: Vec<String>,
    /// All open alerts, by device or group.
    pub(crate) alerts: BTreeMap<Arc<str>, Open>,
}

/// An open alert.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub(crate) shown: Arc<Value>,
    /// What tells one state of it from the next: id, count, last.
    state: (String, u64, u64),
}

/// What there is to see. What was shown before and is as it was is not made again.
pub(crate) fn of(engine: &Engine, before: &[Rule]) -> Arc<[Rule]> {
    let rules = engine.open().map(|(rule, alerts)| {
        let before = before.iter().find(|it| it.name == rule.name);
        let opened = |key: &Arc<str>, alert: &Alert| {
            let state = (alert.id.clone(), alert.count, alert.last);
            let known = before.and_then(|before| before.alerts.get(key));
            match known.filter(|known| known.state == state) {
                Some(known) => known.clone(),
                None => Open {
                    shown: Arc::new(notice::shown(rule, key, alert)),
                    state,
                },
            }
        };
        Rule {
            name: Arc::clone(&rule.name),
            when: rule.when().to_owned(),
            opens: rule.opens(),
            by: rule.by,
            severity: rule.severity.clone(),
            to: rule.to.clone(),
            alerts: alerts
                .map(|(key, alert)| (Arc::clone(key), opened(key, alert)))
                .collect(),
        }
    });
    rules.collect()
}
