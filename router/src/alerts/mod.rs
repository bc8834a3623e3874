//! Alerts: rules over the stream of events, and who is told. The page for operators is `docs/alerts.md`.
//!
//! Alerts are a destination like the others: one subscription, levels and duplicates judged as everywhere,
//! the broker told only of what is remembered on disk. A rule opens an *alert* for a device, a group or
//! the fleet; what receivers are sent of alerts are *notifications*.
//!
//! ```text
//! worker thread    delivery -> judge -> engine (pure: windows, alerts, notifications)
//! commit thread    duplicates, alerts and unsent notifications in one synced record -> PUBACK
//! sender thread    notifications that a commit stands for -> receiver -> "sent" in the next record
//! ```
//!
//! **Windows go by the time at which the broker received events**, in the order of its journal. Devices
//! spool for hours and do not know the time: windows by their own clock would have to stay open for as
//! long as any of them may be away. What the broker stamped never changes, so a window counts the same
//! after any redelivery, crash or backlog. A late event counts when it arrives.
//!
//! **A notification is sent at least once, and known by its id.** It stands with the events that made it
//! in one synced record before any receiver sees it and before the broker is told of these events; it is
//! sent again, byte for byte, until a receiver has taken it and a later record says so. So a SIGKILL at
//! any moment costs nothing and repeats at most what was under way. An event that the broker delivers
//! again is recognised by its id and counts once; behind brokers that number nothing, plain events count
//! as often as they come.
//!
//! **A receiver that is down holds up no other and nothing grows.** It gets at most eight notifications
//! of a rule behind each other; what comes then waits as one mark on each alert and is told in one.
//! Devices and groups that a rule follows are limited; what finds no room is counted and said.

pub(crate) mod engine;
#[cfg(test)]
mod engine_tests;
pub mod examples;
mod lane;
pub(crate) mod metrics;
pub(crate) mod notice;
pub(crate) mod record;
pub(crate) mod rule;
pub(crate) mod running;
pub(crate) mod send;
pub(crate) mod shown;
pub(crate) mod stage;
pub(crate) mod track;
