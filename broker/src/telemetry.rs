//! What the broker counts, and the log lines that belong to the counts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};
use tracing::{debug, error, warn};

use crate::{
    feed::Skipped,
    hub::Failed,
    peer::{Peer, Transport},
    state::State,
    sys::{Now, Totals},
};

/// Series of one client each are kept for no more of them than this.
pub(crate) const MOST_CLIENTS: usize = 100;
/// Bounds of histograms of what waits for the disk, seconds.
const DISK_SECONDS: [f64; 12] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0,
];

/// Metrics of a broker, registered once.
#[derive(Debug, Clone)]
pub(crate) struct Telemetry {
    connections: IntGaugeVec,
    taken: IntCounter,
    pub(crate) sessions: IntGauge,
    /// By whether they outlive their connection, and whether their client is there.
    session_kinds: IntGaugeVec,
    expired: IntCounter,
    subscriptions: IntGauge,
    pub(crate) retained: IntGauge,
    retained_bytes: IntGauge,
    queued: IntGauge,
    queued_bytes: IntGauge,
    mail_bytes: IntGauge,
    journal_bytes: IntGauge,
    journal_quarantined: IntGauge,
    /// By the journal's name.
    journal_failed: IntGaugeVec,
    lag: IntGaugeVec,
    lag_total: IntGauge,
    lag_maximum: IntGauge,
    disk_full: IntGauge,
    state_failed: IntGauge,
    state_damaged: IntGauge,
    state_bytes: IntGauge,
    groups: IntGauge,
    group_members: IntGauge,
    packets: Directions,
    bytes: Directions,
    messages: [ByQos; 2],
    payloads: [ByQos; 2],
    logins: IntCounterVec,
    refused: IntCounterVec,
    /// The last second in which a refusal was logged.
    refusal_logged: Arc<AtomicU64>,
    /// And a dropped message.
    drop_logged: Arc<AtomicU64>,
    dropped: IntCounterVec,
    dropped_total: Arc<AtomicU64>,
    slowed: IntCounterVec,
    pub(crate) acknowledge_seconds: Histogram,
    sync_seconds: Histogram,
    pub(crate) checkpoint_seconds: Histogram,
}

/// Who was refused, as far as it is known by then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whom<'a> {
    pub(crate) peer: &'a Peer,
    /// The principal, or who the client said it is.
    pub(crate) user: Option<&'a str>,
    /// The client id.
    pub(crate) client: Option<&'a str>,
}

impl<'a> Whom<'a> {
    /// Who has said nothing yet.
    pub(crate) fn at(peer: &'a Peer) -> Whom<'a> {
        Whom {
            peer,
            user: None,
            client: None,
        }
    }
}

/// Bytes of a name in a log line: who is refused may have sent a very long one.
const MOST_NAME: usize = 128;

fn shortened(name: &str) -> &str {
    let ends = (0..=name.len().min(MOST_NAME)).rev();
    let end = ends.into_iter().find(|end| name.is_char_boundary(*end));
    &name[..end.unwrap_or(0)]
}

/// Received and sent.
type Directions = [IntCounter; 2];
/// QoS 0, 1 and 2.
type ByQos = [IntCounter; 3];
const RECEIVED: usize = 0;
const SENT: usize = 1;

/// What one connection has carried since it told last: counted without sharing anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    packets: [u64; 2],
    bytes_received: u64,
    messages: [[u64; 3]; 2],
    payloads: [[u64; 3]; 2],
}

impl Traffic {
    /// Bytes came in.
    pub(crate) fn read(&mut self, bytes: usize) {
        self.bytes_received += bytes as u64;
    }

    /// A packet came in, whatever it is.
    pub(crate) fn packet(&mut self) {
        self.packets[RECEIVED] += 1;
    }

    /// A publish was taken.
    pub(crate) fn received(&mut self, qos: u8, payload: usize) {
        self.publish(RECEIVED, qos, payload);
    }

    /// A publish was written.
    pub(crate) fn sent(&mut self, qos: u8, payload: usize) {
        self.packets[SENT] += 1;
        self.publish(SENT, qos, payload);
    }

    /// A packet of another kind was written.
    pub(crate) fn answered(&mut self) {
        self.packets[SENT] += 1;
    }

    /// Adds what another has counted.
    pub(crate) fn add(&mut self, other: Traffic) {
        for direction in [RECEIVED, SENT] {
            self.packets[direction] += other.packets[direction];
            for qos in 0..3 {
                self.messages[direction][qos] += other.messages[direction][qos];
                self.payloads[direction][qos] += other.payloads[direction][qos];
            }
        }
        self.bytes_received += other.bytes_received;
    }

