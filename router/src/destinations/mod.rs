//! The destinations. Each knows its own medium and nothing of MQTT, levels or other destinations.

pub(crate) mod file;
pub(crate) mod opener;
pub(crate) mod rotation;
pub(crate) mod stdout;
