//! What alerts count.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::engine::Counts;

/// The metric families.
#[derive(Clone, Debug)]
pub(crate) struct AlertMetrics {
    matched: IntCounterVec,
    beyond: IntCounterVec,
    held: IntCounterVec,
    open: IntGaugeVec,
    notifications: IntCounterVec,
    retries: IntCounterVec,
    pub(crate) unsent: IntGauge,
}

impl AlertMetrics {
    /// Registers the families; fails when the registry has one of these names.
    pub(crate) fn new(registry: &Registry) -> Result<AlertMetrics, prometheus::Error> {
        let opts =
            |name: &str, help: &str| Opts::new(format!("thinglog_router_alerts_{name}"), help);
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(opts(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let open = IntGaugeVec::new(opts("open", "Alerts that are open"), &["rule"])?;
        registry.register(Box::new(open.clone()))?;
        let unsent = IntGauge::with_opts(opts("unsent", "Notifications that are not sent yet"))?;
        registry.register(Box::new(unsent.clone()))?;
        Ok(AlertMetrics {
            matched: counters("matched_total", "Events that rules are for", &["rule"])?,
            beyond: counters(
                "beyond_total",
                "Events that were not counted because a rule follows as many devices or groups as it may",
                &["rule"],
            )?,
            held: counters(
                "held_total",
                "Times that a cooldown put off a notification",
                &["rule"],
            )?,
            notifications: counters(
                "notifications_total",
                "Notifications by receiver and what became of them",
                &["rule", "receiver", "outcome"],
            )?,
            retries: counters(
                "retries_total",
                "Attempts to send a notification that failed",
                &["receiver"],
            )?,
            open,
            unsent,
        })
    }

    /// What a rule has counted, and how many of its alerts are open.
    pub(crate) fn add(&self, rule: &str, counts: Counts, open: usize) {
        let label = &[rule];
        self.matched.with_label_values(label).inc_by(counts.matched);
        self.beyond.with_label_values(label).inc_by(counts.beyond);
        self.held.with_label_values(label).inc_by(counts.held);
        let open = i64::try_from(open).unwrap_or(i64::MAX);
        self.open.with_label_values(label).set(open);
    }

    /// A notification was `sent`, or is given up as `refused`.
    pub(crate) fn done(&self, rule: &str, receiver: &str, outcome: &str) {
        self.notifications
            .with_label_values(&[rule, receiver, outcome])
            .inc();
    }

    /// An attempt failed and will be repeated.
    pub(crate) fn retry(&self, receiver: &str) {
        self.retries.with_label_values(&[receiver]).inc();
    }

    /// A rule is no more.
    pub(crate) fn forget(&self, rule: &str) {
        // A rule that never had an alert has no gauge.
        let _ = self.open.remove_label_values(&[rule]);
    }
}
