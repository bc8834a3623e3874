//! The one place that asks for the time. Everything that decides by time is handed it.

use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::levels::Now;

/// A system clock before 2024 is one that was never set.
const YEAR_2024: u64 = 1_704_067_200_000_000_000;

/// The monotonic clock.
pub(crate) fn mono() -> Instant {
    Instant::now()
}

/// `wait` after `now`; what no clock can hold is thirty years away.
pub(crate) fn after(now: Instant, wait: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);
    now.checked_add(wait.min(FAR)).unwrap_or(now)
}

/// Nanoseconds since the Unix epoch by the system clock; 0 before it.
pub(crate) fn wall() -> u64 {
    let since = UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Both clocks.
pub(crate) fn now() -> Now {
    Now {
        mono: mono(),
        wall: Some(wall()).filter(|wall| *wall >= YEAR_2024),
    }
}
