//! The embedded log publisher, and the building blocks of the device agent `thinglog-edge`.
//!
//! An application makes a [`Publisher`] and emits [`Record`]s, directly, through [`PublisherLayer`]
//! or through [`Logger`]; emitting never waits and never panics. Events below the level of their source
//! are forgotten at once; the others are numbered, batched, kept in memory or in a spool on disk,
//! and sent over MQTT 5 until the broker has acknowledged them: after a lost connection or a restart
//! what was not is sent again, in order, with the same ids. Memory and disk are capped; at a cap the
//! least grave events go first, counted and declared to the receiver.
//!
//! The way inside: `emit -> entrance -> queue (lanes, levels, cap) -> sealed batch -> spool -> window ->
//! connection`. Queue, levels, window, backoff and the spool's record format are pure; the worker is
//! the one place with clock, disk and network. Nothing here knows routers or destinations.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod agent;
mod backoff;
mod clock;
mod config;
mod connection;
#[cfg(test)]
mod day_tests;
mod drops;
mod entrance;
mod layer;
mod levels;
mod logger;
mod marks;
#[cfg(test)]
mod model_tests;
mod own;
mod panics;
mod park;
mod publisher;
mod queue;
mod record;
mod replies;
mod run;
mod sealed;
mod shared;
mod spool;
mod status;
mod upload;
#[cfg(test)]
mod wear_tests;
mod window;
mod worker;

pub use config::{BuildError, Builder};
pub use connection::{BrokerUrl, BrokerUrlError, Tls};
pub use layer::{PublisherFilter, PublisherLayer};
pub use logger::Logger;
pub use publisher::{Counters, Publisher};
pub use record::{MAX_ATTRIBUTE_BYTES, Record};
pub use replies::Requests;
pub use spool::{MIN_BYTES as MIN_SPOOL_BYTES, dir::SpoolError};
pub use status::Status;

/// Evenly spread over all of `u64`. Should the system have no randomness to give, clock and address
/// space layout stand in.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(clock::wall())
    })
}
