//! The one place that asks for the time. Everything that decides by time is handed it.
//!
//! A device does not always know the time: many have no battery for their clock and begin in 1970, or
//! where they were when the power went. Until its clock counts as set ([`Clock`]) events carry the time
//! since the boot, and the receiver works theirs out from when the batch was sent.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant, UNIX_EPOCH},
};

use parking_lot::Mutex;
use thinglog_schemas::hash;

use crate::{levels::Now, record::Record};

/// A system clock before 2024 is one that was never set.
const YEAR_2024: u64 = 1_704_067_200_000_000_000;
/// How often a file is looked for that says that the clock was set.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Names the boot (proc(5), random).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

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

/// The same to some milliseconds, for whoever asks with every line: reading the clock exactly costs as much
/// as queueing an event.
pub(crate) fn coarse_wall() -> u64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return nanos(rustix::time::ClockId::RealtimeCoarse);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    return wall();
}

/// Nanoseconds since the boot, the time asleep included where the system counts it.
pub(crate) fn since_boot() -> u64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let clock = rustix::time::ClockId::Monotonic;
    nanos(clock)
}

fn nanos(clock: rustix::time::ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// A number for this boot, the same for every process of it; random where the system has none.
pub(crate) fn boot() -> u64 {
    match std::fs::read(BOOT_ID) {
        Ok(id) if !id.is_empty() => hash::fnv1a(&id),
        _ => crate::random(),
    }
}

/// Whether the system clock counts as set.
#[derive(Debug)]
pub(crate) struct Clock {
    /// It does not before this file is there.
    file: Option<PathBuf>,
    found: AtomicBool,
    looked: Mutex<Option<Instant>>,
}

impl Clock {
    pub(crate) fn new(file: Option<PathBuf>) -> Clock {
        let clock = Clock {
            found: AtomicBool::new(file.is_none()),
            file,
            looked: Mutex::new(None),
        };
        clock.look(mono());
        clock
    }

    /// Both clocks.
    pub(crate) fn now(&self) -> Now {
        let mono = mono();
        self.look(mono);
        let wall = wall();
        Now {
            mono,
            wall: self.believes(wall).then_some(wall),
        }
    }

    /// Gives a record its time: now, when it brings none. While the clock is not set, a time that our
    /// own clock must have given becomes monotonic too, and any other stays what it claims to be.
    /// Times given here are in whole microseconds: finer digits tell nothing and do not compress.
    pub(crate) fn stamp(&self, record: &mut Record) {
        self.moment().stamp(record);
    }

    /// This moment, for several records that come at once.
    pub(crate) fn moment(&self) -> Moment {
        let wall = wall();
        Moment {
            wall,
            believed: self.believes(wall),
        }
    }

    fn believes(&self, wall: u64) -> bool {
        wall >= YEAR_2024 && self.found.load(Relaxed)
    }

    /// A clock that was set stays set.
    fn look(&self, now: Instant) {
        if self.found.load(Relaxed) {
            return;
        }
        let Some(file) = &self.file else { return };
        let mut looked = self.looked.lock();
        if looked.is_some_and(|at| now < at + LOOK_EVERY) {
            return;
        }
        *looked = Some(now);
        if file.exists() {
            self.found.store(true, Relaxed);
        }
    }
}

/// A moment by the system clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    wall: u64,
    /// The clock counted as set.
    believed: bool,
}

impl Moment {
    /// See [`Clock::stamp`].
    pub(crate) fn stamp(&self, record: &mut Record) {
        match (record.time, self.believed) {
            (None, true) => record.time = Some(micros(self.wall)),
            (Some(_), true) => {}
            (None, false) => {
                record.time = Some(micros(since_boot()));
                record.monotonic = true;
            }
            // It was stamped before, and had to wait.
            (Some(_), false) if record.monotonic => {}
            (Some(time), false) => {
                if let Some(mono) = own_time(time, self.wall, since_boot()) {
                    record.time = Some(micros(mono));
                    record.monotonic = true;
                }
            }
        }
    }
}

/// Nanoseconds, down to the whole microsecond.
fn micros(nanos: u64) -> u64 {
    nanos - nanos % 1000
}

/// The time since boot of something that happened at `time` by a clock that now says `wall`, when
/// that clock can have said so since the boot.
fn own_time(time: u64, wall: u64, since_boot: u64) -> Option<u64> {
    let age = wall.checked_sub(time)?;
    since_boot.checked_sub(age)
}

#[cfg(test)]
mod tests {
    use thinglog_schemas::Severity;

    use super::*;

    fn record() -> Record {
        Record::new("app", Severity::INFO, "m")
    }

    #[test]
    fn until_the_file_is_there_records_carry_the_time_since_boot() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("synchronized");
        let clock = Clock::new(Some(file.clone()));
        assert_eq!(clock.now().wall, None);
        let mut early = record();
        clock.stamp(&mut early);
        assert!(early.monotonic);
        assert!(early.time.unwrap() <= since_boot());

        std::fs::write(&file, "").unwrap();
        clock.look(mono() + LOOK_EVERY);
        assert!(clock.now().wall.is_some());
        let mut late = record();
        clock.stamp(&mut late);
        assert!(!late.monotonic);
        assert!(late.time.unwrap() > YEAR_2024);
        assert_eq!(late.time.unwrap() % 1000, 0, "whole microseconds");
        std::fs::remove_file(&file).unwrap();
        clock.look(mono() + 2 * LOOK_EVERY);
        assert!(clock.now().wall.is_some(), "a clock that was set stays set");
    }

    #[test]
    fn a_time_that_our_own_unset_clock_gave_becomes_monotonic_and_others_stay() {
        let clock = Clock::new(Some("/nowhere/synchronized".into()));
        let mut own = record().at(wall() - 1);
        clock.stamp(&mut own);
        assert!(own.monotonic && own.time.unwrap() <= since_boot());
        let foreign = wall() + 3_600_000_000_000;
        let mut other = record().at(foreign);
        clock.stamp(&mut other);
        assert_eq!((other.monotonic, other.time), (false, Some(foreign)));
    }

    #[test]
    fn what_happened_before_the_boot_or_later_than_now_was_not_our_clock() {
        assert_eq!(own_time(100, 130, 50), Some(20));
        assert_eq!(own_time(130, 130, 50), Some(50));
        assert_eq!(own_time(80, 130, 50), Some(0));
        assert_eq!(own_time(79, 130, 50), None);
        assert_eq!(own_time(131, 130, 50), None);
    }

    #[test]
    fn one_boot_has_one_number() {
        if std::path::Path::new(BOOT_ID).exists() {
            assert_eq!(boot(), boot());
        }
        let first = since_boot();
        assert!(since_boot() >= first);
    }
}
