//! The router: consumes device logs over MQTT 5, applies the fleet's levels, delivers to
//! destinations.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use thinglog_router::{Config, Router};
//! use tokio_util::sync::CancellationToken;
//!
//! let config: Config = serde_json::from_str(r#"{"destinations": {"file": {"type": "file"}}}"#)?;
//! let registry = prometheus::Registry::new();
//! let router = Router::build(config, &registry)?;
//! let shutdown = CancellationToken::new();
//! router.run(shutdown).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Every destination is a subscription of its own and tells the broker only when it has the events,
//! so the broker's journal is the only buffer and one slow destination never holds up another. What
//! must happen once per fleet (quarantine, lost events, devices) is `audit`'s, a consumer like them;
//! what operators watch is `live`'s. The router knows MQTT and nothing of the broker behind it; what
//! the bundled broker adds (offsets, principals, interest) makes it exact and cheap, and it does
//! without elsewhere.
// A build that leaves destinations out has no use for all of their core.
#![cfg_attr(not(feature = "default"), allow(dead_code))]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod alerts;
mod api;
mod audit;
mod aws;
mod backoff;
mod clock;
pub mod config;
mod dedup;
mod deliver;
mod destinations;
mod folder;
pub mod health;
pub mod http;
mod levels;
mod live;
mod mqtt;
mod net;
pub mod registry;
mod router;
pub mod routes;
mod sigv4;
mod state;
mod telemetry;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod throughput;

pub use config::Config;
pub use destinations::running::{Reloaded, Reloader};
pub use router::{BuildError, Router, RunError};
