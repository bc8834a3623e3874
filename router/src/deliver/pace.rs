//! When to commit. Pure.
//!
//! A lone event is committed at once. While more keep coming, a commit waits until input pauses, at
//! most 100 ms or 8 MiB; and pauses count only if the last commit began long enough ago that syncing
//! takes at most a fifth of the time.

use std::time::{Duration, Instant};

const MAX_AGE: Duration = Duration::from_millis(100);
const MAX_BYTES: usize = 8 << 20;
/// Beyond this much uncommitted, work waits for the commit under way.
const HARD_BYTES: usize = 3 * MAX_BYTES;
const MAX_SPACING: Duration = Duration::from_millis(20);
const SPACING_FACTOR: u32 = 4;

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Nothing is uncommitted.
    Rest,
    /// Commit now.
    Commit,
    /// Commit now, even if that means waiting for the one under way.
    CommitOrBlock,
    /// Go on; look again at this time at the latest (a finished commit also wakes).
    Wait(Option<Instant>),
}

/// What is uncommitted, and since when.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    since: Option<Instant>,
    bytes: usize,
    last_begun: Option<Instant>,
    spacing: Duration,
}

impl Pace {
    /// Work for `bytes` of data has been taken up.
    pub(crate) fn took(&mut self, bytes: usize, now: Instant) {
        self.since.get_or_insert(now);
        self.bytes += bytes;
    }

    /// A commit of everything begins.
    pub(crate) fn begun(&mut self, now: Instant) {
        self.since = None;
        self.bytes = 0;
        self.last_begun = Some(now);
    }

    /// The last commit took this long.
    pub(crate) fn ended(&mut self, took: Duration) {
        self.spacing = (took * SPACING_FACTOR).min(MAX_SPACING);
    }

    /// `idle`: no input waits; `busy`: a commit is under way.
    pub(crate) fn advice(&self, now: Instant, idle: bool, busy: bool) -> Advice {
        let Some(since) = self.since else {
            return Advice::Rest;
        };
        if busy {
            return if self.bytes >= HARD_BYTES {
                Advice::CommitOrBlock
            } else {
                Advice::Wait(None)
            };
        }
        if self.bytes >= MAX_BYTES || now.duration_since(since) >= MAX_AGE {
            return Advice::Commit;
        }
        let spaced = self.last_begun.map_or(now, |begun| begun + self.spacing);
        if idle && spaced <= now {
            return Advice::Commit;
        }
        Advice::Wait(idle.then_some(spaced))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_lone_event_is_committed_at_once() {
        let now = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.advice(now, true, false), Advice::Rest);
        pace.took(100, now);
        assert_eq!(pace.advice(now, true, false), Advice::Commit);
    }

    #[test]
    fn a_pause_too_soon_after_the_last_commit_waits() {
        let now = Instant::now();
        let mut pace = Pace::default();
        pace.took(100, now);
        pace.begun(now);
        pace.ended(2 * MS);
        pace.took(100, now + MS);
        let advice = pace.advice(now + MS, true, false);
        assert_eq!(advice, Advice::Wait(Some(now + 8 * MS)));
        assert_eq!(pace.advice(now + 8 * MS, true, false), Advice::Commit);
    }

    #[test]
    fn under_load_age_and_bytes_decide() {
        let now = Instant::now();
        let mut pace = Pace::default();
        pace.took(100, now);
        assert_eq!(pace.advice(now + MS, false, false), Advice::Wait(None));
        assert_eq!(pace.advice(now + MAX_AGE, false, false), Advice::Commit);
        pace.took(MAX_BYTES, now);
        assert_eq!(pace.advice(now, false, false), Advice::Commit);
    }

    #[test]
    fn work_goes_on_beside_a_commit_up_to_a_limit() {
        let now = Instant::now();
        let mut pace = Pace::default();
        pace.took(MAX_BYTES, now);
        assert_eq!(pace.advice(now, false, true), Advice::Wait(None));
        pace.took(HARD_BYTES, now);
        assert_eq!(pace.advice(now, false, true), Advice::CommitOrBlock);
    }
}
