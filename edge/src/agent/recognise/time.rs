//! Times as lines write them: read at the beginning of a text, then resolved to an instant. What a
//! text leaves out, its year or its zone, comes from the moment it is read at. Pure: time and zone
//! are arguments.
//!
//! | form | who writes it |
//! |---|---|
//! | `2026-11-21T09:30:01.123456Z`, `2026-11-21 10:00:00,123`, `2026/11/21 10:00:00` | RFC 3339, Python, Java, nginx, Go |
//! | `Nov 21 09:30:01`, `Sat Nov 21 09:30:01.123 2026`, `Nov 21 2026 09:30:01` | syslog (RFC 3164), Apache, OpenWrt, routers |
//! | `21/Nov/2026:09:30:01 +0000`, `21 Nov 2026 09:30:01.123` | access logs, Redis |
//!
//! A zone may follow as `Z`, `+01:00`, `+0100`, `+01`, `UTC` or `GMT`, also after a blank.

use jiff::{
    Timestamp,
    civil::DateTime,
    tz::{AmbiguousOffset, Offset},
};

use super::zone::Zone;

const SECOND: u64 = 1_000_000_000;
/// A time may be this much ahead of the clock: zones may be wrong by so much, nothing else is.
const AHEAD: u64 = 86_400 * SECOND;

/// A time as a text gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Syslog and klog give none.
    pub(crate) year: Option<i16>,
    pub(crate) month: i8,
    pub(crate) day: i8,
    pub(crate) hour: i8,
    pub(crate) minute: i8,
    /// 60 is a leap second.
    pub(crate) second: i8,
    pub(crate) nanos: i32,
    /// Seconds east of UTC.
    pub(crate) offset: Option<i32>,
}

impl Written {
    /// Nanoseconds since the Unix epoch. Without a year, the latest year that does not lead more than
    /// a day beyond `now`; without a zone, `zone`. `None` for a date that does not exist, before 1970,
    /// and for a time more than a day after `now`.
    pub(crate) fn resolve(&self, zone: &Zone, now: u64) -> Option<u64> {
        let plausible = |time: &u64| is_plausible(*time, now);
        if let Some(year) = self.year {
            return self.in_year(year, zone, now).filter(plausible);
        }
        let moment = Timestamp::from_second(i64::try_from(now / SECOND).ok()?).ok()?;
        let today = Offset::UTC.to_datetime(moment);
        let this = today.year();
        // With a day to spare and any zone, the next year is not before this.
        let next = (today.month() == 12 && today.day() >= 29).then_some(this + 1);
        let years = next.into_iter().chain([this, this - 1]);
        years
            .filter_map(|year| self.in_year(year, zone, now))
            .find(plausible)
    }

    fn in_year(&self, year: i16, zone: &Zone, now: u64) -> Option<u64> {
        let second = self.second.min(59);
        let civil = DateTime::new(
            year,
            self.month,
            self.day,
            self.hour,
            self.minute,
            second,
            self.nanos,
        );
        let civil = civil.ok()?;
        let time = match self.offset {
            Some(offset) => instant(civil, Offset::from_seconds(offset).ok()?)?,
            None => local(civil, zone, now)?,
        };
        // As everywhere, a leap second counts as the second after it.
        Some(time + if self.second == 60 { SECOND } else { 0 })
    }
}

/// Whether an event that is read at `now` can have happened at `time`.
pub(crate) fn is_plausible(time: u64, now: u64) -> bool {
    time <= now.saturating_add(AHEAD)
}

fn instant(civil: DateTime, offset: Offset) -> Option<u64> {
    let instant = offset.to_timestamp(civil).ok()?;
    u64::try_from(instant.as_nanosecond()).ok()
}

/// The hour that a clock shows twice in autumn is its second showing, unless that is still to come;
/// one that it skips in spring is counted on from before.
fn local(civil: DateTime, zone: &Zone, now: u64) -> Option<u64> {
    match zone.get().to_ambiguous_timestamp(civil).offset() {
        AmbiguousOffset::Unambiguous { offset } => instant(civil, offset),
        AmbiguousOffset::Gap { before, .. } => instant(civil, before),
        AmbiguousOffset::Fold { before, after } => {
            const SLACK: u64 = 60 * SECOND;
            let second = instant(civil, after)?;
            if second <= now.saturating_add(SLACK) {
                Some(second)
            } else {
                instant(civil, before)
            }
        }
    }
}

