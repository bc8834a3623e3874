//! When and in what pieces a device sends, and what it may hold: the parts of a document that are
//! settings of the device rather than levels. Several documents together make a device's settings,
//! field by field.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use crate::{batch, units::Rate};

const DAY_S: u32 = 86_400;
/// Most entries of `upload.at`.
pub const MAX_TIMES: usize = 96;

/// When a device sends what it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UploadMode {
    /// As soon as a batch is full or old enough.
    #[default]
    Realtime,
    /// All that waits, every `interval_s`; nothing between.
    Interval,
    /// All that waits, at the times of day in `at`; nothing between.
    Schedule,
    /// As `realtime`; and what is below its level is kept in a ring in memory, which is sent when an
    /// ERROR happens, with everything of the `after_s` that follow it.
    OnError,
    /// All that waits, when somebody asks for it.
    Manual,
}

impl UploadMode {
    /// Every mode.
    pub const ALL: [UploadMode; 5] = [
        UploadMode::Realtime,
        UploadMode::Interval,
        UploadMode::Schedule,
        UploadMode::OnError,
        UploadMode::Manual,
    ];

    /// As in documents: `realtime`, `interval`, `schedule`, `on-error`, `manual`.
    pub const fn name(self) -> &'static str {
        match self {
            UploadMode::Realtime => "realtime",
            UploadMode::Interval => "interval",
            UploadMode::Schedule => "schedule",
            UploadMode::OnError => "on-error",
            UploadMode::Manual => "manual",
        }
    }
}

impl FromStr for UploadMode {
    type Err = String;

    fn from_str(text: &str) -> Result<UploadMode, String> {
        let named = |mode: &UploadMode| mode.name() == text;
        UploadMode::ALL.into_iter().find(named).ok_or_else(|| {
            format!(
                "unknown mode {text:?}, expected realtime, interval, schedule, on-error or manual"
            )
        })
    }
}

/// A time of day in UTC, to the second: `02:00` or `02:00:30`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfDay(u32);

impl TimeOfDay {
    /// Seconds since midnight, below 86,400.
    pub const fn seconds(self) -> u32 {
        self.0
    }
}

impl FromStr for TimeOfDay {
    type Err = String;

    fn from_str(text: &str) -> Result<TimeOfDay, String> {
        let part = |part: &str, most: u32| {
            let digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            let number: u32 = part.parse().ok().filter(|_| digits)?;
            (number <= most).then_some(number)
        };
        let mut parts = text.split(':');
        let hours = parts.next().and_then(|text| part(text, 23));
        let minutes = parts.next().and_then(|text| part(text, 59));
        let seconds = parts.next().map_or(Some(0), |text| part(text, 59));
        match (hours, minutes, seconds, parts.next()) {
            (Some(hours), Some(minutes), Some(seconds), None) => {
                Ok(TimeOfDay(hours * 3600 + minutes * 60 + seconds))
            }
            _ => {
                let text: String = text.chars().take(40).collect();
                Err(format!("{text:?} is no time of day (UTC) such as 02:00"))
            }
        }
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = String;

    fn try_from(text: String) -> Result<TimeOfDay, String> {
        text.parse()
    }
}

impl From<TimeOfDay> for String {
    fn from(time: TimeOfDay) -> String {
        time.to_string()
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hours, minutes, seconds) = (self.0 / 3600, self.0 / 60 % 60, self.0 % 60);
        write!(f, "{hours:02}:{minutes:02}")?;
        match seconds {
            0 => Ok(()),
            seconds => write!(f, ":{seconds:02}"),
        }
    }
}

/// When and in what pieces a device sends. What is absent is the device's own default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upload {
    /// When it sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<UploadMode>,
    /// Mode `interval`: seconds from one upload to the next, 1–2,592,000 (30 days).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_s: Option<u32>,
    /// Mode `schedule`: times of day in UTC, 1–96. A device that does not know the time uploads once
    /// a day, counted from its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Vec<TimeOfDay>>,
    /// Mode `schedule`: each device is up to so many seconds late, always as many, so that a fleet
    /// does not come all at once; at most 86,400.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread_s: Option<u32>,
    /// Modes `interval`, `schedule` and `manual`: an ERROR is not kept waiting, and with it goes all
    /// that waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors_at_once: Option<bool>,
    /// Mode `on-error`: bytes of memory for the ring, 1–67,108,864; part of the device's own cap for
    /// memory, and never more than a quarter of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring_bytes: Option<u32>,
    /// Mode `on-error`: for so many seconds after an ERROR everything is sent; at most 3,600.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_s: Option<u32>,
    /// An event waits at most this long for others to join its batch, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flush_ms: Option<u64>,
    /// Events at which a batch is sent, 1–65,536.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_events: Option<u32>,
    /// Bytes (before compression) at which a batch is sent, 1–1,048,576.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_bytes: Option<u32>,
}

