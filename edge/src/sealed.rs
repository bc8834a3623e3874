//! Batches as they travel: encoded once, kept as bytes until acknowledged, never numbered again.
//! What is too large for the wire is split (the same events, the same ids, more payloads); what
//! cannot be sent at all is replaced by a declaration that it was dropped. Pure.

mod thin;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use thinglog_schemas::{
    Severity,
    batch::{
        Attributed, Batch, ClockInfo, DecodeError, Decoder, Drop, DropReason, Encoder, Entry,
        MAX_PAYLOAD,
    },
};

use crate::{
    drops::Drops,
    marks::Mark,
    queue::{Cut, LaneKey, class},
};
pub(crate) use thin::Thinned;

/// The severity classes among the events of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Classes(pub(crate) u8);

impl Classes {
    fn of<A>(entries: &[Entry<A>]) -> Classes {
        let bits = entries
            .iter()
            .map(|entry| 1_u8 << class(entry.severity))
            .fold(0, |all, bit| all | bit);
        Classes(bits)
    }
}

/// An encoded batch and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    /// Topic level.
    pub(crate) source: Arc<str>,
    /// Epoch of the lane.
    pub(crate) epoch: u64,
    /// The seqs this payload speaks for, both inclusive, drops included.
    pub(crate) first_seq: u64,
    /// See `first_seq`.
    pub(crate) last_seq: u64,
    /// Events it carries.
    pub(crate) events: u32,
    /// Severities of those.
    pub(crate) classes: Classes,
    /// Of a source that waits for room: never given up for want of it.
    pub(crate) patient: bool,
    /// Where such sources stand after it, one place a key.
    pub(crate) marks: Vec<Mark>,
    /// The MQTT payload.
    pub(crate) payload: Bytes,
    /// The lane to tell when it is durable; none for what an earlier process left.
    pub(crate) settles: Option<(LaneKey, u64)>,
}

/// What all pieces of a batch have in common.
struct Origin<'a> {
    source: &'a Arc<str>,
    patient: bool,
    /// In order, with the seq of the event each belongs to.
    marks: &'a [(u64, Mark)],
    settles: Option<(LaneKey, u64)>,
}

impl<'a> Origin<'a> {
    fn of(sealed: &'a Sealed) -> Origin<'a> {
        Origin {
            source: &sealed.source,
            patient: sealed.patient,
            marks: &[],
            settles: sealed.settles,
        }
    }

    /// The last place of each key among the events `from..=to`.
    fn marks_within(&self, from: u64, to: u64) -> Vec<Mark> {
        let start = self.marks.partition_point(|(seq, _)| *seq < from);
        let end = self.marks.partition_point(|(seq, _)| *seq <= to);
        let mut last: HashMap<u64, &Mark> = HashMap::new();
        for (_, mark) in self.marks.get(start..end).unwrap_or_default() {
            last.insert(mark.key, mark);
        }
        last.into_values().cloned().collect()
    }
}

/// Encodes, splits and replaces batches; keeps its buffers.
pub(crate) struct Sealer {
    encoder: Encoder,
    decoder: Decoder,
    scratch: Vec<u8>,
    dropped: Drops,
}

impl Default for Sealer {
    fn default() -> Sealer {
        Sealer::new()
    }
}

impl Sealer {
    /// With buffers of its own.
    pub(crate) fn new() -> Sealer {
        Sealer {
            encoder: Encoder::new(),
            decoder: Decoder::new(),
            scratch: Vec::new(),
            dropped: Drops::default(),
        }
    }

    /// What was given up here, so far.
    pub(crate) fn dropped(&self) -> &Drops {
        &self.dropped
    }

    /// Encodes what the queue cut, in as many payloads as the format's limits and `max` bytes ask
    /// for. Returns how many events could not be encoded and were declared dropped instead.
    pub(crate) fn seal(&mut self, cut: Cut, max: usize, out: &mut VecDeque<Sealed>) -> u64 {
        let origin = Origin {
            source: &cut.source,
            patient: cut.patient,
            marks: &cut.marks,
            settles: Some((cut.lane, cut.through)),
        };
        self.encode(cut.batch, &origin, max, out)
    }

    /// Splits a payload until none is over `max` bytes; an event that alone is over it is declared
    /// dropped. Returns the events dropped.
    pub(crate) fn split(
        &mut self,
        sealed: &Sealed,
        max: usize,
        out: &mut VecDeque<Sealed>,
    ) -> Result<u64, DecodeError> {
        let batch = self.decoder.decode(&sealed.payload)?;
        let lost = self.encode(batch, &Origin::of(sealed), max, out);
        if let Some(last) = out.back_mut() {
            last.marks.clone_from(&sealed.marks);
        }
        Ok(lost)
    }

