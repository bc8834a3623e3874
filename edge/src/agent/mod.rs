//! The agent's building blocks: each carries one kind of source into a [`Sink`] until it is
//! cancelled. `thinglog-edge` puts them behind its command line; other programs may run
//! as many of them as they like.

mod command;
mod docker;
mod encoding;
mod entries;
mod file;
pub mod history;
mod http;
mod joiner;
mod journald;
mod keeper;
mod kmsg;
mod lines;
mod multiline;
mod pattern;
mod pipe;
mod recognise;
mod request;
mod rules;
mod sink;
pub mod source;
mod state;
mod supervise;
mod syslog;
pub mod units;

use std::io;

pub use command::{CommandOptions, run_command};
pub use docker::{ContainerPattern, DockerOptions, NameFrom, run_docker_source};
pub use encoding::{Encoding, UnknownEncoding};
pub use entries::TextOptions;
pub use file::{FilesOptions, StartAt, run_files_source};
pub use http::{HttpError, HttpOptions, HttpServer, KeyError};
pub use journald::{JournalOptions, JournalStart, run_journal_source};
pub use kmsg::{KmsgOptions, run_kmsg_source};
pub use multiline::MultilineOptions;
pub use pipe::{StreamOptions, run_stream_source};
pub use recognise::{LineOptions, Parse, UnknownZone, Zone};
pub use request::{Catalogue, Readable, RequestOptions, Status, run_requests};
pub use rules::{OverRate, RedactOptions, RuleError, RuleOptions};
pub use sink::{Sink, SinkCounters};
pub use state::StateDir;
pub use supervise::{BadRules, Board, Changes, SourceReport, Supervisor};
pub use syslog::{SourceFrom, SyslogListeners, SyslogOptions, run_syslog_source};

/// Why a source ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Reading or starting something failed.
    #[error("{what}: {source}")]
    Io {
        /// What was read or started.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// This machine has no systemd journal to ask.
    #[error(
        "{program} was not found: this machine seems to have no systemd journal; follow its log files instead (thinglog-edge file PATH)"
    )]
    NoJournal {
        /// What was looked for.
        program: String,
    },
    /// What is asked for cannot be done.
    #[error("{0}")]
    Options(String),
    /// A part of the source broke down.
    #[error("the source ended unexpectedly: {0}")]
    Ended(String),
}
