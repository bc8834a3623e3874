//! Severities (OpenTelemetry numbers 1–24), the four AWS IoT levels over them, and the one table
//! that maps every other vocabulary in and out.

use std::{fmt, str::FromStr};

use serde::de::{Deserialize, Deserializer, Error as _};

/// An OpenTelemetry severity number, 1–24.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Severity(u8);

/// One severity in every numbered vocabulary. A vocabulary without a word for it says `None`; on
/// the way out such a severity takes the nearest less severe row that has one.
struct Row {
    /// OpenTelemetry short name.
    name: &'static str,
    /// RFC 5424 table 2, also journald's PRIORITY; as OpenTelemetry's log data model maps it.
    syslog: Option<u8>,
    /// Python's `logging` levels; 5 is the customary TRACE.
    python: Option<u32>,
    /// Android's logcat letters.
    logcat: Option<char>,
}

const fn row(
    name: &'static str,
    syslog: Option<u8>,
    python: Option<u32>,
    logcat: Option<char>,
) -> Row {
    Row {
        name,
        syslog,
        python,
        logcat,
    }
}

/// The table; the severity of a row is its index + 1.
const TABLE: [Row; 24] = [
    row("TRACE", None, Some(5), Some('V')),
    row("TRACE2", None, None, None),
    row("TRACE3", None, None, None),
    row("TRACE4", None, None, None),
    row("DEBUG", Some(7), Some(10), Some('D')),
    row("DEBUG2", None, None, None),
    row("DEBUG3", None, None, None),
    row("DEBUG4", None, None, None),
    row("INFO", Some(6), Some(20), Some('I')),
    row("INFO2", Some(5), None, None),
    row("INFO3", None, None, None),
    row("INFO4", None, None, None),
    row("WARN", Some(4), Some(30), Some('W')),
    row("WARN2", None, None, None),
    row("WARN3", None, None, None),
    row("WARN4", None, None, None),
    row("ERROR", Some(3), Some(40), Some('E')),
    row("ERROR2", Some(2), None, None),
    row("ERROR3", Some(1), None, None),
    row("ERROR4", None, None, None),
    row("FATAL", Some(0), Some(50), Some('F')),
    row("FATAL2", None, None, None),
    row("FATAL3", None, None, None),
    row("FATAL4", None, None, None),
];

/// The words of tracing, log4j, slf4j, .NET, syslog, Go, Python, java.util.logging, npm, logcat and
/// glog that are not OpenTelemetry's own; the most frequent first, because the search is linear.
const WORDS: [(&str, Severity); 50] = [
    ("info", Severity::INFO),
    ("error", Severity::ERROR),
    ("warn", Severity::WARN),
    ("debug", Severity::DEBUG),
    ("warning", Severity::WARN),
    ("trace", Severity::TRACE),
    ("fatal", Severity::FATAL),
    ("notice", Severity(10)),
    ("err", Severity::ERROR),
    ("critical", Severity(18)),
    ("crit", Severity(18)),
    ("alert", Severity(19)),
    ("emerg", Severity::FATAL),
    ("emergency", Severity::FATAL),
    ("panic", Severity::FATAL),
    ("dpanic", Severity::FATAL),
    ("information", Severity::INFO),
    ("informational", Severity::INFO),
    ("verbose", Severity::TRACE),
    ("finest", Severity::TRACE),
    ("finer", Severity::TRACE),
    ("silly", Severity::TRACE),
    ("fine", Severity::DEBUG),
    ("config", Severity::DEBUG),
    ("dbug", Severity::DEBUG),
    ("dbg", Severity::DEBUG),
    ("trce", Severity::TRACE),
    ("trc", Severity::TRACE),
    ("inf", Severity::INFO),
    ("wrn", Severity::WARN),
    ("eror", Severity::ERROR),
    ("fail", Severity::ERROR),
    ("failure", Severity::ERROR),
    ("severe", Severity::ERROR),
    ("ftl", Severity::FATAL),
    ("assert", Severity::FATAL),
    ("http", Severity::DEBUG),
    ("log", Severity::INFO),
    ("default", Severity::INFO),
    ("success", Severity::INFO),
    ("v", Severity::TRACE),
    ("t", Severity::TRACE),
    ("d", Severity::DEBUG),
    ("i", Severity::INFO),
    ("n", Severity(10)),
    ("w", Severity::WARN),
    ("e", Severity::ERROR),
    ("c", Severity(18)),
    ("f", Severity::FATAL),
    ("a", Severity::FATAL),
];

impl Severity {
    /// The finest detail; tracing's TRACE.
    pub const TRACE: Severity = Severity(1);
    /// Detail for whoever looks for a fault.
    pub const DEBUG: Severity = Severity(5);
    /// Normal operation; what an unknown severity counts as.
    pub const INFO: Severity = Severity(9);
    /// Unexpected, but handled.
    pub const WARN: Severity = Severity(13);
    /// Something failed.
    pub const ERROR: Severity = Severity(17);
    /// The program or the device cannot go on.
    pub const FATAL: Severity = Severity(21);