/// The time at the beginning of `text` and its length, bytes. Nothing that could belong to it (a
/// letter, a digit) may follow.
pub(crate) fn read(text: &[u8]) -> Option<(Written, usize)> {
    let first = text.first()?;
    let mut cursor = Cursor { text, at: 0 };
    let written = if first.is_ascii_digit() {
        match text.get(2)? {
            b'/' | b' ' => cursor.day_first(),
            _ => cursor.year_first(),
        }
    } else if first.is_ascii_uppercase() {
        cursor.month_first()
    } else {
        None
    }?;
    let ends = |byte: &u8| !byte.is_ascii_alphanumeric();
    text.get(cursor.at)
        .is_none_or(ends)
        .then_some((written, cursor.at))
}

/// `0102 15:04:05.678901`, as klog and glog write it after the letter, newer glog with a year.
pub(crate) fn read_klog(text: &[u8]) -> Option<(Written, usize)> {
    let mut cursor = Cursor { text, at: 0 };
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let year = match digits {
        4 => None,
        8 => Some(cursor.number(4)?),
        _ => return None,
    };
    let mut written = Written {
        year,
        month: cursor.small(2)?,
        day: cursor.small(2)?,
        ..Written::default()
    };
    cursor.byte(b' ')?;
    cursor.clock(&mut written)?;
    (cursor.peek() == Some(b' ')).then_some((written, cursor.at))
}

