//! Sources of which nothing can be read back: who asks for one is told so.

use thinglog_schemas::name;
use tokio::sync::mpsc;

use super::{Block, Covers, History, Reading, Span};
use crate::agent::SourceError;

/// A source without a past.
#[derive(Clone, Debug)]
pub(crate) struct NoHistory {
    /// As it is configured.
    name: String,
    kind: &'static str,
    /// The source of its events; `None`: whatever they say.
    source: Option<String>,
}

impl NoHistory {
    pub(crate) fn new(name: &str, kind: &'static str, source: Option<String>) -> NoHistory {
        NoHistory {
            name: name.to_owned(),
            kind,
            source,
        }
    }
}

impl History for NoHistory {
    fn sources(&self) -> Vec<String> {
        Vec::new()
    }

    fn covers(&self, source: &str) -> Covers {
        let is = |own: &str| name::encode(own) == source;
        match &self.source {
            Some(own) if is(own) => Covers::Yes,
            _ if is(&self.name) => Covers::Yes,
            Some(_) => Covers::No,
            None => Covers::Maybe,
        }
    }

    fn read(&self, _span: Span, _out: mpsc::Sender<Block>) -> Reading<'_> {
        let NoHistory { name, kind, .. } = self;
        let reason = format!(
            "{name}: a source of kind {kind} keeps nothing that could be read back; what it brought was sent, or waits to be"
        );
        Box::pin(async move { Err(SourceError::Options(reason)) })
    }
}
