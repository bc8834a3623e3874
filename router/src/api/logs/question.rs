//! What a request asks of the store: its parameters, as a search. Pure.

use std::sync::Arc;

use serde::Deserialize;
use thinglog_schemas::query::EventQuery;
use thinglog_schemas::request::Moment;
use thinglog_store::{Order, Place, Search};

use crate::api::list::limit;
use crate::registry::Refusal;

/// Most devices that a parameter lists, and most names of other parameters, which are conditions.
const MOST_DEVICES: usize = 100;
const MOST_NAMES: usize = 10;

/// Where counts begin unless told, if it is not known how far back the store goes, ns.
const DAY: u64 = 24 * 3600 * SECOND;
const SECOND: u64 = 1_000_000_000;
/// Most steps of counts, and most of all devices together.
const STEPS: u64 = 500;
const STEPS_OF_ALL: u64 = 10_000;
/// Widths that people count in, seconds.
#[rustfmt::skip]
const WIDTHS: [u64; 18] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400,
];

/// The parameters that say which events; each but `filter` is short for a condition.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::api) struct Asked {
    /// Names of devices, divided by commas.
    pub(in crate::api) device: Option<String>,
    pub(in crate::api) group: Option<String>,
    pub(in crate::api) source: Option<String>,
    /// This level and what is worse.
    pub(in crate::api) level: Option<String>,
    /// Logged at this time or later, and before.
    pub(in crate::api) since: Option<String>,
    pub(in crate::api) until: Option<String>,
    /// A regular expression for the message.
    pub(in crate::api) grep: Option<String>,
    /// A condition in the language of routes.
    pub(in crate::api) filter: Option<String>,
    pub(in crate::api) order: Option<String>,
    pub(in crate::api) limit: Option<String>,
    pub(in crate::api) cursor: Option<String>,
    /// Which store, if there are several.
    pub(in crate::api) store: Option<String>,
    /// Of counts: the width of a step, and what has counts of its own.
    pub(in crate::api) step: Option<String>,
    pub(in crate::api) by: Option<String>,
    /// Of a download.
    pub(super) format: Option<String>,
    pub(super) gzip: Option<bool>,
    /// Of a tail: how many events before it begins.
    pub(super) history: Option<usize>,
}

/// What counts are asked.
#[derive(Clone, Debug)]
pub(in crate::api) struct Counting {
    /// The width of a step, ns.
    pub(super) step: u64,
    /// Most steps there can be.
    pub(super) most: usize,
    /// From when on was asked; the search begins with the step that this is in.
    pub(in crate::api) since: u64,
    pub(super) search: Search,
}

impl Counting {
    /// The width of a step, seconds.
    pub(in crate::api) fn step_s(&self) -> f64 {
        self.step as f64 / 1e9
    }
}

/// What has counts of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Per {
    Fleet,
    Device,
}

impl Asked {
    /// Whether an order was asked for.
    pub(super) fn says_order(&self) -> bool {
        self.order.is_some()
    }

    /// The search, at the time `now`.
    pub(super) fn search(&self, now: u64) -> Result<Search, Refusal> {
        let order = match self.order.as_deref() {
            None | Some("newest") => Order::Newest,
            Some("oldest") => Order::Oldest,
            Some("arrival") => Order::Arrival,
            Some(other) => return Err(invalid("order", other, "newest, oldest or arrival")),
        };
        let devices = self
            .device
            .as_deref()
            .map(|names| listed("device", names, MOST_DEVICES));
        let devices = devices.transpose()?;
        Ok(Search {
            order,
            from: time("since", self.since.as_deref(), now)?.unwrap_or_default(),
            until: time("until", self.until.as_deref(), now)?.unwrap_or(u64::MAX),
            after: self.cursor.as_deref().map(place).transpose()?,
            devices: devices.map(|names| names.into_iter().map(Arc::from).collect()),
            filter: self.condition()?,
            limit: limit(self.limit.as_deref())?,
        })
    }

