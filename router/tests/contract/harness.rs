//! What a destination has to bring to be tested, and what the scenarios are written with.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use thinglog_router::{Config, Router};
use tokio_util::sync::CancellationToken;

use crate::common::{Client, Mosquitto, PATIENCE, Running, batch_with, until, until_within};

/// The service of one destination, running, and what it got.
pub(crate) trait Subject: Sized + Send + 'static {
    /// Whether events of a device arrive in their order.
    const ORDERED: bool = true;
    /// Whether the service recognises events that it has.
    const DEDUPLICATES: bool = false;
    /// Most events of a request of [`Subject::config`].
    const MAX_EVENTS: usize = 50;

    /// Events that are more than may be in memory at once, a twentieth of them.
    const FLOOD: u64 = 5000;

    /// Starts the service. `None` where it cannot be had: says so, and fails in CI.
    async fn start() -> Option<Self>;

    /// The destination's configuration, `type` included. Requests of at most
    /// [`Subject::MAX_EVENTS`] events, a timeout of about a second, retries within milliseconds.
    fn config(&self) -> Value;

    /// What the service has accepted, in the order in which it did.
    fn got(&self) -> Vec<Got>;

    /// Requests the service has answered, accepted or not, with when; empty if it cannot tell.
    fn requests(&self) -> Vec<Request> {
        Vec::new()
    }

    /// What the service would never have accepted, or a service must not be sent.
    fn violations(&self) -> Vec<String> {
        Vec::new()
    }

    /// Makes the next request fail, or all until further notice. False: this one cannot.
    fn fail(&self, fault: Fault) -> bool;

    /// Stops the service; nobody listens any more.
    async fn stop(&mut self);

    /// Starts it again where it was, with what it had.
    async fn resume(&mut self);
}

/// An event as the service has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Got {
    pub(crate) device: String,
    pub(crate) message: String,
}

/// A request as the service saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) at: Instant,
    pub(crate) events: usize,
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The next request: the service is unavailable (5xx).
    Unavailable,
    /// The next request: too many; come back after so many seconds.
    TooMany { retry_after_s: u64 },
    /// The next request is never answered.
    Hang,
    /// The next request: the connection is reset.
    Reset,
    /// From now on: whatever holds an event with `poison` in its message is refused for good.
    Poison,
    /// From now on: nothing is refused any more.
    Antidote,
}

/// A broker, the service, and a router between them.
pub(crate) struct Bench<S> {
    pub(crate) broker: Mosquitto,
    pub(crate) subject: S,
    pub(crate) data: tempfile::TempDir,
    pub(crate) device: Client,
    /// Next seq of each device.
    next: HashMap<String, u64>,
    /// What was acknowledged.
    pub(crate) sent: Vec<Got>,
}

impl<S: Subject> Bench<S> {
    pub(crate) async fn start() -> Option<Bench<S>> {
        let (broker, subject) = (Mosquitto::start()?, S::start().await?);
        let device = Client::connect(broker.port, "device");
        let bench = Bench {
            broker,
            subject,
            data: tempfile::tempdir().unwrap(),
            device,
            next: HashMap::new(),
            sent: Vec::new(),
        };
        // The session must exist before anything is published: mosquitto keeps no past.
        bench.router().await.stop().await;
        Some(bench)
    }

    /// The router's configuration.
    pub(crate) fn config(&self) -> Config {
        config(self.broker.port, self.data.path(), self.subject.config())
    }

    /// A router in this process.
    pub(crate) async fn router(&self) -> Running {
        Running::start(self.config()).await
    }

    /// Publishes a batch of new events of a device.
    pub(crate) async fn publish(&mut self, device: &str, count: u64) {
        self.publish_with(device, count, "").await;
    }

    /// The same with something behind each message.
    pub(crate) async fn publish_with(&mut self, device: &str, count: u64, behind: &str) {
        let from = self.next.entry(device.to_owned()).or_default();
        let seqs = *from..*from + count;
        *from += count;
        let payload = batch_with(7, seqs.clone(), behind);
        let topic = format!("thinglog/logs/{device}/app");
        self.device.publish(&topic, payload).await;
        self.sent.extend(seqs.map(|seq| Got {
            device: device.to_owned(),
            message: format!("event {seq}{behind}"),
        }));
    }

    /// Publishes one plain event.
    pub(crate) async fn publish_text(&mut self, device: &str, message: &str) {
        let topic = format!("thinglog/logs/{device}/app");
        self.device.publish(&topic, message).await;
        self.sent.push(Got {
            device: device.to_owned(),
            message: message.to_owned(),
        });
    }

    /// Waits until the service has everything that was acknowledged.
    pub(crate) async fn everything(&self) {
        let sent: HashSet<&Got> = self.sent.iter().collect();
        let what = format!("all {} events are delivered", sent.len());
        until_within(3 * PATIENCE, &what, || {
            let got: HashSet<Got> = self.subject.got().into_iter().collect();
            sent.iter().all(|sent| got.contains(sent))
        })
        .await;
    }

    /// Everything, once, in order, within all limits.
    pub(crate) async fn exactly(&self) {
        self.everything().await;
        let got = self.subject.got();
        assert_eq!(got.len(), self.sent.len(), "something came twice");
        if S::ORDERED {
            in_order(&got, &self.sent);
        }
        self.no_violations();
    }

