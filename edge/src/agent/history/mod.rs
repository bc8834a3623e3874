//! Reading back what a source logged earlier, from wherever it still is: log files and their rotated
//! forms, the systemd journal, containers' logs, the kernel's. Readers give records in the order they were logged and know nothing of
//! who asks; what is wanted of them is decided by the asker.

mod files;
mod journal;
mod none;
mod ring;

use std::{future::Future, pin::Pin};

use thinglog_schemas::name;
use tokio::sync::mpsc;

use super::SourceError;
use crate::Record;
pub use files::FileHistory;
pub use journal::JournalHistory;
pub(crate) use none::NoHistory;
pub(crate) use ring::RingHistory;

/// What is asked of a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Nanoseconds since the Unix epoch. Readers may give more than the span, never less.
    pub from: u64,
    /// See `from`.
    pub to: u64,
    /// Names of sources, as in topics; none means all.
    pub sources: Vec<String>,
}

impl Span {
    /// Whether events of `source` are wanted.
    pub(crate) fn wants(&self, source: &str) -> bool {
        let encoded = name::encode(source);
        self.sources.is_empty() || self.sources.iter().any(|wanted| *wanted == encoded)
    }
}

/// A part of what was read, in order.
#[derive(Debug, Default)]
pub struct Block {
    /// What it holds; every record has a time.
    pub records: Vec<Past>,
    /// Lines and entries behind it, those that no record was made of included.
    pub lines: u64,
}

/// A record of earlier.
#[derive(Debug)]
pub struct Past {
    /// As the source would publish it.
    pub record: Record,
    /// It did not say when it happened: its time is that of a neighbour or of its file.
    pub estimated: bool,
}

/// Whether a history has events of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covers {
    /// It is one of its sources.
    Yes,
    /// Nobody knows before reading: a journal has whatever units there are.
    Maybe,
    /// It is not.
    No,
}

/// How a reading ends, in its own time.
pub type Reading<'a> = Pin<Box<dyn Future<Output = Result<(), SourceError>> + Send + 'a>>;

/// A source that can be read back.
pub trait History: Send + Sync {
    /// The names it is known by, as in topics, as far as they can be told.
    fn sources(&self) -> Vec<String>;

    /// Whether events of this source (as in topics) may be there.
    fn covers(&self, source: &str) -> Covers;

    /// Gives what was logged within the span, in order; ends early when nobody listens any more.
    fn read(&self, span: Span, out: mpsc::Sender<Block>) -> Reading<'_>;
}
