//! Subscriptions, and messages on topics that are not durable.

use std::sync::Arc;

use bytes::Bytes;
use thinglog_journal::{Records, cursor::Cursor};
use thinglog_schemas::topic::{INTEREST, valid_filter};
use tracing::warn;

use super::{Hub, Wait};
use crate::{
    access::Pass,
    clock,
    codec::{Filter, Reason, Will},
    feed::may_be_durable,
    message::{Message, Queued, expiry_time},
    record::{NO_ADDRESS, Record, client_hash},
    retained::{Scan, Step},
    session::{ConnectionId, Inner, Session},
    state::Kind,
    trie::{SessionKey, Subscription},
};

/// Most levels of a filter: walks over the subscriptions recurse once a level.
const MAX_LEVELS: usize = 128;
/// Retained messages looked at for one connection before others get their turn.
const SCAN_BUDGET: usize = 2_000;

impl Hub {
    /// Subscribes for the connection that owns the session; gives the code for SUBACK.
    pub(crate) fn subscribe(
        &self,
        (session, connection): (&Session, ConnectionId),
        filter: &Filter,
        id: Option<u32>,
        from: Option<&str>,
    ) -> u8 {
        if filter.path.starts_with("$share/") {
            return Reason::SharedNotSupported as u8;
        }
        if !valid_filter(&filter.path) || filter.path.split('/').count() > MAX_LEVELS {
            return Reason::TopicFilterInvalid as u8;
        }
        let subscription = Subscription {
            qos: filter.qos.min(1),
            no_local: filter.no_local,
            retain_as_published: filter.retain_as_published,
            id,
        };
        // Looked up before the locks: it may read a file.
        let (has_cursor, persistent) = {
            let inner = session.inner.lock();
            (inner.cursor.is_some(), inner.is_persistent())
        };
        let starts = !has_cursor && may_be_durable(&filter.path, &self.durable_filters);
        let start = starts.then(|| self.start_offset(from, persistent));
        // A session that ends meanwhile would leave the subscription behind.
        let _handover = self.handover.lock();
        let mut inner = session.inner.lock();
        if inner.owner != connection {
            return Reason::Unspecified as u8;
        }
        let is_new = !inner.subscriptions.contains_key(&filter.path);
        if is_new && inner.subscriptions.len() >= self.config.limits.subscriptions {
            return Reason::QuotaExceeded as u8;
        }
        if let Some(start) = start {
            let Some(start) = start else {
                return Reason::Unspecified as u8;
            };
            inner.cursor = Some(Cursor::at(start));
            inner.cursor_moved = true;
        }
        inner
            .subscriptions
            .insert(filter.path.clone(), subscription.clone());
        if filter.retain_handling == 0 || (filter.retain_handling == 1 && is_new) {
            // A walk that is under way starts again, so that there is one at most for a subscription.
            inner.scans.retain(|(scan, _)| scan.filter != filter.path);
            inner
                .scans
                .push_back((Scan::new(&filter.path), subscription.clone()));
        }
        drop(inner);
        self.trie
            .write()
            .insert(&filter.path, session.key, subscription);
        if is_new {
            self.interest.add(&filter.path);
        }
        filter.qos.min(1)
    }

    /// Where a new durable subscription starts: `earliest`, `tail`, `@<offset>` or ns since the
    /// epoch; the tail unless said otherwise. After a loss of cursors a persistent session that
    /// asks for the tail may be one that had its place before it: it gets the oldest record, for a
    /// repetition is recognised by its id and a gap is not.
    fn start_offset(&self, from: Option<&str>, persistent: bool) -> Option<u64> {
        let first = self.journal.first();
        match from {
            None | Some("tail") if persistent && first < self.lost_below => Some(first),
            None | Some("tail") => Some(self.journal.settled()),
            Some("earliest") => Some(first),
            Some(text) => match text.strip_prefix('@') {
                Some(offset) => Some(
                    offset
                        .parse::<u64>()
                        .ok()?
                        .clamp(first, self.journal.settled()),
                ),
                None => self.journal.offset_at(text.parse().ok()?).ok(),
            },
        }
    }

    /// Unsubscribes; false when there was no such subscription.
    pub(crate) fn unsubscribe(
        &self,
        (session, connection): (&Session, ConnectionId),
        filter: &str,
    ) -> bool {
        let _handover = self.handover.lock();
        let mut inner = session.inner.lock();
        if inner.owner != connection || inner.subscriptions.remove(filter).is_none() {
            return false;
        }
        inner.scans.retain(|(scan, _)| scan.filter != filter);
        if !inner
            .subscriptions
            .keys()
            .any(|filter| may_be_durable(filter, &self.durable_filters))
        {
            inner.cursor = None;
            if inner.is_persistent() {
                self.state.change(Kind::Cursor, &session.client_id, None);
            }
        }
        drop(inner);
        self.trie.write().remove(filter, session.key);
        self.interest.remove(filter);
        true
    }

    /// Publishes on a topic that is not durable. Gives what the acknowledgement waits for.
    pub(crate) fn publish(&self, message: Message) -> Result<Wait, Reason> {
        let message = Arc::new(message);
        let mut wait = Wait::Nothing;
        let mut _in_order = None;
        if message.retain {
            _in_order = Some(self.retaining.lock());
            let mut retained = self.retained.lock();
            if !message.payload.is_empty() && !retained.has_room(&message, &self.config.limits) {
                return Err(Reason::QuotaExceeded);
            }
            retained.set(message.clone());
            self.telemetry.retained.set(retained.len() as i64);
            // Queued while the lock is held, so that the disk sees changes in their order.
            wait = Wait::State(self.store_retained(&message));
        }
        self.route(&message);
        Ok(wait)
    }

