//! Examples of events and the notifications that they are to bring, for `thinglog alert test`: rules as
//! they would act, without a broker, a fleet or a receiver. Time is that of the examples.
//!
//! ```toml
//! [[example]]
//! name = "three failures within a minute"
//! devices = { lamp-7 = { groups = ["eu"], attributes = { model = "x1" } } }
//! events = [
//!   { at = "0s", event = { device = "lamp-7", level = "ERROR", message = "failed" }, repeat = 3, every = "10s" },
//! ]
//! until = "10m"                                  # time goes on behind the last event
//! alerts = [                                     # these and no others, in this order
//!   { rule = "failures", at = "20s", device = "lamp-7", count = 3 },
//!   { rule = "failures", status = "resolved", at = "1m" },
//! ]
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thinglog_schemas::query::Facts;
use thinglog_schemas::{Event, EventId};

use super::engine::Engine;
use super::rule::Rule;
use crate::config::{AlertConfig, Config, ConfigError, MQTT_RECEIVER, Span};
use crate::routes::examples::{Device, Given};

/// Most time that an example may take: a week.
const LONGEST: u64 = 7 * 86_400 * SECOND;
/// Most events of an example.
const MOST_EVENTS: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
/// When examples begin: 2026-01-01T00:00:00Z.
const BEGINNING: u64 = 1_767_225_600 * SECOND;

/// A file of examples.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Examples {
    /// In the order of the file.
    #[serde(default)]
    pub example: Vec<Example>,
}

/// Events and what is to become of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// What it is an example of.
    #[serde(default)]
    pub name: Option<String>,
    /// What is known of devices, those that say nothing among them.
    #[serde(default)]
    pub devices: BTreeMap<String, Device>,
    /// In the order in which the broker receives them.
    #[serde(default)]
    pub events: Vec<Happening>,
    /// How long it takes; until the last event unless given.
    #[serde(default)]
    pub until: Option<Span>,
    /// The notifications, in their order.
    pub alerts: Vec<Wanted>,
}

/// An event and when the broker receives it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Happening {
    /// From the beginning of the example.
    pub at: Span,
    /// The event.
    pub event: Given,
    /// How often; once unless given.
    #[serde(default = "once")]
    pub repeat: u64,
    /// In this distance.
    #[serde(default)]
    pub every: Span,
}

fn once() -> u64 {
    1
}

/// A notification as it is to be; what is not said is free.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The rule.
    pub rule: String,
    /// `firing` or `resolved`; `firing` unless given.
    #[serde(default)]
    pub status: Option<String>,
    /// When it is made, to the second.
    #[serde(default)]
    pub at: Option<Span>,
    /// A device that it is of.
    #[serde(default)]
    pub device: Option<String>,
    /// A group that it is of.
    #[serde(default)]
    pub group: Option<String>,
    /// Its events.
    #[serde(default)]
    pub count: Option<u64>,
    /// How many devices or groups it is of.
    #[serde(default)]
    pub alerts: Option<u64>,
}

/// What became of an example.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Its name, else its number from 1.
    pub example: String,
    /// The notifications, in their order.
    pub told: Vec<Told>,
    /// What is not as it was to be; nothing, if all is.
    pub wrong: Vec<String>,
}

/// A notification.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Told {
    /// When it was made, seconds from the beginning of the example.
    pub at_s: f64,
    /// As it would be sent.
    pub notification: Value,
}

/// Runs every example through the rules of a configuration.
pub fn run(config: &Config, examples: &Examples) -> Result<Vec<Outcome>, ConfigError> {
    let outcome = |(at, example): (usize, &Example)| {
        let told = example.tell(config).map_err(|error| {
            ConfigError::new(format!("example[{at}].{}", error.key), error.reason)
        })?;
        Ok(Outcome {
            example: example.name.clone().unwrap_or_else(|| (at + 1).to_string()),
            wrong: example.compare(&told, config),
            told,
        })
    };
    examples.example.iter().enumerate().map(outcome).collect()
}

/// The rules, each with one receiver, so that each notification is made once.
fn rules(config: &Config) -> Result<Vec<Rule>, ConfigError> {
    let rules = config.alerts.iter().map(|(name, rule)| {
        let rule = AlertConfig {
            to: vec![MQTT_RECEIVER.into()],
            ..rule.clone()
        };
        Rule::new(name, &rule)
    });
    rules.collect()
}

