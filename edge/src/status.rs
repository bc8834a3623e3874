//! What a publisher tells of itself beyond its counters: whether its worker is alive, what it is
//! configured to send, and when the broker last confirmed anything.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use thinglog_schemas::{Level, Severity, config::Desired, units::Rate};

use crate::{Publisher, queue::Standing};

/// What a publisher is configured to send, and how it fares; see [`Publisher::status`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// The level of sources that `sources` does not name, as things stand.
    pub level: Option<Level>,
    /// Levels of single sources.
    pub sources: BTreeMap<String, Level>,
    /// Of the remote configuration in force.
    pub revision: Option<String>,
    /// A temporary level is in force.
    pub temporary: bool,
    /// When the broker last acknowledged a batch, ns since the Unix epoch.
    pub last_acknowledged: Option<u64>,
    /// What was dropped and declared, by level and reason.
    pub dropped_by: BTreeMap<String, BTreeMap<String, u64>>,
    /// Whether this device knows the time.
    pub clock_synced: bool,
}

impl Publisher {
    /// What is configured, and what has come of it.
    pub fn status(&self) -> Status {
        let shared = self.shared();
        let acknowledged = shared.figures.last_acknowledged.load(Relaxed);
        let queue = shared.queue.lock();
        let levels = queue.levels();
        let (level, sources, temporary) = levels.in_force();
        Status {
            level: Some(level),
            sources,
            revision: levels
                .desired()
                .map(|desired: &Desired| desired.revision.clone()),
            temporary,
            last_acknowledged: (acknowledged > 0).then_some(acknowledged),
            dropped_by: queue.counters().declared.by_name(),
            clock_synced: shared.clock.now().wall.is_some(),
        }
    }

    /// Whether the worker is gone: nothing is carried any more.
    pub fn has_ended(&self) -> bool {
        *self.shared().ended.borrow()
    }

    /// Most events of each source that this device may bring.
    pub(crate) fn rate(&self) -> Option<Rate> {
        *self.shared().rate.read()
    }

    /// What would become of an event, as far as levels go.
    pub(crate) fn standing(&self, source: &Arc<str>, severity: Severity) -> Standing {
        self.shared().queue.lock().standing(source, severity)
    }
}
