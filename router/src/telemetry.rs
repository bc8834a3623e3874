//! The router's metrics, in a registry the caller gives.
//!
//! Every destination keeps books that balance at any moment:
//!
//! ```text
//! received + generated = delivered + filtered + duplicate + rejected + returned + in flight
//! ```
//!
//! *Received* counts events decoded from deliveries (a delivery whose broker offset was settled
//! before is counted as redelivered and not decoded again); *generated* are events a part makes
//! itself; *filtered* fell to levels or routes, *duplicate* were there before, *rejected* were refused for
//! good, *returned* were in hand when the destination had to start over and come again from the
//! broker. The outcomes are counted when their commit stands, not before.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use crate::alerts::metrics::AlertMetrics;
use crate::deliver::remote::ledger::Fate;

/// All metric families of the router.
#[derive(Clone, Debug)]
pub(crate) struct Telemetry {
    events: IntCounterVec,
    in_flight: IntGaugeVec,
    payloads: IntCounterVec,
    redelivered: IntCounterVec,
    unreadable: IntCounterVec,
    disconnects: IntCounterVec,
    window_bytes: IntGaugeVec,
    window_packets: IntGaugeVec,
    lag_ms: IntGaugeVec,
    bytes: IntCounterVec,
    commits: HistogramVec,
    retries: IntCounterVec,
    restarts: IntCounterVec,
    requests: IntCounterVec,
    memory: IntGaugeVec,
    staged: IntGaugeVec,
    letters: IntGaugeVec,
    letters_lost: IntCounterVec,
    /// Files deleted to stay within a destination's or the quarantine's bounds.
    pub(crate) deleted_files: IntCounterVec,
    /// Payloads put into quarantine, by reason.
    pub(crate) quarantined: IntCounterVec,
    /// Lost events nobody declared.
    pub(crate) gap_events: IntCounter,
    /// Events that devices declared as dropped.
    pub(crate) dropped: IntCounterVec,
    /// Holes declared as losses.
    pub(crate) gaps: IntCounter,
    /// Events published to live topics.
    pub(crate) live_published: IntCounter,
    /// Events a live watcher missed, by reason.
    pub(crate) live_missed: IntCounterVec,
    /// Shared batches found decoded.
    pub(crate) cache_hits: IntCounter,
    /// Shared batches that had to be decoded.
    pub(crate) cache_misses: IntCounter,
    /// Configuration documents refused.
    pub(crate) config_refused: IntCounter,
    /// `desired` documents written.
    pub(crate) desired_written: IntCounter,
    /// `reported` documents that cannot be read.
    pub(crate) reports_refused: IntCounter,
    /// Devices that are known.
    pub(crate) devices: IntGauge,
    /// Changes of the fleet that were asked for, by `made` or the code of the refusal.
    pub(crate) changes: IntCounterVec,
    /// Publishes of the router itself that wait for their acknowledgement or were refused.
    pub(crate) publishes: IntCounterVec,
    /// What alerts count.
    pub(crate) alerts: AlertMetrics,
}

/// The books of one destination.
#[derive(Clone, Debug)]
pub(crate) struct Books {
    received: IntCounter,
    generated: IntCounter,
    delivered: IntCounter,
    filtered: IntCounter,
    duplicate: IntCounter,
    rejected: IntCounter,
    returned: IntCounter,
    in_flight: IntGauge,
    /// Deliveries that had been settled before.
    pub(crate) redelivered: IntCounter,
    /// Payloads that are no events; `audit` keeps them.
    pub(crate) unreadable: IntCounter,
    /// Bytes written by the destination.
    pub(crate) bytes: IntCounter,
    /// Seconds a commit takes.
    pub(crate) commits: Histogram,
    /// Attempts that asked to be repeated.
    pub(crate) retries: IntCounter,
    /// Times the destination started over from its last commit.
    pub(crate) restarts: IntCounter,
    /// Age of the newest event in hand, by the broker's clock.
    pub(crate) lag_ms: IntGauge,
}

/// The books at one moment, events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Figures {
    received: u64,
    generated: u64,
    delivered: u64,
    filtered: u64,
    duplicate: u64,
    rejected: u64,
    returned: u64,
    in_flight: i64,
}

/// Outcomes of events that wait for their commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) generated: u64,
    pub(crate) delivered: u64,
    pub(crate) filtered: u64,
    pub(crate) duplicate: u64,
    pub(crate) rejected: u64,
}

impl Tally {
    pub(crate) fn total(&self) -> u64 {
        self.delivered + self.filtered + self.duplicate + self.rejected
    }
}

/// What a destination that delivers by requests counts besides.
#[derive(Clone, Debug)]
pub(crate) struct RemoteMetrics {
    /// Attempts.
    pub(crate) requests: IntCounter,
    /// Those that were answered for good.
    pub(crate) requests_done: IntCounter,
    /// Bytes of decoded events in hand.
    pub(crate) memory: IntGauge,
    /// Bytes of complete files that wait to become objects.
    pub(crate) staged: IntGauge,
    /// Dead letters there are.
    pub(crate) letters: IntGauge,
    /// Dead letters lost for want of room.
    pub(crate) letters_lost: IntCounter,
}

