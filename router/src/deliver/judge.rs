//! Decides what of a delivery goes on: decodes it, drops what was there before, drops what its level
//! does not let pass. The order matters: a repeated event is a duplicate whatever its level is today.

use std::sync::Arc;

use thinglog_schemas::batch;
use thinglog_schemas::payload::{Decoded, PayloadDecoder, PayloadError};
use thinglog_schemas::{Event, EventId};

use super::batch::Keep;
use super::share::Shared;
use crate::dedup::seen::Novelty;
use crate::dedup::table::{Key, Table};
use crate::levels::LevelCache;
use crate::levels::role::Permit;
use crate::mqtt::Delivery;
use crate::mqtt::names::Names;
use crate::telemetry::Books;

/// Payloads from this size up are worth sharing with other destinations; below, decoding again is
/// cheaper than meeting.
const SHARE_FROM: usize = 1 << 10;

/// Seconds between searches for idle lanes.
const FORGET_EVERY_S: u64 = 3600;

/// Decodes payloads, sharing the large batches.
pub(crate) struct Reader {
    decoder: PayloadDecoder,
    shared: Shared,
}

impl Reader {
    pub(crate) fn new(shared: Shared) -> Reader {
        Reader {
            decoder: PayloadDecoder::new(),
            shared,
        }
    }

    /// The events of a delivery from `names`.
    pub(crate) fn read(
        &mut self,
        delivery: &Delivery,
        names: &Names,
    ) -> Result<Arc<Decoded>, PayloadError> {
        let payload = &delivery.payload[..];
        let decoder = &mut self.decoder;
        let mut decode = || decoder.decode(&names.device, &names.source, payload, &delivery.stamp);
        match delivery.stamp.stored {
            Some(place) if payload.len() >= SHARE_FROM && batch::is_batch(payload) => {
                self.shared.get(place, decode)
            }
            _ => decode().map(Arc::new),
        }
    }
}

/// What became of a delivery.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Settled before; not decoded again.
    Redelivered,
    /// Holds no events, or is on no log topic. `audit` keeps it.
    Unreadable,
    Events(Judged),
}

/// The events of a delivery, sorted.
#[derive(Debug, PartialEq)]
pub(crate) struct Judged {
    pub(crate) decoded: Arc<Decoded>,
    /// `None`: nothing remains.
    pub(crate) keep: Option<Keep>,
    pub(crate) duplicate: u64,
    pub(crate) filtered: u64,
}

/// The judge of one destination.
pub(crate) struct Judge {
    reader: Reader,
    levels: LevelCache,
    permit: Option<Permit>,
    pub(crate) table: Table,
    /// When idle lanes are looked for next, seconds since the Unix epoch.
    forget_at: u64,
}

impl Judge {
    pub(crate) fn new(reader: Reader, levels: LevelCache, table: Table) -> Judge {
        Judge {
            reader,
            levels,
            permit: None,
            table,
            forget_at: 0,
        }
    }

    /// Lets nothing pass while the permit is not granted.
    pub(crate) fn with_permit(self, permit: Option<Permit>) -> Judge {
        Judge { permit, ..self }
    }

