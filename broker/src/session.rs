//! What outlives a connection: subscriptions, the queue of messages, what was sent and not yet
//! acknowledged, what was received and not yet released, and the cursor into the journal. One connection at a time owns a session;
//! [`crate::hub`] puts messages into its queue from outside.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use thinglog_journal::cursor::Cursor;
use tokio::sync::Notify;

use crate::{
    access::Pass,
    codec::Will,
    config::Limits,
    inbound::Inbound,
    interest::Watch,
    load::{Account, Charge, Load},
    mail::Mail,
    message::{Origin, Queued},
    retained::Scan,
    shared::Group,
    tracked::{Changed, Tracked},
    trie::{SessionKey, Subscription},
    window::{Sent, Window},
};

/// Number of a connection; 0 is none.
pub(crate) type ConnectionId = u64;

/// A session, shared by the hub and its connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) key: SessionKey,
    /// Stands for the session on disk: never given twice, unlike its client id.
    pub(crate) number: u64,
    pub(crate) client_id: Arc<str>,
    /// It outlives its connection; what `Inner::is_persistent` says, without its lock.
    persistent: AtomicBool,
    /// Its part of what all sessions hold.
    pub(crate) account: Arc<Account>,
    pub(crate) inner: Tracked<SessionKey, Inner>,
}

/// The state of a session.
#[derive(Debug, Default)]
pub(crate) struct Inner {
    /// The connection that may act on the session.
    pub(crate) owner: ConnectionId,
    /// Whom the session belongs to: who created it. `None` is nobody in particular.
    pub(crate) principal: Option<Arc<str>>,
    /// Which live topics its client may watch, while it is connected.
    pub(crate) watch: Watch,
    /// What its client may do; `None` since the broker started and until the client comes back.
    pub(crate) pass: Option<Arc<Pass>>,
    /// Rung when something was queued or the owner was evicted; every owner has its own, so that
    /// an evicted one takes no ring that is meant for the next.
    pub(crate) wake: Arc<Notify>,
    /// Seconds the session outlives its connection; 0 ends with it.
    pub(crate) expiry: u32,
    /// There is a record of the session on disk.
    pub(crate) stored: bool,
    /// ns since the epoch; `None` while connected.
    pub(crate) disconnected_at: Option<u64>,
    pub(crate) subscriptions: BTreeMap<String, Subscription>,
    /// Bytes of their filters.
    pub(crate) filter_bytes: usize,
    pub(crate) queue: Queue,
    /// Retained messages still to be sent for new subscriptions, before the queue.
    pub(crate) scans: VecDeque<(Scan, Subscription)>,
    pub(crate) window: Window,
    /// QoS 2 publishes received and not yet released.
    pub(crate) inbound: Inbound,
    /// Ids of letters below this have been in the queue.
    pub(crate) mail_seen: u64,
    /// Which letters are outstanding changed since it was last stored.
    pub(crate) mail_changed: bool,
    /// Bytes of messages that found no room since then.
    pub(crate) given_up: usize,
    /// Filters whose retained messages the client may not have: they are sent again after a crash.
    pub(crate) unscanned: BTreeSet<String>,
    /// Place in the journal, once a subscription may match durable topics.
    pub(crate) cursor: Option<Cursor>,
    /// The durable groups in which the connection takes part.
    pub(crate) groups: HashMap<Arc<str>, Arc<Group>>,
    /// What of them was stored last because of the client; its answer waits for that.
    pub(crate) group_ticket: Option<u64>,
    /// What the client takes at once.
    pub(crate) receive_maximum: u16,
    /// The cursor moved since it was last stored.
    pub(crate) cursor_moved: bool,
    /// Published when the connection ends without DISCONNECT, after its delay.
    pub(crate) will: Option<Will>,
    /// Its share of what all wills may take.
    pub(crate) will_charge: Charge,
    /// The will is on disk.
    pub(crate) will_stored: bool,
    /// When the will of a disconnected client is due, ns since the epoch.
    pub(crate) will_at: Option<u64>,
}

impl Session {
    /// A session that is noted in `changed` whenever it may have changed.
    pub(crate) fn new(
        key: SessionKey,
        number: u64,
        client_id: Arc<str>,
        changed: Arc<Changed<SessionKey>>,
        load: &Arc<Load>,
    ) -> Session {
        Session {
            key,
            number,
            client_id,
            persistent: AtomicBool::new(false),
            account: Account::new(load),
            inner: Tracked::new(key, changed),
        }
    }

    /// Whether the session outlives its connection.
    pub(crate) fn is_persistent(&self) -> bool {
        self.persistent.load(Ordering::Relaxed)
    }

