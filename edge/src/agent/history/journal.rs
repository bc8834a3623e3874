//! History of the systemd journal: `journalctl` asked for a span of time.

use std::process::Stdio;

use thinglog_schemas::name;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
    sync::mpsc,
};

use super::{Block, Covers, History, Past, Reading, Span};
use crate::agent::{
    SourceError,
    journald::{FIELDS, JournalOptions, MAX_ENTRY, entry, not_started},
    lines::Lines,
};

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;
/// What is kept of what journalctl complains about, bytes.
const MAX_COMPLAINT: u64 = 1024;

/// The journal of one configured source.
#[derive(Clone, Debug)]
pub struct JournalHistory {
    options: JournalOptions,
}

impl JournalHistory {
    /// Of what these options follow.
    pub fn new(options: JournalOptions) -> JournalHistory {
        JournalHistory { options }
    }
}

impl History for JournalHistory {
    fn sources(&self) -> Vec<String> {
        let fixed = self.options.source.iter();
        fixed
            .map(|source| name::encode(source).into_owned())
            .collect()
    }

    fn covers(&self, source: &str) -> Covers {
        match &self.options.source {
            None => Covers::Maybe,
            Some(fixed) if name::encode(fixed) == source => Covers::Yes,
            Some(_) => Covers::No,
        }
    }

    fn read(&self, span: Span, out: mpsc::Sender<Block>) -> Reading<'_> {
        Box::pin(read(&self.options, span, out))
    }
}

async fn read(
    options: &JournalOptions,
    span: Span,
    out: mpsc::Sender<Block>,
) -> Result<(), SourceError> {
    let failed = |source| SourceError::Io {
        what: options.program.display().to_string(),
        source,
    };
    let mut child = Command::new(&options.program)
        .args(["-o", "json", "--no-pager", "--all", "--quiet"])
        .arg(format!("--output-fields={}", FIELDS.join(",")))
        // Whole seconds around the span; what lies beyond is left to who asked.
        .arg(format!("--since=@{}", span.from / 1_000_000_000))
        .arg(format!("--until=@{}", span.to / 1_000_000_000 + 1))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| not_started(&options.program, source))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (listening, complaint) = tokio::join!(
        async {
            match stdout {
                Some(stdout) => entries(stdout, options, &span, &out).await,
                None => Ok(true),
            }
        },
        async {
            match stderr {
                Some(stderr) => complaint(stderr).await,
                None => String::new(),
            }
        }
    );
    if !listening.map_err(failed)? {
        return Ok(());
    }
    let status = child.wait().await.map_err(failed)?;
    match status.success() {
        true => Ok(()),
        false => Err(SourceError::Options(format!(
            "journalctl {status}: {complaint}"
        ))),
    }
}

/// False when nobody listens any more; the reader is then dropped, and journalctl ends by that.
async fn entries(
    mut stdout: impl AsyncRead + Unpin,
    options: &JournalOptions,
    span: &Span,
    out: &mpsc::Sender<Block>,
) -> std::io::Result<bool> {
    let mut lines = Lines::up_to(MAX_ENTRY);
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = stdout.read(&mut buffer).await?;
        if read == 0 {
            return Ok(true);
        }
        let mut block = Block::default();
        lines.feed(&buffer[..read], |line| {
            block.lines += 1;
            let Some((mut record, _)) = entry(line, options.source.as_deref()) else {
                return;
            };
            if span.wants(&record.source) {
                let estimated = record.time.is_none();
                record.time.get_or_insert(span.to);
                block.records.push(Past { record, estimated });
            }
        });
        if out.send(block).await.is_err() {
            return Ok(false);
        }
    }
}

/// The beginning of what is said; the rest is read and forgotten, so that nothing waits for it.
async fn complaint(mut stderr: impl AsyncRead + Unpin) -> String {
    let mut text = Vec::new();
    let _ = (&mut stderr)
        .take(MAX_COMPLAINT)
        .read_to_end(&mut text)
        .await;
    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&text).trim().to_owned()
}
