//! The thread of the live topics: decodes, applies levels, and publishes at QoS 0 what somebody
//! watches. Deliveries are acknowledged as they are worked on; nothing is kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use thinglog_schemas::{Event, Level, Topic, Topics, json};
use tokio::sync::watch;

use super::interest::Interest;
use crate::clock;
use crate::deliver::judge::Reader;
use crate::levels::LevelCache;
use crate::mqtt::inbox::{Inbox, Taken};
use crate::mqtt::names::Names;
use crate::mqtt::outbox::Outbox;
use crate::mqtt::{Delivery, Settled};
use crate::telemetry::Telemetry;

/// Frames that may wait for a slow broker, bytes.
const OUTBOX: usize = 4 << 20;
/// Frames collected before they are handed over, bytes.
const CHUNK: usize = 256 << 10;
/// Topics whose interest is remembered.
const TOPICS: usize = 65_536;

/// What the thread is connected to.
pub(crate) struct Wiring {
    pub(crate) topics: Topics,
    pub(crate) interest: watch::Receiver<Arc<Interest>>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) telemetry: Telemetry,
    pub(crate) skip_behind: Duration,
}

/// The thread's own data.
pub(crate) struct LiveWorker {
    reader: Reader,
    levels: LevelCache,
    wiring: Wiring,
    interest: Arc<Interest>,
    topics: TopicCache,
    lag: Lag,
    frames: Vec<u8>,
    payload: Vec<u8>,
    /// Events in `frames`.
    count: u64,
}

impl LiveWorker {
    pub(crate) fn new(reader: Reader, levels: LevelCache, wiring: Wiring) -> LiveWorker {
        let interest = Arc::clone(&wiring.interest.borrow());
        LiveWorker {
            reader,
            levels,
            interest,
            wiring,
            topics: TopicCache::default(),
            lag: Lag::default(),
            frames: Vec::new(),
            payload: Vec::new(),
            count: 0,
        }
    }

    /// Runs until the inbox is closed.
    pub(crate) fn run(mut self) {
        let mut items = Vec::new();
        let mut current = None;
        loop {
            match self.wiring.inbox.take(&mut items, None) {
                Taken::Closed => return,
                Taken::Nothing => {}
                Taken::Deliveries { generation } => {
                    if current != Some(generation) {
                        current = Some(generation);
                        self.lag = Lag::default();
                    }
                    self.follow_interest();
                    self.work(&items, generation);
                    items.clear();
                }
            }
        }
    }

    fn follow_interest(&mut self) {
        if self.wiring.interest.has_changed().unwrap_or(false) {
            self.interest = Arc::clone(&self.wiring.interest.borrow_and_update());
            self.topics = TopicCache::default();
        }
    }

    fn work(&mut self, items: &[Delivery], generation: u64) {
        for (at, delivery) in items.iter().enumerate() {
            if self
                .lag
                .is_behind(delivery.stamp.received, self.wiring.skip_behind)
            {
                self.hand_over();
                self.skip(items.len() - at);
                return;
            }
            self.publish(delivery);
            if self.frames.len() >= CHUNK {
                self.hand_over();
            }
        }
        self.hand_over();
        if let Some(last) = items.last() {
            self.wiring.outbox.settle(Settled {
                generation,
                number: last.number,
            });
        }
    }

    /// Starts again at the tail.
    fn skip(&self, payloads: usize) {
        let missed = self
            .wiring
            .telemetry
            .live_missed
            .with_label_values(&["behind"]);
        missed.inc_by(payloads as u64);
        tracing::warn!(
            payloads,
            "live topics are behind and skip to the newest events"
        );
        self.wiring.outbox.restart();
    }

    fn publish(&mut self, delivery: &Delivery) {
        // What cannot be read is audit's business.
        let Ok(names) = &delivery.topic.logs else {
            return;
        };
        let Ok(decoded) = self.reader.read(delivery, names) else {
            return;
        };
        let groups = match self.interest.any_group() {
            true => self.levels.groups_of(&names.device),
            false => Vec::new(),
        };
        for event in &decoded.events {
            let resolved = self.levels.of(names, &delivery.stamp);
            if resolved.passes(&names.source, event.time, event.severity) {
                self.publish_event(event, names, &groups);
            }
        }
    }

    fn publish_event(&mut self, event: &Event, names: &Names, groups: &[String]) {
        let level = event.severity.level();
        let root = &self.wiring.topics;
        let live = self.topics.get(names, level, &self.interest, root);
        self.payload.clear();
        if let Some(topic) = live {
            json::write(event, &mut self.payload);
            self.count += u64::from(push_publish(topic, &self.payload, &mut self.frames));
        }
        for group in groups {
            let topic = root.format(Topic::LiveGroup {
                group,
                device: &names.device,
                level,
                source: &names.source,
            });
            if self.interest.wants_group(&topic) {
                if self.payload.is_empty() {
                    json::write(event, &mut self.payload);
                }
                self.count += u64::from(push_publish(&topic, &self.payload, &mut self.frames));
            }
        }
    }

