//! Source: systemd's journal, through `journalctl -o json -f`. The cursor is remembered once
//! everything before it is durable; the journal itself keeps what cannot be sent yet.

use std::{
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use serde_json::{Map, Value};
use thinglog_schemas::{Severity, batch::MAX_MESSAGE};
use tokio::{
    io::{AsyncReadExt, BufReader},
    process::{Child, ChildStdout, Command},
};
use tokio_util::sync::CancellationToken;

use super::{
    SourceError,
    keeper::Keeper,
    lines::{Line, Lines},
    sink::Sink,
    state::StateDir,
};
use crate::{Record, backoff::Backoff, clock};

/// What to carry of the journal.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// The program to ask; `journalctl` from the path unless a test has another.
    pub program: PathBuf,
    /// The source of all events; `None`: the unit of each, else its identifier.
    pub source: Option<String>,
    /// How many past entries to begin with when no cursor is remembered.
    pub lines: u32,
    /// Where to remember the cursor; `None`: nowhere.
    pub state: Option<StateDir>,
    /// How long events may take to become durable at the end.
    pub drain: Duration,
}

impl Default for JournalOptions {
    fn default() -> JournalOptions {
        JournalOptions {
            program: "journalctl".into(),
            source: None,
            lines: 100,
            state: None,
            drain: Duration::from_secs(5),
        }
    }
}

/// What is asked for of an entry, beside cursor and time, which always come. All of it: without
/// `--all`, what is longer than 4 KiB comes as null.
pub(crate) const FIELDS: [&str; 6] = [
    "MESSAGE",
    "PRIORITY",
    "SYSLOG_IDENTIFIER",
    "_SYSTEMD_UNIT",
    "_PID",
    "_TRANSPORT",
];
/// The longest entry that is read, bytes: a message at its limit, with every byte escaped or written
/// as a number.
pub(crate) const MAX_ENTRY: usize = 8 * MAX_MESSAGE;

/// Follows the journal until `cancel`. `journalctl` is started again when it ends.
pub async fn run_journal_source(
    sink: &Sink,
    options: JournalOptions,
    cancel: CancellationToken,
) -> Result<(), SourceError> {
    let mut keeper: Keeper<String> = Keeper::new(options.state.clone(), "journald".to_owned());
    let mut cursor = keeper.load();
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    loop {
        let started = clock::mono();
        let before = cursor.clone();
        let child = start(&options, cursor.as_deref())?;
        let ended = follow(child, sink, &options, &mut cursor, &mut keeper, &cancel).await;
        if cancel.is_cancelled() {
            keeper.finish(cursor, sink.publisher(), options.drain).await;
            return Ok(());
        }
        let status = ended.map_err(|source| SourceError::Io {
            what: options.program.display().to_string(),
            source,
        })?;
        // A signal says nothing about the cursor.
        let refused = status.code().is_some_and(|code| code != 0);
        if refused
            && cursor == before
            && cursor.is_some()
            && started.elapsed() < Duration::from_secs(5)
        {
            tracing::warn!(
                "the journal no longer knows the remembered cursor; entries may be missing"
            );
            cursor = None;
        }
        if started.elapsed() > Duration::from_secs(60) {
            backoff.reset();
        }
        tracing::warn!(%status, "journalctl ended; starting it again");
        tokio::select! {
            () = tokio::time::sleep(backoff.next(crate::random())) => {}
            () = cancel.cancelled() => {
                keeper.finish(cursor, sink.publisher(), options.drain).await;
                return Ok(());
            }
        }
    }
}

fn start(options: &JournalOptions, cursor: Option<&str>) -> Result<Child, SourceError> {
    let mut command = Command::new(&options.program);
    command.args(["-o", "json", "--follow", "--no-pager", "--all"]);
    command.arg(format!("--output-fields={}", FIELDS.join(",")));
    match cursor {
        // Without `--no-tail`, following begins ten entries before the end.
        Some(cursor) => command.args(["--no-tail", "--after-cursor", cursor]),
        None => command.args(["--lines", &options.lines.to_string()]),
    };
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| not_started(&options.program, source))
}

/// Why the journal's program could not be started.
pub(crate) fn not_started(program: &Path, source: io::Error) -> SourceError {
    let what = program.display().to_string();
    match source.kind() {
        io::ErrorKind::NotFound => SourceError::NoJournal { program: what },
        _ => SourceError::Io { what, source },
    }
}

async fn follow(
    mut child: Child,
    sink: &Sink,
    options: &JournalOptions,
    cursor: &mut Option<String>,
    keeper: &mut Keeper<String>,
    cancel: &CancellationToken,
) -> io::Result<ExitStatus> {
    let Some(stdout) = child.stdout.take() else {
        return child.wait().await;
    };
    let mut stdout: BufReader<ChildStdout> = BufReader::new(stdout);
    let mut lines = Lines::up_to(MAX_ENTRY);
    let mut buffer = vec![0; 64 << 10];
    let mut entries = Vec::new();
    loop {
        let read = tokio::select! {
            read = stdout.read(&mut buffer) => read?,
            // Places become durable while nothing is read, too.
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                if let Some(cursor) = &*cursor {
                    keeper.offer(cursor.clone(), sink.publisher());
                }
                continue;
            }
            () = cancel.cancelled() => break,
        };
        if read == 0 {
            break;
        }
        lines.feed(&buffer[..read], |line| {
            entries.extend(entry(line, options.source.as_deref()));
        });
        for (record, place) in entries.drain(..) {
            let sent = tokio::select! {
                sent = sink.emit_waiting(record) => sent,
                () = cancel.cancelled() => false,
            };
            if !sent {
                child.start_kill()?;
                return child.wait().await;
            }
            *cursor = place.or(cursor.take());
        }
        if let Some(cursor) = &*cursor {
            keeper.offer(cursor.clone(), sink.publisher());
        }
    }
    child.start_kill()?;
    child.wait().await
}

