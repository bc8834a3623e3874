//! The stage of alerts: deliveries to the engine, commits to the state log, notifications of kept commits
//! to the sender.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use thinglog_schemas::Topics;
use thinglog_schemas::payload::Decoded;
use tokio_util::sync::CancellationToken;

use super::engine::Engine;
use super::record::{self, Record};
use super::rule::Rule;
use super::send::{self, Sender};
use super::shown::{self, Shown};
use crate::clock;
use crate::config::Config;
use crate::deliver::batch::Keep;
use crate::deliver::commit::Write;
use crate::deliver::judge::{Judge, Judged, Reader};
use crate::deliver::share::{DecodeCache, Seat, Shared};
use crate::deliver::stage::{Closing, Pushed, Stage, Tick};
use crate::deliver::supervise::{Open, OpenError};
use crate::folder::Folder;
use crate::health::Part;
use crate::levels::facts::FactsCache;
use crate::levels::{LevelCache, Levels};
use crate::mqtt::Delivery;
use crate::mqtt::names::Names;
use crate::mqtt::publisher::Publisher;
use crate::registry::devices::Devices;
use crate::state::{Growth, StateError, StateLog};
use crate::telemetry::{Books, Tally, Telemetry};

/// How long a connected subscription brings nothing until that means that there is nothing: what was
/// received before is read.
const QUIET: Duration = Duration::from_secs(5);
/// Between looks at what became of notifications.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Between looks at the figures of rules.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// Between looks at which devices there are, while something may have changed.
const EXPECT_EVERY: Duration = Duration::from_secs(5);
/// Devices that are looked at in one go: who changes the fleet waits meanwhile.
const PIECE: usize = 1000;

/// Makes the stage from `<data>/router/alerts`.
pub(crate) struct AlertsOpener {
    pub(crate) config: Config,
    pub(crate) topics: Topics,
    pub(crate) folder: Arc<Folder>,
    pub(crate) levels: Arc<Levels>,
    pub(crate) shared: Arc<DecodeCache>,
    pub(crate) publisher: Publisher,
    pub(crate) telemetry: Telemetry,
    pub(crate) books: Books,
    /// Whether the subscription stands.
    pub(crate) connected: Part,
    pub(crate) devices: Arc<RwLock<Devices>>,
    pub(crate) shown: Shown,
}

impl AlertsOpener {
    /// Whether everything could be made, as far as that shows without its files.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let receivers = send::receivers(&self.config, &self.publisher, &self.topics);
        receivers.map_err(wrong)?;
        self.rules().map(drop)
    }

    fn rules(&self) -> Result<Vec<Rule>, OpenError> {
        let rules = self.config.alerts.iter();
        let rules = rules.map(|(name, config)| Rule::new(name, config));
        rules
            .collect::<Result<_, _>>()
            .map_err(|error| wrong(error.to_string()))
    }
}

fn wrong(reason: String) -> OpenError {
    OpenError::Part {
        part: "alerts",
        reason,
    }
}

impl Open for AlertsOpener {
    type Stage = Alerts;

    fn open(&self, _ending: &CancellationToken) -> Result<(Alerts, StateLog), OpenError> {
        let path = self.folder.path().join("state");
        let (log, records) = StateLog::open::<Record>(&path)?;
        let alertmanagers = send::alertmanagers(&self.config);
        let mut engine = Engine::new(self.rules()?).with_alertmanagers(&alertmanagers);
        let table = record::replay(records, &mut engine);
        *self.shown.write() = shown::of(&engine, &[]);
        let receivers = send::receivers(&self.config, &self.publisher, &self.topics);
        let sender = Sender::start(receivers.map_err(wrong)?, &self.telemetry.alerts)
            .map_err(|error| wrong(error.to_string()))?;
        let reader = Reader::new(Shared::new(Arc::clone(&self.shared), Seat::Front));
        let levels = LevelCache::new(Arc::clone(&self.levels));
        let stage = Alerts {
            judge: Judge::new(reader, levels, table),
            facts: FactsCache::new(Arc::clone(&self.levels)),
            to_send: engine.all_unsent().collect(),
            engine,
            sender,
            committing: Vec::new(),
            connected: self.connected.clone(),
            stands: false,
            quiet_since: None,
            expected: None,
            expect_at: Instant::now(),
            levels: Arc::clone(&self.levels),
            devices: Arc::clone(&self.devices),
            shown: Arc::clone(&self.shown),
            telemetry: self.telemetry.clone(),
            books: self.books.clone(),
            growth: log.growth(),
            tally: Tally::default(),
            count_at: Instant::now(),
            uncounted: true,
        };
        Ok((stage, log))
    }
}

