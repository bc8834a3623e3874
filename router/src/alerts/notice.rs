//! Notifications: what receivers are sent. Pure.
//!
//! ```text
//! {"id": "disk-full/0123456789abcdef/3",   the same whenever this notification is sent again
//!  "rule": "disk-full", "status": "firing" | "resolved", "severity": "critical",
//!  "time": "2026-01-02T03:04:05Z",         when it was made
//!  "count": 7,                             events of all its alerts so far
//!  "alerts_total": 2,                      its alerts, of which at most 100 are listed
//!  "alerts": [{"id": "disk-full/0123456789abcdef", "device" | "group": "lamp-7",
//!              "starts", "last", "ends": times by which the broker received events,
//!              "count": 3, "labels": {...}, "annotations": {...}}],
//!  "events": [...]}                        the first of them, at most three, as the file destination
//!                                          writes events
//! ```

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use thinglog_schemas::{Event, json as event_json};

use super::rule::{Rule, cut};
use super::track::Alert;
use crate::config::By;

/// Most alerts that a notification lists.
const LISTED: usize = 100;
/// Most events that it shows.
pub(crate) const EXAMPLES: usize = 3;
/// Largest event that is shown with all its attributes, bytes.
const LARGEST: usize = 4096;

/// The number of what is only said again: another one follows if it is lost.
pub(crate) const REPEAT: u64 = u64::MAX;

/// A notification for one receiver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Notice {
    /// By which the state knows it; [`REPEAT`]: not at all.
    pub(crate) number: u64,
    pub(crate) rule: String,
    pub(crate) receiver: String,
    /// JSON.
    pub(crate) body: String,
}

/// What a notification tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Firing,
    Resolved,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Status::Firing => "firing",
            Status::Resolved => "resolved",
        }
    }
}

/// The body of a notification; `alerts` are keys with their alerts, at least one.
pub(crate) fn body(
    rule: &Rule,
    status: Status,
    alerts: &[(&str, &Alert)],
    events: &[Value],
    now: u64,
) -> String {
    let count: u64 = alerts.iter().map(|(_, alert)| alert.count).sum();
    let id = alerts.first().map(|(_, alert)| match status {
        Status::Firing => format!("{}/{}", alert.id, alert.count),
        Status::Resolved => format!("{}/{}/resolved", alert.id, alert.count),
    });
    let listed = alerts.iter().take(LISTED);
    let listed: Vec<Value> = listed.map(|(key, alert)| shown(rule, key, alert)).collect();
    let mut body = json!({
        "id": id,
        "rule": &*rule.name,
        "status": status.name(),
        "time": time(now),
        "count": count,
        "alerts_total": alerts.len(),
        "alerts": listed,
    });
    if let Some(severity) = &rule.severity {
        body["severity"] = severity.as_str().into();
    }
    if status == Status::Firing {
        body["events"] = events.into();
    }
    body.to_string()
}

/// What Alertmanager is posted (its API v2, `POST /api/v2/alerts`): alerts that fire until `until` unless
/// they are over.
pub(crate) fn for_alertmanager(rule: &Rule, alerts: &[(&str, &Alert)], until: u64) -> String {
    let posted = alerts.iter().map(|(key, alert)| {
        let mut labels = json!({"alertname": &*rule.name});
        if let Some(severity) = &rule.severity {
            labels["severity"] = severity.as_str().into();
        }
        match rule.by {
            By::Device => labels["device"] = (*key).into(),
            By::Group => labels["group"] = (*key).into(),
            By::Fleet => {}
        }
        for (name, value) in &alert.labels {
            labels[name] = value.as_str().into();
        }
        json!({
            "labels": labels,
            "annotations": alert.annotations,
            "startsAt": time(alert.starts),
            "endsAt": time(alert.ends.unwrap_or(until)),
        })
    });
    Value::Array(posted.collect()).to_string()
}

/// An alert as JSON.
pub(crate) fn shown(rule: &Rule, key: &str, alert: &Alert) -> Value {
    let mut shown = Map::new();
    shown.insert("id".into(), alert.id.as_str().into());
    match rule.by {
        By::Device => drop(shown.insert("device".into(), key.into())),
        By::Group => drop(shown.insert("group".into(), key.into())),
        By::Fleet => {}
    }
    shown.insert("starts".into(), time(alert.starts));
    if alert.last > 0 {
        shown.insert("last".into(), time(alert.last));
    }
    if let Some(ends) = alert.ends {
        shown.insert("ends".into(), time(ends));
    }
    shown.insert("count".into(), alert.count.into());
    shown.insert("labels".into(), json!(alert.labels));
    shown.insert("annotations".into(), json!(alert.annotations));
    shown.into()
}

fn time(ns: u64) -> Value {
    let mut out = Vec::new();
    event_json::write_time(ns, &mut out);
    String::from_utf8_lossy(&out).into_owned().into()
}

/// An event as a notification shows it: a large one without its attributes, a long message cut.
pub(crate) fn example(event: &Event) -> Value {
    let mut out = Vec::new();
    event_json::write(event, &mut out);
    if out.len() > LARGEST {
        let small = Event {
            message: cut(event.message.clone()),
            attributes: thinglog_schemas::Attributes::new(),
            truncated: true,
            ..event.clone()
        };
        out.clear();
        event_json::write(&small, &mut out);
    }
    serde_json::from_slice(&out).unwrap_or_default()
}
