//! What the broker counts, and the log lines that belong to the counts.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tracing::{debug, warn};

use crate::{feed::Skipped, state::State};

/// Metrics of a broker, registered once.
#[derive(Debug, Clone)]
pub(crate) struct Telemetry {
    pub(crate) connections: IntGauge,
    pub(crate) sessions: IntGauge,
    pub(crate) retained: IntGauge,
    journal_bytes: IntGauge,
    journal_quarantined: IntGauge,
    disk_full: IntGauge,
    state_failed: IntGauge,
    state_damaged: IntGauge,
    state_bytes: IntGauge,
    received: IntCounterVec,
    sent: IntCounter,
    refused: IntCounterVec,
    /// The last second in which a refusal was logged.
    refusal_logged: Arc<AtomicU64>,
    dropped: IntCounterVec,
    slowed: IntCounterVec,
    pub(crate) acknowledge_seconds: Histogram,
}

impl Telemetry {
    pub(crate) fn new(registry: &Registry) -> Result<Telemetry, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counters =
            |name: &str, help: &str, label: &str| -> Result<IntCounterVec, prometheus::Error> {
                let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
                registry.register(Box::new(counters.clone()))?;
                Ok(counters)
            };
        let acknowledge_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "thinglog_broker_acknowledge_seconds",
                "From reading a durable publish to its PUBACK",
            )
            .buckets(vec![
                0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0,
            ]),
        )?;
        registry.register(Box::new(acknowledge_seconds.clone()))?;
        let sent_bytes = IntCounter::new(
            "thinglog_broker_sent_bytes_total",
            "Bytes written to clients",
        )?;
        registry.register(Box::new(sent_bytes.clone()))?;
        Ok(Telemetry {
            connections: gauge("thinglog_broker_connections", "Clients connected")?,
            sessions: gauge(
                "thinglog_broker_sessions",
                "Sessions kept, connected or not",
            )?,
            retained: gauge(
                "thinglog_broker_retained_messages",
                "Retained messages kept",
            )?,
            journal_bytes: gauge(
                "thinglog_broker_journal_bytes",
                "Bytes of the durable log on disk",
            )?,
            journal_quarantined: gauge(
                "thinglog_broker_journal_quarantined_records",
                "Damaged places of the durable log that were stepped over",
            )?,
            disk_full: gauge(
                "thinglog_broker_disk_full",
                "1 while nothing new is taken for want of room on the disk or for its errors",
            )?,
            state_failed: gauge(
                "thinglog_broker_state_failed_groups",
                "Groups of retained messages and sessions that could not be stored when they came",
            )?,
            state_damaged: gauge(
                "thinglog_broker_state_damaged",
                "Damaged places found in what retained messages and sessions are stored in",
            )?,
            state_bytes: gauge(
                "thinglog_broker_state_log_bytes",
                "Bytes of changes of retained messages and sessions on disk",
            )?,
            received: counters(
                "thinglog_broker_received_messages_total",
                "Publishes taken from clients",
                "qos",
            )?,
            sent: sent_bytes,
            refused: counters(
                "thinglog_broker_refused_total",
                "Connections and packets refused",
                "reason",
            )?,
            dropped: counters(
                "thinglog_broker_dropped_messages_total",
                "Messages not delivered to a subscriber",
                "reason",
            )?,
            slowed: counters(
                "thinglog_broker_slowed_total",
                "Times that a client was read no further for a while",
                "reason",
            )?,
            acknowledge_seconds,
            refusal_logged: Arc::default(),
        })
    }

    /// The counter of received publishes of a QoS, to be kept by a connection.
    pub(crate) fn received(&self, qos: u8) -> IntCounter {
        self.received
            .with_label_values(&[["0", "1", "2"][usize::from(qos.min(2))]])
    }

    pub(crate) fn sent_bytes(&self) -> IntCounter {
        self.sent.clone()
    }

    /// A client or its packet was refused. Every one is counted; at most one a second is logged
    /// loudly, so that nobody fills the log by being refused.
    pub(crate) fn refused(&self, client: &str, reason: &'static str) {
        self.refused.with_label_values(&[reason]).inc();
        let second = crate::clock::now() / 1_000_000_000;
        if self.refusal_logged.swap(second, Ordering::Relaxed) == second {
            debug!(client, reason, "refused");
        } else {
            warn!(client, reason, "refused");
        }
    }

    /// What the disk holds, and how it does.
    pub(crate) fn stored(&self, journal: &thinglog_journal::Stats, state: &State) {
        let stats = state.stats();
        self.journal_bytes.set(journal.bytes as i64);
        let quarantined = journal.quarantined_records as i64;
        self.journal_quarantined.set(quarantined);
        self.disk_full.set(i64::from(!state.accepts()));
        self.state_failed.set(stats.failed_groups as i64);
        self.state_damaged.set(stats.damaged as i64);
        self.state_bytes.set(stats.log_bytes as i64);
    }

    /// A client is read no further for a while.
    pub(crate) fn slowed(&self, reason: &'static str) {
        self.slowed.with_label_values(&[reason]).inc();
    }

    /// A session had no room for a message, or it was too late.
    pub(crate) fn dropped(&self, client: &str, reason: &'static str) {
        self.dropped.with_label_values(&[reason]).inc();
        debug!(client, reason, "message dropped");
    }

    /// Records that a durable subscription passed over.
    pub(crate) fn skipped(&self, client: &str, skipped: Skipped) {
        if skipped.cut > 0 {
            self.dropped
                .with_label_values(&["cut by retention"])
                .inc_by(skipped.cut);
            warn!(
                client,
                records = skipped.cut,
                "a durable subscription lost records to retention before it read them"
            );
        }
        self.dropped
            .with_label_values(&["expired"])
            .inc_by(skipped.expired);
        if skipped.too_large > 0 {
            self.dropped
                .with_label_values(&["over the client's packet size"])
                .inc_by(skipped.too_large);
            warn!(
                client,
                records = skipped.too_large,
                "records larger than the client takes were passed over"
            );
        }
    }
}
