//! The stage of `audit`: looks at every delivery once, keeps the unreadable ones, follows the
//! numbering of every lane, notes devices, and declares gaps as events of the device.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thinglog_schemas::batch;
use thinglog_schemas::json;
use thinglog_schemas::payload::{OWN_SOURCE, PayloadError};
use thinglog_schemas::{Topic, Topics};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::gaps::{Gap, Gaps, LaneState};
use super::quarantine::Quarantine;
use crate::clock;
use crate::config::AuditConfig;
use crate::dedup::table::{Mark, Table};
use crate::deliver::commit::Write;
use crate::deliver::judge::Reader;
use crate::deliver::share::{DecodeCache, Seat, Shared};
use crate::deliver::stage::{Closing, Pushed, Stage, Tick};
use crate::deliver::supervise::{Open, OpenError};
use crate::deliver::syncing;
use crate::folder::Folder;
use crate::levels::Levels;
use crate::mqtt::Delivery;
use crate::mqtt::names::Names;
use crate::mqtt::publisher::{Message, Publisher, Refused};
use crate::registry::contacts::{Contacts, Kept};
use crate::state::{self, Growth, StateError, StateLog};
use crate::telemetry::{Books, Tally, Telemetry};

/// Gap events published and unacknowledged at a time.
const REPORTS: usize = 64;
/// How often answers to gap events are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Shortest time between log lines about quarantined payloads; all are counted.
const LOG_EVERY: Duration = Duration::from_secs(1);
/// Lanes of one record of a snapshot.
const SNAPSHOT_LANES: usize = 4096;
/// Contacts of one, likewise.
const SNAPSHOT_CONTACTS: usize = 4096;
const FORGET_EVERY_S: u64 = 3600;

/// What audit's state log holds, one per commit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Record {
    lanes: Vec<LaneState>,
    /// Journal offsets.
    marks: Vec<Mark>,
    /// When devices were last heard of; absent in states of earlier versions.
    #[serde(default)]
    contacts: Vec<Kept>,
}

/// Makes the stage from `<data>/router/audit` and `<data>/router/quarantine`.
pub(crate) struct AuditOpener {
    pub(crate) folder: Folder,
    pub(crate) quarantine: PathBuf,
    pub(crate) config: AuditConfig,
    pub(crate) topics: Topics,
    pub(crate) levels: Arc<Levels>,
    pub(crate) contacts: Arc<Contacts>,
    pub(crate) shared: Arc<DecodeCache>,
    pub(crate) publisher: Publisher,
    pub(crate) telemetry: Telemetry,
    pub(crate) books: Books,
}

impl Open for AuditOpener {
    type Stage = Audit;

    fn open(&self, _ending: &CancellationToken) -> Result<(Audit, StateLog), OpenError> {
        let path = self.folder.path().join("state");
        let (log, records) = StateLog::open::<Record>(&path)?;
        let mut gaps = Gaps::new(self.config.gap_grace_s);
        let mut offsets = Table::default();
        for record in &records {
            record.lanes.iter().for_each(|lane| gaps.replay(lane));
            record.marks.iter().for_each(|mark| offsets.replay(mark));
            let contacts = record.contacts.iter();
            contacts.for_each(|kept| self.contacts.replay(kept));
        }
        gaps.replayed();
        let deleted = self
            .telemetry
            .deleted_files
            .with_label_values(&["quarantine"]);
        let quarantine = Quarantine::open(&self.quarantine, self.config.quarantine_bytes, deleted);
        let quarantine = quarantine.map_err(|source| OpenError::Io {
            path: self.quarantine.clone(),
            source,
        })?;
        let audit = Audit {
            topics: self.topics.clone(),
            levels: Arc::clone(&self.levels),
            contacts: Arc::clone(&self.contacts),
            reader: Reader::new(Shared::new(Arc::clone(&self.shared), Seat::Behind)),
            publisher: self.publisher.clone(),
            telemetry: self.telemetry.clone(),
            books: self.books.clone(),
            gaps,
            offsets,
            quarantine,
            reports: Vec::new(),
            growth: log.growth(),
            tally: Tally::default(),
            forget_at: clock::now_s() + FORGET_EVERY_S,
            last_kept: None,
            last_drop: None,
        };
        Ok((audit, log))
    }
}

