//! The worker behind the handles: one task that moves batches from the queue through the spool to
//! the broker, keeps the connection, and applies the configuration that comes back over it. All
//! decisions are in the pure modules; here is what touches clock, disk and network.

mod demand;
#[cfg(test)]
mod full_tests;
pub(crate) mod link;
pub(crate) mod outbox;
mod remote;
mod renewal;
mod uploads;
mod wire;

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::Bytes;
use thinglog_schemas::{
    Topic, Topics,
    config::{Limits as RemoteLimits, Upload, UploadMode},
};
use tokio::{sync::mpsc, time::sleep_until};

use crate::{
    backoff::Backoff,
    clock,
    config::Settings,
    connection::{BrokerUrl, Credentials, credentials::Proof},
    levels::{Levels, Now},
    shared::Shared,
    spool::Spool,
    upload::{Gate, Rhythm},
};
use link::{Cause, Endpoint, INFLIGHT, Link, LinkEvent, Refusal};
use outbox::{Outbox, stamped};
use remote::Remote;
use renewal::Renewal;
use uploads::Uploads;

/// How long a connection without any acknowledgement for what was sent is believed in.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(60);
/// A connection that lived so long was a success, also when it carried nothing.
const STABLE: Duration = Duration::from_secs(30);
/// How long the farewell may take.
const FAREWELL: Duration = Duration::from_millis(500);
/// The longest sleep: clocks that jump and timers that were missed cost no more than this.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// MQTT's own bytes around a payload: fixed header, topic, packet id, properties.
const PACKET_OVERHEAD: usize = 1 + 4 + 2 + 600 + 2 + 1;

/// What was handed to the connection, in order, and has no packet id yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handed {
    Batch,
    Report,
    Reply,
}

pub(crate) struct Worker {
    shared: Arc<Shared>,
    settings: Settings,
    topics: Topics,
    outbox: Outbox,
    remote: Remote,
    credentials: Credentials,
    renewal: Renewal,
    uploads: Uploads,
    /// The mode of upload in force.
    mode: UploadMode,
    /// When to try (again) to open the spool that the configuration asks for.
    open_spool_at: Option<Instant>,
    link: Option<Link>,
    /// Limits of the connection; `None` before CONNACK.
    limits: Option<Limits>,
    connect_at: Instant,
    connected_at: Instant,
    backoff: Backoff,
    /// Waiting after the broker refused a publish.
    refused: Backoff,
    paused_until: Option<Instant>,
    handed: VecDeque<Handed>,
    report_pkid: Option<u16>,
    last_progress: Instant,
    /// Set while saying goodbye.
    farewell_until: Option<Instant>,
    /// What was said last about a connection that does not come about.
    complaint: String,
    /// Where requests go, when somebody takes them.
    pub(crate) requests: Option<mpsc::Sender<Bytes>>,
    /// They were subscribed to over this connection.
    asked_for_requests: bool,
    /// The last field, so dropped last: whoever waited finds the spool unlocked.
    _ending: Ending,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    window: usize,
    max_payload: usize,
}

