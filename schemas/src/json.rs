//! The JSON form of an event: one object, one line, keys in a fixed order. Written by the file
//! destination, the live topics and the log emitter alike:
//! `{"id","time","received","device","source","level","severity","message"[,"attributes"][,"time_estimated":true][,"truncated":true]}`
//! `time`/`received` are RFC 3339 in UTC with nine decimals, `level` is AWS's word, `severity` the
//! OpenTelemetry number. `id` is absent when the event has none.

use crate::Event;

/// Appends the object without a newline. Fast path of the file destination: no intermediate values.
pub fn write(event: &Event, out: &mut Vec<u8>) { todo!() }

/// Reads the form back (tests, tools, replay).
pub fn read(line: &[u8]) -> Result<Event, ReadError> { todo!() }

/// Appends `2026-01-02T03:04:05.123456789Z`.
pub fn write_time(ns: u64, out: &mut Vec<u8>) { todo!() }

/// RFC 3339 with any offset and 0–9 decimals to ns since the epoch.
pub fn parse_time(text: &str) -> Option<u64> { todo!() }

#[derive(Debug, thiserror::Error)]
#[error("not an event: {0}")]
pub struct ReadError(String);
