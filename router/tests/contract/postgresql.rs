//! PostgreSQL: a real server, with a proxy in front of it that makes connections fail.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::certificates::Certificates;
use crate::common::{Running, until};
use crate::harness::{Bench, Fault, Got, Subject, books};
use crate::postgresql_server::{PASSWORD, Server};
use crate::tcp_proxy::TcpProxy;

/// What the router would make, with a column that says in which order rows were inserted.
const TABLE: &str = "CREATE TABLE events (
    n bigint GENERATED ALWAYS AS IDENTITY, id text UNIQUE, time timestamptz, received timestamptz,
    device text, source text, severity smallint, level text, message text, attributes jsonb,
    time_estimated boolean, truncated boolean)";

pub(crate) struct Postgresql {
    server: Server,
    proxy: TcpProxy,
}

impl Subject for Postgresql {
    const DEDUPLICATES: bool = true;
    /// All are read back, again and again.
    const FLOOD: u64 = 2000;

    async fn start() -> Option<Postgresql> {
        let server = Server::start()?;
        server.sql(TABLE);
        let proxy = TcpProxy::start_with(server.port, Some(b"INSERT INTO")).await;
        Some(Postgresql { server, proxy })
    }

    fn config(&self) -> Value {
        json!({
            "type": "postgresql",
            "url": format!("postgresql://{}/postgres", self.proxy.address),
            "sslmode": "disable",
            "table": "public.events",
            "username": "thinglog",
            "password": PASSWORD,
            "timeout_ms": 2000,
            "batch": {"max_events": Self::MAX_EVENTS, "max_bytes": 64 << 10, "max_age_ms": 50},
            "retry": {"from_ms": 5, "max_ms": 50},
            "memory_bytes": 10 << 20,
        })
    }

    fn got(&self) -> Vec<Got> {
        let rows = self
            .server
            .sql("SELECT json_build_array(device, message) FROM events ORDER BY n");
        let read = |row: &str| {
            let (device, message) = serde_json::from_str(row).unwrap();
            Got { device, message }
        };
        rows.lines().map(read).collect()
    }

    fn fail(&self, fault: Fault) -> bool {
        match fault {
            Fault::Unavailable | Fault::Hang | Fault::Reset => self.proxy.fail(fault),
            Fault::Poison => {
                let check = "CHECK (message NOT LIKE '%poison%') NOT VALID";
                self.server
                    .sql(&format!("ALTER TABLE events ADD CONSTRAINT poison {check}"));
            }
            Fault::Antidote => {
                self.server.sql("ALTER TABLE events DROP CONSTRAINT poison");
            }
            Fault::TooMany { .. } => return false,
        }
        true
    }

    async fn stop(&mut self) {
        self.proxy.close().await;
        self.server.stop();
    }

    async fn resume(&mut self) {
        self.server.resume();
        self.proxy.listen().await;
    }
}

crate::contract!(Postgresql);

/// A router that delivers to the subject with these changes of its configuration.
async fn router(bench: &Bench<Postgresql>, changes: Value) -> Running {
    let mut subject = bench.subject.config();
    for (key, value) in changes.as_object().unwrap() {
        subject[key] = value.clone();
    }
    let mut config = bench.config();
    let subject = serde_json::from_value(subject).unwrap();
    config.destinations.insert("subject".into(), subject);
    Running::start(config).await
}

