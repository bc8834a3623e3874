//! Follows the fleet's retained documents and writes `desired/<device>`.
//!
//! A probe says when a connection's set of documents is complete. Each connection builds its set from nothing,
//! because a document that was deleted meanwhile is not announced; until it is complete the set of
//! the connection before stays in force.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use thinglog_schemas::config::ConfigError;
use thinglog_schemas::resolve::Affected;
use thinglog_schemas::{Topic, Topics};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Levels;
use super::configuration::Configuration;
use super::desired::Documents;
use crate::clock;
use crate::health::Part;
use crate::mqtt::connect::LinkOptions;
use crate::mqtt::link::{Arrived, Link, LinkError};
use crate::mqtt::probe::Probe;
use crate::mqtt::publisher::{Message, Publisher};
use crate::mqtt::reconnect::Reconnect;
use crate::mqtt::{Delivery, Settled};
use crate::registry::arrivals::Arrivals;
use crate::registry::devices::Devices;
use crate::telemetry::Telemetry;

/// How often documents of other writers and ended overrides are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How soon documents the publisher had no room for are offered again.
const OFFER_AGAIN: Duration = Duration::from_millis(50);

/// The task's own data.
pub(crate) struct LevelsTask {
    pub(crate) link: LinkOptions,
    pub(crate) levels: Arc<Levels>,
    pub(crate) seen: mpsc::Receiver<Arc<str>>,
    pub(crate) publisher: Publisher,
    pub(crate) telemetry: Telemetry,
    pub(crate) health: Part,
    pub(crate) documents: Documents,
    pub(crate) devices: Arc<RwLock<Devices>>,
    pub(crate) arrivals: Arc<Arrivals>,
    /// Until when ended overrides have been looked for, ns since the Unix epoch.
    pub(crate) looked: u64,
}

/// A connection's set as it arrives.
struct Setup {
    probe: Probe,
    /// `None` once it is complete.
    incoming: Option<Configuration>,
}

