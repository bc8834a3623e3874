//! Acknowledgements: those of the client's publishes, held until the disk has what they stand for and
//! sent in the order of the publishes (MQTT 5.0 section 4.6), and those the client sends for what it got.

use std::time::Instant;

use bytes::BytesMut;
use thinglog_journal::AppendError;

use super::{Answer, Client, Taken, Waiting};
use crate::{
    clock,
    codec::{self, Ack, CodecError, Publish, Reason, Version},
    hub::{Settled, Wait},
    inbound::{Inbound, Place},
    record::Packet,
    window::Received,
};

impl Client {
    /// Hands the collected records to the journal; while it is busy they stay, and no input is taken.
    pub(crate) fn append(&mut self) {
        if self.records.is_empty() {
            return;
        }
        if !self.hub.state.accepts() {
            return self.cannot_store("the disk is full");
        }
        let session = self.session.clone();
        // The lock keeps packet ids and records together: a checkpoint sees both or neither.
        let mut inner = self.carries_ids.then(|| session.inner.lock());
        if inner
            .as_ref()
            .is_some_and(|inner| inner.owner != self.connection)
        {
            // Another connection has the session: it will bring them again.
            self.waiting.clear();
            return self.clear_records();
        }
        match self.hub.journal.append(clock::now(), &self.records) {
            Ok(offsets) => {
                let persistent = session.is_persistent();
                for waiting in self.waiting.iter_mut().rev() {
                    if self.unplaced == 0 {
                        break;
                    }
                    let Some(index) = waiting.collected.take() else {
                        continue;
                    };
                    self.unplaced -= 1;
                    let offset = offsets.start + index as u64;
                    waiting.until.log = Some(offset);
                    let Some(inner) = &mut inner else { continue };
                    let place = match persistent {
                        true => Place::Log(offset),
                        false => Place::Memory,
                    };
                    match waiting.answer {
                        Answer::PubRec(pkid) => inner.inbound.insert(pkid, place),
                        Answer::PubComp(pkid) => inner.inbound.set_release(pkid, Some(place)),
                        Answer::PubAck(_) | Answer::SubAck(_) | Answer::Packet(_) => {}
                    }
                }
                self.clear_records();
            }
            Err(AppendError::Busy) => {}
            Err(error) => {
                drop(inner);
                self.cannot_store(&error.to_string());
            }
        }
    }

    /// Nothing is collected any more.
    fn clear_records(&mut self) {
        self.records.clear();
        self.collected_ids.clear();
        self.carries_ids = false;
        self.unplaced = 0;
    }

    /// Refuses the collected publishes and ends the connection.
    fn cannot_store(&mut self, reason: &str) {
        let client = &*self.session.client_id;
        tracing::debug!(client, reason, "publishes could not be stored");
        self.note_refusal("not stored");
        self.clear_records();
        self.drop_unstored();
        self.close(Reason::QuotaExceeded, "the publish could not be stored");
    }

    /// Tells a version 5 client which publishes were not stored.
    fn drop_unstored(&mut self) {
        let version = self.version();
        while let Some(waiting) = self.waiting.pop_front() {
            if waiting.collected.is_none() || version == Version::V311 {
                continue;
            }
            let reason = Reason::QuotaExceeded;
            match waiting.answer {
                Answer::PubAck(pkid) => {
                    codec::write_puback(version, pkid, reason, "", &mut self.out)
                }
                Answer::PubRec(pkid) => {
                    codec::write_pubrec(version, pkid, reason, "", &mut self.out)
                }
                Answer::PubComp(_) | Answer::SubAck(_) | Answer::Packet(_) => {}
            }
        }
    }

    /// Moves the answers whose wait is over into the output.
    pub(crate) fn settle(&mut self) {
        self.release();
        let settled = self.hub.journal.settled();
        while let Some(waiting) = self.waiting.front() {
            let is_early = waiting.until.log.is_some_and(|offset| offset >= settled);
            if waiting.collected.is_some() || is_early {
                return;
            }
            let outcome = self.hub.settled(&waiting.until);
            if outcome == Settled::Pending {
                return;
            }
            if let Some(waiting) = self.waiting.pop_front() {
                self.answer(waiting, outcome == Settled::Stored);
            }
        }
    }