    /// The declaration that everything `sealed` carried was dropped for `reason`: speaks for the
    /// same seqs. Returns it and the events it gives up.
    pub(crate) fn give_up(
        &mut self,
        sealed: &Sealed,
        reason: DropReason,
    ) -> Result<(Sealed, u64), DecodeError> {
        let mut batch = self.decoder.decode(&sealed.payload)?;
        let entries = std::mem::take(&mut batch.entries);
        let drops = declare(&entries, reason);
        self.dropped.note(&drops);
        batch.drops.extend(drops);
        let mut out = VecDeque::new();
        self.encode(batch, &Origin::of(sealed), MAX_PAYLOAD, &mut out);
        let count = entries.len() as u64;
        out.pop_front()
            .map(|mut declaration| {
                declaration.marks.clone_from(&sealed.marks);
                (declaration, count)
            })
            .ok_or_else(|| DecodeError::Malformed("nothing to declare".into()))
    }

    /// The declaration that `from..=to` of an earlier process's lane cannot be read any more.
    pub(crate) fn unreadable(
        &mut self,
        source: &Arc<str>,
        epoch: u64,
        from: u64,
        to: u64,
    ) -> Option<Sealed> {
        let drop = Drop {
            from,
            to,
            count: to - from + 1,
            severity: Severity::INFO,
            reason: DropReason::Unreadable,
        };
        let batch: Batch = Batch {
            epoch,
            first_seq: from,
            clock: NO_CLOCK,
            drops: vec![drop],
            entries: Vec::new(),
        };
        let origin = Origin {
            source,
            patient: false,
            marks: &[],
            settles: None,
        };
        let mut out = VecDeque::new();
        self.encode(batch, &origin, MAX_PAYLOAD, &mut out);
        out.pop_front()
    }

    /// Encodes iteratively: halves go back on the stack in order, so the output is in order.
    fn encode<A: Attributed>(
        &mut self,
        batch: Batch<A>,
        origin: &Origin<'_>,
        max: usize,
        out: &mut VecDeque<Sealed>,
    ) -> u64 {
        let mut lost = 0;
        let mut todo = vec![batch];
        while let Some(batch) = todo.pop() {
            self.scratch.clear();
            let fits =
                self.encoder.encode(&batch, &mut self.scratch).is_ok() && self.scratch.len() <= max;
            match batch.entries.len() {
                0 | 1 if !fits && !batch.entries.is_empty() => {
                    lost += 1;
                    let drops = declare(&batch.entries, DropReason::TooLarge);
                    self.dropped.note(&drops);
                    todo.push(without_entries(batch, drops));
                }
                // A declaration has a bounded size; should it not fit all the same, it is sent and
                // the broker has the last word.
                _ if fits || batch.entries.is_empty() => {
                    let last_seq = last_seq(&batch);
                    out.push_back(Sealed {
                        source: origin.source.clone(),
                        epoch: batch.epoch,
                        first_seq: batch.first_seq,
                        last_seq,
                        events: batch.entries.len() as u32,
                        classes: Classes::of(&batch.entries),
                        patient: origin.patient,
                        marks: origin.marks_within(batch.first_seq, last_seq),
                        payload: Bytes::copy_from_slice(&self.scratch),
                        settles: origin.settles.filter(|_| todo.is_empty()),
                    });
                }
                _ => {
                    let (first, second) = halve(batch);
                    todo.push(second);
                    todo.push(first);
                }
            }
        }
        lost
    }
}

/// A clock that says nothing: declarations carry no times.
const NO_CLOCK: ClockInfo = ClockInfo {
    boot: 0,
    sent_mono: 0,
    synced: true,
};

fn last_seq<A>(batch: &Batch<A>) -> u64 {
    let drops = batch.drops.iter().map(|drop| drop.to);
    let last = batch.entries.last().map(|entry| entry.seq);
    drops.chain(last).max().unwrap_or(batch.first_seq)
}

fn without_entries<A>(mut batch: Batch<A>, drops: Vec<Drop>) -> Batch<A> {
    batch.drops.extend(drops);
    batch.entries.clear();
    batch
}

/// The drops that stand for these events, one for each severity.
fn declare<A>(entries: &[Entry<A>], reason: DropReason) -> Vec<Drop> {
    let mut drops: Vec<Drop> = Vec::new();
    for entry in entries {
        match drops.iter_mut().find(|d| d.severity == entry.severity) {
            Some(drop) => {
                drop.to = entry.seq;
                drop.count += 1;
            }
            None => drops.push(Drop {
                from: entry.seq,
                to: entry.seq,
                count: 1,
                severity: entry.severity,
                reason,
            }),
        }
    }
    drops
}

/// Both halves speak for consecutive seqs; the drops stay with the first.
fn halve<A>(mut batch: Batch<A>) -> (Batch<A>, Batch<A>) {
    let entries = batch.entries.split_off(batch.entries.len() / 2);
    let second = Batch {
        epoch: batch.epoch,
        first_seq: entries.first().map_or(batch.first_seq, |e| e.seq),
        clock: batch.clock,
        drops: Vec::new(),
        entries,
    };
    (batch, second)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use thinglog_schemas::Level;

    use super::*;
    use crate::{
        levels::Levels,
        queue::{Carried, Queue, QueueOptions},
        record::Record,
    };

    /// A batch of events with these messages.
    fn cut(messages: &[String]) -> Cut {
        let options = QueueOptions {
            memory_bytes: 64 << 20,
            batch_events: 60_000,
            batch_bytes: 32 << 20,
            flush_age: Duration::ZERO,
        };
        let mut queue = Queue::new(options, Levels::new(Level::Debug), 7);
        for message in messages {
            queue.push(Record::new("app", Severity::WARN, message.clone()));
        }
        queue.start_flush();
        queue.cut(None, NO_CLOCK).unwrap()
    }

    /// Text that does not compress.
    fn noise(bytes: usize, seed: u64) -> String {
        let mut x = seed.wrapping_mul(2).wrapping_add(1);
        let next = |_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            char::from(b'!' + (x >> 32) as u8 % 90)
        };
        (0..bytes).map(next).collect()
    }