    /// `None` outside 1–24.
    #[inline]
    pub const fn new(number: u8) -> Option<Severity> {
        if number >= 1 && number <= 24 {
            Some(Severity(number))
        } else {
            None
        }
    }

    /// The OpenTelemetry number, 1–24.
    #[inline]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// ERROR, WARN, INFO or DEBUG; never DISABLED.
    #[inline]
    pub const fn level(self) -> Level {
        match self.0 {
            17.. => Level::Error,
            13.. => Level::Warn,
            9.. => Level::Info,
            _ => Level::Debug,
        }
    }

    /// From a syslog severity or journald PRIORITY, 0–7 (RFC 5424 table 2); above 7 counts as 7.
    pub fn from_syslog(priority: u8) -> Severity {
        let priority = Some(priority.min(7));
        find(|row| row.syslog == priority).unwrap_or(Severity::INFO)
    }

    /// The syslog severity, 0–7.
    pub fn to_syslog(self) -> u8 {
        self.outward(|row| row.syslog).unwrap_or(7)
    }

    /// From a level of Python's `logging`: the customary level at or below it (35 is WARNING). 0,
    /// NOTSET, says nothing and counts as INFO; 1–9 is TRACE.
    pub fn from_python(level: u32) -> Severity {
        match level {
            0 => Severity::INFO,
            1..=9 => Severity::TRACE,
            _ => TABLE
                .iter()
                .rposition(|row| row.python.is_some_and(|python| python <= level))
                .map_or(Severity::INFO, at),
        }
    }

    /// The level for Python's `logging`: 5, 10, 20, 30, 40 or 50.
    pub fn to_python(self) -> u32 {
        self.outward(|row| row.python).unwrap_or(5)
    }

    /// Android logcat letters V D I W E F (and A, assert), upper case.
    pub fn from_logcat(letter: char) -> Option<Severity> {
        let letter = if letter == 'A' { 'F' } else { letter };
        find(|row| row.logcat == Some(letter))
    }

    /// The logcat letter: V, D, I, W, E or F.
    pub fn to_logcat(self) -> char {
        self.outward(|row| row.logcat).unwrap_or('V')
    }

    /// The level of the `tracing` and `log` crates: TRACE, DEBUG, INFO, WARN or ERROR.
    pub fn to_tracing(self) -> &'static str {
        match self.0 {
            17.. => "ERROR",
            13.. => "WARN",
            9.. => "INFO",
            5.. => "DEBUG",
            _ => "TRACE",
        }
    }

    /// Level words of any common vocabulary, any case: "warn", "WARNING", "crit", "notice",
    /// "trace", "I", OpenTelemetry's "DEBUG2", … `None`: unknown, which callers take as INFO.
    pub fn from_word(word: &str) -> Option<Severity> {
        let word = word.trim_ascii();
        let known = WORDS
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(word));
        known
            .map(|(_, severity)| *severity)
            .or_else(|| find(|row| row.name.eq_ignore_ascii_case(word)))
    }

    /// OpenTelemetry short name: TRACE, DEBUG2, INFO, …
    pub fn name(self) -> &'static str {
        TABLE[usize::from(self.0) - 1].name
    }

    fn outward<T>(self, column: impl Fn(&Row) -> Option<T>) -> Option<T> {
        TABLE[..usize::from(self.0)].iter().rev().find_map(column)
    }
}

fn at(index: usize) -> Severity {
    Severity(index as u8 + 1)
}

fn find(row: impl Fn(&Row) -> bool) -> Option<Severity> {
    TABLE.iter().position(row).map(at)
}

impl Default for Severity {
    /// INFO: what unknown counts as.
    fn default() -> Severity {
        Severity::INFO
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Severity {
    type Err = UnknownWord;

    /// As [`Severity::from_word`].
    fn from_str(word: &str) -> Result<Severity, UnknownWord> {
        Severity::from_word(word)
            .ok_or_else(|| UnknownWord::new(word, "a word such as DEBUG, INFO, WARN or ERROR"))
    }
}

/// How much passes: AWS IoT's log levels. Ordered by verbosity: DISABLED < ERROR < WARN < INFO <
/// DEBUG. In JSON the word in capitals; any case is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// Nothing passes.
    Disabled,
    /// Severities 17–24.
    Error,
    /// Severities 13–24.
    Warn,
    /// Severities 9–24.
    Info,
    /// Everything.
    Debug,
}

impl Level {
    /// Every level, from silent to verbose.
    pub const ALL: [Level; 5] = [
        Level::Disabled,
        Level::Error,
        Level::Warn,
        Level::Info,
        Level::Debug,
    ];

    /// Whether an event of this severity passes.
    #[inline]
    pub fn passes(self, severity: Severity) -> bool {
        severity.level() <= self
    }