/// A device may claim any number of events; one claim cannot overflow a counter.
const CLAIM: u64 = u32::MAX as u64;

/// The stage.
pub(crate) struct Audit {
    topics: Topics,
    levels: Arc<Levels>,
    contacts: Arc<Contacts>,
    reader: Reader,
    publisher: Publisher,
    telemetry: Telemetry,
    books: Books,
    gaps: Gaps,
    /// Offsets had before, so that a redelivery is not put into quarantine twice.
    offsets: Table,
    quarantine: Quarantine,
    reports: Vec<Report>,
    growth: Growth,
    tally: Tally,
    forget_at: u64,
    /// When a quarantined payload was last logged: a device can send any number of them.
    last_kept: Option<Instant>,
    /// When drops were last logged.
    last_drop: Option<Instant>,
}

/// A gap event on its way.
struct Report {
    gap: Gap,
    answer: oneshot::Receiver<Result<(), Refused>>,
}

impl Audit {
    fn look_at(&mut self, delivery: &Delivery, now: u64) {
        let names = match &delivery.topic.logs {
            Ok(names) => names,
            Err(error) => return self.keep(delivery, "topic", &error.to_string()),
        };
        let heard = delivery.stamp.received / 1_000_000_000;
        if self.contacts.touch(&names.device, heard) {
            self.levels.saw(&names.device);
        }
        match self.read(delivery, names, now) {
            Ok(()) => {}
            Err(error) => self.keep(delivery, "payload", &error.to_string()),
        }
    }

    fn read(&mut self, delivery: &Delivery, names: &Names, now: u64) -> Result<(), PayloadError> {
        let payload = &delivery.payload[..];
        if is_plainly_text(payload) {
            return Ok(());
        }
        let decoded = self.reader.read(delivery, names)?;
        if let Some(lane) = &decoded.lane {
            self.count_drops(names, &lane.drops);
        }
        self.gaps
            .observe(&names.device, &names.source, &decoded, now);
        Ok(())
    }