impl Example {
    fn tell(&self, config: &Config) -> Result<Vec<Told>, ConfigError> {
        let events = self.happening()?;
        let last = events.last().map_or(0, |(at, _)| *at);
        let until = self.until.map_or(last, Span::ns).max(last);
        if until > LONGEST {
            return Err(ConfigError::new("until", "an example takes a week at most"));
        }
        let devices = self.devices.iter();
        let facts: BTreeMap<Arc<str>, Facts> = devices
            .map(|(name, device)| (Arc::from(name.as_str()), device.facts()))
            .collect();
        let mut engine = Engine::new(rules(config)?);
        let mut told = Vec::new();
        let nothing = Facts::default();
        let (mut events, mut now) = (events.iter().peekable(), 0);
        engine.begin(BEGINNING);
        facts
            .iter()
            .for_each(|(name, facts)| engine.expect(name, facts));
        engine.all_expected(BEGINNING);
        let known = &mut |device: &Arc<str>| facts.get(device).cloned().unwrap_or_default();
        loop {
            while let Some((at, event)) = events.next_if(|(at, _)| *at <= now) {
                let facts = facts.get(&*event.device).unwrap_or(&nothing);
                engine.take(event, facts, BEGINNING + at);
                take_told(&mut engine, *at, &mut told);
            }
            engine.tick(BEGINNING + now, Some(BEGINNING + now), known);
            take_told(&mut engine, now, &mut told);
            if now >= until {
                return Ok(told);
            }
            // Every second, and whenever something happens.
            let next = events.peek().map_or(until, |(at, _)| *at);
            now = (now + SECOND).min(next.max(now + 1)).min(until);
        }
    }

    fn happening(&self) -> Result<Vec<(u64, Event)>, ConfigError> {
        let total: u64 = self.events.iter().map(|it| it.repeat).sum();
        if total > MOST_EVENTS {
            let reason = format!("{total} events, at most {MOST_EVENTS}");
            return Err(ConfigError::new("events", reason));
        }
        let mut events = Vec::new();
        for (at, happening) in self.events.iter().enumerate() {
            let made = happening
                .event
                .made(at)
                .map_err(|(key, reason)| ConfigError::new(format!("events[{at}].{key}"), reason))?;
            for n in 0..happening.repeat {
                let when = happening.at.ns() + n * happening.every.ns();
                events.push((when, made.clone()));
            }
        }
        events.sort_by_key(|(at, _)| *at);
        for (seq, (at, event)) in events.iter_mut().enumerate() {
            (event.received, event.time) = (BEGINNING + *at, BEGINNING + *at);
            event.id = EventId::Spooled {
                epoch: 0,
                seq: seq as u64,
            };
        }
        Ok(events)
    }

    fn compare(&self, told: &[Told], config: &Config) -> Vec<String> {
        let mut wrong = Vec::new();
        for (at, wanted) in self.alerts.iter().enumerate() {
            let number = at + 1;
            if !config.alerts.contains_key(&wanted.rule) {
                wrong.push(format!("there is no rule {}", wanted.rule));
            }
            match told.get(at) {
                None => wrong.push(format!(
                    "notification {number} of {} is not made",
                    wanted.rule
                )),
                Some(told) => wanted.compare(number, told, &mut wrong),
            }
        }
        for (at, told) in told.iter().enumerate().skip(self.alerts.len()) {
            wrong.push(format!("notification {} is made: {}", at + 1, told.brief()));
        }
        wrong
    }
}

fn take_told(engine: &mut Engine, now: u64, told: &mut Vec<Told>) {
    let numbers: Vec<u64> = engine.all_unsent().collect();
    for number in numbers {
        if let Some(notice) = engine.unsent(number) {
            told.push(Told {
                at_s: now as f64 / SECOND as f64,
                notification: serde_json::from_str(&notice.body).unwrap_or_default(),
            });
        }
        engine.sent(number);
    }
}

impl Wanted {
    fn compare(&self, number: usize, told: &Told, wrong: &mut Vec<String>) {
        let there = &told.notification;
        let mut is = |what: &str, wanted: Option<Value>, there: &Value| {
            if let Some(wanted) = wanted.filter(|wanted| wanted != there) {
                wrong.push(format!(
                    "notification {number}: {what} is {there}, not {wanted}"
                ));
            }
        };
        let status = self.status.as_deref().unwrap_or("firing");
        is("rule", Some(self.rule.as_str().into()), &there["rule"]);
        is("status", Some(status.into()), &there["status"]);
        is("count", self.count.map(Value::from), &there["count"]);
        is(
            "alerts",
            self.alerts.map(Value::from),
            &there["alerts_total"],
        );
        if let Some(at) = self
            .at
            .filter(|at| at.ns().abs_diff(told.at_ns()) >= SECOND)
        {
            let at = String::from(at);
            wrong.push(format!(
                "notification {number}: it is made at {}s, not at {at}",
                told.at_s
            ));
        }
        for (what, wanted) in [("device", &self.device), ("group", &self.group)] {
            let all = there["alerts"].as_array().into_iter().flatten();
            let has = |wanted: &String| all.map(|alert| &alert[what]).any(|is| is == wanted);
            if let Some(wanted) = wanted.as_ref().filter(|wanted| !has(wanted)) {
                wrong.push(format!(
                    "notification {number}: {what} {wanted} is not in it"
                ));
            }
        }
    }
}

