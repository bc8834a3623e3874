//! Who reads the broker's log, and what can be known from it alone.

use std::collections::{BTreeMap, HashMap, HashSet};

use thinglog_schemas::{
    Severity,
    batch::{Batch, Decoder, DropReason},
};

/// A lane as it arrived.
#[derive(Default)]
pub(super) struct Lane {
    /// The next seq nobody has spoken for.
    next: u64,
    /// The last batch that began there, and where it ends: a later one says what an earlier one did,
    /// or what became of it since.
    batches: BTreeMap<u64, Spoken>,
}

struct Spoken {
    to: u64,
    drops: Vec<(Severity, DropReason, u64)>,
    events: Vec<u64>,
}

#[derive(Default)]
pub(super) struct Receiver {
    pub(super) lanes: HashMap<u64, Lane>,
    /// Text and severity by id.
    pub(super) events: HashMap<(u64, u64), (String, Severity)>,
    /// Ids by what the event says of itself.
    pub(super) ids: HashMap<String, (u64, u64)>,
}

/// What an event says of itself: its number, or its line.
pub(super) fn name(message: &str) -> String {
    let mut words = message.split(' ');
    match words.next() {
        Some("line") => format!("line {}", words.next().unwrap()),
        Some(number) => number.to_owned(),
        None => String::new(),
    }
}

impl Receiver {
    pub(super) fn store(&mut self, payload: &[u8]) {
        let batch = Decoder::new().decode(payload).unwrap();
        let to = check(&batch);
        for entry in &batch.entries {
            let id = (batch.epoch, entry.seq);
            let event = (entry.message.clone(), entry.severity);
            let known = self.events.insert(id, event.clone());
            assert!(
                known.is_none_or(|known| known == event),
                "an id with two meanings"
            );
            let other = self.ids.insert(name(&entry.message), id);
            assert!(
                other.is_none_or(|other| other == id),
                "{:?} came as {other:?} and {id:?}",
                name(&entry.message)
            );
        }
        let lane = self.lanes.entry(batch.epoch).or_default();
        assert!(
            batch.first_seq <= lane.next,
            "a hole from {} to {} that nobody declared",
            lane.next,
            batch.first_seq
        );
        // New numbers come in order; what is repeated was there before.
        lane.next = lane.next.max(to + 1);
        let within: Vec<u64> = lane
            .batches
            .range(batch.first_seq..=to)
            .map(|(k, _)| *k)
            .collect();
        for from in within {
            lane.batches.remove(&from);
        }
        let spoken = Spoken {
            to,
            drops: batch
                .drops
                .iter()
                .map(|d| (d.severity, d.reason, d.count))
                .collect(),
            events: batch.entries.iter().map(|entry| entry.seq).collect(),
        };
        lane.batches.insert(batch.first_seq, spoken);
    }

    /// How many numbers of the lanes in `of` were declared to it and never filled.
    pub(super) fn unfilled(&self, of: &HashSet<(u64, u64)>) -> usize {
        let spoken = |(epoch, lane): (&u64, &Lane)| {
            let epoch = *epoch;
            let missing = (0..lane.next).filter(move |seq| {
                !self.events.contains_key(&(epoch, *seq)) && !of.contains(&(epoch, *seq))
            });
            missing.count()
        };
        self.lanes.iter().map(spoken).sum()
    }

    /// Whether an event or a declaration stands for an id.
    pub(super) fn speaks_for(&self, (epoch, seq): (u64, u64)) -> bool {
        self.lanes.get(&epoch).is_some_and(|lane| seq < lane.next)
    }

    pub(super) fn has(&self, id: (u64, u64)) -> bool {
        self.events.contains_key(&id)
    }

    /// What is declared lost in a lane by those who spoke last for each number, by severity, without
    /// what arrived all the same.
    pub(super) fn declared(&self, epoch: u64) -> BTreeMap<Severity, i64> {
        let mut declared = BTreeMap::new();
        for (from, spoken) in self
            .lanes
            .get(&epoch)
            .map(|l| &l.batches)
            .into_iter()
            .flatten()
        {
            for (severity, reason, count) in &spoken.drops {
                assert_eq!(*reason, DropReason::SpoolFull);
                *declared.entry(*severity).or_default() += *count as i64;
            }
            for seq in (*from..=spoken.to).filter(|seq| !spoken.events.contains(seq)) {
                if let Some((_, severity)) = self.events.get(&(epoch, seq)) {
                    *declared.entry(*severity).or_default() -= 1;
                }
            }
        }
        declared
    }
}

/// A batch speaks for every number of its range, once: with an event or in a drop that counts it.
/// Returns the last one.
pub(super) fn check(batch: &Batch) -> u64 {
    let drops = batch.drops.iter().map(|drop| drop.to);
    let to = drops
        .chain(batch.entries.last().map(|e| e.seq))
        .max()
        .unwrap();
    let whole = to - batch.first_seq + 1;
    let dropped: u64 = batch.drops.iter().map(|drop| drop.count).sum();
    assert_eq!(dropped + batch.entries.len() as u64, whole, "{batch:?}");
    for seq in batch.first_seq..=to {
        let event = batch.entries.iter().any(|entry| entry.seq == seq);
        let drop = batch
            .drops
            .iter()
            .any(|drop| (drop.from..=drop.to).contains(&seq));
        assert!(event || drop, "nobody speaks for {seq}");
    }
    to
}
