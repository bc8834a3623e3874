//! Source: lines from a stream, waited with while there is no room for them.

use std::time::{Duration, Instant};

use thinglog_schemas::Severity;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::{
    SourceError,
    entries::{Entries, TextOptions},
    recognise::Recogniser,
    sink::Sink,
};
use crate::{Record, clock};

/// The source and severity of a stream's lines.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// The source of the events.
    pub source: String,
    /// For lines that do not say.
    pub severity: Severity,
    /// How its bytes are read as lines, and lines as events.
    pub text: TextOptions,
    /// Wait with the stream while there is no room; otherwise events are dropped, least grave first.
    pub wait: bool,
}

/// What is already there when a stream that cannot wait is cancelled is still read, up to so many
/// bytes: the most that a pipe holds by default, many times over.
const AFTER_CANCEL: usize = 1 << 20;

/// Publishes the lines of `input` to its end or until `cancel`, and copies every byte to `echo`
/// first. An echo that cannot be written to any more is done without.
pub async fn run_stream_source(
    sink: &Sink,
    options: StreamOptions,
    mut input: impl AsyncRead + Unpin,
    mut echo: Option<impl AsyncWrite + Unpin>,
    cancel: CancellationToken,
) -> Result<(), SourceError> {
    let mut recogniser =
        Recogniser::new(&options.source, options.severity).reading(options.text.of_lines());
    let mut entries = Entries::new(&options.text);
    let mut buffer = vec![0; 64 << 10];
    let mut records: Vec<Record> = Vec::new();
    let mut left = AFTER_CANCEL;
    while left > 0 {
        let read = tokio::select! {
            biased;
            // Who can wait keeps what was not read yet.
            () = cancel.cancelled(), if options.wait => break,
            read = input.read(&mut buffer) => read.map_err(|source| SourceError::Io {
                what: format!("the stream of {}", options.source),
                source,
            })?,
            () = cancel.cancelled() => break,
            () = quiet(entries.due()) => {
                entries.flush(|line, _| records.push(recogniser.record(line)));
                emit(sink, &mut records, options.wait, &cancel).await;
                continue;
            }
        };
        if read == 0 {
            break;
        }
        if cancel.is_cancelled() {
            left = left.saturating_sub(read);
        }
        copy(&mut echo, &buffer[..read]).await;
        entries.feed(&buffer[..read], clock::mono(), |line, _| {
            records.push(recogniser.record(line));
        });
        emit(sink, &mut records, options.wait, &cancel).await;
    }
    entries.finish(clock::mono(), |line, _| {
        records.push(recogniser.record(line));
    });
    emit(sink, &mut records, options.wait, &cancel).await;
    Ok(())
}

/// Until what is held is complete.
async fn quiet(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
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

async fn emit(sink: &Sink, records: &mut Vec<Record>, wait: bool, cancel: &CancellationToken) {
    for record in records.drain(..) {
        if !wait {
            sink.emit(record);
            continue;
        }
        tokio::select! {
            biased;
            _ = sink.emit_waiting(record) => {}
            // What was read cannot be read again: the last lines get what time there is.
            () = grace(cancel) => return,
        }
    }
}

async fn grace(cancel: &CancellationToken) {
    cancel.cancelled().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sink without a broker, and a stream that never waits.
    fn parts() -> (Sink, StreamOptions) {
        let publisher = crate::Publisher::builder("lamp-7").broker("127.0.0.1", 1);
        let options = StreamOptions {
            source: "sh".into(),
            severity: Severity::INFO,
            text: TextOptions::default(),
            wait: false,
        };
        (publisher.start().unwrap().into(), options)
    }

    #[test]
    fn what_is_already_there_when_a_stream_is_cancelled_is_still_read() {
        let (sink, options) = parts();
        let input = "a line\n".repeat(18_000);
        let mut echo = Vec::new();
        let cancel = CancellationToken::new();
        cancel.cancel();
        let reading = run_stream_source(&sink, options, input.as_bytes(), Some(&mut echo), cancel);
        crate::park::block_on(reading).unwrap();
        assert_eq!(echo, input.as_bytes());
        assert_eq!(sink.publisher().counters().accepted, 18_000);
    }

    #[test]
    fn lines_that_belong_together_are_one_event() {
        let (sink, options) = parts();
        let text = serde_json::from_str(r#"{"multiline": "indent"}"#).unwrap();
        let options = StreamOptions { text, ..options };
        let input = &b"one\n  a\n  b\ntwo\n"[..];
        let echo = None::<Vec<u8>>;
        let reading = run_stream_source(&sink, options, input, echo, CancellationToken::new());
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime
            .enable_time()
            .build()
            .unwrap()
            .block_on(reading)
            .unwrap();
        assert_eq!(sink.publisher().counters().accepted, 2);
    }

    #[test]
    fn a_stream_without_end_does_not_outlive_its_cancellation() {
        let (sink, options) = parts();
        let cancel = CancellationToken::new();
        cancel.cancel();
        let echo = None::<Vec<u8>>;
        let input = tokio::io::repeat(b'x');
        let reading = run_stream_source(&sink, options, input, echo, cancel);
        crate::park::block_on(reading).unwrap();
        assert_eq!(sink.publisher().counters().accepted, 1);
    }
}
