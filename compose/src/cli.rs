//! What can be typed: commands, options, examples.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use thinglog_schemas::Level;

use crate::{
    access::cli as access, alert::cli as alert, bench::BenchArgs, delivery::cli as delivery,
    fleet::cli as fleet, logs::cli as logs,
};

/// Device logs as event streams over MQTT: devices publish, the broker makes every acknowledged
/// event durable, the router applies levels and delivers.
#[derive(Debug, Parser)]
#[command(
    name = "thinglog",
    version,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  thinglog up --demo                     broker, router and three devices with this machine's logs
  thinglog tail --level warn             watch warnings and errors of all devices
  thinglog level set group:eu DEBUG --for 15m
                                         a temporary level that ends by itself
  mosquitto_pub -t thinglog/logs/lamp-7/app -q 1 -m 'hello'
                                         log as any MQTT client does
  thinglog check                         validate thinglog.toml and the environment

Configuration: thinglog.toml in the working directory, or --config FILE. Every key is also an
environment variable: broker.listen is THINGLOG_BROKER_LISTEN; secrets can be read from a file:
THINGLOG_ROUTER_BROKER_PASSWORD_FILE. THINGLOG_LOG filters thinglog's own log (info, debug,
thinglog_broker=trace, ...).

Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub(crate) struct Cli {
    /// Configuration file [default: thinglog.toml, if there is one]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "THINGLOG_CONFIG",
        hide_env_values = true
    )]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run broker and router in this process
    #[command(after_help = "\
Examples:
  thinglog up                            serve devices on this machine
  thinglog up --demo                     see it work with this machine's own logs
  THINGLOG_BROKER_LISTEN=127.0.0.1:1884 thinglog up
                                         use another port

Ctrl-C (or SIGTERM) delivers what is on its way and ends; a second one ends at once.")]
    Up(Up),
    /// Run the MQTT broker alone
    #[command(after_help = "\
Example:
  thinglog broker --config /etc/thinglog/broker.toml")]
    Broker(Run),
    /// Run the router alone, against the bundled broker or any other
    #[command(after_help = "\
Example:
  THINGLOG_ROUTER_BROKER_ADDRESS=mqtt.example.com:1883 thinglog router")]
    Router(Run),
    /// Watch events as they pass
    #[command(after_help = "\
Examples:
  thinglog tail                          everything
  thinglog tail --device lamp-7          one device
  thinglog tail --group eu               the devices of a group, and of the groups in it
  thinglog tail --level warn --json      warnings and errors, a JSON object a line
  thinglog tail --source nginx --source sshd | grep -v healthz")]
    Tail(Tail),
    /// Search what was logged, or ask a device for what it kept
    #[command(after_help = logs::HELP)]
    Logs(Box<logs::Logs>),
    /// Set, list, delete and explain log levels, temporary ones too
    #[command(subcommand, after_help = fleet::LEVEL_HELP)]
    Level(fleet::Level),
    /// Thing groups: make, list, change, and who is in them
    #[command(subcommand, after_help = fleet::GROUP_HELP)]
    Group(fleet::Group),
    /// Devices: what is known of them, and tokens they log in with
    #[command(subcommand, after_help = access::DEVICE_HELP)]
    Device(access::Device),
    /// Show who changed levels, groups and devices, and when
    #[command(after_help = fleet::HISTORY_HELP)]
    History(fleet::History),
    /// Show configuration documents that cannot stand, and why
    #[command(after_help = fleet::PROBLEMS_HELP)]
    Problems(fleet::Problems),
    /// Routes: which events go to which destinations
    #[command(subcommand, after_help = delivery::ROUTE_HELP)]
    Route(delivery::Route),
    /// Alerts: rules, what is open, and examples
    #[command(subcommand, after_help = alert::HELP)]
    Alert(alert::Alert),
    /// Dead letters: events that a destination refused for good
    #[command(subcommand, after_help = delivery::DLQ_HELP)]
    Dlq(delivery::Dlq),
    /// Watch what a destination is being sent
    #[command(after_help = delivery::TAP_HELP)]
    Tap(delivery::Tap),
    /// Watch rates, lag and retries of all destinations
    #[command(after_help = delivery::TOP_HELP)]
    Top(delivery::Top),
    /// Set or delete a user who logs in with a password
    #[command(after_help = access::PASSWD_HELP)]
    Passwd(access::Passwd),
    /// Make, list or remove access keys that AWS's clients sign requests with
    #[command(subcommand, after_help = access::KEY_HELP)]
    Key(access::Key),
    /// Explain who may do what
    #[command(subcommand, after_help = access::ACL_HELP)]
    Acl(access::Acl),
    /// Validate the configuration: file, key and reason of whatever is wrong
    #[command(after_help = "\
