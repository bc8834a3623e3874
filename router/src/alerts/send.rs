//! Sends notifications: one thread, a task for each receiver, one notification at a time, in order,
//! until the receiver has taken it or refused it for good.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use thinglog_schemas::{Topic, Topics};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::lane::REPEAT_EVERY;
use super::metrics::AlertMetrics;
use super::notice::{Notice, REPEAT};
use crate::backoff::{Backoff, Jitter};
use crate::config::{Config, MQTT_RECEIVER, ReceiverConfig};
use crate::deliver::remote::verdict::Verdict;
use crate::mqtt::publisher::{Message, Publisher, Refused};

/// Notifications that wait for one receiver; others stay with the rules.
const QUEUE: usize = 256;
/// How long a repetition may wait behind others.
const FRESH: Duration = Duration::from_nanos(REPEAT_EVERY);
const RETRY_FROM: Duration = Duration::from_millis(500);
const RETRY_UP_TO: Duration = Duration::from_secs(60);

/// Where notifications are handed in.
pub(crate) struct Sender {
    queues: BTreeMap<String, mpsc::Sender<Queued>>,
    done: Arc<Mutex<Vec<u64>>>,
    ending: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// A notification, and when it was handed in.
type Queued = (Notice, Instant);

/// A receiver, ready to use.
pub(crate) enum Receiver {
    /// `<root>/alerts/<rule>` at the router's own broker.
    Mqtt(Publisher, Topics),
    /// Behind HTTP.
    #[cfg(feature = "webhook")]
    Webhook(Box<crate::destinations::webhook::Hook>),
}

/// Names of receivers that are Alertmanagers.
pub(crate) fn alertmanagers(config: &Config) -> BTreeSet<String> {
    let all = config.receivers.iter();
    let all = all.filter(|(_, it)| matches!(it, ReceiverConfig::Alertmanager { .. }));
    all.map(|(name, _)| name.clone()).collect()
}

/// Makes the receivers of a configuration; an error names the receiver, its key and the reason.
pub(crate) fn receivers(
    config: &Config,
    publisher: &Publisher,
    topics: &Topics,
) -> Result<BTreeMap<String, Receiver>, String> {
    let mqtt = Receiver::Mqtt(publisher.clone(), topics.clone());
    let mut receivers = BTreeMap::from([(MQTT_RECEIVER.to_owned(), mqtt)]);
    for (name, receiver) in &config.receivers {
        let made = made(receiver).map_err(|reason| format!("receivers.{name}.{reason}"))?;
        receivers.insert(name.clone(), made);
    }
    Ok(receivers)
}

#[cfg(feature = "webhook")]
fn made(config: &ReceiverConfig) -> Result<Receiver, String> {
    use crate::config::Method;
    use crate::destinations::webhook::Hook;

    match config {
        ReceiverConfig::Webhook {
            url,
            method,
            secret,
            http,
        } => Hook::new(url, *method, secret.as_ref(), http)
            .map(|hook| Receiver::Webhook(Box::new(hook))),
        ReceiverConfig::Alertmanager { url, http } => {
            let url = format!("{}/api/v2/alerts", url.trim_end_matches('/'));
            let hook = Hook::new(&url, Method::Post, None, http)?;
            Ok(Receiver::Webhook(Box::new(hook)))
        }
    }
}

#[cfg(not(feature = "webhook"))]
fn made(config: &ReceiverConfig) -> Result<Receiver, String> {
    Err(format!("type: this build has no {}", config.kind()))
}

impl Sender {
    /// Starts the thread.
    pub(crate) fn start(
        receivers: BTreeMap<String, Receiver>,
        metrics: &AlertMetrics,
    ) -> std::io::Result<Sender> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (done, ending) = (Arc::default(), CancellationToken::new());
        let mut queues = BTreeMap::new();
        for (name, receiver) in receivers {
            let (queue, notices) = mpsc::channel(QUEUE);
            queues.insert(name.clone(), queue);
            let task = Task {
                name,
                receiver,
                done: Arc::clone(&done),
                metrics: metrics.clone(),
                backoff: Backoff::new(RETRY_FROM, RETRY_UP_TO, Jitter::from_system()),
            };
            runtime.spawn(task.run(notices));
        }
        let stop = ending.clone();
        let thread = std::thread::Builder::new()
            .name("send alerts".into())
            .spawn(move || runtime.block_on(stop.cancelled()))?;
        Ok(Sender {
            queues,
            done,
            ending,
            thread: Some(thread),
        })
    }

