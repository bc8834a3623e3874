//! Messages on topics that are not durable: to the queues of who wants them, to the mail journal for
//! those of them that have to outlive the broker, to the retained messages.

use std::sync::{Arc, atomic::Ordering};

use thinglog_journal::AppendError;
use tracing::warn;

use super::{Hub, Wait};
use crate::{
    clock,
    codec::Reason,
    inbound::Place,
    letter::{Letters, Recipient},
    load::NoRoom,
    message::{Message, Origin, Queued},
    record::{NO_ADDRESS, Packet, Record, client_hash},
    session::{ConnectionId, Session},
    state::Kind,
    trie::SessionKey,
};

pub(super) const DISK_FULL: &str = "the disk is full";
const QUEUES_FULL: &str = "the queues of all sessions are full";
const OVER_SHARE: &str = "over its share of the queues of all sessions";
/// When there was no room it is not sought again for so long, ns: that looks at every session.
const NO_ROOM_FOR: u64 = 100_000_000;

/// A publish that was not taken; nothing of it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Too much waits for the disk: to be tried again when the mail journal has settled more.
    Busy,
    /// For good.
    Refused(Reason, &'static str),
    /// Another connection has the session: the client brings it again over that.
    TakenOver,
}

/// Whom a message of QoS 2 comes from, and its packet id.
type Sender<'a> = ((&'a Session, ConnectionId), u16);

/// A session and how it gets a message.
type Wanted = Vec<(Arc<Session>, Queued)>;

impl Hub {
    /// Publishes on a topic that is not durable. `packet` is the publishing session with its connection,
    /// and the packet id of a message of QoS 2. Gives what the acknowledgement waits for.
    pub(crate) fn publish(
        &self,
        message: Message,
        packet: Option<Sender<'_>>,
    ) -> Result<Wait, Refusal> {
        let message = Arc::new(message);
        let _in_order = message.retain.then(|| self.retaining.lock());
        if message.retain && !message.payload.is_empty() {
            let retained = self.retained.lock();
            if !retained.has_room(&message, &self.config.limits) {
                let text = "over the limit of retained messages";
                return Err(Refusal::Refused(Reason::QuotaExceeded, text));
            }
            if !self.state.accepts() {
                return Err(Refusal::Refused(Reason::QuotaExceeded, DISK_FULL));
            }
        }
        let wanted = self.recipients(&message);
        let mut wanted = self.reserve(&message, wanted, |queued| queued.qos > 0)?;
        let is_kept = packet.is_some_and(|((session, _), _)| session.is_persistent());
        let has_letters = wanted.iter().any(takes_letter);
        // Sessions get letters in the order of their ids, which is what their records on disk rest on.
        let mailing = (is_kept || has_letters).then(|| self.mailing.lock());
        let mut wait = Wait {
            mail: self.post(&message, &mut wanted, packet)?,
            ..Wait::default()
        };
        if message.retain {
            let mut retained = self.retained.lock();
            retained.set(message.clone());
            self.telemetry.retained.set(retained.len() as i64);
            // Queued while the lock is held, so that the disk sees changes in their order.
            wait.state = Some(self.store_retained(&message));
        }
        let orphans = self.enqueue_all(wanted);
        drop(mailing);
        self.pass_on(orphans);
        Ok(wait)
    }

    /// Gives messages whose members of a group are gone to others of it (MQTT 5.0 section 4.8.2).
    pub(super) fn pass_on(&self, mut orphans: Vec<Queued>) {
        while !orphans.is_empty() {
            let _mailing = self.mailing.lock();
            let mut again = Vec::new();
            for Queued { message, share, .. } in orphans {
                let share = share.unwrap_or_default();
                let wanted = self.shared.choose_again(&share, &message);
                let wanted = wanted.into_iter().collect();
                let mut wanted = self
                    .reserve(&message, wanted, |_| false)
                    .unwrap_or_default();
                if wanted.is_empty() {
                    self.telemetry.dropped(&share, "no member of the group");
                }
                if let Err(refusal) = self.post(&message, &mut wanted, None) {
                    warn!(
                        share = &*share,
                        ?refusal,
                        "a message for another member of its group waits in memory only"
                    );
                }
                again.extend(self.enqueue_all(wanted));
            }
            orphans = again;
        }
    }

