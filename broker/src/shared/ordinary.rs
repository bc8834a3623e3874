//! Groups on topics that are not durable: who gets a message. A connected member if there is one, in
//! turn, rather one whose queue is short; else a member whose session waits for its client.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::RwLock;

use super::split;
use crate::{
    message::{Message, Queued},
    session::Session,
    trie::{SessionKey, Subscription, Trie},
};

/// All groups. A lock on it is taken before those of sessions.
#[derive(Debug, Default)]
pub(crate) struct Ordinary {
    /// By name at the node of the filter.
    groups: RwLock<Trie<Box<str>, Members>>,
}

/// The members of one group.
#[derive(Debug)]
struct Members {
    /// The whole filter.
    share: Arc<str>,
    list: Vec<Member>,
    /// Whose turn it is, as a place in the list.
    turn: AtomicUsize,
}

#[derive(Debug)]
struct Member {
    session: Arc<Session>,
    subscription: Subscription,
}

/// How well a member can take a message, best last.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fitness {
    Away,
    Busy,
    Ready,
}

impl Ordinary {
    /// Makes a session a member of the group that `share` names, or changes how it is one.
    pub(crate) fn join(&self, share: &str, session: &Arc<Session>, subscription: Subscription) {
        let Some((name, filter)) = split(share) else {
            return;
        };
        let mut groups = self.groups.write();
        let members = groups.get_or_insert_with(filter, name.into(), || Members {
            share: share.into(),
            list: Vec::new(),
            turn: AtomicUsize::new(0),
        });
        let known = members.list.iter_mut();
        match known.into_iter().find(|member| member.is(session.key)) {
            Some(member) => member.subscription = subscription,
            None => members.list.push(Member {
                session: session.clone(),
                subscription,
            }),
        }
    }

    /// Ends a membership.
    pub(crate) fn leave(&self, share: &str, session: SessionKey) {
        let Some((name, filter)) = split(share) else {
            return;
        };
        let name: Box<str> = name.into();
        let mut groups = self.groups.write();
        let Some(members) = groups.get_mut(filter, &name) else {
            return;
        };
        members.list.retain(|member| !member.is(session));
        if members.list.is_empty() {
            groups.remove(filter, &name);
        }
    }

    /// Adds one recipient for each group that wants a message; a group whose members can none of them
    /// take it goes without.
    pub(crate) fn choose(&self, message: &Arc<Message>, wanted: &mut Vec<(Arc<Session>, Queued)>) {
        self.groups
            .read()
            .matching(&message.topic, &mut |_, members| {
                wanted.extend(members.choose(message));
            });
    }

    /// Another recipient for a message whose member is gone.
    pub(crate) fn choose_again(
        &self,
        share: &str,
        message: &Arc<Message>,
    ) -> Option<(Arc<Session>, Queued)> {
        let (name, filter) = split(share)?;
        let groups = self.groups.read();
        groups.get(filter, &name.into())?.choose(message)
    }
}

impl Members {
    fn choose(&self, message: &Arc<Message>) -> Option<(Arc<Session>, Queued)> {
        let turn = self.turn.load(Ordering::Relaxed);
        let mut best: Option<(Fitness, usize)> = None;
        for step in 0..self.list.len() {
            let place = turn.wrapping_add(step) % self.list.len();
            let Some(fitness) = self.list[place].fitness(message) else {
                continue;
            };
            if best.as_ref().is_none_or(|(other, _)| fitness > *other) {
                let is_ready = fitness == Fitness::Ready;
                best = Some((fitness, place));
                if is_ready {
                    break;
                }
            }
        }
        let (_, place) = best?;
        self.turn.store(place + 1, Ordering::Relaxed);
        let Member {
            session,
            subscription,
        } = &self.list[place];
        let queued = Queued {
            share: Some(self.share.clone()),
            ..Queued::by(subscription, message)
        };
        Some((session.clone(), queued))
    }
}

impl Member {
    fn is(&self, session: SessionKey) -> bool {
        self.session.key == session
    }

    /// `None` when the message is not for this member.
    fn fitness(&self, message: &Message) -> Option<Fitness> {
        let inner = self.session.inner.lock();
        if !inner.may_read(&message.topic) {
            return None;
        }
        match inner.owner {
            0 => {
                let keeps = inner.is_persistent() && self.subscription.qos.min(message.qos) > 0;
                keeps.then_some(Fitness::Away)
            }
            _ if inner.queue.is_short() => Some(Fitness::Ready),
            _ => Some(Fitness::Busy),
        }
    }
}
