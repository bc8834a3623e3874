//! Remote configuration: waits for `desired/<device>` right after connecting, puts it in force, keeps
//! it for the next start, and reports back what is in force.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use thinglog_schemas::{
    config::{Desired, Limits, Reported, Upload, UploadMode},
    hash,
};

use super::Worker;
use crate::{
    clock,
    config::{FLUSH_AGE, FLUSH_AGE_WAITING},
    levels::{Levels, Now},
    queue::RingOptions,
    shared::Shared,
    spool::Spool,
    upload::Rhythm,
};

/// After connecting nothing is sent until the configuration came, or the subscription is answered
/// and this has passed, or [`CONFIGURE_WITHIN`]: a level that was set while the device was away holds
/// from the first byte.
const RETAINED_WITHIN: Duration = Duration::from_millis(300);
const CONFIGURE_WITHIN: Duration = Duration::from_secs(1);
/// A granted subscription that brought nothing for so long: there is no document.
const ABSENT_AFTER: Duration = Duration::from_secs(2);
/// At the start batches are not cut before the configuration came or this has passed: what a level
/// that was set meanwhile does not let pass then leaves no trace.
const HOLD_AT_START: Duration = Duration::from_secs(1);
/// What a configuration may ask of a batch at most; the format's own limits are a little above.
const MAX_BATCH_EVENTS: usize = 20_000;
const MAX_BATCH_BYTES: usize = 4 << 20;
/// Mode `on-error`: the ring and for how long everything passes, unless configured.
const RING_BYTES: usize = 256 << 10;
const RING_AFTER: Duration = Duration::from_secs(10);
/// When the last report is not acknowledged yet.
const REPORT_AGAIN: Duration = Duration::from_secs(1);
/// When a spool could not be opened.
const OPEN_AGAIN: Duration = Duration::from_secs(60);
/// How often figures are reported when they changed.
const REPORT_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Remote {
    /// The broker's configuration is known, or there was time enough to hear of it.
    known: bool,
    hold_until: Instant,
    configuring_until: Option<Instant>,
    absent_at: Option<Instant>,
    /// A document came over this connection.
    answered: bool,
    report_at: Option<Instant>,
    last_report: Option<Reported>,
}

impl Remote {
    pub(super) fn new(now: Instant) -> Remote {
        Remote {
            known: false,
            hold_until: now + HOLD_AT_START,
            configuring_until: None,
            absent_at: None,
            answered: false,
            report_at: None,
            last_report: None,
        }
    }

    pub(super) fn connected(&mut self, now: Instant) {
        self.configuring_until = Some(now + CONFIGURE_WITHIN);
        self.answered = false;
        self.report_at = Some(now);
        self.last_report = None;
    }

    pub(super) fn subscribed(&mut self, granted: bool, now: Instant) {
        if let Some(until) = &mut self.configuring_until {
            *until = (*until).min(now + RETAINED_WITHIN);
            // A broker may send the document ahead of its answer (MQTT 5 section 3.8.4).
            self.absent_at = (granted && !self.answered).then_some(now + ABSENT_AFTER);
        }
    }

    pub(super) fn disconnected(&mut self) {
        self.configuring_until = None;
        self.absent_at = None;
        self.report_at = None;
    }

    /// A document came, readable or not.
    fn arrived(&mut self, now: Instant) {
        self.known = true;
        self.answered = true;
        self.absent_at = None;
        self.configuring_until = self.configuring_until.map(|until| until.min(now));
    }

    /// Whether the connection still waits for the configuration.
    pub(super) fn is_configuring(&self, now: Instant) -> bool {
        self.configuring_until.is_some_and(|until| until > now)
    }

    /// Whether batches must not be cut yet.
    pub(super) fn holds_back(&self, now: Instant) -> bool {
        !self.known && (now < self.hold_until || self.is_configuring(now))
    }

    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let hold = Some(self.hold_until).filter(|until| !self.known && *until > now);
        let configuring = self.configuring_until.filter(|until| *until > now);
        let report = self.report_at.map(|at| at.max(configuring.unwrap_or(at)));
        [hold, configuring, self.absent_at, report]
            .into_iter()
            .flatten()
            .min()
    }
}

impl Worker {
    /// Puts the configuration of the last run in force, before there is any network.
    pub(super) fn restore(&mut self, desired: Desired, received: u64) {
        let now = self.shared.clock.now();
        self.apply_settings(&desired.upload, &desired.limits, now);
        self.change_levels(|levels| levels.restore(desired, received, now), false);
    }

