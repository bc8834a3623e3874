//! The command line: options, their environment, and what they mean.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use thinglog_schemas::Level;

const EXAMPLES: &str = "\
Examples:
  thinglog-edge run -- ./sensor --verbose          a command's output, still visible here
  tail -F app.log | thinglog-edge --source app pipe
  thinglog-edge --spool /var/lib/thinglog file /var/log/syslog /var/log/nginx/access.log
  thinglog-edge --broker logs.example.com:1883 --device lamp-7 journal

Exit codes:
  0  everything was delivered (with --spool: is delivered or on disk)
  1  it could not start, or a source failed
  2  the command line was wrong
  3  events were left undelivered at the end; their number is on stderr
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

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Name of this device [default: the host name]
    #[arg(long, env = "THINGLOG_DEVICE", global = true)]
    pub(crate) device: Option<String>,

    /// Where the broker listens
    #[arg(long, env = "THINGLOG_BROKER", value_name = "HOST:PORT", default_value = "127.0.0.1:1883", value_parser = address, global = true)]
    pub(crate) broker: Address,

    /// User name for the broker [default: the device's name, where there is a password]
    #[arg(
        long,
        env = "THINGLOG_USERNAME",
        value_name = "NAME",
        hide_env_values = true,
        global = true
    )]
    pub(crate) username: Option<String>,

    /// File with the password or device token for the broker; it may stand in THINGLOG_PASSWORD itself
    #[arg(
        long,
        env = "THINGLOG_PASSWORD_FILE",
        value_name = "FILE",
        hide_env_values = true,
        global = true
    )]
    pub(crate) password_file: Option<PathBuf>,

    /// First levels of every topic
    #[arg(long, env = "THINGLOG_ROOT", default_value = "thinglog", global = true)]
    pub(crate) root: String,

    /// Keep events in this directory until they are acknowledged [default: memory only]
    #[arg(long, env = "THINGLOG_SPOOL", value_name = "DIR", global = true)]
    pub(crate) spool: Option<PathBuf>,

    /// The most the spool directory may hold (at least 4MiB)
    #[arg(long, env = "THINGLOG_SPOOL_BYTES", value_name = "SIZE", default_value = "64MiB", value_parser = size, global = true)]
    pub(crate) spool_bytes: u64,

    /// The most that events may take in memory
    #[arg(long, env = "THINGLOG_MEMORY_BYTES", value_name = "SIZE", default_value = "8MiB", value_parser = size, global = true)]
    pub(crate) memory_bytes: u64,

    /// Remember places in files and journal here [default: positions/ in the spool, else nowhere]
    #[arg(long, env = "THINGLOG_STATE", value_name = "DIR", global = true)]
    pub(crate) state: Option<PathBuf>,

    /// Source of the events [default: the command's, file's or unit's name]
    #[arg(long, env = "THINGLOG_SOURCE", global = true)]
    pub(crate) source: Option<String>,

    /// DISABLED, ERROR, WARN, INFO or DEBUG, while operators say nothing else
    #[arg(long, env = "THINGLOG_LEVEL", default_value = "INFO", value_parser = level, global = true)]
    pub(crate) level: Level,

    /// The longest an event waits for others to share its batch
    #[arg(long, env = "THINGLOG_FLUSH", value_name = "TIME", default_value = "200ms", value_parser = time, global = true)]
    pub(crate) flush: Duration,

    /// How long to go on delivering at the end
    #[arg(long, env = "THINGLOG_FLUSH_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = time, global = true)]
    pub(crate) flush_timeout: Duration,

    /// The longest first pause before reconnecting; doubles with every failure
    #[arg(long, env = "THINGLOG_RECONNECT", value_name = "TIME", default_value = "1s", value_parser = time, global = true)]
    pub(crate) reconnect: Duration,

    /// The longest pause before reconnecting
    #[arg(long, env = "THINGLOG_RECONNECT_MAX", value_name = "TIME", default_value = "5m", value_parser = time, global = true)]
    pub(crate) reconnect_max: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

fn address(text: &str) -> Result<Address, String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && !host.is_empty() => (host, port),
        _ => return Err("expected HOST:PORT, as in logs.example.com:1883".to_owned()),
    };
    let port = port
        .parse()
        .map_err(|_| format!("{port:?} is not a port number"))?;
    Ok(Address {
        host: host.to_owned(),
        port,
    })
}

fn level(text: &str) -> Result<Level, String> {
    text.parse()
        .map_err(|_| "expected DISABLED, ERROR, WARN, INFO or DEBUG".to_owned())
}

fn size(text: &str) -> Result<u64, String> {
    let units = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("", 1),
    ];
    let bytes = units.iter().find_map(|(unit, factor)| {
        let number: u64 = text.strip_suffix(unit)?.trim().parse().ok()?;
        number.checked_mul(*factor)
    });
    bytes.ok_or_else(|| "expected a size, as in 64MiB or 67108864".to_owned())
}

fn time(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    let millis = units.iter().find_map(|(unit, factor)| {
        let number: u64 = text.strip_suffix(unit)?.trim().parse().ok()?;
        number.checked_mul(*factor)
    });
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| "expected a time, as in 200ms, 5s or 2m".to_owned())
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
    fn sizes_times_and_addresses_are_read_or_refused_with_an_example() {
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("1000"), Ok(1000));
        assert!(size("lots").unwrap_err().contains("64MiB"));
        assert_eq!(time("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
        assert!(time("soon").unwrap_err().contains("5s"));
        assert_eq!(address("[::1]:1883").unwrap().host, "[::1]");
        assert!(address("localhost").is_err());
        assert!(address("localhost:mqtt").is_err());
    }
}
