//! When the worker may send: the gate of the modes of upload. In modes that wait, events gather in
//! queue and spool as always, within the same caps; when the gate opens, what has gathered goes, and
//! the gate closes behind it. Pure: both clocks are arguments.

use std::time::{Duration, Instant};

use thinglog_schemas::config::{Upload, UploadMode};

use crate::{clock, levels::Now};

const SECOND: u64 = 1_000_000_000;
const DAY_S: u64 = 86_400;
const DAY: Duration = Duration::from_secs(DAY_S);
/// What the modes use when nothing says otherwise.
const INTERVAL_S: u32 = 3600;
const SCHEDULE_S: u32 = 2 * 3600;

/// When the gate opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rhythm {
    /// It is never closed.
    Always,
    /// So long after it opened last.
    Every(Duration),
    /// At these seconds of the day (UTC, ascending), each so much later. While the device does not
    /// know the time: once a day, counted from the start.
    Daily { times: Vec<u32>, late: Duration },
    /// When asked.
    Asked,
}

impl Rhythm {
    /// Of settings; `spread` is the device's own number for its place in the spread.
    pub(crate) fn of(upload: &Upload, spread: u64) -> Rhythm {
        match upload.mode.unwrap_or_default() {
            UploadMode::Realtime | UploadMode::OnError => Rhythm::Always,
            UploadMode::Manual => Rhythm::Asked,
            UploadMode::Interval => {
                let seconds = upload.interval_s.unwrap_or(INTERVAL_S).max(1);
                Rhythm::Every(Duration::from_secs(seconds.into()))
            }
            UploadMode::Schedule => {
                let times = upload.at.iter().flatten().map(|time| time.seconds());
                let mut times: Vec<u32> = times.collect();
                if times.is_empty() {
                    times.push(SCHEDULE_S);
                }
                times.sort_unstable();
                let late = spread % (u64::from(upload.spread_s.unwrap_or(0)) + 1);
                Rhythm::Daily {
                    times,
                    late: Duration::from_secs(late),
                }
            }
        }
    }
}

/// The gate.
#[derive(Debug)]
pub(crate) struct Gate {
    rhythm: Rhythm,
    open: bool,
    /// It opens then, by the monotonic clock; set while the rhythm goes by that one.
    at: Option<Instant>,
    /// It opens then, ns since the Unix epoch; set while the rhythm goes by the time of day.
    wall_at: Option<u64>,
}

impl Gate {
    pub(crate) fn new(rhythm: Rhythm, now: Now) -> Gate {
        let mut gate = Gate {
            open: false,
            rhythm,
            at: None,
            wall_at: None,
        };
        gate.plan(now);
        gate
    }

    /// Goes by another rhythm from now on. The same one again changes nothing; an upload that has
    /// begun goes on.
    pub(crate) fn set(&mut self, rhythm: Rhythm, now: Now) {
        if self.rhythm != rhythm {
            let open = self.open;
            *self = Gate::new(rhythm, now);
            self.open = open && self.waits();
        }
    }

    /// Whether this is a mode that waits.
    pub(crate) fn waits(&self) -> bool {
        self.rhythm != Rhythm::Always
    }

    /// Whether anything may be sent now.
    pub(crate) fn is_open(&self) -> bool {
        self.open || !self.waits()
    }

    /// Somebody wants what has gathered sent now.
    pub(crate) fn ask(&mut self) {
        self.open = self.waits();
    }

    /// Opens the gate when it is time.
    pub(crate) fn tick(&mut self, now: Now) {
        if let Rhythm::Daily { .. } = self.rhythm {
            self.follow_the_clock(now);
        }
        let by_mono = self.at.is_some_and(|at| at <= now.mono);
        let by_wall = self.wall_at.zip(now.wall);
        if by_mono || by_wall.is_some_and(|(at, wall)| at <= wall) {
            self.open = true;
        }
    }

    /// What had gathered is gone: closes the gate.
    pub(crate) fn close(&mut self, now: Now) {
        self.open = false;
        self.plan(now);
    }

    /// When [`tick`](Gate::tick) has something to do.
    pub(crate) fn deadline(&self, now: Now) -> Option<Instant> {
        if self.open {
            return None;
        }
        let by_wall = self.wall_at.zip(now.wall).map(|(at, wall)| {
            let left = Duration::from_nanos(at.saturating_sub(wall));
            clock::after(now.mono, left)
        });
        self.at.into_iter().chain(by_wall).min()
    }

