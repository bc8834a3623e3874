//! Many events of one source at once, from a source that can wait: the queue's lock, the clock and the
//! source's level are asked for once for all of them.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use thinglog_schemas::{Level, Severity};

use crate::{
    clock::Moment, entrance::Locked, publisher::Publisher, queue::Standing, record::Record,
};

/// Holds the queue's lock, so it must not live long: no longer than a few hundred events take.
pub(crate) struct Run<'a> {
    queue: Locked<'a>,
    level: Level,
    named: bool,
    now: Moment,
    keeps_places: bool,
}

impl<'a> Run<'a> {
    /// For events of `source`; `None` when the publisher has ended.
    pub(crate) fn begin(publisher: &'a Publisher, source: &Arc<str>) -> Option<Run<'a>> {
        let shared = publisher.shared();
        if *shared.ended.borrow() {
            return None;
        }
        let keeps_places = shared.figures.keeps_places.load(Relaxed);
        let now = shared.clock.moment();
        let queue = shared.queue.lock();
        let (level, named) = queue.level_of(source);
        Some(Run {
            queue,
            level,
            named,
            now,
            keeps_places,
        })
    }

    /// What would become of an event of the source.
    pub(crate) fn standing(&self, severity: Severity) -> Standing {
        Standing {
            passes: self.level.passes(severity),
            named: self.named,
        }
    }

    /// Queues an event of the source; see [`Publisher::emit_waiting`], which has to be asked when it
    /// comes back, for want of room.
    pub(crate) fn push(&mut self, mut record: Record) -> Option<Record> {
        if !self.keeps_places {
            record.mark = None;
        }
        record.cut_source();
        self.now.stamp(&mut record);
        self.queue.offer_patient(record)
    }
}
