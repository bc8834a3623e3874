//! Events and counts: the questions of [`crate::api::logs`] with other words for lists and names.

use async_graphql::{Enum, InputObject, Json, SimpleObject};
use serde::Deserialize;
use thinglog_store::{Found, Steps};

use super::count::Count;
use super::fleet::Level;
use crate::api::logs::question::{Asked, place_text};
use crate::api::logs::{answer, question};
use crate::registry::{Code, Refusal, time_text};

/// Which events. All conditions hold together.
#[derive(Clone, Debug, Default, InputObject)]
pub(super) struct LogConditions {
    /// Of devices of these groups, and of groups in them.
    group: Option<Vec<String>>,
    /// Of these sources.
    source: Option<Vec<String>>,
    /// This level and what is worse.
    level: Option<Level>,
    /// Logged at this time or later: RFC 3339, or before now as 15m, 2h, 7d.
    since: Option<String>,
    /// Logged before this time.
    until: Option<String>,
    /// A regular expression that is found in the message.
    grep: Option<String>,
    /// A condition in the language of routes.
    filter: Option<String>,
    /// The name of a store, if there are several.
    store: Option<String>,
}

impl LogConditions {
    /// The question that the HTTP API would be asked.
    pub(super) fn of(conditions: Option<LogConditions>, devices: Option<Vec<String>>) -> Asked {
        let conditions = conditions.unwrap_or_default();
        let list = |names: Option<Vec<String>>| names.map(|names| names.join(","));
        let mut asked = Asked::default();
        asked.device = list(devices);
        asked.group = list(conditions.group);
        asked.source = list(conditions.source);
        asked.level = conditions.level.map(|level| level.name().to_owned());
        asked.since = conditions.since;
        asked.until = conditions.until;
        asked.grep = conditions.grep;
        asked.filter = conditions.filter;
        asked.store = conditions.store;
        asked
    }
}

/// Which of the events that match comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub(super) enum LogOrder {
    /// The latest.
    Newest,
    /// The earliest.
    Oldest,
    /// The one that arrived first.
    Arrival,
}

impl LogOrder {
    pub(super) fn name(self) -> &'static str {
        match self {
            LogOrder::Newest => "newest",
            LogOrder::Oldest => "oldest",
            LogOrder::Arrival => "arrival",
        }
    }
}

/// A page of events.
#[derive(Debug, SimpleObject)]
pub(super) struct LogEvents {
    /// In the order that was asked for.
    items: Vec<LogEvent>,
    /// The cursor of the next page; a page without one is the last. A search that takes long ends
    /// early, perhaps with nothing, and goes on from here.
    next: Option<String>,
}

/// An event that was logged.
#[derive(Debug, Deserialize, SimpleObject)]
pub(super) struct LogEvent {
    /// The same wherever the event is seen.
    id: Option<String>,
    /// By the device's clock, RFC 3339.
    time: String,
    /// When the broker got it, RFC 3339.
    received: String,
    /// Who logged it.
    device: String,
    /// Which program of the device.
    source: String,
    /// How bad, in four steps.
    level: Level,
    /// How bad, by OpenTelemetry's numbers, 1 to 24.
    severity: u8,
    /// What was logged.
    message: String,
    /// What else was said.
    #[serde(default)]
    attributes: Json<serde_json::Map<String, serde_json::Value>>,
    /// The device did not know the time.
    #[serde(default)]
    time_estimated: bool,
    /// The message was longer.
    #[serde(default)]
    truncated: bool,
    /// Where it stands in the store: a cursor to go on from, or, with the other order, back.
    place: String,
}

impl LogEvents {
    /// The page as the HTTP API has it, and its bytes there.
    pub(super) fn of(page: &thinglog_store::Page) -> Result<(LogEvents, usize), Refusal> {
        let mut bytes = 0;
        let items = page.events.iter().map(|found| {
            let (event, length) = LogEvent::of(found)?;
            bytes += length;
            Ok(event)
        });
        let items = items.collect::<Result<_, Refusal>>()?;
        let next = page.next.map(place_text);
        Ok((LogEvents { items, next }, bytes))
    }
}

impl LogEvent {
    /// From the form that all other JSON has.
    fn of(found: &Found) -> Result<(LogEvent, usize), Refusal> {
        let mut json = Vec::new();
        answer::write(found, &mut json);
        let event = serde_json::from_slice(&json).map_err(|error| {
            Refusal::new(Code::ServiceUnavailable, format!("an event: {error}"))
        })?;
        Ok((event, json.len()))
    }
}

/// How much was logged over time.
#[derive(Debug, SimpleObject)]
pub(super) struct LogCounts {
    /// Steps in which something was logged, the earliest first.
    items: Vec<LogCount>,
    /// The width of a step, seconds.
    step_s: f64,
    /// From when on was counted, RFC 3339.
    since: String,
    /// Not everything could be counted in time.
    partial: bool,
}

/// How much was logged over time, device by device.
#[derive(Debug, SimpleObject)]
pub(super) struct DeviceLogCounts {
    /// Those that were asked for and may be seen.
    devices: Vec<CountedDevice>,
    /// The width of a step, seconds.
    step_s: f64,
    /// From when on was counted, RFC 3339.
    since: String,
    /// Not everything could be counted in time.
    partial: bool,
}

/// What one device logged over time.
#[derive(Debug, SimpleObject)]
struct CountedDevice {
    /// Its name.
    device: String,
    /// Steps in which it logged something, the earliest first.
    items: Vec<LogCount>,
}

/// Events of a step, by level.
#[derive(Debug, SimpleObject)]
pub(super) struct LogCount {
    /// When it begins, RFC 3339.
    time: String,
    debug: Count,
    info: Count,
    warn: Count,
    error: Count,
}

fn listed(steps: &Steps) -> Vec<LogCount> {
    let counts = steps
        .iter()
        .map(|(at, [debug, info, warn, error])| LogCount {
            time: time_text(*at),
            debug: Count(*debug),
            info: Count(*info),
            warn: Count(*warn),
            error: Count(*error),
        });
    counts.collect()
}

impl LogCounts {
    pub(super) fn of(asked: &question::Counting, counts: &thinglog_store::Counts) -> LogCounts {
        LogCounts {
            items: listed(&counts.steps),
            step_s: asked.step_s(),
            since: time_text(asked.since),
            partial: counts.is_partial,
        }
    }
}

impl DeviceLogCounts {
    pub(super) fn of(
        asked: &question::Counting,
        counts: &thinglog_store::DeviceCounts,
    ) -> DeviceLogCounts {
        let devices = counts.devices.iter().map(|(device, steps)| CountedDevice {
            device: device.to_string(),
            items: listed(steps),
        });
        DeviceLogCounts {
            devices: devices.collect(),
            step_s: asked.step_s(),
            since: time_text(asked.since),
            partial: counts.is_partial,
        }
    }
}
