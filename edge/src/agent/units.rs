//! Quantities as people write them: sizes (`64MiB`), times (`200ms`), rates (`100/s`). On the command
//! line, in the environment and in files alike.

use std::{fmt, marker::PhantomData, str::FromStr, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};
use thinglog_schemas::units;
pub use thinglog_schemas::units::Rate;

/// Bytes: `67108864`, `64MiB`, `64MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A span of time: `200ms`, `5s`, `2m`, `1h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        units::bytes(text).map(Size)
    }
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Time, String> {
        units::millis(text).map(|millis| Time(Duration::from_millis(millis)))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&units::write_bytes(self.0))
    }
}

/// Text by `FromStr`; whole numbers only where they need no unit.
struct Quantity<T> {
    takes_numbers: bool,
    made: PhantomData<T>,
}

impl<T: FromStr<Err = String>> Visitor<'_> for Quantity<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a quantity with its unit, in quotes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        let text = number.to_string();
        let parsed: Result<T, String> = text.parse();
        match parsed {
            Err(reason) => Err(E::custom(reason)),
            Ok(value) if self.takes_numbers => Ok(value),
            Ok(_) => Err(E::custom("a unit is missing")),
        }
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

macro_rules! deserialize {
    ($type:ty, $takes_numbers:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                deserializer.deserialize_any(Quantity {
                    takes_numbers: $takes_numbers,
                    made: PhantomData,
                })
            }
        }
    };
}

deserialize!(Size, true);
deserialize!(Time, false);

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: for<'de> Deserialize<'de>>(json: &str) -> Result<T, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn sizes_are_numbers_or_numbers_with_a_unit() {
        for (text, bytes) in [("64MiB", 64 << 20), ("1000", 1000), ("2 kB", 2000)] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        assert_eq!(read("1024"), Ok(Size(1024)));
        assert_eq!(read(r#""4KiB""#), Ok(Size(4096)));
        assert!("lots".parse::<Size>().unwrap_err().contains("64MiB"));
        assert!("99999999999GiB".parse::<Size>().is_err());
        assert!(read::<Size>("-1").unwrap_err().contains("64MiB"));
    }

    #[test]
    fn a_size_is_shown_in_its_largest_whole_unit() {
        for text in ["64MiB", "1KiB", "1500", "3GiB", "0"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn times_need_a_unit() {
        for (text, millis) in [
            ("200ms", 200),
            ("5s", 5000),
            ("2m", 120_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(
                text.parse(),
                Ok(Time(Duration::from_millis(millis))),
                "{text}"
            );
        }
        assert!("soon".parse::<Time>().unwrap_err().contains("5s"));
        assert!(read::<Time>("5").unwrap_err().contains("expected a time"));
    }
}
