//! What can be typed behind `thinglog logs request`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use thinglog_schemas::Level;

use crate::cli::{Connect, level};

pub(crate) const REQUEST_HELP: &str = "\
Examples:
  thinglog logs request lamp-7                       the last 1000 lines of each of its sources
  thinglog logs request lamp-7 --source nginx --from -15m --text error --level warn
  thinglog logs request lamp-7 --from 2026-01-02T15:00:00Z --to 2026-01-02T15:10:00Z > lines.ndjson
  thinglog logs request lamp-7 --deliver logs        as ordinary events, to all destinations
  thinglog logs request lamp-7 --wait 2h             even if the device is away now
  thinglog logs request lamp-7 --type status         how it is, and which sources it has

How it goes is told on stderr; the events go to stdout: text at a terminal, else a JSON object a
line. Ctrl-C gives the request up on the device, too.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 given up.";

/// Options of `thinglog logs request`.
#[derive(Args, Debug)]
pub(crate) struct Ask {
    /// The device to ask
    #[arg(value_name = "DEVICE")]
    pub(crate) device: String,
    /// Only this source (may be repeated) [default: all that can be read back]
    #[arg(long, short, value_name = "NAME")]
    pub(crate) source: Vec<String>,
    /// No events before this: RFC 3339, or before now as in -90s, -15m, -2h, -7d
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) from: Option<String>,
    /// No events after this
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) to: Option<String>,
    /// Only events that contain this; capital letters count if it has any
    #[arg(long, short, value_name = "TEXT")]
    pub(crate) text: Option<String>,
    /// Only this level and what is worse: debug, info, warn or error
    #[arg(long, short, value_parser = level, value_name = "LEVEL")]
    pub(crate) level: Option<Level>,
    /// Of each source the newest so many [default: 1000]
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) lines: Option<u64>,
    /// What to ask for
    #[arg(long = "type", value_name = "TYPE", value_enum, default_value_t = Type::Logs)]
    pub(crate) kind: Type,
    /// Which way the events go
    #[arg(long, value_name = "WAY", value_enum, default_value_t = Way::Response)]
    pub(crate) deliver: Way,
    /// Seconds that the device may take [default: 60]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) deadline: Option<u64>,
    /// Leave the request with the broker (retained) for a device that is away now: 30s, 10m, 2h
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) wait: Option<Duration>,
    /// How events are written
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(crate) format: Option<Format>,
    #[command(flatten)]
    pub(crate) connect: Connect,
}

/// What to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Type {
    /// What sources logged
    Logs,
    /// The debug events that the device keeps for the case of an error
    Ring,
    /// How device and sources are
    Status,
    /// Send what is queued now
    Flush,
}

/// Which way the events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// Here, whatever the levels
    Response,
    /// As ordinary events with the attribute `request`; levels apply
    Logs,
}

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// A JSON object a line
    Json,
}

fn time(text: &str) -> Result<Duration, String> {
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
    let seconds = units.iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(*unit)?.parse().ok()?;
        number.checked_mul(*seconds)
    });
    match seconds {
        // An MQTT expiry has 32 bits.
        Some(seconds) if (1..=u64::from(u32::MAX)).contains(&seconds) => {
            Ok(Duration::from_secs(seconds))
        }
        _ => Err("expected a time, as in 30s, 10m or 2h".into()),
    }
}
