//! What the broker does by itself, beside serving: checkpoints, retention, the interest topic, alerts of
//! subscriptions that are about to lose records.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use thinglog_journal::Journal;
use thinglog_schemas::topic::Topic;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    clock,
    config::OnFull,
    hub::Hub,
    lag::{Alarm, Held},
    message::Message,
    sys::{Now, Sys},
    telemetry::MOST_CLIENTS,
};

/// How often cursors go to disk; what was acknowledged since is sent again after a crash.
const CHECKPOINT: Duration = Duration::from_millis(250);
/// The interest topic changes at most this often.
const INTEREST: Duration = Duration::from_millis(100);
/// Retention by age is applied this often.
const RETENTION: Duration = Duration::from_secs(60);
/// How often it is looked who is about to lose records.
const LAG: Duration = Duration::from_secs(5);

/// Keeps house until `shutdown`.
pub(crate) async fn keep_house(hub: Arc<Hub>, shutdown: CancellationToken) {
    let mut checkpoint = interval(CHECKPOINT);
    let mut retention = interval(RETENTION);
    let mut lag = interval(LAG);
    checkpoint.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut alarm = Alarm::default();
    loop {
        tokio::select! {
            _ = checkpoint.tick() => {
                let timed = hub.telemetry.checkpoint_seconds.start_timer();
                hub.checkpoint();
                timed.observe_duration();
                tidy_mail(&hub).await;
                if hub.config.retention.on_full == OnFull::Refuse {
                    release(&hub).await;
                }
                hub.renew_state();
                let failed = hub.failed_journals();
                hub.telemetry.stored(&hub.journal.stats(), failed, &hub.state);
            }
            _ = retention.tick() => {
                hub.remove_expired(clock::now());
                retain(&hub).await;
            }
            _ = lag.tick() => if let Some(now) = count(&hub).await {
                alert(&hub, &mut alarm, now.census.furthest).await;
            },
            () = shutdown.cancelled() => return,
        }
    }
}

/// Keeps the topics below `$SYS/broker` up to date.
pub(crate) async fn publish_sys(hub: Arc<Hub>, shutdown: CancellationToken) {
    let mut due = interval(Duration::from_secs(hub.config.sys_seconds.max(1)));
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (started, mut last, mut sys) = (Instant::now(), Instant::now(), Sys::default());
    loop {
        tokio::select! {
            _ = due.tick() => {}
            () = shutdown.cancelled() => return,
        }
        let Some(now) = count(&hub).await else { return };
        let passed = std::mem::replace(&mut last, Instant::now()).elapsed();
        let totals = hub.telemetry.totals();
        for (topic, value) in sys.changes(totals, &now, started.elapsed(), passed) {
            hub.announce(&format!("$SYS/broker/{topic}"), Bytes::from(value), 0);
        }
    }
}

/// Counts what there is, for whoever wants to know, and tells the metrics.
async fn count(hub: &Arc<Hub>) -> Option<Now> {
    let counting = hub.clone();
    let counted = tokio::task::spawn_blocking(move || counting.count(MOST_CLIENTS)).await;
    let now = counted.ok()?;
    hub.telemetry.counted(&now, hub.journal.settled());
    Some(now)
}

/// Publishes the live filters whenever they change.
pub(crate) async fn publish_interest(hub: Arc<Hub>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = hub.interest.changed.notified() => hub.publish_interest(),
            () = shutdown.cancelled() => return,
        }
        sleep(INTEREST).await;
    }
}

/// Makes room in a log that refuses when full: what every session has read may go. While no session
/// reads the log nothing goes.
async fn release(hub: &Arc<Hub>) {
    if let Some(unread) = hub.released_to() {
        upkeep(hub, "release of the durable log", move |hub| {
            hub.journal.release(unread)
        })
        .await;
    }
}

async fn tidy_mail(hub: &Arc<Hub>) {
    upkeep(hub, "removal of old queued messages", Hub::tidy_mail).await;
}

async fn retain(hub: &Arc<Hub>) {
    upkeep(hub, "retention of the durable log", |hub| {
        hub.journal.retain(clock::now())
    })
    .await;
}

/// Runs what deletes segments, which may wait for the disk, beside the async threads.
async fn upkeep(
    hub: &Arc<Hub>,
    what: &'static str,
    work: impl FnOnce(&Hub) -> std::io::Result<()> + Send + 'static,
) {
    let worked_on = hub.clone();
    match tokio::task::spawn_blocking(move || work(&worked_on)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, what, "upkeep failed"),
        Err(error) => warn!(%error, what, "upkeep did not finish"),
    }
}

/// Says which durable subscriptions are about to lose records, in the log and on `alerts/retention`.
async fn alert(hub: &Arc<Hub>, alarm: &mut Alarm, lagging: Vec<(Arc<str>, u64)>) {
    let positions = lagging.clone();
    let (journal, held) = (hub.journal.clone(), held(hub));
    let looked = tokio::task::spawn_blocking(move || {
        let used = positions.into_iter().map(|(client, position)| {
            let age = clock::now().saturating_sub(time_of(&journal, position));
            (client, held.used(position, age))
        });
        used.collect::<Vec<_>>()
    });
    let Ok(used) = looked.await else { return };
    for (client, used) in alarm.due(&used) {
        let position = lagging
            .iter()
            .find(|(other, _)| *other == client)
            .map_or(held.next, |(_, position)| *position);
        let unread = held.next.saturating_sub(position);
        let percent = (used * 100.0) as u64;
        warn!(
            %client,
            unread,
            percent,
            "a durable subscription is about to lose records to retention; let it read, or raise broker.retention"
        );
        let payload = serde_json::json!({
            "client": &*client, "unread_records": unread, "retention_used_percent": percent,
        });
        let topic = hub.topics.format(Topic::Alerts { rule: "retention" });
        let message = Message::own(&topic, Bytes::from(payload.to_string()), 1);
        if hub.publish(message, None).is_err() {
            hub.telemetry.dropped(&client, "alert not stored");
        }
    }
}

fn held(hub: &Hub) -> Held {
    let stats = hub.journal.stats();
    let retention = &hub.config.retention;
    Held {
        first: stats.first,
        next: stats.next,
        bytes: stats.bytes,
        max_bytes: retention.bytes,
        max_age: (retention.hours > 0).then(|| retention.hours.saturating_mul(3_600_000_000_000)),
    }
}

/// Receive time of the record at or after an offset; now when there is none to be read.
fn time_of(journal: &Journal, offset: u64) -> u64 {
    journal
        .reader(offset)
        .read(1)
        .ok()
        .flatten()
        .and_then(|mut chunk| chunk.next_record())
        .map_or_else(clock::now, |record| record.time)
}
