//! Where a source puts its records: the source's own rules first, then the publisher. What must not
//! leave the device is taken out here, before anything is queued.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use thinglog_schemas::batch::DropReason;

use super::{
    rules::{RuleError, RuleOptions, Rules, Verdict},
    units::Rate,
};
use crate::{Publisher, Record, clock, run::Run};

/// Whoever waits for a rate looks after so long whether it is still the same: operators may have changed
/// it.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// One source's way into a [`Publisher`]. Clones share everything.
#[derive(Clone)]
pub struct Sink {
    publisher: Publisher,
    rules: Arc<Rules>,
    /// There are none but the device's rate.
    plain: bool,
    figures: Arc<Figures>,
}

/// What became of a record that its source can wait with.
pub(crate) enum Paced {
    /// It went on, or no further; false: the publisher has ended.
    Sent(bool),
    /// It may come after so long.
    Later(Record, Duration),
}

/// What came over a [`Sink`].
#[derive(Debug, Default)]
pub(crate) struct Figures {
    events: AtomicU64,
    bytes: AtomicU64,
    last: AtomicU64,
    filtered: AtomicU64,
    limited: AtomicU64,
}

/// What came over a [`Sink`], at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkCounters {
    /// Events handed to the publisher.
    pub events: u64,
    /// Bytes of their messages.
    pub bytes: u64,
    /// When the last one came, ns since the Unix epoch; 0: none yet.
    pub last: u64,
    /// Events below their level.
    pub filtered: u64,
    /// Events dropped for being above the rate.
    pub limited: u64,
}

impl Sink {
    /// Everything goes to the publisher as it is.
    pub fn new(publisher: Publisher) -> Sink {
        Sink {
            publisher,
            rules: Arc::default(),
            plain: true,
            figures: Arc::default(),
        }
    }

    /// The same way with rules.
    pub fn with_rules(mut self, rules: &RuleOptions) -> Result<Sink, RuleError> {
        self.rules = Arc::new(Rules::new(rules)?);
        self.plain = false;
        Ok(self)
    }

    /// The same way, counted on where another left off.
    pub(crate) fn counted_in(mut self, figures: Arc<Figures>) -> Sink {
        self.figures = figures;
        self
    }

    /// See [`Publisher::emit`]: never waits; without room the least grave events are dropped. What is
    /// above the source's rate is dropped as well, counted and declared.
    pub fn emit(&self, mut record: Record) {
        let source = record.source.clone();
        let rate = self.publisher.rate();
        let verdict = self.judge(&record, &source, rate, false);
        if self.admit(&mut record, verdict) == Verdict::Pass {
            self.publisher.emit(record);
        }
    }

    /// See [`Publisher::emit_waiting`]: waits for room, and for what the source's rate allows. False
    /// when the publisher has ended.
    pub async fn emit_waiting(&self, mut record: Record) -> bool {
        loop {
            let source = record.source.clone();
            let rate = self.publisher.rate();
            match self.emit_paced(record, &source, rate).await {
                Paced::Sent(sent) => return sent,
                Paced::Later(back, wait) => {
                    record = back;
                    tokio::time::sleep(wait.min(LOOK_AGAIN)).await;
                }
            }
        }
    }

    /// Waits for room, but not for what the rate allows: a record above it comes back. `bucket` is
    /// what the rate holds for, instead of the record's source; `rate` the device's, as whoever waits
    /// for it knows it.
    async fn emit_paced(&self, record: Record, bucket: &Arc<str>, rate: Option<Rate>) -> Paced {
        let verdict = self.judge(&record, bucket, rate, true);
        self.emit_judged(record, verdict).await
    }

    /// The same for a record that was judged already.
    async fn emit_judged(&self, mut record: Record, verdict: Verdict) -> Paced {
        match self.admit(&mut record, verdict) {
            Verdict::Pass => Paced::Sent(self.publisher.emit_waiting(record).await),
            Verdict::Wait(wait) => Paced::Later(record, wait),
            _ => Paced::Sent(!self.publisher.has_ended()),
        }
    }

