//! One lane: the events of one source that wait to be sealed into a batch.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use thinglog_schemas::{
    Level, Severity,
    batch::{Batch, ClockInfo, Drop, DropReason, Entry},
    hash,
};

use super::Carried;
use crate::marks::Mark;

/// Severity classes in the order in which they are given up: DEBUG, INFO, WARN, ERROR.
pub(crate) const CLASSES: usize = 4;

/// About what the places of a batch's marks may take, bytes (one more is always taken).
pub(crate) const MARK_BYTES: usize = 16 << 10;

/// Where a severity stands in that order.
pub(crate) fn class(severity: Severity) -> usize {
    match severity.level() {
        Level::Error => 3,
        Level::Warn => 2,
        Level::Info => 1,
        Level::Debug | Level::Disabled => 0,
    }
}

/// Tells names apart, nearly always.
pub(crate) fn name_hash(name: &str) -> u32 {
    hash::fnv1a(name.as_bytes()) as u32
}

/// What makes a lane due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing to send.
    Idle,
    /// Got its first event since it was idle; the clock has not been looked at yet.
    Fresh,
    /// Waits for its age since then.
    Aging(Instant),
    /// To be sealed as soon as there is somewhere to put the batch.
    Due,
}

/// Events that were given up before they got a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Loss {
    severity: Severity,
    reason: DropReason,
    count: u64,
}

/// A queued event; `entry.seq` holds its arrival in the lane until sealing numbers it.
#[derive(Debug)]
struct Queued {
    entry: Entry<Carried>,
    cost: usize,
    /// The entry's time counts from the boot.
    monotonic: bool,
    mark: Option<Mark>,
}

/// What sealing made of the oldest events of a lane.
pub(super) struct Sealing {
    pub(super) batch: Batch<Carried>,
    /// Where the source stood after an event, with the event's seq, in order.
    pub(super) marks: Vec<(u64, Mark)>,
    /// What the events had cost in memory, bytes.
    pub(super) cost: usize,
    /// The arrivals it accounts for.
    pub(super) through: u64,
    /// Events given up although a flush waits for them.
    pub(super) awaited: u64,
}

/// The marks of a batch that is being made, with the index of their event.
#[derive(Default)]
struct BatchMarks {
    list: Vec<(usize, Mark)>,
    /// What the last mark of each key takes, and all of them together.
    last: HashMap<u64, usize>,
    bytes: usize,
}

impl BatchMarks {
    fn extend(&mut self, mark: Option<Mark>, at: usize) {
        let Some(mark) = mark else { return };
        let before = self.last.insert(mark.key, mark.cost()).unwrap_or(0);
        self.bytes = self.bytes - before + mark.cost();
        self.list.push((at, mark));
    }
}

#[derive(Debug)]
pub(super) struct Lane {
    /// The source as the application names it, and as it stands in a topic.
    pub(super) name: Arc<str>,
    pub(super) source: Arc<str>,
    pub(super) name_hash: u32,
    pub(super) epoch: u64,
    pub(super) level: Level,
    pub(super) state: State,
    /// Fed by a source that waits for room: nothing of it is ever given up.
    pub(super) patient: bool,
    next_seq: u64,
    /// Arrivals so far; everything below `sealed` has left in a batch, everything below `settled` is
    /// durable (or declared lost).
    arrivals: u64,
    sealed: u64,
    settled: u64,
    /// Arrivals a flush waits for.
    marked: u64,
    classes: [VecDeque<Queued>; CLASSES],
    class_bytes: [usize; CLASSES],
    events: usize,
    /// Severity and reason bound its length.
    losses: Vec<Loss>,
}

impl Lane {
    pub(super) fn new(name: Arc<str>, source: Arc<str>, epoch: u64, level: Level) -> Lane {
        Lane {
            name_hash: name_hash(&name),
            name,
            source,
            epoch,
            level,
            state: State::Idle,
            patient: false,
            next_seq: 0,
            arrivals: 0,
            sealed: 0,
            settled: 0,
            marked: 0,
            classes: Default::default(),
            class_bytes: [0; CLASSES],
            events: 0,
            losses: Vec::new(),
        }
    }

    pub(super) fn events(&self) -> usize {
        self.events
    }

    pub(super) fn bytes(&self) -> usize {
        self.class_bytes.iter().sum()
    }

    pub(super) fn class_bytes(&self, class: usize) -> usize {
        self.class_bytes[class]
    }

    /// The gravest class there is.
    pub(super) fn gravest(&self) -> Option<usize> {
        (0..CLASSES)
            .rev()
            .find(|class| !self.classes[*class].is_empty())
    }

    /// Nothing queued, nothing to declare.
    pub(super) fn is_empty(&self) -> bool {
        self.events == 0 && self.losses.is_empty()
    }

    /// Nothing anywhere: the lane may be forgotten.
    pub(super) fn is_settled(&self) -> bool {
        self.is_empty() && self.state == State::Idle && self.settled >= self.arrivals
    }

    pub(super) fn arrivals(&self) -> u64 {
        self.arrivals
    }

    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// Everything below `through` is durable. When nothing is left here and nothing is out, what
    /// was purged is accounted for too.
    pub(super) fn settle(&mut self, through: u64) {
        self.settled = self.settled.max(through);
        if self.is_empty() && self.settled >= self.sealed {
            self.settled = self.arrivals;
        }
    }

    /// A flush waits for everything that is here now.
    pub(super) fn mark(&mut self) -> u64 {
        self.marked = self.arrivals;
        self.marked
    }