/// What a consumer counts.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerMetrics {
    pub(crate) payloads: IntCounter,
    pub(crate) disconnects: IntCounter,
    pub(crate) window_bytes: IntGauge,
    pub(crate) window_packets: IntGauge,
}

const COMMIT_BUCKETS: [f64; 10] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5,
];

impl Telemetry {
    /// Registers every family; fails when the registry already has one of these names.
    pub(crate) fn new(registry: &Registry) -> Result<Telemetry, prometheus::Error> {
        let make = Maker { registry };
        Ok(Telemetry {
            events: make.counters(
                "events_total",
                "Events by destination and what became of them",
                &["destination", "outcome"],
            )?,
            in_flight: make.gauges("events_in_flight", "Events in hand, not yet settled")?,
            payloads: make.counters("payloads_total", "Publishes received", &["destination"])?,
            redelivered: make.counters(
                "redelivered_total",
                "Publishes that had been settled before",
                &["destination"],
            )?,
            unreadable: make.counters(
                "unreadable_total",
                "Publishes that hold no events",
                &["destination"],
            )?,
            disconnects: make.counters(
                "disconnects_total",
                "Connections to the broker lost or refused",
                &["destination"],
            )?,
            window_bytes: make.gauges("window_bytes", "Unacknowledged bytes of publishes")?,
            window_packets: make.gauges("window_packets", "Unacknowledged publishes")?,
            lag_ms: make.gauges("lag_milliseconds", "Age of the newest event in hand")?,
            bytes: make.counters("written_bytes_total", "Bytes written", &["destination"])?,
            commits: make.commits()?,
            retries: make.counters(
                "retries_total",
                "Attempts a destination wanted repeated",
                &["destination"],
            )?,
            restarts: make.counters(
                "restarts_total",
                "Times a destination started over from its last commit",
                &["destination"],
            )?,
            requests: make.counters(
                "requests_total",
                "Requests sent, and those that were answered for good",
                &["destination", "outcome"],
            )?,
            memory: make.gauges("events_in_hand_bytes", "Memory of events on their way")?,
            staged: make.gauges("staged_bytes", "Complete files that wait to become objects")?,
            letters: make.gauges("dead_letters", "Events that were refused for good")?,
            letters_lost: make.counters(
                "dead_letters_lost_total",
                "Dead letters lost for want of room",
                &["destination"],
            )?,
            deleted_files: make.counters(
                "deleted_files_total",
                "Files deleted to stay within bounds",
                &["part"],
            )?,
            quarantined: make.counters(
                "quarantined_total",
                "Publishes put into quarantine",
                &["reason"],
            )?,
            gap_events: make.counter("lost_events_total", "Events lost without a declaration")?,
            dropped: make.counters(
                "device_dropped_events_total",
                "Events that devices declared as dropped, by reason",
                &["reason"],
            )?,
            gaps: make.counter("gaps_total", "Holes declared as losses")?,
            live_published: make.counter("live_published_total", "Events on live topics")?,
            live_missed: make.counters(
                "live_missed_total",
                "Events or payloads that live topics skipped",
                &["reason"],
            )?,
            cache_hits: make.counter("cache_hits_total", "Batches found decoded")?,
            cache_misses: make.counter("cache_misses_total", "Batches decoded")?,
            config_refused: make.counter("config_refused_total", "Bad configuration documents")?,
            desired_written: make.counter("desired_written_total", "desired documents written")?,
            reports_refused: make.counter(
                "reports_refused_total",
                "reported documents that cannot be read",
            )?,
            devices: make.gauge("devices", "Devices that are known")?,
            changes: make.counters(
                "fleet_changes_total",
                "Changes of the fleet that were asked for",
                &["outcome"],
            )?,
            publishes: make.counters(
                "publishes_total",
                "Publishes of the router itself",
                &["outcome"],
            )?,
            alerts: AlertMetrics::new(registry)?,
        })
    }

    /// The books of `destination`.
    pub(crate) fn books(&self, destination: &str) -> Books {
        let outcome = |what| self.events.with_label_values(&[destination, what]);
        let label = &[destination];
        Books {
            received: outcome("received"),
            generated: outcome("generated"),
            delivered: outcome("delivered"),
            filtered: outcome("filtered"),
            duplicate: outcome("duplicate"),
            rejected: outcome("rejected"),
            returned: outcome("returned"),
            in_flight: self.in_flight.with_label_values(label),
            redelivered: self.redelivered.with_label_values(label),
            unreadable: self.unreadable.with_label_values(label),
            bytes: self.bytes.with_label_values(label),
            commits: self.commits.with_label_values(label),
            retries: self.retries.with_label_values(label),
            restarts: self.restarts.with_label_values(label),
            lag_ms: self.lag_ms.with_label_values(label),
        }
    }

