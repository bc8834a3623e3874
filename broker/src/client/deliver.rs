//! What goes out to a client: acknowledgements once the disk has what they stand for, retained and
//! queued messages, records of the journal.

use thinglog_journal::{AppendError, Outcome as JournalOutcome};

use super::{Answer, Client, Waiting};
use crate::{
    clock,
    codec::{self, Delivery, Reason, Version},
    feed::{Fill, HIGH_WATER, Receiver},
    hub::Wait,
    message::{Queued, seconds_left},
    session::Inner,
    state::Outcome as StateOutcome,
    window::Sent,
};

impl Client {
    /// Hands the collected publishes to the journal; while it is busy they stay, and no input is
    /// taken.
    pub(crate) fn append(&mut self) {
        if self.records.is_empty() {
            return;
        }
        match self.hub.journal.append(clock::now(), &self.records) {
            Ok(offsets) => {
                for waiting in self.waiting.iter_mut().rev() {
                    if let Some(index) = waiting.collected.take() {
                        waiting.until = Wait::Journal(offsets.start + index as u64);
                    } else if matches!(waiting.until, Wait::Journal(_)) {
                        break;
                    }
                }
                self.records.clear();
            }
            Err(AppendError::Busy) => {}
            Err(error) => {
                tracing::error!(client = &*self.session.client_id, %error, "publishes could not be stored");
                self.records.clear();
                self.drop_unstored();
                self.close(Reason::QuotaExceeded, "the publish could not be stored");
            }
        }
    }

    /// Tells a version 5 client which publishes were not stored.
    fn drop_unstored(&mut self) {
        while let Some(waiting) = self.waiting.pop_front() {
            if let (Some(_), Answer::PubAck(pkid)) = (waiting.collected, &waiting.answer)
                && self.version() == Version::V5
            {
                let version = self.version();
                codec::write_puback(version, *pkid, Reason::QuotaExceeded, "", &mut self.out);
            }
        }
    }

    /// Moves the acknowledgements whose wait is over into the output, in the order of their publishes
    /// (MQTT 5.0 section 4.6).
    pub(crate) fn settle(&mut self) {
        let settled = self.hub.journal.settled();
        while let Some(waiting) = self.waiting.front() {
            let stored = match waiting.until {
                _ if waiting.collected.is_some() => break,
                Wait::Nothing => true,
                Wait::Journal(offset) if offset >= settled => break,
                Wait::Journal(offset) => match self.hub.journal.outcome(offset) {
                    JournalOutcome::Pending => break,
                    JournalOutcome::Durable => true,
                    JournalOutcome::Failed(_) => false,
                },
                Wait::State(ticket) => match self.hub.state.outcome(ticket) {
                    StateOutcome::Pending => break,
                    StateOutcome::Stored => true,
                    StateOutcome::Failed => false,
                },
            };
            let Some(waiting) = self.waiting.pop_front() else {
                break;
            };
            self.answer(waiting, stored);
        }
    }

    fn answer(&mut self, waiting: Waiting, stored: bool) {
        if let Some(since) = waiting.since {
            self.hub
                .telemetry
                .acknowledge_seconds
                .observe(since.elapsed().as_secs_f64());
        }
        match waiting.answer {
            Answer::PubAck(pkid) => {
                self.pubacks_waiting -= 1;
                let version = self.version();
                if stored {
                    codec::write_puback(version, pkid, Reason::Success, "", &mut self.out);
                } else if version == Version::V5 && self.closing.is_none() {
                    let reason = Reason::QuotaExceeded;
                    codec::write_puback(version, pkid, reason, "", &mut self.out);
                }
            }
            Answer::Packet(packet) if stored => self.out.extend_from_slice(&packet),
            Answer::Packet(_) => {}
        }
        if !stored {
            self.hub
                .telemetry
                .refused(&self.session.client_id, "not stored");
            self.close(
                Reason::QuotaExceeded,
                "what the client sent could not be stored",
            );
        }
    }

