//! Parquet as another reader reads it: DuckDB, over a folder partitioned as Hive does.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::{Running, until};
use crate::harness::{Bench, Subject, books};
use crate::object_store::Local;

/// The rows of a query; `None` where DuckDB is not installed, unless in CI.
fn query(sql: &str) -> Option<Value> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let script = "import duckdb, json, sys; \
                  print(json.dumps(duckdb.sql(sys.argv[1]).fetchall(), default=str))";
    let output = Command::new(target.join("clients/python/bin/python"))
        .args(["-c", script, sql])
        .output();
    let output = output.ok().filter(|output| {
        let said = String::from_utf8_lossy(&output.stderr);
        !said.contains("No module named 'duckdb'")
    });
    let Some(output) = output else {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must have duckdb installed: tests/run does it"
        );
        eprintln!("SKIPPED: duckdb is not installed; tests/run does it");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{sql}: {said}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duckdb_reads_every_column_of_the_parquet_files() {
    let (Some(_), Some(mut bench)) = (query("SELECT 1"), Bench::<Local>::start().await) else {
        return;
    };
    let mut subject = bench.subject.config();
    subject["format"] = "parquet".into();
    subject["batch"] = json!({"max_events": 10_000, "max_age_ms": 300_000});
    let folder = subject["url"]
        .as_str()
        .unwrap()
        .trim_start_matches("file://")
        .to_owned();
    let mut config = bench.config();
    let subject = serde_json::from_value(subject).unwrap();
    config.destinations.insert("subject".into(), subject);
    let router = Running::start(config.clone()).await;
    bench.publish("lamp-1", 3000).await;
    let event = json!({
        "message": "über \"all\"\n", "severity": 13, "time": "2026-01-02T03:04:05.123456Z",
        "room": "attic", "watts": 5.5, "deep": {"a": [1, null]},
    });
    let topic = "thinglog/logs/lamp-2/app";
    bench.device.publish(topic, event.to_string()).await;
    books(&router, 3001, 0).await;
    // What is staged is complete with the next start.
    router.stop().await;
    let router = Running::start(config).await;
    let staged = || router.metric("thinglog_router_staged_bytes", &["subject"]);
    until("everything is uploaded", || staged() == 0.0).await;
    let table = format!("read_parquet('{folder}/**/*.parquet', hive_partitioning = true)");
    let sql = format!(
        "SELECT count(*), count(DISTINCT id), min(message), max(epoch_us(time)), \
         count(DISTINCT epoch_us(received)) > 0, max(severity), max(level), count(attributes) \
         FROM {table} WHERE device = 'lamp-1' AND \"group\" IS NULL AND date IS NOT NULL"
    );
    let time = 1_767_323_045_000_002_u64;
    assert_eq!(
        query(&sql),
        Some(json!([[3000, 3000, "event 0", time, true, 9, "INFO", 0]]))
    );
    let sql = format!(
        "SELECT id, epoch_us(time), source, severity, level, message, attributes, \
         time_estimated, truncated FROM {table} WHERE device = 'lamp-2'"
    );
    let rows = query(&sql).unwrap();
    let row = &rows[0];
    let time = 1_767_323_045_123_456_u64;
    assert_eq!(row[1], time);
    assert_eq!(row[2], "app");
    assert_eq!((&row[3], &row[4]), (&json!(13), &json!("WARN")));
    assert_eq!(row[5], "über \"all\"\n");
    let attributes: Value = serde_json::from_str(row[6].as_str().unwrap()).unwrap();
    assert_eq!(attributes["room"], "attic");
    assert_eq!(attributes["deep"], json!({"a": [1, null]}));
    assert_eq!((&row[7], &row[8]), (&json!(false), &json!(false)));
    router.stop().await;
}
