//! What was emitted and promised, against what arrived and what was declared.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
};

use thinglog_schemas::{Severity, batch::Decoder};

use super::receiver::{Name, Receiver, check};
use crate::sealed::Sealed;

struct Emitted {
    life: u64,
    source: &'static str,
    severity: Severity,
}

/// One event on disk at a crash.
struct Promised {
    id: (u64, u64),
    severity: Severity,
    patient: bool,
}

#[derive(Default)]
pub(super) struct Books {
    emitted: Vec<Emitted>,
    /// How much had been emitted when the flush began that is under way.
    flushing: usize,
    flushes: u64,
    promised: Vec<Promised>,
    crashes: u64,
}

impl Books {
    /// A number for a new event.
    pub(super) fn emitted(&mut self, life: u64, source: &'static str, severity: Severity) -> usize {
        self.emitted.push(Emitted {
            life,
            source,
            severity,
        });
        self.emitted.len() - 1
    }

    pub(super) fn flush_begins(&mut self) {
        self.flushing = self.emitted.len();
    }

    /// A flush was true: what was emitted before it in this life is on disk or with the receiver, or
    /// a declaration of it is.
    pub(super) fn flushed(&mut self, life: u64, stored: &[Sealed], receiver: &Receiver) {
        self.flushes += 1;
        let from = self.emitted.partition_point(|emitted| emitted.life < life);
        // Numbers that stand on disk: with an event, or without.
        let mut there: HashSet<Name> = HashSet::new();
        let mut spoken: HashSet<(u64, u64)> = HashSet::new();
        let mut declared = 0;
        for sealed in stored {
            let batch = Decoder::new().decode(&sealed.payload).unwrap();
            let to = check(&batch);
            spoken.extend((batch.first_seq..=to).map(|seq| (batch.epoch, seq)));
            let names = batch.entries.iter().map(|entry| Name::of(&entry.message));
            there.extend(names);
            declared += batch.drops.iter().map(|drop| drop.count).sum::<u64>();
        }
        let numbers = from..self.flushing;
        let missing = numbers
            .map(Name::Event)
            .filter(|name| !there.contains(name) && !receiver.ids.contains_key(name))
            .count();
        let declared = declared as usize + receiver.unfilled(from, &spoken);
        assert!(
            missing <= declared,
            "{missing} of {} events are neither durable nor declared ({declared}) after a flush",
            self.flushing
        );
    }

    /// The process is gone; this was on disk.
    pub(super) fn crashed(&mut self, stored: &[Sealed]) {
        self.crashes += 1;
        for sealed in stored {
            let batch = Decoder::new().decode(&sealed.payload).unwrap();
            self.promised
                .extend(batch.entries.iter().map(|entry| Promised {
                    id: (batch.epoch, entry.seq),
                    severity: entry.severity,
                    patient: sealed.patient,
                }));
        }
    }

    /// Everything has arrived that ever will.
    pub(super) fn close(&self, life: u64, lines: u64, receiver: &Receiver) -> String {
        self.check_promised(receiver);
        let file = (0..lines).filter(|line| line % 17 != 3);
        let lost: Vec<u64> = file
            .filter(|line| !receiver.ids.contains_key(&Name::Line(*line)))
            .collect();
        assert!(lost.is_empty(), "lines of the file are missing: {lost:?}");
        let balance = self.balance(life, receiver);
        let mut report = format!(
            "{} events in {} lives, {} flushes, {lines} lines;",
            self.emitted.len(),
            self.crashes + 1,
            self.flushes
        );
        for (severity, (emitted, arrived, declared)) in balance {
            let _ = write!(
                report,
                " {severity:?}: {emitted} emitted, {arrived} arrived, {declared} declared;"
            );
        }
        report
    }

    /// What was on disk at a crash arrived; or was given up later, which is declared and never
    /// happens to an ERROR or to a source that waits.
    fn check_promised(&self, receiver: &Receiver) {
        for promised in &self.promised {
            if receiver.has(promised.id) {
                continue;
            }
            let grave = promised.severity >= Severity::ERROR;
            assert!(
                !promised.patient && !grave,
                "{:?} {:?} was on disk and is lost",
                promised.id,
                promised.severity
            );
            assert!(
                receiver.was_dropped(promised.id),
                "{:?} was on disk and is not declared dropped",
                promised.id
            );
        }
    }

    /// For each severity: what was emitted is what arrived and what is declared, exactly in the last
    /// life; in an earlier one something that was not durable may have ended with it.
    fn balance(&self, last: u64, receiver: &Receiver) -> BTreeMap<Severity, (i64, i64, i64)> {
        let mut lanes: HashMap<(u64, &str), u64> = HashMap::new();
        for (epoch, lane) in &receiver.lanes {
            if let Some(Name::Event(number)) = lane.sample {
                let emitted = &self.emitted[number];
                lanes.insert((emitted.life, emitted.source), *epoch);
            }
        }
        let mut books: BTreeMap<(u64, &str, Severity), (i64, i64)> = BTreeMap::new();
        for (number, emitted) in self.emitted.iter().enumerate() {
            let key = (emitted.life, emitted.source, emitted.severity);
            let sums = books.entry(key).or_default();
            sums.0 += 1;
            sums.1 += i64::from(receiver.ids.contains_key(&Name::Event(number)));
        }
        let mut totals: BTreeMap<Severity, (i64, i64, i64)> = BTreeMap::new();
        for ((life, source, severity), (emitted, arrived)) in books {
            let epoch = lanes.get(&(life, source));
            let declared = epoch.map(|epoch| receiver.declared(*epoch));
            let declared = declared.and_then(|declared| declared.get(&severity).copied());
            let declared = declared.unwrap_or(0);
            let repeated = epoch.map_or(0, |epoch| receiver.repeated(*epoch));
            let what = format!(
                "{severity:?} of {source} in life {life}: {emitted} emitted, {arrived} arrived, \
                 {declared} declared, {repeated} repeated"
            );
            assert!(arrived + declared <= emitted + repeated, "{what}");
            assert!(life < last || arrived + declared >= emitted, "{what}");
            let total = totals.entry(severity).or_default();
            total.0 += emitted;
            total.1 += arrived;
            total.2 += declared;
        }
        totals
    }
}