/// The stage.
pub(crate) struct Alerts {
    judge: Judge,
    facts: FactsCache,
    engine: Engine,
    sender: Sender,
    /// Notifications that the commit under way stands for.
    committing: Vec<u64>,
    /// Those that may be sent.
    to_send: VecDeque<u64>,
    connected: Part,
    /// The subscription stood at the last look.
    stands: bool,
    /// Which devices there were at the last look: the version of the documents, and how many.
    expected: Option<(u64, usize)>,
    expect_at: Instant,
    levels: Arc<Levels>,
    devices: Arc<RwLock<Devices>>,
    shown: Shown,
    /// Since when the subscription has stood and brought nothing.
    quiet_since: Option<Instant>,
    telemetry: Telemetry,
    books: Books,
    growth: Growth,
    tally: Tally,
    count_at: Instant,
    /// Something happened since figures were taken.
    uncounted: bool,
}

impl Alerts {
    fn look_at(&mut self, names: &Names, judged: &Judged) {
        self.tally.duplicate += judged.duplicate;
        self.tally.filtered += judged.filtered;
        let Some(keep) = &judged.keep else { return };
        self.tally.delivered += kept(&judged.decoded, keep);
        let facts = match self.engine.asks_for_facts() {
            true => self.facts.of(&names.device),
            false => self.facts.none(),
        };
        if !self.engine.may_be_for(&names.device, &names.source, facts) {
            return;
        }
        let now = clock::now_ns();
        let events = &judged.decoded.events;
        match keep {
            Keep::All => events
                .iter()
                .for_each(|event| self.engine.take(event, facts, now)),
            Keep::Some(places) => places
                .iter()
                .filter_map(|at| events.get(*at as usize))
                .for_each(|event| self.engine.take(event, facts, now)),
        }
    }

    /// How far the stream has been read by the clock, if that is known.
    fn read_to(&mut self, now: Instant) -> Option<u64> {
        if !self.connected.is_ready() {
            (self.quiet_since, self.stands) = (None, false);
            return None;
        }
        if !std::mem::replace(&mut self.stands, true) {
            self.engine.begin(clock::now_ns());
        }
        let since = *self.quiet_since.get_or_insert(now);
        let is_quiet = now.duration_since(since) >= QUIET;
        is_quiet.then(|| clock::now_ns().saturating_sub(QUIET.as_nanos() as u64))
    }

    /// Tells the engine which devices there are, if that has changed.
    fn expect(&mut self, now: Instant) {
        if now < self.expect_at || !self.engine.waits_for_silence() {
            return;
        }
        self.expect_at = now + EXPECT_EVERY;
        let seen = Some((self.levels.version(), self.devices.read().len()));
        if std::mem::replace(&mut self.expected, seen) == seen {
            return;
        }
        let mut after: Option<Arc<str>> = None;
        loop {
            let names: Vec<Arc<str>> = {
                let devices = self.devices.read();
                let names = devices.names(after.as_deref());
                names.take(PIECE).cloned().collect()
            };
            for name in &names {
                let facts = self.levels.read(|fleet| fleet.facts(name));
                self.engine.expect(name, &facts);
            }
            match names.last() {
                Some(last) => after = Some(Arc::clone(last)),
                None => break,
            }
        }
        self.engine.all_expected(clock::now_ns());
    }