    fn answer(&mut self, waiting: Waiting, stored: bool) {
        if let Some(since) = waiting.since {
            self.hub
                .telemetry
                .acknowledge_seconds
                .observe(since.elapsed().as_secs_f64());
        }
        let version = self.version();
        let reason = match stored {
            true => Reason::Success,
            false => Reason::QuotaExceeded,
        };
        let tells = stored || (version == Version::V5 && self.closing.is_none());
        self.traffic.answered();
        match waiting.answer {
            Answer::PubAck(pkid) => {
                self.unacknowledged = self.unacknowledged.saturating_sub(1);
                if tells {
                    codec::write_puback(version, pkid, reason, "", &mut self.out);
                }
            }
            Answer::PubRec(pkid) => {
                if !stored {
                    self.unacknowledged = self.unacknowledged.saturating_sub(1);
                    self.with_inbound(|inbound| inbound.remove(pkid));
                }
                if tells {
                    codec::write_pubrec(version, pkid, reason, "", &mut self.out);
                }
            }
            Answer::PubComp(pkid) => {
                if stored {
                    self.unacknowledged = self.unacknowledged.saturating_sub(1);
                    self.with_inbound(|inbound| inbound.remove(pkid));
                    codec::write_pubcomp(version, pkid, reason, &mut self.out);
                } else {
                    self.with_inbound(|inbound| inbound.set_release(pkid, None));
                }
            }
            Answer::SubAck(packet) => {
                self.subscribing -= 1;
                if stored {
                    self.out.extend_from_slice(&packet);
                }
            }
            Answer::Packet(packet) if stored => self.out.extend_from_slice(&packet),
            Answer::Packet(_) => {}
        }
        if !stored {
            self.note_refusal("not stored");
            self.close(
                Reason::QuotaExceeded,
                "what the client sent could not be stored",
            );
        }
    }

    /// Changes the packet ids received, unless another connection has them now.
    fn with_inbound(&self, change: impl FnOnce(&mut Inbound)) {
        let mut inner = self.session.inner.lock();
        if inner.owner == self.connection {
            change(&mut inner.inbound);
        }
    }

    /// Whether a QoS 2 publish is here already: then it is answered once more and goes nowhere
    /// (MQTT 5.0 section 4.3.3).
    pub(super) fn is_repeated(&mut self, pkid: u16) -> bool {
        if self.collected_ids.contains(&pkid) {
            return true;
        }
        let place = self.session.inner.lock().inbound.place(pkid);
        let Some(place) = place else { return false };
        self.wait(until_stored(place), Answer::PubRec(pkid));
        true
    }

    /// Queues the acknowledgement of a publish.
    pub(super) fn acknowledge(
        &mut self,
        publish: &Publish<'_>,
        until: Wait,
        collected: Option<usize>,
    ) {
        let answer = match publish.qos {
            0 => return,
            1 => Answer::PubAck(publish.pkid),
            _ => Answer::PubRec(publish.pkid),
        };
        self.unacknowledged += 1;
        self.unplaced += usize::from(collected.is_some());
        let since = collected.is_some_and(|index| index == 0).then(Instant::now);
        self.waiting.push_back(Waiting {
            until,
            collected,
            since,
            answer,
        });
    }

    /// Refuses one publish: version 5 hears why, 3.1.1 has no way to be told but the end of the
    /// connection.
    pub(super) fn reject(
        &mut self,
        publish: &Publish<'_>,
        reason: Reason,
        text: &'static str,
    ) -> Result<Taken, CodecError> {
        let version = self.version();
        if version == Version::V311 {
            return Err(CodecError::new(reason, text));
        }
        self.note_refusal(text);
        let mut packet = BytesMut::new();
        let text = self.receiver.explain(text);
        match publish.qos {
            0 => return Ok(Taken::Whole),
            1 => codec::write_puback(version, publish.pkid, reason, text, &mut packet),
            _ => codec::write_pubrec(version, publish.pkid, reason, text, &mut packet),
        }
        self.wait(Wait::default(), Answer::Packet(packet));
        Ok(Taken::Whole)
    }

    /// A publish that the client may not make: version 5 hears so; 3.1.1 has no way to be told, so that
    /// the publish is acknowledged and goes nowhere (MQTT 3.1.1 section 3.3.5).
    pub(super) fn deny(&mut self, publish: &Publish<'_>) -> Result<Taken, CodecError> {
        const TEXT: &str = "not allowed to publish";
        if self.version() == Version::V5 {
            return self.reject(publish, Reason::NotAuthorized, TEXT);
        }
        self.note_refusal(TEXT);
        let mut packet = BytesMut::new();
        match publish.qos {
            0 => return Ok(Taken::Whole),
            1 => codec::write_puback(
                Version::V311,
                publish.pkid,
                Reason::Success,
                "",
                &mut packet,
            ),
            _ => codec::write_pubrec(
                Version::V311,
                publish.pkid,
                Reason::Success,
                "",
                &mut packet,
            ),
        }
        self.wait(Wait::default(), Answer::Packet(packet));
        Ok(Taken::Whole)
    }

