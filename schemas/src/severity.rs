//! Severities (OpenTelemetry numbers 1–24), the four AWS IoT levels over them, and the one table
//! that maps every other vocabulary in and out.

/// An OpenTelemetry severity number, 1–24.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Severity(u8);

impl Severity {
    pub const TRACE: Severity = Severity(1);
    pub const DEBUG: Severity = Severity(5);
    pub const INFO: Severity = Severity(9);
    pub const WARN: Severity = Severity(13);
    pub const ERROR: Severity = Severity(17);
    pub const FATAL: Severity = Severity(21);
    /// `None` outside 1–24.
    pub fn new(number: u8) -> Option<Severity> { todo!() }
    pub fn number(self) -> u8 { self.0 }
    /// ERROR, WARN, INFO or DEBUG; never DISABLED.
    pub fn level(self) -> Level { todo!() }
    /// syslog / journald PRIORITY 0–7 (RFC 5424 table 2).
    pub fn from_syslog(priority: u8) -> Severity { todo!() }
    pub fn to_syslog(self) -> u8 { todo!() }
    /// Python logging levels (10, 20, 30, 40, 50 and what lies between).
    pub fn from_python(level: u32) -> Severity { todo!() }
    /// Android logcat letters V D I W E F.
    pub fn from_logcat(letter: char) -> Option<Severity> { todo!() }
    /// Level words of any common vocabulary, any case: "warn", "WARNING", "crit", "notice", "trace", "I", ...
    pub fn from_word(word: &str) -> Option<Severity> { todo!() }
    /// OpenTelemetry short name: TRACE, DEBUG2, INFO, ...
    pub fn name(self) -> &'static str { todo!() }
}

/// How much passes. Ordered by verbosity: DISABLED < ERROR < WARN < INFO < DEBUG.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level { Disabled, Error, Warn, Info, Debug }

impl Level {
    /// Whether an event of this severity passes.
    pub fn passes(self, severity: Severity) -> bool { todo!() }
    /// "ERROR", ...
    pub fn name(self) -> &'static str { todo!() }
    /// "error", ... as in live topics.
    pub fn topic_name(self) -> &'static str { todo!() }
}
// + Display, FromStr (case-insensitive) for both
