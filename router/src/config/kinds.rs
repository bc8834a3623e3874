//! The types of destinations by name, and how the table of one is read.
//!
//! A type is one line below. Its keys and those that every destination has stand in one table, so the
//! table is divided by name and either part read by itself. An error opens with where it is: ``in
//! `batch.max_events`: invalid type: …``.

use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::clickhouse::ClickhouseConfig;
use super::cloudwatch::CloudWatchConfig;
use super::destinations::{DestinationConfig, FileConfig, StdoutConfig};
use super::elasticsearch::ElasticsearchConfig;
use super::kafka::KafkaConfig;
use super::loki::LokiConfig;
use super::mqtt::{EmitterConfig, MqttConfig};
use super::nats::NatsConfig;
use super::objects::{ObjectFormat, ObjectStoreConfig};
use super::otlp::OtlpConfig;
use super::postgresql::PostgresqlConfig;
use super::remote::{BatchConfig, DeadLetterConfig, RetryConfig};
use super::routes::Condition;
use super::splunk::SplunkConfig;
use super::store::StoreConfig;
use super::syslog::SyslogConfig;
use super::webhook::WebhookConfig;
use super::{ConfigError, StartFrom};

/// Makes [`DestinationKind`] of lines `Variant(Config) = "name"`, with `behind "feature"` where a build
/// may be without it. The configuration has a `validate` that names the key that is wrong, and why.
macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident($config:ty) = $name:literal $(behind $feature:literal)?,)+) => {
        /// The types of destinations.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(tag = "type")]
        pub enum DestinationKind {
            $($(#[$doc])* #[serde(rename = $name)] $variant($config),)+
        }

        impl DestinationKind {
            /// The words that `type` knows.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// The word of `type`.
            pub fn name(&self) -> &'static str {
                match self {
                    $(DestinationKind::$variant(_) => $name,)+
                }
            }

            /// Whether this build can do it; a type is left out by leaving out its feature.
            pub(super) fn is_built_in(&self) -> bool {
                match self {
                    $(DestinationKind::$variant(_) => true $(&& cfg!(feature = $feature))?,)+
                }
            }

            /// Checks the keys of the type; gives the key that is wrong and why.
            pub(super) fn validate(&self) -> Result<(), ConfigError> {
                match self {
                    $(DestinationKind::$variant(config) => config.validate(),)+
                }
            }

            /// Reads the keys of a type; gives what is wrong.
            fn read(name: &str, keys: Table) -> Result<DestinationKind, String> {
                match name {
                    $($name => read::<$config>(keys).map(DestinationKind::$variant),)+
                    _ => {
                        let error = serde_json::Error::unknown_variant(name, Self::NAMES);
                        Err(format!("in `type`: {error}"))
                    }
                }
            }
        }
    };
}

kinds! {
    /// Rotating NDJSON files that hold every event exactly once.
    File(FileConfig) = "file",
    /// Recent events, to be searched.
    Store(StoreConfig) = "store",
    /// Lines on standard output.
    Stdout(StdoutConfig) = "stdout",
    /// HTTP requests to anybody.
    Webhook(Box<WebhookConfig>) = "webhook" behind "webhook",
    /// Grafana Loki.
    Loki(Box<LokiConfig>) = "loki" behind "loki",
    /// OTLP over HTTP.
    Otlp(Box<OtlpConfig>) = "otlp" behind "otlp",
    /// Elasticsearch or OpenSearch by `_bulk`.
    Elasticsearch(Box<ElasticsearchConfig>) = "elasticsearch" behind "elasticsearch",
    /// AWS CloudWatch Logs.
    CloudWatch(Box<CloudWatchConfig>) = "cloudwatch" behind "cloudwatch",
    /// Splunk by its HTTP Event Collector.
    Splunk(Box<SplunkConfig>) = "splunk" behind "splunk",
    /// The log emitter: `<root>/out/<route>/<device>` at the router's own broker.
    Emitter(EmitterConfig) = "emitter" behind "emitter",
    /// Another MQTT broker.
    Mqtt(Box<MqttConfig>) = "mqtt" behind "mqtt",
    /// A stream of NATS JetStream.
    Nats(Box<NatsConfig>) = "nats" behind "nats",
    /// Objects in a store of AWS, Google, Azure, or in a folder.
    ObjectStore(Box<ObjectStoreConfig>) = "object-store" behind "object-store",
    /// A syslog server.
    Syslog(Box<SyslogConfig>) = "syslog" behind "syslog",
    /// A table of PostgreSQL or TimescaleDB.
    Postgresql(Box<PostgresqlConfig>) = "postgresql" behind "postgresql",
    /// Topics of Kafka.
    Kafka(Box<KafkaConfig>) = "kafka" behind "kafka",
    /// A table of ClickHouse.
    Clickhouse(Box<ClickhouseConfig>) = "clickhouse" behind "clickhouse",
}