    fn hand_over(&mut self) {
        if self.frames.is_empty() {
            return;
        }
        let count = std::mem::take(&mut self.count);
        let telemetry = &self.wiring.telemetry;
        if self.wiring.outbox.send(&self.frames, OUTBOX) {
            telemetry.live_published.inc_by(count);
        } else {
            telemetry
                .live_missed
                .with_label_values(&["slow"])
                .inc_by(count);
        }
        self.frames.clear();
    }
}

/// Live topics by device, source and level: `None` where nobody watches.
#[derive(Debug, Default)]
struct TopicCache {
    known: HashMap<TopicKey, Option<Box<str>>>,
}

type TopicKey = (Arc<str>, Arc<str>, Level);

impl TopicCache {
    fn get(
        &mut self,
        names: &Names,
        level: Level,
        interest: &Interest,
        topics: &Topics,
    ) -> Option<&str> {
        let key = (Arc::clone(&names.device), Arc::clone(&names.source), level);
        if self.known.len() >= TOPICS && !self.known.contains_key(&key) {
            self.known.clear();
        }
        let decide = || {
            let topic = topics.format(Topic::Live {
                device: &names.device,
                level,
                source: &names.source,
            });
            interest.wants(&topic).then(|| topic.into_boxed_str())
        };
        self.known.entry(key).or_insert_with(decide).as_deref()
    }
}

/// How far behind the publishers the thread is, against its best so far: clocks of broker and
/// router may differ.
#[derive(Clone, Copy, Debug, Default)]
struct Lag {
    best: Option<i128>,
}

impl Lag {
    fn is_behind(&mut self, received: u64, most: Duration) -> bool {
        self.is_behind_at(received, clock::now_ns(), most)
    }

    fn is_behind_at(&mut self, received: u64, now: u64, most: Duration) -> bool {
        let lag = i128::from(now) - i128::from(received);
        let best = self.best.map_or(lag, |best| best.min(lag));
        self.best = Some(best);
        lag - best > most.as_nanos() as i128
    }
}

/// Appends a QoS 0 PUBLISH (MQTT 5.0 section 3.3); false if it cannot be one.
fn push_publish(topic: &str, payload: &[u8], out: &mut Vec<u8>) -> bool {
    const LARGEST: usize = 268_435_455;
    let Ok(topic_length) = u16::try_from(topic.len()) else {
        return false;
    };
    let mut remaining = 2 + topic.len() + 1 + payload.len();
    if remaining > LARGEST {
        return false;
    }
    out.push(0x30);
    while remaining >= 0x80 {
        out.push(remaining as u8 | 0x80);
        remaining >>= 7;
    }
    out.push(remaining as u8);
    out.extend_from_slice(&topic_length.to_be_bytes());
    out.extend_from_slice(topic.as_bytes());
    out.push(0);
    out.extend_from_slice(payload);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::frame;

    #[test]
    fn a_publish_reads_back() {
        for size in [0, 100, 200, 20_000, 3_000_000] {
            let mut out = Vec::new();
            assert!(push_publish(
                "thinglog/live/d/info/s",
                &vec![b'x'; size],
                &mut out
            ));
            let header = frame::header(&out, usize::MAX).unwrap().unwrap();
            assert_eq!(header.total, out.len());
            let publish = frame::publish(&out, header).unwrap();
            assert_eq!(
                (publish.qos, publish.topic),
                (0, &b"thinglog/live/d/info/s"[..])
            );
            assert_eq!(out.len() - publish.payload, size);
        }
    }

    #[test]
    fn behind_is_measured_against_the_best() {
        const S: u64 = 1_000_000_000;
        let two = Duration::from_secs(2);
        let mut lag = Lag::default();
        // The broker's clock is ten seconds behind ours: no lag.
        assert!(!lag.is_behind_at(100 * S, 110 * S, two));
        assert!(!lag.is_behind_at(101 * S, 112 * S, two));
        assert!(lag.is_behind_at(102 * S, 115 * S, two));
    }

    #[test]
    fn only_watched_topics_have_a_name() {
        let topics = Topics::default();
        let interest = Interest::parse(&topics, br#"["thinglog/live/+/error/#"]"#);
        let names = Names {
            device: Arc::from("lamp-7"),
            source: Arc::from("app"),
        };
        let mut cache = TopicCache::default();
        let error = cache.get(&names, Level::Error, &interest, &topics);
        assert_eq!(error, Some("thinglog/live/lamp-7/error/app"));
        assert_eq!(cache.get(&names, Level::Info, &interest, &topics), None);
    }
}