    fn publish(&mut self, direction: usize, qos: u8, payload: usize) {
        let qos = usize::from(qos.min(2));
        self.messages[direction][qos] += 1;
        self.payloads[direction][qos] += payload as u64;
    }
}

/// Makes metrics and registers them.
struct Maker<'a>(&'a Registry);

type Made<T> = Result<T, prometheus::Error>;

impl Maker<'_> {
    fn register<C: Collector + Clone + 'static>(&self, made: Made<C>) -> Made<C> {
        let made = made?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn gauge(&self, name: &str, help: &str) -> Made<IntGauge> {
        self.register(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Made<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn counter(&self, name: &str, help: &str) -> Made<IntCounter> {
        self.register(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, label: &str) -> Made<IntCounterVec> {
        self.register(IntCounterVec::new(Opts::new(name, help), &[label]))
    }

    fn by_qos(&self, name: &str, help: &str) -> Made<ByQos> {
        let counters = self.counters(name, help, "qos")?;
        Ok(["0", "1", "2"].map(|qos| counters.with_label_values(&[qos])))
    }

    fn seconds(&self, name: &str, help: &str, bounds: &[f64]) -> Made<Histogram> {
        let options = HistogramOpts::new(name, help).buckets(bounds.to_vec());
        self.register(Histogram::with_opts(options))
    }
}

impl Telemetry {
    pub(crate) fn new(registry: &Registry) -> Result<Telemetry, prometheus::Error> {
        let make = Maker(registry);
        Ok(Telemetry {
            connections: make.gauges(
                "thinglog_broker_connections",
                "Connections, their handshakes included",
                &["transport"],
            )?,
            taken: make.counter(
                "thinglog_broker_accepted_connections_total",
                "Connections taken",
            )?,
            sessions: make.gauge("thinglog_broker_sessions", "Sessions kept, connected or not")?,
            session_kinds: make.gauges(
                "thinglog_broker_sessions_by_kind",
                "Sessions that have a client, that wait for theirs, and that outlive their connection",
                &["kind"],
            )?,
            expired: make.counter(
                "thinglog_broker_expired_sessions_total",
                "Sessions that ended because their client stayed away",
            )?,
            subscriptions: make.gauge("thinglog_broker_subscriptions", "Subscriptions")?,
            retained: make.gauge("thinglog_broker_retained_messages", "Retained messages kept")?,
            retained_bytes: make.gauge(
                "thinglog_broker_retained_bytes",
                "Bytes of retained messages in memory",
            )?,
            queued: make.gauge(
                "thinglog_broker_queued_messages",
                "Messages that wait in sessions for their client",
            )?,
            queued_bytes: make.gauge(
                "thinglog_broker_queued_bytes",
                "Bytes of messages that sessions hold, waiting or not acknowledged",
            )?,
            mail_bytes: make.gauge(
                "thinglog_broker_mail_bytes",
                "Bytes of queued messages on disk",
            )?,
            journal_bytes: make.gauge(
                "thinglog_broker_journal_bytes",
                "Bytes of the durable log on disk",
            )?,
            journal_quarantined: make.gauge(
                "thinglog_broker_journal_quarantined_records",
                "Damaged places of the durable log that were stepped over",
            )?,
            journal_failed: {
                let failed = make.gauges(
                    "thinglog_broker_journal_failed",
                    "1 once a sync failed: nothing more is stored there until the broker is started again",
                    &["journal"],
                )?;
                for journal in Failed::ALL {
                    failed.with_label_values(&[journal.name()]).set(0);
                }
                failed
            },
            lag: make.gauges(
                "thinglog_broker_lag_records",
                "Records that a durable subscription has still to read, of those furthest behind",
                &["client"],
            )?,
            lag_total: make.gauge(
                "thinglog_broker_lag_all_records",
                "Records that all durable subscriptions together have still to read",
            )?,
            lag_maximum: make.gauge(
                "thinglog_broker_lag_most_records",
                "Records that the durable subscription furthest behind has still to read",
            )?,
            disk_full: make.gauge(
                "thinglog_broker_disk_full",
                "1 while nothing new is taken for want of room on the disk or for its errors",
            )?,
            state_failed: make.gauge(
                "thinglog_broker_state_failed_groups",
                "Groups of retained messages and sessions that could not be stored when they came",
            )?,
            state_damaged: make.gauge(
                "thinglog_broker_state_damaged",
                "Damaged places found in what retained messages and sessions are stored in",
            )?,
            state_bytes: make.gauge(
                "thinglog_broker_state_log_bytes",
                "Bytes of changes of retained messages and sessions on disk",
            )?,
            groups: make.gauge(
                "thinglog_broker_shared_groups",
                "Shared subscriptions of durable topics",
            )?,
            group_members: make.gauge(
                "thinglog_broker_shared_members",
                "Connected members of shared subscriptions of durable topics",
            )?,
            packets: [
                make.counter("thinglog_broker_received_packets_total", "Packets of clients")?,
                make.counter("thinglog_broker_sent_packets_total", "Packets to clients")?,
            ],
            bytes: [
                make.counter("thinglog_broker_received_bytes_total", "Bytes read from clients")?,
                make.counter("thinglog_broker_sent_bytes_total", "Bytes written to clients")?,
            ],
            messages: [
                make.by_qos(
                    "thinglog_broker_received_messages_total",
                    "Publishes taken from clients",
                )?,
                make.by_qos(
                    "thinglog_broker_sent_messages_total",
                    "Publishes written to clients, repetitions included",
                )?,
            ],
            payloads: [
                make.by_qos(
                    "thinglog_broker_received_payload_bytes_total",
                    "Bytes of payloads taken from clients",
                )?,
                make.by_qos(
                    "thinglog_broker_sent_payload_bytes_total",
                    "Bytes of payloads written to clients",
                )?,
            ],
            logins: make.counters(
                "thinglog_broker_logins_total",
                "Clients that said who they are, by what came of it",
                "result",
            )?,
            refused: make.counters(
                "thinglog_broker_refused_total",
                "Connections and packets refused",
                "reason",
            )?,
            dropped: make.counters(
                "thinglog_broker_dropped_messages_total",
                "Messages not delivered to a subscriber",
                "reason",
            )?,
            slowed: make.counters(
                "thinglog_broker_slowed_total",
                "Times that a client was read no further for a while",
                "reason",
            )?,
            acknowledge_seconds: make.seconds(
                "thinglog_broker_acknowledge_seconds",
                "From reading a durable publish to its PUBACK",
                &[
                    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0,
                ],
            )?,
            sync_seconds: make.seconds(
                "thinglog_broker_sync_seconds",
                "What one fdatasync of the durable log takes",
                &DISK_SECONDS,
            )?,
            checkpoint_seconds: make.seconds(
                "thinglog_broker_checkpoint_seconds",
                "What it takes to find out which sessions have changed and to queue that for the disk",
                &DISK_SECONDS,
            )?,
            dropped_total: Arc::default(),
            refusal_logged: Arc::default(),
            drop_logged: Arc::default(),
        })
    }

    /// Connections over a transport; one more was taken.
    pub(crate) fn connection(&self, transport: Transport) -> IntGauge {
        self.taken.inc();
        self.connections.with_label_values(&[transport.scheme()])
    }

    pub(crate) fn sent_bytes(&self) -> IntCounter {
        self.bytes[SENT].clone()
    }

    /// Takes what a connection has counted.
    pub(crate) fn carried(&self, traffic: &mut Traffic) {
        let Traffic {
            packets,
            bytes_received,
            messages,
            payloads,
        } = std::mem::take(traffic);
        let add = |counter: &IntCounter, count| {
            if count > 0 {
                counter.inc_by(count);
            }
        };
        add(&self.bytes[RECEIVED], bytes_received);
        for direction in [RECEIVED, SENT] {
            add(&self.packets[direction], packets[direction]);
            for qos in 0..3 {
                add(&self.messages[direction][qos], messages[direction][qos]);
                add(&self.payloads[direction][qos], payloads[direction][qos]);
            }
        }
    }

    /// A client said who it is.
    pub(crate) fn login(&self, is_accepted: bool) {
        let result = if is_accepted { "accepted" } else { "refused" };
        self.logins.with_label_values(&[result]).inc();
    }

    /// A session ended because its client stayed away.
    pub(crate) fn session_expired(&self) {
        self.expired.inc();
    }

    /// What is told how long every sync of the durable log took.
    pub(crate) fn sync_timer(&self) -> impl Fn(Duration) + Send + Sync + 'static {
        let seconds = self.sync_seconds.clone();
        move |took| seconds.observe(took.as_secs_f64())
    }

    /// What was counted in a walk over all sessions, against a log settled up to `settled`.
    pub(crate) fn counted(&self, now: &Now, settled: u64) {
        let census = &now.census;
        let kinds = [
            ("connected", census.connected),
            ("away", census.away),
            ("persistent", census.persistent),
        ];
        for (kind, count) in kinds {
            self.session_kinds
                .with_label_values(&[kind])
                .set(count as i64);
        }
        self.subscriptions.set(census.subscriptions as i64);
        self.queued.set(census.queued as i64);
        self.queued_bytes.set(now.queued_bytes as i64);
        self.retained_bytes.set(now.retained_bytes as i64);
        self.mail_bytes.set(now.mail_bytes as i64);
        let lag = |position: u64| settled.saturating_sub(position) as i64;
        self.lag.reset();
        for (client, position) in census.furthest.iter().take(MOST_CLIENTS) {
            self.lag.with_label_values(&[client]).set(lag(*position));
        }
        self.lag_total.set(census.lag as i64);
        let furthest = census.furthest.first();
        self.lag_maximum
            .set(furthest.map_or(0, |(_, position)| lag(*position)));
    }

    /// Everything since the start, for `$SYS`.
    pub(crate) fn totals(&self) -> Totals {
        let sum = |counters: &ByQos| counters.iter().map(IntCounter::get).sum();
        Totals {
            packets_received: self.packets[RECEIVED].get(),
            packets_sent: self.packets[SENT].get(),
            publishes_received: sum(&self.messages[RECEIVED]),
            publishes_sent: sum(&self.messages[SENT]),
            publishes_dropped: self.dropped_total.load(Ordering::Relaxed),
            payload_received: sum(&self.payloads[RECEIVED]),
            payload_sent: sum(&self.payloads[SENT]),
            bytes_received: self.bytes[RECEIVED].get(),
            bytes_sent: self.bytes[SENT].get(),
            connections: self.taken.get(),
            expired: self.expired.get(),
        }
    }

    /// A client or its packet was refused. Every one is counted; at most one a second is logged
    /// loudly, so that nobody fills the log by being refused.
    pub(crate) fn refused(&self, whom: Whom<'_>, reason: &'static str) {
        self.refused.with_label_values(&[reason]).inc();
        let Whom { peer, user, client } = whom;
        let (user, client) = (user.map(shortened), client.map(shortened));
        let address = peer.address.to_canonical();
        let transport = peer.transport;
        let certificate = peer.certificate.as_deref();
        if is_first_this_second(&self.refusal_logged) {
            warn!(user, client, %address, %transport, certificate, reason, "refused");
        } else {
            debug!(user, client, %address, %transport, certificate, reason, "refused");
        }
    }

    /// What the disk holds, and how it does.
    pub(crate) fn stored(
        &self,
        journal: &thinglog_journal::Stats,
        failed: impl Iterator<Item = Failed>,
        state: &State,
    ) {
        for failed in failed {
            let gauge = self.journal_failed.with_label_values(&[failed.name()]);
            if gauge.get() == 0 {
                error!(journal = failed.name(), "{}", failed.trouble());
            }
            gauge.set(1);
        }
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

    /// A session had no room for a message, or it was too late for it.
    pub(crate) fn dropped(&self, client: &str, reason: &'static str) {
        self.dropped_many(client, reason, 1);
    }

    /// The same for several. Every one is counted; once a second it is logged loudly.
    pub(crate) fn dropped_many(&self, client: &str, reason: &'static str, messages: u64) {
        self.count_dropped(reason, messages);
        if is_first_this_second(&self.drop_logged) {
            warn!(client, reason, messages, "messages dropped");
        } else {
            debug!(client, reason, messages, "messages dropped");
        }
    }

    /// How many durable groups there are, and connected members of them.
    pub(crate) fn groups(&self, groups: usize, members: usize) {
        self.groups.set(groups as i64);
        self.group_members.set(members as i64);
    }

    /// Records that a durable subscription passed over.
    pub(crate) fn skipped(&self, client: &str, skipped: Skipped) {
        if skipped.cut > 0 {
            self.count_dropped("cut by retention", skipped.cut);
            warn!(
                client,
                records = skipped.cut,
                "a durable subscription lost records to retention before it read them"
            );
        }
        if skipped.forbidden > 0 {
            self.count_dropped("not allowed to read", skipped.forbidden);
            warn!(
                client,
                records = skipped.forbidden,
                "records that no connected member of a group may read were passed over"
            );
        }
        if skipped.expired > 0 {
            self.count_dropped("expired", skipped.expired);
        }
        if skipped.too_large > 0 {
            self.count_dropped("over the client's packet size", skipped.too_large);
            warn!(
                client,
                records = skipped.too_large,
                "records larger than the client takes were passed over"
            );
        }
    }

    fn count_dropped(&self, reason: &str, count: u64) {
        self.dropped.with_label_values(&[reason]).inc_by(count);
        self.dropped_total.fetch_add(count, Ordering::Relaxed);
    }
}

/// Whether nothing was logged this second yet; then it is now.
fn is_first_this_second(logged: &AtomicU64) -> bool {
    let second = crate::clock::now() / 1_000_000_000;
    logged.swap(second, Ordering::Relaxed) != second
}
