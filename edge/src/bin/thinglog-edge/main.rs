//! The device agent: one source after the other behind a command line, into one publisher.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cli;

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::Context;
use clap::{CommandFactory, Parser};
use thinglog_edge::{
    Publisher,
    agent::{
        CommandOptions, FilesOptions, JournalOptions, Sink, StartAt, StateDir, StreamOptions,
        TextOptions, run_command, run_files_source, run_journal_source, run_stream_source,
    },
};
use thinglog_schemas::{Severity, name};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use cli::{Action, Cli, From, Options};

/// Events were left undelivered.
const UNDELIVERED: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Action::Completions { shell } = cli.action {
        let mut command = Cli::command();
        clap_complete::generate(shell, &mut command, "thinglog-edge", &mut io::stdout());
        return ExitCode::SUCCESS;
    }
    log_to_stderr();
    let ended = start(cli);
    ended.unwrap_or_else(|error| {
        complain(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let publisher = publisher(&cli.options)?;
    let ended = runtime.block_on(run(cli, publisher));
    // A blocked read of stdin must not keep the process.
    runtime.shutdown_background();
    ended
}

fn publisher(options: &Options) -> anyhow::Result<Publisher> {
    let device = options.device.clone().unwrap_or_else(host_name);
    let memory = usize::try_from(options.memory_bytes).unwrap_or(usize::MAX);
    let mut builder = Publisher::builder(&device)
        .broker(&options.broker.host, options.broker.port)
        .root(&options.root)
        .level(options.level)
        .memory_bytes(memory)
        .flush_age(options.flush)
        .backoff(options.reconnect, options.reconnect_max)
        .attribute(
            "agent",
            concat!("thinglog-edge ", env!("CARGO_PKG_VERSION")),
        );
    if let Some((user, password)) = credentials(options, &device)? {
        builder = builder.credentials(user, password);
    }
    if let Some(spool) = &options.spool {
        builder = builder.spool(spool, options.spool_bytes);
    }
    Ok(builder.start()?)
}

/// User name and password for the broker, if there are any. A password on the command line would be
/// seen by every user of the machine, so that there is no option for it.
fn credentials(options: &Options, device: &str) -> anyhow::Result<Option<(String, String)>> {
    let password = match &options.password_file {
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the password file {}", file.display()))?;
            Some(text.trim_end_matches(['\r', '\n']).to_owned())
        }
        None => std::env::var("THINGLOG_PASSWORD").ok(),
    };
    Ok(match (&options.username, password) {
        (None, None) => None,
        (user, password) => {
            let user = user
                .clone()
                .unwrap_or_else(|| name::encode(device).into_owned());
            Some((user, password.unwrap_or_default()))
        }
    })
}

fn host_name() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    if name.is_empty() {
        "device".to_owned()
    } else {
        name.into_owned()
    }
}

async fn run(cli: Cli, publisher: Publisher) -> anyhow::Result<ExitCode> {
    let Cli { options, action } = cli;
    let worked = match action {
        // It passes signals on and ends when its command does.
        Action::Run { command } => command_source(&publisher, &options, command)
            .await
            .map(Some),
        other => sources(&publisher, &options, other).await.map(|()| None),
    };
    let durable = publisher.close(options.flush_timeout).await;
    let lost = undelivered(&publisher, options.spool.is_some());
    match worked? {
        Some(code) => Ok(ExitCode::from(code)),
        None if durable && !lost => Ok(ExitCode::SUCCESS),
        None => Ok(ExitCode::from(UNDELIVERED)),
    }
}

/// Says how many events did not get where they should; true when there were any.
fn undelivered(publisher: &Publisher, spooled: bool) -> bool {
    let left = publisher.undelivered();
    let dropped = publisher.counters().dropped;
    if left > 0 {
        let place = if spooled {
            "stored or delivered"
        } else {
            "delivered"
        };
        complain(&format!("{left} events were not {place}"));
    }
    if dropped > 0 {
        complain(&format!("{dropped} events were dropped for want of room"));
    }
    left + dropped > 0
}

async fn command_source(
    publisher: &Publisher,
    options: &Options,
    command: Vec<std::ffi::OsString>,
) -> anyhow::Result<u8> {
    let stem = command.first().map(Path::new).and_then(Path::file_stem);
    let name = stem.map(|stem| stem.to_string_lossy().into_owned());
    let options = CommandOptions {
        source: options.source.clone().or(name).unwrap_or_default(),
        text: TextOptions::default(),
        at_a_terminal: io::stdin().is_terminal(),
        command,
    };
    Ok(run_command(&publisher.clone().into(), options).await?)
}

/// Runs the sources to their end or to a signal.
async fn sources(publisher: &Publisher, options: &Options, action: Action) -> anyhow::Result<()> {
    let cancel = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let working = source(publisher, options, action, cancel.clone());
    tokio::pin!(working);
    loop {
        tokio::select! {
            ended = &mut working => return ended,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if cancel.is_cancelled() {
            anyhow::bail!("interrupted before everything was delivered");
        }
        cancel.cancel();
    }
}

async fn source(
    publisher: &Publisher,
    options: &Options,
    action: Action,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let state = state_dir(options)?;
    let sink = Sink::new(publisher.clone());
    match action {
        Action::Pipe { echo } => {
            let stream = StreamOptions {
                source: options.source.clone().unwrap_or_else(|| "stdin".to_owned()),
                severity: Severity::INFO,
                text: TextOptions::default(),
                wait: true,
            };
            let echo = echo.then(tokio::io::stdout);
            run_stream_source(&sink, stream, tokio::io::stdin(), echo, cancel).await?;
        }
        Action::File { paths, from } => {
            let start = match from {
                From::Beginning => StartAt::Beginning,
                From::End => StartAt::End,
            };
            let paths = paths.iter().map(|path| path.to_string_lossy());
            let mut files = FilesOptions {
                start,
                state,
                drain: options.flush_timeout,
                ..FilesOptions::new(paths)
            };
            if let Some(source) = &options.source {
                files.source.clone_from(source);
            }
            run_files_source(&sink, files, cancel).await?;
        }
        Action::Journal { lines } => {
            let journal = JournalOptions {
                source: options.source.clone(),
                lines,
                state,
                drain: options.flush_timeout,
                ..JournalOptions::default()
            };
            run_journal_source(&sink, journal, cancel).await?;
        }
        Action::Run { .. } | Action::Completions { .. } => {}
    }
    Ok(())
}

fn state_dir(options: &Options) -> anyhow::Result<Option<StateDir>> {
    let in_spool = options.spool.as_ref().map(|spool| spool.join("positions"));
    let Some(path) = options.state.clone().or(in_spool) else {
        return Ok(None);
    };
    let state = StateDir::open(&path);
    let state = state.with_context(|| format!("--state {}", path.display()))?;
    Ok(Some(state))
}

/// What goes wrong with the agent itself: text for people, JSON for collectors.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("THINGLOG_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // It would complain to stderr of a stderr that is gone, and panic.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    if io::stderr().is_terminal() {
        subscriber.init();
    } else {
        subscriber.json().init();
    }
}

/// To whoever is still there to read it.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "thinglog-edge: {text}");
}