async fn until_told(router: &Running, what: &str) {
    until(&format!("{what:?} is told"), || {
        let parts = router.health.parts();
        let reason = parts.get("subject").cloned().flatten();
        reason.is_some_and(|reason| reason.contains(what))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_made_and_rows_say_what_the_events_say() {
    let Some(mut bench) = Bench::<Postgresql>::start().await else {
        return;
    };
    let server = &bench.subject.server;
    server.sql("CREATE SCHEMA logs");
    let router = router(&bench, json!({"table": "logs.Events"})).await;
    bench.publish("lamp-1", 2).await;
    let line = r#"{"time": "2026-01-02T03:04:05.123456789Z", "level": "ERROR", "message": "nul \u0000 end",
                   "n": 1e300, "deep": {"a\u0000": ["\u0000"]}, "quote": "\\u0000"}"#;
    bench.publish_text("lamp-2", &line.replace('\n', " ")).await;
    books(&router, 3, 0).await;
    let server = &bench.subject.server;
    let of = |what: &str| server.sql(&format!("SELECT {what} FROM logs.\"Events\""));
    assert_eq!(of("count(*), count(id), count(received)"), "3|2|3");
    let of = |what: &str| {
        of(&format!(
            "{what} FROM (SELECT * FROM logs.\"Events\" WHERE id IS NULL) it(id, time, received, device, source, severity, level, message, attributes, time_estimated, truncated) --"
        ))
    };
    assert_eq!(
        of("device, source, severity, level, time_estimated, truncated"),
        "lamp-2|app|17|ERROR|f|f"
    );
    assert_eq!(of("message"), "nul \u{2400} end");
    assert_eq!(
        of("to_char(time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"),
        "2026-01-02 03:04:05.123456"
    );
    let attributes: Value = serde_json::from_str(&of("attributes - 'n'")).unwrap();
    assert_eq!(
        attributes,
        json!({"deep": {"a\u{2400}": ["\u{2400}"]}, "quote": "\\u0000"})
    );
    assert_eq!(of("(attributes->>'n')::numeric = 1e300"), "t");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_only_insert_delivers_and_what_comes_again_is_skipped() {
    let Some(mut bench) = Bench::<Postgresql>::start().await else {
        return;
    };
    bench.subject.server.sql(
        "CREATE ROLE writer LOGIN PASSWORD 'w'; GRANT INSERT ON events TO writer;
         REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    );
    let writer = json!({"username": "writer", "password": "w"});
    let router = router(&bench, writer.clone()).await;
    bench.publish("lamp-1", 60).await;
    bench.exactly().await;
    books(&router, 60, 0).await;
    router.stop().await;
    // A router that has forgotten what it delivered, and a device that sends its epoch once more.
    std::fs::remove_dir_all(bench.data.path().join("router")).unwrap();
    let router = self::router(&bench, writer).await;
    let again = crate::common::batch_with(7, 0..70, "");
    bench
        .device
        .publish("thinglog/logs/lamp-1/app", again)
        .await;
    bench.sent.extend((60..70).map(|seq| Got {
        device: "lamp-1".into(),
        message: format!("event {seq}"),
    }));
    bench.exactly().await;
    books(&router, 70, 0).await;
    let outcome = |what| router.metric("thinglog_router_events_total", &["subject", what]);
    assert_eq!((outcome("delivered"), outcome("duplicate")), (10.0, 60.0));
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_no_event_has_anything_for_costs_no_event() {
    let Some(mut bench) = Bench::<Postgresql>::start().await else {
        return;
    };
    bench
        .subject
        .server
        .sql("ALTER TABLE events ADD COLUMN site text NOT NULL");
    let router = bench.router().await;
    bench.publish("lamp-1", 20).await;
    until_told(&router, "no event has anything for the column \"site\"").await;
    bench
        .subject
        .server
        .sql("ALTER TABLE events ALTER COLUMN site SET DEFAULT 'berlin'");
    bench.exactly().await;
    books(&router, 20, 0).await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_configuration_lacks_costs_no_event() {
    let Some(mut bench) = Bench::<Postgresql>::start().await else {
        return;
    };
    bench.subject.server.sql(
        "ALTER TABLE events RENAME TO later;
         CREATE ROLE writer LOGIN PASSWORD 'w'; REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    );
    let writer = json!({"username": "writer", "password": "w", "create": false});
    let router = router(&bench, writer).await;
    bench.publish("lamp-1", 20).await;
    until_told(&router, "42P01 relation \"public.events\" does not exist").await;
    bench
        .subject
        .server
        .sql("ALTER TABLE later RENAME TO events");
    until_told(&router, "42501 permission denied for table events").await;
    bench.subject.server.sql("GRANT INSERT ON events TO writer");
    bench.exactly().await;
    books(&router, 20, 0).await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_somebody_drops_is_made_again() {
    let Some(mut bench) = Bench::<Postgresql>::start().await else {
        return;
    };
    let router = router(&bench, json!({"table": "mine"})).await;
    bench.publish("lamp-1", 20).await;
    books(&router, 20, 0).await;
    bench.subject.server.sql("DROP TABLE mine");
    bench.publish("lamp-1", 20).await;
    books(&router, 40, 0).await;
    assert_eq!(bench.subject.server.sql("SELECT count(*) FROM mine"), "20");
    router.stop().await;
}

/// A function stands in for TimescaleDB's and refuses what that would: a unique index without the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hypertable_is_made_of_a_table_that_may_become_one() {
    let Some(mut bench) = Bench::<Postgresql>::start().await else {
        return;
    };
    let router = router(&bench, json!({"table": "hyper", "hypertable": true})).await;
    bench.publish("lamp-1", 20).await;
    until_told(&router, "no extension timescaledb").await;
    bench.subject.server.sql(
        "CREATE TABLE made (name text);
         CREATE FUNCTION create_hypertable(relation regclass, time_column name, if_not_exists bool)
         RETURNS void LANGUAGE plpgsql AS $$ BEGIN
             IF EXISTS (SELECT FROM pg_index WHERE indrelid = relation AND indisunique AND NOT EXISTS (
                 SELECT FROM pg_attribute WHERE attrelid = relation AND attname = time_column
                 AND attnum = ANY (indkey))) THEN
                 RAISE 'cannot create a unique index without the column \"%\"', time_column;
             END IF;
             INSERT INTO made VALUES (relation::text);
         END $$",
    );
    books(&router, 20, 0).await;
    let server = &bench.subject.server;
    assert_eq!(server.sql("SELECT name FROM made"), "hyper");
    assert_eq!(server.sql("SELECT count(*) FROM hyper"), "20");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_wait_for_a_lock_do_not_become_more() {
    let Some(mut bench) = Bench::<Postgresql>::start().await else {
        return;
    };
    let mut locker = bench
        .subject
        .server
        .psql()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = locker.stdin.take().unwrap();
    stdin
        .write_all(b"BEGIN; LOCK TABLE events; SELECT 1;\n")
        .unwrap();
    let locks = "SELECT count(*) FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock'
                 AND relation = 'events'::regclass";
    until("the lock is taken", || {
        bench.subject.server.sql(locks) == "1"
    })
    .await;
    let router = router(&bench, json!({"timeout_ms": 200})).await;
    for device in ["lamp-1", "lamp-2", "lamp-3", "lamp-4", "lamp-5"] {
        bench.publish(device, 10).await;
    }
    until("many attempts are made", || {
        router.metric("thinglog_router_retries_total", &["subject"]) >= 20.0
    })
    .await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    let waiting: u32 = bench.subject.server.sql(waiting).parse().unwrap();
    assert!(waiting <= 8, "{waiting} statements wait");
    stdin.write_all(b"COMMIT;\n").unwrap();
    drop(stdin);
    locker.wait().unwrap();
    bench.exactly().await;
    books(&router, 50, 0).await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_with_a_password_that_is_put_right_later() {
    let Some(mut bench) = Bench::<Postgresql>::start().await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let files = Certificates::make(folder.path());
    bench.subject.server.encrypt(&files.certificate, &files.key);
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "wrong\n").unwrap();
    let port = bench.subject.server.port;
    let changes = json!({
        "url": format!("postgres://localhost:{port}/postgres"),
        "sslmode": "verify-full",
        "tls": {"ca": files.ca},
        "password": {"file": secret},
    });
    let router = router(&bench, changes).await;
    bench.publish("lamp-1", 20).await;
    until_told(&router, "28P01 password authentication failed").await;
    std::fs::write(&secret, format!("{PASSWORD}\n")).unwrap();
    bench.exactly().await;
    books(&router, 20, 0).await;
    router.stop().await;
}