    /// Judges a delivery as [`Judge::judge`], and has the books tell what came; gives its events.
    pub(crate) fn take<'a>(
        &mut self,
        delivery: &'a Delivery,
        now: u64,
        books: &Books,
    ) -> Option<(&'a Names, Judged)> {
        if now >= self.forget_at {
            // Not at once: what was on its way when everything stopped comes first.
            if self.forget_at > 0 {
                self.table.forget_idle(now);
            }
            self.forget_at = now + FORGET_EVERY_S;
        }
        match (self.judge(delivery, now), &delivery.topic.logs) {
            (Verdict::Redelivered, _) => books.redelivered.inc(),
            (Verdict::Events(judged), Ok(names)) => {
                books.take(judged.decoded.events.len() as u64, 0);
                return Some((names, judged));
            }
            (Verdict::Unreadable | Verdict::Events(_), _) => books.unreadable.inc(),
        }
        None
    }

    /// Judges a delivery at `now` (seconds since the Unix epoch) and notes it in the table.
    pub(crate) fn judge(&mut self, delivery: &Delivery, now: u64) -> Verdict {
        let Ok(names) = &delivery.topic.logs else {
            return Verdict::Unreadable;
        };
        let stamp = &delivery.stamp;
        if let Some(place) = stamp.stored
            && !self.table.admit(place, stamp.received)
        {
            return Verdict::Redelivered;
        }
        match self.reader.read(delivery, names) {
            Ok(decoded) => Verdict::Events(self.sort(decoded, delivery, names, now)),
            Err(_) => Verdict::Unreadable,
        }
    }

    fn sort(
        &mut self,
        decoded: Arc<Decoded>,
        delivery: &Delivery,
        names: &Names,
        now: u64,
    ) -> Judged {
        let novelty = self.lane_novelty(&decoded, names);
        let permitted = self.permit.as_mut().is_none_or(Permit::is_granted);
        let resolved = self.levels.of(names, &delivery.stamp);
        let (mut duplicate, mut filtered) = (0, 0);
        let mut kept = Vec::new();
        let mut all = true;
        for (at, event) in decoded.events.iter().enumerate() {
            let old = match novelty {
                Novelty::New => false,
                Novelty::Old => true,
                Novelty::Mixed => repeats(&self.table, names, event),
            };
            if old {
                duplicate += 1;
            } else if !(permitted && resolved.passes(&names.source, event.time, event.severity)) {
                filtered += 1;
            } else {
                if !all {
                    kept.push(at as u32);
                }
                continue;
            }
            if std::mem::take(&mut all) {
                kept.extend(0..at as u32);
            }
        }
        note(&mut self.table, names, &decoded, now);
        let keep = match all {
            true if decoded.events.is_empty() => None,
            true => Some(Keep::All),
            false if kept.is_empty() => None,
            false => Some(Keep::Some(kept)),
        };
        Judged {
            decoded,
            keep,
            duplicate,
            filtered,
        }
    }

    /// How a payload's events as a whole relate to the table; `Mixed` means: ask for each.
    fn lane_novelty(&self, decoded: &Decoded, names: &Names) -> Novelty {
        let (Some(lane), Some(from), Some(to)) =
            (&decoded.lane, first_seq(decoded), last_seq(decoded))
        else {
            // Plain events are told apart by their delivery; only one that brings an id of its own
            // (a gap, a replayed event) has to be asked for.
            let own = |event: &Event| !matches!(event.id, EventId::Stored { .. } | EventId::None);
            let ask = decoded.lane.is_none() && decoded.events.iter().any(own);
            return if ask { Novelty::Mixed } else { Novelty::New };
        };
        let key = Key::Lane(Arc::clone(&names.device), lane.epoch);
        self.table.novelty(&key, from, to)
    }
}

fn seq(event: &Event) -> Option<u64> {
    match event.id {
        EventId::Spooled { seq, .. } => Some(seq),
        _ => None,
    }
}

fn first_seq(decoded: &Decoded) -> Option<u64> {
    decoded.events.first().and_then(seq)
}

fn last_seq(decoded: &Decoded) -> Option<u64> {
    decoded.events.last().and_then(seq)
}

/// The key and range that stand for an event with an id of its own.
fn own_mark(names: &Names, event: &Event) -> Option<(Key, u64, u64)> {
    let device = || Arc::clone(&names.device);
    match event.id {
        EventId::Spooled { epoch, seq } => Some((Key::Lane(device(), epoch), seq, seq)),
        EventId::Gap { epoch, from, to } => Some((Key::Gaps(device(), epoch), from, to)),
        EventId::Stored { .. } | EventId::None => None,
    }
}

fn repeats(table: &Table, names: &Names, event: &Event) -> bool {
    own_mark(names, event)
        .is_some_and(|(key, from, to)| table.novelty(&key, from, to) == Novelty::Old)
}

/// Notes everything a payload brought.
fn note(table: &mut Table, names: &Names, decoded: &Decoded, now: u64) {
    let Some(lane) = &decoded.lane else {
        for (key, from, to) in decoded
            .events
            .iter()
            .filter_map(|event| own_mark(names, event))
        {
            table.insert(&key, from, to, now);
        }
        return;
    };
    let key = Key::Lane(Arc::clone(&names.device), lane.epoch);
    for (from, to) in runs(decoded) {
        table.insert(&key, from, to, now);
    }
    // A range that was dropped whole never comes; noting it keeps the set in one piece. One that
    // was thinned out may have survivors still to come.
    for dropped in &lane.drops {
        if dropped.from <= dropped.to && dropped.to - dropped.from + 1 == dropped.count {
            table.insert(&key, dropped.from, dropped.to, now);
        }
    }
}

/// Sequence numbers of a payload as inclusive ranges. One range, in one step, where none is missing.
fn runs(decoded: &Decoded) -> impl Iterator<Item = (u64, u64)> + '_ {
    let events = &decoded.events;
    let whole = match (first_seq(decoded), last_seq(decoded)) {
        (Some(from), Some(to)) if to.wrapping_sub(from) == events.len() as u64 - 1 => {
            Some((from, to))
        }
        _ => None,
    };
    let rest = if whole.is_some() {
        &[][..]
    } else {
        &events[..]
    };
    let pieces = rest.chunk_by(|a, b| seq(a).zip(seq(b)).is_some_and(|(a, b)| a + 1 == b));
    let pieces = pieces.filter_map(|run| Some((seq(run.first()?)?, seq(run.last()?)?)));
    whole.into_iter().chain(pieces)
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
