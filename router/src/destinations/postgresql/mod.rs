//! Events as rows of a table of PostgreSQL 12 and later, or a hypertable of TimescaleDB.
//!
//! ```text
//! INSERT INTO "thinglog_events" (id, time, received, ...)
//! SELECT ... FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], ...)
//! ON CONFLICT DO NOTHING
//! ```
//!
//! A request is one statement of the extended protocol, and so one transaction, with an array a column;
//! it needs no right but INSERT. Nothing is prepared by name and no session variable is set, so that
//! poolers that share connections (PgBouncer) may stand between.
//!
//! **Repeats.** `id` is unique, in a hypertable together with `time`, which every unique index there must
//! contain: what is there already is skipped, and the server's count of new rows says how many were.
//! Events without an id (behind brokers that number nothing) have NULL, which conflicts with nothing.
//!
//! **Order.** A device's events are inserted in their order.
//!
//! **What PostgreSQL cannot store.** Neither `text` nor `jsonb` takes U+0000 ("Character Types",
//! "JSON Types"): U+2400 `␀` stands in its place. Times have microseconds; what is finer is cut off.
//!
//! **Errors** by SQLSTATE ("PostgreSQL Error Codes"): classes 22 (data), 23 (constraints), 44 (check
//! option), 54 (limits, as the size of an index entry) and P0 (raised by a trigger) are refused, and the
//! request is halved down to the row. All else is tried again over a new connection, as it lies with the
//! server (08, 40, 53, 55, 57, 58), the login (28), a standby that does not write (25) or the
//! configuration (3D, 3F, 42).

mod connection;
mod encode;
mod sink;
mod table;
mod tls;

use crate::config::PostgresqlConfig;
use encode::RowEncoder;
use sink::PostgresqlSink;

/// Encoder and sink of a configuration; the error names key and reason.
pub(crate) fn build(
    config: &PostgresqlConfig,
    name: &str,
) -> Result<(RowEncoder, PostgresqlSink), String> {
    let sink = PostgresqlSink::new(config, format!("thinglog-router/{name}"))?;
    Ok((RowEncoder::default(), sink))
}

#[cfg(test)]
#[path = "postgresql_tests.rs"]
mod tests;