    /// Tells Alertmanagers again what fires. What finds no room is told with the next repetition.
    fn repeat(&mut self, now: u64) {
        for notice in self.engine.repeats(now) {
            self.sender.repeat(&notice);
        }
    }

    /// A receiver without room holds up its own notifications only.
    fn hand_over(&mut self) {
        let (engine, sender) = (&self.engine, &self.sender);
        let mut full: BTreeSet<&str> = BTreeSet::new();
        self.to_send.retain(|number| {
            let Some(notice) = engine.unsent(*number) else {
                return false;
            };
            let waits = full.contains(&*notice.receiver) || !sender.send(notice);
            if waits {
                full.insert(&notice.receiver);
            }
            waits
        });
    }

    fn count(&mut self, now: Instant) {
        if now < self.count_at || !self.uncounted {
            return;
        }
        self.uncounted = false;
        self.count_at = now + COUNT_EVERY;
        let metrics = &self.telemetry.alerts;
        for (rule, counts, open) in self.engine.take_counts() {
            if counts.beyond > 0 {
                tracing::warn!(
                    rule = &*rule.name,
                    events = counts.beyond,
                    max_keys = rule.max_keys,
                    "a rule follows as many devices or groups as it may: events of others are not counted"
                );
            }
            metrics.add(&rule.name, counts, open);
        }
        let before = Arc::clone(&*self.shown.read());
        *self.shown.write() = shown::of(&self.engine, &before);
        let unsent = self.engine.all_unsent().count();
        metrics
            .unsent
            .set(i64::try_from(unsent).unwrap_or(i64::MAX));
    }
}

fn kept(decoded: &Decoded, keep: &Keep) -> u64 {
    match keep {
        Keep::All => decoded.events.len() as u64,
        Keep::Some(places) => places.len() as u64,
    }
}

impl Stage for Alerts {
    fn take(&mut self, delivery: &Delivery, now: u64) -> usize {
        (self.quiet_since, self.uncounted) = (None, true);
        if let Some((names, judged)) = self.judge.take(delivery, now, &self.books) {
            self.look_at(names, &judged);
        }
        delivery.payload.len()
    }

    fn is_full(&self) -> bool {
        false
    }

    fn push(&mut self) -> Pushed {
        Pushed::Done
    }

    fn commit(&mut self) -> Result<Closing, StateError> {
        self.committing.extend(self.engine.made());
        let framed = record::changes(&mut self.engine, &mut self.judge.table)?;
        let (engine, table) = (&self.engine, &self.judge.table);
        let state = Write::of(framed, &mut self.growth, || record::snapshot(engine, table))?;
        Ok(Closing {
            sync: None,
            state,
            tally: std::mem::take(&mut self.tally),
            barrier: !self.committing.is_empty(),
        })
    }

    fn committed(&mut self) -> io::Result<()> {
        self.to_send.extend(self.committing.drain(..));
        self.hand_over();
        Ok(())
    }

    fn tick(&mut self, now: Instant) -> Tick {
        for number in self.sender.take_done() {
            self.engine.sent(number);
        }
        self.hand_over();
        let read_to = self.read_to(now);
        self.expect(now);
        let clock = clock::now_ns();
        let levels = &self.levels;
        let facts = &mut |device: &Arc<str>| levels.read(|fleet| fleet.facts(device));
        self.engine.tick(clock, read_to, facts);
        self.repeat(clock);
        self.uncounted |= self.engine.has_changes();
        self.count(now);
        let next = self.engine.next_tick();
        let next = next.map(|at| now + Duration::from_nanos(at.saturating_sub(clock)));
        let look = self.engine.all_unsent().next().map(|_| now + LOOK_EVERY);
        let waits = self.engine.waits_for_silence();
        let expect = waits.then_some(self.expect_at);
        let count = self.uncounted.then_some(self.count_at);
        Tick {
            again: [next, look, expect, count].into_iter().flatten().min(),
            changed: self.engine.has_changes(),
        }
    }
}
