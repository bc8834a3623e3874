//! Which events leave the device: the level of each source from the device's own default and the
//! last `desired/<device>` document, with temporary levels that end by themselves. Pure: both
//! clocks are arguments.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use thinglog_schemas::{Level, config::Desired, json};

use crate::clock;

/// The moment something happens, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// The monotonic clock: intervals and deadlines.
    pub(crate) mono: Instant,
    /// Nanoseconds since the Unix epoch, or `None` while the device does not know the time.
    pub(crate) wall: Option<u64>,
}

/// The levels in force.
#[derive(Clone, Debug)]
pub(crate) struct Levels {
    /// Without a document, or where that is more verbose because nobody has said a level: `THINGLOG_LEVEL`,
    /// an option of the agent, else INFO.
    default: Level,
    desired: Option<Desired>,
    /// When the temporary level ends; `None` when none is in force.
    temporary_ends: Option<Instant>,
    /// Its end as the document says, ns since the Unix epoch.
    until: Option<u64>,
    /// The document came from the broker since the start.
    heard: bool,
}

impl Levels {
    /// No document yet: everything is at `default`.
    pub(crate) fn new(default: Level) -> Levels {
        Levels {
            default,
            desired: None,
            temporary_ends: None,
            until: None,
            heard: false,
        }
    }

    /// Puts a document in force that arrived at `now`. A temporary level ends at the earlier of its
    /// `until` (when the device knows the time) and `for_s` after the arrival. A retained document
    /// arrives again with every connection: its time runs from the first.
    pub(crate) fn apply(&mut self, desired: Desired, now: Now) {
        let ends = desired.temporary.as_ref().and_then(|temporary| {
            let left = Duration::from_secs(temporary.for_s);
            remaining(&temporary.until, left, now.wall).map(|left| clock::after(now.mono, left))
        });
        let again = self.heard && self.desired.as_ref() == Some(&desired);
        self.temporary_ends = match self.temporary_ends {
            before if again => before.zip(ends).map(|(before, ends)| before.min(ends)),
            _ => ends,
        };
        self.heard = true;
        self.put(desired);
    }

    /// Puts a document back in force that was kept on disk. Its monotonic window is unknown, so the
    /// temporary level lives on only when the device knows the time: until `until`, and no longer
    /// than `for_s` after it had arrived at `received` (ns since the Unix epoch).
    pub(crate) fn restore(&mut self, desired: Desired, received: u64, now: Now) {
        self.temporary_ends = desired.temporary.as_ref().and_then(|temporary| {
            let wall = now.wall?;
            let age = Duration::from_nanos(wall.checked_sub(received)?);
            let left = Duration::from_secs(temporary.for_s).checked_sub(age)?;
            remaining(&temporary.until, left, Some(wall)).map(|left| clock::after(now.mono, left))
        });
        self.heard = false;
        self.put(desired);
    }

    fn put(&mut self, desired: Desired) {
        let temporary = desired.temporary.as_ref();
        self.until = temporary.and_then(|temporary| json::parse_time(&temporary.until));
        self.desired = Some(desired);
    }

    /// The document was removed: back to the device's own default.
    pub(crate) fn clear(&mut self) {
        self.desired = None;
        self.temporary_ends = None;
        self.heard = false;
    }

    /// Ends the temporary level when its time is over; true when that changed something.
    pub(crate) fn tick(&mut self, now: Instant) -> bool {
        let over = self.temporary_ends.is_some_and(|ends| ends <= now);
        if over {
            self.temporary_ends = None;
        }
        over
    }

    /// Whether a temporary level is in force whose end has passed by the system clock: the device has
    /// learnt the time since it came, or its clock was set forward.
    pub(crate) fn is_overdue(&self, wall: Option<u64>) -> bool {
        let passed = wall
            .zip(self.until)
            .is_some_and(|(wall, until)| wall >= until);
        passed && self.temporary_ends.is_some()
    }

    /// Ends the temporary level before its time.
    pub(crate) fn end_temporary(&mut self) {
        self.temporary_ends = None;
    }

    /// When [`tick`](Levels::tick) has something to do.
    pub(crate) fn next_change(&self) -> Option<Instant> {
        self.temporary_ends
    }

    /// The level for events of `source`.
    pub(crate) fn level(&self, source: &str) -> Level {
        match &self.desired {
            Some(desired) => desired.level_for(source, self.temporary_ends.is_some(), self.default),
            None => self.default,
        }
    }

