//! The command line: options, and what they stand for in the configuration.

use std::{ffi::OsString, path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand, ValueEnum};
use thinglog_edge::agent::units::{Size, Time};
use thinglog_schemas::Level;

use crate::config::Broker;

const EXAMPLES: &str = "\
Examples:
  thinglog-edge start                              everything that thinglog-edge.toml says
  thinglog-edge run -- ./sensor --verbose          a command's output, still visible here
  tail -F app.log | thinglog-edge --source app pipe
  thinglog-edge --spool /var/lib/thinglog file /var/log/syslog /var/log/nginx/access.log
  thinglog-edge --broker logs.example.com:1883 --device lamp-7 journal

Configuration:
  Options stand above the file, the file above the environment. The file is the one that --config or
  THINGLOG_CONFIG names; `start`, `check`, `status` and `upload` look for thinglog-edge.toml and
  /etc/thinglog/thinglog-edge.toml otherwise. Every key that takes one value is a variable as well:
  `spool.bytes` is THINGLOG_SPOOL_BYTES.

Exit codes:
  0  everything was delivered (with a spool: is delivered or on disk)
  1  it could not start, or a source failed; `status` and `upload`: no agent answers
  2  the command line was wrong
  3  events were left undelivered at the end; their number is on stderr. `status`: the agent runs, but
     nothing reaches the broker
  `run` passes on the exit code of its command: 127 when there is no such command, 126 when it
  cannot be run, 128 and the number of the signal that ended it.

The level is the device's own default. A level that operators set for the device (retained in
<root>/desired/<device>) wins as soon as it is known, and is remembered in the spool directory.";

/// Carries a device's logs to its broker.
#[derive(Debug, Parser)]
#[command(name = "thinglog-edge", version, about, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Options {
    /// The configuration file [env: THINGLOG_CONFIG]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,

    /// Name of this device [env: THINGLOG_DEVICE] [default: the host name]
    #[arg(long, global = true)]
    device: Option<String>,

    /// Where the broker listens: HOST:PORT, mqtt://HOST or mqtts://HOST [env: THINGLOG_BROKER]
    /// [default: 127.0.0.1:1883]
    #[arg(long, value_name = "URL", value_parser = checked::<Broker>, global = true)]
    broker: Option<String>,

    /// User name for the broker [env: THINGLOG_USERNAME] [default: the device's name, where there is
    /// a password]
    #[arg(long, value_name = "NAME", global = true)]
    username: Option<String>,

    /// File with the password or device token for the broker [env: THINGLOG_PASSWORD_FILE]; it may
    /// stand in THINGLOG_PASSWORD itself
    #[arg(long, value_name = "FILE", global = true)]
    password_file: Option<String>,

    /// First levels of every topic [env: THINGLOG_ROOT] [default: thinglog]
    #[arg(long, global = true)]
    root: Option<String>,

    /// Keep events in this directory until they are acknowledged [env: THINGLOG_SPOOL] [default:
    /// memory only]
    #[arg(long, value_name = "DIR", global = true)]
    spool: Option<String>,

    /// The most the spool directory may hold, at least 4MiB [env: THINGLOG_SPOOL_BYTES] [default:
    /// 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = checked::<Size>, global = true)]
    spool_bytes: Option<String>,

    /// The most that events may take in memory [env: THINGLOG_MEMORY_BYTES] [default: 8MiB]
    #[arg(long, value_name = "SIZE", value_parser = checked::<Size>, global = true)]
    memory_bytes: Option<String>,

    /// Remember places in files and journal here [env: THINGLOG_STATE] [default: positions/ in the
    /// spool, else nowhere]
    #[arg(long, value_name = "DIR", global = true)]
    state: Option<String>,

    /// Source of the events [default: the command's, file's or unit's name]
    #[arg(long, env = "THINGLOG_SOURCE", global = true)]
    pub(crate) source: Option<String>,

    /// DISABLED, ERROR, WARN, INFO or DEBUG, while operators say nothing else [env: THINGLOG_LEVEL]
    /// [default: INFO]
    #[arg(long, value_parser = level, global = true)]
    level: Option<String>,

    /// The longest an event waits for others to share its batch [env: THINGLOG_FLUSH] [default: 200ms]
    #[arg(long, value_name = "TIME", value_parser = checked::<Time>, global = true)]
    flush: Option<String>,

    /// How long to go on delivering at the end [env: THINGLOG_FLUSH_TIMEOUT] [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = checked::<Time>, global = true)]
    flush_timeout: Option<String>,

    /// The longest first pause before reconnecting; doubles with every failure [env:
    /// THINGLOG_RECONNECT] [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = checked::<Time>, global = true)]
    reconnect: Option<String>,

    /// The longest pause before reconnecting [env: THINGLOG_RECONNECT_MAX] [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = checked::<Time>, global = true)]
    reconnect_max: Option<String>,
}

