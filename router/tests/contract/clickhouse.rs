//! ClickHouse: its engine (chdb, of PyPI) behind a small part of its HTTP interface, in a process of its
//! own (`clickhouse_server.py`); a proxy in front of it makes connections fail.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::common::{PATIENCE, Running, free_port, until};
use crate::harness::{Bench, Fault, Got, Subject, books};
use crate::tcp_proxy::TcpProxy;

struct Server {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Server {
    /// `None` where it is not installed, unless in CI.
    fn start() -> Option<Server> {
        let is_there = python()
            .args(["-c", "import chdb"])
            .stderr(Stdio::null())
            .status();
        if !is_there.is_ok_and(|status| status.success()) {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI must have chdb installed: tests/run does it"
            );
            eprintln!("SKIPPED: chdb is not installed; tests/run does it");
            return None;
        }
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let server = Server {
            child: spawn(folder.path(), port),
            folder,
            port,
        };
        server.wait_until_up();
        Some(server)
    }

    fn wait_until_up(&self) {
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "chdb does not come up");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// What a statement gives; panics where it is an exception.
    fn sql(&self, statement: &str) -> String {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let length = statement.len();
        let head = format!(
            "POST /?query= HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(statement.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{statement}: {answer}");
        body.trim_end_matches('\n').to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn python() -> Command {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    Command::new(target.join("clients/python/bin/python"))
}

fn spawn(folder: &Path, port: u16) -> Child {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract/clickhouse_server.py");
    python()
        .arg(script)
        .arg(port.to_string())
        .arg(folder.join("data"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

pub(crate) struct Clickhouse {
    server: Server,
    proxy: TcpProxy,
}

impl Subject for Clickhouse {
    const ORDERED: bool = false;
    const DEDUPLICATES: bool = true;
    /// All are read back, again and again.
    const FLOOD: u64 = 2000;

    async fn start() -> Option<Clickhouse> {
        let server = Server::start()?;
        let proxy = TcpProxy::start_with(server.port, Some(b"POST /?query=INSERT")).await;
        Some(Clickhouse { server, proxy })
    }

    fn config(&self) -> Value {
        json!({
            "type": "clickhouse",
            "url": format!("http://{}", self.proxy.address),
            "table": "events",
            "compression": "gzip",
            "http": {"timeout_ms": 5000},
            "batch": {"max_events": Self::MAX_EVENTS, "max_bytes": 64 << 10, "max_age_ms": 50},
            "retry": {"from_ms": 5, "max_ms": 50},
            "memory_bytes": 10 << 20,
        })
    }

    fn got(&self) -> Vec<Got> {
        if self.server.sql("EXISTS TABLE default.events") == "0" {
            return Vec::new();
        }
        let rows = self
            .server
            .sql("SELECT toJSONString((device, message)) FROM default.events FINAL ORDER BY time FORMAT TSVRaw");
        let read = |row: &str| {
            let (device, message) = serde_json::from_str(row).unwrap();
            Got { device, message }
        };
        rows.lines().map(read).collect()
    }

    fn fail(&self, fault: Fault) -> bool {
        let poison =
            "ALTER TABLE default.events ADD CONSTRAINT p CHECK NOT match(message, 'poison')";
        match fault {
            Fault::Unavailable | Fault::Hang | Fault::Reset => self.proxy.fail(fault),
            Fault::Poison => {
                let columns = "id String, time DateTime64(9), received DateTime64(9), device String, \
                               source String, severity UInt8, level String, message String, \
                               attributes Map(String, String), time_estimated Bool, truncated Bool";
                let create = format!(
                    "CREATE TABLE default.events ({columns}) ENGINE = ReplacingMergeTree \
                     ORDER BY (device, time, id, message)"
                );
                self.server.sql(&create);
                self.server.sql(poison);
            }
            Fault::Antidote => {
                let drop = "ALTER TABLE default.events DROP CONSTRAINT p";
                self.server.sql(drop);
            }
            Fault::TooMany { .. } => return false,
        }
        true
    }

    async fn stop(&mut self) {
        self.proxy.close().await;
        self.server.child.kill().unwrap();
        self.server.child.wait().unwrap();
    }

    async fn resume(&mut self) {
        self.server.child = spawn(self.server.folder.path(), self.server.port);
        self.server.wait_until_up();
        self.proxy.listen().await;
    }
}

crate::contract!(Clickhouse);

/// A router that delivers to the subject with these changes of its configuration.
async fn router(bench: &Bench<Clickhouse>, changes: Value) -> Running {
    let mut subject = bench.subject.config();
    for (key, value) in changes.as_object().unwrap() {
        subject[key] = value.clone();
    }
    let mut config = bench.config();
    let subject = serde_json::from_value(subject).unwrap();
    config.destinations.insert("subject".into(), subject);
    Running::start(config).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_made_and_rows_say_what_the_events_say() {
    let Some(mut bench) = Bench::<Clickhouse>::start().await else {
        return;
    };
    let router = router(&bench, json!({})).await;
    let line = r#"{"time": "2026-01-02T03:04:05.123456789Z", "level": "ERROR", "message": "nul \u0000 \\ ' end",
                   "n": 1e300, "deep": {"a": ["b"]}, "text": "it's"}"#;
    bench.publish_text("lamp-2", &line.replace('\n', " ")).await;
    bench.publish("lamp-1", 2).await;
    books(&router, 3, 0).await;
    let server = &bench.subject.server;
    let of = |what: &str, device: &str| {
        server.sql(&format!(
            "SELECT {what} FROM default.events WHERE device = '{device}' ORDER BY id FORMAT TSVRaw"
        ))
    };
    assert_eq!(
        of(
            "id, source, severity, level, time_estimated, truncated",
            "lamp-2"
        ),
        "\tapp\t17\tERROR\tfalse\tfalse"
    );
    assert_eq!(
        of("toJSONString(message)", "lamp-2"),
        r#""nul \u0000 \\ ' end""#
    );
    assert_eq!(of("time", "lamp-2"), "2026-01-02 03:04:05.123456789");
    let attributes: Value =
        serde_json::from_str(&of("toJSONString(attributes)", "lamp-2")).unwrap();
    let expected = json!({"n": "1e+300", "deep": "{\"a\":[\"b\"]}", "text": "it's"});
    assert_eq!(attributes, expected);
    assert_eq!(
        of("id", "lamp-1"),
        "lamp-1/0000000000000007/0\nlamp-1/0000000000000007/1"
    );
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_again_is_skipped_or_folded() {
    let Some(mut bench) = Bench::<Clickhouse>::start().await else {
        return;
    };
    // Stored, and the answer lost on its way: the same request comes again.
    bench.subject.server.sql("LOSE THE NEXT ANSWER");
    let router = bench.router().await;
    bench.publish("lamp-1", 20).await;
    books(&router, 20, 0).await;
    assert!(router.metric("thinglog_router_retries_total", &["subject"]) >= 1.0);
    let count = |more: &str| {
        let of = format!("SELECT count() FROM default.events {more}");
        bench.subject.server.sql(&of)
    };
    assert_eq!(count(""), "20", "the token tells");
    router.stop().await;
    // A router that has forgotten what it delivered: the same events, otherwise gathered.
    std::fs::remove_dir_all(bench.data.path().join("router")).unwrap();
    let again = crate::common::batch_with(7, 0..30, "");
    bench
        .device
        .publish("thinglog/logs/lamp-1/app", again)
        .await;
    let router = bench.router().await;
    books(&router, 30, 0).await;
    let count = |more: &str| {
        let of = format!("SELECT count() FROM default.events {more}");
        bench.subject.server.sql(&of)
    };
    assert_eq!(count("FINAL"), "30", "the key tells");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_configuration_lacks_costs_no_event() {
    let Some(mut bench) = Bench::<Clickhouse>::start().await else {
        return;
    };
    let router = router(&bench, json!({"database": "logs"})).await;
    bench.publish("lamp-1", 20).await;
    until("that there is no database is told", || {
        let parts = router.health.parts();
        let reason = parts.get("subject").cloned().flatten();
        reason.is_some_and(|reason| reason.contains("Database logs does not exist"))
    })
    .await;
    bench.subject.server.sql("CREATE DATABASE logs");
    books(&router, 20, 0).await;
    bench.subject.server.sql("DROP TABLE logs.events SYNC");
    bench.publish("lamp-1", 20).await;
    books(&router, 40, 0).await;
    let count = bench.subject.server.sql("SELECT count() FROM logs.events");
    assert_eq!(count, "20", "the table is made again");
    router.stop().await;
}
