//! What was read, on its way to the sink: each file at its own rate. One that is above it is held, and
//! not read any further meanwhile; the others go on. What is held is one small block of each file.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use thinglog_schemas::Severity;
use tokio_util::sync::CancellationToken;

use super::{
    OWN,
    position::{self, Position},
    set::{BLOCK, Pace},
    taken::Batch,
};
use crate::{
    Record,
    agent::{
        sink::{LOOK_AGAIN, Odd, Paced, Sink},
        units::Rate,
    },
    clock,
};

/// Bytes of a file that are read at a time where there is a rate to wait for; and when that much of
/// them is held already.
const PACED: usize = 4 << 10;
const MANY: usize = 256;
const PACED_OF_MANY: usize = 512;
/// Who waits for the rate comes again after so long, where the burst allows: for several at once.
const TOGETHER: Duration = Duration::from_millis(50);

/// Records that are handed on under one lock, at most: as long as it is held no batch is cut.
const RUN: usize = 256;

/// What waits.
pub(super) struct Outgoing {
    queue: VecDeque<Batch>,
    held: HashMap<u64, (Batch, Instant)>,
    /// The device's rate, for what is being read.
    rate: Option<Rate>,
    slack: Option<Duration>,
    /// The places go with the records.
    marking: bool,
}

/// Why a run ended early.
enum RunEnd {
    /// Something has to wait or goes no further, with the place behind it.
    Odd(Odd, Vec<u8>),
    /// The publisher has.
    Ended,
}

/// How far a batch came.
enum Given {
    All,
    Held(Duration),
    Stopped,
}

impl Outgoing {
    pub(super) fn new(sink: &Sink, marking: bool) -> Outgoing {
        Outgoing {
            queue: VecDeque::new(),
            held: HashMap::new(),
            rate: None,
            slack: sink.slack(None),
            marking,
        }
    }

    /// Goes by the rate that the device has now. What is on its way is judged by the rate that held
    /// when it was read: without one nobody could tell where it stands.
    pub(super) fn look(&mut self, sink: &Sink) {
        self.rate = sink.publisher().rate();
        self.slack = sink.slack(self.rate);
    }

    /// Whether records need to know their places, be it to travel with them or to wait.
    pub(super) fn needs_places(&self) -> bool {
        self.marking || self.slack.is_some()
    }

    pub(super) fn add(&mut self, batches: impl Iterator<Item = Batch>) {
        self.queue.extend(batches);
    }

    /// Everything has left.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.held.is_empty()
    }

    /// Whether something of this key waits for its rate.
    pub(super) fn holds(&self, key: u64) -> bool {
        self.held.contains_key(&key)
    }

    /// What may be read now.
    pub(super) fn pace(&self) -> Pace {
        let block = match self.slack {
            None => BLOCK,
            Some(_) if self.held.len() < MANY => PACED,
            Some(_) => PACED_OF_MANY,
        };
        Pace {
            block,
            held: self.held.keys().copied().collect::<HashSet<u64>>(),
        }
    }

    /// When something that is held may come.
    pub(super) fn due(&self) -> Option<Instant> {
        self.held.values().map(|(_, until)| *until).min()
    }

    /// Where something stands, by its key, of which not everything has left.
    pub(super) fn stands(&self, key: u64) -> Option<Vec<Position>> {
        let queued = self.queue.iter().find(|batch| batch.key == key);
        let batch = queued.or_else(|| Some(&self.held.get(&key)?.0))?;
        position::decode(&batch.stands)
    }

    /// Hands on what may go; false when it was stopped.
    pub(super) async fn give(&mut self, sink: &Sink, cancel: &CancellationToken) -> bool {
        let now = clock::mono();
        let due = self.held.extract_if(|_, (_, until)| *until <= now);
        self.queue.extend(due.map(|(_, (batch, _))| batch));
        while let Some(mut batch) = self.queue.pop_front() {
            match self.give_one(&mut batch, sink, cancel).await {
                Given::All => {
                    if self.marking {
                        let publisher = sink.publisher();
                        publisher.pass_place(&batch.source, batch.key, batch.after);
                    }
                }
                Given::Held(wait) => {
                    let together = self.slack.unwrap_or_default().min(TOGETHER);
                    let wait = wait.max(together).min(LOOK_AGAIN);
                    let until = clock::after(clock::mono(), wait);
                    self.held.insert(batch.key, (batch, until));
                }
                Given::Stopped => {
                    self.queue.push_front(batch);
                    return false;
                }
            }
        }
        true
    }

    async fn give_one(&self, batch: &mut Batch, sink: &Sink, cancel: &CancellationToken) -> Given {
        let cancelled = cancel.cancelled();
        tokio::pin!(cancelled);
        while !batch.records.is_empty() {
            let Some(odd) = self.give_run(batch, sink) else {
                continue;
            };
            let (odd, place) = match odd {
                RunEnd::Odd(odd, place) => (odd, place),
                RunEnd::Ended => return Given::Stopped,
            };
            // The end is looked for only while one has to wait.
            let given = tokio::select! {
                biased;
                given = sink.emit_odd(odd) => given,
                () = &mut cancelled => return Given::Stopped,
            };
            match given {
                Paced::Sent(true) => batch.stands = place,
                Paced::Sent(false) => return Given::Stopped,
                Paced::Later(record, wait) => {
                    batch.records.push_front((record, place));
                    return Given::Held(wait);
                }
            }
        }
        Given::All
    }

    /// Hands on what goes at once, up to a number of records; what does not comes back.
    fn give_run(&self, batch: &mut Batch, sink: &Sink) -> Option<RunEnd> {
        let Some(mut run) = sink.run(&batch.source, &batch.path, self.rate) else {
            return Some(RunEnd::Ended);
        };
        for _ in 0..RUN {
            let (mut record, place) = batch.records.pop_front()?;
            if self.marking {
                record.mark(batch.key, &place);
            }
            match run.emit(record) {
                None => batch.stands = place,
                Some(odd) => return Some(RunEnd::Odd(odd, place)),
            }
        }
        None
    }
}

/// Says what went wrong, in the log and as an event, which no rate holds for.
pub(super) fn tell(sink: &Sink, note: String) {
    tracing::warn!("{note}");
    sink.emit_own(Record::new(OWN, Severity::WARN, note));
}
