//! The one place that reads the wall clock; pure modules take time as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since the Unix epoch; 0 for a clock before it.
pub(crate) fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        })
}

/// Whole seconds since the Unix epoch.
pub(crate) fn now_s() -> u64 {
    now_ns() / 1_000_000_000
}