    /// Sets how long the session outlives its connection, seconds.
    pub(crate) fn set_expiry(&self, inner: &mut Inner, seconds: u32) {
        inner.expiry = seconds;
        self.persistent.store(seconds > 0, Ordering::Relaxed);
    }
}

impl Inner {
    /// Whether the session outlives its connection.
    pub(crate) fn is_persistent(&self) -> bool {
        self.expiry > 0
    }

    /// When a disconnected session is forgotten, ns since the epoch.
    pub(crate) fn expires_at(&self) -> Option<u64> {
        let seconds = u64::from(self.expiry);
        self.disconnected_at
            .map(|at| at.saturating_add(seconds * 1_000_000_000))
    }

    /// Who speaks by the will.
    pub(crate) fn will_of(&self) -> Option<&str> {
        let pass = self.pass.as_ref();
        pass.and_then(|pass| pass.principal()).map(|name| &**name)
    }

    /// When time brings something about for a session whose client is gone.
    pub(crate) fn next_due(&self) -> Option<u64> {
        let times = [self.will_at, self.expires_at()];
        times.into_iter().flatten().min()
    }

    /// Whether it takes a message of this QoS: without a connection only a session that lasts does.
    pub(crate) fn takes(&self, qos: u8) -> bool {
        self.owner != 0 || (qos > 0 && self.is_persistent())
    }

    /// Whether its client may read `topic`, as far as that is known.
    pub(crate) fn may_read(&self, topic: &str) -> bool {
        self.pass.as_ref().is_none_or(|pass| pass.may_read(topic))
    }

    /// A connection takes the session up: what was sent before is sent again, but for records that
    /// its subscriptions do not cover any more.
    pub(crate) fn resume(&mut self) {
        let cursor = self.cursor.as_ref();
        self.window.resume(|sent| match sent {
            Sent::Durable(offset) => cursor.is_none_or(|cursor| cursor.is_done(*offset)),
            Sent::Queued(_) | Sent::Released => false,
        });
    }

    /// The client says goodbye: nobody is to speak for it.
    pub(crate) fn renounce_will(&mut self) {
        self.will = None;
        self.will_charge = Charge::default();
    }

    /// Takes the will of a disconnected client once its delay is over.
    pub(crate) fn take_due_will(&mut self, now: u64) -> Option<Will> {
        self.will_at.take_if(|at| *at <= now)?;
        self.will_charge = Charge::default();
        self.will.take()
    }

    /// PUBACK: settles a packet id; false when it stands for nothing of QoS 1.
    pub(crate) fn acknowledge(&mut self, pkid: u16, mail: &Mail) -> bool {
        match self.window.acknowledge(pkid) {
            Some(Sent::Durable(offset)) => {
                if let Some(cursor) = &mut self.cursor {
                    cursor.done(offset..offset + 1);
                    self.cursor_moved = true;
                }
                true
            }
            Some(Sent::Queued(queued)) => {
                self.finish(&queued, mail);
                true
            }
            Some(Sent::Released) | None => false,
        }
    }

    /// The session is done with a message.
    pub(crate) fn finish(&mut self, queued: &Queued, mail: &Mail) {
        match queued.origin {
            Origin::Memory => {}
            Origin::Mail(id) => {
                mail.done(id);
                self.mail_changed = true;
            }
            Origin::Log(offset) => {
                let share = queued.share.as_ref();
                if let Some(group) = share.and_then(|share| self.groups.get(share)) {
                    group.acknowledge(self.owner, offset);
                }
            }
        }
    }

    /// The connection is over: what it had of durable groups is for their other members.
    pub(crate) fn leave_groups(&mut self, now: u64) {
        let groups = std::mem::take(&mut self.groups);
        if groups.is_empty() {
            return;
        }
        let is_of_group = |queued: &Queued| matches!(queued.origin, Origin::Log(_));
        self.queue.remove(is_of_group);
        let sent = self.window.outstanding();
        let sent =
            sent.filter(|(_, sent)| matches!(sent, Sent::Queued(queued) if is_of_group(queued)));
        let ids: Vec<u16> = sent.map(|(id, _)| id).collect();
        for id in ids {
            self.window.discard(id);
        }
        for group in groups.values() {
            group.leave(self.owner, now);
        }
    }

    /// Gives up everything that waits or was sent, when the session ends. What it had as the member of a
    /// group is for others of it; not what its client may have seen of QoS 2 (MQTT 5.0 section 4.8.2).
    pub(crate) fn abandon(&mut self, mail: &Mail) -> Vec<Queued> {
        let mut left: Vec<Queued> = Vec::new();
        let window = std::mem::take(&mut self.window);
        for sent in window.into_outstanding() {
            if let Sent::Queued(queued) = sent {
                self.finish(&queued, mail);
                left.extend(Some(queued).filter(|queued| queued.qos < 2));
            }
        }
        while let Some(queued) = self.queue.pop() {
            self.finish(&queued, mail);
            left.push(queued);
        }
        left.retain(|queued| queued.share.is_some());
        left
    }

