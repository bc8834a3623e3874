//! Events as rows of a table of ClickHouse, over its HTTP interface.
//!
//! ```text
//! POST <url>/?query=INSERT INTO `default`.`thinglog_events` (id, time, ...) FORMAT JSONEachRow
//!      &insert_deduplication_token=<SHA-256 of the rows>&async_insert=0&wait_end_of_query=1
//!      &date_time_input_format=best_effort
//! Content-Encoding: zstd
//!
//! {"id":"lamp-7/00000000000000ab/7","time":"2026-01-02T03:04:05.123456789Z", ...}
//! ```
//!
//! By ClickHouse's pages "HTTP Interface", "Settings" and "ReplacingMergeTree". `async_insert` is off
//! whatever a profile says, so that an answer means that the rows are there.
//!
//! **Repeats.** A request that is sent again has the same token, and a table with a window of
//! deduplication (replicated ones have, ours is created with one) skips it. What comes again in other
//! company, as after a restart of the router, is another row with the same key, which ReplacingMergeTree
//! folds when it merges parts, and `FINAL` in a query at once.
//!
//! **Order.** Any; `time` sorts.
//!
//! **Errors** by the code in `X-ClickHouse-Exception-Code`: what cannot be parsed or stored ([`REFUSED`]) is
//! refused and halved down to the row; all else is tried again. A table that is not there (60) is
//! created before the next attempt.

mod encode;
mod sink;
mod table;

use crate::config::ClickhouseConfig;
use encode::RowEncoder;
pub(crate) use sink::ClickhouseSink;

/// Encoder and sink of a configuration; the error names key and reason.
pub(crate) fn build(config: &ClickhouseConfig) -> Result<(RowEncoder, ClickhouseSink), String> {
    Ok((RowEncoder::default(), ClickhouseSink::new(config)?))
}

/// Codes of errors that lie with the rows (`ErrorCodes.cpp`).
pub(super) const REFUSED: [u32; 20] = [
    6,   // CANNOT_PARSE_TEXT
    25,  // CANNOT_PARSE_ESCAPE_SEQUENCE
    26,  // CANNOT_PARSE_QUOTED_STRING
    27,  // CANNOT_PARSE_INPUT_ASSERTION_FAILED
    38,  // CANNOT_PARSE_DATE
    41,  // CANNOT_PARSE_DATETIME
    53,  // TYPE_MISMATCH
    69,  // ARGUMENT_OUT_OF_BOUND
    70,  // CANNOT_CONVERT_TYPE
    72,  // CANNOT_PARSE_NUMBER
    117, // INCORRECT_DATA
    130, // CANNOT_READ_ARRAY_FROM_TEXT
    131, // TOO_LARGE_STRING_SIZE
    321, // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
    349, // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    395, // FUNCTION_THROW_IF_VALUE_IS_NON_ZERO
    407, // DECIMAL_OVERFLOW
    467, // CANNOT_PARSE_BOOL
    469, // VIOLATED_CONSTRAINT
    691, // UNKNOWN_ELEMENT_OF_ENUM
];

#[cfg(test)]
#[path = "clickhouse_tests.rs"]
mod tests;