    /// What `destination` counts besides when it delivers by requests.
    pub(crate) fn remote(&self, destination: &str) -> RemoteMetrics {
        let label = &[destination];
        RemoteMetrics {
            requests: self.requests.with_label_values(&[destination, "sent"]),
            requests_done: self.requests.with_label_values(&[destination, "done"]),
            memory: self.memory.with_label_values(label),
            staged: self.staged.with_label_values(label),
            letters: self.letters.with_label_values(label),
            letters_lost: self.letters_lost.with_label_values(label),
        }
    }

    /// The consumer's own metrics.
    pub(crate) fn consumer(&self, destination: &str) -> ConsumerMetrics {
        let label = &[destination];
        ConsumerMetrics {
            payloads: self.payloads.with_label_values(label),
            disconnects: self.disconnects.with_label_values(label),
            window_bytes: self.window_bytes.with_label_values(label),
            window_packets: self.window_packets.with_label_values(label),
        }
    }
}

impl Books {
    /// Events came into hand.
    pub(crate) fn take(&self, received: u64, generated: u64) {
        self.received.inc_by(received);
        self.generated.inc_by(generated);
        self.in_flight.add((received + generated) as i64);
    }

    /// A commit stands for these outcomes.
    pub(crate) fn settle(&self, tally: Tally) {
        self.delivered.inc_by(tally.delivered);
        self.filtered.inc_by(tally.filtered);
        self.duplicate.inc_by(tally.duplicate);
        self.rejected.inc_by(tally.rejected);
        self.in_flight.sub(tally.total() as i64);
    }

    /// Dead letters that were sent again are settled.
    pub(crate) fn settle_generated(&self, events: u64, fate: Fate) {
        let mut tally = Tally::default();
        match fate {
            Fate::Accepted => tally.delivered = events,
            Fate::Duplicate => tally.duplicate = events,
            Fate::Refused => tally.rejected = events,
        }
        self.settle(tally);
    }

    /// What stands in the books.
    pub(crate) fn figures(&self) -> Figures {
        Figures {
            received: self.received.get(),
            generated: self.generated.get(),
            delivered: self.delivered.get(),
            filtered: self.filtered.get(),
            duplicate: self.duplicate.get(),
            rejected: self.rejected.get(),
            returned: self.returned.get(),
            in_flight: self.in_flight.get(),
        }
    }

    /// Events delivered.
    #[cfg(test)]
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.get()
    }

    /// Events that came into hand.
    #[cfg(test)]
    pub(crate) fn received(&self) -> u64 {
        self.received.get()
    }

    /// Everything in hand goes back to the broker.
    pub(crate) fn give_back(&self) {
        let held = self.in_flight.get();
        self.returned.inc_by(u64::try_from(held).unwrap_or(0));
        self.in_flight.sub(held);
    }
}

/// Registers families under the router's prefix.
struct Maker<'a> {
    registry: &'a Registry,
}

impl Maker<'_> {
    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(format!("thinglog_router_{name}"), help)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        let counter = IntCounter::with_opts(Self::opts(name, help))?;
        self.registry.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        let counters = IntCounterVec::new(Self::opts(name, help), labels)?;
        self.registry.register(Box::new(counters.clone()))?;
        Ok(counters)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        let gauge = IntGauge::with_opts(Self::opts(name, help))?;
        self.registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    fn gauges(&self, name: &str, help: &str) -> Result<IntGaugeVec, prometheus::Error> {
        let gauges = IntGaugeVec::new(Self::opts(name, help), &["destination"])?;
        self.registry.register(Box::new(gauges.clone()))?;
        Ok(gauges)
    }

    fn commits(&self) -> Result<HistogramVec, prometheus::Error> {
        let opts = HistogramOpts::new("thinglog_router_commit_seconds", "Duration of a commit")
            .buckets(COMMIT_BUCKETS.to_vec());
        let commits = HistogramVec::new(opts, &["destination"])?;
        self.registry.register(Box::new(commits.clone()))?;
        Ok(commits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balance(books: &Books) -> (u64, u64) {
        let left = books.received.get() + books.generated.get();
        let settled = books.delivered.get()
            + books.filtered.get()
            + books.duplicate.get()
            + books.rejected.get()
            + books.returned.get();
        (left, settled + books.in_flight.get() as u64)
    }

    #[test]
    fn the_books_balance_through_settling_and_giving_back() {
        let telemetry = Telemetry::new(&Registry::new()).unwrap();
        let books = telemetry.books("file");
        books.take(10, 1);
        assert_eq!(balance(&books), (11, 11));
        let tally = Tally {
            delivered: 4,
            filtered: 1,
            duplicate: 1,
            ..Tally::default()
        };
        books.settle(tally);
        assert_eq!(balance(&books), (11, 11));
        books.give_back();
        assert_eq!(balance(&books), (11, 11));
        assert_eq!(books.in_flight.get(), 0);
    }

    #[test]
    fn a_registry_takes_one_router() {
        let registry = Registry::new();
        Telemetry::new(&registry).unwrap();
        assert!(Telemetry::new(&registry).is_err());
    }
}
