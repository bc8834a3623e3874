//! History of the systemd journal: `journalctl` asked for a span of time.

use thinglog_schemas::name;
use tokio::sync::mpsc;

use super::{Block, Covers, History, Past, Reading, Span};
use crate::agent::{
    SourceError,
    journald::{CHUNK, Export, JournalOptions, Own, Program, is_wanted, record},
};

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
    // Whole seconds around the span; what lies beyond is left to who asked.
    let within = [
        format!("--since=@{}", span.from / 1_000_000_000),
        format!("--until=@{}", span.to / 1_000_000_000 + 1),
    ];
    let mut program = Program::start(options, &options.arguments(&within))?;
    let own = Own::of_this_process();
    let mut export = Export::default();
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = program.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        let mut block = Block::default();
        export.feed(&buffer[..read], |entry| {
            block.lines += 1;
            if !is_wanted(&entry, options, &own) {
                return;
            }
            let mut record = record(&entry, options);
            if span.wants(&record.source) {
                let estimated = record.time.is_none();
                record.time.get_or_insert(span.to);
                block.records.push(Past { record, estimated });
            }
        });
        // Nobody listens any more: journalctl ends with its reader.
        if out.send(block).await.is_err() {
            return Ok(());
        }
    }
    let ended = program.end(false).await?;
    match ended.status.success() {
        true => Ok(()),
        false => Err(ended.error()),
    }
}
