//! What unit tests of several modules are made from.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prometheus::Registry;
use thinglog_schemas::batch::{Batch, ClockInfo, Drop, DropReason, Encoder, Entry};
use thinglog_schemas::payload::{Decoded, Stamp};
use thinglog_schemas::{Attributes, Event, EventId, Severity, Topics};

use crate::dedup::table::Table;
use crate::deliver::judge::{Judge, Reader};
use crate::deliver::share::{DecodeCache, Seat, Shared};
use crate::deliver::stage::Way;
use crate::levels::facts::FactsCache;
use crate::levels::{LevelCache, Levels};
use crate::mqtt::Delivery;
use crate::mqtt::names::TopicInfo;
use crate::telemetry::Telemetry;

/// A delivery on `thinglog/logs/lamp-7/app`, stamped with journal 1 where an offset is given.
pub(crate) fn delivery(payload: impl Into<Bytes>, offset: Option<u64>) -> Delivery {
    let topic = TopicInfo::new(&Topics::default(), b"thinglog/logs/lamp-7/app");
    Delivery {
        topic: Arc::new(topic),
        payload: payload.into(),
        retain: false,
        stamp: Stamp {
            stored: offset.map(|offset| (1, offset)),
            ..Stamp::default()
        },
        number: offset.unwrap_or(0),
    }
}

/// A payload of one plain event of `lamp-7/app`.
pub(crate) fn decoded(message: &str) -> Decoded {
    let event = Event {
        device: Arc::from("lamp-7"),
        source: Arc::from("app"),
        id: EventId::None,
        time: 0,
        time_estimated: false,
        severity: Severity::INFO,
        message: message.into(),
        truncated: false,
        attributes: Attributes::new(),
        received: 0,
    };
    Decoded {
        events: vec![event],
        lane: None,
    }
}

/// A batch of epoch 1 with events of these numbers; odd numbers are DEBUG, the others INFO.
pub(crate) fn batch(seqs: &[u64], drops: &[(u64, u64, u64)]) -> Vec<u8> {
    let entry = |&seq: &u64| Entry {
        seq,
        time: 1_767_323_045_000_000_000 + seq,
        severity: if seq % 2 == 1 {
            Severity::DEBUG
        } else {
            Severity::INFO
        },
        message: format!("event {seq}"),
        truncated: false,
        attributes: Attributes::new(),
    };
    let drop = |&(from, to, count): &(u64, u64, u64)| Drop {
        from,
        to,
        count,
        severity: Severity::INFO,
        reason: DropReason::SpoolFull,
    };
    let first_drop = drops.iter().map(|drop| drop.0);
    let batch = Batch {
        epoch: 1,
        first_seq: seqs.iter().copied().chain(first_drop).min().unwrap_or(0),
        clock: ClockInfo {
            boot: 1,
            sent_mono: 0,
            synced: true,
        },
        drops: drops.iter().map(drop).collect(),
        entries: seqs.iter().map(entry).collect(),
    };
    let mut payload = Vec::new();
    Encoder::new().encode(&batch, &mut payload).unwrap();
    payload
}

pub(crate) fn telemetry() -> Telemetry {
    Telemetry::new(&Registry::new()).unwrap()
}

/// A cache for this many readers.
pub(crate) fn cache(readers: u32) -> Arc<DecodeCache> {
    let telemetry = telemetry();
    let (hits, misses) = (telemetry.cache_hits, telemetry.cache_misses);
    Arc::new(DecodeCache::new(readers, 1 << 20, hits, misses))
}

/// A way without routes that nobody taps.
pub(crate) fn way(levels: Arc<Levels>) -> Way {
    Way {
        routes: Arc::default(),
        facts: FactsCache::new(levels),
        tap: Arc::default(),
    }
}

/// A judge over `table`, and the levels it goes by.
pub(crate) fn judge(table: Table) -> (Judge, Arc<Levels>) {
    let (levels, _) = Levels::new();
    let cache = LevelCache::new(Arc::clone(&levels));
    let judge = Judge::new(
        Reader::new(Shared::new(self::cache(1), Seat::Front)),
        cache,
        table,
    );
    (judge, levels)
}

/// Time that the processor spends on this process, all its threads that still run.
pub(crate) struct Spent(Duration);

impl Spent {
    pub(crate) fn now() -> Spent {
        Spent(cpu())
    }

    /// Since then.
    pub(crate) fn elapsed(&self) -> Duration {
        cpu().saturating_sub(self.0)
    }
}

/// The first number of each thread's `schedstat` (proc(5)): nanoseconds on a processor.
fn cpu() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let spent = threads.flatten().filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(spent.sum())
}