impl Options {
    /// The keys that were given: key, option, value.
    pub(crate) fn given(&self) -> Vec<(&'static str, &'static str, String)> {
        let all = [
            ("device", "--device", &self.device),
            ("broker", "--broker", &self.broker),
            ("login.username", "--username", &self.username),
            (
                "login.password_file",
                "--password-file",
                &self.password_file,
            ),
            ("root", "--root", &self.root),
            ("spool.path", "--spool", &self.spool),
            ("spool.bytes", "--spool-bytes", &self.spool_bytes),
            ("memory.bytes", "--memory-bytes", &self.memory_bytes),
            ("state", "--state", &self.state),
            ("level", "--level", &self.level),
            ("upload.flush", "--flush", &self.flush),
            ("flush_timeout", "--flush-timeout", &self.flush_timeout),
            ("reconnect.first", "--reconnect", &self.reconnect),
            ("reconnect.longest", "--reconnect-max", &self.reconnect_max),
        ];
        let given = all.into_iter();
        let given = given.filter_map(|(key, option, value)| Some((key, option, value.clone()?)));
        given.collect()
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Carry everything that the configuration names; without any, the journal or the system's log
    Start,
    /// Say what is wrong with the configuration and with what it names
    Check,
    /// Say what the running agent carries; the answer is JSON unless it goes to a terminal
    Status {
        /// JSON also on a terminal
        #[arg(long)]
        json: bool,
    },
    /// Have the running agent send what it holds now
    Upload,
    /// Run a command: its stdout as INFO, its stderr as ERROR, both still visible; never holds it up
    Run {
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Lines from stdin
    Pipe {
        /// Copy them to stdout as well
        #[arg(long)]
        echo: bool,
    },
    /// Follow files through rotation and truncation
    File {
        /// The files; they need not exist yet
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Where to begin with a file that is not remembered
        #[arg(long, value_enum, default_value_t = From::Beginning)]
        from: From,
    },
    /// Follow systemd's journal
    Journal {
        /// Past entries to begin with when no place is remembered
        #[arg(long, default_value_t = 100)]
        lines: u32,
    },
    /// Print a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum From {
    /// With the first line
    Beginning,
    /// With the next line
    End,
}

/// The text itself, when it can be read as what it stands for.
fn checked<T: FromStr<Err = String>>(text: &str) -> Result<String, String> {
    text.parse::<T>().map(|_| text.to_owned())
}

fn level(text: &str) -> Result<String, String> {
    let known = text.parse::<Level>().is_ok();
    known
        .then(|| text.to_owned())
        .ok_or_else(|| "expected DISABLED, ERROR, WARN, INFO or DEBUG".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn everything_after_the_dashes_is_the_command() {
        let cli = Cli::parse_from([
            "thinglog-edge",
            "--device",
            "d",
            "run",
            "--",
            "ls",
            "--level",
        ]);
        let Action::Run { command } = cli.action else {
            panic!("not a run");
        };
        assert_eq!(command, ["ls", "--level"]);
    }

    #[test]
    fn values_are_read_or_refused_with_an_example() {
        let refused = |arguments: &[&str]| {
            let all = ["thinglog-edge"].iter().chain(arguments).chain(&["start"]);
            Cli::try_parse_from(all).unwrap_err().to_string()
        };
        assert!(refused(&["--memory-bytes", "lots"]).contains("64MiB"));
        assert!(refused(&["--flush", "soon"]).contains("5s"));
        assert!(refused(&["--broker", "http://x"]).contains("mqtts://"));
        assert!(refused(&["--level", "loud"]).contains("WARN"));
    }

    #[test]
    fn what_is_given_is_known_by_its_key() {
        let arguments = [
            "thinglog-edge",
            "--broker",
            "[::1]:1883",
            "--flush",
            "2m",
            "start",
        ];
        let given = Cli::parse_from(arguments).options.given();
        let given: Vec<_> = given
            .iter()
            .map(|(key, _, value)| (*key, value.as_str()))
            .collect();
        assert_eq!(given, [("broker", "[::1]:1883"), ("upload.flush", "2m")]);
    }
}
