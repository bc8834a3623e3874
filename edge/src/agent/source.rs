//! One source of the agent as it is configured: what kind, with which options, under which rules.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer};
use thinglog_schemas::Severity;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    FileOptions, JournalOptions, KmsgOptions, RuleOptions, Sink, SourceError, StartAt, StateDir,
    StreamOptions, SyslogOptions,
    command::{OutputOptions, run_output_source},
    run_file_source, run_journal_source, run_kmsg_source, run_stream_source, run_syslog_source,
};

/// A source with its rules.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceOptions {
    /// Where events come from.
    pub kind: Kind,
    /// What they go through.
    pub rules: RuleOptions,
}

/// Where events come from, with the options of that kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Log files.
    File(Files),
    /// systemd's journal.
    Journal(Journal),
    /// A command's output.
    Command(Command),
    /// Lines from stdin.
    Stdin(Stdin),
    /// Messages that others send, or write to /dev/log.
    Syslog(SyslogOptions),
    /// The kernel's log.
    Kmsg(KmsgOptions),
}

/// `kind = "file"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// The files; they need not exist yet.
    pub paths: Vec<PathBuf>,
    /// The source of their events; by default the name of this source.
    pub source: Option<String>,
    /// Where to begin with a file that is not remembered.
    #[serde(default)]
    pub from: From,
}

/// Where to begin with a file that is not remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// With its first line.
    #[default]
    Beginning,
    /// With the next line.
    End,
}

/// `kind = "journal"`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    /// The source of all events; by default the unit of each, else its identifier.
    pub source: Option<String>,
    /// Past entries to begin with when no place is remembered; by default 100.
    pub lines: Option<u32>,
    /// The program to ask; by default `journalctl`.
    pub program: Option<PathBuf>,
}

/// `kind = "command"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The source of its events; by default the name of this source.
    pub source: Option<String>,
    /// Read no further while there is no room, as with whatever can be read later; otherwise events
    /// are dropped, least grave first, and the command is never held up.
    #[serde(default = "yes")]
    pub wait: bool,
}

fn yes() -> bool {
    true
}

/// `kind = "stdin"`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stdin {
    /// The source of its events; by default the name of this source.
    pub source: Option<String>,
}

/// What sources share.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where places are remembered; `None`: nowhere.
    pub state: Option<StateDir>,
    /// How long events may take to become durable when a source ends.
    pub drain: Duration,
}

impl Kind {
    /// The words for the kinds there are.
    pub const NAMES: [&str; 6] = ["file", "journal", "command", "stdin", "syslog", "kmsg"];

    /// Reads the options of a kind; `None`: there is no such kind.
    pub fn read<'de, D: Deserializer<'de>>(kind: &str, from: D) -> Option<Result<Kind, D::Error>> {
        Some(match kind {
            "file" => Files::deserialize(from).map(Kind::File),
            "journal" => Journal::deserialize(from).map(Kind::Journal),
            "command" => Command::deserialize(from).map(Kind::Command),
            "stdin" => Stdin::deserialize(from).map(Kind::Stdin),
            "syslog" => SyslogOptions::deserialize(from).map(Kind::Syslog),
            "kmsg" => KmsgOptions::deserialize(from).map(Kind::Kmsg),
            _ => return None,
        })
    }

    /// Its word.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::File(_) => "file",
            Kind::Journal(_) => "journal",
            Kind::Command(_) => "command",
            Kind::Stdin(_) => "stdin",
            Kind::Syslog(_) => "syslog",
            Kind::Kmsg(_) => "kmsg",
        }
    }

    /// What no type says; else the key and the reason.
    pub fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        match self {
            Kind::File(files) if files.paths.is_empty() => Err(("paths", "names no file")),
            Kind::Syslog(syslog)
                if syslog.udp.is_none()
                    && syslog.tcp.is_none()
                    && syslog.datagram.is_none()
                    && syslog.stream.is_none() =>
            {
                Err((
                    "udp",
                    "is missing, as are tcp, datagram and stream: one says where to listen",
                ))
            }
            Kind::Command(command) if command.command.is_empty() => {
                Err(("command", "names no program"))
            }
            _ => Ok(()),
        }
    }

    /// Whether its end is in order, and not something to begin again.
    pub(crate) fn may_end(&self) -> bool {
        matches!(self, Kind::Stdin(_))
    }

    /// Carries what there is into `sink` until `cancel`.
    pub(crate) async fn run(
        self,
        name: &str,
        sink: Sink,
        around: Surroundings,
        cancel: CancellationToken,
    ) -> Result<(), SourceError> {
        let named = |source: Option<String>| source.unwrap_or_else(|| name.to_owned());
        match self {
            Kind::File(files) => run_files(files, name, sink, around, cancel).await,
            Kind::Journal(journal) => {
                let usual = JournalOptions::default();
                let options = JournalOptions {
                    program: journal.program.unwrap_or(usual.program),
                    source: journal.source,
                    lines: journal.lines.unwrap_or(usual.lines),
                    state: around.state,
                    drain: around.drain,
                };
                run_journal_source(&sink, options, cancel).await
            }
            Kind::Command(command) => {
                let options = OutputOptions {
                    source: named(command.source),
                    command: command.command,
                    wait: command.wait,
                };
                run_output_source(&sink, options, cancel).await
            }
            Kind::Stdin(stdin) => {
                let options = StreamOptions {
                    source: named(stdin.source),
                    severity: Severity::INFO,
                    wait: true,
                };
                let echo = None::<tokio::io::Stdout>;
                run_stream_source(&sink, options, tokio::io::stdin(), echo, cancel).await
            }
            Kind::Syslog(options) => run_syslog_source(&sink, options, cancel).await,
            Kind::Kmsg(kmsg) => {
                let options = KmsgOptions {
                    state: around.state,
                    drain: around.drain,
                    ..kmsg
                };
                run_kmsg_source(&sink, options, cancel).await
            }
        }
    }
}

/// Every file in a task of its own; when one fails, all end.
async fn run_files(
    files: Files,
    name: &str,
    sink: Sink,
    around: Surroundings,
    cancel: CancellationToken,
) -> Result<(), SourceError> {
    let source = files.source.unwrap_or_else(|| name.to_owned());
    let start = match files.from {
        From::Beginning => StartAt::Beginning,
        From::End => StartAt::End,
    };
    let mut tasks = JoinSet::new();
    let cancel = cancel.child_token();
    for path in files.paths {
        let options = FileOptions {
            source: Some(source.clone()),
            start,
            state: around.state.clone(),
            drain: around.drain,
            ..FileOptions::new(path)
        };
        let (sink, cancel) = (sink.clone(), cancel.clone());
        tasks.spawn(async move { run_file_source(&sink, options, cancel).await });
    }
    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.unwrap_or_else(|error| Err(SourceError::Ended(error.to_string())));
        if ended.is_err() && result.is_ok() {
            cancel.cancel();
            result = ended;
        }
    }
    result
}
