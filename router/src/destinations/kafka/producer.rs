//! A producer: who sends, and the numbers of what it sent.
//!
//! A producer has at most one batch of a partition under way. A batch that was not answered for, or is to
//! come again, is *open*: it keeps its first number, and nobody else's events get it. The producer waits
//! among those that nobody uses until the same events come once more, in the same order, which the core
//! brings as they were; a request that belongs to no open batch takes a producer without any.
//!
//! A partition whose broker no longer knows what the producer sent there is *lost*: it goes on under an id
//! of its own, from 0. The numbers of other partitions stay as they are, or their open batches would be
//! stored twice.

use std::collections::HashMap;

use super::batch::Batch;
use super::connection::Connection;

/// Numbers from which on a producer is replaced: they end at the largest of `i32`.
const LARGEST: i32 = i32::MAX - (1 << 20);
/// Partitions that a producer numbers, at most.
const MOST_PARTITIONS: usize = 100_000;

/// What tells a batch from others.
pub(super) type Print = [u8; 32];

/// Id and epoch.
pub(super) type Identity = (i64, i16);

type Place = (Box<str>, i32);

pub(super) struct Producer {
    identity: Identity,
    /// Of partitions that were lost: nothing yet, or the identity that they go on under.
    lost: HashMap<Place, Option<Identity>>,
    /// The next number of each topic's partition; none: 0.
    next: HashMap<Place, i32>,
    open: Vec<Open>,
    /// By broker.
    pub(super) connections: HashMap<i32, Connection>,
}

/// A batch whose fate is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Open {
    topic: Box<str>,
    partition: i32,
    print: Print,
}

impl Producer {
    pub(super) fn new(identity: Identity) -> Producer {
        Producer {
            identity,
            lost: HashMap::new(),
            next: HashMap::new(),
            open: Vec::new(),
            connections: HashMap::new(),
        }
    }

    /// Who sends to a partition.
    pub(super) fn identity(&self, topic: &str, partition: i32) -> Identity {
        let own = self.lost.get(&(Box::from(topic), partition));
        own.copied().flatten().unwrap_or(self.identity)
    }

    /// The broker does not know what was sent to a partition: its numbers begin anew.
    pub(super) fn lose(&mut self, topic: &str, batch: &Batch) {
        self.close(topic, batch);
        let place = (Box::from(topic), batch.partition);
        self.next.remove(&place);
        self.lost.insert(place, None);
    }

    /// Whether a partition that was lost waits for an identity.
    pub(super) fn lacks_identity(&self) -> bool {
        self.lost.values().any(Option::is_none)
    }

    /// What was lost goes on under this one.
    pub(super) fn go_on_as(&mut self, identity: Identity) {
        for own in self.lost.values_mut() {
            own.get_or_insert(identity);
        }
    }

    /// Whether nothing is open.
    pub(super) fn is_clear(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether it sent some of these batches before, and none of them as something else.
    pub(super) fn goes_on(&self, topic: &str, batches: &[(i32, Print)]) -> bool {
        let open = |partition: i32| {
            let mut open = self.open.iter();
            open.find(|open| open.partition == partition && *open.topic == *topic)
        };
        let found = batches
            .iter()
            .filter_map(|(partition, print)| Some(open(*partition)?.print == *print));
        let found: Vec<bool> = found.collect();
        !found.is_empty() && found.iter().all(|is_same| *is_same)
    }

    /// The number of the first record of the next batch of a partition, open or new.
    pub(super) fn first(&self, topic: &str, partition: i32) -> i32 {
        let next = self.next.get(&(Box::from(topic), partition));
        next.copied().unwrap_or(0)
    }

    /// The broker has the batch.
    pub(super) fn sent(&mut self, topic: &str, batch: &Batch) {
        let first = self.first(topic, batch.partition);
        let next = first.saturating_add(batch.places.len() as i32);
        self.next.insert((Box::from(topic), batch.partition), next);
        self.close(topic, batch);
    }

    /// Whether a batch of a partition may have been stored.
    pub(super) fn is_open(&self, topic: &str, partition: i32) -> bool {
        let mut open = self.open.iter();
        open.any(|open| open.partition == partition && *open.topic == *topic)
    }

    /// The broker does not have the batch and never will: its numbers are free.
    pub(super) fn close(&mut self, topic: &str, batch: &Batch) {
        self.open
            .retain(|open| open.partition != batch.partition || *open.topic != *topic);
    }

    /// The broker may have the batch, or is to get it again.
    pub(super) fn keep(&mut self, topic: &str, batch: &Batch, print: Print) {
        self.close(topic, batch);
        self.open.push(Open {
            topic: Box::from(topic),
            partition: batch.partition,
            print,
        });
    }

    /// Whether it should not go on: its numbers come to an end or are too many, or some were lost.
    pub(super) fn is_used_up(&self) -> bool {
        let mut numbers = self.next.values();
        !self.lost.is_empty()
            || self.next.len() > MOST_PARTITIONS
            || numbers.any(|next| *next > LARGEST)
    }
}
