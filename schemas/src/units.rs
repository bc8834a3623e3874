//! Quantities as people write them, in files, variables, documents and on the command line: sizes
//! (`64MiB`) and spans of time (`15m`).

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
