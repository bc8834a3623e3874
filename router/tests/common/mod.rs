//! A mosquitto of its own for each test, MQTT clients, and a router that runs in the test or, to be
//! killed, in a process of its own.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod http;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use prometheus::Registry;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
use rumqttc::v5::{AsyncClient, Event as MqttEvent, MqttOptions};
use thinglog_router::{Config, Router};
use thinglog_schemas::batch::{Batch, ClockInfo, Encoder, Entry};
use thinglog_schemas::{Attributes, Event, Severity, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A broker that ends with the value. `None` where mosquitto is not installed, unless in CI.
pub(crate) struct Mosquitto {
    child: Child,
    pub(crate) port: u16,
    folder: tempfile::TempDir,
}

impl Mosquitto {
    pub(crate) fn start() -> Option<Mosquitto> {
        Mosquitto::start_with("allow_anonymous true\nmax_inflight_messages 0\n")
    }

    /// With more lines of its configuration.
    pub(crate) fn start_with(more: &str) -> Option<Mosquitto> {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let config = folder.path().join("mosquitto.conf");
        let text = format!(
            "persistence false\nmax_queued_messages 0\nuser root\n\
             listener {port} 127.0.0.1\n{more}"
        );
        std::fs::write(&config, text).unwrap();
        let Some(child) = spawn_mosquitto(&config) else {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI must have mosquitto installed"
            );
            eprintln!("SKIPPED: mosquitto is not installed");
            return None;
        };
        let broker = Mosquitto {
            child,
            port,
            folder,
        };
        broker.wait_until_up();
        Some(broker)
    }

    /// Kills the broker and starts an empty one on the same port.
    pub(crate) fn restart(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        self.child.wait().unwrap();
        self.child = spawn_mosquitto(&self.folder.path().join("mosquitto.conf")).unwrap();
        self.wait_until_up();
    }

    /// Stops it where it is, or lets it go on: it keeps its connections and does nothing meanwhile.
    pub(crate) fn freeze(&self, freeze: bool) {
        let signal = if freeze { "-STOP" } else { "-CONT" };
        let process = self.child.id().to_string();
        let done = Command::new("kill").args([signal, &process]).status();
        assert!(done.unwrap().success());
    }

    /// Kills the broker.
    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Has the broker read its files again.
    pub(crate) fn reload(&self) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::HUP).unwrap();
    }

    fn wait_until_up(&self) {
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "mosquitto does not come up");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn_mosquitto(config: &Path) -> Option<Child> {
    let paths = ["mosquitto", "/usr/sbin/mosquitto"];
    paths.iter().find_map(|program| {
        Command::new(program)
            .arg("-c")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()
    })
}

/// Below the ports that connections get by themselves: one of them could take it before the server
/// does, or while the server is stopped.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = 10_000 + (getrandom::u32().unwrap() % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A configuration with one file destination called `file`.
pub(crate) fn config(port: u16, data: &Path) -> Config {
    let text = serde_json::json!({
        "broker": {"address": format!("127.0.0.1:{port}")},
        "data": data,
        "http": {"address": "127.0.0.1:0"},
        "destinations": {"file": {"type": "file"}},
        "audit": {"gap_grace_s": 1},
    });
    serde_json::from_value(text).unwrap()
}

/// A router in the test's own process.
pub(crate) struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), thinglog_router::RunError>>,
    pub(crate) http: std::net::SocketAddr,
    pub(crate) registry: Registry,
    pub(crate) fleet: thinglog_router::registry::Registry,
    pub(crate) health: thinglog_router::health::Health,
    pub(crate) reloader: thinglog_router::Reloader,
}

impl Running {
    /// Starts and waits until every part is ready.
    pub(crate) async fn start(config: Config) -> Running {
        let registry = Registry::new();
        let router = Router::build(config, &registry).unwrap();
        let (health, http) = (router.health(), router.http_address().unwrap());
        let (fleet, reloader) = (router.fleet(), router.reloader());
        let stop = CancellationToken::new();
        let task = tokio::spawn(router.run(stop.clone()));
        until("the router is ready", || health.is_ready()).await;
        Running {
            stop,
            task,
            http,
            registry,
            fleet,
            health,
            reloader,
        }
    }

    /// Stops as SIGTERM does.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }

    /// Whether a part is ready.
    pub(crate) fn is_ready(&self, part: &str) -> bool {
        self.health.parts().get(part).is_some_and(Option::is_none)
    }

    /// The value of a metric with these label values.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let families = self.registry.gather();
        let family = families
            .iter()
            .find(|family| family.name() == name)
            .unwrap();
        let found = family.get_metric().iter().find(|metric| {
            let values: Vec<&str> = metric
                .get_label()
                .iter()
                .map(|label| label.value())
                .collect();
            labels.iter().all(|label| values.contains(label))
        });
        found.map_or(0.0, |metric| {
            metric.get_counter().get_value() + metric.get_gauge().get_value()
        })
    }
}

/// An MQTT 5 client that gathers what it receives.
pub(crate) struct Client {
    client: AsyncClient,
    received: mpsc::Receiver<(String, Vec<u8>)>,
    acknowledged: mpsc::Receiver<()>,
    task: JoinHandle<()>,
}