    /// Begins to emit records of `source`, many at once; `None` when the publisher has ended. What
    /// stands beside it is as for [`emit_paced`](Sink::emit_paced).
    pub(crate) fn run<'a>(
        &'a self,
        source: &Arc<str>,
        bucket: &'a Arc<str>,
        rate: Option<Rate>,
    ) -> Option<SinkRun<'a>> {
        Some(SinkRun {
            run: Run::begin(&self.publisher, source)?,
            sink: self,
            bucket,
            rate,
            events: 0,
            bytes: 0,
        })
    }

    /// Emits what a run could not.
    pub(crate) async fn emit_odd(&self, odd: Odd) -> Paced {
        match odd {
            Odd::Judged(record, verdict) => self.emit_judged(record, verdict).await,
            Odd::NoRoom(record) => Paced::Sent(self.publisher.emit_waiting(record).await),
        }
    }

    /// For what a source itself has to say: no rate holds for it.
    pub(crate) fn emit_own(&self, mut record: Record) {
        self.dress(&mut record);
        self.publisher.emit(record);
    }

    /// How long who waits for the rate may wait on, so that several may come at once; `None`: nobody
    /// waits for it.
    pub(crate) fn slack(&self, rate: Option<Rate>) -> Option<Duration> {
        self.rules.slack(rate)
    }

    /// Counts the record and, where it goes on, makes it ready. What the publisher may keep although
    /// it does not send it goes on as well.
    fn admit(&self, record: &mut Record, verdict: Verdict) -> Verdict {
        let figures = &self.figures;
        match verdict {
            Verdict::Pass => figures.passed(1, record.message.len() as u64),
            Verdict::Below | Verdict::Filtered => {
                figures.filtered.fetch_add(1, Relaxed);
            }
            Verdict::Limited => {
                figures.limited.fetch_add(1, Relaxed);
                let (source, reason) = (&record.source, DropReason::RateLimited);
                self.publisher.declare(source, record.severity, reason, 1);
            }
            Verdict::Wait(_) => {}
        }
        let kept = verdict == Verdict::Below && self.publisher.enabled(record.severity);
        if !kept && verdict != Verdict::Pass {
            self.pass_by(record, verdict);
            return verdict;
        }
        self.dress(record);
        Verdict::Pass
    }

    /// The source has come past a record that goes no further.
    fn pass_by(&self, record: &mut Record, verdict: Verdict) {
        if matches!(verdict, Verdict::Wait(_)) {
            return;
        }
        if let Some(mark) = record.mark.take() {
            self.publisher
                .pass_place(&record.source, mark.key, mark.place);
        }
    }

    fn judge(
        &self,
        record: &Record,
        bucket: &Arc<str>,
        rate: Option<Rate>,
        patient: bool,
    ) -> Verdict {
        if self.plain && rate.is_none() {
            return Verdict::Pass;
        }
        let (source, severity) = (&record.source, record.severity);
        let standing = self.publisher.standing(source, severity);
        self.rules
            .judge(bucket, severity, standing, rate, patient, clock::mono)
    }

    /// See [`Publisher::flush`].
    pub async fn flush(&self, deadline: Duration) -> bool {
        self.publisher.flush(deadline).await
    }

    /// Does to a record what the source's rules do to one that passes: nothing that must not leave the
    /// device stays in it.
    pub(crate) fn dress(&self, record: &mut Record) {
        // What is packed was dressed before.
        if record.packed.is_none() {
            self.rules.dress(record);
        }
    }

    /// Makes a record ready that may well go on, so that the same is not to be done later, elsewhere.
    /// `scratch` is used for it.
    pub(crate) fn prepare(&self, record: &mut Record, scratch: &mut Vec<u8>) {
        if self.publisher.enabled(record.severity) && self.rules.may_pass(record.severity) {
            self.dress(record);
            record.pack(scratch);
        }
    }

    /// The publisher behind it.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// What came over it.
    pub fn counters(&self) -> SinkCounters {
        self.figures.counters()
    }
}