impl LevelsTask {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut reconnect = Reconnect::new(&self.link.client_id, self.health.clone());
        while let Err(error) = self.connection(&stop, &mut reconnect).await {
            if !reconnect.wait(&error, &stop).await {
                return;
            }
        }
    }

    /// One connection; ends without an error when `stop` is.
    async fn connection(
        &mut self,
        stop: &CancellationToken,
        reconnect: &mut Reconnect,
    ) -> Result<(), LinkError> {
        let Some(connected) = stop.run_until_cancelled(self.connect()).await else {
            return Ok(());
        };
        let (mut link, mut setup) = connected?;
        let mut arrived = Arrived::default();
        let mut look = Instant::now() + LOOK_EVERY;
        loop {
            let wake = if self.documents.has_work() && setup.incoming.is_none() {
                Instant::now() + OFFER_AGAIN
            } else {
                look
            };
            tokio::select! {
                turned = link.turn(true, &mut arrived) => {
                    turned?;
                    if self.arrived(&mut link, &mut arrived, &mut setup)? {
                        reconnect.succeeded();
                    }
                }
                () = stop.cancelled() => {
                    link.disconnect().await;
                    return Ok(());
                }
                Some(device) = self.seen.recv() => {
                    self.documents.saw(&device);
                    self.devices.write().saw(&device);
                }
                () = sleep_until(wake) => {}
            }
            if Instant::now() >= look {
                look = Instant::now() + LOOK_EVERY;
                self.look();
            }
            if setup.incoming.is_none() {
                self.write_documents();
            }
        }
    }

    async fn connect(&mut self) -> Result<(Link, Setup), LinkError> {
        let mut link = Link::connect(&self.link, 0).await?;
        let topics = &self.link.topics;
        let filters = [topics.all_config(), topics.all_desired()];
        let probe = Probe::begin(&mut link, &self.link, &filters)?;
        self.documents.forget_retained();
        let setup = Setup {
            probe,
            incoming: Some(Configuration::default()),
        };
        Ok((link, setup))
    }

    /// Works on what a turn brought; says whether the set has become complete with it.
    fn arrived(
        &mut self,
        link: &mut Link,
        arrived: &mut Arrived,
        setup: &mut Setup,
    ) -> Result<bool, LinkError> {
        let mut completed = false;
        for control in arrived.controls.drain(..) {
            setup.probe.granted(&control, link)?;
        }
        for delivery in arrived.deliveries.drain(..) {
            if setup.probe.is_back(&delivery) {
                completed = true;
                self.complete(setup.incoming.take());
            } else {
                self.take(&delivery, setup);
            }
            link.settle(Settled {
                generation: link.generation(),
                number: delivery.number,
            });
        }
        Ok(completed)
    }

    fn take(&mut self, delivery: &Delivery, setup: &mut Setup) {
        let topics: &Topics = &self.link.topics;
        match topics.parse(&delivery.topic.text) {
            Ok(Topic::Desired { device }) => {
                self.documents.retained(device, &delivery.payload);
                self.devices.write().saw(device);
                let topic = format!("desired/{device}");
                self.arrivals.arrived(&topic, &delivery.payload, &Ok(()));
            }
            Ok(Topic::Config(_)) if !delivery.retain => self.refuse(&ConfigError::invalid(
                delivery.topic.text.to_string(),
                "it was published without RETAIN and would be forgotten at the next restart; \
                 publish it retained (mosquitto_pub -r)",
            )),
            Ok(Topic::Config(topic)) => {
                let payload = &delivery.payload[..];
                let result = match &mut setup.incoming {
                    Some(documents) => documents.apply(topic, payload),
                    None => self
                        .levels
                        .change(|documents| documents.apply(topic, payload)),
                };
                if setup.incoming.is_none() {
                    let outcome = result
                        .as_ref()
                        .map(drop)
                        .map_err(|error| error.reason.clone());
                    self.arrivals.arrived(&topic.to_string(), payload, &outcome);
                }
                match result {
                    Ok(change) => {
                        for problem in &change.displaced {
                            self.refuse(&problem.into());
                        }
                        if setup.incoming.is_none() {
                            self.affected(&change.affected);
                        }
                    }
                    Err(error) => self.refuse(&error),
                }
            }
            Ok(_) => {}
            Err(error) => self.refuse(&ConfigError::invalid(
                delivery.topic.text.to_string(),
                error.to_string(),
            )),
        }
    }

    fn affected(&mut self, affected: &Affected) {
        let documents = &mut self.documents;
        self.levels
            .read(|fleet| documents.affected(affected, fleet));
    }

    /// The probe is back: the set is complete.
    fn complete(&mut self, configuration: Option<Configuration>) {
        let Some(configuration) = configuration else {
            return;
        };
        self.documents.everybody(configuration.fleet());
        self.arrivals
            .complete(|topic, payload| configuration.holds(topic, payload));
        self.levels.replace(configuration);
        tracing::info!("the fleet's configuration is complete");
    }

    /// Ended overrides and documents of other writers.
    fn look(&mut self) {
        let now = clock::now_ns();
        let looked = std::mem::replace(&mut self.looked, now);
        self.documents.recheck(now);
        let contested = self.documents.take_contested();
        if contested > 0 {
            tracing::warn!(
                documents = contested,
                "desired documents are written again and again: another router goes by other \
                 configuration, or the broker refuses them"
            );
        }
        let documents = &mut self.documents;
        self.levels.change(|configuration| {
            let fleet = configuration.fleet_mut();
            fleet.forget_ended(now);
            // An override that ends in the meantime changes documents without any message.
            if fleet.next_end(looked).is_some_and(|end| end <= now) {
                documents.everybody(fleet);
            }
        });
    }

    fn write_documents(&mut self) {
        while self.documents.has_work() {
            let documents = &mut self.documents;
            let next = self
                .levels
                .read(|fleet| documents.next(fleet, clock::now_ns()));
            let Some((device, desired)) = next else {
                return;
            };
            let payload = match serde_json::to_vec(&desired) {
                Ok(payload) => payload,
                Err(error) => {
                    tracing::error!(device, %error, "a desired document cannot be written");
                    continue;
                }
            };
            let topic = self.link.topics.format(Topic::Desired { device: &device });
            if self.publish(topic, payload, true) {
                self.telemetry.desired_written.inc();
            } else {
                self.documents.not_written(device);
                return;
            }
        }
    }

    /// A document is bad: the last good one stays, and whoever watches hears why.
    fn refuse(&self, error: &ConfigError) {
        self.telemetry.config_refused.inc();
        tracing::warn!(
            topic = error.topic,
            reason = error.reason,
            "a configuration document is refused"
        );
        let mut time = Vec::new();
        thinglog_schemas::json::write_time(clock::now_ns(), &mut time);
        let alert = serde_json::json!({
            "rule": "config",
            "time": String::from_utf8_lossy(&time),
            "topic": error.topic,
            "reason": error.reason,
        });
        let topic = self.link.topics.format(Topic::Alerts { rule: "config" });
        if !self.publish(topic, alert.to_string().into_bytes(), false) {
            tracing::warn!("no room to publish that on alerts/config");
        }
    }

    fn publish(&self, topic: String, payload: Vec<u8>, retain: bool) -> bool {
        let message = Message {
            topic,
            payload: Bytes::from(payload),
            retain,
            done: None,
            while_waited: false,
        };
        self.publisher.try_publish(message).is_ok()
    }
}