    /// The level of sources without an entry of their own, the entries, and whether a temporary level
    /// is in force.
    pub(crate) fn in_force(&self) -> (Level, BTreeMap<String, Level>, bool) {
        let Some(desired) = &self.desired else {
            return (self.default, BTreeMap::new(), false);
        };
        match &desired.temporary {
            Some(temporary) if self.temporary_ends.is_some() => {
                (temporary.level, temporary.sources.clone(), true)
            }
            _ => {
                let level = desired.lasting(self.default);
                (level, desired.sources.clone(), false)
            }
        }
    }

    /// Whether the document has an entry for `source`.
    pub(crate) fn names(&self, source: &str) -> bool {
        let temporary = |desired: &Desired| {
            let temporary = desired.temporary.as_ref();
            let temporary = temporary.filter(|_| self.temporary_ends.is_some());
            temporary.is_some_and(|temporary| temporary.sources.contains_key(source))
        };
        let desired = self.desired.as_ref();
        desired.is_some_and(|d| d.sources.contains_key(source) || temporary(d))
    }

    /// The most verbose level any source has or could have: what is below it passes nowhere.
    pub(crate) fn most_verbose(&self) -> Level {
        let Some(desired) = &self.desired else {
            return self.default;
        };
        let temporary = desired
            .temporary
            .as_ref()
            .filter(|_| self.temporary_ends.is_some());
        let temporary = temporary
            .iter()
            .flat_map(|t| t.sources.values().copied().chain([t.level]));
        desired
            .sources
            .values()
            .copied()
            .chain(temporary)
            .fold(desired.lasting(self.default), Level::max)
    }

    /// The document in force.
    pub(crate) fn desired(&self) -> Option<&Desired> {
        self.desired.as_ref()
    }
}

