//! Examples of events and where they are to go, for `thinglog route test`: routes as they would act,
//! without a broker, a fleet or a destination.
//!
//! ```toml
//! [[example]]
//! name = "a full disk wakes somebody"
//! event = { device = "lamp-7", source = "kernel", level = "ERROR", message = "disk full" }
//! device = { groups = ["eu"], attributes = { model = "x1" }, online = true }
//! to = ["file", "pager"]                       # these and no others
//! [example.as.pager]                           # how it looks there; what is not named is free
//! message = "lamp-7: disk full"
//! attributes = { model = "x1" }
//! without = ["token"]                          # attributes that must not be there
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thinglog_schemas::query::Facts;
use thinglog_schemas::{Event, EventId, Severity, name};

use super::Routes;
use crate::config::{Config, ConfigError};

/// A file of examples.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Examples {
    /// In the order of the file.
    #[serde(default)]
    pub example: Vec<Example>,
}

/// An event and what is to become of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// What it is an example of.
    #[serde(default)]
    pub name: Option<String>,
    /// The event.
    pub event: Given,
    /// What is known of its device.
    #[serde(default)]
    pub device: Device,
    /// The destinations it is to reach; not looked at unless given.
    #[serde(default)]
    pub to: Option<BTreeSet<String>>,
    /// How it is to look there, by destination.
    #[serde(default, rename = "as")]
    pub looks: BTreeMap<String, Look>,
}

/// An event of an example.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// Who logged.
    pub device: String,
    /// On the device; `app` unless given.
    #[serde(default)]
    pub source: Option<String>,
    /// Or `severity`; INFO unless given.
    #[serde(default)]
    pub level: Option<String>,
    /// OpenTelemetry's number.
    #[serde(default)]
    pub severity: Option<u8>,
    /// The text.
    #[serde(default)]
    pub message: String,
    /// The rest.
    #[serde(default)]
    pub attributes: Map<String, Value>,
    /// Its id, by which it is sampled: `lamp-7/00000000000000ab/7`.
    #[serde(default)]
    pub id: Option<String>,
}

/// What is known of a device.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Device {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Its groups, ancestors included.
    pub groups: BTreeSet<String>,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// Whether it is connected.
    pub online: bool,
}

/// How an event is to look at a destination.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Look {
    /// The text.
    pub message: Option<String>,
    /// Attributes that are to be there with these values.
    pub attributes: Map<String, Value>,
    /// Attributes that are not to be there.
    pub without: BTreeSet<String>,
}

/// What became of an example.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Its name, else its number from 1.
    pub example: String,
    /// Where the event went.
    pub to: Vec<Reached>,
    /// What is not as it was to be; nothing, if all is.
    pub wrong: Vec<String>,
}

/// A destination that an event reached.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reached {
    /// Its name.
    pub destination: String,
    /// The route that took it; none where no route names the destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The text as it arrived.
    pub message: String,
    /// The attributes as they arrived.
    pub attributes: Map<String, Value>,
}

/// Sends every example through the routes of a configuration.
pub fn run(config: &Config, examples: &Examples) -> Result<Vec<Outcome>, ConfigError> {
    let mut destinations = Vec::new();
    for name in config.destinations.keys() {
        destinations.push((name, Routes::of(config, name)?));
    }
    let outcome = |(at, example): (usize, &Example)| -> Result<Outcome, ConfigError> {
        let wrong = |(key, reason): (String, String)| {
            ConfigError::new(format!("example[{at}].{key}"), reason)
        };
        let event = example.event.made(at).map_err(wrong)?;
        let facts = example.device.facts();
        let pass = |(name, routes): &(&String, Routes)| {
            let (route, event) = routes.pass(&event, &facts)?;
            Some(Reached {
                destination: (*name).clone(),
                route: route.map(|route| route.to_string()),
                message: event.message,
                attributes: event.attributes,
            })
        };
        let to: Vec<Reached> = destinations.iter().filter_map(pass).collect();
        Ok(Outcome {
            example: example.name.clone().unwrap_or_else(|| (at + 1).to_string()),
            wrong: example.compare(&to, config),
            to,
        })
    };
    examples.example.iter().enumerate().map(outcome).collect()
}

impl Given {
    /// The event, or the key that is wrong and why.
    pub(crate) fn made(&self, at: usize) -> Result<Event, (String, String)> {
        let source = self.source.as_deref().unwrap_or("app");
        for (key, text) in [("device", self.device.as_str()), ("source", source)] {
            if !name::is_valid(text) {
                let reason =
                    format!("{text:?} is no name: 1-128 characters of A-Z a-z 0-9 . _ : -");
                return Err((format!("event.{key}"), reason));
            }
        }
        Ok(Event {
            device: Arc::from(self.device.as_str()),
            source: Arc::from(source),
            id: self.id(at)?,
            time: 0,
            time_estimated: false,
            severity: self.severity()?,
            message: self.message.clone(),
            truncated: false,
            attributes: self.attributes.clone(),
            received: 0,
        })
    }

    fn severity(&self) -> Result<Severity, (String, String)> {
        match (&self.level, self.severity) {
            (None, None) => Ok(Severity::INFO),
            (Some(word), None) => Severity::from_word(word).ok_or_else(|| {
                let reason = format!("{word:?} is no level: DEBUG, INFO, WARN or ERROR");
                ("event.level".to_owned(), reason)
            }),
            (None, Some(number)) => Severity::new(number).ok_or_else(|| {
                let reason = format!("{number} is no severity: 1 to 24");
                ("event.severity".to_owned(), reason)
            }),
            (Some(_), Some(_)) => {
                let reason = "either level or severity".to_owned();
                Err(("event.severity".to_owned(), reason))
            }
        }
    }

