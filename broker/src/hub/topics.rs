//! Subscriptions: what a client asked for, and the retained messages it gets for that.

use std::sync::Arc;

use thinglog_journal::cursor::Cursor;
use thinglog_schemas::topic::valid_filter;

use super::{Hub, publish::DISK_FULL};
use crate::{
    codec::{Filter, Reason},
    filter::{is_all_durable, may_be_durable},
    load::Charge,
    message::Queued,
    retained::{Scan, Step},
    session::{ConnectionId, Inner, Session},
    shared::{is_shared, split, unshared},
    state::Kind,
    trie::Subscription,
    window::Sent,
};

/// Most levels of a filter: walks over the subscriptions recurse once a level.
const MAX_LEVELS: usize = 128;
/// Retained messages looked at for one connection before others get their turn.
const SCAN_BUDGET: usize = 2_000;
/// Why a subscription that names its start is refused.
pub(super) const NO_START: &str = "no such place in the durable log to start from";

impl Hub {
    /// Subscribes for the connection that owns the session; gives the QoS that is granted, else the
    /// reason code and the words for it.
    pub(crate) fn subscribe(
        &self,
        (session, connection): (&Arc<Session>, ConnectionId),
        filter: &Filter,
        id: Option<u32>,
        from: Option<&str>,
    ) -> Result<u8, (Reason, &'static str)> {
        if filter.path.len() > self.config.limits.topic_bytes {
            let text = "filter longer than the broker takes";
            return Err((Reason::TopicFilterInvalid, text));
        }
        let is_shared = is_shared(&filter.path);
        let topics = unshared(&filter.path);
        let is_malformed = is_shared && split(&filter.path).is_none();
        if is_malformed || !valid_filter(topics) || topics.split('/').count() > MAX_LEVELS {
            return Err((Reason::TopicFilterInvalid, "not a topic filter"));
        }
        // Records of the log are given at QoS 1 at most; a filter that reaches further than the log
        // gets what it asks for on the other topics.
        let qos = match is_all_durable(topics, &self.durable_filters) {
            true => filter.qos.min(1),
            false => filter.qos,
        };
        let subscription = Subscription {
            qos,
            no_local: filter.no_local,
            retain_as_published: filter.retain_as_published,
            id,
        };
        // Looked up before the locks: it may read a file.
        let (has_cursor, persistent) = {
            let inner = session.inner.lock();
            (inner.cursor.is_some(), inner.is_persistent())
        };
        let is_group = self.is_durable_group(&filter.path);
        let starts_group = is_group && !self.has_group(&filter.path);
        let group_start = starts_group
            .then(|| self.start_offset(from, true))
            .flatten();
        let starts = !has_cursor && may_be_durable(&filter.path, &self.durable_filters);
        let start = starts.then(|| self.start_offset(from, persistent));
        // A session that ends meanwhile would leave the subscription behind.
        let _handover = self.handover.lock();
        let mut inner = session.inner.lock();
        if inner.owner != connection {
            let text = "another connection uses this client id";
            return Err((Reason::Unspecified, text));
        }
        let is_new = !inner.subscriptions.contains_key(&filter.path);
        if let Some(text) = is_new.then(|| self.is_over(&inner, &filter.path)).flatten() {
            return Err((Reason::QuotaExceeded, text));
        }
        if is_new && inner.is_persistent() && !self.state.accepts() {
            return Err((Reason::QuotaExceeded, DISK_FULL));
        }
        if is_group {
            let share = (&*filter.path, &subscription);
            self.join_group(session, &mut inner, share, group_start)?;
        }
        if let Some(start) = start {
            let Some(start) = start else {
                return Err((Reason::Unspecified, NO_START));
            };
            inner.cursor = Some(Cursor::at(start));
            inner.cursor_moved = true;
        }
        inner
            .subscriptions
            .insert(filter.path.clone(), subscription.clone());
        inner.filter_bytes += if is_new { filter.path.len() } else { 0 };
        // Retained messages are not for groups (MQTT 5.0 section 4.8.2).
        let wants_retained = filter.retain_handling == 0 || (filter.retain_handling == 1 && is_new);
        if wants_retained && !is_shared {
            // A walk that is under way starts again, so that there is one at most for a subscription.
            inner.scans.retain(|(scan, _)| scan.filter != filter.path);
            inner
                .scans
                .push_back((Scan::new(&filter.path), subscription.clone()));
            inner.unscanned.insert(filter.path.clone());
        }
        let watch = inner.watch;
        drop(inner);
        self.route(session, &filter.path, subscription);
        if is_new {
            self.interest.add(&filter.path, watch);
        }
        Ok(qos)
    }

