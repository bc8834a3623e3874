//! The device agent: every log of a device into one publisher, as configured, or one source of it
//! straight from the command line.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agent;
mod check;
mod cli;
mod config;
mod control;
mod notify;
mod report;
mod setup;
mod watchdog;

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::{CommandFactory, Parser};
use thinglog_edge::{
    Publisher,
    agent::{
        CommandOptions, FilesOptions, JournalOptions, Sink, StartAt, StreamOptions, TextOptions,
        run_command, run_files_source, run_journal_source, run_stream_source,
    },
};
use thinglog_schemas::Severity;
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{
    Layer, filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt,
};

use cli::{Action, Cli, From};
use config::Loaded;
use control::Request;

/// Events were left undelivered.
const UNDELIVERED: u8 = 3;
/// Signals to end that come together are one: timeout(1) sends its own twice.
const TOGETHER: Duration = Duration::from_millis(300);
/// Nothing moved any more, and starting anew did not work either.
const STALLED: u8 = 4;
/// Address space for the stack of a thread that reads files; only what is used of it takes memory.
const STACK: usize = 2 << 20;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Action::Completions { shell } = cli.action {
        let mut command = Cli::command();
        clap_complete::generate(shell, &mut command, "thinglog-edge", &mut io::stdout());
        return ExitCode::SUCCESS;
    }
    log_to_stderr();
    let ended = act(cli);
    ended.unwrap_or_else(|error| {
        complain(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}

fn act(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { options, action } = cli;
    let usual = matches!(
        action,
        Action::Start | Action::Check | Action::Status { .. } | Action::Upload
    );
    let file = config::file(options.config.as_deref(), usual);
    let loaded = match config::load(file.as_deref(), options.given()) {
        Ok(loaded) => loaded,
        Err(problems) => {
            problems
                .iter()
                .for_each(|problem| complain(&problem.to_string()));
            return Ok(ExitCode::FAILURE);
        }
    };
    if !matches!(action, Action::Status { .. } | Action::Upload) {
        loaded.warnings.iter().for_each(|warning| complain(warning));
    }
    match action {
        Action::Check => Ok(checked(&loaded)),
        Action::Status { json } => {
            let json = json || !io::stdout().is_terminal();
            Ok(agent::ask(&loaded, Request::Status, json))
        }
        Action::Upload => Ok(agent::ask(&loaded, Request::Upload, true)),
        Action::Start => drive(|_| agent::run(options, file, loaded)),
        shortcut => {
            let publisher = setup::publisher(&loaded).start()?;
            let source = options.source;
            drive(|_| run(loaded, source, shortcut, publisher))
        }
    }
}

/// One thread does it all, but for what blocks.
fn drive<F: Future<Output = anyhow::Result<ExitCode>>>(
    work: impl FnOnce(&Runtime) -> F,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_stack_size(STACK)
        .build()
        .context("no runtime")?;
    let ended = runtime.block_on(work(&runtime));
    // A blocked read of stdin must not keep the process.
    runtime.shutdown_background();
    ended
}

fn checked(loaded: &Loaded) -> ExitCode {
    let findings = check::check(loaded);
    for warning in &findings.warnings {
        complain(&format!("{warning} (a warning)"));
    }
    for problem in &findings.problems {
        complain(&problem.to_string());
    }
    if !findings.problems.is_empty() {
        return ExitCode::FAILURE;
    }
    let file = loaded.file.as_ref().map(|file| file.display().to_string());
    let sources = loaded
        .sources
        .keys()
        .map(String::as_str)
        .collect::<Vec<_>>();
    let sources = match sources.is_empty() {
        true => "what this machine has".to_owned(),
        false => sources.join(", "),
    };
    let line = format!(
        "{} is fine: {} carries {sources} to {}\n",
        file.as_deref().unwrap_or("the configuration"),
        setup::device(loaded),
        loaded.settings.broker,
    );
    let _ = io::stdout().write_all(line.as_bytes());
    ExitCode::SUCCESS
}

/// A single source, given by the command line.
async fn run(
    loaded: Loaded,
    named: Option<String>,
    action: Action,
    publisher: Publisher,
) -> anyhow::Result<ExitCode> {
    let sink = Sink::new(publisher.clone()).with_rules(&config::common_rules(&loaded))?;
    let worked = match action {
        // It passes signals on and ends when its command does.
        Action::Run { command } => command_source(&sink, named, command).await.map(Some),
        other => sources(&loaded, &sink, named, other).await.map(|()| None),
    };
    let durable = publisher.close(loaded.settings.flush_timeout.0).await;
    let lost = undelivered(&publisher, loaded.spool().is_some());
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
    sink: &Sink,
    named: Option<String>,
    command: Vec<std::ffi::OsString>,
) -> anyhow::Result<u8> {
    let stem = command.first().map(Path::new).and_then(Path::file_stem);
    let name = stem.map(|stem| stem.to_string_lossy().into_owned());
    let options = CommandOptions {
        source: named.or(name).unwrap_or_default(),
        text: TextOptions::default(),
        at_a_terminal: io::stdin().is_terminal(),
        command,
    };
    Ok(run_command(sink, options).await?)
}

/// Runs a source to its end or to a signal.
async fn sources(
    loaded: &Loaded,
    sink: &Sink,
    named: Option<String>,
    action: Action,
) -> anyhow::Result<()> {
    let cancel = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let working = source(loaded, sink, named, action, cancel.clone());
    tokio::pin!(working);
    let mut told: Option<Instant> = None;
    loop {
        tokio::select! {
            ended = &mut working => return ended,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        match told {
            Some(first) if first.elapsed() < TOGETHER => {}
            Some(_) => anyhow::bail!("interrupted before everything was delivered"),
            None => told = Some(Instant::now()),
        }
        cancel.cancel();
    }
}

async fn source(
    loaded: &Loaded,
    sink: &Sink,
    named: Option<String>,
    action: Action,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let state = setup::state(loaded)?;
    let drain = loaded.settings.flush_timeout.0;
    match action {
        Action::Pipe { echo } => {
            let stream = StreamOptions {
                source: named.unwrap_or_else(|| "stdin".to_owned()),
                severity: Severity::INFO,
                text: TextOptions::default(),
                wait: true,
            };
            let echo = echo.then(tokio::io::stdout);
            run_stream_source(sink, stream, tokio::io::stdin(), echo, cancel).await?;
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
                drain,
                ..FilesOptions::new(paths)
            };
            if let Some(source) = named {
                files.source = source;
            }
            run_files_source(sink, files, cancel).await?;
        }
        Action::Journal { lines } => {
            let journal = JournalOptions {
                source: named.clone(),
                lines,
                state,
                drain,
                ..JournalOptions::default()
            };
            run_journal_source(sink, journal, cancel).await?;
        }
        _ => {}
    }
    Ok(())
}

/// What goes wrong with the agent itself: text for people, JSON for collectors. `THINGLOG_LOG` is a level
/// (default warn), or `TARGET=LEVEL,...`.
fn log_to_stderr() {
    let quiet = || Targets::new().with_default(tracing::Level::WARN);
    let filter = match std::env::var("THINGLOG_LOG") {
        Ok(words) => words.parse().unwrap_or_else(|error| {
            complain(&format!(
                "THINGLOG_LOG={words:?} is not understood: {error}"
            ));
            quiet()
        }),
        Err(_) => quiet(),
    };
    let layer = fmt::layer()
        // It would complain to stderr of a stderr that is gone, and panic.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    let layer = match io::stderr().is_terminal() {
        true => layer.boxed(),
        false => layer.json().boxed(),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .init();
}

/// To whoever is still there to read it.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "thinglog-edge: {text}");
}