Examples:
  thinglog check                         thinglog.toml here, and the environment
  thinglog check deploy/thinglog.toml    another file

Exit codes: 0 valid, 1 not valid.")]
    Check(Check),
    /// Measure broker and router on this machine
    #[command(after_help = "\
Examples:
  thinglog bench                         a million events, batched and single
  thinglog bench --mode single --runs 5 --peer
                                         beside mosquitto, in turns
  thinglog bench --input /var/log/syslog real messages
  thinglog bench broker                  the broker alone, beside mosquitto")]
    Bench(BenchArgs),
    /// Print a completion script for a shell
    #[command(after_help = "\
Example:
  thinglog completions bash > ~/.local/share/bash-completion/completions/thinglog")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Options of what serves.
#[derive(Args, Debug)]
pub(crate) struct Run {
    /// Serve addresses beyond loopback although nobody has to log in
    #[arg(long)]
    pub(crate) insecure: bool,
}

/// Options of `thinglog up`.
#[derive(Args, Debug)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) run: Run,
    /// Add three devices that carry this machine's own logs, and print events as they pass
    #[arg(long)]
    pub(crate) demo: bool,
}

/// Options of `thinglog tail`.
#[derive(Args, Debug)]
pub(crate) struct Tail {
    /// Only this device (may be repeated)
    #[arg(long, short, value_name = "NAME")]
    pub(crate) device: Vec<String>,
    /// Only devices of this group and of the groups in it
    #[arg(long, short, value_name = "NAME")]
    pub(crate) group: Option<String>,
    /// Only this source (may be repeated)
    #[arg(long, short, value_name = "NAME")]
    pub(crate) source: Vec<String>,
    /// Only this level and what is worse: debug, info, warn or error
    #[arg(long, short, default_value = "debug", value_parser = level, value_name = "LEVEL")]
    pub(crate) level: Level,
    /// A JSON object a line, as in files
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) connect: Connect,
}

/// Which broker an operator's command talks to, and as whom.
#[derive(Args, Clone, Debug)]
pub(crate) struct Connect {
    /// The broker, host:port or, with TLS, mqtts://HOST:PORT [default: as configured, else
    /// 127.0.0.1:1883]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) broker: Option<String>,
    /// Authorities of the broker's certificate, PEM [default: those of the system]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// User name for the broker [default: the configured router's, at its broker]
    #[arg(
        long,
        value_name = "NAME",
        env = "THINGLOG_USERNAME",
        hide_env_values = true
    )]
    pub(crate) username: Option<String>,
    /// File with the password for the broker [env: THINGLOG_PASSWORD_FILE, or the password itself in
    /// THINGLOG_PASSWORD]
    #[arg(long, value_name = "FILE", requires = "username")]
    pub(crate) password_file: Option<PathBuf>,
}

/// Options of `thinglog check`.
#[derive(Args, Debug)]
pub(crate) struct Check {
    /// The file to validate [default: as for every command]
    pub(crate) file: Option<PathBuf>,
    /// As if run with --insecure
    #[arg(long)]
    pub(crate) insecure: bool,
}

/// A level that events can have.
pub(crate) fn level(word: &str) -> Result<Level, String> {
    match word.parse() {
        Ok(Level::Disabled) | Err(_) => Err("expected debug, info, warn or error".into()),
        Ok(level) => Ok(level),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_explains_itself_with_an_example() {
        let mut cli = Cli::command();
        cli.build();
        for command in cli.get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{help}");
            assert!(command.get_about().is_some(), "{help}");
        }
    }

    #[test]
    fn the_help_reads_as_agreed() {
        let mut cli = Cli::command().term_width(100);
        assert_eq!(
            cli.render_help().to_string(),
            include_str!("../snapshots/help.txt")
        );
    }

    #[test]
    fn levels_are_those_that_live_topics_have() {
        for word in ["debug", "INFO", "warn", "Error"] {
            assert!(
                Cli::try_parse_from(["thinglog", "tail", "--level", word]).is_ok(),
                "{word}"
            );
        }
        for word in ["disabled", "loud", ""] {
            let error = Cli::try_parse_from(["thinglog", "tail", "--level", word]).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(
                error.to_string().contains("debug, info, warn or error"),
                "{error}"
            );
        }
    }
}
