//! RFC 3339 by arithmetic: days from civil dates and back in the proleptic Gregorian calendar, with
//! eras of 400 years that begin on 1 March, so that the leap day is the last of its year.

use crate::text;

/// One second in nanoseconds.
pub(crate) const SECOND: u64 = 1_000_000_000;
const DAY_S: u64 = 86_400;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: u64 = 719_468;
const ERA_DAYS: u64 = 146_097;

/// Appends `2026-01-02T03:04:05.123456789Z`. Every `u64` has a year of four digits (1970–2554).
pub fn write_time(ns: u64, out: &mut Vec<u8>) {
    let seconds = ns / SECOND;
    let (year, month, day) = civil(seconds / DAY_S);
    let (second, fraction) = (seconds % DAY_S, ns % SECOND);
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    let mut put = |at: usize, n: u64| text[at..at + 2].copy_from_slice(&text::pair(n));
    put(0, year / 100);
    put(2, year);
    put(5, month);
    put(8, day);
    put(11, second / 3600);
    put(14, second / 60 % 60);
    put(17, second % 60);
    put(20, fraction / 10_000_000);
    put(22, fraction / 100_000);
    put(24, fraction / 1000);
    put(26, fraction / 10);
    text[28] = b'0' + (fraction % 10) as u8;
    out.extend_from_slice(&text);
}

/// Year, month and day of a day since 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH_DAYS;
    let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    // 1,460 days: four years without their leap day; 36,524 and 146,096: the exceptions.
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on have 153 days in five.
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Days since 1970-01-01; `None` before.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 {
        year.checked_sub(1)?
    } else {
        year
    };
    let (era, year_of_era) = (year / 400, year % 400);
    let from_march = (month + 9) % 12;
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * ERA_DAYS + day_of_era).checked_sub(EPOCH_DAYS)
}

/// RFC 3339 with any offset and 0–9 decimals to ns since the epoch. `None` for other texts and for
/// times outside 1970–2554. A leap second counts as the second after it.
pub fn parse_time(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let (date, rest) = bytes.split_at_checked(19)?;
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, byte)| date[at] != byte)
        || !matches!(date[10], b'T' | b't' | b' ')
    {
        return None;
    }
    let year = digits(&date[0..4])?;
    let (month, day) = (digits(&date[5..7])?, digits(&date[8..10])?);
    let (hour, minute, second) = (
        digits(&date[11..13])?,
        digits(&date[14..16])?,
        digits(&date[17..19])?,
    );
    if !(1..=12).contains(&month) || day < 1 || day > month_days(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, rest) = fraction(rest)?;
    let offset = offset_seconds(rest)?;
    // Signed: an offset may lead across the epoch in both directions.
    let day_seconds = hour * 3600 + minute * 60 + second;
    let before_epoch = year == 1969 && month == 12 && day == 31;
    let days = if before_epoch {
        -1
    } else {
        i64::try_from(days(year, month, day)?).ok()?
    };
    let seconds = days * DAY_S as i64 + day_seconds as i64 - offset;
    u64::try_from(seconds)
        .ok()?
        .checked_mul(SECOND)?
        .checked_add(fraction)
}

fn month_days(year: u64, month: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn digits(bytes: &[u8]) -> Option<u64> {
    let mut n = 0;
    for &byte in bytes {
        if !byte.is_ascii_digit() {
            return None;
        }
        n = n * 10 + u64::from(byte - b'0');
    }
    Some(n)
}

/// `.123` to nanoseconds, and what follows it.
fn fraction(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let Some(rest) = bytes.strip_prefix(b".") else {
        return Some((0, bytes));
    };
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&length) {
        return None;
    }
    let (fraction, rest) = rest.split_at(length);
    Some((digits(fraction)? * 10u64.pow(9 - length as u32), rest))
}

/// `Z` or `±HH:MM` to seconds east of UTC.
fn offset_seconds(bytes: &[u8]) -> Option<i64> {
    if matches!(bytes, b"Z" | b"z") {
        return Some(0);
    }
    let &[sign @ (b'+' | b'-'), ref hours_minutes @ ..] = bytes else {
        return None;
    };
    if hours_minutes.len() != 5 || hours_minutes[2] != b':' {
        return None;
    }
    let (hours, minutes) = (digits(&hours_minutes[..2])?, digits(&hours_minutes[3..])?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = (hours * 3600 + minutes * 60) as i64;
    Some(if sign == b'-' { -seconds } else { seconds })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(ns: u64) -> String {
        let mut out = Vec::new();
        write_time(ns, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_times_are_written_and_read() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400 * SECOND, "2000-02-29T00:00:00.000000000Z"),
            (1_767_323_045_123_456_789, "2026-01-02T03:04:05.123456789Z"),
            (
                4_107_542_399 * SECOND + 999_999_999,
                "2100-02-28T23:59:59.999999999Z",
            ),
            (4_107_542_400 * SECOND, "2100-03-01T00:00:00.000000000Z"),
            (u64::MAX, "2554-07-21T23:34:33.709551615Z"),
        ];
        for (ns, text) in cases {
            assert_eq!(written(ns), text);
            assert_eq!(parse_time(text), Some(ns), "{text}");
        }
    }

    #[test]
    fn every_rfc_3339_spelling_is_read() {
        let expected = Some(1_767_323_045 * SECOND);
        for text in [
            "2026-01-02T03:04:05Z",
            "2026-01-02t03:04:05z",
            "2026-01-02 03:04:05.0Z",
            "2026-01-02T05:34:05+02:30",
            "2026-01-01T22:04:05-05:00",
        ] {
            assert_eq!(parse_time(text), expected, "{text}");
        }
        assert_eq!(
            parse_time("2026-01-02T03:04:05.25Z"),
            expected.map(|ns| ns + 250_000_000)
        );
        assert_eq!(parse_time("1969-12-31T23:00:00-01:00"), Some(0));
        assert_eq!(
            parse_time("2016-12-31T23:59:60Z"),
            parse_time("2017-01-01T00:00:00Z")
        );
    }

    #[test]
    fn other_texts_are_no_times() {
        for text in [
            "",
            "yesterday",
            "2026-01-02",
            "2026-01-02T03:04:05",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-02T24:00:00Z",
            "2026-01-02T03:04:05.Z",
            "2026-01-02T03:04:05.1234567890Z",
            "2026-01-02T03:04:05+0200",
            "2026-01-02T03:04:05Zx",
            "1970-01-01T00:00:00+00:01",
            "9999-01-01T00:00:00Z",
            "2026-01-02T03:04:0äZ",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn times_round_trip(ns in any::<u64>()) {
            prop_assert_eq!(parse_time(&written(ns)), Some(ns));
        }

        #[test]
        fn days_follow_each_other(day in 0u64..213_000) {
            let (year, month, day_of_month) = civil(day);
            prop_assert_eq!(days(year, month, day_of_month), Some(day));
            let next = civil(day + 1);
            let follows = next == (year, month, day_of_month + 1)
                || (day_of_month == month_days(year, month) && next == (year, month + 1, 1))
                || ((month, day_of_month) == (12, 31) && next == (year + 1, 1, 1));
            prop_assert!(follows, "{:?} after {:?}", next, (year, month, day_of_month));
        }

        #[test]
        fn any_text_is_refused_without_panic(text in any::<String>(), like in "[0-9:T.Z+-]{18,36}") {
            parse_time(&text);
            parse_time(&like);
        }
    }
}
