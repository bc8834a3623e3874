//! What every destination that delivers by requests promises, checked for each of them against its
//! service. `harness` says what a destination has to bring; `contract!` at the
//! end of its file turns it into tests.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "clickhouse")]
mod clickhouse;
#[cfg(feature = "cloudwatch")]
mod cloudwatch;
#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "elasticsearch")]
mod elasticsearch;
#[macro_use]
mod harness;
mod certificates;
mod http_server;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "kafka")]
mod kafka_broker;
#[cfg(feature = "kafka")]
mod kafka_login;
#[cfg(feature = "kafka")]
mod kafka_mock;
#[cfg(feature = "object-store")]
mod lake;
#[cfg(feature = "loki")]
mod loki;
#[cfg(feature = "cloudwatch")]
mod moto;
mod mqtt;
mod mqtt_proxy;
mod nats;
#[cfg(feature = "object-store")]
mod object_store;
#[cfg(feature = "otlp")]
mod otlp;
#[cfg(feature = "postgresql")]
mod postgresql;
#[cfg(feature = "postgresql")]
mod postgresql_server;
mod scenarios;
#[cfg(feature = "splunk")]
mod splunk;
mod syslog;
mod tcp_proxy;
mod webhook;
