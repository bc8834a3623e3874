//! The pure parts together, from queue to window, against a connection that does its worst: what a
//! receiver sees is checked, not what the parts think of themselves.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use proptest::prelude::*;
use thinglog_schemas::{
    Level, Severity,
    batch::{ClockInfo, Decoder, MAX_PAYLOAD},
};

use crate::{
    levels::Levels,
    queue::{FlushTarget, Pushed, Queue, QueueOptions},
    record::Record,
    sealed::Sealer,
    window::Window,
};

const MEMORY: usize = 32 << 10;
const CLOCK: ClockInfo = ClockInfo {
    boot: 1,
    sent_mono: 0,
    synced: true,
};

#[derive(Clone, Debug)]
enum Step {
    Emit {
        source: u8,
        severity: u8,
        bytes: usize,
    },
    EmitWaiting {
        bytes: usize,
    },
    Flush,
    Send(usize),
    /// The broker stores the nth packet on the wire; its acknowledgement may get lost with the
    /// connection.
    Store {
        nth: usize,
        acknowledged: bool,
    },
    Refuse(usize),
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0u8..3, 0u8..4, 0usize..2000)
            .prop_map(|(source, severity, bytes)| Step::Emit { source, severity, bytes }),
        3 => (0usize..2000).prop_map(|bytes| Step::EmitWaiting { bytes }),
        2 => Just(Step::Flush),
        6 => (1usize..4).prop_map(Step::Send),
        5 => (0usize..4, any::<bool>())
            .prop_map(|(nth, acknowledged)| Step::Store { nth, acknowledged }),
        1 => (0usize..4).prop_map(Step::Refuse),
        1 => Just(Step::Reconnect),
    ]
}

fn severity(class: u8) -> Severity {
    [
        Severity::DEBUG,
        Severity::INFO,
        Severity::WARN,
        Severity::ERROR,
    ][usize::from(class % 4)]
}

struct Model {
    queue: Queue,
    sealer: Sealer,
    window: Window,
    next_pkid: u16,
    wire: Vec<(u16, Bytes)>,
    /// What the broker stored, repetitions included.
    stored: Vec<Bytes>,
    emitted: u64,
    flushes: Vec<(FlushTarget, u64)>,
}

impl Model {
    fn new() -> Model {
        let options = QueueOptions {
            memory_bytes: MEMORY,
            batch_events: 8,
            batch_bytes: 4 << 10,
            flush_age: Duration::ZERO,
        };
        Model {
            queue: Queue::new(options, Levels::new(Level::Debug), 99),
            sealer: Sealer::new(),
            window: Window::new(4, MEMORY / 4),
            next_pkid: 1,
            wire: Vec::new(),
            stored: Vec::new(),
            emitted: 0,
            flushes: Vec::new(),
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Emit {
                source,
                severity: class,
                bytes,
            } => {
                let record = Record::new(format!("s{source}"), severity(class), self.text(bytes));
                self.queue.push(record);
                self.emitted += 1;
            }
            Step::EmitWaiting { bytes } => {
                let record = Record::new("file", Severity::DEBUG, self.text(bytes));
                if !matches!(self.queue.push_patient(record), Pushed::Full(_)) {
                    self.emitted += 1;
                }
            }
            Step::Flush => {
                let target = self.queue.start_flush();
                self.flushes.push((target, self.emitted));
            }
            Step::Send(count) => (0..count).for_each(|_| self.send()),
            Step::Store { nth, acknowledged } if nth < self.wire.len() => {
                let (pkid, payload) = self.wire.remove(nth);
                self.stored.push(payload);
                if acknowledged {
                    assert!(self.window.acknowledged(pkid));
                }
            }
            Step::Refuse(nth) if nth < self.wire.len() => {
                let (pkid, _) = self.wire.remove(nth);
                assert!(self.window.refused(pkid).is_some());
            }
            Step::Reconnect => {
                self.wire.clear();
                self.window.reset();
            }
            _ => {}
        }
        self.move_on();
    }