    fn plan(&mut self, now: Now) {
        let after = |wait| clock::after(now.mono, wait);
        self.wall_at = None;
        self.at = match &self.rhythm {
            Rhythm::Always | Rhythm::Asked => None,
            // From opening to opening, as long as an upload does not take longer than that.
            Rhythm::Every(interval) => {
                let next = self.at.map(|last| clock::after(last, *interval));
                Some(next.filter(|at| *at > now.mono).unwrap_or(after(*interval)))
            }
            Rhythm::Daily { times, late } => match now.wall {
                Some(wall) => {
                    self.wall_at = Some(next_time(wall, times, *late));
                    None
                }
                None => Some(after(DAY)),
            },
        };
    }

    /// The device has learnt or forgotten the time, or its clock was set back: a clock that was set
    /// forward finds its time passed and opens at once.
    fn follow_the_clock(&mut self, now: Now) {
        let Rhythm::Daily { times, late } = &self.rhythm else {
            return;
        };
        match (now.wall, self.wall_at) {
            (Some(wall), Some(at)) => {
                self.wall_at = Some(at.min(next_time(wall, times, *late)));
            }
            (Some(_), None) | (None, Some(_)) => self.plan(now),
            (None, None) => {}
        }
    }
}

/// The first time after `wall` (ns since the Unix epoch) that is one of `times` (seconds of the day,
/// UTC), `late` later.
fn next_time(wall: u64, times: &[u32], late: Duration) -> u64 {
    let late = late.as_nanos() as u64;
    let seconds = wall.saturating_sub(late) / SECOND;
    let (day, second) = (seconds / DAY_S, seconds % DAY_S);
    let today = times.iter().find(|time| u64::from(**time) > second);
    let next = match (today, times.first()) {
        (Some(time), _) => day * DAY_S + u64::from(*time),
        (None, Some(first)) => (day + 1) * DAY_S + u64::from(*first),
        (None, None) => (day + 1) * DAY_S,
    };
    next * SECOND + late
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-01T00:00:00Z
    const NEW_YEAR: u64 = 1_767_225_600 * SECOND;
    const HOUR: u64 = 3600 * SECOND;

    struct Clocks {
        start: Instant,
        now: Now,
    }

    impl Clocks {
        fn at(wall: Option<u64>) -> Clocks {
            let start = Instant::now();
            let now = Now { mono: start, wall };
            Clocks { start, now }
        }

        /// Time passes on both clocks.
        fn pass(&mut self, seconds: u64) -> Now {
            self.now.mono += Duration::from_secs(seconds);
            self.now.wall = self.now.wall.map(|wall| wall + seconds * SECOND);
            self.now
        }

        /// Somebody sets the clock.
        fn set(&mut self, wall: Option<u64>) -> Now {
            self.now.wall = wall;
            self.now
        }
    }

    fn daily(at: &[&str], late: u64) -> Rhythm {
        let upload = Upload {
            mode: Some(UploadMode::Schedule),
            at: Some(at.iter().map(|text| text.parse().unwrap()).collect()),
            ..Upload::default()
        };
        match Rhythm::of(&upload, 0) {
            Rhythm::Daily { times, .. } => Rhythm::Daily {
                times,
                late: Duration::from_secs(late),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn realtime_is_always_open_and_manual_only_when_asked() {
        let mut clocks = Clocks::at(Some(NEW_YEAR));
        let mut realtime = Gate::new(Rhythm::Always, clocks.now);
        realtime.tick(clocks.now);
        realtime.close(clocks.now);
        assert!(realtime.is_open() && !realtime.waits());
        let mut manual = Gate::new(Rhythm::Asked, clocks.now);
        manual.tick(clocks.pass(10 * DAY_S));
        assert!(!manual.is_open());
        assert_eq!(manual.deadline(clocks.now), None);
        manual.ask();
        assert!(manual.is_open());
        manual.close(clocks.now);
        assert!(!manual.is_open());
    }

    #[test]
    fn an_interval_counts_from_opening_to_opening() {
        let mut clocks = Clocks::at(None);
        let mut gate = Gate::new(Rhythm::Every(Duration::from_secs(60)), clocks.now);
        gate.tick(clocks.pass(59));
        assert!(!gate.is_open());
        gate.tick(clocks.pass(1));
        assert!(gate.is_open());
        gate.close(clocks.pass(20));
        let next = clocks.start + Duration::from_secs(120);
        assert_eq!(gate.deadline(clocks.now), Some(next));
        gate.tick(clocks.pass(40));
        assert!(gate.is_open());
        gate.close(clocks.pass(200));
        let next = clocks.now.mono + Duration::from_secs(60);
        assert_eq!(gate.deadline(clocks.now), Some(next), "it took longer");
    }

    #[test]
    fn a_schedule_opens_at_its_times_each_day() {
        let mut clocks = Clocks::at(Some(NEW_YEAR + HOUR));
        let mut gate = Gate::new(daily(&["14:30", "02:00"], 0), clocks.now);
        let mut opened = Vec::new();
        for _ in 0..48 * 60 {
            gate.tick(clocks.pass(60));
            if gate.is_open() {
                opened.push((clocks.now.wall.unwrap() - NEW_YEAR) / SECOND / 60);
                gate.close(clocks.now);
            }
        }
        assert_eq!(opened, [120, 870, 1560, 2310]);
    }

    #[test]
    fn a_device_is_late_by_its_share_of_the_spread() {
        let upload = Upload {
            mode: Some(UploadMode::Schedule),
            spread_s: Some(600),
            ..Upload::default()
        };
        let late = |spread| match Rhythm::of(&upload, spread) {
            Rhythm::Daily { late, times } => (late.as_secs(), times),
            other => panic!("{other:?}"),
        };
        assert_eq!(late(0), (0, vec![7200]));
        assert_eq!(late(600), (600, vec![7200]));
        assert_eq!(late(601), (0, vec![7200]));
        // The last share of yesterday's time falls into today.
        let midnight = daily(&["23:59"], 600);
        let clocks = Clocks::at(Some(NEW_YEAR));
        let gate = Gate::new(midnight, clocks.now);
        let left = gate.deadline(clocks.now).unwrap() - clocks.start;
        assert_eq!(left, Duration::from_secs(600 - 60));
    }

    #[test]
    fn without_the_time_a_schedule_is_once_a_day() {
        let mut clocks = Clocks::at(None);
        let mut gate = Gate::new(daily(&["02:00"], 0), clocks.now);
        gate.tick(clocks.pass(DAY_S - 1));
        assert!(!gate.is_open());
        gate.tick(clocks.pass(1));
        assert!(gate.is_open());
    }

    #[test]
    fn a_clock_that_is_set_under_way_is_followed() {
        let mut clocks = Clocks::at(None);
        let mut gate = Gate::new(daily(&["02:00"], 0), clocks.now);
        // The time becomes known: 01:00.
        gate.tick(clocks.set(Some(NEW_YEAR + HOUR)));
        assert!(!gate.is_open());
        let hour = clocks.now.mono + Duration::from_secs(3600);
        assert_eq!(gate.deadline(clocks.now), Some(hour));
        // Set back by a day and a half: not another day and a half of waiting.
        gate.tick(clocks.set(Some(NEW_YEAR - 36 * HOUR)));
        let hours = clocks.now.mono + Duration::from_secs(14 * 3600);
        assert_eq!(gate.deadline(clocks.now), Some(hours));
        assert!(!gate.is_open());
        // Set forward beyond the time: it is made up for.
        gate.tick(clocks.set(Some(NEW_YEAR + 5 * HOUR)));
        assert!(gate.is_open());
        gate.close(clocks.now);
        gate.tick(clocks.now);
        assert!(!gate.is_open());
    }

    #[test]
    fn another_rhythm_counts_from_its_beginning_and_the_same_again_changes_nothing() {
        let mut clocks = Clocks::at(None);
        let minute = Rhythm::Every(Duration::from_secs(60));
        let mut gate = Gate::new(minute.clone(), clocks.now);
        gate.set(minute.clone(), clocks.pass(59));
        gate.tick(clocks.pass(1));
        assert!(gate.is_open());
        gate.set(Rhythm::Asked, clocks.now);
        assert!(gate.is_open(), "an upload that has begun goes on");
        gate.close(clocks.now);
        gate.set(minute, clocks.now);
        gate.tick(clocks.pass(59));
        assert!(!gate.is_open());
    }
}
