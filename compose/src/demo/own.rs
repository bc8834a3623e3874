//! thinglog's own log as a log to carry: a `tracing` layer whose publishers come later than
//! logging starts, because they need a broker that has logged its start already.

use std::sync::Arc;

use parking_lot::RwLock;
use thinglog_edge::{Publisher, PublisherLayer};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    layer::{Context, Layer},
    registry::LookupSpan,
};

/// What the events are filed under.
const SOURCE: &str = "thinglog-log";

/// The layer, and the handle to it; clones are one.
#[derive(Clone, Default)]
pub(crate) struct OwnLog {
    layers: Arc<RwLock<Vec<PublisherLayer>>>,
}

impl OwnLog {
    /// From now on these devices carry the log, the same lines each.
    pub(super) fn carry_to(&self, devices: &[Publisher]) {
        let layer = |device: &Publisher| PublisherLayer::new(device.clone()).with_source(SOURCE);
        *self.layers.write() = devices.iter().map(layer).collect();
    }

    /// Nobody carries it any more.
    pub(super) fn stop(&self) {
        self.layers.write().clear();
    }
}

impl<S> Layer<S> for OwnLog
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        // Finer lines may be about carrying this very line.
        if *event.metadata().level() > Level::INFO {
            return;
        }
        // Whoever holds the lock for writing may log; that line is not carried.
        if let Some(layers) = self.layers.try_read() {
            layers
                .iter()
                .for_each(|layer| layer.on_event(event, context.clone()));
        }
    }
}
