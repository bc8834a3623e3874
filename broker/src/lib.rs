//! An MQTT 3.1.1 and 5.0 broker whose acknowledgement means: on disk.
//!
//! A publish to a durable topic (by default `<root>/logs/#` and `<root>/out/#`) is appended to a
//! journal and acknowledged after the sync of its group. Subscribers of durable topics read that
//! journal through cursors of their own; everything else is routed through a subscription trie into
//! bounded per-session queues, in memory only: such a publish is acknowledged when it is queued and
//! does not outlive the broker. Changes of retained messages, sessions and cursors are synced
//! to a log of their own before the acknowledgement they stand for.
//!
//! The broker never looks into a payload and knows nothing of events or levels.
//!
//! Reading order: [`listen`] accepts over TCP, TLS and WebSocket, [`connection`] drives one client, [`session`] is what outlives
//! a connection, [`hub`] is what connections share, [`feed`] carries the journal to subscribers, [`shared`]
//! to groups of them.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod access;
mod client;
mod clock;
mod codec;
mod config;
mod connection;
mod feed;
mod filter;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
mod hub;
mod inbound;
mod interest;
mod lag;
mod letter;
mod listen;
mod load;
mod mail;
mod message;
mod outgoing;
mod peer;
mod rate;
mod record;
mod reload;
mod retained;
mod server;
mod session;
mod shared;
mod stamp;
mod state;
mod sys;
mod telemetry;
mod timers;
mod tracked;
mod trie;
mod upkeep;
mod window;

pub use config::{Config, ConfigError, Limits, OnFull, Retention};
pub use listen::{ClientCertificates, TlsConfig, WebSocketConfig};
pub use peer::Transport;
pub use reload::{Reload, ReloadError};
pub use server::{Broker, StartError, Status};