    /// AWS's word: DISABLED, ERROR, WARN, INFO or DEBUG.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Disabled => "DISABLED",
            Level::Error => "ERROR",
            Level::Warn => "WARN",
            Level::Info => "INFO",
            Level::Debug => "DEBUG",
        }
    }

    /// The word as in live topics: error, warn, info, debug (and disabled, which no topic has).
    pub const fn topic_name(self) -> &'static str {
        match self {
            Level::Disabled => "disabled",
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Level {
    type Err = UnknownWord;

    /// AWS's five words, any case.
    fn from_str(word: &str) -> Result<Level, UnknownWord> {
        let known = Level::ALL
            .into_iter()
            .find(|level| level.name().eq_ignore_ascii_case(word));
        known.ok_or_else(|| UnknownWord::new(word, "DISABLED, ERROR, WARN, INFO or DEBUG"))
    }
}

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Level, D::Error> {
        let word = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        word.parse().map_err(D::Error::custom)
    }
}

/// A word that names no level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown level {word:?}, expected {expected}")]
pub struct UnknownWord {
    word: String,
    expected: &'static str,
}

impl UnknownWord {
    fn new(word: &str, expected: &'static str) -> UnknownWord {
        // The word may come from anyone: an error message needs no more than its beginning.
        UnknownWord {
            word: word.chars().take(40).collect(),
            expected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = Severity> {
        (1..=24).filter_map(Severity::new)
    }

    #[test]
    fn only_1_to_24_are_severities() {
        assert_eq!(Severity::new(0), None);
        assert_eq!(Severity::new(25), None);
        assert_eq!(all().count(), 24);
    }

    #[test]
    fn levels_cut_where_the_design_says() {
        for severity in all() {
            let expected = match severity.number() {
                1..=8 => Level::Debug,
                9..=12 => Level::Info,
                13..=16 => Level::Warn,
                _ => Level::Error,
            };
            assert_eq!(severity.level(), expected);
            assert!(Level::Debug.passes(severity));
            assert!(!Level::Disabled.passes(severity));
            assert_eq!(Level::Warn.passes(severity), severity.number() >= 13);
        }
    }

    #[test]
    fn syslog_priorities_round_trip() {
        let expected = [21, 19, 18, 17, 13, 10, 9, 5];
        for (priority, number) in (0u8..).zip(expected) {
            assert_eq!(Severity::from_syslog(priority).number(), number);
            assert_eq!(Severity::from_syslog(priority).to_syslog(), priority);
        }
        assert_eq!(Severity::from_syslog(200), Severity::DEBUG);
        assert_eq!(Severity::TRACE.to_syslog(), 7);
        assert_eq!(Severity(24).to_syslog(), 0);
    }

    #[test]
    fn python_levels_round_down_to_the_customary_ones() {
        let cases = [
            (0, 9),
            (5, 1),
            (9, 1),
            (10, 5),
            (19, 5),
            (20, 9),
            (25, 9),
            (30, 13),
            (40, 17),
        ];
        for (level, number) in cases.into_iter().chain([(50, 21), (u32::MAX, 21)]) {
            assert_eq!(Severity::from_python(level).number(), number, "{level}");
        }
        for level in [10, 20, 30, 40, 50] {
            assert_eq!(Severity::from_python(level).to_python(), level);
        }
    }

    #[test]
    fn logcat_letters_round_trip() {
        for letter in ['V', 'D', 'I', 'W', 'E', 'F'] {
            assert_eq!(
                Severity::from_logcat(letter).map(Severity::to_logcat),
                Some(letter)
            );
        }
        assert_eq!(Severity::from_logcat('x'), None);
    }

    #[test]
    fn names_and_words_are_read_in_any_case() {
        for severity in all() {
            assert_eq!(Severity::from_word(severity.name()), Some(severity));
            assert_eq!(
                Severity::from_word(&severity.name().to_lowercase()),
                Some(severity)
            );
            assert_eq!(
                Severity::from_word(severity.to_tracing()).map(Severity::level),
                Some(severity.level())
            );
        }
        let cases = [
            ("WARNING", 13),
            ("Crit", 18),
            ("notice", 10),
            ("I", 9),
            ("panic", 21),
            (" err ", 17),
        ];
        for (word, number) in cases {
            assert_eq!(
                Severity::from_word(word).map(Severity::number),
                Some(number),
                "{word}"
            );
        }
        assert_eq!(Severity::from_word("loud"), None);
        assert_eq!(Severity::from_word(""), None);
    }

    #[test]
    fn no_word_is_listed_twice_or_unreachable() {
        for (index, (word, _)) in WORDS.iter().enumerate() {
            assert!(
                !WORDS[..index].iter().any(|(other, _)| other == word),
                "{word} twice"
            );
            assert_eq!(word.to_lowercase(), *word);
        }
    }

    #[test]
    fn awss_words_are_read_in_any_case_and_written_in_capitals() {
        for level in Level::ALL {
            assert_eq!(level.name().parse(), Ok(level));
            assert_eq!(level.topic_name().parse(), Ok(level));
            let json = serde_json::to_string(&level).unwrap();
            assert_eq!(json, format!("\"{level}\""));
            assert_eq!(serde_json::from_str::<Level>(&json).unwrap(), level);
        }
        let error = serde_json::from_str::<Level>("\"LOUD\"")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("LOUD") && error.contains("DISABLED, ERROR"),
            "{error}"
        );
    }

    #[test]
    fn levels_are_ordered_by_verbosity() {
        assert!(Level::ALL.is_sorted());
    }
}