    /// What a device gave up on purpose and says so.
    fn count_drops(&mut self, names: &Names, drops: &[batch::Drop]) {
        for dropped in drops {
            self.telemetry
                .dropped
                .with_label_values(&[dropped.reason.name()])
                .inc_by(dropped.count.min(CLAIM));
        }
        let Some(first) = drops.first() else { return };
        if self.last_drop.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            self.last_drop = Some(Instant::now());
            let events: u64 = drops.iter().map(|dropped| dropped.count.min(CLAIM)).sum();
            tracing::warn!(device = %names.device, source = %names.source, events,
                reason = first.reason.name(), "a device dropped events");
        }
    }

    fn keep(&mut self, delivery: &Delivery, kind: &str, reason: &str) {
        if self.last_kept.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            self.last_kept = Some(Instant::now());
            tracing::warn!(topic = %delivery.topic.text, reason, "put into quarantine");
        }
        self.telemetry.quarantined.with_label_values(&[kind]).inc();
        self.books.unreadable.inc();
        self.quarantine.add(delivery, reason, clock::now_ns());
    }

    /// Publishes gaps whose grace is over.
    fn declare(&mut self, now: u64) {
        let room = REPORTS.saturating_sub(self.reports.len());
        for gap in self.gaps.due(now, room) {
            let (done, answer) = oneshot::channel();
            let message = gap_message(&self.topics, &gap, done);
            if self.publisher.try_publish(message).is_err() {
                self.gaps.failed(&gap, now);
                continue;
            }
            self.books.take(0, 1);
            self.reports.push(Report { gap, answer });
        }
    }

    /// Takes answers to gap events; says whether a hole was closed.
    fn answers(&mut self, now: u64) -> bool {
        let mut changed = false;
        let mut waiting = Vec::new();
        for mut report in std::mem::take(&mut self.reports) {
            match report.answer.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => waiting.push(report),
                Ok(Ok(())) => {
                    changed = true;
                    self.declared(&report.gap);
                }
                Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed) => {
                    self.tally.rejected += 1;
                    self.gaps.failed(&report.gap, now);
                }
            }
        }
        self.reports = waiting;
        changed
    }

    fn declared(&mut self, gap: &Gap) {
        tracing::warn!(
            device = %gap.lane.device,
            source = %gap.source,
            from = gap.from,
            to = gap.to,
            "events are lost"
        );
        self.telemetry.gaps.inc();
        self.telemetry.gap_events.inc_by(gap.count().min(CLAIM));
        self.tally.delivered += 1;
        self.gaps.declared(gap);
    }

    fn framed(&mut self) -> Result<Write, StateError> {
        let record = Record {
            lanes: self.gaps.take_changes(),
            marks: self.offsets.take_marks(),
            contacts: self.contacts.take_changes(),
        };
        let mut framed = Vec::new();
        if self.growth.wants_rewrite() {
            let mut lanes = self.gaps.snapshot();
            loop {
                let lanes: Vec<LaneState> = lanes.by_ref().take(SNAPSHOT_LANES).collect();
                if lanes.is_empty() {
                    break;
                }
                let record = Record {
                    lanes,
                    ..Record::default()
                };
                state::frame(&record, &mut framed)?;
            }
            for contacts in self.contacts.snapshot().chunks(SNAPSHOT_CONTACTS) {
                let record = Record {
                    contacts: contacts.to_vec(),
                    ..Record::default()
                };
                state::frame(&record, &mut framed)?;
            }
            let record = Record {
                marks: self.offsets.snapshot().collect(),
                ..Record::default()
            };
            state::frame(&record, &mut framed)?;
            self.growth.rewritten(framed.len());
            return Ok(Write::Rewrite(framed));
        }
        if record == Record::default() {
            return Ok(Write::Nothing);
        }
        state::frame(&record, &mut framed)?;
        self.growth.appended(framed.len());
        Ok(Write::Append(framed))
    }
}

/// Text that is too short to be over any limit decodes for sure; it has no numbering to follow.
fn is_plainly_text(payload: &[u8]) -> bool {
    payload.len() < batch::MAX_EVENTS
        && !batch::is_batch(payload)
        && std::str::from_utf8(payload).is_ok()
}

fn gap_message(topics: &Topics, gap: &Gap, done: oneshot::Sender<Result<(), Refused>>) -> Message {
    let mut time = Vec::new();
    json::write_time(clock::now_ns(), &mut time);
    let (device, source) = (&gap.lane.device, &gap.source);
    let (from, to, count) = (gap.from, gap.to, gap.count());
    let event = serde_json::json!({
        "id": gap.id().text(device),
        "time": String::from_utf8_lossy(&time),
        "level": "WARN",
        "message": format!("{count} events of {device}/{source} are lost: {from} to {to}"),
        "lost_device": device,
        "lost_source": source,
        "lost_from": from,
        "lost_to": to,
        "lost_count": count,
    });
    Message {
        topic: topics.format(Topic::Logs {
            device,
            source: OWN_SOURCE,
        }),
        payload: Bytes::from(event.to_string()),
        retain: false,
        done: Some(done),
        while_waited: false,
    }
}

impl Stage for Audit {
    fn take(&mut self, delivery: &Delivery, now: u64) -> usize {
        let stamp = &delivery.stamp;
        if let Some(place) = stamp.stored
            && !self.offsets.admit(place, stamp.received)
        {
            self.books.redelivered.inc();
            return 0;
        }
        self.look_at(delivery, now);
        if now >= self.forget_at {
            self.forget_at = now + FORGET_EVERY_S;
            self.gaps.forget_idle(now);
        }
        0
    }

