//! What an operator may set of destinations that publish: another MQTT broker, and the log emitter.

use serde::{Deserialize, Serialize};
use thinglog_schemas::name;

use super::remote::{Secret, check_timeout};
use super::{ConfigError, TlsKeys};
use crate::destinations::address::Address;
use crate::routes::template::Template;

/// Ways to reach a broker, and their usual ports.
pub(crate) const MQTT_SCHEMES: [(&str, u16); 2] = [("mqtt", 1883), ("mqtts", 8883)];

/// Events as publishes at QoS 1 to another broker of MQTT 5, see `destinations/mqtt`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MqttConfig {
    /// `mqtt://HOST[:PORT]` or, with TLS, `mqtts://HOST[:PORT]`; ports 1883 and 8883.
    pub broker: String,
    /// Where events are published, see [`crate::routes::template`]:
    /// `site-a/logs/{{device}}/{{source}}`. Places other than device, source, level, severity and
    /// times in numbers end with the filter `url`.
    pub topic: String,
    /// What a message holds.
    #[serde(default)]
    pub format: MqttFormat,
    /// Whether the broker keeps the last message of each topic.
    #[serde(default)]
    pub retain: bool,
    /// Seconds after which the broker drops what nobody has fetched; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry_s: Option<u32>,
    /// User name to log in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Its password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// What client ids begin with; `thinglog-router/<name of the destination>`. Behind it stand a
    /// random number and the number of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// For `mqtts`.
    #[serde(default)]
    pub tls: TlsKeys,
    /// Longest wait for the next acknowledgement, and for a connection, milliseconds; 10,000.
    #[serde(default = "super::remote::ten_seconds")]
    pub timeout_ms: u64,
}

/// What an MQTT message holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MqttFormat {
    /// One event, the JSON object of the file destination.
    #[default]
    Json,
    /// Events of one topic, as many as a request has, a line each.
    Ndjson,
}

/// The log emitter: every event that passes, as JSON, at QoS 1, on `<root>/out/<route>/<device>` at
/// the router's own broker, where these topics are durable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmitterConfig {
    /// The level of the topic behind `out`; the destination's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
}

impl EmitterConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        match &self.route {
            Some(route) if !name::is_valid(route) => {
                let reason = format!("{route:?} is not 1-128 characters of A-Z a-z 0-9 . _ : -");
                Err(ConfigError::new("route", reason))
            }
            _ => Ok(()),
        }
    }
}

impl MqttConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |key: &str| {
            let key = key.to_owned();
            move |reason: String| ConfigError::new(key, reason)
        };
        let address = Address::parse(&self.broker, &MQTT_SCHEMES).map_err(wrong("broker"))?;
        match address.scheme {
            "mqtts" => self.tls.validate()?,
            _ => self.tls.refuse("mqtts")?,
        }
        if self.password.is_some() && self.username.is_none() {
            let reason = "a user name belongs to the password";
            return Err(ConfigError::new("username", reason));
        }
        check_timeout(self.timeout_ms, 1)?;
        self.check_topic().map_err(wrong("topic"))
    }

    fn check_topic(&self) -> Result<(), String> {
        let topic = Template::parse(&self.topic)?;
        if !topic.is_safe_in_topics() {
            return Err(
                "every place but device, source, level, severity and times in numbers \
                        ends with the filter url, as {{message|url}}"
                    .into(),
            );
        }
        if self.topic.is_empty() || self.topic.starts_with('$') {
            return Err("is empty or opens with $, where nobody may publish".into());
        }
        match self.topic.contains(['+', '#', '\0']) {
            true => Err("a topic has none of + # and NUL".into()),
            false => Ok(()),
        }
    }
}
