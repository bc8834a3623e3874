//! Follows what devices and the broker say of devices: `reported/<device>` and `connected/<device>`. On
//! a connection of its own, so that a fleet that reports much never holds up its configuration.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use thinglog_schemas::Topic;
use thinglog_schemas::config::Packed;
use thinglog_schemas::resolve::Affected;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::devices::Devices;
use crate::clock;
use crate::health::Part;
use crate::levels::{Levels, News};
use crate::mqtt::connect::LinkOptions;
use crate::mqtt::link::{Arrived, Link, LinkError};
use crate::mqtt::probe::Probe;
use crate::mqtt::reconnect::Reconnect;
use crate::mqtt::{Delivery, Settled};
use crate::registry::contacts::Contacts;
use crate::telemetry::Telemetry;

/// Shortest time between log lines about documents that cannot be read; all are counted.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The task's own data.
pub(crate) struct PresenceTask {
    pub(crate) link: LinkOptions,
    pub(crate) devices: Arc<RwLock<Devices>>,
    pub(crate) contacts: Arc<Contacts>,
    pub(crate) levels: Arc<Levels>,
    /// Where it is told of devices whose groups may have changed.
    pub(crate) news: mpsc::Sender<News>,
    pub(crate) telemetry: Telemetry,
    pub(crate) health: Part,
    /// When a document that cannot be read was last logged.
    pub(crate) logged: Option<Instant>,
}

impl PresenceTask {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut reconnect = Reconnect::new(&self.link.client_id, self.health.clone());
        while let Err(error) = self.follow(&stop, &mut reconnect).await {
            if !reconnect.wait(&error, &stop).await {
                return;
            }
        }
    }

    /// One connection; ends without an error when `stop` is.
    async fn follow(
        &mut self,
        stop: &CancellationToken,
        reconnect: &mut Reconnect,
    ) -> Result<(), LinkError> {
        let connecting = stop.run_until_cancelled(Link::connect(&self.link, 0));
        let Some(connected) = connecting.await else {
            return Ok(());
        };
        let mut link = connected?;
        let topics = &self.link.topics;
        let filters = [topics.all_reported(), topics.all_connected()];
        let mut probe = Probe::begin(&mut link, &self.link, &filters)?;
        self.devices.write().begin();
        let mut arrived = Arrived::default();
        let mut complete = false;
        loop {
            let Some(turned) = stop
                .run_until_cancelled(link.turn(true, &mut arrived))
                .await
            else {
                link.disconnect().await;
                return Ok(());
            };
            turned?;
            for control in arrived.controls.drain(..) {
                probe.granted(&control, &mut link)?;
            }
            let mut news = Vec::new();
            for delivery in arrived.deliveries.drain(..) {
                if probe.is_back(&delivery) {
                    reconnect.succeeded();
                    complete = true;
                    news.extend(self.complete());
                } else {
                    news.extend(self.take(&delivery, complete));
                }
                link.settle(Settled {
                    generation: link.generation(),
                    number: delivery.number,
                });
            }
            for one in news {
                // Only the end of the levels' task closes the way, and then everything stops.
                let _ = self.news.send(one).await;
            }
        }
    }

    /// Takes up a document; `live` once it is no retained one of before.
    fn take(&mut self, delivery: &Delivery, live: bool) -> Option<News> {
        let (device, said) = match self.link.topics.parse(&delivery.topic.text) {
            Ok(Topic::Reported { device }) => {
                let said = self.devices.write().report(device, &delivery.payload);
                (device, said)
            }
            Ok(Topic::Connected { device }) => {
                self.devices.write().connect(device, &delivery.payload);
                let known = self.levels.read(|fleet| {
                    let report = fleet.reported(device);
                    report.map(|report| report.attributes.clone())
                });
                (device, Ok(known))
            }
            _ => return None,
        };
        if live && !delivery.payload.is_empty() {
            self.contacts.touch(&Arc::from(device), clock::now_s());
        }
        match said {
            Ok(attributes) => {
                let seen = !delivery.payload.is_empty();
                Some(self.tell(device, attributes, seen))
            }
            Err(reason) => {
                self.refuse(&delivery.topic.text, &reason);
                None
            }
        }
    }

    /// The fleet's rules hear what a device is.
    fn tell(&self, device: &str, attributes: Option<Packed>, seen: bool) -> News {
        let report = self.devices.read().report_of(device, attributes);
        let affected = self
            .levels
            .change(|documents| documents.fleet_mut().report(device, report));
        News {
            device: Arc::from(device),
            seen,
            changed: affected != Affected::Nobody,
        }
    }

    fn complete(&self) -> Vec<News> {
        let gone = self.devices.write().complete();
        let news = gone.iter().map(|device| self.tell(device, None, false));
        news.collect()
    }

    fn refuse(&mut self, topic: &str, reason: &str) {
        self.telemetry.reports_refused.inc();
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            tracing::warn!(topic, reason, "what a device reports cannot be read");
        }
    }
}
