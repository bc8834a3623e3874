//! Source: lines from a stream, waited with while there is no room for them.

use std::time::Duration;

use thinglog_schemas::Severity;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::{SourceError, lines::Lines, recognise::Recogniser};
use crate::{Publisher, Record};

/// The source and severity of a stream's lines.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// The source of the events.
    pub source: String,
    /// For lines that do not say.
    pub severity: Severity,
    /// Wait with the stream while there is no room; otherwise events are dropped, least grave first.
    pub wait: bool,
}

/// Publishes the lines of `input` to its end or until `cancel`, and copies every byte to `echo`
/// first. An echo that cannot be written to any more is done without.
pub async fn run_stream_source(
    publisher: &Publisher,
    options: StreamOptions,
    mut input: impl AsyncRead + Unpin,
    mut echo: Option<impl AsyncWrite + Unpin>,
    cancel: CancellationToken,
) -> Result<(), SourceError> {
    let mut recogniser = Recogniser::new(&options.source, options.severity);
    let mut lines = Lines::default();
    let mut buffer = vec![0; 64 << 10];
    let mut records: Vec<Record> = Vec::new();
    loop {
        let read = tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            read = input.read(&mut buffer) => read.map_err(|source| SourceError::Io {
                what: format!("the stream of {}", options.source),
                source,
            })?,
        };
        if read == 0 {
            break;
        }
        copy(&mut echo, &buffer[..read]).await;
        lines.feed(&buffer[..read], |line| {
            records.push(recogniser.record(line))
        });
        emit(publisher, &mut records, options.wait, &cancel).await;
    }
    lines.finish(|line| records.push(recogniser.record(line)));
    emit(publisher, &mut records, options.wait, &cancel).await;
    Ok(())
}

async fn copy(echo: &mut Option<impl AsyncWrite + Unpin>, bytes: &[u8]) {
    let Some(out) = echo else { return };
    let mut written = out.write_all(bytes).await;
    if written.is_ok() {
        written = out.flush().await;
    }
    if let Err(error) = written {
        tracing::warn!(%error, "the lines cannot be shown any more; they are still published");
        *echo = None;
    }
}

async fn emit(
    publisher: &Publisher,
    records: &mut Vec<Record>,
    wait: bool,
    cancel: &CancellationToken,
) {
    for record in records.drain(..) {
        if !wait {
            publisher.emit(record);
            continue;
        }
        tokio::select! {
            biased;
            _ = publisher.emit_waiting(record) => {}
            // What was read cannot be read again: the last lines get what time there is.
            () = grace(cancel) => return,
        }
    }
}

async fn grace(cancel: &CancellationToken) {
    cancel.cancelled().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
}