    /// Removes retained messages whose time is over, from memory and disk.
    pub(crate) fn remove_expired(&self, now: u64) {
        let mut retained = self.retained.lock();
        for topic in retained.remove_expired(now) {
            self.state.change(Kind::Retained, &topic, None);
        }
        self.telemetry.retained.set(retained.len() as i64);
    }

    fn store_retained(&self, message: &Message) -> u64 {
        let value = (!message.payload.is_empty()).then(|| {
            let mut bytes = Vec::new();
            Record {
                qos: message.qos,
                client: message.client,
                address: NO_ADDRESS,
                expires: message.expires,
                principal: None,
                topic: &message.topic,
                properties: &message.properties,
                payload: &message.payload,
            }
            .encode(&mut bytes);
            bytes
        });
        self.state.change(Kind::Retained, &message.topic, value)
    }

    /// Puts a message into the queue of every session that wants it, once each.
    fn route(&self, message: &Arc<Message>) {
        let mut wanted: Vec<(SessionKey, Queued)> = Vec::new();
        self.trie
            .read()
            .matching(&message.topic, &mut |key, subscription| {
                let qos = subscription.qos.min(message.qos);
                let retain = subscription.retain_as_published && message.retain;
                let ids = subscription.id.into_iter();
                if subscription.no_local && self.is_client(key, message.client) {
                    return;
                }
                let queued = Queued {
                    message: message.clone(),
                    qos,
                    retain,
                    ids: ids.collect(),
                };
                wanted.push((key, queued));
            });
        if wanted.is_empty() {
            return;
        }
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
        let by_key = self.by_key.read();
        for (key, queued) in wanted {
            if let Some(session) = by_key.get(&key) {
                self.enqueue(session, queued);
            }
        }
    }

    fn is_client(&self, key: SessionKey, client: u64) -> bool {
        self.by_key
            .read()
            .get(&key)
            .is_some_and(|session| client_hash(&session.client_id) == client)
    }

    fn enqueue(&self, session: &Session, queued: Queued) {
        let mut inner = session.inner.lock();
        if (inner.owner == 0 && queued.qos == 0) || !inner.may_read(&queued.message.topic) {
            return;
        }
        let fits = inner.queue.push(queued, &self.config.limits);
        if fits {
            inner.wake.notify_one();
        }
        drop(inner);
        if !fits {
            self.telemetry
                .dropped(&session.client_id, "session queue full");
        }
    }

    /// Moves retained messages for new subscriptions into the session's queue while it is short.
    pub(crate) fn pump_retained(&self, inner: &mut Inner, now: u64) {
        let mut budget = SCAN_BUDGET;
        while inner.queue.is_short() {
            let Some((mut scan, subscription)) = inner.scans.pop_front() else {
                return;
            };
            let step = self.retained.lock().next(&mut scan, now, &mut budget);
            if let Step::Found(message) = &step
                && inner.may_read(&message.topic)
            {
                inner.queue.push_retained(Queued {
                    qos: subscription.qos.min(message.qos),
                    retain: true,
                    ids: subscription.id.into_iter().collect(),
                    message: message.clone(),
                });
            }
            if !matches!(step, Step::End) {
                inner.scans.push_front((scan, subscription));
            }
            if matches!(step, Step::Later) {
                return;
            }
        }
    }

    /// Publishes a will, whatever its topic, if the client may publish there as things stand now.
    pub(crate) fn publish_will(&self, client_id: &str, pass: Option<&Arc<Pass>>, will: Will) {
        let may_write = |pass: &Arc<Pass>| {
            let pass = self.access.renew(pass);
            pass.is_ok_and(|pass| pass.may_write(&will.topic))
        };
        if !pass.is_none_or(may_write) {
            return self.telemetry.dropped(client_id, "will not allowed");
        }
        let principal = pass.and_then(|pass| pass.principal());
        let now = clock::now();
        let expires = will.expiry.map(|seconds| expiry_time(seconds, now));
        if !self.durable.contains(&will.topic) {
            let message = Message {
                topic: will.topic.into(),
                payload: will.payload,
                qos: will.qos.min(1),
                retain: will.retain,
                expires,
                client: client_hash(client_id),
                properties: will.properties.into(),
            };
            if self.publish(message).is_err() {
                self.telemetry
                    .dropped(client_id, "will over the retained limit");
            }
            return;
        }
        let mut records = Records::new();
        let record = Record {
            qos: will.qos.min(1),
            client: client_hash(client_id),
            address: NO_ADDRESS,
            expires,
            principal: principal.map(|name| &**name),
            topic: &will.topic,
            properties: &will.properties,
            payload: &will.payload,
        };
        records.push_with(|out| record.encode(out));
        if let Err(error) = self.journal.append(now, &records) {
            warn!(client = client_id, %error, "a will could not be stored");
        }
    }

    /// Publishes the interest topic; kept in memory only, it is made anew at every start.
    pub(crate) fn publish_interest(&self) {
        let message = Arc::new(Message {
            topic: INTEREST.into(),
            payload: Bytes::from(self.interest.payload()),
            qos: 1,
            retain: true,
            expires: None,
            client: 0,
            properties: Bytes::new(),
        });
        let _in_order = self.retaining.lock();
        self.retained.lock().set(message.clone());
        self.route(&message);
    }
}