    /// Each message says which event it is, so that ids can be checked against it.
    fn text(&self, bytes: usize) -> String {
        format!("{} {}", self.emitted, "x".repeat(bytes))
    }

    fn send(&mut self) {
        if let Some(sealed) = self.window.next_waiting(4) {
            self.wire.push((self.next_pkid, sealed.payload.clone()));
            self.window.handed();
            self.window.assigned(self.next_pkid);
            self.next_pkid += 1;
        }
    }

    /// What the worker does in every pass.
    fn move_on(&mut self) {
        while let Some(slot) = self.window.pop_done() {
            if let Some((lane, through)) = slot.sealed.settles {
                self.queue.settle(lane, through);
            }
        }
        let mut staged = VecDeque::new();
        while self.window.has_room()
            && let Some(cut) = self.queue.cut(None, CLOCK)
        {
            self.sealer.seal(cut, MAX_PAYLOAD, &mut staged);
            for sealed in staged.drain(..) {
                self.window.push(sealed, None);
            }
        }
        self.queue.set_outside(self.window.depth().1);
        let stored = receive(&self.stored);
        self.flushes.retain_mut(|(target, emitted)| {
            let Some(durable) = self.queue.poll_flush(target) else {
                return true;
            };
            // Whatever was emitted before is stored, unless dropping it was admitted.
            let missing = (0..*emitted).any(|number| !stored.messages.contains_key(&number));
            assert!(!durable || !missing || stored.dropped > 0);
            false
        });
    }

    /// A broker that is patience itself.
    fn drain(&mut self) {
        self.apply(Step::Reconnect);
        self.apply(Step::Flush);
        while !self.window.is_empty() || self.queue.depth().0 > 0 {
            self.apply(Step::Send(4));
            while !self.wire.is_empty() {
                self.apply(Step::Store {
                    nth: 0,
                    acknowledged: true,
                });
            }
        }
    }
}

/// What one who reads the broker's log makes of it.
#[derive(Default)]
struct Receiver {
    /// Event number to id.
    messages: HashMap<u64, (u64, u64)>,
    dropped: u64,
}

fn receive(stored: &[Bytes]) -> Receiver {
    let mut receiver = Receiver::default();
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    let mut seen = std::collections::HashSet::new();
    let mut decoder = Decoder::new();
    for payload in stored {
        if !seen.insert(payload) {
            continue;
        }
        let batch = decoder.decode(payload).unwrap();
        let next = next.entry(batch.epoch).or_default();
        let mut expected = batch.first_seq;
        for drop in &batch.drops {
            assert_eq!(drop.from, expected);
            expected = drop.to + 1;
            receiver.dropped += drop.count;
        }
        for entry in &batch.entries {
            assert_eq!(entry.seq, expected);
            expected += 1;
            let number = entry.message.split(' ').next().unwrap().parse().unwrap();
            let id = (batch.epoch, entry.seq);
            assert_eq!(
                receiver.messages.insert(number, id),
                None,
                "an event with two ids"
            );
        }
        *next = (*next).max(expected);
    }
    receiver
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the connection does: in the end every emitted event is stored under one id or
    /// declared dropped, exactly; memory stays below its cap; a flush that said so was right.
    #[test]
    fn nothing_is_lost_that_was_not_declared(
        steps in proptest::collection::vec(step(), 1..250)
    ) {
        let mut model = Model::new();
        for step in steps {
            model.apply(step);
            let held = model.queue.depth().1 + model.window.depth().1;
            prop_assert!(held <= MEMORY + MEMORY / 8, "{held} bytes");
        }
        model.drain();
        let receiver = receive(&model.stored);
        prop_assert_eq!(receiver.messages.len() as u64 + receiver.dropped, model.emitted);
        prop_assert_eq!(receiver.dropped, model.queue.counters().dropped);
        prop_assert!(model.flushes.is_empty());
    }
}
