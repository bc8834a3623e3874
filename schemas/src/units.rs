//! Quantities as people write them, in files, variables, documents and on the command line: sizes
//! (`64MiB`), spans of time (`15m`) and rates (`100/s`).

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// Longest first where one unit ends with another.
const SIZES: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("", 1),
];

const TIMES: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Spans that a rate can be counted in, seconds.
const PER: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3600)];

/// Events in a span of time: `100/s`, `6000/m`, `50/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    /// How many, at least one.
    pub events: u32,
    /// In what time: a second, a minute or an hour.
    pub per: Duration,
}

impl Rate {
    /// The one that allows less.
    pub fn least(self, other: Rate) -> Rate {
        let (own, others) = (
            self.per / self.events.max(1),
            other.per / other.events.max(1),
        );
        if own >= others { self } else { other }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        let parsed = text.split_once('/').and_then(|(events, per)| {
            let events = events.trim().parse().ok().filter(|events| *events > 0)?;
            let (_, seconds) = PER.iter().find(|(unit, _)| *unit == per.trim())?;
            let per = Duration::from_secs(*seconds);
            Some(Rate { events, per })
        });
        parsed.ok_or_else(|| {
            "expected a rate of at least one event, as in \"100/s\", \"6000/m\" or \"50/h\""
                .to_owned()
        })
    }
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Rate, String> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> String {
        rate.to_string()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.per.as_secs();
        let unit = PER.iter().find(|(_, per)| *per == seconds);
        write!(f, "{}/{}", self.events, unit.map_or("s", |(unit, _)| unit))
    }
}

/// A size in bytes: `67108864`, `64MiB`, `64MB`. The error says what was expected.
pub fn bytes(text: &str) -> Result<u64, String> {
    quantity(text, &SIZES).ok_or_else(|| "expected a size, as in \"64MiB\" or 67108864".to_owned())
}

/// A span of time in milliseconds: `200ms`, `5s`, `2m`, `1h`, `7d`. The error says what was expected.
pub fn millis(text: &str) -> Result<u64, String> {
    quantity(text, &TIMES)
        .ok_or_else(|| "expected a time, as in \"200ms\", \"5s\" or \"2m\"".to_owned())
}

/// A size with the largest unit of which it is a whole number: `64MiB`.
pub fn write_bytes(bytes: u64) -> String {
    let mut units = SIZES[..3].iter().rev();
    let whole = units.find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    match whole {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => bytes.to_string(),
    }
}

/// A number and one of `units`, as a multiple of what the units are counted in.
fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    units.iter().find_map(|(unit, factor)| {
        let number: u64 = text.trim().strip_suffix(unit)?.trim().parse().ok()?;
        number.checked_mul(*factor)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_name_a_number_and_a_span() {
        let minute = Rate {
            events: 6000,
            per: Duration::from_secs(60),
        };
        assert_eq!("6000/m".parse(), Ok(minute));
        for text in ["100/s", "6000/m", "50/h"] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.to_string(), text);
        }
        for wrong in ["0/s", "100", "100/day", "-1/s", "/s"] {
            assert!(
                wrong.parse::<Rate>().unwrap_err().contains("100/s"),
                "{wrong}"
            );
        }
        let rate = |text: &str| text.parse::<Rate>().unwrap();
        for (one, other) in [("50/h", "1/m"), ("1/s", "100/s"), ("59/m", "1/s")] {
            assert_eq!(rate(one).least(rate(other)), rate(one));
            assert_eq!(rate(other).least(rate(one)), rate(one));
        }
    }

    #[test]
    fn sizes_and_times_are_read_with_their_units() {
        for (text, size) in [
            ("1024", 1024),
            ("64MiB", 64 << 20),
            ("3 kB", 3000),
            ("0", 0),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for (text, time) in [("200ms", 200), ("15m", 900_000), ("7d", 604_800_000)] {
            assert_eq!(millis(text), Ok(time), "{text}");
        }
        for text in ["", "x", "-1s", "1.5h", "5", "99999999999999999999s"] {
            assert!(millis(text).is_err(), "{text}");
        }
        assert!(bytes("1KB").is_err() && bytes("99999999999GiB").is_err());
        for size in [0, 1, 1024, 1025, 64 << 20, 1 << 30] {
            assert_eq!(bytes(&write_bytes(size)), Ok(size));
        }
    }
}