    /// Everything retained that was to be sent has been sent and settled.
    pub(crate) fn has_retained(&self) -> bool {
        let unsettled = self
            .window
            .outstanding()
            .any(|(_, sent)| matches!(sent, Sent::Queued(_)));
        self.scans.is_empty() && self.queue.front().is_none() && !unsettled
    }
}

/// Messages waiting for one session, bounded by count and bytes.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    messages: VecDeque<Queued>,
    bytes: usize,
}

impl Queue {
    /// Adds a message; gives it back when there is no room for it.
    pub(crate) fn push(&mut self, queued: Queued, limits: &Limits) -> Result<(), Queued> {
        let weight = queued.message.weight();
        let full = self.messages.len() >= limits.queue_messages
            || self.bytes + weight > limits.queue_bytes;
        if full && !self.messages.is_empty() {
            return Err(queued);
        }
        self.bytes += weight;
        self.messages.push_back(queued);
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Queued> {
        self.messages.iter()
    }

    /// Adds a message that was in the queue before a restart, whatever the limits are now.
    pub(crate) fn push_restored(&mut self, queued: Queued) {
        self.bytes += queued.message.weight();
        self.messages.push_back(queued);
    }

    /// Adds a record of a durable group, which bounds what its members hold.
    pub(crate) fn push_record(&mut self, queued: Queued) {
        self.push_restored(queued);
    }

    /// Takes back the records of a group; gives their offsets.
    pub(crate) fn take_back(&mut self, share: &str) -> Vec<u64> {
        let mut offsets = Vec::new();
        self.remove(|queued| match queued.origin {
            Origin::Log(offset) if queued.share.as_deref() == Some(share) => {
                offsets.push(offset);
                true
            }
            _ => false,
        });
        offsets
    }

    /// Takes out so many bytes of messages, if there are: those of QoS 0 first, of each the newest first.
    /// Records of the log stay, which wait for their group there.
    pub(crate) fn cut(&mut self, bytes: usize) -> Vec<Queued> {
        let mut left = bytes;
        let mut goes = vec![false; self.messages.len()];
        for is_meant in [
            |queued: &Queued| queued.qos == 0,
            |queued: &Queued| queued.qos > 0,
        ] {
            for (queued, goes) in self.messages.iter().zip(&mut goes).rev() {
                if left == 0 {
                    break;
                }
                if is_meant(queued) && !matches!(queued.origin, Origin::Log(_)) {
                    *goes = true;
                    left = left.saturating_sub(queued.message.weight());
                }
            }
        }
        let (mut cut, mut kept) = (Vec::new(), VecDeque::new());
        for (queued, goes) in std::mem::take(&mut self.messages).into_iter().zip(goes) {
            match goes {
                true => cut.push(queued),
                false => kept.push_back(queued),
            }
        }
        self.messages = kept;
        self.bytes -= cut
            .iter()
            .map(|queued| queued.message.weight())
            .sum::<usize>();
        cut
    }

    fn remove(&mut self, mut is_meant: impl FnMut(&Queued) -> bool) {
        let bytes = &mut self.bytes;
        self.messages.retain(|queued| {
            let goes = is_meant(queued);
            *bytes -= if goes { queued.message.weight() } else { 0 };
            !goes
        });
    }

    /// Adds a retained message for a new subscription; asked for only while the queue `is_short`.
    pub(crate) fn push_retained(&mut self, queued: Queued) {
        self.push_restored(queued);
    }

    /// Whether retained messages may be moved in.
    pub(crate) fn is_short(&self) -> bool {
        self.messages.len() < 256 && self.bytes < 1 << 20
    }

    pub(crate) fn front(&self) -> Option<&Queued> {
        self.messages.front()
    }

    pub(crate) fn pop(&mut self) -> Option<Queued> {
        let queued = self.messages.pop_front()?;
        self.bytes -= queued.message.weight();
        Some(queued)
    }
}

/// What is kept of a session on disk; the cursor is kept beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// 0 in records of before there were numbers.
    #[serde(default)]
    number: u64,
    expiry: u32,
    disconnected_at: Option<u64>,
    subscriptions: BTreeMap<String, Subscription>,
    /// Filters whose retained messages are to be sent again.
    #[serde(default)]
    unscanned: BTreeSet<String>,
    /// Whose session it is.
    #[serde(default)]
    principal: Option<Arc<str>>,
}