impl Client {
    pub(crate) fn connect(port: u16, id: &str) -> Client {
        let mut options = MqttOptions::new(id, "127.0.0.1", port);
        options.set_max_packet_size(Some(4 << 20));
        let (client, mut events) = AsyncClient::new(options, 100);
        let (to, received) = mpsc::channel(10_000);
        let (acked, acknowledged) = mpsc::channel(10_000);
        let task = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(MqttEvent::Incoming(Packet::Publish(publish))) => {
                        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                        let _ = to.try_send((topic, publish.payload.to_vec()));
                    }
                    Ok(MqttEvent::Incoming(Packet::PubAck(_) | Packet::SubAck(_))) => {
                        let _ = acked.try_send(());
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        Client {
            client,
            received,
            acknowledged,
            task,
        }
    }

    /// Publishes at QoS 1 and waits for the acknowledgement.
    pub(crate) async fn publish(&mut self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.send(topic, payload.into(), false, Vec::new()).await;
    }

    pub(crate) async fn retain(&mut self, topic: &str, payload: &str) {
        self.send(topic, payload.as_bytes().to_vec(), true, Vec::new())
            .await;
    }

    /// Publishes as the bundled broker would deliver it.
    pub(crate) async fn publish_stamped(&mut self, topic: &str, payload: &[u8], offset: u64) {
        let stamp = (
            "thinglog-offset".to_owned(),
            format!("00000000000000aa/{offset}"),
        );
        let received = 1_767_323_045_000_000_000 + offset;
        let received = ("thinglog-received".to_owned(), received.to_string());
        self.send(topic, payload.to_vec(), false, vec![stamp, received])
            .await;
    }

    async fn send(
        &mut self,
        topic: &str,
        payload: Vec<u8>,
        retain: bool,
        user_properties: Vec<(String, String)>,
    ) {
        let properties = PublishProperties {
            user_properties,
            ..PublishProperties::default()
        };
        self.client
            .publish_with_properties(topic, QoS::AtLeastOnce, retain, payload, properties)
            .await
            .unwrap();
        self.acknowledgement().await;
    }

    pub(crate) async fn subscribe(&mut self, filter: &str) {
        self.client
            .subscribe(filter, QoS::AtLeastOnce)
            .await
            .unwrap();
        self.acknowledgement().await;
    }

    async fn acknowledgement(&mut self) {
        tokio::time::timeout(PATIENCE, self.acknowledged.recv())
            .await
            .unwrap()
            .unwrap();
    }

    /// The next message on a topic that `wanted` accepts.
    pub(crate) async fn next(
        &mut self,
        wanted: impl Fn(&str) -> bool,
    ) -> (String, serde_json::Value) {
        let receive = async {
            loop {
                let (topic, payload) = self.received.recv().await.unwrap();
                if wanted(&topic) {
                    let value = serde_json::from_slice(&payload).unwrap_or(serde_json::Value::Null);
                    return (topic, value);
                }
            }
        };
        tokio::time::timeout(PATIENCE, receive)
            .await
            .expect("no such message arrives")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until `done`, or fails with what was waited for.
pub(crate) async fn until(what: &str, done: impl FnMut() -> bool) {
    until_within(PATIENCE, what, done).await;
}

/// The same for what may take longer.
pub(crate) async fn until_within(patience: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !done() {
        assert!(Instant::now() < deadline, "still waiting: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Every event of the destination `file`, rotated files first.
pub(crate) fn events(data: &Path) -> Vec<Event> {
    events_of(data, "file")
}

/// Every event of a file destination, rotated files first.
pub(crate) fn events_of(data: &Path, destination: &str) -> Vec<Event> {
    let folder = data.join("router").join(destination);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "ndjson")
    });
    // `events-…` sorts before `events.`, ascending.
    paths.sort();
    let mut events = Vec::new();
    for path in paths {
        let text = std::fs::read(path).unwrap();
        events.extend(lines(&text).map(|line| json::read(line).unwrap()));
    }
    events
}

/// Complete lines only: the last may be just being written.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end = text
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    text[..end]
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
}

pub(crate) fn messages(data: &Path) -> Vec<String> {
    events(data)
        .into_iter()
        .map(|event| event.message)
        .collect()
}

/// A batch of a lane with the messages `event <seq>`.
pub(crate) fn batch(epoch: u64, seqs: impl IntoIterator<Item = u64>) -> Vec<u8> {
    batch_with(epoch, seqs, "")
}

/// The same with something behind each message.
pub(crate) fn batch_with(epoch: u64, seqs: impl IntoIterator<Item = u64>, behind: &str) -> Vec<u8> {
    let entry = |seq| Entry {
        seq,
        time: 1_767_323_045_000_000_000 + seq,
        severity: Severity::INFO,
        message: format!("event {seq}{behind}"),
        truncated: false,
        attributes: Attributes::new(),
    };
    let entries: Vec<Entry> = seqs.into_iter().map(entry).collect();
    let batch = Batch {
        epoch,
        first_seq: entries.first().map_or(0, |entry| entry.seq),
        clock: ClockInfo {
            boot: 1,
            sent_mono: 0,
            synced: true,
        },
        drops: Vec::new(),
        entries,
    };
    let mut out = Vec::new();
    Encoder::new().encode(&batch, &mut out).unwrap();
    out
}
