//! What can be typed about routes, destinations and dead letters.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::fleet::cli::Api;

pub(crate) const ROUTE_HELP: &str = "\
Example:
  thinglog route test routes-test.toml   does every example go where it is to go?

Routes stand in thinglog.toml as [router.routes.NAME]; docs/routes.md tells how.

Exit codes: 0 all as they are to be, 1 some are not, 2 wrong usage.";

pub(crate) const DLQ_HELP: &str = "\
Examples:
  thinglog dlq list                      how many each destination has
  thinglog dlq list hook                 the letters of one
  thinglog dlq show hook 17              one letter, with its event
  thinglog dlq replay hook 17 18         send these again, to this destination only
  thinglog dlq replay hook --all
  thinglog dlq drop hook 17

A dead letter is an event that a destination refused for good, with the reason. One that is sent again
keeps its id; it leaves when it is accepted and stays when it is refused again.

Exit codes: 0 done, 1 failed or refused, 2 wrong usage.";

pub(crate) const TAP_HELP: &str = "\
Examples:
  thinglog tap hook                      what this destination is being sent, as it is sent
  thinglog tap hook --limit 10 --json

Nothing waits for a tap: what it cannot keep up with is left out, and it says how much.

Exit codes: 0 done, 1 failed, 2 wrong usage.";

pub(crate) const TOP_HELP: &str = "\
Examples:
  thinglog top                           on a terminal: until Ctrl-C, anew every second
  thinglog top | tee rates.txt           elsewhere: a table every interval
  thinglog top --json --count 10 --every 5

Rates are per second since the look before. LAG is how old the oldest event in hand is.

Exit codes: 0 done, 1 failed, 2 wrong usage.";

#[derive(Debug, Subcommand)]
pub(crate) enum Route {
    /// Send examples of events through the configured routes
    #[command(after_help = ROUTE_HELP)]
    Test(RouteTest),
}

#[derive(Args, Debug)]
pub(crate) struct RouteTest {
    /// Examples, TOML
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// A JSON object for each example
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Dlq {
    /// How many dead letters there are, or those of one destination
    List(List),
    /// One dead letter, with its event
    Show(Show),
    /// Send dead letters again
    Replay(Which),
    /// Delete dead letters
    Drop(Which),
}

#[derive(Args, Debug)]
pub(crate) struct List {
    /// A destination
    pub(crate) destination: Option<String>,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Args, Debug)]
pub(crate) struct Show {
    /// The destination
    pub(crate) destination: String,
    /// The letter's number
    #[arg(value_name = "NUMBER")]
    pub(crate) number: u64,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Args, Debug)]
pub(crate) struct Which {
    /// The destination
    pub(crate) destination: String,
    /// Numbers of letters
    #[arg(value_name = "NUMBER", required_unless_present = "all")]
    pub(crate) numbers: Vec<u64>,
    /// All there are now
    #[arg(long, conflicts_with = "numbers")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Args, Debug)]
pub(crate) struct Tap {
    /// The destination
    pub(crate) destination: String,
    /// End after this many events
    #[arg(long, value_name = "EVENTS")]
    pub(crate) limit: Option<u64>,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Args, Debug)]
pub(crate) struct Top {
    /// Seconds between looks
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) every: u64,
    /// End after this many looks
    #[arg(long, value_name = "LOOKS")]
    pub(crate) count: Option<u64>,
    #[command(flatten)]
    pub(crate) api: Api,
}
