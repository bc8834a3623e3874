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
    /// An event that it had.
    pub(super) sample: Option<Name>,
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
    pub(super) ids: HashMap<Name, (u64, u64)>,
    /// Sent without ever having been on disk, because the disk took nothing: with the process their
    /// place may be forgotten.
    around: HashSet<Name>,
}

/// What an event says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Event(usize),
    Line(u64),
}

impl Name {
    pub(super) fn of(message: &str) -> Name {
        let mut words = message.split(' ');
        match words.next().unwrap() {
            "line" => Name::Line(words.next().unwrap().parse().unwrap()),
            number => Name::Event(number.parse().unwrap()),
        }
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
            let name = Name::of(&entry.message);
            let other = self.ids.insert(name, id);
            assert!(
                other.is_none_or(|other| other == id) || self.around.contains(&name),
                "{name:?} came as {other:?} and {id:?}"
            );
        }
        let lane = self.lanes.entry(batch.epoch).or_default();
        let first = batch.entries.first();
        lane.sample = lane.sample.or(first.map(|entry| Name::of(&entry.message)));
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

    /// How many numbers of the lanes of events from `from` on were declared and never filled, but for
    /// those in `others`.
    pub(super) fn unfilled(&self, from: usize, others: &HashSet<(u64, u64)>) -> usize {
        let of_life = |lane: &Lane| match lane.sample {
            Some(Name::Event(number)) => number >= from,
            Some(Name::Line(_)) => false,
            None => true,
        };
        let lanes = self.lanes.iter().filter(|(_, lane)| of_life(lane));
        let numbers = lanes.flat_map(|(epoch, lane)| (0..lane.next).map(move |seq| (*epoch, seq)));
        numbers
            .filter(|id| !self.events.contains_key(id) && !others.contains(id))
            .count()
    }

    pub(super) fn went_around(&mut self, payload: &[u8]) {
        let batch = Decoder::new().decode(payload).unwrap();
        let names = batch.entries.iter().map(|entry| Name::of(&entry.message));
        self.around.extend(names);
    }

    /// Whether an id was declared dropped for want of room.
    pub(super) fn was_dropped(&self, (epoch, seq): (u64, u64)) -> bool {
        let lane = self.lanes.get(&epoch);
        let spoken = lane.and_then(|lane| lane.batches.range(..=seq).next_back());
        spoken.is_some_and(|(_, spoken)| seq <= spoken.to && !spoken.is_unreadable())
    }

    pub(super) fn has(&self, id: (u64, u64)) -> bool {
        self.events.contains_key(&id)
    }

    /// What is declared dropped in a lane by those who spoke last for each number, by severity,
    /// without what arrived all the same.
    pub(super) fn declared(&self, epoch: u64) -> BTreeMap<Severity, i64> {
        let mut declared = BTreeMap::new();
        let batches = self.lanes.get(&epoch).map(|lane| &lane.batches);
        for (from, spoken) in batches.into_iter().flatten() {
            if spoken.is_unreadable() {
                continue;
            }
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

    /// Numbers of a lane that several of its last batches speak for: after a write that failed in
    /// part a batch may be on disk twice, and only one of them be joined with others.
    pub(super) fn repeated(&self, epoch: u64) -> i64 {
        let batches = self.lanes.get(&epoch).map(|lane| &lane.batches);
        let (mut next, mut repeated) = (0, 0);
        for (from, spoken) in batches.into_iter().flatten() {
            repeated += next.min(spoken.to + 1).saturating_sub(*from) as i64;
            next = next.max(spoken.to + 1);
        }
        repeated
    }
}

impl Spoken {
    /// A declaration of what a torn write took with it.
    fn is_unreadable(&self) -> bool {
        let mut drops = self.drops.iter();
        drops.any(|(_, reason, _)| *reason == DropReason::Unreadable)
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
    let mut events = batch.entries.iter().map(|entry| entry.seq).peekable();
    for seq in batch.first_seq..=to {
        let mut drops = batch.drops.iter();
        let declared = drops.any(|drop| (drop.from..=drop.to).contains(&seq));
        let stands = events.next_if_eq(&seq).is_some();
        assert!(stands || declared, "nobody speaks for {seq}");
    }
    to
}
