//! What goes out to a client: retained and queued messages, records of the journal.

use thinglog_journal::Outcome as JournalOutcome;

use super::Client;
use crate::{
    clock,
    codec::{Delivery, Reason},
    feed::{Fill, HIGH_WATER, Receiver},
    hub::{Settled, Wait},
    message::{Origin, Queued, seconds_left},
    session::Inner,
    window::Sent,
};

impl Client {
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
        if self.subscribing > 0 {
            return false;
        }
        let now = clock::now();
        self.send_again(&mut inner, now);
        self.send_prepared(&mut inner, now);
        self.hub.pump_retained(&session, &mut inner, now);
        if self.resend.is_empty() {
            self.fill_from_queue(&mut inner, now);
        }
        // A queue that is not short moves on with the client's next acknowledgement or read.
        let more_retained = !inner.scans.is_empty() && self.hub.takes_retained(&inner);
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
            self.traffic.add(std::mem::take(&mut feed.traffic));
            if feed.is_over() && self.hub.drop_needless_cursor(&session, &mut inner) {
                self.feed = None;
            }
            drop(inner);
            self.hub.telemetry.skipped(&session.client_id, skipped);
        }
        (more_retained && self.out.len() < HIGH_WATER) || !self.to_release.is_empty()
    }

    /// Sends what an earlier connection sent and the client never settled, in the same order under the
    /// same packet ids (MQTT 5.0 sections 4.4 and 4.6).
    fn send_again(&mut self, inner: &mut Inner, now: u64) {
        match self.resend_after.map(|ticket| self.state_of(ticket)) {
            Some(Settled::Pending) => return,
            Some(Settled::Failed) => return self.close_unstored(),
            Some(Settled::Stored) | None => self.resend_after = None,
        }
        while self.out.len() < HIGH_WATER
            && inner.window.may_resend(self.receiver.receive_maximum)
            && let Some(pkid) = self.resend.pop_front()
        {
            match inner.window.resend(pkid) {
                Some(Sent::Released) => self.to_release.push(pkid),
                Some(Sent::Queued(_)) => self.send(inner, pkid, true, now),
                Some(Sent::Durable(_)) | None => {}
            }
        }
    }

    /// Sends a message that has its packet id.
    fn send(&mut self, inner: &mut Inner, pkid: u16, dup: bool, now: u64) {
        let Some(Sent::Queued(queued)) = inner.window.sent(pkid) else {
            return;
        };
        if !self.write_queued(queued, pkid, dup, now)
            && let Some(Sent::Queued(queued)) = inner.window.discard(pkid)
        {
            inner.finish(&queued, &self.hub.mail);
        }
    }

    /// Sends the messages of QoS 2 whose packet ids are on disk by now.
    fn send_prepared(&mut self, inner: &mut Inner, now: u64) {
        while let Some((ticket, pkid)) = self.prepared.front().copied() {
            match self.state_of(ticket) {
                Settled::Pending => return,
                Settled::Stored if self.out.len() >= HIGH_WATER => return,
                Settled::Stored => {
                    self.prepared.pop_front();
                    self.send(inner, pkid, false, now);
                }
                Settled::Failed => return self.close_unstored(),
            }
        }
    }

    fn state_of(&self, ticket: u64) -> Settled {
        self.hub.settled(&Wait {
            state: Some(ticket),
            ..Wait::default()
        })
    }

    fn close_unstored(&mut self) {
        self.close(
            Reason::QuotaExceeded,
            "the state of a QoS 2 delivery could not be stored",
        );
    }

    /// Gives from the queue; beside a feed no more than half of what the client takes at once, so
    /// that neither starves the other.
    fn fill_from_queue(&mut self, inner: &mut Inner, now: u64) {
        let share = match self.feed {
            Some(_) => self.receiver.receive_maximum.div_ceil(2),
            None => self.receiver.receive_maximum,
        };
        let most = self.window_bytes();
        let mut prepared = Vec::new();
        while self.out.len() < HIGH_WATER
            && let Some(front) = inner.queue.front()
        {
            let has_room = inner.window.has_room(self.receiver.receive_maximum)
                && inner.window.queued() < usize::from(share)
                && inner.window.bytes() < most;
            if front.qos > 0 && !has_room {
                break;
            }
            let Some(is_stored) = self.is_stored(front) else {
                break;
            };
            let Some(queued) = inner.queue.pop() else {
                break;
            };
            let is_expired = queued.message.is_expired(now);
            if is_expired || !is_stored {
                inner.finish(&queued, &self.hub.mail);
                let reason = if is_expired { "expired" } else { "not stored" };
                self.hub.telemetry.dropped(&self.session.client_id, reason);
                continue;
            }
            match queued.qos {
                0 => {
                    self.write_queued(&queued, 0, false, now);
                    inner.finish(&queued, &self.hub.mail);
                }
                2 if self.session.is_persistent() => {
                    prepared.push(inner.window.push(Sent::Queued(queued)));
                }
                _ => {
                    let pkid = inner.window.push(Sent::Queued(queued));
                    self.send(inner, pkid, false, now);
                }
            }
        }
        if !prepared.is_empty() {
            let ticket = self.hub.store_outgoing(&self.session, inner);
            self.prepared
                .extend(prepared.into_iter().map(|pkid| (ticket, pkid)));
        }
    }

    /// Bytes of messages that may be under way to the client: no more than its share when all sessions
    /// together hold much, for what is under way is not taken back.
    fn window_bytes(&self) -> usize {
        let most = self.hub.config.limits.queue_bytes;
        match self.hub.load.is_roomy() {
            true => most,
            false => most.min(self.hub.load.share()).max(1),
        }
    }

    /// Whether a message may go out: one of QoS 2 that came to the disk does so once it is there, for
    /// its publisher sends it again if it is not. `None` while that is open.
    pub(super) fn is_stored(&self, queued: &Queued) -> Option<bool> {
        match queued.origin {
            Origin::Mail(id) if queued.qos == 2 => match self.hub.mail.outcome(id) {
                JournalOutcome::Pending => None,
                JournalOutcome::Durable => Some(true),
                JournalOutcome::Failed(_) => Some(false),
            },
            Origin::Mail(_) | Origin::Memory | Origin::Log(_) => Some(true),
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
        self.traffic.sent(queued.qos, message.payload.len());
        true
    }
}
