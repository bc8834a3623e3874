//! Alerts of a real installation: rules over the events of devices, and whoever is told of them.
#![allow(clippy::unwrap_used)]

mod alertmanager;
mod hook;
mod silence;
mod told;
