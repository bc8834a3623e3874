//! The destinations. Each knows its own medium and nothing of MQTT, levels or other destinations.

pub(crate) mod file;
#[cfg(feature = "http-client")]
pub(crate) mod http;
pub(crate) mod opener;
pub(crate) mod rotation;
pub(crate) mod running;
pub(crate) mod stdout;
#[cfg(feature = "webhook")]
pub(crate) mod webhook;
