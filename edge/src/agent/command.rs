//! Source: a command's output. Its stdout is INFO, its stderr ERROR. As a wrapper around a service both
//! stay visible, signals are passed on, and whatever happens to broker, spool or memory, the command
//! is never held up. As one source of several it is a child in the background that ends with it.

use std::{
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use thinglog_schemas::Severity;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use super::{
    SourceError,
    entries::TextOptions,
    pipe::{StreamOptions, run_stream_source},
    sink::Sink,
};

/// How long output is read on after the command ended: something it started may hold its streams
/// open for ever.
const AFTER_EXIT: Duration = Duration::from_secs(1);

/// What to run.
#[derive(Clone, Debug)]
pub struct CommandOptions {
    /// The program and its arguments; not empty.
    pub command: Vec<OsString>,
    /// The source of the events.
    pub source: String,
    /// How its output is read as lines, and lines as events.
    pub text: TextOptions,
    /// The terminal sends its signals to the command as well: do not pass those on.
    pub at_a_terminal: bool,
}

/// A command as one source of several.
#[derive(Clone, Debug)]
pub(crate) struct OutputOptions {
    /// The program and its arguments; not empty.
    pub(crate) command: Vec<String>,
    /// The source of the events.
    pub(crate) source: String,
    /// It may be held up while there is no room for its lines.
    pub(crate) wait: bool,
    /// How its output is read.
    pub(crate) text: TextOptions,
}

/// Carries what a command says until it ends, or ends it on `cancel`. An end that is no success is
/// an error.
pub(crate) async fn run_output_source(
    sink: &Sink,
    options: OutputOptions,
    cancel: CancellationToken,
) -> Result<(), SourceError> {
    let command: Vec<OsString> = options.command.iter().map(OsString::from).collect();
    let program = options.command.first().cloned().unwrap_or_default();
    let failed = |source| SourceError::Io {
        what: program.clone(),
        source,
    };
    let mut child = prepare(&command)
        .and_then(|mut command| {
            // A group of its own: what it starts ends with it.
            command.stdin(Stdio::null()).process_group(0);
            command.kill_on_drop(true).spawn()
        })
        .map_err(failed)?;
    let stream = |severity| StreamOptions {
        source: options.source.clone(),
        severity,
        wait: options.wait,
        text: options.text.clone(),
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let silent = None::<tokio::io::Stdout>;
    let out = read(sink, stream(Severity::INFO), stdout, silent, &cancel);
    let silent = None::<tokio::io::Stderr>;
    let err = read(sink, stream(Severity::ERROR), stderr, silent, &cancel);
    let (out, err) = tokio::join!(out, err);
    out.and(err)?;
    if cancel.is_cancelled() {
        end(&mut child).await;
        return Ok(());
    }
    let status = tokio::select! {
        status = child.wait() => status.map_err(failed)?,
        () = cancel.cancelled() => {
            end(&mut child).await;
            return Ok(());
        }
    };
    match status.success() {
        true => Ok(()),
        false => Err(SourceError::Ended(format!("{program}: {status}"))),
    }
}

/// SIGTERM, and SIGKILL to whoever does not listen.
async fn end(child: &mut Child) {
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    for signal in [Signal::TERM, Signal::KILL] {
        let Some(group) = group else { return };
        if let Err(error) = kill_process_group(group, signal) {
            tracing::debug!(%error, "a command could not be ended");
        }
        if tokio::time::timeout(AFTER_EXIT, child.wait()).await.is_ok() {
            return;
        }
    }
}

async fn read(
    sink: &Sink,
    options: StreamOptions,
    input: Option<impl AsyncRead + Unpin>,
    echo: Option<impl AsyncWrite + Unpin>,
    cancel: &CancellationToken,
) -> Result<(), SourceError> {
    match input {
        Some(input) => run_stream_source(sink, options, input, echo, cancel.clone()).await,
        None => Ok(()),
    }
}

/// Runs a command to its end and returns its exit code, as a shell would give it: 127 when there is
/// no such program, 126 when it cannot be run, 128 and the signal's number when one ended it.
pub async fn run_command(sink: &Sink, options: CommandOptions) -> Result<u8, SourceError> {
    let child = prepare(&options.command).and_then(|mut command| command.spawn());
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            let program = options.command.first().cloned().unwrap_or_default();
            let program = program.display();
            tracing::error!(%program, %error, "the command cannot be run");
            return Ok(match error.kind() {
                io::ErrorKind::NotFound => 127,
                _ => 126,
            });
        }
    };
    let stop = CancellationToken::new();
    let stream = |severity| StreamOptions {
        source: options.source.clone(),
        severity,
        text: options.text.clone(),
        wait: false,
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let shown = Some(tokio::io::stdout());
    let out = read(sink, stream(Severity::INFO), stdout, shown, &stop);
    let shown = Some(tokio::io::stderr());
    let err = read(sink, stream(Severity::ERROR), stderr, shown, &stop);
    let ended = CancellationToken::new();
    let end = async {
        let status = wait(&mut child, options.at_a_terminal).await;
        ended.cancel();
        tokio::spawn({
            let stop = stop.clone();
            async move {
                tokio::time::sleep(AFTER_EXIT).await;
                stop.cancel();
            }
        });
        status
    };
    let shown = async {
        tokio::select! {
            (out, err) = async { tokio::join!(out, err) } => out.and(err),
            // Whoever should read what is shown may never do so.
            told = told_to_end(&ended) => told.map_err(|source| SourceError::Io {
                what: "signals".to_owned(),
                source,
            }),
        }
    };
    let (status, shown) = tokio::join!(end, shown);
    shown?;
    let status = status.map_err(|source| SourceError::Io {
        what: "the command".to_owned(),
        source,
    })?;
    Ok(code(status))
}

/// With its output piped; not started yet.
fn prepare(command: &[OsString]) -> io::Result<Command> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no command given"))?;
    let mut command = Command::new(program);
    command.args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// Waits for the command, passing signals on.
async fn wait(child: &mut Child, at_a_terminal: bool) -> io::Result<ExitStatus> {
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let pass_on = |signal: Signal| {
        if let Some(pid) = pid
            && let Err(error) = kill_process(pid, signal)
        {
            tracing::debug!(%error, "a signal could not be passed on");
        }
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut user1 = signal(SignalKind::user_defined1())?;
    let mut user2 = signal(SignalKind::user_defined2())?;
    loop {
        tokio::select! {
            status = child.wait() => return status,
            _ = terminate.recv() => pass_on(Signal::TERM),
            _ = interrupt.recv() => if !at_a_terminal { pass_on(Signal::INT) },
            _ = quit.recv() => if !at_a_terminal { pass_on(Signal::QUIT) },
            _ = hangup.recv() => if !at_a_terminal { pass_on(Signal::HUP) },
            _ = user1.recv() => pass_on(Signal::USR1),
            _ = user2.recv() => pass_on(Signal::USR2),
        }
    }
}

/// A signal to end that comes after the command `ended`: there is nobody left to pass it on to.
async fn told_to_end(ended: &CancellationToken) -> io::Result<()> {
    ended.cancelled().await;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

fn code(status: ExitStatus) -> u8 {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    };
    u8::try_from(code).unwrap_or(1)
}