    /// Queues an answer behind those before it.
    pub(super) fn wait(&mut self, until: Wait, answer: Answer) {
        self.waiting.push_back(Waiting {
            until,
            collected: None,
            since: None,
            answer,
        });
    }

    /// PUBREL: the packet id is free again once that is on disk, where the publish is.
    pub(super) fn pubrel(&mut self, ack: Ack) -> Result<Taken, CodecError> {
        let pkid = ack.pkid;
        let packet = Packet {
            session: self.session.number,
            pkid,
        };
        let session = self.session.clone();
        let mut inner = session.inner.lock();
        if inner.owner != self.connection {
            return Ok(Taken::Whole);
        }
        if let Some(release) = inner.inbound.release(pkid) {
            // PUBREL came over an earlier connection too.
            self.wait(until_stored(release), Answer::PubComp(pkid));
            return Ok(Taken::Whole);
        }
        match inner.inbound.place(pkid) {
            None => {
                let mut out = BytesMut::new();
                codec::write_pubcomp(self.version(), pkid, Reason::PacketIdNotFound, &mut out);
                self.wait(Wait::default(), Answer::Packet(out));
            }
            Some(Place::Memory) => self.wait(Wait::default(), Answer::PubComp(pkid)),
            Some(Place::Log(_)) => {
                let index = self.records.len();
                self.records.push_with(|out| packet.encode_release(out));
                self.carries_ids = true;
                self.unplaced += 1;
                self.waiting.push_back(Waiting {
                    until: Wait::default(),
                    collected: Some(index),
                    since: None,
                    answer: Answer::PubComp(pkid),
                });
            }
            Some(Place::Mail(_)) => match self.hub.mail.release(packet) {
                Ok(offset) => {
                    let release = Place::Mail(offset);
                    inner.inbound.set_release(pkid, Some(release));
                    self.wait(until_stored(release), Answer::PubComp(pkid));
                }
                Err(AppendError::Busy) => return Ok(Taken::Later),
                Err(_) => {
                    let text = "the end of a QoS 2 publish could not be stored";
                    return Err(CodecError::new(Reason::QuotaExceeded, text));
                }
            },
        }
        Ok(Taken::Whole)
    }

    /// PUBACK for what the client got.
    pub(super) fn puback(&mut self, ack: Ack) {
        let mut inner = self.session.inner.lock();
        if inner.owner == self.connection {
            inner.acknowledge(ack.pkid, &self.hub.mail);
        }
    }

    /// PUBREC for what the client got: PUBREL follows when that is on disk, so that a message is not
    /// sent anew under another packet id after a crash.
    pub(super) fn pubrec(&mut self, ack: Ack) {
        let mut inner = self.session.inner.lock();
        if inner.owner != self.connection {
            return;
        }
        let received = inner.window.receive(ack.pkid);
        if let Some(Received::Message(queued)) = &received {
            inner.finish(queued, &self.hub.mail);
        }
        if ack.reason.is_error() {
            // The client will not have it: the exchange ends here (MQTT 5.0 section 4.3.3).
            inner.window.complete(ack.pkid);
            inner.mail_changed = true;
            return;
        }
        drop(inner);
        match received {
            Some(_) => self.to_release.push(ack.pkid),
            None => {
                let (version, reason) = (self.version(), Reason::PacketIdNotFound);
                codec::write_pubrel(version, ack.pkid, reason, &mut self.out);
            }
        }
    }

    /// PUBCOMP for what the client got.
    pub(super) fn pubcomp(&mut self, ack: Ack) {
        let mut inner = self.session.inner.lock();
        if inner.owner == self.connection {
            inner.mail_changed |= inner.window.complete(ack.pkid);
        }
    }

    /// Queues the PUBRELs that are due, behind one storing for all of them.
    pub(super) fn release(&mut self) {
        if self.to_release.is_empty() {
            return;
        }
        let session = self.session.clone();
        let mut until = Wait::default();
        if session.is_persistent() {
            let mut inner = session.inner.lock();
            if inner.owner != self.connection {
                return self.to_release.clear();
            }
            until.state = Some(self.hub.store_outgoing(&session, &mut inner));
        }
        for pkid in std::mem::take(&mut self.to_release) {
            let mut packet = BytesMut::new();
            codec::write_pubrel(self.version(), pkid, Reason::Success, &mut packet);
            self.wait(until, Answer::Packet(packet));
        }
    }
}

/// What the answer to something that was written there waits for.
fn until_stored(place: Place) -> Wait {
    let mut until = Wait::default();
    match place {
        Place::Memory => {}
        Place::Log(offset) => until.log = Some(offset),
        Place::Mail(offset) => until.mail = Some(offset),
    }
    until
}
