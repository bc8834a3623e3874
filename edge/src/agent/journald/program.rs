//! journalctl as a child: started, read, and ended. What it complains about is passed on.

use std::{io, path::Path, process::ExitStatus, process::Stdio};

use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStderr, ChildStdout, Command},
    task::JoinHandle,
};

use super::{
    JournalOptions,
    export::{Entry, Export},
};
use crate::agent::{SourceError, lines::Lines};

/// Bytes read at a time.
pub(crate) const CHUNK: usize = 64 << 10;
/// The longest complaint that is passed on, bytes; how many of one run are.
const MAX_COMPLAINT: usize = 1024;
const MAX_COMPLAINTS: usize = 16;

/// A running journalctl.
pub(crate) struct Program {
    child: Child,
    stdout: Option<ChildStdout>,
    /// Reads what it complains about; gives the last of it.
    complaint: Option<JoinHandle<String>>,
    name: String,
}

/// How it ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) complaint: String,
}

impl Ended {
    /// For people.
    pub(crate) fn error(&self) -> SourceError {
        let Ended { status, complaint } = self;
        SourceError::Ended(match complaint.as_str() {
            "" => format!("journalctl: {status}"),
            complaint => format!("journalctl: {complaint} ({status})"),
        })
    }
}

impl Program {
    pub(crate) fn start(
        options: &JournalOptions,
        arguments: &[String],
    ) -> Result<Program, SourceError> {
        let mut child = Command::new(&options.program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| not_started(&options.program, source))?;
        Ok(Program {
            stdout: child.stdout.take(),
            complaint: child
                .stderr
                .take()
                .map(|stderr| tokio::spawn(listen(stderr))),
            child,
            name: options.program.display().to_string(),
        })
    }

    /// What it writes; 0: nothing more comes.
    pub(crate) async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let Some(stdout) = &mut self.stdout else {
            return Ok(0);
        };
        stdout.read(buffer).await.map_err(|source| SourceError::Io {
            what: self.name.clone(),
            source,
        })
    }

    /// Waits for its end, or makes one.
    pub(crate) async fn end(mut self, kill: bool) -> Result<Ended, SourceError> {
        let failed = |source| SourceError::Io {
            what: self.name.clone(),
            source,
        };
        self.stdout = None;
        if kill {
            self.child.start_kill().map_err(failed)?;
        }
        let status = self.child.wait().await.map_err(failed)?;
        let complaint = match self.complaint {
            Some(complaint) => complaint.await.unwrap_or_default(),
            None => String::new(),
        };
        Ok(Ended { status, complaint })
    }
}

/// The first entry of what is asked for; `None`: there is none.
pub(crate) async fn first(
    options: &JournalOptions,
    arguments: &[String],
) -> Result<Option<Entry>, SourceError> {
    let mut program = Program::start(options, arguments)?;
    let mut export = Export::default();
    let mut buffer = vec![0; CHUNK];
    let mut found = None;
    while found.is_none() {
        let read = program.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        export.feed(&buffer[..read], |entry| {
            found.get_or_insert(entry);
        });
    }
    let ended = program.end(found.is_some()).await?;
    match found.is_some() || ended.status.success() {
        true => Ok(found),
        false => Err(ended.error()),
    }
}

async fn listen(mut stderr: ChildStderr) -> String {
    let mut lines = Lines::up_to(MAX_COMPLAINT);
    let mut buffer = [0; 1024];
    let (mut last, mut said) = (String::new(), 0);
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        lines.feed(&buffer[..read], |line| {
            last = line.text();
            said += 1;
            if said <= MAX_COMPLAINTS {
                tracing::warn!("journalctl: {last}");
            }
        });
    }
    last
}

/// Why the journal's program could not be started.
fn not_started(program: &Path, source: io::Error) -> SourceError {
    let what = program.display().to_string();
    match source.kind() {
        io::ErrorKind::NotFound => SourceError::NoJournal { program: what },
        _ => SourceError::Io { what, source },
    }
}
