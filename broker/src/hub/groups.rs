//! Durable groups, that is shared subscriptions whose filters may match durable topics: who is a member,
//! what of them is on disk, how long they last.

use std::{collections::HashMap, sync::Arc};

use thinglog_journal::cursor::Cursor;
use tracing::warn;

use super::{Hub, publish::DISK_FULL, topics::NO_START};
use crate::{
    clock,
    codec::Reason,
    filter::may_be_durable,
    session::{Inner, Session},
    shared::{Group, Supply, drive, is_shared, unshared},
    state::Kind,
    trie::{SessionKey, Subscription},
};

impl Hub {
    /// Whether a filter is that of a durable group.
    pub(super) fn is_durable_group(&self, filter: &str) -> bool {
        is_shared(filter) && may_be_durable(unshared(filter), &self.durable_filters)
    }

    pub(super) fn has_group(&self, share: &str) -> bool {
        self.groups.lock().contains_key(share)
    }

    /// Makes a connected client a member of a group; one that is not there yet begins at `start`.
    pub(super) fn join_group(
        &self,
        session: &Arc<Session>,
        inner: &mut Inner,
        (share, subscription): (&str, &Subscription),
        start: Option<u64>,
    ) -> Result<(), (Reason, &'static str)> {
        let mut groups = self.groups.lock();
        let group = match groups.get(share) {
            Some(group) => group.clone(),
            None if groups.len() >= self.config.limits.groups => {
                return Err((Reason::QuotaExceeded, "too many shared subscriptions"));
            }
            None if !self.state.accepts() => return Err((Reason::QuotaExceeded, DISK_FULL)),
            None => {
                let start = start.ok_or((Reason::Unspecified, NO_START))?;
                let group = self.new_group(share, Cursor::at(start), clock::now());
                groups.insert(group.share.clone(), group.clone());
                group
            }
        };
        self.seat(session, inner, &group, subscription.clone());
        let bytes = group.encode(clock::now());
        inner.group_ticket = Some(self.state.change(Kind::Group, share, Some(bytes)));
        Ok(())
    }

    fn new_group(&self, share: &str, cursor: Cursor, idle_since: u64) -> Arc<Group> {
        let root = &self.config.root;
        let remembered = self.remembered.clone();
        Arc::new(Group::new(
            share.into(),
            root,
            (cursor, idle_since),
            remembered,
        ))
    }

    fn seat(
        &self,
        session: &Arc<Session>,
        inner: &mut Inner,
        group: &Arc<Group>,
        subscription: Subscription,
    ) {
        inner.groups.insert(group.share.clone(), group.clone());
        let takes = (inner.receive_maximum, inner.pass.as_ref());
        if group.join(inner.owner, session, subscription, takes) {
            let supply = Supply {
                journal: self.journal.clone(),
                settled: self.journal_settled.clone(),
                load: self.load.clone(),
                telemetry: self.telemetry.clone(),
            };
            self.drivers.spawn(drive(group.clone(), supply));
        }
    }

    /// A client is back: it takes part again in the groups it has subscribed to.
    pub(super) fn rejoin_groups(&self, session: &Arc<Session>, inner: &mut Inner) {
        let subscriptions = inner.subscriptions.iter();
        let shares: Vec<(String, Subscription)> = subscriptions
            .filter(|(filter, _)| self.is_durable_group(filter))
            .map(|(filter, subscription)| (filter.clone(), subscription.clone()))
            .collect();
        for (share, subscription) in shares {
            let group = self.groups.lock().get(&*share).cloned();
            if let Some(group) = group {
                self.seat(session, inner, &group, subscription);
            }
        }
    }

    /// A client has unsubscribed; the group ends with its last subscriber.
    pub(super) fn leave_group(&self, session: SessionKey, inner: &mut Inner, share: &str) {
        let Some(group) = self.groups.lock().get(share).cloned() else {
            return;
        };
        let unsent = inner.queue.take_back(share);
        group.retire(inner.owner, &unsent);
        if group.unsubscribe(session) {
            inner.group_ticket = Some(self.end_group(&group));
        }
    }

    /// A session is gone. The group stays a while: its workers may all be starting again.
    pub(super) fn forget_member(&self, session: SessionKey, share: &str) {
        if let Some(group) = self.groups.lock().get(share) {
            group.unsubscribe(session);
        }
    }

    fn end_group(&self, group: &Group) -> u64 {
        let mut groups = self.groups.lock();
        groups.remove(&group.share);
        group.end();
        self.state.change(Kind::Group, &group.share, None)
    }

    /// Takes up the groups that are on disk.
    pub(super) fn revive_groups(&self, loaded: HashMap<String, Vec<u8>>, now: u64) {
        for (share, bytes) in loaded {
            if !self.is_durable_group(&share) {
                self.state.change(Kind::Group, &share, None);
                continue;
            }
            let (cursor, idle_since) = Group::decode(&bytes).unwrap_or_else(|| {
                warn!(
                    share,
                    "a group on disk cannot be read; it starts at the oldest record"
                );
                (Cursor::at(self.journal.first()), None)
            });
            let group = self.new_group(&share, cursor, idle_since.unwrap_or(now));
            self.groups.lock().insert(group.share.clone(), group);
        }
    }

    /// A session that is on disk has subscribed to a group. One that is lost starts at the oldest
    /// record: what comes again is recognised by its id.
    pub(super) fn revive_member(&self, session: SessionKey, share: &str, now: u64) {
        let mut groups = self.groups.lock();
        let group = groups.entry(share.into()).or_insert_with(|| {
            warn!(
                share,
                "a group is not on disk; it starts at the oldest record"
            );
            self.new_group(share, Cursor::at(self.journal.first()), now)
        });
        group.subscribe(session);
    }

    /// All groups.
    pub(super) fn all_groups(&self) -> Vec<Arc<Group>> {
        self.groups.lock().values().cloned().collect()
    }

    /// Queues for the disk what moved in groups; ends those whose time is over.
    pub(super) fn checkpoint_groups(&self, now: u64) {
        let longest = u64::from(self.config.limits.session_seconds) * 1_000_000_000;
        let all = self.all_groups();
        let mut members = 0;
        for group in &all {
            members += group.members();
            self.store_group(group, group.progress(now));
            if group.is_over(now, longest) {
                let _handover = self.handover.lock();
                if group.is_over(now, longest) {
                    self.end_group(group);
                }
            }
        }
        self.telemetry.groups(all.len(), members);
    }

    /// Queues every group for the disk.
    pub(super) fn store_all_groups(&self) {
        let now = clock::now();
        for group in self.all_groups() {
            self.store_group(&group, Some(group.encode(now)));
        }
    }

    /// Queues a group for the disk, unless it has ended meanwhile.
    fn store_group(&self, group: &Arc<Group>, bytes: Option<Vec<u8>>) {
        let groups = self.groups.lock();
        let is_there = groups
            .get(&group.share)
            .is_some_and(|there| Arc::ptr_eq(there, group));
        if is_there && let Some(bytes) = bytes {
            self.state.change(Kind::Group, &group.share, Some(bytes));
        }
    }
}
