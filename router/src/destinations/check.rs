//! Whether destinations can be made, as far as that shows without their folders: keys that agree with each
//! other, files of secrets and certificates that are there, memory that is enough.

use thinglog_schemas::Topics;

#[cfg(feature = "object-store")]
use super::objects::{self, Store};
use crate::config::{Config, ConfigError, Delivery, DestinationConfig, DestinationKind, Endpoint};
use crate::deliver::remote::{self, Encoder, Sink};

impl Config {
    /// Everything that would keep a destination from being made, by key. Reads the files that
    /// destinations name and touches nothing else.
    pub fn check_destinations(&self) -> Vec<ConfigError> {
        let wrong = |key: String, reason: String| ConfigError { key, reason };
        let topics = match Topics::new(&self.root) {
            Ok(topics) => topics,
            Err(error) => return vec![wrong("root".into(), error.to_string())],
        };
        let destinations = self.destinations.iter();
        destinations
            .filter_map(|(name, destination)| {
                let checked = check(name, destination, &self.broker, &topics);
                Some(wrong(format!("destinations.{name}"), checked.err()?))
            })
            .collect()
    }
}

/// Why the destination cannot be made, if that shows.
#[cfg_attr(not(feature = "default"), allow(unused_variables))]
pub(crate) fn check(
    name: &str,
    destination: &DestinationConfig,
    broker: &Endpoint,
    topics: &Topics,
) -> Result<(), String> {
    let delivery = &destination.delivery();
    match &destination.kind {
        DestinationKind::File(_) | DestinationKind::Store(_) | DestinationKind::Stdout(_) => Ok(()),
        #[cfg(feature = "webhook")]
        DestinationKind::Webhook(config) => fits(super::webhook::build(config), delivery),
        #[cfg(feature = "loki")]
        DestinationKind::Loki(config) => fits(super::loki::build(config), delivery),
        #[cfg(feature = "otlp")]
        DestinationKind::Otlp(config) => fits(super::otlp::build(config), delivery),
        #[cfg(feature = "elasticsearch")]
        DestinationKind::Elasticsearch(config) => {
            fits(super::elasticsearch::build(config), delivery)
        }
        #[cfg(feature = "cloudwatch")]
        DestinationKind::CloudWatch(config) => fits(super::cloudwatch::build(config), delivery),
        #[cfg(feature = "splunk")]
        DestinationKind::Splunk(config) => fits(super::splunk::build(config), delivery),
        #[cfg(feature = "emitter")]
        DestinationKind::Emitter(config) => {
            fits(super::mqtt::emitter(config, name, broker, topics), delivery)
        }
        #[cfg(feature = "mqtt")]
        DestinationKind::Mqtt(config) => fits(super::mqtt::build(config, name, ""), delivery),
        #[cfg(feature = "nats")]
        DestinationKind::Nats(config) => fits(super::nats::build(config, name), delivery),
        #[cfg(feature = "object-store")]
        DestinationKind::ObjectStore(config) => {
            Store::new(config)?;
            objects::check_memory(config, delivery).map_err(|error| error.to_string())
        }
        #[cfg(feature = "syslog")]
        DestinationKind::Syslog(config) => fits(super::syslog::build(config), delivery),
        #[cfg(feature = "postgresql")]
        DestinationKind::Postgresql(config) => {
            fits(super::postgresql::build(config, name), delivery)
        }
        #[cfg(feature = "kafka")]
        DestinationKind::Kafka(config) => fits(super::kafka::build(config, name), delivery),
        #[cfg(feature = "clickhouse")]
        DestinationKind::Clickhouse(config) => fits(super::clickhouse::build(config), delivery),
        #[allow(unreachable_patterns)] // where every feature is on
        other => Err(format!("this build has no {}", other.name())),
    }
}

/// Whether what its type made has the memory it needs.
#[cfg_attr(not(feature = "default"), allow(dead_code))]
fn fits<S: Sink>(made: Result<(S::Encoder, S), String>, delivery: &Delivery) -> Result<(), String> {
    let (encoder, _) = made?;
    remote::check_memory(encoder.limits(), delivery).map_err(|error| error.to_string())
}

#[cfg(all(test, feature = "default"))]
mod tests {
    use super::*;

    /// What is wrong with a destination of these keys.
    fn wrong_with(keys: &serde_json::Value) -> Vec<String> {
        let config = serde_json::json!({ "destinations": { "one": keys } });
        let config: Config = serde_json::from_value(config).unwrap();
        let wrong = config.check_destinations().into_iter();
        wrong.map(|error| error.to_string()).collect()
    }

    #[test]
    fn what_would_keep_a_destination_from_being_made_is_found_without_its_folder() {
        let webhook = serde_json::json!({ "type": "webhook", "url": "https://127.0.0.1/" });
        assert_eq!(wrong_with(&webhook), [""; 0]);
        let found = [
            (
                "memory_bytes",
                serde_json::json!(1000),
                "memory_bytes = 1000 is too little",
            ),
            (
                "http",
                serde_json::json!({ "token": { "file": "/none" } }),
                "http.token: /none: ",
            ),
            (
                "http",
                serde_json::json!({ "ca": "/none" }),
                "http.ca: /none: ",
            ),
        ];
        for (key, value, reason) in found {
            let mut keys = webhook.clone();
            keys[key] = value;
            let wrong = wrong_with(&keys);
            let expected = format!("destinations.one: {reason}");
            assert_eq!(wrong.len(), 1, "{keys}: {wrong:?}");
            assert!(wrong[0].starts_with(&expected), "{keys}: {wrong:?}");
        }
        let folder = serde_json::json!({ "type": "object-store", "url": "file:///none", "memory_bytes": 1000 });
        assert!(wrong_with(&folder)[0].contains("memory_bytes = 1000 is too little"));
    }
}