    fn id(&self, at: usize) -> Result<EventId, (String, String)> {
        let Some(text) = &self.id else {
            return Ok(EventId::Spooled {
                epoch: 0,
                seq: at as u64,
            });
        };
        match EventId::parse(text) {
            Some((device, id)) if device.is_empty() || device == self.device => Ok(id),
            _ => {
                let reason = format!(
                    "{text:?} is no id of {}, as DEVICE/EPOCH/SEQ is",
                    self.device
                );
                Err(("event.id".to_owned(), reason))
            }
        }
    }
}

impl Device {
    pub(crate) fn facts(&self) -> Facts {
        Facts {
            kind: self.kind.clone(),
            attributes: self.attributes.clone(),
            groups: self.groups.iter().cloned().collect(),
            online: self.online,
        }
    }
}

impl Example {
    fn compare(&self, to: &[Reached], config: &Config) -> Vec<String> {
        let mut wrong = Vec::new();
        let at = |name: &str| to.iter().find(|reached| reached.destination == name);
        if let Some(wanted) = &self.to {
            for name in wanted.iter().filter(|name| at(name).is_none()) {
                wrong.push(match config.destinations.contains_key(name) {
                    true => format!("does not reach {name}"),
                    false => format!("there is no destination {name}"),
                });
            }
            for reached in to.iter().filter(|to| !wanted.contains(&to.destination)) {
                let by = reached.route.as_deref();
                let by = by.map_or(String::new(), |route| format!(" by route {route}"));
                wrong.push(format!("reaches {}{by}", reached.destination));
            }
        }
        for (name, look) in &self.looks {
            match at(name) {
                Some(reached) => look.compare(reached, &mut wrong),
                // Said above already.
                None if self.to.as_ref().is_some_and(|to| to.contains(name)) => {}
                None => wrong.push(format!("does not reach {name}")),
            }
        }
        wrong
    }
}

impl Look {
    fn compare(&self, reached: &Reached, wrong: &mut Vec<String>) {
        let name = &reached.destination;
        if let Some(message) = self.message.as_ref().filter(|it| **it != reached.message) {
            wrong.push(format!(
                "at {name} the message is {:?}, not {message:?}",
                reached.message
            ));
        }
        for (key, value) in &self.attributes {
            match reached.attributes.get(key) {
                Some(there) if there == value => {}
                Some(there) => wrong.push(format!("at {name} {key} is {there}, not {value}")),
                None => wrong.push(format!("at {name} there is no {key}")),
            }
        }
        for key in &self.without {
            if let Some(there) = reached.attributes.get(key) {
                wrong.push(format!("at {name} {key} is there: {there}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outcomes(examples: Value) -> Result<Vec<Outcome>, ConfigError> {
        let config: Config = serde_json::from_value(json!({
            "destinations": {"file": {"type": "file"}, "pager": {"type": "file"}},
            "routes": {"bad": {"when": "level = ERROR and group = eu", "to": ["pager"],
                               "set": {"message": "{{device}}: {{message}}", "model": "{{device.model}}"},
                               "remove": ["token"]}}
        }))
        .unwrap();
        run(&config, &serde_json::from_value(examples).unwrap())
    }

    #[test]
    fn an_example_says_where_it_went_and_what_is_wrong() {
        let event = json!({"device": "lamp-7", "level": "ERROR", "message": "full", "attributes": {"token": 1}});
        let device = json!({"groups": ["eu"], "attributes": {"model": "x1"}});
        let right = json!({"event": event, "device": device, "to": ["file", "pager"],
            "as": {"pager": {"message": "lamp-7: full", "attributes": {"model": "x1"}, "without": ["token"]},
                   "file": {"message": "full"}}});
        let wrong = json!({"name": "quiet", "event": event, "device": device, "to": ["file", "nowhere"],
            "as": {"file": {"message": "empty", "attributes": {"token": 2, "a": 1}, "without": ["token"]}}});
        let other = json!({"event": {"device": "lamp-8"}, "as": {"pager": {}}});
        let outcomes = outcomes(json!({"example": [right, wrong, other]})).unwrap();
        assert_eq!(outcomes[0].wrong, [""; 0]);
        assert_eq!(outcomes[0].to[1].route.as_deref(), Some("bad"));
        assert_eq!(
            outcomes[1].wrong,
            [
                "there is no destination nowhere",
                "reaches pager by route bad",
                "at file the message is \"full\", not \"empty\"",
                "at file there is no a",
                "at file token is 1, not 2",
                "at file token is there: 1",
            ]
        );
        assert_eq!(outcomes[1].example, "quiet");
        assert_eq!(outcomes[2].wrong, ["does not reach pager"]);
    }

    #[test]
    fn an_event_that_cannot_be_is_named_by_its_key() {
        for (event, key) in [
            (json!({"device": "a b"}), "example[0].event.device"),
            (
                json!({"device": "a", "level": "LOUD"}),
                "example[0].event.level",
            ),
            (
                json!({"device": "a", "severity": 25}),
                "example[0].event.severity",
            ),
            (
                json!({"device": "a", "id": "b/00000000000000ab/7"}),
                "example[0].event.id",
            ),
        ] {
            let error = outcomes(json!({"example": [{"event": event}]})).unwrap_err();
            assert_eq!(error.key, key);
        }
    }
}
