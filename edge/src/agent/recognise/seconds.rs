//! The times of lines that follow on each other: many of them are of the same second, which is
//! looked up in the calendar once. Pure.

use super::{
    time::{Written, is_plausible},
    zone::Zone,
};

/// Resolves the times of lines that follow on each other: many of them are of the same second.
#[derive(Debug, Default)]
pub(super) struct Seconds {
    last: Option<Resolved>,
}

/// A time without its decimals, what it meant, and at which moment.
#[derive(Debug)]
struct Resolved {
    written: Written,
    time: u64,
    now: u64,
}

impl Seconds {
    /// See [`Written::resolve`]. The times of one [`Seconds`] are all of one zone.
    pub(super) fn resolve(&mut self, written: &Written, zone: &Zone, now: u64) -> Option<u64> {
        // Which year it is may depend on the decimals.
        let nanos = written.year.map_or(0, |_| written.nanos);
        let decimals = u64::try_from(nanos).ok()?;
        let whole = Written {
            nanos: written.nanos - nanos,
            ..*written
        };
        let same = |last: &&Resolved| last.now == now && last.written == whole;
        if let Some(last) = self.last.as_ref().filter(same) {
            return Some(last.time + decimals).filter(|time| is_plausible(*time, now));
        }
        let time = written.resolve(zone, now)?;
        self.last = Some(Resolved {
            written: whole,
            time: time - decimals,
            now,
        });
        Some(time)
    }
}

#[cfg(test)]
mod tests {
    use thinglog_schemas::json::parse_time;

    use super::{super::time, *};

    #[test]
    fn times_of_one_second_are_resolved_as_each_by_itself() {
        let berlin = Zone::Fixed(jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap());
        let mut seconds = Seconds::default();
        for now in [
            "2026-11-21T09:30:01Z",
            "2026-11-21T09:30:01.5Z",
            "2027-01-01T00:00:00Z",
        ] {
            for text in [
                "Nov 21 10:30:01",
                "Nov 21 10:30:01.250",
                "Nov 21 10:30:01",
                "Nov 21 10:30:02",
                "Nov 22 10:30:01.400",
                "Nov 22 10:30:01.600",
                "Nov 22 10:30:01",
                "2026-11-21T10:30:01.5Z",
                "2026-02-30T10:30:01Z",
                "2026-11-21T10:30:01Z",
            ] {
                let (written, _) = time::read(text.as_bytes()).unwrap();
                let alone = written.resolve(&berlin, parse_time(now).unwrap());
                assert_eq!(
                    seconds.resolve(&written, &berlin, parse_time(now).unwrap()),
                    alone,
                    "{text}"
                );
            }
        }
    }
}