    /// A document arrived. An empty one means there is none; one that cannot be read changes nothing.
    pub(super) fn configure(&mut self, payload: &[u8], now: Now) {
        let desired = match payload {
            [] => None,
            payload => match serde_json::from_slice::<Desired>(payload) {
                Ok(desired) => Some(desired),
                Err(error) => {
                    tracing::warn!(%error, "the configuration cannot be read; the last one stays");
                    self.remote.arrived(now.mono);
                    return;
                }
            },
        };
        let purge = !self.remote.known;
        self.keep(desired.as_ref(), now);
        match desired {
            Some(desired) => {
                self.apply_settings(&desired.upload, &desired.limits, now);
                self.change_levels(|levels| levels.apply(desired, now), purge);
            }
            None => {
                self.apply_settings(&Upload::default(), &Limits::default(), now);
                self.change_levels(|levels| levels.clear(), purge);
            }
        }
        self.remote.report_at = Some(now.mono);
        self.remote.arrived(now.mono);
    }

    fn keep(&self, desired: Option<&Desired>, now: Now) {
        let Some(spool) = &self.outbox.spool else {
            return;
        };
        let received = now.wall.unwrap_or_default();
        if let Err(error) = spool.dir().keep_desired(desired, received) {
            tracing::warn!(%error, "the configuration is in force but cannot be kept: after a restart the one that was kept before holds until the broker sends it again");
        }
    }

    /// Lanes are cut together where their batches are written together.
    fn gather_for_the_disk(&self) {
        let spool = self
            .outbox
            .spool
            .as_ref()
            .filter(|_| self.outbox.persistent);
        let age = spool.map(|spool| spool.block().age);
        self.shared.queue.lock().set_together(age);
        let figures = &self.shared.figures;
        figures.spooled.store(age.is_some(), Relaxed);
        figures
            .keeps_places
            .store(self.outbox.spool.is_some(), Relaxed);
    }

    /// Opens the spool that the configuration has switched on.
    pub(super) fn open_spool(&mut self, now: Now) {
        if self.open_spool_at.is_none_or(|at| at > now.mono) {
            return;
        }
        self.open_spool_at = None;
        let Some(options) = &self.settings.spool else {
            return;
        };
        let (device, instance) = (&self.settings.device, &self.settings.instance);
        match Spool::open(options, device, instance, Shared::waker(&self.shared)) {
            Ok(spool) => {
                tracing::info!(path = %options.path.display(), "events are written to disk from now on");
                self.outbox.spool = Some(spool);
                self.gather_for_the_disk();
                let desired = self.shared.queue.lock().levels().desired().cloned();
                self.keep(desired.as_ref(), now);
            }
            Err(error) => {
                tracing::warn!(%error, "events stay in memory; the spool that the configuration asks for cannot be opened");
                self.open_spool_at = Some(clock::after(now.mono, OPEN_AGAIN));
            }
        }
    }

    fn change_levels(&mut self, change: impl FnOnce(&mut Levels), purge: bool) {
        let wanted = {
            let mut queue = self.shared.queue.lock();
            queue.change_levels(change, purge);
            queue.wanted()
        };
        self.shared.set_gate(wanted);
    }

    /// What the document leaves out is as the application configured it.
    pub(super) fn apply_settings(&mut self, upload: &Upload, limits: &Limits, now: Now) {
        let mut upload = upload.clone();
        upload.fill_from(&self.settings.upload);
        let spread = hash::fnv1a(self.settings.device.as_bytes());
        self.uploads.gate.set(Rhythm::of(&upload, spread), now);
        let waits = self.uploads.gate.waits();
        self.uploads.errors_at_once = waits && upload.errors_at_once.unwrap_or(false);
        self.apply_batching(&upload, waits);
        self.outbox.configured_bytes = limits.spool_bytes;
        self.outbox.persistent = limits.persistent.unwrap_or(self.settings.persistent);
        *self.shared.rate.write() = limits.rate.or(self.settings.rate);
        self.gather_for_the_disk();
        let wanted = self.outbox.persistent && self.outbox.spool.is_none();
        self.open_spool_at = (wanted && self.settings.spool.is_some()).then_some(now.mono);
        self.mode = upload.mode.unwrap_or_default();
    }

