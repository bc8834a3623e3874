//! A producer: who sends, and the numbers of what it sent.
//!
//! A producer has at most one batch of a partition under way. A batch that was not answered for, or is to
//! come again, is *open*: it keeps its first number, and nobody else's events get it. The producer waits
//! among those that nobody uses until the same events come once more, in the same order, which the core
//! brings as they were; a request that belongs to no open batch takes a producer without any.

use std::collections::HashMap;

use super::batch::Batch;
use super::connection::Connection;

/// Numbers from which on a producer is replaced: they end at the largest of `i32`.
const LARGEST: i32 = i32::MAX - (1 << 20);
/// Partitions that a producer numbers, at most.
const MOST_PARTITIONS: usize = 100_000;

/// What tells a batch from others.
pub(super) type Print = [u8; 32];

pub(super) struct Producer {
    pub(super) id: i64,
    pub(super) epoch: i16,
    /// The next number of each topic's partition; none: 0.
    next: HashMap<(Box<str>, i32), i32>,
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
    pub(super) fn new((id, epoch): (i64, i16)) -> Producer {
        Producer {
            id,
            epoch,
            next: HashMap::new(),
            open: Vec::new(),
            connections: HashMap::new(),
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

    /// Whether it should not go on: its numbers come to an end, or are too many.
    pub(super) fn is_used_up(&self) -> bool {
        let mut numbers = self.next.values();
        self.next.len() > MOST_PARTITIONS || numbers.any(|next| *next > LARGEST)
    }
}