    /// What is to be counted, at the time `now`, in a store whose oldest event was received at `oldest`.
    pub(super) fn counting(&self, now: u64, oldest: Option<u64>) -> Result<Counting, Refusal> {
        let mut search = self.search(now)?;
        if search.from == 0 {
            search.from = oldest.unwrap_or(now.saturating_sub(DAY));
        }
        search.until = search.until.min(now.saturating_add(1));
        let devices = match (self.per()?, &search.devices) {
            (Per::Fleet, _) => 1,
            (Per::Device, Some(devices)) => devices.len() as u64,
            (Per::Device, None) => {
                let reason = format!("by=device takes device: 1 to {MOST_DEVICES} names");
                return Err(Refusal::invalid(reason));
            }
        };
        let step = match self.step.as_deref() {
            None => round(search.until.saturating_sub(search.from) / 60),
            Some(text) => span(text)
                .filter(|step| *step > 0)
                .ok_or_else(|| invalid("step", text, "like 30s, 5m, 1h"))?,
        };
        // Steps are the same whenever one asks.
        let since = search.from;
        search.from = since / step * step;
        let steps = search.until.saturating_sub(search.from) / step + 1;
        if steps > STEPS + 1 || steps * devices > STEPS_OF_ALL {
            let reason = format!(
                "these would be more than {STEPS} steps, or {STEPS_OF_ALL} of all devices; give a larger step, a shorter time or fewer devices"
            );
            return Err(Refusal::invalid(reason));
        }
        Ok(Counting {
            step,
            most: (steps * devices) as usize,
            since,
            search,
        })
    }

    /// What has counts of its own.
    pub(super) fn per(&self) -> Result<Per, Refusal> {
        match self.by.as_deref() {
            None => Ok(Per::Fleet),
            Some("device") => Ok(Per::Device),
            Some(other) => Err(invalid("by", other, "device")),
        }
    }

    /// All conditions as one query.
    fn condition(&self) -> Result<Option<EventQuery>, Refusal> {
        let mut parts = Vec::new();
        if let Some(group) = &self.group {
            parts.push(any_of("group", &listed("group", group, MOST_NAMES)?));
        }
        if let Some(source) = &self.source {
            parts.push(any_of("source", &listed("source", source, MOST_NAMES)?));
        }
        if let Some(level) = &self.level {
            parts.push(format!("level >= {}", quoted(level)));
        }
        if let Some(pattern) = &self.grep {
            if pattern.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1 {
                let reason = "grep is no regular expression: it ends in a lone backslash";
                return Err(Refusal::invalid(reason));
            }
            parts.push(format!("message ~ /{}/", slashed(pattern)));
        }
        if let Some(filter) = &self.filter {
            // By itself first, so that an error counts its characters.
            EventQuery::parse(filter)
                .map_err(|error| Refusal::invalid(format!("filter: {error}")))?;
            parts.push(format!("({filter})"));
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let query = EventQuery::parse(&parts.join(" and "));
        query.map(Some).map_err(|error| {
            Refusal::invalid(format!("level, source, group or grep: {}", error.reason))
        })
    }
}

fn invalid(key: &str, value: &str, wanted: &str) -> Refusal {
    let value: String = value.chars().take(60).collect();
    Refusal::invalid(format!("{key} is {value:?}, it must be {wanted}"))
}

fn listed<'a>(key: &str, names: &'a str, most: usize) -> Result<Vec<&'a str>, Refusal> {
    let names: Vec<&str> = names.split(',').map(str::trim).collect();
    match names.len() <= most && names.iter().all(|name| !name.is_empty()) {
        true => Ok(names),
        false => Err(Refusal::invalid(format!(
            "{key} takes 1 to {most} names, divided by commas"
        ))),
    }
}

fn any_of(field: &str, names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    format!("{field} in ({})", names.join(", "))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A pattern between slashes: those within are escaped unless they are already.
fn slashed(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut escaped = false;
    for c in pattern.chars() {
        if c == '/' && !escaped {
            out.push('\\');
        }
        escaped = c == '\\' && !escaped;
        out.push(c);
    }
    out
}

/// RFC 3339, or so long before `now`: `90s`, `15m`, `2h`, `7d`, with or without a minus.
pub(super) fn time(key: &str, text: Option<&str>, now: u64) -> Result<Option<u64>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    let wanted = "RFC 3339 like 2026-01-02T03:04:05Z, or a time before now like 15m, 2h, 7d";
    let time = match text {
        "now" => Some(now),
        _ => Moment::parse(text)
            .or_else(|| ago(text))
            .map(|moment| moment.at(now)),
    };
    time.map(Some).ok_or_else(|| invalid(key, text, wanted))
}

/// `90s`, `15m`, `2h`, `7d` before now.
fn ago(text: &str) -> Option<Moment> {
    Moment::parse(&format!("-{text}"))
}

