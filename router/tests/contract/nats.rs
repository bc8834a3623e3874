//! NATS JetStream: a real server, with a proxy in front of it that makes connections fail.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::ConnectOptions;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::push::OrderedConfig;
use async_nats::jetstream::{self, stream};
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::certificates::Certificates;
use crate::common::{PATIENCE, Running, free_port, until};
use crate::harness::{Bench, Fault, Got, Subject, books};
use crate::tcp_proxy::TcpProxy;

/// Most bytes of a message of the stream.
const MAX_MESSAGE: i32 = 4096;

/// A server with a folder for its streams. It ends with the value.
struct Server {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Server {
    /// `None` where it is not installed, unless in CI. `more` are further lines of its configuration.
    async fn start(more: &str) -> Option<Server> {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let config = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\" }}\n{more}\n",
            folder.path().display()
        );
        std::fs::write(folder.path().join("nats.conf"), config).unwrap();
        let Some(child) = spawn(folder.path()) else {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI must have nats-server installed: tests/run does it"
            );
            eprintln!("SKIPPED: nats-server is not installed; tests/run does it");
            return None;
        };
        let server = Server {
            child,
            folder,
            port,
        };
        server.wait_until_up().await;
        Some(server)
    }

    async fn resume(&mut self) {
        self.child = spawn(self.folder.path()).unwrap();
        self.wait_until_up().await;
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    async fn wait_until_up(&self) {
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "nats-server does not come up");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &Path) -> Option<Child> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let installed = target.join("clients/python/bin/nats-server");
    Command::new(installed)
        .arg("-c")
        .arg(folder.join("nats.conf"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()
}

/// A client that logs in as these options say, once JetStream answers.
async fn jetstream(port: u16, options: ConnectOptions) -> jetstream::Context {
    let client = options
        .connect(format!("nats://127.0.0.1:{port}"))
        .await
        .unwrap();
    let context = jetstream::new(client);
    let deadline = Instant::now() + PATIENCE;
    while context.query_account().await.is_err() {
        assert!(Instant::now() < deadline, "JetStream does not come up");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    context
}

fn stream_config() -> stream::Config {
    stream::Config {
        name: "LOGS".into(),
        subjects: vec!["logs.>".into()],
        max_message_size: MAX_MESSAGE,
        ..stream::Config::default()
    }
}

pub(crate) struct Nats {
    server: Server,
    proxy: TcpProxy,
    got: Arc<Mutex<Vec<Got>>>,
    reader: JoinHandle<()>,
}

impl Nats {
    /// Reads on behind what has been read.
    async fn read(port: u16, got: Arc<Mutex<Vec<Got>>>) -> JoinHandle<()> {
        let context = jetstream(port, ConnectOptions::new()).await;
        let stream = context.get_or_create_stream(stream_config()).await.unwrap();
        let config = OrderedConfig {
            deliver_subject: "reader".into(),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: got.lock().len() as u64 + 1,
            },
            ..OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await.unwrap();
        let mut messages = consumer.messages().await.unwrap();
        tokio::spawn(async move {
            while let Some(Ok(message)) = messages.next().await {
                let event: Value = serde_json::from_slice(&message.payload).unwrap();
                let text = |key: &str| event[key].as_str().unwrap().to_owned();
                let subject = format!("logs.{}.{}", text("device"), text("source"));
                assert_eq!(message.subject.as_str(), subject);
                got.lock().push(Got {
                    device: text("device"),
                    message: text("message"),
                });
            }
        })
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Subject for Nats {
    const DEDUPLICATES: bool = true;
    /// An event is a message here.
    const FLOOD: u64 = 2000;

    async fn start() -> Option<Nats> {
        let server = Server::start("").await?;
        let got = Arc::<Mutex<Vec<Got>>>::default();
        let reader = Nats::read(server.port, Arc::clone(&got)).await;
        let proxy = TcpProxy::start_with(server.port, Some(b"HPUB ")).await;
        Some(Nats {
            server,
            proxy,
            got,
            reader,
        })
    }

    fn config(&self) -> Value {
        json!({
            "type": "nats",
            "servers": [format!("nats://{}", self.proxy.address)],
            "subject": "logs.{{device}}.{{source}}",
            "stream": "LOGS",
            "timeout_ms": 1000,
            "batch": {"max_events": Self::MAX_EVENTS, "max_bytes": 64 << 10, "max_age_ms": 50},
            "retry": {"from_ms": 5, "max_ms": 50},
            "memory_bytes": 10 << 20,
        })
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().clone()
    }

    fn fail(&self, fault: Fault) -> bool {
        let can = matches!(fault, Fault::Unavailable | Fault::Hang | Fault::Reset);
        if can {
            self.proxy.fail(fault);
        }
        can
    }

    async fn stop(&mut self) {
        self.proxy.close().await;
        self.reader.abort();
        self.server.stop();
    }

    async fn resume(&mut self) {
        self.server.resume().await;
        self.reader = Nats::read(self.server.port, Arc::clone(&self.got)).await;
        self.proxy.listen().await;
    }
}

crate::contract!(Nats);

/// A router that delivers to the subject with these changes of its configuration.
async fn router(bench: &Bench<Nats>, changes: Value) -> Running {
    let mut subject = bench.subject.config();
    for (key, value) in changes.as_object().unwrap() {
        subject[key] = value.clone();
    }
    let mut config = bench.config();
    let subject = serde_json::from_value(subject).unwrap();
    config.destinations.insert("subject".into(), subject);
    Running::start(config).await
}

fn reason(router: &Running) -> String {
    let parts = router.health.parts();
    parts.get("subject").cloned().flatten().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_for_the_stream_is_a_dead_letter_and_the_rest_goes_on() {
    let Some(mut bench) = Bench::<Nats>::start().await else {
        return;
    };
    let large = "x".repeat(MAX_MESSAGE as usize);
    bench.publish("lamp-1", 10).await;
    bench.publish_text("lamp-1", &large).await;
    bench.publish("lamp-1", 10).await;
    let router = bench.router().await;
    bench.sent.retain(|sent| sent.message != large);
    bench.exactly().await;
    books(&router, 20, 1).await;
    let letters = bench.dead_letters();
    assert_eq!(letters[0]["event"]["message"], large.as_str());
    let reason = letters[0]["reason"].as_str().unwrap();
    assert!(reason.contains("exceeds maximum"), "{reason}");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_wait_for_a_stream_and_for_room_in_it() {
    let Some(mut bench) = Bench::<Nats>::start().await else {
        return;
    };
    let changes = json!({"subject": "other.{{device}}", "stream": "OTHER"});
    let router = router(&bench, changes).await;
    bench.publish("lamp-1", 20).await;
    until("that there is no stream is told", || {
        reason(&router).contains("no stream takes the subject")
    })
    .await;
    let context = jetstream(bench.subject.server.port, ConnectOptions::new()).await;
    let mut config = stream::Config {
        name: "OTHER".into(),
        subjects: vec!["other.>".into()],
        max_messages: 5,
        discard: stream::DiscardPolicy::New,
        ..stream::Config::default()
    };
    context.create_stream(config.clone()).await.unwrap();
    until("that it is full is told", || {
        reason(&router).contains("maximum messages exceeded")
    })
    .await;
    config.max_messages = 100;
    context.update_stream(config).await.unwrap();
    books(&router, 20, 0).await;
    let mut stream = context.get_stream("OTHER").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 20);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_with_a_login_whose_password_is_put_right_later() {
    let folder = tempfile::tempdir().unwrap();
    let files = Certificates::make(folder.path());
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "wrong\n").unwrap();
    let more = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\" }}\n\
         authorization {{ user: \"thinglog\", password: \"hush\" }}",
        files.certificate.display(),
        files.key.display()
    );
    let (Some(mut bench), Some(server)) =
        (Bench::<Nats>::start().await, Server::start(&more).await)
    else {
        return;
    };
    let changes = json!({
        "servers": [format!("tls://localhost:{}", server.port)],
        "tls": {"ca": files.ca},
        "username": "thinglog",
        "password": {"file": secret},
    });
    let router = router(&bench, changes).await;
    bench.publish("lamp-1", 20).await;
    until("the wrong password is told", || {
        reason(&router).contains("authorization")
    })
    .await;
    let login = ConnectOptions::with_user_and_password("thinglog".into(), "hush".into())
        .add_root_certificates(files.ca);
    let client = login
        .require_tls(true)
        .connect(format!("tls://localhost:{}", server.port))
        .await
        .unwrap();
    let context = jetstream::new(client);
    context.create_stream(stream_config()).await.unwrap();
    std::fs::write(&secret, "hush\n").unwrap();
    books(&router, 20, 0).await;
    router.stop().await;
}