/// One line of `journalctl -o json` to a record and its cursor. Lines that are no objects are none
/// of the journal's.
pub(crate) fn entry(line: Line<'_>, source: Option<&str>) -> Option<(Record, Option<String>)> {
    if line.truncated {
        let mut record = Record::new(source.unwrap_or("journal"), Severity::INFO, TOO_LONG);
        record.truncated = true;
        return Some((record, None));
    }
    let fields: Map<String, Value> = serde_json::from_slice(line.bytes)
        .inspect_err(|error| tracing::warn!(%error, "an entry of the journal cannot be read"))
        .ok()?;
    let text = |key: &str| fields.get(key).and_then(Value::as_str);
    let identifier = text("SYSLOG_IDENTIFIER");
    let source = match source {
        Some(source) => source,
        None => unit(text("_SYSTEMD_UNIT"))
            .or(identifier)
            .or_else(|| text("_TRANSPORT"))
            .unwrap_or("journal"),
    };
    let priority = text("PRIORITY").and_then(|priority| priority.parse().ok());
    let severity = priority.map_or(Severity::INFO, Severity::from_syslog);
    let message = fields.get("MESSAGE").map(message).unwrap_or_default();
    let mut record = Record::new(source, severity, message);
    let micros = text("__REALTIME_TIMESTAMP").and_then(|micros| micros.parse::<u64>().ok());
    record.time = micros.map(|micros| micros.saturating_mul(1000));
    if let Some(identifier) = identifier.filter(|identifier| *identifier != source) {
        record = record.with("identifier", identifier);
    }
    if let Some(pid) = text("_PID").and_then(|pid| pid.parse::<u64>().ok()) {
        record = record.with("pid", pid);
    }
    Some((record, text("__CURSOR").map(str::to_owned)))
}

/// A service's name without its suffix. Scopes (login sessions, containers) come without end: their
/// identifier says more.
fn unit(unit: Option<&str>) -> Option<&str> {
    let unit = unit?;
    match unit.rsplit_once('.') {
        Some((name, "service")) => Some(name),
        Some((_, "scope" | "slice")) => None,
        _ => Some(unit),
    }
}

/// Stands for what was too long to be passed on.
const TOO_LONG: &str = "(an entry of the journal that is too long)";

/// Text, or bytes as an array of numbers when it is not UTF-8; null when journalctl held it back for
/// its size.
fn message(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(bytes) => {
            let byte = |value: &Value| value.as_u64().and_then(|byte| u8::try_from(byte).ok());
            let bytes: Vec<u8> = bytes.iter().filter_map(byte).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        Value::Null => TOO_LONG.to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> (Record, Option<String>) {
        let line = Line {
            bytes: json.as_bytes(),
            truncated: false,
        };
        entry(line, None).unwrap()
    }

    #[test]
    fn an_entry_gives_unit_priority_time_and_cursor() {
        let (record, cursor) = parse(
            r#"{"__CURSOR":"s=1;i=2","__REALTIME_TIMESTAMP":"1767225600000001","PRIORITY":"4",
                "_SYSTEMD_UNIT":"nginx.service","SYSLOG_IDENTIFIER":"nginx","_PID":"7","MESSAGE":"hot"}"#,
        );
        assert_eq!(&*record.source, "nginx");
        assert_eq!(record.severity, Severity::WARN);
        assert_eq!(record.time, Some(1_767_225_600_000_001_000));
        assert_eq!(record.message, "hot");
        assert_eq!(record.attributes["pid"], 7);
        assert!(!record.attributes.contains_key("identifier"));
        assert_eq!(cursor.as_deref(), Some("s=1;i=2"));
    }

    #[test]
    fn sessions_and_the_kernel_go_by_their_identifier() {
        let (record, _) = parse(
            r#"{"_SYSTEMD_UNIT":"session-3.scope","SYSLOG_IDENTIFIER":"sudo","MESSAGE":"m"}"#,
        );
        assert_eq!(&*record.source, "sudo");
        let (record, _) =
            parse(r#"{"_TRANSPORT":"kernel","SYSLOG_IDENTIFIER":"kernel","MESSAGE":"m"}"#);
        assert_eq!(&*record.source, "kernel");
        let (record, _) = parse(r#"{"MESSAGE":"m"}"#);
        assert_eq!(&*record.source, "journal");
    }

    #[test]
    fn a_message_that_is_not_text_is_read_from_its_bytes() {
        let (record, _) = parse(r#"{"MESSAGE":[104,105,255]}"#);
        assert_eq!(record.message, "hi\u{fffd}");
    }

    #[test]
    fn what_is_no_entry_is_skipped() {
        let line = Line {
            bytes: b"-- No entries --",
            truncated: false,
        };
        assert!(entry(line, None).is_none());
    }

    #[test]
    fn an_entry_beyond_all_limits_leaves_a_trace() {
        let line = Line {
            bytes: br#"{"MESSAGE":"aaa"#,
            truncated: true,
        };
        let (record, cursor) = entry(line, None).unwrap();
        assert!(record.truncated);
        assert_eq!((&*record.message, cursor), (TOO_LONG, None));
    }
}
