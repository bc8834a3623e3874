//! What can be typed about alerts.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::fleet::cli::Api;

pub(crate) const HELP: &str = "\
Examples:
  thinglog alert list                    rules and their open alerts
  thinglog alert list --json
  thinglog alert test alerts-test.toml   does every example bring the notifications it is to bring?

Rules stand in thinglog.toml as [router.alerts.NAME]; docs/alerts.md tells how.

Exit codes: 0 done or all as they are to be, 1 failed or some are not, 2 wrong usage.";

#[derive(Debug, Subcommand)]
pub(crate) enum Alert {
    /// Show rules and their open alerts
    List(List),
    /// Send examples of events through the configured rules
    Test(Test),
}

#[derive(Args, Debug)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Args, Debug)]
pub(crate) struct Test {
    /// Examples, TOML
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// A JSON object for each example
    #[arg(long)]
    pub(crate) json: bool,
}
