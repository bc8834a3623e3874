//! What can be typed behind `thinglog logs`.

use clap::{Args, Subcommand};
use thinglog_schemas::Level;

use crate::cli::level;
use crate::{fleet, request};

pub(crate) const HELP: &str = "\
Examples:
  thinglog logs                                    the last 100 events of the fleet
  thinglog logs --device lamp-7 --level warn       warnings and errors of a device
  thinglog logs --group eu --since 2h --grep 'time(d )?out'
  thinglog logs --source nginx --filter 'http.status >= 500' -n 1000 --json
  thinglog logs --device lamp-7 --follow           the last 10, and what comes
  thinglog logs --since 1d --all > day.txt         everything, the oldest first
  thinglog logs clear lamp-7                       forget what a device logged

The language of --filter is that of routes. Searched is the store, a destination of type \"store\"; what
a device has kept to itself is asked for with thinglog logs request.";

/// Search what was logged.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Logs {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) search: Search,
}

/// Other things to do about logs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Have a device search its own logs and send what it finds
    #[command(after_help = request::cli::REQUEST_HELP)]
    Request(request::cli::Ask),
    /// Forget what a device has logged so far
    #[command(after_help = "\
Example:
  thinglog logs clear lamp-7

What it logs from now on is kept again. The change stands in thinglog history.")]
    Clear(Clear),
}

/// Options of `thinglog logs clear`.
#[derive(Args, Debug)]
pub(crate) struct Clear {
    /// The device
    #[arg(value_name = "DEVICE")]
    pub(crate) device: String,
    #[command(flatten)]
    pub(crate) api: fleet::cli::Api,
}

/// Which events.
#[derive(Args, Debug)]
pub(crate) struct Search {
    /// Only this device (may be repeated)
    #[arg(long, short, value_name = "NAME")]
    pub(crate) device: Vec<String>,
    /// Only devices of this group, and of groups in it (may be repeated)
    #[arg(long, short, value_name = "NAME")]
    pub(crate) group: Vec<String>,
    /// Only this source (may be repeated)
    #[arg(long, short, value_name = "NAME")]
    pub(crate) source: Vec<String>,
    /// Only this level and what is worse: debug, info, warn or error
    #[arg(long, short, value_parser = level, value_name = "LEVEL")]
    pub(crate) level: Option<Level>,
    /// Nothing before this: RFC 3339, or before now as in 90s, 15m, 2h, 7d
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) since: Option<String>,
    /// Nothing from this time on
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) until: Option<String>,
    /// Only messages in which this regular expression is found
    #[arg(long, value_name = "PATTERN")]
    pub(crate) grep: Option<String>,
    /// Only what matches a condition
    #[arg(long, value_name = "CONDITION")]
    pub(crate) filter: Option<String>,
    /// The newest so many [default: 100, with --follow 10]
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) lines: Option<usize>,
    /// Everything, the oldest first
    #[arg(long, conflicts_with_all = ["lines", "follow"])]
    pub(crate) all: bool,
    /// Go on with what comes
    #[arg(long, short, conflicts_with = "until")]
    pub(crate) follow: bool,
    /// Times as the clock on the wall shows them here, not UTC
    #[arg(long)]
    pub(crate) local: bool,
    /// Which store, if there are several
    #[arg(long, value_name = "NAME")]
    pub(crate) store: Option<String>,
    #[command(flatten)]
    pub(crate) api: fleet::cli::Api,
}