    /// Fills the output with deliveries. True when there is more to give as soon as there is time.
    pub(crate) fn fill(&mut self) -> bool {
        self.renew();
        if self.closing.is_some() {
            return false;
        }
        let session = self.session.clone();
        let mut inner = session.inner.lock();
        if inner.owner != self.connection {
            drop(inner);
            self.close(Reason::TakenOver, "another connection uses this client id");
            return false;
        }
        let now = clock::now();
        self.send_again(&mut inner, now);
        self.hub.pump_retained(&mut inner, now);
        if self.resend.is_empty() {
            self.fill_from_queue(&mut inner, now);
        }
        // A queue that is not short moves on with the client's next acknowledgement or read.
        let more_retained = !inner.scans.is_empty() && inner.queue.is_short();
        if let Some(feed) = &mut self.feed {
            if feed.fill(
                &mut inner,
                &self.receiver,
                now,
                &mut self.aliases_out,
                &mut self.out,
            ) == Fill::NeedsRead
            {
                feed.start_read();
            }
            let skipped = std::mem::take(&mut feed.skipped);
            drop(inner);
            self.hub.telemetry.skipped(&session.client_id, skipped);
        }
        more_retained && self.out.len() < HIGH_WATER
    }

    /// Sends what an earlier connection sent and the client never acknowledged, in the same order
    /// under the same packet ids (MQTT 5.0 sections 4.4 and 4.6).
    fn send_again(&mut self, inner: &mut Inner, now: u64) {
        while self.out.len() < HIGH_WATER
            && inner.window.may_resend(self.receiver.receive_maximum)
            && let Some(pkid) = self.resend.pop_front()
        {
            let Some(Sent::Queued(queued)) = inner.window.resend(pkid) else {
                continue;
            };
            let queued = queued.clone();
            if !self.write_queued(&queued, pkid, true, now) {
                inner.acknowledge(pkid);
            }
        }
    }

    /// Gives from the queue; beside a feed no more than half of what the client takes at once, so
    /// that neither starves the other.
    fn fill_from_queue(&mut self, inner: &mut Inner, now: u64) {
        let share = match self.feed {
            Some(_) => self.receiver.receive_maximum.div_ceil(2),
            None => self.receiver.receive_maximum,
        };
        while self.out.len() < HIGH_WATER {
            let Some(front) = inner.queue.front() else {
                return;
            };
            let has_room = inner.window.has_room(share)
                && inner.window.bytes() < self.hub.config.limits.queue_bytes;
            if front.qos > 0 && !has_room {
                return;
            }
            let Some(queued) = inner.queue.pop() else {
                return;
            };
            if queued.message.is_expired(now) {
                self.hub
                    .telemetry
                    .dropped(&self.session.client_id, "expired");
                continue;
            }
            let pkid = if queued.qos > 0 {
                inner.window.push(Sent::Queued(queued.clone()))
            } else {
                0
            };
            if !self.write_queued(&queued, pkid, false, now) {
                inner.acknowledge(pkid);
            }
        }
    }

    /// Writes one message; false when it is larger than the client takes, or not for it to read.
    fn write_queued(&mut self, queued: &Queued, pkid: u16, dup: bool, now: u64) -> bool {
        let message = &queued.message;
        if !self.pass.may_read(&message.topic) {
            self.hub
                .telemetry
                .dropped(&self.session.client_id, "not allowed to read");
            return false;
        }
        let mut delivery = Delivery {
            dup,
            qos: queued.qos,
            retain: queued.retain,
            pkid,
            topic: message.topic.as_bytes(),
            expiry: message.expires.map(|expires| seconds_left(expires, now)),
            subscription_ids: &queued.ids,
            properties: &message.properties,
            payload: &message.payload,
            ..Delivery::default()
        };
        let Receiver {
            version,
            max_packet,
            ..
        } = self.receiver;
        if !delivery.fit(version, max_packet, &self.aliases_out) {
            self.hub
                .telemetry
                .dropped(&self.session.client_id, "over the client's packet size");
            return false;
        }
        delivery.write(version, &mut self.aliases_out, &mut self.out);
        true
    }
}
