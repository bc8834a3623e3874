//! Rules and their open alerts, as others may see them: written by the stage, read by HTTP.

use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::Value;

use super::engine::Engine;
use super::notice;
use crate::config::By;

/// Most open alerts of a rule that are shown.
const MOST: usize = 1000;

/// What others see; clones share it.
pub(crate) type Shown = Arc<RwLock<Vec<Rule>>>;

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
    /// Open alerts, all of them.
    pub(crate) open: usize,
    /// The first of them: device or group, and the alert.
    pub(crate) alerts: Vec<(Arc<str>, Value)>,
}

/// What there is to see.
pub(crate) fn of(engine: &Engine) -> Vec<Rule> {
    engine
        .open()
        .map(|(rule, alerts)| {
            let mut open = 0;
            let mut shown = Vec::new();
            for (key, alert) in alerts {
                open += 1;
                if shown.len() < MOST {
                    shown.push((Arc::clone(key), notice::shown(rule, key, alert)));
                }
            }
            Rule {
                name: Arc::clone(&rule.name),
                when: rule.when().to_owned(),
                opens: rule.opens(),
                by: rule.by,
                severity: rule.severity.clone(),
                to: rule.to.clone(),
                open,
                alerts: shown,
            }
        })
        .collect()
}