    pub(super) fn push(
        &mut self,
        mut entry: Entry<Carried>,
        cost: usize,
        mark: Option<Mark>,
        monotonic: bool,
    ) {
        let class = class(entry.severity);
        entry.seq = self.arrivals;
        self.arrivals += 1;
        self.events += 1;
        self.class_bytes[class] += cost;
        self.classes[class].push_back(Queued {
            entry,
            cost,
            monotonic,
            mark,
        });
    }

    /// Events that came and do not go on.
    pub(super) fn turn_away(&mut self, severity: Severity, reason: DropReason, count: u64) {
        self.arrivals += count;
        self.lose(severity, reason, count);
    }

    /// Gives up the oldest event of a class. Returns it, its cost and whether a flush waits for it.
    pub(super) fn give_up(&mut self, class: usize) -> Option<(Entry<Carried>, usize, bool)> {
        let Queued { entry, cost, .. } = self.classes[class].pop_front()?;
        self.events -= 1;
        self.class_bytes[class] -= cost;
        self.lose(entry.severity, DropReason::SpoolFull, 1);
        let awaited = entry.seq < self.marked;
        Some((entry, cost, awaited))
    }

    /// Forgets queued events that the level does not let pass: as if they had never been emitted.
    /// Returns how many went and what they cost.
    pub(super) fn purge(&mut self) -> (u64, usize) {
        let level = self.level;
        let (mut count, mut freed) = (0, 0);
        for (queue, bytes) in self.classes.iter_mut().zip(&mut self.class_bytes) {
            queue.retain(|queued| {
                let keep = level.passes(queued.entry.severity);
                if !keep {
                    count += 1;
                    freed += queued.cost;
                    *bytes -= queued.cost;
                }
                keep
            });
        }
        self.events -= count as usize;
        self.settle(self.settled);
        (count, freed)
    }

    pub(super) fn lose(&mut self, severity: Severity, reason: DropReason, count: u64) {
        let same = |loss: &&mut Loss| loss.severity == severity && loss.reason == reason;
        match self.losses.iter_mut().find(same) {
            Some(loss) => loss.count += count,
            None => self.losses.push(Loss {
                severity,
                reason,
                count,
            }),
        }
    }

    /// Takes the oldest events, at most `max_events` and about `max_bytes` (always one), numbers
    /// them, and declares what was given up. With `least`, whatever is below that class is given up
    /// instead of sent. Times of one batch are of one kind: it ends where the other begins.
    pub(super) fn seal(
        &mut self,
        max_events: usize,
        max_bytes: usize,
        least: usize,
        clock: ClockInfo,
    ) -> Sealing {
        let (mut cost, mut awaited, mut monotonic) = (0, 0, false);
        let mut entries: Vec<Entry<Carried>> = Vec::with_capacity(self.events.min(max_events));
        let mut marks = BatchMarks::default();
        while entries.len() < max_events
            && (cost < max_bytes || entries.is_empty())
            && marks.bytes < MARK_BYTES
        {
            let Some(class) = self.oldest() else { break };
            let kind = self.classes[class].front().is_some_and(|q| q.monotonic);
            if !entries.is_empty() && kind != monotonic {
                break;
            }
            let Some(queued) = self.classes[class].pop_front() else {
                break;
            };
            self.events -= 1;
            self.class_bytes[class] -= queued.cost;
            cost += queued.cost;
            if class < least {
                awaited += u64::from(queued.entry.seq < self.marked);
                self.lose(queued.entry.severity, DropReason::SpoolFull, 1);
            } else {
                monotonic = kind;
                marks.extend(queued.mark, entries.len());
                entries.push(queued.entry);
            }
        }
        let through = self.oldest().map_or(self.arrivals, |class| {
            self.classes[class].front().map_or(0, |q| q.entry.seq)
        });
        self.sealed = through;
        self.give_back_memory();
        let first_seq = self.next_seq;
        let drops = self.declare();
        for entry in &mut entries {
            entry.seq = self.next_seq;
            self.next_seq += 1;
        }
        let seq = |(at, mark): (usize, Mark)| Some((entries.get(at)?.seq, mark));
        let marks = marks.list.into_iter().filter_map(seq).collect();
        let batch = Batch {
            epoch: self.epoch,
            first_seq,
            clock: ClockInfo {
                // Means nothing where times are the system clock's.
                sent_mono: if monotonic { clock.sent_mono } else { 0 },
                synced: !monotonic,
                ..clock
            },
            drops,
            entries,
        };
        Sealing {
            batch,
            marks,
            cost,
            through,
            awaited,
        }
    }

    /// The class whose front arrived first.
    fn oldest(&self) -> Option<usize> {
        let fronts = self.classes.iter().enumerate();
        fronts
            .filter_map(|(class, queue)| queue.front().map(|q| (q.entry.seq, class)))
            .min()
            .map(|(_, class)| class)
    }

    /// Numbers what was given up, one range for each severity and reason.
    fn declare(&mut self) -> Vec<Drop> {
        let mut drops = Vec::with_capacity(self.losses.len());
        for loss in self.losses.drain(..) {
            drops.push(Drop {
                from: self.next_seq,
                to: self.next_seq + loss.count - 1,
                count: loss.count,
                severity: loss.severity,
                reason: loss.reason,
            });
            self.next_seq += loss.count;
        }
        drops
    }

    /// A burst must not keep its memory for ever.
    fn give_back_memory(&mut self) {
        const KEEP: usize = 4096;
        for queue in &mut self.classes {
            if queue.capacity() > KEEP && queue.len() < queue.capacity() / 8 {
                queue.shrink_to(KEEP);
            }
        }
    }
}
