//! Batches as they travel: encoded once, kept as bytes until acknowledged, never numbered again.
//! What is too large for the wire is split (the same events, the same ids, more payloads); what
//! cannot be sent at all is replaced by a declaration that it was dropped. Pure.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use thinglog_schemas::{
    Severity,
    batch::{
        Batch, ClockInfo, DecodeError, Decoder, Drop, DropReason, Encoder, Entry, MAX_PAYLOAD,
    },
};

use crate::queue::{Cut, LaneKey};

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
    /// The MQTT payload.
    pub(crate) payload: Bytes,
    /// The lane to tell when it is durable; none for what an earlier process left.
    pub(crate) settles: Option<(LaneKey, u64)>,
}

/// Encodes, splits and replaces batches; keeps its buffers.
pub(crate) struct Sealer {
    encoder: Encoder,
    decoder: Decoder,
    scratch: Vec<u8>,
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
        }
    }

    /// Encodes what the queue cut, in as many payloads as the format's limits and `max` bytes ask
    /// for. Returns how many events could not be encoded and were declared dropped instead.
    pub(crate) fn seal(&mut self, cut: Cut, max: usize, out: &mut VecDeque<Sealed>) -> u64 {
        let settles = Some((cut.lane, cut.through));
        self.encode(cut.batch, &cut.source, settles, max, out)
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
        let source = sealed.source.clone();
        Ok(self.encode(batch, &source, sealed.settles, max, out))
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
        batch.drops.extend(declare(&entries, reason));
        let mut out = VecDeque::new();
        let source = sealed.source.clone();
        self.encode(batch, &source, sealed.settles, MAX_PAYLOAD, &mut out);
        let count = entries.len() as u64;
        out.pop_front()
            .map(|declaration| (declaration, count))
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
        let batch = Batch {
            epoch,
            first_seq: from,
            clock: NO_CLOCK,
            drops: vec![drop],
            entries: Vec::new(),
        };
        let mut out = VecDeque::new();
        self.encode(batch, source, None, MAX_PAYLOAD, &mut out);
        out.pop_front()
    }

    /// Encodes iteratively: halves go back on the stack in order, so the output is in order.
    fn encode(
        &mut self,
        batch: Batch,
        source: &Arc<str>,
        settles: Option<(LaneKey, u64)>,
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
                    todo.push(without_entries(batch));
                }
                // A declaration has a bounded size; should it not fit all the same, it is sent and
                // the broker has the last word.
                _ if fits || batch.entries.is_empty() => out.push_back(Sealed {
                    source: source.clone(),
                    epoch: batch.epoch,
                    first_seq: batch.first_seq,
                    last_seq: last_seq(&batch),
                    events: batch.entries.len() as u32,
                    payload: Bytes::copy_from_slice(&self.scratch),
                    settles: settles.filter(|_| todo.is_empty()),
                }),
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

fn last_seq(batch: &Batch) -> u64 {
    let drops = batch.drops.iter().map(|drop| drop.to);
    let last = batch.entries.last().map(|entry| entry.seq);
    drops.chain(last).max().unwrap_or(batch.first_seq)
}

fn without_entries(mut batch: Batch) -> Batch {
    let drops = declare(&batch.entries, DropReason::TooLarge);
    batch.drops.extend(drops);
    batch.entries.clear();
    batch
}

/// The drops that stand for these events, one for each severity.
fn declare(entries: &[Entry], reason: DropReason) -> Vec<Drop> {
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
fn halve(mut batch: Batch) -> (Batch, Batch) {
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
