//! What an operator may set of routes; what they mean stands in [`crate::routes`].

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thinglog_schemas::query::EventQuery;
use thinglog_schemas::redact::RedactOptions;

use super::ConfigError;
use crate::routes::route::Route;

/// Which events go to some destinations, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteConfig {
    /// Which events; all unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
    /// The destinations, by name.
    pub to: Vec<String>,
    /// The share of these events that goes on, 0 to 1; which ones follows from their ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<f64>,
    /// Attributes that are taken away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// `message` and attributes that are set, to templates ([`crate::routes::template`]) of the event
    /// as it came.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// What is made unreadable, at last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redact: Vec<RedactOptions>,
}

/// A condition on events, in the language of [`thinglog_schemas::query::event`].
#[derive(Clone, Debug, PartialEq)]
pub struct Condition(pub(crate) EventQuery);

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Condition, D::Error> {
        let text = String::deserialize(deserializer)?;
        EventQuery::parse(&text)
            .map(Condition)
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.text())
    }
}

impl RouteConfig {
    /// Checks everything but that the destinations are there.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.to.is_empty() {
            let reason = "a route leads to one destination at least: to = [\"NAME\"]";
            return Err(ConfigError::new("to", reason));
        }
        Route::new("", self).map(drop)
    }
}