    fn is_full(&self) -> bool {
        self.quarantine.is_full()
    }

    fn push(&mut self) -> Pushed {
        match self.quarantine.write() {
            Ok(()) => Pushed::Done,
            Err(error) => Pushed::Retry {
                after: None,
                reason: format!("quarantine: {error}"),
            },
        }
    }

    fn commit(&mut self) -> Result<Closing, StateError> {
        let state = self.framed()?;
        let file = self.quarantine.take_unsynced();
        Ok(Closing {
            sync: file.map(|file| syncing(move || file.sync_data())),
            state,
            tally: std::mem::take(&mut self.tally),
            barrier: false,
        })
    }

    fn committed(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn tick(&mut self, now: Instant) -> Tick {
        let now_s = clock::now_s();
        let changed = self.answers(now_s);
        self.declare(now_s);
        let forgotten = self.gaps.take_forgotten();
        if forgotten > 0 {
            tracing::warn!(
                events = forgotten,
                "holes were forgotten undeclared: too many in one lane"
            );
        }
        let again = if self.reports.is_empty() {
            self.gaps
                .next_due()
                .map(|due| now + Duration::from_secs(due.saturating_sub(now_s).max(1)))
        } else {
            Some(now + LOOK_EVERY)
        };
        // A device may have been deleted, or heard of otherwise.
        let changed = changed || self.contacts.has_changes();
        Tick { again, changed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Health;
    use crate::mqtt::fake::FakeBroker;
    use crate::mqtt::publisher;
    use crate::testing::{batch, cache, delivery, telemetry};

    /// An audit without a grace, whose publisher has no room.
    async fn audit(folder: &std::path::Path) -> (Audit, Telemetry) {
        let telemetry = telemetry();
        let options = FakeBroker::start().await.options();
        let health = Health::new().part("publisher");
        let (publisher, _task) = publisher::new(options, telemetry.clone(), health);
        let message = || Message {
            topic: "a".into(),
            payload: Bytes::new(),
            retain: false,
            done: None,
            while_waited: false,
        };
        while publisher.try_publish(message()).is_ok() {}
        let opener = AuditOpener {
            folder: Folder::lock(&folder.join("audit")).unwrap(),
            quarantine: folder.join("quarantine"),
            config: AuditConfig {
                gap_grace_s: 0,
                ..AuditConfig::default()
            },
            topics: Topics::default(),
            levels: Levels::new().0,
            contacts: Arc::default(),
            shared: cache(1),
            publisher,
            books: telemetry.books("audit"),
            telemetry: telemetry.clone(),
        };
        (opener.open(&CancellationToken::new()).unwrap().0, telemetry)
    }

    #[tokio::test]
    async fn what_a_device_declares_as_dropped_is_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        let (mut audit, telemetry) = audit(folder.path()).await;
        let payload = batch(&[5], &[(0, 4, 3)]);
        let now = clock::now_s();
        audit.take(&delivery(payload.clone(), Some(1)), now);
        audit.take(&delivery(payload, Some(1)), now);
        let count = telemetry.dropped.with_label_values(&["spool_full"]).get();
        assert_eq!(count, 3);
    }

    #[tokio::test]
    async fn gaps_the_publisher_has_no_room_for_are_declared_later() {
        let folder = tempfile::tempdir().unwrap();
        let (mut audit, _telemetry) = audit(folder.path()).await;
        let now = clock::now_s();
        audit.take(&delivery(batch(&[0, 2, 4, 6], &[]), None), now);
        audit.tick(Instant::now());
        assert_eq!(audit.gaps.due(now, 10), [], "not at once");
        assert_eq!(audit.gaps.due(now + 3600, 10).len(), 3);
    }
}