    /// Everything at least once, in order where it came first.
    pub(crate) async fn at_least(&self) {
        self.everything().await;
        let got = self.subject.got();
        let mut seen = HashSet::new();
        let first: Vec<Got> = got
            .iter()
            .filter(|got| seen.insert((*got).clone()))
            .cloned()
            .collect();
        if S::DEDUPLICATES {
            assert_eq!(first.len(), got.len(), "the service has something twice");
        }
        if S::ORDERED {
            in_order(&first, &self.sent);
        }
        self.no_violations();
    }

    pub(crate) fn no_violations(&self) {
        assert_eq!(self.subject.violations(), Vec::<String>::new());
    }

    /// The lines of the dead letters.
    pub(crate) fn dead_letters(&self) -> Vec<Value> {
        let folder = self.data.path().join("router/subject/dead");
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|it| it == "ndjson"))
            .collect();
        files.sort();
        let texts = files
            .iter()
            .map(|file| std::fs::read_to_string(file).unwrap());
        let texts: Vec<String> = texts.collect();
        let lines = texts.iter().flat_map(|text| text.lines());
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// A router in a process of its own, to be killed.
    pub(crate) fn spawn_router(&self) -> Child {
        let config = serde_json::to_string(&self.config()).unwrap();
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "harness::router_process", "--nocapture"])
            .env("THINGLOG_TEST_ROUTER", config)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }
}

fn config(port: u16, data: &Path, subject: Value) -> Config {
    serde_json::from_value(json!({
        "broker": {"address": format!("127.0.0.1:{port}")},
        "data": data,
        "http": {"address": "127.0.0.1:0"},
        "destinations": {"subject": subject},
        "audit": {"gap_grace_s": 60},
        "live": {"enabled": false},
    }))
    .unwrap()
}

/// Each device's events stand in the order in which they were sent.
fn in_order(got: &[Got], sent: &[Got]) {
    let devices: HashSet<&str> = sent.iter().map(|it| it.device.as_str()).collect();
    for device in devices {
        let of = |all: &[Got]| -> Vec<String> {
            let of = all.iter().filter(|it| it.device == device);
            of.map(|it| it.message.clone()).collect()
        };
        assert_eq!(of(got), of(sent), "{device}: out of order");
    }
}

/// What came in less what became of it.
pub(crate) fn balance(router: &Running) -> f64 {
    let outcome = |what| router.metric("thinglog_router_events_total", &["subject", what]);
    let settled = ["delivered", "filtered", "duplicate", "rejected", "returned"];
    let in_flight = router.metric("thinglog_router_events_in_flight", &["subject"]);
    let settled: f64 = settled.into_iter().map(outcome).sum();
    outcome("received") + outcome("generated") - settled - in_flight
}

/// Nothing is in hand, and the books balance with these events delivered and rejected.
pub(crate) async fn books(router: &Running, delivered: usize, rejected: usize) {
    let outcome = |what| router.metric("thinglog_router_events_total", &["subject", what]);
    let settled = || outcome("delivered") + outcome("duplicate") + outcome("rejected");
    // In this order: what has not come in yet is not in flight either.
    until("nothing is in flight", || {
        settled() >= (delivered + rejected) as f64
            && router.metric("thinglog_router_events_in_flight", &["subject"]) == 0.0
    })
    .await;
    assert_eq!(balance(router), 0.0);
    assert_eq!(
        outcome("delivered") + outcome("duplicate"),
        delivered as f64
    );
    assert_eq!(outcome("rejected"), rejected as f64);
}

/// Not a test of its own: the process that [`Bench::spawn_router`] starts and a test kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn router_process() {
    let Ok(text) = std::env::var("THINGLOG_TEST_ROUTER") else {
        return;
    };
    let config: Config = serde_json::from_str(&text).unwrap();
    let router = Router::build(config, &prometheus::Registry::new()).unwrap();
    router.run(CancellationToken::new()).await.unwrap();
}

/// The tests of one destination: `crate::contract!(Webhook);` at the end of its file.
#[macro_export]
macro_rules! contract {
    ($subject:ident) => {
        mod contract {
            $crate::contract!(@tests super::$subject:
                everything_arrives_once_and_the_books_balance,
                events_are_gathered_into_requests,
                a_lone_event_is_not_kept_waiting,
                a_service_that_is_unavailable_is_tried_again,
                a_request_without_an_answer_is_sent_again,
                a_connection_that_breaks_is_made_again,
                what_the_service_asks_to_wait_is_waited,
                what_is_refused_becomes_a_dead_letter_and_the_rest_goes_on,
                dead_letters_are_sent_again_when_somebody_asks,
                a_restart_of_the_service_loses_nothing,
                memory_stays_within_its_cap,
                a_router_stops_although_the_service_is_down,
                a_killed_router_loses_nothing,
            );
        }
    };
    (@tests $subject:ty: $($test:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some(bench) = $crate::harness::Bench::<$subject>::start().await {
                    $crate::scenarios::$test(bench).await;
                }
            }
        )*
    };
}
