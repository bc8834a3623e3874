//! Fleets, end to end: groups, levels and temporary levels, by the command line and by nothing but
//! retained messages, over a real broker, a real router, real agents and mosquitto's clients.

#![allow(clippy::unwrap_used)]

mod alone;
mod bad;
mod cli;
mod fleet;
mod settings;
mod temporary;
