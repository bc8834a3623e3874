//! Source: a command's output. Its stdout is INFO, its stderr ERROR; both stay visible, signals are
//! passed on, and whatever happens to broker, spool or memory, the command is never held up.

use std::{
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use thinglog_schemas::Severity;
use tokio::{
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

/// Runs a command to its end and returns its exit code, as a shell would give it: 127 when there is
/// no such program, 126 when it cannot be run, 128 and the signal's number when one ended it.
pub async fn run_command(sink: &Sink, options: CommandOptions) -> Result<u8, SourceError> {
    let mut child = match spawn(&options) {
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
    let out = async {
        match stdout {
            Some(input) => {
                let echo = Some(tokio::io::stdout());
                run_stream_source(sink, stream(Severity::INFO), input, echo, stop.clone()).await
            }
            None => Ok(()),
        }
    };
    let err = async {
        match stderr {
            Some(input) => {
                let echo = Some(tokio::io::stderr());
                run_stream_source(sink, stream(Severity::ERROR), input, echo, stop.clone()).await
            }
            None => Ok(()),
        }
    };
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

fn spawn(options: &CommandOptions) -> io::Result<Child> {
    let (program, arguments) = options
        .command
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no command given"))?;
    Command::new(program)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
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