    /// As it is read again.
    fn plain(entries: &[Entry<Carried>]) -> Vec<Entry> {
        let plain = entries.iter().map(|entry| Entry {
            seq: entry.seq,
            time: entry.time,
            severity: entry.severity,
            message: entry.message.clone(),
            truncated: entry.truncated,
            attributes: entry.attributes.map(),
        });
        plain.collect()
    }

    fn decode(sealed: &Sealed) -> Batch {
        Decoder::new().decode(&sealed.payload).unwrap()
    }

    #[test]
    fn an_ordinary_batch_is_one_payload() {
        let mut out = VecDeque::new();
        let cut = cut(&["one".into(), "two".into()]);
        let (first_seq, entries) = (cut.batch.first_seq, plain(&cut.batch.entries));
        let lane = (cut.lane, cut.through);
        assert_eq!(Sealer::new().seal(cut, MAX_PAYLOAD, &mut out), 0);
        assert_eq!(out.len(), 1);
        assert_eq!(
            (out[0].first_seq, out[0].last_seq, out[0].events),
            (0, 1, 2)
        );
        assert_eq!(out[0].settles, Some(lane));
        let batch = decode(&out[0]);
        assert_eq!((batch.first_seq, batch.entries), (first_seq, entries));
    }

    #[test]
    fn a_batch_over_the_limit_becomes_several_that_follow_on_each_other() {
        let messages: Vec<String> = (0..40).map(|i| noise(100_000, i)).collect();
        let cut = cut(&messages);
        let whole = plain(&cut.batch.entries);
        let mut out = VecDeque::new();
        assert_eq!(Sealer::new().seal(cut, MAX_PAYLOAD, &mut out), 0);
        assert!(out.len() > 1);
        let mut entries = Vec::new();
        for sealed in &out {
            assert!(sealed.payload.len() <= MAX_PAYLOAD);
            assert_eq!(sealed.first_seq, entries.len() as u64);
            entries.extend(decode(sealed).entries);
            assert_eq!(sealed.last_seq + 1, entries.len() as u64);
        }
        assert_eq!(entries, whole);
        let settling = out.iter().filter(|sealed| sealed.settles.is_some());
        assert_eq!(settling.count(), 1);
        assert!(out.back().unwrap().settles.is_some());
    }

    #[test]
    fn an_event_that_alone_is_too_large_is_declared_and_the_rest_is_sent() {
        let messages = ["small".into(), noise(50_000, 1), "last".into()];
        let mut out = VecDeque::new();
        let lost = Sealer::new().seal(cut(&messages), 10_000, &mut out);
        assert_eq!(lost, 1);
        let batches: Vec<Batch> = out.iter().map(decode).collect();
        let kept: Vec<&str> = batches
            .iter()
            .flat_map(|batch| &batch.entries)
            .map(|entry| &*entry.message)
            .collect();
        assert_eq!(kept, ["small", "last"]);
        let drops: Vec<&Drop> = batches.iter().flat_map(|batch| &batch.drops).collect();
        assert_eq!(drops.len(), 1);
        assert_eq!((drops[0].from, drops[0].to, drops[0].count), (1, 1, 1));
        assert_eq!(drops[0].reason, DropReason::TooLarge);
        assert_eq!(drops[0].severity, Severity::WARN);
    }

    #[test]
    fn giving_up_speaks_for_the_same_seqs() {
        let mut out = VecDeque::new();
        let mut sealer = Sealer::new();
        sealer.seal(cut(&["one".into(), "two".into()]), MAX_PAYLOAD, &mut out);
        let (declaration, lost) = sealer.give_up(&out[0], DropReason::TooLarge).unwrap();
        assert_eq!(lost, 2);
        assert_eq!(declaration.events, 0);
        assert_eq!(declaration.first_seq, out[0].first_seq);
        assert_eq!(declaration.last_seq, out[0].last_seq);
        assert_eq!(declaration.settles, out[0].settles);
        assert_eq!(decode(&declaration).drops[0].count, 2);
    }
}
