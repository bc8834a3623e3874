//! What the other rooms say to each other: events, batches, topics, configuration documents and
//! the rules that decide a level. Pure code: no sockets, no files, no clock, no async.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod batch;
pub mod config;
pub mod event;
pub mod hash;
pub mod json;
pub mod limits;
pub mod name;
pub mod payload;
pub mod query;
pub mod redact;
pub mod request;
pub mod resolve;
pub mod severity;
pub mod topic;
pub mod units;

#[cfg(test)]
mod arbitrary;
mod text;
mod time;

pub use event::{Attributes, Event, EventId};
pub use severity::{Level, Severity};
pub use topic::{Topic, Topics};
