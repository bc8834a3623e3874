//! One source of the agent as it is configured: what kind, with which options, under which rules.

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Deserializer};
use thinglog_schemas::Severity;
use tokio_util::sync::CancellationToken;

use super::{
    DockerOptions, Encoding, FilesOptions, JournalOptions, KmsgOptions, MultilineOptions, OverRate,
    Parse, RuleOptions, Sink, SourceError, StateDir, StreamOptions, SyslogOptions, TextOptions,
    Zone,
    command::{OutputOptions, run_output_source},
    history::{FileHistory, History, JournalHistory},
    run_docker_source, run_files_source, run_journal_source, run_kmsg_source, run_stream_source,
    run_syslog_source,
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
    File(FilesOptions),
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
    /// The output of containers.
    Docker(DockerOptions),
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

impl Journal {
    fn options(&self, around: &Surroundings) -> JournalOptions {
        let usual = JournalOptions::default();
        JournalOptions {
            program: self.program.clone().unwrap_or(usual.program),
            source: self.source.clone(),
            lines: self.lines.unwrap_or(usual.lines),
            state: around.state.clone(),
            drain: around.drain,
        }
    }
}

/// `kind = "command"`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
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
    /// How characters are encoded.
    #[serde(default)]
    pub encoding: Encoding,
    /// Which lines are one event.
    pub multiline: Option<MultilineOptions>,
    /// What the lines are.
    #[serde(default)]
    pub parse: Parse,
    /// Of times that name no zone.
    #[serde(default)]
    pub timezone: Zone,
}

fn yes() -> bool {
    true
}

/// `kind = "stdin"`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stdin {
    /// The source of its events; by default the name of this source.
    pub source: Option<String>,
    /// How characters are encoded.
    pub encoding: Encoding,
    /// Which lines are one event.
    pub multiline: Option<MultilineOptions>,
    /// What the lines are.
    pub parse: Parse,
    /// Of times that name no zone.
    pub timezone: Zone,
}

/// What sources share.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Where places are remembered; `None`: nowhere.
    pub state: Option<StateDir>,
    /// How long events may take to become durable when a source ends.
    pub drain: Duration,
}

impl Kind {
    /// The words for the kinds there are.
    pub const NAMES: [&str; 7] = [
        "file", "journal", "command", "stdin", "syslog", "kmsg", "docker",
    ];

    /// Reads the options of a kind; `None`: there is no such kind.
    pub fn read<'de, D: Deserializer<'de>>(kind: &str, from: D) -> Option<Result<Kind, D::Error>> {
        Some(match kind {
            "file" => FilesOptions::deserialize(from).map(Kind::File),
            "journal" => Journal::deserialize(from).map(Kind::Journal),
            "command" => Command::deserialize(from).map(Kind::Command),
            "stdin" => Stdin::deserialize(from).map(Kind::Stdin),
            "syslog" => SyslogOptions::deserialize(from).map(Kind::Syslog),
            "kmsg" => KmsgOptions::deserialize(from).map(Kind::Kmsg),
            "docker" => DockerOptions::deserialize(from).map(Kind::Docker),
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
            Kind::Docker(_) => "docker",
        }
    }

    /// What no type says; else the key and the reason.
    pub fn validate(&self) -> Result<(), (String, String)> {
        let wrong = |key: &str, reason: &str| Err((key.to_owned(), reason.to_owned()));
        match self {
            Kind::File(files) => files.check().map_err(|error| {
                let text = error.to_string();
                let parts = text.split_once(": ").filter(|(key, _)| !key.contains(' '));
                let (key, reason) = parts.unwrap_or(("paths", &text));
                (key.to_owned(), reason.to_owned())
            }),
            Kind::Syslog(syslog)
                if syslog.udp.is_none()
                    && syslog.tcp.is_none()
                    && syslog.datagram.is_none()
                    && syslog.stream.is_none() =>
            {
                let reason =
                    "is missing, as are tcp, datagram and stream: one says where to listen";
                wrong("udp", reason)
            }
            Kind::Command(command) if command.command.is_empty() => {
                wrong("command", "names no program")
            }
            _ => Ok(()),
        }
    }

    /// What happens above the rate unless configured. Where one way in carries many sources, waiting
    /// for one of them would hold up the others.
    pub fn over_rate(&self) -> OverRate {
        match self {
            Kind::Journal(_) | Kind::Docker(_) | Kind::Syslog(_) => OverRate::Drop,
            Kind::File(_) | Kind::Command(_) | Kind::Stdin(_) | Kind::Kmsg(_) => OverRate::Wait,
        }
    }

    /// Its past, where it has one that can be read again.
    pub(crate) fn history(&self) -> Option<Arc<dyn History>> {
        match self {
            Kind::File(files) => Some(Arc::new(FileHistory::new(files.clone()))),
            Kind::Journal(journal) => {
                let options = journal.options(&Surroundings::default());
                Some(Arc::new(JournalHistory::new(options)))
            }
            _ => None,
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
            Kind::File(files) => {
                let options = FilesOptions {
                    state: around.state,
                    drain: around.drain,
                    ..files
                };
                run_files_source(&sink, options, cancel).await
            }
            Kind::Journal(journal) => {
                run_journal_source(&sink, journal.options(&around), cancel).await
            }
            Kind::Command(command) => {
                let options = OutputOptions {
                    source: named(command.source),
                    command: command.command,
                    wait: command.wait,
                    text: TextOptions {
                        encoding: command.encoding,
                        multiline: command.multiline,
                        parse: command.parse,
                        timezone: command.timezone,
                    },
                };
                run_output_source(&sink, options, cancel).await
            }
            Kind::Stdin(stdin) => {
                let options = StreamOptions {
                    source: named(stdin.source),
                    severity: Severity::INFO,
                    wait: true,
                    text: TextOptions {
                        encoding: stdin.encoding,
                        multiline: stdin.multiline,
                        parse: stdin.parse,
                        timezone: stdin.timezone,
                    },
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
            Kind::Docker(docker) => {
                let options = DockerOptions {
                    state: around.state,
                    drain: around.drain,
                    ..docker
                };
                run_docker_source(&sink, options, cancel).await
            }
        }
    }
}
