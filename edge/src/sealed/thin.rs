//! Makes stored batches smaller: the least grave events go and are declared dropped under the seqs
//! they have, and what only declares is put together with its neighbour in the lane. Pure.

use std::collections::VecDeque;

use thinglog_schemas::batch::{Batch, DecodeError, Drop, DropReason, MAX_PAYLOAD};

use super::{Classes, Origin, Sealed, Sealer, declare};
use crate::queue::class;

/// A batch that has become smaller.
#[derive(Debug, PartialEq)]
pub(crate) struct Thinned {
    pub(crate) sealed: Sealed,
    /// What it declares beside what it declared before; counted with
    /// [`note_dropped`](Sealer::note_dropped) once it stands in the place of the other.
    pub(crate) drops: Vec<Drop>,
}

impl Sealer {
    /// The same batch without the events below class `least`, which it declares dropped for want of
    /// room. `None` when it has none.
    pub(crate) fn thin(
        &mut self,
        sealed: &Sealed,
        least: usize,
    ) -> Result<Option<Thinned>, DecodeError> {
        if sealed.patient || sealed.classes.least().is_none_or(|class| class >= least) {
            return Ok(None);
        }
        let mut batch = self.decoder.decode(&sealed.payload)?;
        let entries = std::mem::take(&mut batch.entries);
        let (kept, lost): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .partition(|entry| class(entry.severity) >= least);
        batch.entries = kept;
        let drops = declare(&lost, DropReason::SpoolFull);
        batch.drops.extend(drops.iter().cloned());
        join_drops(&mut batch);
        let thinned = self.one(batch, sealed);
        Ok(thinned.map(|sealed| Thinned { sealed, drops }))
    }

    /// These were given up.
    pub(crate) fn note_dropped(&mut self, drops: &[Drop]) {
        self.dropped.note(drops);
    }

    /// Two batches of a lane that follow on each other as one, when one of them only declares.
    pub(crate) fn join(
        &mut self,
        first: &Sealed,
        second: &Sealed,
    ) -> Result<Option<Sealed>, DecodeError> {
        let follow = first.epoch == second.epoch && first.last_seq + 1 == second.first_seq;
        let apart = first.patient || second.patient || first.events > 0 && second.events > 0;
        if !follow || apart {
            return Ok(None);
        }
        let mut batch = self.decoder.decode(&first.payload)?;
        let other = self.decoder.decode(&second.payload)?;
        if batch.entries.is_empty() {
            // A declaration has no times that depend on a clock.
            batch.clock = other.clock;
            batch.entries = other.entries;
        }
        batch.drops.extend(other.drops);
        join_drops(&mut batch);
        let joined = self.one(batch, first);
        Ok(joined
            .filter(|joined| joined.payload.len() < first.payload.len() + second.payload.len()))
    }

    /// The payload of a batch that came out of stored ones; `None` when it takes several.
    fn one(&mut self, batch: Batch, like: &Sealed) -> Option<Sealed> {
        let mut out = VecDeque::new();
        self.encode(batch, &Origin::of(like), MAX_PAYLOAD, &mut out);
        let single = out.pop_front().filter(|_| out.is_empty());
        single.map(|sealed| Sealed {
            settles: None,
            ..sealed
        })
    }
}

/// One drop for each severity and reason: a range may then hold seqs of others, its count tells.
fn join_drops(batch: &mut Batch) {
    let mut joined: Vec<Drop> = Vec::new();
    for drop in batch.drops.drain(..) {
        let same = |d: &&mut Drop| d.severity == drop.severity && d.reason == drop.reason;
        match joined.iter_mut().find(same) {
            Some(known) => {
                known.from = known.from.min(drop.from);
                known.to = known.to.max(drop.to);
                known.count += drop.count;
            }
            None => joined.push(drop),
        }
    }
    batch.drops = joined;
}

impl Classes {
    /// These and those.
    pub(crate) fn with(self, other: Classes) -> Classes {
        Classes(self.0 | other.0)
    }

    /// The least grave of them.
    pub(crate) fn least(self) -> Option<usize> {
        (self.0 != 0).then(|| self.0.trailing_zeros() as usize)
    }

