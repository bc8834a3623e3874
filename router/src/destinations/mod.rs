//! The destinations. Each knows its own medium and nothing of MQTT, levels or other destinations.

#[cfg(feature = "aws-client")]
pub(crate) mod aws;
pub(crate) mod check;
#[cfg(feature = "clickhouse")]
pub(crate) mod clickhouse;
#[cfg(feature = "cloudwatch")]
pub(crate) mod cloudwatch;
#[cfg(feature = "elasticsearch")]
pub(crate) mod elasticsearch;
pub(crate) mod file;
#[cfg(feature = "http-client")]
pub(crate) mod http;
#[cfg(feature = "kafka")]
pub(crate) mod kafka;
pub(crate) mod layout;
pub(crate) mod lines;
#[cfg(feature = "loki")]
pub(crate) mod loki;
#[cfg(feature = "mqtt")]
pub(crate) mod mqtt;
pub(crate) mod names;
#[cfg(feature = "nats")]
pub(crate) mod nats;
#[cfg(feature = "object-store")]
pub(crate) mod objects;
pub(crate) mod opener;
#[cfg(feature = "otlp")]
pub(crate) mod otlp;
#[cfg(feature = "postgresql")]
pub(crate) mod postgresql;
#[cfg(any(feature = "loki", feature = "otlp"))]
pub(crate) mod protobuf;
pub(crate) mod rotation;
pub(crate) mod running;
#[cfg(feature = "splunk")]
pub(crate) mod splunk;
pub(crate) mod stdout;
pub(crate) mod store;
#[cfg(feature = "syslog")]
pub(crate) mod syslog;
#[cfg(test)]
#[cfg(all(
    feature = "loki",
    feature = "otlp",
    feature = "elasticsearch",
    feature = "splunk"
))]
mod throughput;
#[cfg(feature = "webhook")]
pub(crate) mod webhook;
