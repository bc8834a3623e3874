//! What was emitted and promised, against what arrived and what was declared.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
};

use thinglog_schemas::{Severity, batch::Decoder};

use super::receiver::{Receiver, check, name};
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
        let mut there: HashSet<String> = receiver.ids.keys().cloned().collect();
        // Numbers of this life's lanes that no event stands for, on disk and with the receiver.
        let mut spoken: HashSet<(u64, u64)> = HashSet::new();
        let mut events: HashSet<(u64, u64)> = HashSet::new();
        for sealed in stored {
            let batch = Decoder::new().decode(&sealed.payload).unwrap();
            spoken.extend((batch.first_seq..=check(&batch)).map(|seq| (batch.epoch, seq)));
            for entry in &batch.entries {
                there.insert(name(&entry.message));
                events.insert((batch.epoch, entry.seq));
            }
        }
        let missing: Vec<usize> = (0..self.flushing)
            .filter(|number| self.emitted[*number].life == life)
            .filter(|number| !there.contains(&number.to_string()))
            .collect();
        let mut declared = spoken
            .difference(&events)
            .filter(|id| !receiver.has(**id))
            .count();
        declared += receiver.unfilled(&spoken);
        assert!(
            missing.len() <= declared,
            "{} of {} events are neither durable nor declared ({declared}) after a flush",
            missing.len(),
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
            .filter(|line| !receiver.ids.contains_key(&format!("line {line}")))
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
                receiver.speaks_for(promised.id),
                "{:?} was on disk and nobody speaks for it",
                promised.id
            );
        }
    }

    /// For each severity: what was emitted is what arrived and what is declared, exactly in the last
    /// life; in an earlier one something that was not durable may have ended with it.
    fn balance(&self, last: u64, receiver: &Receiver) -> BTreeMap<Severity, (i64, i64, i64)> {
        let mut lanes: HashMap<(u64, &str), u64> = HashMap::new();
        for ((epoch, _), (message, _)) in &receiver.events {
            if let Ok(number) = name(message).parse::<usize>() {
                let emitted = &self.emitted[number];
                lanes.insert((emitted.life, emitted.source), *epoch);
            }
        }
        let mut totals: BTreeMap<Severity, (i64, i64, i64)> = BTreeMap::new();
        for life in 0..=last {
            for source in ["app", "net", "kern"] {
                let mut sums: BTreeMap<Severity, (i64, i64)> = BTreeMap::new();
                for (number, emitted) in self.emitted.iter().enumerate() {
                    if emitted.life == life && emitted.source == source {
                        let sums = sums.entry(emitted.severity).or_default();
                        sums.0 += 1;
                        sums.1 += i64::from(receiver.ids.contains_key(&number.to_string()));
                    }
                }
                let epoch = lanes.get(&(life, source));
                let declared = epoch.map(|epoch| receiver.declared(*epoch));
                let declared = declared.unwrap_or_default();
                for (severity, (emitted, arrived)) in sums {
                    let declared = declared.get(&severity).copied().unwrap_or(0);
                    let what = format!(
                        "{severity:?} of {source} in life {life}: {emitted} emitted, {arrived} \
                         arrived, {declared} declared"
                    );
                    assert!(arrived + declared <= emitted, "{what}");
                    assert!(life < last || arrived + declared == emitted, "{what}");
                    let total = totals.entry(severity).or_default();
                    total.0 += emitted;
                    total.1 += arrived;
                    total.2 += declared;
                }
            }
        }
        totals
    }
}