    /// The gravest of them.
    pub(crate) fn gravest(self) -> Option<usize> {
        self.0.checked_ilog2().map(|class| class as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use thinglog_schemas::{
        Attributes, Severity,
        batch::{ClockInfo, Decoder, Entry},
    };

    use super::*;

    /// A batch of events from `first_seq` on with these severities.
    fn sealed(first_seq: u64, severities: &[Severity]) -> Sealed {
        let entry = |(n, severity): (usize, &Severity)| Entry {
            seq: first_seq + n as u64,
            time: 0,
            severity: *severity,
            message: format!("event {} of some length", first_seq + n as u64),
            truncated: false,
            attributes: Attributes::new(),
        };
        let batch = Batch {
            epoch: 5,
            first_seq,
            clock: ClockInfo {
                boot: 1,
                sent_mono: 2,
                synced: true,
            },
            drops: Vec::new(),
            entries: severities.iter().enumerate().map(entry).collect(),
        };
        let source: Arc<str> = "app".into();
        let origin = Origin {
            source: &source,
            patient: false,
            marks: &[],
            settles: None,
        };
        let mut out = VecDeque::new();
        Sealer::new().encode(batch, &origin, MAX_PAYLOAD, &mut out);
        out.pop_front().unwrap()
    }

    fn decode(sealed: &Sealed) -> Batch {
        Decoder::new().decode(&sealed.payload).unwrap()
    }

    fn seqs(batch: &Batch) -> Vec<u64> {
        batch.entries.iter().map(|entry| entry.seq).collect()
    }

    const D: Severity = Severity::DEBUG;
    const I: Severity = Severity::INFO;
    const E: Severity = Severity::ERROR;

    #[test]
    fn what_is_thinned_out_is_declared_and_the_rest_keeps_its_ids() {
        let mut sealer = Sealer::new();
        let whole = sealed(10, &[I, E, D, I, I, E]);
        assert_eq!(whole.classes, Classes(0b1011));
        let Thinned {
            sealed: thin,
            drops,
        } = sealer.thin(&whole, 2).unwrap().unwrap();
        let lost: u64 = drops.iter().map(|drop| drop.count).sum();
        assert_eq!((lost, thin.events, thin.classes), (4, 2, Classes(0b1000)));
        assert_eq!((thin.first_seq, thin.last_seq), (10, 15));
        let batch = decode(&thin);
        assert_eq!(seqs(&batch), [11, 15]);
        let drops: Vec<_> = batch
            .drops
            .iter()
            .map(|d| (d.from, d.to, d.count, d.severity))
            .collect();
        assert_eq!(drops, [(10, 14, 3, I), (12, 12, 1, D)]);
        assert_eq!(sealer.thin(&thin, 3).unwrap(), None);
    }

    #[test]
    fn nothing_of_a_source_that_waits_is_thinned_out() {
        let mut whole = sealed(0, &[I, I, I]);
        whole.patient = true;
        assert_eq!(Sealer::new().thin(&whole, 3).unwrap(), None);
    }

    #[test]
    fn declarations_are_put_together_with_what_comes_before_or_after() {
        let mut sealer = Sealer::new();
        let thin = |sealer: &mut Sealer, first, severities: &[Severity]| {
            let whole = sealed(first, severities);
            sealer.thin(&whole, 3).unwrap().unwrap().sealed
        };
        let first = thin(&mut sealer, 0, &[I, D, I]);
        let second = thin(&mut sealer, 3, &[I, I, I]);
        let joined = sealer.join(&first, &second).unwrap().unwrap();
        let batch = decode(&joined);
        assert_eq!(
            (joined.first_seq, joined.last_seq, joined.events),
            (0, 5, 0)
        );
        assert_eq!(batch.drops[0].count + batch.drops[1].count, 6);

        let events = thin(&mut sealer, 6, &[E, I]);
        let joined = sealer.join(&joined, &events).unwrap().unwrap();
        assert_eq!(seqs(&decode(&joined)), [6]);
        assert_eq!((joined.first_seq, joined.last_seq), (0, 7));
        // Events on both sides stay apart, and so does what does not follow.
        assert_eq!(sealer.join(&joined, &sealed(8, &[E])).unwrap(), None);
        assert_eq!(sealer.join(&first, &events).unwrap(), None);
    }
}
