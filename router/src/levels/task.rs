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
use thinglog_schemas::topic::ConfigTopic;
use thinglog_schemas::{Topic, Topics};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::configuration::Configuration;
use super::desired::Documents;
use super::{Levels, News};
use crate::clock;
use crate::health::Part;
use crate::mqtt::connect::LinkOptions;
use crate::mqtt::link::{Arrived, Link, LinkError};
use crate::mqtt::probe::Probe;
use crate::mqtt::publisher::{Message, Publisher};
use crate::mqtt::reconnect::Reconnect;
use crate::mqtt::{Delivery, Settled};
use crate::registry::arrivals::Arrivals;
use crate::registry::contacts::Contacts;
use crate::registry::devices::Devices;
use crate::registry::history::{History, Seen};
use crate::telemetry::Telemetry;

/// How often documents of other writers and ended overrides are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Devices that are looked at before the connection has its turn.
const AT_ONCE: usize = 256;
/// Conflicts of a complete set that are told one by one.
const TOLD_AT_ONCE: usize = 100;

/// The task's own data.
pub(crate) struct LevelsTask {
    pub(crate) link: LinkOptions,
    pub(crate) levels: Arc<Levels>,
    pub(crate) news: mpsc::Receiver<News>,
    pub(crate) publisher: Publisher,
    pub(crate) telemetry: Telemetry,
    pub(crate) health: Part,
    pub(crate) documents: Documents,
    pub(crate) devices: Arc<RwLock<Devices>>,
    pub(crate) contacts: Arc<Contacts>,
    pub(crate) arrivals: Arc<Arrivals>,
    pub(crate) history: Arc<History>,
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
            let writing = self.documents.has_work() && setup.incoming.is_none();
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
                Some(news) = self.news.recv() => self.hear(&news),
                () = self.publisher.room(), if writing => self.write_documents(),
                () = sleep_until(look) => {}
            }
            if Instant::now() >= look {
                look = Instant::now() + LOOK_EVERY;
                self.look();
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
            Ok(Topic::Desired { device }) => self.desired(device, &delivery.payload),
            Ok(Topic::Config(_)) if !delivery.retain => self.refuse(&ConfigError::invalid(
                delivery.topic.text.to_string(),
                "it was published without RETAIN and would be forgotten at the next restart; \
                 publish it retained (mosquitto_pub -r)",
            )),
            Ok(Topic::Config(topic)) => self.configure(topic, &delivery.payload, setup),
            Ok(_) => {}
            Err(error) => self.refuse(&ConfigError::invalid(
                delivery.topic.text.to_string(),
                error.to_string(),
            )),
        }
    }

    /// A configuration document came.
    fn configure(&mut self, topic: ConfigTopic<'_>, payload: &[u8], setup: &mut Setup) {
        let result = match &mut setup.incoming {
            // Which of a set count as absent is told once it is complete.
            Some(documents) => documents.apply(topic, payload).map(drop),
            None => self.change(topic, payload),
        };
        if let Err(error) = result {
            self.refuse(&error);
        }
    }

    /// Takes up a change of the set that is in force, and tells who waits for it.
    fn change(&mut self, topic: ConfigTopic<'_>, payload: &[u8]) -> Result<(), ConfigError> {
        let text = topic.to_string();
        let by = self.arrivals.who(&text, payload);
        let (before, result) = self.levels.change(|documents| {
            let before = documents.document(topic).cloned();
            (before, documents.apply(topic, payload))
        });
        let result = result.map(|change| {
            self.history.note(&Seen {
                topic,
                before: before.as_deref().unwrap_or_default(),
                after: payload,
                by: by.as_deref(),
                now: clock::now_ns(),
            });
            for problem in &change.displaced {
                self.refuse(&problem.into());
            }
            self.affected(&change.affected);
        });
        let outcome = result.as_ref().map_err(|error| error.reason.clone());
        self.arrivals.arrived(&text, payload, &outcome.copied());
        result
    }

    /// A device's document came. When it was removed and nothing names the device, the device was
    /// deleted.
    fn desired(&mut self, device: &str, payload: &[u8]) {
        let deleted = payload.is_empty() && !self.is_named(device);
        match deleted {
            true => self.forget(device),
            false => {
                self.documents.retained(device, payload, clock::now_ns());
                self.devices.write().saw(device);
            }
        }
        let topic = format!("desired/{device}");
        self.arrivals.arrived(&topic, payload, &Ok(()));
    }

    fn is_named(&self, device: &str) -> bool {
        self.levels.documents(|documents| documents.names(device))
    }

    fn forget(&mut self, device: &str) {
        self.documents.forget(device);
        self.devices.write().forget(device);
        self.contacts.forget(device);
    }

    /// A device is there, or is in other groups than before.
    fn hear(&mut self, news: &News) {
        if news.seen {
            self.documents.saw(&news.device);
            self.devices.write().saw(&news.device);
            self.contacts.noted(&news.device);
        }
        if news.changed {
            self.documents.touch(&news.device);
        }
    }

    fn affected(&mut self, affected: &Affected) {
        if let Affected::Device(device) = affected {
            // The last step of a deletion: what it should do is gone, and nothing names it any more.
            if self.documents.was_removed(device) && !self.is_named(device) {
                return self.forget(device);
            }
            self.devices.write().saw(device);
        }
        let documents = &mut self.documents;
        self.levels
            .read(|fleet| documents.affected(affected, fleet));
    }

    /// The probe is back: the set is complete.
    fn complete(&mut self, configuration: Option<Configuration>) {
        let Some(configuration) = configuration else {
            return;
        };
        for device in configuration.fleet().named_devices() {
            self.documents.saw(&device);
            self.devices.write().saw(&device);
        }
        let heard = self.contacts.devices();
        let names = |device: &str| configuration.names(device);
        for device in self.documents.complete(names, heard) {
            tracing::info!(%device, "a device was deleted meanwhile");
            self.forget(&device);
        }
        self.note_meanwhile(&configuration);
        self.tell_conflicts(&configuration);
        self.arrivals
            .complete(|topic, payload| configuration.holds(topic, payload));
        self.levels.replace(configuration, &self.devices);
        tracing::info!("the fleet's configuration is complete");
    }

    /// Documents of a complete set that cannot stand beside the others. Those that cannot be read were
    /// told as they came.
    fn tell_conflicts(&self, configuration: &Configuration) {
        let problems = configuration.fleet().problems();
        let conflicts = problems.iter().filter(|problem| !problem.last_good);
        let count = conflicts.clone().count();
        for problem in conflicts.take(TOLD_AT_ONCE) {
            self.refuse(&problem.into());
        }
        if count > TOLD_AT_ONCE {
            tracing::warn!(
                documents = count,
                told = TOLD_AT_ONCE,
                "more documents count as absent; /api/v1/problems and `thinglog problems` name all"
            );
        }
    }

    /// What changed while there was no connection.
    fn note_meanwhile(&self, configuration: &Configuration) {
        let now = clock::now_ns();
        if !self.levels.is_complete() {
            return self.history.note_missed(configuration.all(), now);
        }
        self.levels.documents(|before| {
            for (topic, before, after) in configuration.changes_since(before) {
                let by = self.arrivals.who(&topic.to_string(), after);
                self.history.note(&Seen {
                    topic,
                    before,
                    after,
                    by: by.as_deref(),
                    now,
                });
            }
        });
    }

    /// Ended overrides and documents of other writers.
    fn look(&mut self) {
        let now = clock::now_ns();
        let looked = std::mem::replace(&mut self.looked, now);
        let devices = self.devices.read().len();
        self.telemetry
            .devices
            .set(i64::try_from(devices).unwrap_or(i64::MAX));
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
                documents.everybody();
            }
        });
    }

    /// Writes some of what has to be written; the rest comes when the connection has had its turn.
    fn write_documents(&mut self) {
        let mut budget = AT_ONCE;
        while budget > 0 {
            let documents = &mut self.documents;
            let next = self
                .levels
                .read(|fleet| documents.next(fleet, clock::now_ns(), &mut budget));
            let Some((device, desired)) = next else {
                return;
            };
            let payload = match serde_json::to_vec(&desired) {
                Ok(payload) => payload,
                Err(error) => {
                    tracing::error!(%device, %error, "a desired document cannot be written");
                    continue;
                }
            };
            let topic = self.link.topics.format(Topic::Desired { device: &device });
            if self.publish(topic, payload, true) {
                self.telemetry.desired_written.inc();
            } else {
                self.documents.not_written(&device);
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

#[cfg(test)]
#[path = "scale.rs"]
mod scale;