/// What is left of a temporary level, at most `left`; `None` when it is over. An `until` that cannot
/// be read counts as absent, so that `for_s` still ends the level.
fn remaining(until: &str, left: Duration, wall: Option<u64>) -> Option<Duration> {
    let by_wall = match (wall, json::parse_time(until)) {
        (Some(wall), Some(until)) => Duration::from_nanos(until.saturating_sub(wall)),
        _ => left,
    };
    let left = left.min(by_wall);
    (!left.is_zero()).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    /// 2026-01-01T00:00:00Z
    const NEW_YEAR: u64 = 1_767_225_600 * SECOND;

    fn document(json: &str) -> Desired {
        serde_json::from_str(json).unwrap()
    }

    fn temporary(until: &str, for_s: u64) -> Desired {
        document(&format!(
            r#"{{"schema":1,"revision":"0","level":"WARN","sources":{{"nginx":"ERROR"}},
                "override":{{"level":"DEBUG","until":"{until}","for_s":{for_s}}}}}"#
        ))
    }

    fn at(wall: Option<u64>) -> Now {
        Now {
            mono: Instant::now(),
            wall,
        }
    }

    #[test]
    fn without_a_document_the_default_applies_to_every_source() {
        let levels = Levels::new(Level::Warn);
        assert_eq!(levels.level("app"), Level::Warn);
        assert_eq!(levels.most_verbose(), Level::Warn);
    }

    #[test]
    fn a_source_entry_refines_the_level_and_the_most_verbose_one_is_known() {
        let mut levels = Levels::new(Level::Info);
        let desired = r#"{"schema":1,"revision":"0","level":"ERROR","sources":{"app":"DEBUG"}}"#;
        levels.apply(document(desired), at(Some(NEW_YEAR)));
        assert_eq!(levels.level("app"), Level::Debug);
        assert_eq!(levels.level("nginx"), Level::Error);
        assert_eq!(levels.most_verbose(), Level::Debug);
        levels.clear();
        assert_eq!(levels.level("nginx"), Level::Info);
    }

    #[test]
    fn where_nobody_has_said_a_level_the_device_may_send_less_but_not_more() {
        let desired = r#"{"schema":1,"revision":"0","level":"INFO","unset":true,
            "sources":{"app":"WARN"},
            "override":{"level":"DEBUG","until":"2026-01-01T01:00:00Z","for_s":60}}"#;
        for (own, expected) in [(Level::Error, Level::Error), (Level::Debug, Level::Info)] {
            let mut levels = Levels::new(own);
            let now = at(Some(NEW_YEAR));
            levels.apply(document(desired), now);
            assert_eq!(levels.level("nginx"), Level::Debug);
            levels.tick(now.mono + Duration::from_secs(60));
            assert_eq!(levels.level("nginx"), expected);
            assert_eq!(levels.level("app"), Level::Warn);
            assert_eq!(levels.most_verbose(), expected.max(Level::Warn));
            assert_eq!(levels.in_force().0, expected);
        }
    }

    #[test]
    fn a_temporary_level_ends_at_the_earlier_of_until_and_for() {
        for (until, for_s, seconds) in [
            ("2026-01-01T00:00:05Z", 60, 5),
            ("2026-01-01T00:10:00Z", 60, 60),
        ] {
            let mut levels = Levels::new(Level::Info);
            let now = at(Some(NEW_YEAR));
            levels.apply(temporary(until, for_s), now);
            assert_eq!(levels.level("app"), Level::Debug);
            let end = levels.next_change().unwrap();
            assert_eq!(end - now.mono, Duration::from_secs(seconds));
            assert!(!levels.tick(end - Duration::from_millis(1)));
            assert!(levels.tick(end));
            assert_eq!(levels.level("app"), Level::Warn);
            assert_eq!(levels.next_change(), None);
        }
    }

    #[test]
    fn without_a_clock_the_interval_alone_ends_a_temporary_level() {
        let mut levels = Levels::new(Level::Info);
        let now = at(None);
        levels.apply(temporary("2020-01-01T00:00:00Z", 30), now);
        assert_eq!(
            levels.next_change(),
            Some(now.mono + Duration::from_secs(30))
        );
    }

    #[test]
    fn a_document_that_arrives_again_prolongs_nothing() {
        let desired = temporary("2026-01-01T01:00:00Z", 60);
        let mut levels = Levels::new(Level::Info);
        let first = at(None);
        levels.restore(desired.clone(), 0, first);
        levels.apply(desired.clone(), first);
        let ends = first.mono + Duration::from_secs(60);
        let later = Now {
            mono: first.mono + Duration::from_secs(50),
            wall: None,
        };
        levels.apply(desired.clone(), later);
        assert_eq!(levels.next_change(), Some(ends));
        assert!(levels.tick(ends));
        levels.apply(desired, later);
        assert_eq!(levels.level("app"), Level::Warn);
    }

    #[test]
    fn a_clock_that_is_set_ends_a_temporary_level_whose_end_has_passed_and_never_prolongs_one() {
        let desired = temporary("2026-01-01T00:10:00Z", 600);
        let mut levels = Levels::new(Level::Info);
        let now = at(None);
        levels.apply(desired.clone(), now);
        let ends = now.mono + Duration::from_secs(600);
        for early in [None, Some(NEW_YEAR), Some(NEW_YEAR - 86_400 * SECOND)] {
            assert!(!levels.is_overdue(early));
            assert_eq!(levels.next_change(), Some(ends), "{early:?}");
        }
        let set = Some(NEW_YEAR + 600 * SECOND);
        assert!(levels.is_overdue(set));
        levels.end_temporary();
        assert_eq!(levels.level("app"), Level::Warn);
        assert!(!levels.is_overdue(set));
        // The retained document comes again; so does a clock that was set back.
        levels.apply(
            desired,
            Now {
                wall: Some(NEW_YEAR),
                ..now
            },
        );
        assert_eq!(levels.level("app"), Level::Warn);
    }

    #[test]
    fn a_temporary_level_that_is_over_on_arrival_never_starts() {
        let mut levels = Levels::new(Level::Info);
        levels.apply(temporary("2020-01-01T00:00:00Z", 30), at(Some(NEW_YEAR)));
        assert_eq!(levels.level("app"), Level::Warn);
    }

    #[test]
    fn a_restart_keeps_the_rest_of_a_temporary_level_when_the_time_is_known() {
        let desired = temporary("2026-01-01T01:00:00Z", 60);
        let mut levels = Levels::new(Level::Info);
        let now = at(Some(NEW_YEAR + 20 * SECOND));
        levels.restore(desired.clone(), NEW_YEAR, now);
        assert_eq!(
            levels.next_change(),
            Some(now.mono + Duration::from_secs(40))
        );
        levels.restore(desired, NEW_YEAR, at(Some(NEW_YEAR + 61 * SECOND)));
        assert_eq!(levels.level("app"), Level::Warn);
    }

    #[test]
    fn a_reboot_without_a_clock_drops_the_temporary_level_and_keeps_the_rest() {
        let mut levels = Levels::new(Level::Info);
        levels.restore(temporary("2026-01-01T01:00:00Z", 60), NEW_YEAR, at(None));
        assert_eq!(levels.level("app"), Level::Warn);
        assert_eq!(levels.level("nginx"), Level::Error);
    }
}