/// Emits records of one source. It holds the publisher's lock, so not many at a time.
pub(crate) struct SinkRun<'a> {
    run: Run<'a>,
    sink: &'a Sink,
    bucket: &'a Arc<str>,
    rate: Option<Rate>,
    /// What went on: events, and bytes of their messages.
    events: u64,
    bytes: u64,
}

/// What a run leaves to [`Sink::emit_odd`], without the lock.
pub(crate) enum Odd {
    /// Level or rate do not let it pass.
    Judged(Record, Verdict),
    /// There is no room.
    NoRoom(Record),
}

impl SinkRun<'_> {
    /// Hands a record on, or leaves it to another way.
    pub(crate) fn emit(&mut self, mut record: Record) -> Option<Odd> {
        let sink = self.sink;
        if !sink.plain || self.rate.is_some() {
            let standing = self.run.standing(record.severity);
            let severity = record.severity;
            let (bucket, rate) = (self.bucket, self.rate);
            let rules = &sink.rules;
            match rules.judge(bucket, severity, standing, rate, true, clock::mono) {
                Verdict::Pass => {}
                verdict => return Some(Odd::Judged(record, verdict)),
            }
        }
        sink.dress(&mut record);
        self.events += 1;
        self.bytes += record.message.len() as u64;
        self.run.push(record).map(Odd::NoRoom)
    }
}

impl Drop for SinkRun<'_> {
    fn drop(&mut self) {
        if self.events > 0 {
            self.sink.figures.passed(self.events, self.bytes);
        }
    }
}

impl Figures {
    /// Events went on.
    fn passed(&self, events: u64, bytes: u64) {
        self.events.fetch_add(events, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.last.store(clock::coarse_wall(), Relaxed);
    }

    pub(crate) fn counters(&self) -> SinkCounters {
        SinkCounters {
            events: self.events.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            last: self.last.load(Relaxed),
            filtered: self.filtered.load(Relaxed),
            limited: self.limited.load(Relaxed),
        }
    }
}

impl From<Publisher> for Sink {
    fn from(publisher: Publisher) -> Sink {
        Sink::new(publisher)
    }
}

#[cfg(test)]
mod tests {
    use thinglog_schemas::Severity;

    use super::*;

    fn publisher() -> Publisher {
        let publisher = Publisher::builder("lamp-7").broker("127.0.0.1", 1);
        publisher.start().unwrap()
    }

    fn rated(rate: &str) -> RuleOptions {
        RuleOptions {
            rate: Some(rate.parse().unwrap()),
            burst: Some(5),
            ..RuleOptions::default()
        }
    }

    #[test]
    fn what_is_above_the_rate_is_dropped_counted_and_declared() {
        let publisher = publisher();
        let sink = Sink::new(publisher.clone());
        let sink = sink.with_rules(&rated("1/h")).unwrap();
        for _ in 0..20 {
            sink.emit(Record::new("app", Severity::INFO, "m"));
        }
        let counters = sink.counters();
        assert_eq!((counters.events, counters.limited), (5, 15));
        assert_eq!(publisher.counters().dropped, 15);
    }

    #[test]
    fn a_source_that_can_wait_loses_nothing_to_its_rate() {
        let sink = Sink::new(publisher());
        let sink = sink.with_rules(&rated("1000/s")).unwrap();
        let all = async {
            for _ in 0..20 {
                assert!(
                    sink.emit_waiting(Record::new("app", Severity::INFO, "m"))
                        .await
                );
            }
        };
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().build().unwrap().block_on(all);
        let counters = sink.counters();
        assert_eq!((counters.events, counters.limited), (20, 0));
    }

    #[test]
    fn what_the_level_does_not_let_pass_is_counted_as_such() {
        let sink = Sink::new(publisher());
        let sink = sink.with_rules(&RuleOptions::default()).unwrap();
        sink.emit(Record::new("app", Severity::DEBUG, "m"));
        sink.emit(Record::new("app", Severity::INFO, "four"));
        let counters = sink.counters();
        assert_eq!(
            (counters.events, counters.filtered, counters.bytes),
            (1, 1, 4)
        );
    }
}