impl Told {
    fn at_ns(&self) -> u64 {
        (self.at_s * SECOND as f64) as u64
    }

    /// In a few words: `20s many firing lamp-7 (3 events)`.
    pub fn brief(&self) -> String {
        let it = &self.notification;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let first = &it["alerts"][0];
        let of = ["device", "group"]
            .into_iter()
            .find_map(|key| first[key].as_str());
        let more = it["alerts_total"].as_u64().unwrap_or(0).saturating_sub(1);
        let more = match more {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let (rule, status) = (text(&it["rule"]), text(&it["status"]));
        let of = of.unwrap_or("the fleet");
        format!(
            "{}s {rule} {status}: {of}{more} ({} events)",
            self.at_s, it["count"]
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outcomes(examples: Value) -> Result<Vec<Outcome>, ConfigError> {
        let config: Config = serde_json::from_value(json!({
            "alerts": {
                "failures": {"when": "message = failed", "count": 3, "within": "1m"},
                "silent": {"absent_for": "10m", "of": "group = eu"},
            }
        }))
        .unwrap();
        config.validate()?;
        run(&config, &serde_json::from_value(examples).unwrap())
    }

    #[test]
    fn an_example_says_what_was_told_and_what_is_wrong() {
        let failed = json!({"device": "lamp-7", "message": "failed"});
        let events = json!([{"at": "0s", "event": failed, "repeat": 3, "every": "10s"}]);
        let right = json!({"events": events, "until": "10m", "alerts": [
            {"rule": "failures", "at": "20s", "device": "lamp-7", "count": 3, "alerts": 1},
            {"rule": "failures", "status": "resolved", "at": "1m"}]});
        let wrong = json!({"name": "few", "events": events, "until": "2m", "alerts": [
            {"rule": "failures", "at": "10s", "device": "lamp-8", "count": 2}]});
        let other = json!({"events": [], "alerts": [{"rule": "other"}]});
        let outcomes = outcomes(json!({"example": [right, wrong, other]})).unwrap();
        assert_eq!(outcomes[0].wrong, [""; 0]);
        assert_eq!(outcomes[1].example, "few");
        assert_eq!(
            outcomes[1].wrong,
            [
                "notification 1: count is 3, not 2",
                "notification 1: it is made at 20s, not at 10s",
                "notification 1: device lamp-8 is not in it",
                "notification 2 is made: 60s failures resolved: lamp-7 (3 events)",
            ]
        );
        assert_eq!(
            outcomes[2].wrong,
            [
                "there is no rule other",
                "notification 1 of other is not made"
            ]
        );
    }

    #[test]
    fn who_never_said_anything_is_silent_too() {
        let devices =
            json!({"lamp-7": {"groups": ["eu"]}, "lamp-8": {"groups": ["eu"]}, "lamp-9": {}});
        let events = json!([{"at": "1m", "event": {"device": "lamp-7"}},
                            {"at": "12m", "event": {"device": "lamp-8"}}]);
        let example = json!({"devices": devices, "events": events, "until": "13m", "alerts": [
            {"rule": "silent", "at": "10m", "device": "lamp-8"},
            {"rule": "silent", "at": "11m", "device": "lamp-7"},
            {"rule": "silent", "at": "12m", "status": "resolved", "device": "lamp-8"}]});
        let outcomes = outcomes(json!({"example": [example]})).unwrap();
        assert_eq!(outcomes[0].wrong, [""; 0], "{:?}", outcomes[0].told);
    }

    #[test]
    fn what_cannot_be_is_named_by_its_key() {
        let wrong = json!({"events": [{"at": "0s", "event": {"device": "a b"}}], "alerts": []});
        let error = outcomes(json!({"example": [wrong]})).unwrap_err();
        assert_eq!(error.key, "example[0].events[0].event.device");
        let long = json!({"until": "8d", "alerts": []});
        let error = outcomes(json!({"example": [long]})).unwrap_err();
        assert_eq!(error.key, "example[0].until");
    }
}