impl DestinationKind {
    /// Whether it delivers over a network, by requests.
    pub(crate) fn is_remote(&self) -> bool {
        !matches!(
            self,
            DestinationKind::File(_) | DestinationKind::Store(_) | DestinationKind::Stdout(_)
        )
    }
}

impl DestinationKind {
    /// Whether it keeps payloads as they came instead of events.
    pub(super) fn is_archive(&self) -> bool {
        matches!(self, DestinationKind::ObjectStore(config) if config.format == ObjectFormat::Raw)
    }

    /// Whether it has dead letters: it delivers by requests that the other side may refuse for good.
    pub(crate) fn has_letters(&self) -> bool {
        self.is_remote() && !matches!(self, DestinationKind::ObjectStore(_))
    }
}

type Table = serde_json::Map<String, Value>;

/// The keys that every destination has; what they mean stands at [`DestinationConfig`].
#[derive(Default, Deserialize)]
#[serde(default)]
struct Common {
    from: Option<StartFrom>,
    roles: Option<Vec<String>>,
    when: Option<Condition>,
    batch: Option<BatchConfig>,
    retry: Option<RetryConfig>,
    dead_letters: Option<DeadLetterConfig>,
    concurrency: Option<usize>,
    memory_bytes: Option<usize>,
}

/// Their names, as they stand above.
const COMMON: [&str; 8] = [
    "from",
    "roles",
    "when",
    "batch",
    "retry",
    "dead_letters",
    "concurrency",
    "memory_bytes",
];

impl<'de> Deserialize<'de> for DestinationConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<DestinationConfig, D::Error> {
        let mut keys: BTreeMap<String, Value> = BTreeMap::deserialize(deserializer)?;
        let name = keys
            .remove("type")
            .ok_or_else(|| D::Error::missing_field("type"))?;
        let name: String = match serde_json::from_value(name) {
            Ok(name) => name,
            Err(error) => return Err(D::Error::custom(format!("in `type`: {error}"))),
        };
        let (common, own) = keys
            .into_iter()
            .partition::<Table, _>(|(key, _)| COMMON.contains(&key.as_str()));
        let kind = DestinationKind::read(&name, own).map_err(D::Error::custom)?;
        let common: Common = read(common).map_err(D::Error::custom)?;
        Ok(DestinationConfig {
            from: common.from,
            roles: common.roles,
            when: common.when,
            batch: common.batch,
            retry: common.retry,
            dead_letters: common.dead_letters,
            concurrency: common.concurrency,
            memory_bytes: common.memory_bytes,
            kind,
        })
    }
}

/// Reads a part of the table; gives where it is wrong and why.
fn read<T: DeserializeOwned>(keys: Table) -> Result<T, String> {
    serde_path_to_error::deserialize(Value::Object(keys)).map_err(|error| {
        let place = error.path().to_string();
        let mut reason = error.into_inner().to_string();
        let is_top = !place.contains('.');
        if is_top && reason.starts_with("unknown field ") {
            for key in COMMON {
                reason.push_str(&format!(", `{key}`"));
            }
        }
        match place.as_str() {
            "." => reason,
            place => format!("in `{place}`: {reason}"),
        }
    })
}
