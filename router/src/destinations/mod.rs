//! The destinations. Each knows its own medium and nothing of MQTT, levels or other destinations.

pub(crate) mod address;
pub(crate) mod file;
#[cfg(feature = "http-client")]
pub(crate) mod http;
#[cfg(feature = "mqtt")]
pub(crate) mod mqtt;
#[cfg(feature = "nats")]
pub(crate) mod nats;
pub(crate) mod opener;
pub(crate) mod rotation;
pub(crate) mod stdout;
#[cfg(feature = "syslog")]
pub(crate) mod syslog;
#[cfg(feature = "tls")]
pub(crate) mod tls;
#[cfg(feature = "webhook")]
pub(crate) mod webhook;
#[cfg(feature = "wire")]
pub(crate) mod wire;