impl Stored {
    pub(crate) fn of(number: u64, inner: &Inner) -> Stored {
        Stored {
            number,
            unscanned: inner.unscanned.clone(),
            expiry: inner.expiry,
            disconnected_at: inner.disconnected_at,
            subscriptions: inner.subscriptions.clone(),
            principal: inner.principal.clone(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).unwrap_or_default()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Stored> {
        rmp_serde::from_slice(bytes).ok()
    }

    /// The session's number, if it has one.
    pub(crate) fn number(&self) -> Option<u64> {
        Some(self.number).filter(|number| *number > 0)
    }

    /// The session as it comes back at `now`, cursor left out; one that was connected when the
    /// broker stopped counts as disconnected since then, one that was to be kept for longer than `longest`
    /// seconds is kept so long.
    pub(crate) fn revive(self, now: u64, longest: u32) -> Inner {
        let scans = self.unscanned.iter().filter_map(|filter| {
            let subscription = self.subscriptions.get(filter)?;
            Some((Scan::new(filter), subscription.clone()))
        });
        Inner {
            expiry: self.expiry.min(longest),
            disconnected_at: Some(self.disconnected_at.unwrap_or(now)),
            scans: scans.collect(),
            unscanned: self.unscanned,
            filter_bytes: self.subscriptions.keys().map(String::len).sum(),
            subscriptions: self.subscriptions,
            principal: self.principal,
            stored: true,
            ..Inner::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use thinglog_journal::fs::RealFs;

    use super::*;

    #[test]
    fn a_queue_is_bounded_by_count_and_by_bytes() {
        let limits = Limits {
            queue_messages: 2,
            queue_bytes: 1000,
            ..Limits::default()
        };
        let mut queue = Queue::default();
        let push = |queue: &mut Queue, bytes| {
            let queued = Queued::of_test(0, bytes);
            queue.push(queued, &limits).is_ok()
        };
        assert!(push(&mut queue, 5000), "one message always fits");
        assert!(!push(&mut queue, 1));
        queue.pop();
        assert!(push(&mut queue, 1));
        assert!(push(&mut queue, 1));
        assert!(!push(&mut queue, 1));
    }

    #[test]
    fn a_queue_is_cut_from_its_newest_message_and_of_qos_0_first() {
        let mut queue = Queue::default();
        for (qos, bytes) in [(0, 1), (1, 2), (0, 3), (2, 4), (1, 5)] {
            queue.push_restored(Queued::of_test(qos, bytes));
        }
        let record = Queued {
            origin: Origin::Log(7),
            ..Queued::of_test(0, 6)
        };
        queue.push_record(record);
        let bytes = |queued: &Queued| queued.message.payload.len();
        let weight = Queued::of_test(0, 0).message.weight();
        let cut = queue.cut(2 * weight + 5);
        assert_eq!(cut.iter().map(bytes).collect::<Vec<_>>(), [1, 3, 5]);
        assert_eq!(queue.iter().map(bytes).collect::<Vec<_>>(), [2, 4, 6]);
        assert_eq!(queue.cut(usize::MAX).len(), 2);
        assert_eq!((queue.len(), queue.bytes), (1, weight + 6));
    }

    #[test]
    fn what_a_client_may_have_seen_of_qos_2_is_not_for_others_of_its_group() {
        let dir = tempfile::tempdir().unwrap();
        let (mail, _) = Mail::open(Arc::new(RealFs), dir.path(), 16 << 20, 1 << 20).unwrap();
        let mut inner = Inner::default();
        let shared = |qos, bytes| Queued {
            share: Some("$share/g/t".into()),
            ..Queued::of_test(qos, bytes)
        };
        inner.window.push(Sent::Queued(shared(1, 1)));
        inner.window.push(Sent::Queued(shared(2, 2)));
        inner.window.push(Sent::Queued(Queued::of_test(1, 3)));
        inner.queue.push_restored(shared(2, 4));
        inner.queue.push_restored(Queued::of_test(1, 5));
        let left = inner.abandon(&mail);
        let bytes: Vec<usize> = left.iter().map(|left| left.message.payload.len()).collect();
        assert_eq!(bytes, [1, 4]);
    }

    #[test]
    fn a_session_comes_back_from_its_stored_form() {
        let mut inner = Inner {
            expiry: 60,
            ..Inner::default()
        };
        let subscription = Subscription {
            qos: 1,
            no_local: true,
            retain_as_published: false,
            id: Some(9),
        };
        inner.subscriptions.insert("a/#".into(), subscription);
        let stored = Stored::decode(&Stored::of(7, &inner).encode()).unwrap();
        assert_eq!(stored.number(), Some(7));
        let revived = stored.revive(5, 3600);
        assert_eq!(revived.subscriptions, inner.subscriptions);
        assert_eq!((revived.expiry, revived.disconnected_at), (60, Some(5)));
    }
}