/// Nanoseconds of `90s`, `15m`, `2h`, `7d`.
pub(super) fn span(text: &str) -> Option<u64> {
    match ago(text)? {
        Moment::Ago(span) => Some(span),
        Moment::At(_) => None,
    }
}

/// A width that people count in, at least so long.
fn round(ns: u64) -> u64 {
    let mut widths = WIDTHS.iter().map(|seconds| seconds * SECOND);
    let width = widths.find(|width| *width >= ns);
    width.unwrap_or_else(|| ns.div_ceil(DAY) * DAY)
}

/// `<at>-<row>`, as pages and events name places.
pub(super) fn place(text: &str) -> Result<Place, Refusal> {
    let parts = text
        .split_once('-')
        .and_then(|(at, row)| Some((at.parse().ok()?, row.parse().ok()?)));
    let Some((at, row)) = parts else {
        return Err(invalid(
            "cursor",
            text,
            "what the page before said as `next`, or the `place` of an event",
        ));
    };
    Ok(Place { at, row })
}

/// The text of a place.
pub(in crate::api) fn place_text(place: Place) -> String {
    format!("{}-{}", place.at, place.row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Asked {
        let uri: axum::http::Uri = format!("/?{query}").parse().unwrap();
        axum::extract::Query::try_from_uri(&uri).unwrap().0
    }

    const NOW: u64 = 1_767_323_045_000_000_000;

    #[test]
    fn parameters_are_one_condition() {
        let search = asked("device=a,b&group=eu&source=nginx,app&level=warn&grep=GET+%2Findex%5C.&filter=user%3Dann+or+status%3D500")
            .search(NOW).unwrap();
        let wanted = r#"group in ("eu") and source in ("nginx", "app") and level >= "warn" and message ~ /GET \/index\./ and (user=ann or status=500)"#;
        assert_eq!(search.filter.unwrap().text(), wanted);
        assert_eq!(search.devices.unwrap().len(), 2);
    }

    #[test]
    fn times_are_absolute_or_before_now() {
        let search = asked("since=2h&until=2026-01-02T03:04:05Z")
            .search(NOW)
            .unwrap();
        assert_eq!((search.from, search.until), (NOW - 7_200_000_000_000, NOW));
        assert_eq!(
            asked("since=-90s").search(NOW).unwrap().from,
            NOW - 90_000_000_000
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, part) in [
            ("level=loud", "no level"),
            ("filter=level+%3D+LOUD", "filter: character 1"),
            ("grep=(", "regular expression"),
            ("grep=a%5C", "regular expression"),
            ("since=yesterday", "since"),
            ("order=random", "order"),
            ("limit=0", "limit"),
            ("cursor=x", "cursor"),
            ("device=a,,b", "device"),
        ] {
            let error = asked(query).search(NOW).unwrap_err();
            assert!(error.message.contains(part), "{query}: {}", error.message);
        }
    }

    #[test]
    fn steps_are_bounded_over_all_devices_together() {
        let counted = |query: &str| asked(query).counting(NOW, None);
        let counting = counted("by=device&device=a,b&since=1h&step=2m").unwrap();
        assert_eq!(counting.step, 120 * SECOND);
        assert!(counting.most >= 60 && counting.search.from.is_multiple_of(120 * SECOND));
        assert_eq!(counting.since, NOW - 3600 * SECOND);
        let many = |count: usize| vec!["d"; count].join(",");
        for (query, part) in [
            ("by=device".to_owned(), "takes device: 1 to 100"),
            ("by=source".to_owned(), "by is"),
            ("by=device&device=a&step=0s".to_owned(), "step is"),
            ("since=7d&step=1s".to_owned(), "give a larger step"),
            (format!("by=device&device={}", many(101)), "100 names"),
            (
                format!("by=device&device={}&since=1h&step=30s", many(100)),
                "fewer devices",
            ),
        ] {
            let error = counted(&query).unwrap_err();
            assert!(error.message.contains(part), "{query}: {}", error.message);
        }
        // What is usual fits for as many devices as there may be.
        assert!(counted(&format!("by=device&device={}&since=7d", many(100))).is_ok());
        assert_eq!(counted("").unwrap().since, NOW - DAY);
    }

    #[test]
    fn a_place_comes_back() {
        let place = Place { at: NOW, row: 7 };
        assert_eq!(super::place(&place_text(place)).unwrap(), place);
    }
}
