//! Kafka: a cluster of librdkafka's mock brokers, whose records librdkafka's consumer reads. Both are in
//! confluent-kafka of PyPI; `kafka_cluster.py` moves leaders and stops brokers.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::common::{PATIENCE, until};
use crate::harness::{Bench, Fault, Got, Subject, books};

const BROKERS: i32 = 3;
const PARTITIONS: i32 = 4;

pub(crate) struct Mock {
    child: Child,
    commands: Mutex<ChildStdin>,
    servers: String,
    records: Arc<Mutex<Vec<Value>>>,
    places: Receiver<i64>,
}

impl Mock {
    fn command(&self, line: &str) {
        let mut commands = self.commands.lock();
        writeln!(commands, "{line}").unwrap();
        commands.flush().unwrap();
    }

    fn all_brokers(&self, what: &str) {
        for broker in 1..=BROKERS {
            self.command(&format!("{what} {broker}"));
        }
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Subject for Mock {
    /// Every one is read by Python.
    const FLOOD: u64 = 1000;

    async fn start() -> Option<Mock> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let python = target.join("clients/python/bin/python");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract/kafka_cluster.py");
        let is_there = Command::new(&python)
            .args(["-c", "import confluent_kafka"])
            .stderr(Stdio::null())
            .status();
        if !is_there.is_ok_and(|status| status.success()) {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI must have confluent-kafka installed: tests/run does it"
            );
            eprintln!("SKIPPED: confluent-kafka is not installed; tests/run does it");
            return None;
        }
        let mut child = Command::new(&python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let servers = lines.next().unwrap().unwrap();
        let records = Arc::<Mutex<Vec<Value>>>::default();
        let (found, places) = sync_channel(16);
        let seen = Arc::clone(&records);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let value: Value = serde_json::from_str(&line).unwrap();
                match value["place"].as_i64() {
                    Some(place) => found.send(place).unwrap(),
                    None => seen.lock().push(value),
                }
            }
        });
        Some(Mock {
            commands: Mutex::new(child.stdin.take().unwrap()),
            child,
            servers,
            records,
            places,
        })
    }

    fn config(&self) -> Value {
        let servers = self.servers.split(',');
        let servers: Vec<String> = servers.map(|it| format!("kafka://{it}")).collect();
        json!({
            "type": "kafka",
            "servers": servers,
            "topic": "logs",
            "timeout_ms": 2000,
            "batch": {"max_events": Self::MAX_EVENTS, "max_bytes": 64 << 10, "max_age_ms": 50},
            "retry": {"from_ms": 5, "max_ms": 50},
            "memory_bytes": 10 << 20,
        })
    }

    fn got(&self) -> Vec<Got> {
        let records = self.records.lock();
        let got = records.iter().map(|record| Got {
            device: record["event"]["device"].as_str().unwrap().to_owned(),
            message: record["event"]["message"].as_str().unwrap().to_owned(),
        });
        got.collect()
    }

    fn fail(&self, fault: Fault) -> bool {
        let can = fault == Fault::Unavailable;
        if can {
            self.command("error 19");
        }
        can
    }

    async fn stop(&mut self) {
        self.all_brokers("down");
    }

    async fn resume(&mut self) {
        self.all_brokers("up");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_move_and_brokers_fail_and_librdkafka_reads_all_in_order() {
    let Some(mut bench) = Bench::<Mock>::start().await else {
        return;
    };
    let router = bench.router().await;
    // NOT_LEADER, REQUEST_TIMED_OUT, NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    // OUT_OF_ORDER_SEQUENCE_NUMBER, COORDINATOR_LOAD_IN_PROGRESS.
    let errors = [6, 7, 19, 20, 45, 14];
    for (round, error) in (0i32..).zip(errors) {
        bench.subject.command(&format!("error {error}"));
        let (partition, leader) = (round % PARTITIONS, round % BROKERS + 1);
        let moved = format!("leader {partition} {leader}");
        bench.subject.command(&moved);
        for device in 0..12 {
            bench.publish(&format!("lamp-{device}"), 10).await;
        }
        bench.everything().await;
    }
    bench.exactly().await;
    books(&router, 720, 0).await;
    let records = bench.subject.records.lock().clone();
    for record in &records {
        let event = &record["event"];
        assert_eq!(record["key"], event["device"]);
        assert_eq!(record["headers"]["id"], event["id"]);
        assert_eq!(record["headers"]["level"], event["level"]);
    }
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_clients_find_a_device_in_the_same_partition() {
    let Some(mut bench) = Bench::<Mock>::start().await else {
        return;
    };
    let router = bench.router().await;
    let devices = ["lamp-1", "a", "pump:7", "door_12.b", "x1234567"];
    for device in devices {
        bench.publish(device, 1).await;
    }
    bench.everything().await;
    for device in devices {
        bench.subject.command(&format!("place {device}"));
        let place = bench.subject.places.recv_timeout(PATIENCE).unwrap();
        let records = bench.subject.records.lock();
        let ours = records.iter().find(|record| record["key"] == device);
        assert_eq!(ours.unwrap()["partition"], place, "{device}");
    }
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_was_away_gets_all() {
    let Some(mut bench) = Bench::<Mock>::start().await else {
        return;
    };
    let router = bench.router().await;
    bench.publish("lamp-1", 70).await;
    bench.everything().await;
    bench.subject.stop().await;
    bench.publish("lamp-1", 70).await;
    bench.publish("lamp-2", 70).await;
    until("the destination is not ready", || {
        !router.is_ready("subject")
    })
    .await;
    bench.subject.resume().await;
    bench.at_least().await;
    books(&router, 210, 0).await;
    router.stop().await;
}