/// The length of a time of day at the beginning of `text`, as in `09:30:01.123`: no time, but a place
/// where a level may follow.
pub(crate) fn clock_length(text: &[u8]) -> Option<usize> {
    let mut cursor = Cursor { text, at: 0 };
    cursor.clock(&mut Written::default())?;
    Some(cursor.at)
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn byte(&mut self, byte: u8) -> Option<()> {
        self.one_of(&[byte]).map(|_| ())
    }

    fn one_of(&mut self, bytes: &[u8]) -> Option<u8> {
        let byte = self.peek().filter(|byte| bytes.contains(byte))?;
        self.at += 1;
        Some(byte)
    }

    /// Exactly `width` digits; at most four.
    fn number(&mut self, width: usize) -> Option<i16> {
        let digits = self.text.get(self.at..self.at + width)?;
        let mut number = 0;
        for digit in digits {
            if !digit.is_ascii_digit() {
                return None;
            }
            number = number * 10 + i16::from(digit - b'0');
        }
        self.at += width;
        Some(number)
    }

    fn small(&mut self, width: usize) -> Option<i8> {
        i8::try_from(self.number(width)?).ok()
    }

    /// A day of one or two digits, the first perhaps a blank.
    fn day(&mut self) -> Option<i8> {
        match self.one_of(b" ") {
            Some(_) => self.small(1),
            None => self.small(2).or_else(|| self.small(1)),
        }
    }

    fn month(&mut self) -> Option<i8> {
        const MONTHS: [&[u8; 3]; 12] = [
            b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov",
            b"Dec",
        ];
        let name = self.text.get(self.at..self.at + 3)?;
        let month = MONTHS.iter().position(|month| *month == name)?;
        self.at += 3;
        i8::try_from(month + 1).ok()
    }

    fn weekday(&mut self) -> Option<()> {
        const DAYS: [&[u8; 3]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];
        let name = self.text.get(self.at..self.at + 3)?;
        DAYS.iter().find(|day| **day == name)?;
        self.at += 3;
        self.one_of(b",");
        self.byte(b' ')
    }

    /// `09:30:01`, perhaps with decimals after a point or a comma.
    fn clock(&mut self, written: &mut Written) -> Option<()> {
        written.hour = self.small(2)?;
        self.byte(b':')?;
        written.minute = self.small(2)?;
        self.byte(b':')?;
        written.second = self.small(2)?;
        if written.hour > 23 || written.minute > 59 || written.second > 60 {
            return None;
        }
        let digits = self.text.get(self.at + 1..).unwrap_or_default();
        let length = digits.iter().take_while(|b| b.is_ascii_digit()).count();
        if length > 0 && self.one_of(b".,").is_some() {
            let mut unit = 100_000_000;
            for digit in &digits[..length.min(9)] {
                written.nanos += i32::from(digit - b'0') * unit;
                unit /= 10;
            }
            self.at += length;
        }
        Some(())
    }

    /// A zone, if there is one.
    fn zone(&mut self) -> Option<i32> {
        let start = self.at;
        let spaced = self.one_of(b" ").is_some();
        let zone = match self.peek() {
            Some(b'Z' | b'z') if !spaced => {
                self.at += 1;
                Some(0)
            }
            // After a blank two digits alone could be anything.
            Some(b'+' | b'-') => self.offset().filter(|_| !spaced || self.at - start > 4),
            _ => {
                let name = self.text.get(self.at..self.at + 3);
                let utc = matches!(name, Some(b"UTC" | b"GMT"));
                self.at += 3;
                utc.then_some(0)
            }
        };
        let ends = self.peek().is_none_or(|byte| !byte.is_ascii_alphanumeric());
        if zone.is_none() || !ends {
            self.at = start;
            return None;
        }
        zone
    }

    fn offset(&mut self) -> Option<i32> {
        let sign = self.one_of(b"+-")?;
        let hours = i32::from(self.number(2)?);
        let colon = self.one_of(b":").is_some();
        let minutes = match self.number(2) {
            Some(minutes) => i32::from(minutes),
            None if colon => return None,
            None => 0,
        };
        if hours > 23 || minutes > 59 {
            return None;
        }
        let seconds = hours * 3600 + minutes * 60;
        Some(if sign == b'-' { -seconds } else { seconds })
    }

    fn year_first(&mut self) -> Option<Written> {
        let mut written = Written {
            year: Some(self.number(4)?),
            ..Written::default()
        };
        let separator = self.one_of(b"-/")?;
        written.month = self.small(2)?;
        self.byte(separator)?;
        written.day = self.small(2)?;
        self.one_of(b"Tt ")?;
        self.clock(&mut written)?;
        written.offset = self.zone();
        Some(written)
    }

    /// `21/Nov/2026:09:30:01` and `21 Nov 2026 09:30:01`.
    fn day_first(&mut self) -> Option<Written> {
        let mut written = Written {
            day: self.small(2)?,
            ..Written::default()
        };
        let separator = self.one_of(b"/ ")?;
        written.month = self.month()?;
        self.byte(separator)?;
        written.year = Some(self.number(4)?);
        self.byte(if separator == b'/' { b':' } else { b' ' })?;
        self.clock(&mut written)?;
        written.offset = self.zone();
        Some(written)
    }

    /// `Nov 21 09:30:01`, with a weekday before it, with a year before or after the time of day.
    fn month_first(&mut self) -> Option<Written> {
        let named = self.weekday().is_some();
        let mut written = Written {
            month: self.month()?,
            ..Written::default()
        };
        self.byte(b' ')?;
        written.day = self.day()?;
        self.byte(b' ')?;
        if self.text.get(self.at + 2) != Some(&b':') {
            written.year = Some(self.number(4)?);
            self.byte(b' ')?;
        }
        self.clock(&mut written)?;
        if written.year.is_none() && named {
            self.byte(b' ')?;
            written.year = Some(self.number(4)?);
        }
        Some(written)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use thinglog_schemas::json::parse_time;

    use super::*;

    fn at(text: &str) -> u64 {
        parse_time(text).unwrap()
    }

    fn berlin() -> Zone {
        let zone = jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3");
        Zone::Fixed(zone.unwrap())
    }

    fn utc() -> Zone {
        "UTC".to_owned().try_into().unwrap()
    }

    /// What a text means when it is read at `now`.
    #[track_caller]
    fn means(text: &str, zone: &Zone, now: &str) -> Option<u64> {
        let (written, length) = read(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(length, text.len(), "{text}");
        written.resolve(zone, at(now))
    }

    #[test]
    fn every_form_is_read() {
        let expected = at("2026-11-21T09:30:01Z");
        let fraction = at("2026-11-21T09:30:01.250Z");
        for (text, expected) in [
            ("2026-11-21T09:30:01Z", expected),
            ("2026-11-21T10:30:01+01:00", expected),
            ("2026-11-21 10:30:01.25+0100", fraction),
            ("2026-11-21 10:30:01 +0100", expected),
            ("2026-11-21 10:30:01+01", expected),
            ("2026-11-21 09:30:01.250 UTC", fraction),
            ("2026-11-21 10:30:01,250", fraction),
            ("2026/11/21 10:30:01", expected),
            ("Nov 21 10:30:01", expected),
            ("Nov 21 10:30:01.250", fraction),
            ("Nov 21 2026 10:30:01", expected),
            ("Sat Nov 21 10:30:01.250 2026", fraction),
            ("21/Nov/2026:09:30:01 +0000", expected),
            ("21 Nov 2026 10:30:01.250", fraction),
            ("2026-11-21T09:30:01.2500000009Z", fraction),
        ] {
            let meant = means(text, &berlin(), "2026-11-21T09:31:00Z");
            assert_eq!(meant, Some(expected), "{text}");
        }
        let day = means("Nov  1 00:00:00", &utc(), "2026-11-21T00:00:00Z");
        assert_eq!(day, Some(at("2026-11-01T00:00:00Z")));
    }

    #[test]
    fn a_zone_of_another_name_is_left_to_the_text() {
        let (written, length) = read(b"2026-11-21 10:30:01.123 CET [12] LOG").unwrap();
        assert_eq!((written.offset, length), (None, 23));
    }

    #[test]
    fn what_is_no_time_is_not_read() {
        for text in [
            "",
            "2026-11-21",
            "2026-11-21T09:30",
            "2026-11-21T25:30:01",
            "2026-11-21T09:30:01abc",
            "2026-11/21 09:30:01",
            "Nov 21",
            "Nov21 09:30:01",
            "November 21 09:30:01",
            "21 Nov",
            "12 monkeys",
            "Sat Nov 21 10:30:01",
            "1234567890",
            "Novä",
        ] {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_year_that_is_not_said_is_the_one_that_makes_sense() {
        let cases = [
            (
                "Dec 31 23:59:59",
                "2027-01-01T00:00:05Z",
                "2026-12-31T23:59:59Z",
            ),
            (
                "Jan  1 00:00:01",
                "2026-12-31T23:59:59Z",
                "2027-01-01T00:00:01Z",
            ),
            (
                "Nov 22 09:00:00",
                "2026-11-21T10:00:00Z",
                "2026-11-22T09:00:00Z",
            ),
            (
                "Nov 22 11:00:00",
                "2026-11-21T10:00:00Z",
                "2025-11-22T11:00:00Z",
            ),
            (
                "Feb 29 12:00:00",
                "2028-03-01T00:00:00Z",
                "2028-02-29T12:00:00Z",
            ),
        ];
        for (text, now, expected) in cases {
            assert_eq!(
                means(text, &utc(), now),
                Some(at(expected)),
                "{text} at {now}"
            );
        }
        assert_eq!(
            means("Feb 29 12:00:00", &utc(), "2027-03-01T00:00:00Z"),
            None
        );
        assert_eq!(
            means("Feb 30 12:00:00", &utc(), "2028-03-01T00:00:00Z"),
            None
        );
    }

    #[test]
    fn a_local_time_follows_summer_and_winter() {
        let now = "2026-12-01T00:00:00Z";
        let cases = [
            ("2026-07-01 12:00:00", "2026-07-01T10:00:00Z"),
            ("2026-11-21 12:00:00", "2026-11-21T11:00:00Z"),
            // Skipped: 02:00 to 03:00 on 29 March.
            ("2026-03-29 02:30:00", "2026-03-29T01:30:00Z"),
            // Shown twice, long ago: the second time.
            ("2026-10-25 02:30:00", "2026-10-25T01:30:00Z"),
        ];
        for (text, expected) in cases {
            assert_eq!(means(text, &berlin(), now), Some(at(expected)), "{text}");
        }
        // Shown twice, read as it happens: each time the one that is now.
        for now in ["2026-10-25T00:30:02Z", "2026-10-25T01:30:02Z"] {
            let meant = means("2026-10-25 02:30:01", &berlin(), now);
            assert_eq!(meant, Some(at(now) - SECOND), "{now}");
        }
    }

    #[test]
    fn a_time_far_ahead_is_none() {
        let now = "2026-11-21T10:00:00Z";
        assert!(means("2026-11-22 09:59:59", &utc(), now).is_some());
        assert_eq!(means("2026-11-22 10:00:01", &utc(), now), None);
        // A clock that was never set knows nothing better.
        assert_eq!(
            means("2026-11-21 10:00:00", &utc(), "1970-01-01T00:01:00Z"),
            None
        );
    }

    #[test]
    fn klog_has_its_own_form() {
        let (written, length) = read_klog(b"0102 15:04:05.678901   12345 file.go:12] m").unwrap();
        assert_eq!((written.month, written.day, length), (1, 2, 20));
        assert_eq!(
            read_klog(b"20260102 15:04:05.678901 1").unwrap().0.year,
            Some(2026)
        );
        assert_eq!(read_klog(b"102 15:04:05"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_panic(
            text in any::<Vec<u8>>(),
            like in "([A-Z][a-z]{2} ){0,2}[0-9/T:.,+ Z-]{0,40}",
            now in any::<u64>(),
        ) {
            for text in [&text[..], like.as_bytes()] {
                if let Some((written, length)) = read(text) {
                    prop_assert!(length <= text.len());
                    written.resolve(&berlin(), now);
                }
                read_klog(text);
                clock_length(text);
            }
        }
    }
}