    /// Which limit a further subscription would break.
    fn is_over(&self, inner: &Inner, filter: &str) -> Option<&'static str> {
        let limits = &self.config.limits;
        if inner.subscriptions.len() >= limits.subscriptions {
            return Some("too many subscriptions of one session");
        }
        (inner.filter_bytes + filter.len() > limits.subscription_bytes)
            .then_some("too many bytes of filters of one session")
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

    /// Lets messages find a subscription.
    pub(super) fn route(&self, session: &Arc<Session>, filter: &str, subscription: Subscription) {
        match is_shared(filter) {
            true if is_all_durable(unshared(filter), &self.durable_filters) => {}
            true => self.shared.join(filter, session, subscription),
            false => self.trie.write().insert(filter, session.key, subscription),
        }
    }

    pub(super) fn unroute(&self, session: &Session, filter: &str) {
        match is_shared(filter) {
            true => self.shared.leave(filter, session.key),
            false => self.trie.write().remove(filter, &session.key),
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
        inner.filter_bytes -= filter.len();
        inner.scans.retain(|(scan, _)| scan.filter != filter);
        inner.unscanned.remove(filter);
        let watch = inner.watch;
        self.drop_needless_cursor(session, &mut inner);
        if self.is_durable_group(filter) {
            self.leave_group(session.key, &mut inner, filter);
        }
        drop(inner);
        self.unroute(session, filter);
        self.interest.remove(filter, watch);
        true
    }

    /// Drops a cursor that no subscription needs, once no record is under way to the client: what was
    /// sent is completed (MQTT 5.0 section 3.10.4). True when it is gone.
    pub(crate) fn drop_needless_cursor(&self, session: &Session, inner: &mut Inner) -> bool {
        let is_needed = |filter: &String| may_be_durable(filter, &self.durable_filters);
        let is_under_way = |sent: &Sent| matches!(sent, Sent::Durable(_));
        if inner.cursor.is_none()
            || inner.subscriptions.keys().any(is_needed)
            || inner
                .window
                .outstanding()
                .any(|(_, sent)| is_under_way(sent))
        {
            return false;
        }
        inner.cursor = None;
        if inner.is_persistent() {
            self.state.change(Kind::Cursor, &session.client_id, None);
        }
        true
    }

    /// Whether retained messages may be moved into a session's queue: it is short, and what all sessions
    /// hold together leaves room for more than the next one.
    pub(crate) fn takes_retained(&self, inner: &Inner) -> bool {
        inner.queue.is_short() && (inner.queue.len() == 0 || self.load.is_roomy())
    }

    /// Moves retained messages for new subscriptions into the session's queue while it takes them.
    pub(crate) fn pump_retained(&self, session: &Session, inner: &mut Inner, now: u64) {
        let mut budget = SCAN_BUDGET;
        while self.takes_retained(inner) {
            let Some((mut scan, subscription)) = inner.scans.pop_front() else {
                return;
            };
            let step = self.retained.lock().next(&mut scan, now, &mut budget);
            if let Step::Found(message) = &step
                && inner.may_read(&message.topic)
            {
                inner.queue.push_retained(Queued {
                    retain: true,
                    charge: Charge::new(&session.account, message.weight()),
                    ..Queued::by(&subscription, message)
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

    /// Topics with retained messages, in order.
    #[cfg(test)]
    pub(crate) fn retained_topics(&self) -> Vec<String> {
        self.retained.lock().topics()
    }
}