    fn apply_batching(&mut self, upload: &Upload, waits: bool) {
        let own = &self.settings.batching;
        let events = upload.batch_events.map(|events| events as usize);
        let bytes = upload.batch_bytes.map(|bytes| bytes as usize);
        let age = upload.flush_ms.map(Duration::from_millis);
        let usual = if waits { FLUSH_AGE_WAITING } else { FLUSH_AGE };
        // One batch must not hold so much of the memory that what waits for room waits for the broker.
        let share = own.memory_bytes / 4;
        let ring = (upload.mode == Some(UploadMode::OnError)).then(|| RingOptions {
            bytes: upload
                .ring_bytes
                .map_or(RING_BYTES, |bytes| bytes as usize)
                .min(share),
            after: upload
                .after_s
                .map_or(RING_AFTER, |s| Duration::from_secs(s.into())),
        });
        let wanted = {
            let mut queue = self.shared.queue.lock();
            queue.set_batching(|options| {
                options.batch_events = events.unwrap_or(own.batch_events).min(MAX_BATCH_EVENTS);
                options.batch_bytes = bytes
                    .unwrap_or(own.batch_bytes)
                    .min(MAX_BATCH_BYTES.min(share));
                options.flush_age = age.or(self.settings.flush_age).unwrap_or(usual);
            });
            queue.set_ring(ring);
            queue.set_hasten_errors(self.uploads.errors_at_once);
            queue.wanted()
        };
        self.shared.set_gate(wanted);
    }

    pub(super) fn remote_tick(&mut self, now: Now) {
        if self.remote.absent_at.is_some_and(|at| at <= now.mono) {
            self.remote.absent_at = None;
            let had_one = self.shared.queue.lock().levels().desired().is_some();
            if had_one {
                self.configure(&[], now);
            }
        }
        let waited = self.limits.is_some() && !self.remote.is_configuring(now.mono);
        if waited || now.mono >= self.remote.hold_until {
            // From here on what is queued keeps its numbers, whatever arrives.
            self.remote.known = true;
        }
    }

    /// Publishes `reported/<device>` when it is time and something changed.
    pub(super) fn report(&mut self, now: Instant) {
        let due = self.remote.report_at.is_some_and(|at| at <= now);
        if !due {
            return;
        }
        if !self.settings.reports {
            self.remote.report_at = None;
            return;
        }
        if self.report_pkid.is_some() {
            self.remote.report_at = Some(now + REPORT_AGAIN);
            return;
        }
        let report = self.current_report(true);
        self.remote.report_at = Some(now + REPORT_EVERY);
        if self.remote.last_report.as_ref() == Some(&report) {
            return;
        }
        let payload = serde_json::to_vec(&report).unwrap_or_default();
        let most = self.limits.map_or(0, |limits| limits.max_payload);
        if payload.len() > most {
            let bytes = payload.len();
            tracing::warn!(
                bytes,
                most,
                "this device's report is larger than the broker takes"
            );
            self.remote.last_report = Some(report);
        } else if self.publish_report(payload) {
            self.remote.last_report = Some(report);
        }
    }

    pub(super) fn offline_report(&self) -> Vec<u8> {
        serde_json::to_vec(&self.current_report(false)).unwrap_or_default()
    }

    fn current_report(&self, online: bool) -> Reported {
        let figures = &self.shared.figures;
        let queue = self.shared.queue.lock();
        let revision = queue.levels().desired().map(|d| d.revision.clone());
        Reported {
            online,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision,
            spool_events: queue.depth().0 + figures.in_flight.load(Relaxed),
            spool_bytes: figures.spool_bytes.load(Relaxed),
            dropped: queue.counters().dropped,
            dropped_by: queue
                .counters()
                .declared
                .with(self.outbox.dropped())
                .by_name(),
            upload: Some(self.mode),
            persistent: Some(self.outbox.is_spooled()),
            clock_synced: Some(self.shared.clock.now().wall.is_some()),
            attributes: self.settings.attributes.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_ahead_of_the_answer_to_the_subscription_counts() {
        let now = clock::mono();
        let mut remote = Remote::new(now);
        remote.connected(now);
        remote.arrived(now);
        remote.subscribed(true, now);
        assert_eq!(remote.absent_at, None);

        remote.disconnected();
        remote.connected(now);
        remote.subscribed(true, now);
        assert_eq!(remote.absent_at, Some(now + ABSENT_AFTER));
    }
}
