//! History of what the publisher keeps in memory for the case of an error (mode `on-error`): events
//! below their level, the newest of them. Reading them takes nothing out.

use tokio::sync::mpsc;

use super::{Block, Covers, History, Past, Reading, Span};
use crate::{Publisher, agent::SourceError};

/// Records given at a time.
const BLOCK: usize = 256;

/// The ring of one publisher.
#[derive(Clone)]
pub(crate) struct RingHistory {
    publisher: Publisher,
}

impl RingHistory {
    pub(crate) fn new(publisher: Publisher) -> RingHistory {
        RingHistory { publisher }
    }
}

impl History for RingHistory {
    fn sources(&self) -> Vec<String> {
        Vec::new()
    }

    fn covers(&self, _source: &str) -> Covers {
        Covers::Maybe
    }

    fn read(&self, span: Span, out: mpsc::Sender<Block>) -> Reading<'_> {
        Box::pin(async move {
            let Some(kept) = self.publisher.ring() else {
                return Err(SourceError::Options(
                    "this device keeps no debug events: its mode of upload is not on-error".into(),
                ));
            };
            for records in kept.chunks(BLOCK) {
                let wanted = records.iter().filter(|record| span.wants(&record.source));
                let past = wanted.map(|record| Past {
                    estimated: record.time.is_none(),
                    record: record.clone(),
                });
                let block = Block {
                    records: past.collect(),
                    lines: records.len() as u64,
                };
                if out.send(block).await.is_err() {
                    break;
                }
            }
            Ok(())
        })
    }
}
