//! How the agent fares, as `status` tells it: made by the running agent, and shown by the command.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use serde::{Deserialize, Serialize};
use thinglog_edge::{Publisher, agent::SourceReport};
use thinglog_schemas::{Level, json};

use crate::{config::Loaded, setup};

/// Sent and unacknowledged for so long: it does not move.
const STALLED_AFTER: Duration = Duration::from_secs(60);

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    pub(crate) version: String,
    pub(crate) device: String,
    /// What keeps events from the broker; `None`: they get there.
    pub(crate) problem: Option<String>,
    /// Seconds since the start.
    pub(crate) uptime_s: u64,
    /// Whether the device knows the time.
    pub(crate) clock_synced: bool,
    pub(crate) broker: BrokerReport,
    pub(crate) configuration: Configuration,
    pub(crate) held: Held,
    pub(crate) totals: Totals,
    pub(crate) sources: BTreeMap<String, Source>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct BrokerReport {
    pub(crate) address: String,
    pub(crate) connected: bool,
    /// Times a connection was made.
    pub(crate) connects: u64,
    /// RFC 3339.
    pub(crate) last_acknowledged: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Configuration {
    pub(crate) file: Option<String>,
    /// Of the remote configuration in force.
    pub(crate) revision: Option<String>,
    pub(crate) level: String,
    pub(crate) levels: BTreeMap<String, String>,
    /// The level is a temporary one.
    pub(crate) temporary: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Held {
    /// Not acknowledged yet: in memory, and on their way.
    pub(crate) events: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) memory_cap: u64,
    pub(crate) spool_bytes: Option<u64>,
    pub(crate) spool_cap: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Totals {
    pub(crate) accepted: u64,
    pub(crate) acknowledged: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) filtered: u64,
    pub(crate) dropped: u64,
    /// By level and reason, as far as they are declared.
    pub(crate) dropped_by: BTreeMap<String, BTreeMap<String, u64>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Source {
    pub(crate) kind: String,
    pub(crate) running: bool,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    /// When the last event came, RFC 3339.
    pub(crate) last: Option<String>,
    pub(crate) filtered: u64,
    pub(crate) rate_limited: u64,
    pub(crate) failures: u64,
    pub(crate) restarts: u64,
    pub(crate) last_failure: Option<String>,
}

impl From<SourceReport> for Source {
    fn from(report: SourceReport) -> Source {
        let counters = report.counters;
        Source {
            kind: report.kind.to_owned(),
            running: report.is_running,
            events: counters.events,
            bytes: counters.bytes,
            last: (counters.last > 0).then(|| time(counters.last)),
            filtered: counters.filtered,
            rate_limited: counters.limited,
            failures: report.failures,
            restarts: report.restarts,
            last_failure: report.last_failure,
        }
    }
}

/// Notices when events go out and nothing comes back.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    acknowledged: u64,
    waiting_since: Option<std::time::Instant>,
}

impl Progress {
    /// How long what is on its way has been without any answer.
    fn look(&mut self, in_flight: u64, acknowledged: u64, now: std::time::Instant) -> Duration {
        if in_flight == 0 || acknowledged != self.acknowledged {
            self.waiting_since = None;
        }
        self.acknowledged = acknowledged;
        if in_flight == 0 {
            return Duration::ZERO;
        }
        now.saturating_duration_since(*self.waiting_since.get_or_insert(now))
    }
}

impl Report {
    /// As things stand.
    pub(crate) fn gather(
        loaded: &Loaded,
        publisher: &Publisher,
        sources: BTreeMap<String, SourceReport>,
        uptime: Duration,
        progress: &mut Progress,
    ) -> Report {
        let (counters, status) = (publisher.counters(), publisher.status());
        let settings = &loaded.settings;
        let silent = progress.look(
            counters.in_flight_events,
            counters.acknowledged,
            std::time::Instant::now(),
        );
        let problem = if publisher.has_ended() {
            Some("the publisher has ended".to_owned())
        } else if !counters.connected {
            Some(format!("not connected to {}", settings.broker))
        } else {
            let stalled = silent >= STALLED_AFTER;
            stalled.then(|| format!("no acknowledgement for {} s", silent.as_secs()))
        };
        // Operators may have switched it on.
        let spooled = loaded.spool().is_some() || publisher.keeps_places();
        let levels = status.sources.into_iter();
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: setup::device(loaded),
            problem,
            uptime_s: uptime.as_secs(),
            clock_synced: status.clock_synced,
            broker: BrokerReport {
                address: settings.broker.to_string(),
                connected: counters.connected,
                connects: counters.connects,
                last_acknowledged: status.last_acknowledged.map(time),
            },
            configuration: Configuration {
                file: loaded.file.as_ref().map(|file| file.display().to_string()),
                revision: status.revision,
                level: status.level.map_or("", Level::name).to_owned(),
                levels: levels
                    .map(|(source, level)| (source, level.name().to_owned()))
                    .collect(),
                temporary: status.temporary,
            },
            held: Held {
                events: counters.queued_events + counters.in_flight_events,
                memory_bytes: counters.memory_bytes,
                memory_cap: settings.memory.bytes.0,
                spool_bytes: spooled.then_some(counters.spool_bytes),
                spool_cap: spooled.then_some(settings.spool.bytes.0),
            },
            totals: Totals {
                accepted: counters.accepted,
                acknowledged: counters.acknowledged,
                payload_bytes: counters.payload_bytes,
                filtered: counters.filtered,
                dropped: counters.dropped,
                dropped_by: status.dropped_by,
            },
            sources: sources
                .into_iter()
                .map(|(name, report)| (name, report.into()))
                .collect(),
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |what: &str, text: String| {
            let _ = writeln!(out, "{what:<15} {text}");
        };
        let state = match &self.problem {
            None => "all well".to_owned(),
            Some(problem) => problem.clone(),
        };
        line(
            "device",
            format!("{} (thinglog-edge {})", self.device, self.version),
        );
        let clock = match self.clock_synced {
            true => "",
            false => ", the clock is not set",
        };
        line(
            "state",
            format!("{state}, up {}{clock}", span(self.uptime_s)),
        );
        line("broker", self.broker_line());
        line("configuration", self.configuration_line());
        line("held", self.held_line());
        let totals = &self.totals;
        line(
            "since the start",
            format!(
                "{} events taken, {} acknowledged in {}, {} below their level, {} dropped",
                totals.accepted,
                totals.acknowledged,
                bytes(totals.payload_bytes),
                totals.filtered,
                totals.dropped
            ),
        );
        for (level, reasons) in &totals.dropped_by {
            for (reason, count) in reasons {
                let _ = writeln!(out, "{:<15} {count} {level}: {reason}", "dropped");
            }
        }
        out.push('\n');
        out.push_str(&self.table());
        out
    }

    fn broker_line(&self) -> String {
        let broker = &self.broker;
        let connected = match broker.connected {
            true => "connected",
            false => "not connected",
        };
        let acknowledged = match &broker.last_acknowledged {
            Some(time) => format!("last acknowledgement {time}"),
            None => "nothing acknowledged yet".to_owned(),
        };
        format!("{}, {connected}, {acknowledged}", broker.address)
    }

    fn configuration_line(&self) -> String {
        let configuration = &self.configuration;
        let mut text = configuration
            .file
            .clone()
            .unwrap_or_else(|| "no file".to_owned());
        match &configuration.revision {
            Some(revision) => drop(write!(text, ", remote revision {revision}")),
            None => text.push_str(", nothing remote"),
        }
        let _ = write!(text, ", level {}", configuration.level);
        if configuration.temporary {
            text.push_str(" for a while");
        }
        for (source, level) in &configuration.levels {
            let _ = write!(text, ", {source} {level}");
        }
        text
    }

    fn held_line(&self) -> String {
        let held = &self.held;
        let memory = format!(
            "memory {} of {}",
            bytes(held.memory_bytes),
            bytes(held.memory_cap)
        );
        let spool = match (held.spool_bytes, held.spool_cap) {
            (Some(used), Some(cap)) => format!("spool {} of {}", bytes(used), bytes(cap)),
            _ => "no spool on disk".to_owned(),
        };
        format!("{} events, {memory}, {spool}", held.events)
    }

    fn table(&self) -> String {
        let head = [
            "source", "kind", "state", "events", "bytes", "last", "filtered", "limited", "failures",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        for (name, source) in &self.sources {
            let state = match source.running {
                true => "running",
                false => "waiting",
            };
            rows.push([
                name.clone(),
                source.kind.clone(),
                state.to_owned(),
                source.events.to_string(),
                bytes(source.bytes),
                source.last.clone().unwrap_or_else(|| "-".to_owned()),
                source.filtered.to_string(),
                source.rate_limited.to_string(),
                source.failures.to_string(),
            ]);
        }
        let mut out = aligned(&rows);
        for (name, source) in &self.sources {
            if let Some(failure) = &source.last_failure {
                let _ = writeln!(out, "{name}: {failure}");
            }
        }
        out
    }
}

/// Columns as wide as their widest cell.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn bytes(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} B"),
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn time(ns: u64) -> String {
    let mut text = Vec::new();
    json::write_time(ns, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_is_sent_and_never_answered_is_a_stall() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let mut progress = Progress::default();
        assert_eq!(progress.look(10, 0, start), Duration::ZERO);
        assert_eq!(progress.look(10, 0, later(61)), Duration::from_secs(61));
        assert_eq!(progress.look(10, 5, later(62)), Duration::ZERO);
        assert_eq!(progress.look(0, 15, later(500)), Duration::ZERO);
        assert_eq!(progress.look(1, 15, later(501)), Duration::ZERO);
    }

    #[test]
    fn columns_stand_under_each_other() {
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        let rows = [
            row("source", "events"),
            row("a", "12"),
            row("longer-name", ""),
        ];
        let expected = "source       events\na            12\nlonger-name\n";
        assert_eq!(aligned(&rows), expected);
    }
}