/// Tells whoever waits that the worker is gone, even when it panicked or never ran.
struct Ending(Arc<Shared>);
impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Worker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        settings: Settings,
        topics: Topics,
        spool: Option<Spool>,
        boot: u64,
    ) -> Worker {
        let now = shared.clock.now();
        let kept = spool.as_ref().and_then(|spool| spool.dir().desired());
        let mut worker = Worker {
            _ending: Ending(shared.clone()),
            remote: Remote::new(now.mono),
            outbox: Outbox::new(spool, INFLIGHT, settings.batching.memory_bytes, boot),
            credentials: Credentials::new(settings.login.clone(), settings.tls.clone()),
            renewal: Renewal::new(now.mono),
            uploads: Uploads::new(Gate::new(Rhythm::Always, now)),
            mode: UploadMode::Realtime,
            open_spool_at: None,
            shared,
            topics,
            link: None,
            limits: None,
            connect_at: now.mono,
            connected_at: now.mono,
            backoff: Backoff::new(settings.backoff_base, settings.backoff_cap),
            refused: Backoff::new(settings.backoff_base, settings.backoff_cap),
            settings,
            paused_until: None,
            handed: VecDeque::new(),
            report_pkid: None,
            last_progress: now.mono,
            farewell_until: None,
            complaint: String::new(),
            requests: None,
            asked_for_requests: false,
        };
        match kept {
            Some((desired, received)) => worker.restore(desired, received),
            None => worker.apply_settings(&Upload::default(), &RemoteLimits::default(), now),
        }
        worker
    }

    /// Runs until it is asked to stop.
    pub(crate) async fn run(mut self) {
        self.work().await;
    }

    async fn work(&mut self) {
        loop {
            let now = self.shared.clock.now();
            self.shared.pulse.beat(now.mono);
            let more = self.pass(now);
            if self.is_over(now.mono) {
                break;
            }
            let deadline = self.deadline(now);
            let event = tokio::select! {
                biased;
                event = next_event(&mut self.link) => Some(event),
                () = self.shared.wake.notified() => None,
                () = tokio::task::yield_now(), if more => None,
                () = sleep_until(deadline.into()), if !more => None,
            };
            if let Some(event) = event {
                self.on_events(event);
            }
        }
        if let Some(spool) = &mut self.outbox.spool {
            spool.note(clock::mono(), true);
        }
    }

    /// Everything that can be done now without waiting. True when there is more.
    fn pass(&mut self, now: Now) -> bool {
        self.tick(now);
        // While a connection is being made, the time since it began counts.
        if self.outbox.window.is_quiet() && self.limits.is_some() {
            self.last_progress = now.mono;
        }
        let gathers = !self.uploads.may_send() && !self.outbox.is_spooled();
        let hold = gathers || self.remote.holds_back(now.mono);
        let mut more = self.outbox.fill(&self.shared, now, hold);
        self.send(now.mono);
        if self.outbox.release(&self.shared, now.mono) {
            self.last_progress = now.mono;
            more |= self.outbox.fill(&self.shared, now, hold);
            self.send(now.mono);
        }
        self.end_upload(now);
        self.shared.poll_waiters(now.mono);
        more
    }

    fn tick(&mut self, now: Now) {
        let changed = {
            let mut queue = self.shared.queue.lock();
            let overdue = queue.levels().is_overdue(now.wall);
            if overdue {
                queue.change_levels(Levels::end_temporary, false);
            }
            (queue.tick(now.mono) || overdue).then(|| queue.wanted())
        };
        if let Some(level) = changed {
            self.shared.set_gate(level);
        }
        self.remote_tick(now);
        self.open_spool(now);
        self.renewal_tick(now);
        self.upload_tick(now);
        if self.link.is_none() && self.farewell_until.is_none() && now.mono >= self.connect_at {
            self.connect(now);
        }
        if let Some(reason) = self.stall(now.mono) {
            self.down(Cause::Other, reason, now.mono);
        }
    }

    /// Why a connection that does not say so itself is of no use any more.
    fn stall(&self, now: Instant) -> Option<&'static str> {
        let patience = self.last_progress + ACKNOWLEDGE_WITHIN;
        if self.link.is_none() || now < patience {
            return None;
        }
        if self.limits.is_none() {
            return Some("the connection did not come about within a minute");
        }
        let waits = !self.outbox.window.is_quiet() && self.paused_until.is_none();
        waits.then_some("no acknowledgement for a minute")
    }

    fn connect(&mut self, now: Now) {
        let proof = match self.credentials.load() {
            Ok(proof) => proof,
            Err(error) => return self.down(Cause::Other, &error.to_string(), now.mono),
        };
        self.renewal.loaded(&proof);
        let endpoint = self.endpoint(proof);
        self.link = Some(Link::connect(endpoint));
        self.last_progress = now.mono;
        self.limits = None;
        self.handed.clear();
        self.report_pkid = None;
        self.asked_for_requests = false;
        self.outbox.window.reset();
        self.shared.replies.lock().reset();
    }

    fn endpoint(&self, proof: Proof) -> Endpoint {
        let device = &self.settings.device;
        let host = &self.settings.host;
        let tls = self.settings.tls.as_ref();
        let server_name = tls.and_then(|tls| tls.server_name.as_ref());
        Endpoint {
            server_name: server_name.unwrap_or(host).clone(),
            host: host.clone(),
            port: self.settings.port,
            client_id: format!("{device}/{}", self.settings.instance),
            proof,
            will: self.settings.reports.then(|| {
                let topic = self.topics.format(Topic::Reported { device });
                (topic, self.offline_report())
            }),
        }
    }

    fn on_events(&mut self, first: LinkEvent) {
        let mut event = Some(first);
        while let Some(next) = event {
            self.on_event(next, self.shared.clock.now());
            event = self.link.as_mut().and_then(Link::try_next);
        }
    }

    fn on_event(&mut self, event: LinkEvent, now: Now) {
        match event {
            LinkEvent::Connected {
                receive_max,
                max_packet,
            } => self.connected(receive_max, max_packet, now.mono),
            LinkEvent::Subscribed { granted } => {
                // The first answer is about the configuration.
                if !self.is_second_subscription(granted) {
                    self.remote.subscribed(granted, now.mono);
                }
            }
            LinkEvent::Message { topic, payload } => {
                if !self.take_request(&topic, &payload) && topic == self.desired_topic() {
                    self.configure(&payload, now);
                }
            }
            LinkEvent::Assigned(pkid) => match self.handed.pop_front() {
                Some(Handed::Report) => self.report_pkid = Some(pkid),
                Some(Handed::Batch) => self.outbox.window.assigned(pkid),
                Some(Handed::Reply) => self.shared.replies.lock().assigned(pkid),
                None => {}
            },
            LinkEvent::Acknowledged(pkid) => {
                if self.outbox.window.acknowledged(pkid) {
                    let figures = &self.shared.figures;
                    figures.last_acknowledged.store(clock::wall(), Relaxed);
                    self.refused.reset();
                    self.backoff.reset();
                } else if self.report_pkid == Some(pkid) {
                    self.report_pkid = None;
                } else {
                    self.reply_settled(pkid, None);
                }
            }
            LinkEvent::Refused(pkid, refusal) => self.refused(pkid, refusal, now.mono),
            LinkEvent::Down(cause, reason) => self.down(cause, &reason, now.mono),
        }
    }

    fn connected(&mut self, receive_max: u16, max_packet: u32, now: Instant) {
        // A report, a subscription and answers may need ids beside the batches.
        let beside = if self.requests.is_some() { 4 } else { 2 };
        let window = usize::from(receive_max)
            .saturating_sub(beside)
            .clamp(1, INFLIGHT);
        let max_payload = (max_packet as usize).saturating_sub(PACKET_OVERHEAD).max(1);
        self.limits = Some(Limits {
            window,
            max_payload,
        });
        self.connected_at = now;
        self.last_progress = now;
        if !std::mem::take(&mut self.complaint).is_empty() {
            tracing::info!(broker = %self.broker(), "connected to the broker again");
        }
        self.shared.figures.connects.fetch_add(1, Relaxed);
        self.shared.figures.connected.store(true, Relaxed);
        tracing::debug!(window, max_payload, "connected to the broker");
        if let Some(link) = &self.link {
            link.subscribe(&self.desired_topic());
        }
        self.remote.connected(now);
    }

    fn desired_topic(&self) -> String {
        self.topics.format(Topic::Desired {
            device: &self.settings.device,
        })
    }

    /// The connection is gone: plan the next one.
    fn down(&mut self, cause: Cause, reason: &str, now: Instant) {
        self.link = None;
        if self.limits.take().is_some() && now >= self.connected_at + STABLE {
            self.backoff.reset();
        }
        self.paused_until = None;
        self.remote.disconnected();
        self.outbox.window.reset();
        self.shared.figures.connected.store(false, Relaxed);
        if self.farewell_until.is_some() {
            return;
        }
        if self.renewal.finished() {
            self.connect_at = now;
            return;
        }
        let wait = self.backoff.next(crate::random());
        self.connect_at = clock::after(now, wait);
        self.complain(cause, reason);
    }

    /// Says why there is no connection: once, and again when the reason is another.
    fn complain(&mut self, cause: Cause, reason: &str) {
        let reason = match cause {
            Cause::Login => format!("{reason}; connecting {}", self.credentials.describe()),
            Cause::Tls => {
                self.credentials.distrust();
                let authorities = self.credentials.describe_authorities();
                format!("{reason}; its certificate is checked by {authorities}")
            }
            Cause::Other => reason.to_owned(),
        };
        if self.complaint != reason {
            tracing::warn!(broker = %self.broker(), reason, "no connection to the broker; events are kept");
            self.complaint = reason;
        }
    }

    /// For people.
    fn broker(&self) -> BrokerUrl {
        BrokerUrl {
            host: self.settings.host.clone(),
            port: self.settings.port,
            tls: self.credentials.is_encrypted(),
        }
    }

    fn refused(&mut self, pkid: u16, refusal: Refusal, now: Instant) {
        let reason = format!("{refusal:?}");
        if self.reply_settled(pkid, Some(&reason)) {
            return;
        }
        if self.report_pkid == Some(pkid) {
            tracing::warn!(reason, "the broker refused this device's report");
            self.report_pkid = None;
            return;
        }
        match refusal {
            Refusal::Retry(reason) => {
                let Some(sealed) = self.outbox.window.refused(pkid) else {
                    return;
                };
                if self.refused.failures() == 0 {
                    let source = &sealed.source;
                    tracing::warn!(?reason, %source, "the broker did not store a batch; trying again");
                }
                // What was in flight together is refused together: one failure.
                if self.paused_until.is_none() {
                    let wait = self.refused.next(crate::random());
                    self.paused_until = Some(clock::after(now, wait));
                }
            }
            Refusal::Permanent(reason) => {
                tracing::warn!(
                    ?reason,
                    "the broker will never take a batch; it is declared dropped"
                );
                self.outbox.give_up(pkid, &self.shared);
            }
        }
    }

    /// Hands waiting batches to the connection, and a report when one is due.
    fn send(&mut self, now: Instant) {
        let Some(limits) = self.limits else { return };
        if self.remote.is_configuring(now) || self.renewal.is_draining() {
            return;
        }
        self.report(now);
        self.send_replies(limits.max_payload);
        if let Some(until) = self.paused_until {
            if until > now {
                return;
            }
            self.paused_until = None;
            self.last_progress = now;
        }
        if !self.uploads.may_send() {
            return;
        }
        let Some(link) = &self.link else { return };
        let shared = &self.shared;
        let boot = self.outbox.boot();
        while let Some(sealed) = self.outbox.next(limits.window, limits.max_payload, shared) {
            let topic = self.topics.format(Topic::Logs {
                device: &self.settings.device,
                source: &sealed.source,
            });
            let payload = stamped(sealed, boot);
            if !link.publish(&topic, false, payload) {
                break;
            }
            self.handed.push_back(Handed::Batch);
            self.outbox.window.handed();
        }
    }

    /// Publishes a retained document about this device; the connection may hold one at a time.
    fn publish_report(&mut self, payload: Vec<u8>) -> bool {
        let topic = self.topics.format(Topic::Reported {
            device: &self.settings.device,
        });
        let Some(link) = &self.link else { return false };
        let sent = link.publish(&topic, true, Bytes::from(payload));
        if sent {
            self.handed.push_back(Handed::Report);
        }
        sent
    }

    fn is_over(&mut self, now: Instant) -> bool {
        if let Some(until) = self.farewell_until {
            return self.link.is_none() || now >= until;
        }
        let Some(deadline) = self.shared.stop_deadline() else {
            return false;
        };
        if now < deadline && !self.is_all_safe() {
            return false;
        }
        self.say_goodbye(now);
        self.link.is_none()
    }

    /// Nothing more to wait for: acknowledged, or on disk without a broker to send it to.
    fn is_all_safe(&mut self) -> bool {
        let flushed = {
            let mut queue = self.shared.queue.lock();
            let mut target = queue.start_flush();
            queue.poll_flush(&mut target).is_some()
        };
        let unreachable = self.limits.is_none() && self.backoff.failures() > 0;
        let spooled = self.outbox.is_spooled();
        let stays = spooled && (unreachable || !self.uploads.may_send());
        flushed && (self.outbox.is_empty() || stays)
    }

    /// An ordered end says itself that the device is offline; a lost connection leaves it to the will.
    fn say_goodbye(&mut self, now: Instant) {
        self.farewell_until = Some(now + FAREWELL);
        if self.limits.is_none() {
            self.link = None;
            return;
        }
        if self.settings.reports {
            let offline = self.offline_report();
            self.publish_report(offline);
        }
        let leaving = self.link.as_ref().is_some_and(Link::disconnect);
        if !leaving {
            self.link = None;
        }
    }

    fn deadline(&mut self, now: Now) -> Instant {
        let upload = self.uploads.gate.deadline(now);
        let now = now.mono;
        let connect = (self.link.is_none()).then_some(self.connect_at);
        let queue = self.shared.queue.lock().deadline();
        let candidates = [
            queue,
            self.shared.poll_waiters(now),
            self.outbox.deadline(),
            self.remote.deadline(now),
            self.renewal.deadline(&self.credentials),
            self.paused_until,
            self.open_spool_at,
            upload,
            connect,
            self.farewell_until.or(self.shared.stop_deadline()),
        ];
        let longest = now + LONGEST_SLEEP;
        candidates.into_iter().flatten().fold(longest, Instant::min)
    }
}

async fn next_event(link: &mut Option<Link>) -> LinkEvent {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}