    /// Hands in a notification; whether there was room. One without a receiver is done with.
    pub(crate) fn send(&self, notice: &Notice) -> bool {
        match self.queues.get(&notice.receiver) {
            Some(queue) => queue.try_send((notice.clone(), Instant::now())).is_ok(),
            None => {
                self.done.lock().push(notice.number);
                true
            }
        }
    }

    /// Hands in what has been told before.
    pub(crate) fn repeat(&self, notice: &Notice) {
        if let Some(queue) = self.queues.get(&notice.receiver) {
            // Without room the next one will do.
            let _ = queue.try_send((notice.clone(), Instant::now()));
        }
    }

    /// Numbers of notifications that need not be sent any more.
    pub(crate) fn take_done(&self) -> Vec<u64> {
        std::mem::take(&mut self.done.lock())
    }
}

/// What is under way is abandoned: it is sent again in the next life.
impl Drop for Sender {
    fn drop(&mut self) {
        self.ending.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The task of one receiver.
struct Task {
    name: String,
    receiver: Receiver,
    done: Arc<Mutex<Vec<u64>>>,
    metrics: AlertMetrics,
    backoff: Backoff,
}

impl Task {
    async fn run(mut self, mut notices: mpsc::Receiver<Queued>) {
        while let Some((notice, since)) = notices.recv().await {
            // An old one would tell the receiver of ends that are none.
            if notice.number == REPEAT && since.elapsed() > FRESH {
                continue;
            }
            let outcome = self.deliver(&notice).await;
            self.metrics.done(&notice.rule, &self.name, outcome);
            self.done.lock().push(notice.number);
        }
    }

    /// Sends a notification as often as it takes; gives what became of it.
    async fn deliver(&mut self, notice: &Notice) -> &'static str {
        loop {
            match self.receiver.send(notice).await {
                Verdict::Refused { reason } => {
                    tracing::error!(
                        receiver = self.name,
                        rule = notice.rule,
                        reason,
                        "a notification was refused for good: nobody hears of it there"
                    );
                    return "refused";
                }
                Verdict::Retry { reason, .. } if notice.number == REPEAT => {
                    let receiver = &self.name;
                    tracing::warn!(receiver, reason, "open alerts could not be told again");
                    return "retried";
                }
                Verdict::Retry { after, reason } => {
                    let wait = self.backoff.failed(after);
                    self.metrics.retry(&self.name);
                    tracing::warn!(
                        receiver = self.name,
                        rule = notice.rule,
                        reason,
                        wait_ms = wait.as_millis() as u64,
                        "a notification is to be sent again"
                    );
                    tokio::time::sleep(wait).await;
                }
                Verdict::Accepted | Verdict::Items(_) => {
                    self.backoff.succeeded();
                    return "sent";
                }
            }
        }
    }
}

impl Receiver {
    async fn send(&self, notice: &Notice) -> Verdict {
        match self {
            Receiver::Mqtt(publisher, topics) => publish(publisher, topics, notice).await,
            #[cfg(feature = "webhook")]
            Receiver::Webhook(hook) => hook.send(notice.body.clone().into_bytes()).await,
        }
    }
}

async fn publish(publisher: &Publisher, topics: &Topics, notice: &Notice) -> Verdict {
    let (done, answer) = oneshot::channel();
    let message = Message {
        topic: topics.format(Topic::Alerts { rule: &notice.rule }),
        payload: Bytes::from(notice.body.clone()),
        retain: false,
        done: Some(done),
        while_waited: false,
    };
    if publisher.publish(message).await.is_err() {
        return Verdict::retry("the router is stopping");
    }
    match answer.await {
        Ok(Ok(())) => Verdict::Accepted,
        // Topic name or packet: it will never be taken. A right or room may be given later.
        Ok(Err(refused @ (Refused::TooLarge(_) | Refused::Reason(0x90 | 0x95 | 0x99)))) => {
            Verdict::Refused {
                reason: refused.to_string(),
            }
        }
        Ok(Err(refused)) => Verdict::retry(refused.to_string()),
        Err(_) => Verdict::retry("the router is stopping"),
    }
}
