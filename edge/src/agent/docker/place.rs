//! How far a container's log was read, so exactly that going on neither repeats nor misses an entry.
//! Pure.
//!
//! The engine gives entries in the order it stored them, each with its time, and can be asked for
//! those from a time on. Within one output the times never go back (unless the clock does), but
//! between stdout and stderr they may by a little. So each output has a point of its own: the time of
//! its last entry, and how many of that time were read.

use serde::{Deserialize, Serialize};

use super::frames::Output;

const SECOND: u64 = 1_000_000_000;
/// How much stdout and stderr may be out of order, and an output that said nothing yet be behind.
const DISORDER: u64 = 10 * SECOND;

/// The last entry that was passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Point {
    /// Nanoseconds since the epoch.
    time: u64,
    /// Entries of that time up to and with it.
    count: u32,
}

/// The points of both outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    out: Option<Point>,
    err: Option<Point>,
}

impl Place {
    /// Everything before `time` counts as read.
    pub(super) fn at(time: u64) -> Place {
        let point = Some(Point { time, count: 0 });
        Place {
            out: point,
            err: point,
        }
    }

    /// From when on the engine is to be asked, as `<seconds>.<nanoseconds>`; `None`: from the
    /// beginning. Some of what comes was read already.
    pub(super) fn since(&self) -> Option<String> {
        let times = [self.out, self.err].map(|point| point.map(|point| point.time));
        let newest = times.iter().flatten().max()?;
        let oldest = match times {
            [Some(out), Some(err)] => out.min(err),
            _ => 0,
        };
        let since = oldest.max(newest.saturating_sub(DISORDER));
        // Times go back between the outputs even where both points are the same.
        let since = since.saturating_sub(SECOND);
        Some(format!("{}.{:09}", since / SECOND, since % SECOND))
    }

    /// An entry was passed on.
    pub(super) fn pass(&mut self, output: Output, time: u64) {
        let point = self.point(output);
        match point {
            Some(point) if point.time == time => point.count = point.count.saturating_add(1),
            _ => *point = Some(Point { time, count: 1 }),
        }
    }

    /// Takes over how far another place is with one output.
    pub(super) fn follow(&mut self, output: Output, mut other: Place) {
        *self.point(output) = *other.point(output);
    }

    fn point(&mut self, output: Output) -> &mut Option<Point> {
        match output {
            Output::Stdout => &mut self.out,
            Output::Stderr => &mut self.err,
        }
    }
}

/// Tells what comes again from what is new, after going on at a place.
pub(super) struct Resume {
    /// What is still to come again.
    again: Place,
}

impl Resume {
    pub(super) fn at(place: Place) -> Resume {
        Resume { again: place }
    }

    /// Whether an entry is new. From the first new one of an output on, all of it are.
    pub(super) fn is_new(&mut self, output: Output, time: u64) -> bool {
        let again = self.again.point(output);
        match again {
            Some(point) if time < point.time => false,
            Some(point) if time == point.time && point.count > 0 => {
                point.count -= 1;
                false
            }
            _ => {
                *again = None;
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_000 * SECOND;

    /// What the engine gives of a log when it is asked from a place on.
    fn given(log: &[(Output, u64)], place: &Place) -> Vec<(Output, u64)> {
        let since = place.since().map_or(0, |since| {
            let (seconds, nanos) = since.split_once('.').unwrap();
            seconds.parse::<u64>().unwrap() * SECOND + nanos.parse::<u64>().unwrap()
        });
        let first = log.iter().position(|(_, time)| *time >= since);
        log[first.unwrap_or(log.len())..].to_vec()
    }

    #[test]
    fn what_an_engine_is_asked_for_is_a_little_more_than_what_is_new() {
        let mut place = Place::default();
        assert_eq!(place.since(), None);
        place.pass(Output::Stdout, NOW);
        assert_eq!(place.since().unwrap(), "989.000000000");
        place.pass(Output::Stderr, NOW - 5);
        assert_eq!(place.since().unwrap(), "998.999999995");
        // A stderr that has been silent for long does not make all of stdout come again.
        place.pass(Output::Stdout, 2 * NOW);
        assert_eq!(place.since().unwrap(), "1989.000000000");
    }

    #[test]
    fn times_that_went_back_with_the_clock_are_new() {
        let mut place = Place::default();
        place.pass(Output::Stdout, NOW);
        let mut resume = Resume::at(place);
        assert!(!resume.is_new(Output::Stdout, NOW));
        assert!(resume.is_new(Output::Stdout, NOW + 1));
        assert!(resume.is_new(Output::Stdout, NOW - 5));
    }

    proptest! {
        #[test]
        fn going_on_anywhere_neither_repeats_nor_misses(
            // Equal times are frequent, and the outputs out of order by up to seconds.
            steps in proptest::collection::vec((any::<bool>(), prop_oneof![Just(0), 0..3 * SECOND]), 0..60),
            lag in 0..2 * SECOND,
            stop in 0usize..60,
        ) {
            let mut clock = NOW;
            let log: Vec<(Output, u64)> = steps.into_iter().map(|(err, step)| {
                clock += step;
                if err { (Output::Stderr, clock - lag) } else { (Output::Stdout, clock) }
            }).collect();
            let stop = stop.min(log.len());
            let mut place = Place::default();
            for (output, time) in &log[..stop] {
                place.pass(*output, *time);
            }
            let mut resume = Resume::at(place);
            let mut rest = given(&log, &place);
            rest.retain(|(output, time)| resume.is_new(*output, *time));
            prop_assert_eq!(rest, &log[stop..]);
        }
    }
}