impl Upload {
    /// Takes from `other` what is absent here.
    pub fn fill_from(&mut self, other: &Upload) {
        fn fill<T: Clone>(own: &mut Option<T>, other: &Option<T>) {
            if own.is_none() {
                own.clone_from(other);
            }
        }
        fill(&mut self.mode, &other.mode);
        fill(&mut self.interval_s, &other.interval_s);
        fill(&mut self.at, &other.at);
        fill(&mut self.spread_s, &other.spread_s);
        fill(&mut self.errors_at_once, &other.errors_at_once);
        fill(&mut self.ring_bytes, &other.ring_bytes);
        fill(&mut self.after_s, &other.after_s);
        fill(&mut self.flush_ms, &other.flush_ms);
        fill(&mut self.batch_events, &other.batch_events);
        fill(&mut self.batch_bytes, &other.batch_bytes);
    }

    /// Whether every value is in its range; else what is wrong and what would be right, by field.
    pub fn check(&self) -> Result<(), String> {
        const DAY_MS: u64 = 86_400_000;
        let (events, payload) = (batch::MAX_EVENTS as u64, batch::MAX_PAYLOAD as u64);
        within("interval_s", self.interval_s, 1, 30 * u64::from(DAY_S))?;
        within("spread_s", self.spread_s, 0, DAY_S.into())?;
        within("ring_bytes", self.ring_bytes, 1, 64 << 20)?;
        within("after_s", self.after_s, 0, 3600)?;
        within("flush_ms", self.flush_ms, 1, DAY_MS)?;
        within("batch_events", self.batch_events, 1, events)?;
        within("batch_bytes", self.batch_bytes, 1, payload)?;
        match self.at.as_ref().map(Vec::len) {
            Some(count) if count == 0 || count > MAX_TIMES => Err(format!(
                "`upload.at` has {count} times of day, it must have 1 to {MAX_TIMES}"
            )),
            _ => Ok(()),
        }
    }
}

fn within<T: Into<u64>>(
    field: &str,
    value: Option<T>,
    least: u64,
    most: u64,
) -> Result<(), String> {
    match value.map(Into::into) {
        Some(value) if value < least || value > most => Err(format!(
            "`upload.{field}` is {value}, it must be {least} to {most}"
        )),
        _ => Ok(()),
    }
}

/// What a device may hold. What is absent is the device's own default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Cap of the spool, bytes; never more than the device's own configuration allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool_bytes: Option<u64>,
    /// Whether events are written to flash, on devices whose own configuration names a place for
    /// them. What is there when this is switched off is still sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent: Option<bool>,
    /// Most events of each source, `100/s`, and ten seconds' worth at once; a source that is itself
    /// configured for less stays at that. What can be read later is, anything else is dropped and
    /// declared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

impl Limits {
    /// Takes from `other` what is absent here.
    pub fn fill_from(&mut self, other: &Limits) {
        self.spool_bytes = self.spool_bytes.or(other.spool_bytes);
        self.persistent = self.persistent.or(other.persistent);
        self.rate = self.rate.or(other.rate);
    }

    /// Whether every value is in its range; else what is wrong and what would be right, by field.
    pub fn check(&self) -> Result<(), String> {
        match self.spool_bytes {
            Some(0) => Err("`limits.spool_bytes` must be at least 1".into()),
            _ => Ok(()),
        }
    }
}

/// Settings as a device reads them: a field that this version does not know, or a value that it
/// cannot read, is as absent, so that an older device goes on with all the rest.
pub(super) fn lenient<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    let object = serde_json::Map::deserialize(deserializer)?;
    let readable = |key: &String, value: &serde_json::Value| {
        let alone = serde_json::Map::from_iter([(key.clone(), value.clone())]);
        serde_json::from_value::<T>(alone.into()).is_ok()
    };
    let known = object
        .into_iter()
        .filter(|(key, value)| readable(key, value));
    let known: serde_json::Map<_, _> = known.collect();
    Ok(serde_json::from_value(known.into()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_day_round_trip_and_others_are_refused() {
        for (text, seconds) in [("00:00", 0), ("02:00", 7200), ("23:59:59", 86_399)] {
            let time: TimeOfDay = text.parse().unwrap();
            assert_eq!((time.seconds(), time.to_string().as_str()), (seconds, text));
        }
        for text in [
            "",
            "2:00",
            "24:00",
            "12:60",
            "12:00:60",
            "12",
            "12:00:00:00",
            "+1:00",
            "ab:cd",
        ] {
            let error = text.parse::<TimeOfDay>().unwrap_err();
            assert!(error.contains("such as 02:00"), "{error}");
        }
    }

    #[test]
    fn modes_have_one_name_everywhere() {
        for mode in UploadMode::ALL {
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.name());
            assert_eq!(mode.name().parse(), Ok(mode));
        }
        assert!("daily".parse::<UploadMode>().is_err());
    }
}