    /// Takes room for each copy of a message. A session that holds its share goes without, which is
    /// counted; so does one that others leave no room, unless that is to refuse the whole message, before
    /// anything of it has happened.
    pub(super) fn reserve(
        &self,
        message: &Message,
        wanted: Wanted,
        refuses: impl Fn(&Queued) -> bool,
    ) -> Result<Wanted, Refusal> {
        let weight = message.weight();
        let mut given = Wanted::with_capacity(wanted.len());
        let mut without: Vec<(Arc<Session>, &'static str)> = Vec::new();
        for (session, mut queued) in wanted {
            let mut taken = session.account.take(weight);
            if matches!(taken, Err(NoRoom::Full)) && self.make_room() {
                taken = session.account.take(weight);
            }
            match taken {
                Ok(charge) => {
                    queued.charge = charge;
                    given.push((session, queued));
                }
                Err(NoRoom::OverShare) => without.push((session, OVER_SHARE)),
                Err(NoRoom::Full) if refuses(&queued) => {
                    return Err(Refusal::Refused(Reason::QuotaExceeded, QUEUES_FULL));
                }
                Err(NoRoom::Full) => without.push((session, QUEUES_FULL)),
            }
        }
        for (session, reason) in without {
            self.telemetry.dropped(&session.client_id, reason);
        }
        Ok(given)
    }

    /// Takes from the sessions that hold more than their share what is beyond it; false when there was
    /// nothing to take.
    fn make_room(&self) -> bool {
        let now = clock::now();
        if now.saturating_sub(self.no_room_at.load(Ordering::Relaxed)) < NO_ROOM_FOR {
            return false;
        }
        let share = self.load.share();
        let sessions = self.sessions.lock();
        let over = |session: &&Arc<Session>| session.account.bytes() > share;
        let over: Vec<Arc<Session>> = sessions.values().filter(over).cloned().collect();
        drop(sessions);
        let mut made_room = false;
        for session in over {
            let mut inner = session.inner.lock();
            let cut = inner
                .queue
                .cut(session.account.bytes().saturating_sub(share));
            for queued in &cut {
                inner.finish(queued, &self.mail);
            }
            drop(inner);
            if !cut.is_empty() {
                made_room = true;
                self.telemetry
                    .dropped_many(&session.client_id, OVER_SHARE, cut.len() as u64);
            }
        }
        if !made_room {
            self.no_room_at.store(now, Ordering::Relaxed);
        }
        made_room
    }

    /// Writes down what persistent sessions are to get, and the packet id of a persistent session's
    /// QoS 2 publish. Gives the offset to wait for, `None` when nothing had to be written.
    fn post(
        &self,
        message: &Message,
        wanted: &mut Wanted,
        packet: Option<Sender<'_>>,
    ) -> Result<Option<u64>, Refusal> {
        let mut letters = Letters::default();
        let mut posted: Vec<(usize, &mut Queued)> = Vec::new();
        for (session, queued) in wanted.iter_mut().filter(|wanted| takes_letter(wanted)) {
            let letter = letters.add(Recipient {
                session: session.number,
                qos: queued.qos,
                retain: queued.retain,
                ids: queued.ids.clone(),
                share: queued.share.clone(),
            });
            posted.push((letter, queued));
        }
        // Held until the packet id is noted, so that no two connections bring the same publish.
        let mut sender = packet.map(|((session, _), _)| session.inner.lock());
        if let (Some(sender), Some(((_, connection), _))) = (&sender, packet)
            && sender.owner != connection
        {
            return Err(Refusal::TakenOver);
        }
        let kept = packet.filter(|((session, _), _)| session.is_persistent());
        let mut place = Place::Memory;
        let mut last = None;
        if !posted.is_empty() || kept.is_some() {
            if !self.state.accepts() {
                return Err(Refusal::Refused(Reason::QuotaExceeded, DISK_FULL));
            }
            let record = Record {
                packet: kept.map(|((session, _), pkid)| Packet {
                    session: session.number,
                    pkid,
                }),
                ..record_of(message)
            };
            let ids =
                self.mail
                    .post(letters.recipients(), &record)
                    .map_err(|error| match error {
                        AppendError::Busy => Refusal::Busy,
                        _ => Refusal::Refused(
                            Reason::QuotaExceeded,
                            "the message could not be stored for its subscribers",
                        ),
                    })?;
            for (letter, queued) in posted {
                queued.origin = Origin::Mail(ids.start + letter as u64);
            }
            if kept.is_some() {
                place = Place::Mail(ids.start);
            }
            last = Some(ids.end - 1);
        }
        if let (Some(sender), Some((_, pkid))) = (&mut sender, packet) {
            sender.inbound.insert(pkid, place);
        }
        Ok(last)
    }

    /// Removes retained messages whose time is over, from memory and disk.
    pub(crate) fn remove_expired(&self, now: u64) {
        let mut retained = self.retained.lock();
        for topic in retained.remove_expired(now) {
            self.state.change(Kind::Retained, &topic, None);
        }
        self.telemetry.retained.set(retained.len() as i64);
    }

    /// Queues every retained message for the disk.
    pub(super) fn store_all_retained(&self) {
        let retained = self.retained.lock();
        let on_disk = |message: &&Arc<Message>| !message.is_announced();
        for message in retained.iter().filter(on_disk) {
            self.store_retained(message);
        }
    }

    fn store_retained(&self, message: &Message) -> u64 {
        let value = (!message.payload.is_empty()).then(|| {
            let mut bytes = Vec::new();
            record_of(message).encode(&mut bytes);
            bytes
        });
        self.state.change(Kind::Retained, &message.topic, value)
    }

    /// Who wants a message and may have it: each session once for its own subscriptions, at the highest
    /// QoS and with all identifiers, and one member of each group. What one session gets lies together.
    pub(super) fn recipients(&self, message: &Arc<Message>) -> Wanted {
        let mut wanted: Vec<(SessionKey, Queued)> = Vec::new();
        self.trie
            .read()
            .matching(&message.topic, &mut |&key, subscription| {
                if subscription.no_local && self.is_client(key, message.client) {
                    return;
                }
                wanted.push((key, Queued::by(subscription, message)));
            });
        wanted.sort_by_key(|(key, _)| *key);
        wanted.dedup_by(|(key, more), (before, queued)| {
            let is_same = key == before;
            if is_same {
                queued.qos = queued.qos.max(more.qos);
                queued.retain |= more.retain;
                queued.ids.append(&mut more.ids);
            }
            is_same
        });
        let mut sessions = self.sessions_of(wanted);
        sessions.retain(|(session, queued)| {
            let inner = session.inner.lock();
            inner.takes(queued.qos) && inner.may_read(&message.topic)
        });
        let own = sessions.len();
        self.shared.choose(message, &mut sessions);
        if sessions.len() > own {
            sessions.sort_by_key(|(session, _)| session.key);
        }
        sessions
    }

    fn sessions_of(&self, wanted: Vec<(SessionKey, Queued)>) -> Wanted {
        if wanted.is_empty() {
            return Wanted::new();
        }
        let by_key = self.by_key.read();
        let known = wanted.into_iter();
        let known = known.filter_map(|(key, queued)| Some((by_key.get(&key)?.clone(), queued)));
        known.collect()
    }

    fn is_client(&self, key: SessionKey, client: u64) -> bool {
        self.by_key
            .read()
            .get(&key)
            .is_some_and(|session| client_hash(&session.client_id) == client)
    }

    /// Queues messages for their sessions; gives those whose member of a group is gone.
    pub(super) fn enqueue_all(&self, wanted: Wanted) -> Vec<Queued> {
        let queued = wanted.into_iter();
        let orphans = queued.filter_map(|(session, queued)| self.enqueue(&session, queued));
        orphans.collect()
    }

    /// Queues a message; gives it back when the session was a member of a group and has ended.
    fn enqueue(&self, session: &Session, queued: Queued) -> Option<Queued> {
        let mut inner = session.inner.lock();
        // Nothing to be stored yet: letters that the record on disk has not seen count as outstanding.
        if let Origin::Mail(id) = queued.origin {
            inner.mail_seen = id + 1;
        }
        // One that has ended takes nothing, but if it was a member of a group there may be others.
        if !inner.takes(queued.qos) {
            self.give_up(&queued);
            let is_for_others = queued.share.is_some() && !inner.is_persistent();
            return is_for_others.then_some(queued);
        }
        let limits = &self.config.limits;
        let Err(refused) = inner.queue.push(queued, limits) else {
            inner.wake.notify_one();
            return None;
        };
        // It comes back after a crash, until the record is stored: a queue of it at most.
        inner.given_up += refused.message.weight();
        inner.mail_changed |= inner.given_up >= limits.queue_bytes;
        drop(inner);
        self.give_up(&refused);
        self.telemetry
            .dropped(&session.client_id, "session queue full");
        None
    }

    /// A session will not get a message.
    fn give_up(&self, queued: &Queued) {
        if let Origin::Mail(id) = queued.origin {
            self.mail.done(id);
        }
    }
}

/// Whether a session is to have a message after a crash.
fn takes_letter((session, queued): &(Arc<Session>, Queued)) -> bool {
    queued.qos > 0 && session.is_persistent()
}

/// A message as it is laid out on disk.
pub(super) fn record_of(message: &Message) -> Record<'_> {
    Record {
        qos: message.qos,
        packet: None,
        client: message.client,
        address: NO_ADDRESS,
        expires: message.expires,
        principal: None,
        topic: &message.topic,
        properties: &message.properties,
        payload: &message.payload,
    }
}

#[cfg(test)]
mod tests;
