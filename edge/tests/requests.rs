//! On-demand upload over a real connection: requests come in, files and the systemd journal are read
//! back, answers go out and are sent again until they are acknowledged.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use support::{Broker, journal::Journal};
use thinglog_edge::{
    Builder, Publisher, Record,
    agent::{
        FilesOptions, JournalOptions, Readable, RequestOptions, Sink,
        history::{Block, Covers, FileHistory, History, JournalHistory, Past, Reading, Span},
        run_requests,
    },
};
use thinglog_schemas::{
    Severity,
    config::{Upload, UploadMode},
    request::{Done, Response, State},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// An agent that answers requests and does nothing else.
struct Agent {
    publisher: Publisher,
    cancel: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Agent {
    fn start(broker: &Broker, histories: Vec<Arc<dyn History>>) -> Agent {
        Agent::with(builder(broker), histories, RequestOptions::default())
    }

    fn with(builder: Builder, histories: Vec<Arc<dyn History>>, options: RequestOptions) -> Agent {
        let (builder, requests) = builder.requests();
        let publisher = builder.start().unwrap();
        let sources = histories.into_iter().map(|history| Readable {
            history,
            sink: Sink::new(publisher.clone()),
        });
        let sources: Vec<Readable> = sources.collect();
        let cancel = CancellationToken::new();
        let (own, cancelled) = (publisher.clone(), cancel.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let thread = std::thread::spawn(move || {
            let status = Arc::new(|| json!({"mood": "good"}));
            runtime.block_on(run_requests(
                &own, requests, sources, options, status, cancelled,
            ));
        });
        Agent {
            publisher,
            cancel,
            thread: Some(thread),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.cancel.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        self.publisher.close_blocking(Duration::ZERO);
    }
}

fn builder(broker: &Broker) -> Builder {
    Publisher::builder("lamp-7")
        .broker(broker.address.ip().to_string(), broker.address.port())
        .flush_age(Duration::from_millis(5))
        .backoff(Duration::from_millis(5), Duration::from_millis(20))
}

fn file(path: &Path) -> Arc<dyn History> {
    Arc::new(FileHistory::new(FilesOptions::new(
        [path.to_string_lossy()],
    )))
}

/// All answers to a request, once the last one is there.
fn answers(broker: &Broker, id: &str) -> Vec<Response> {
    broker.wait(|state| {
        let answers = state.responses(id);
        answers
            .last()
            .is_some_and(|r| r.state.is_last())
            .then_some(answers)
    })
}

fn ask(broker: &Broker, id: &str, rest: &str) -> Vec<Response> {
    let comma = if rest.is_empty() { "" } else { "," };
    broker.request(&format!(r#"{{"id":"{id}"{comma}{rest}}}"#));
    answers(broker, id)
}

/// The messages in the chunks, which must be numbered without holes.
fn messages(answers: &[Response]) -> Vec<String> {
    events(answers)
        .iter()
        .map(|event| event["message"].as_str().unwrap().to_owned())
        .collect()
}

fn events(answers: &[Response]) -> Vec<Value> {
    let mut next = 0;
    let mut all = Vec::new();
    for answer in answers {
        if let State::Chunk { chunk, events } = &answer.state
            && *chunk == next
        {
            next += 1;
            all.extend(events.iter().cloned());
        }
    }
    all
}

fn done(answers: &[Response]) -> &Done {
    match &answers.last().unwrap().state {
        State::Successful(done) => done,
        other => panic!("not successful: {other:?}"),
    }
}

fn failure(answers: &[Response]) -> &str {
    match &answers.last().unwrap().state {
        State::Failed { reason, .. } => reason,
        other => panic!("not failed: {other:?}"),
    }
}

/// Lines that say when they happened, the last one an hour ago.
fn write_log(path: &Path, lines: std::ops::Range<u64>) {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let line = |i: u64| {
        let time = now - 3600 - 60 * (lines.end - 1 - i);
        let level = ["info", "debug", "error"][(i % 3) as usize];
        format!(r#"{{"ts":{time},"level":"{level}","msg":"line {i}"}}"#)
    };
    let text: Vec<String> = lines.clone().map(line).collect();
    fs::write(path, text.join("\n") + "\n").unwrap();
}

#[test]
fn what_a_source_logged_is_sent_to_who_asks_in_order_whatever_the_level() {
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    write_log(&dir.path().join("app.log.1"), 0..5);
    write_log(&dir.path().join("app.log"), 5..10);
    let agent = Agent::start(&broker, vec![file(&dir.path().join("app.log"))]);
    let answers = ask(&broker, "r1", "");
    let expected: Vec<String> = (0..10).map(|i| format!("line {i}")).collect();
    assert_eq!(messages(&answers), expected);
    let event = &events(&answers)[1];
    assert_eq!(
        (&event["device"], &event["source"]),
        (&json!("lamp-7"), &json!("app"))
    );
    assert_eq!(event["level"], "DEBUG");
    assert!(matches!(answers[0].state, State::Init { ahead: 0 }));
    assert!(matches!(answers[1].state, State::Executing(_)));
    let done = done(&answers);
    assert_eq!((done.progress.lines, done.progress.sent), (10, 10));
    assert_eq!(
        agent.publisher.counters().accepted,
        0,
        "nothing on the ordinary way"
    );
}

#[test]
fn rotated_files_are_read_even_when_gzip_compressed_them() {
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    for (name, lines) in [
        ("app.log.3", 0..3),
        ("app.log.2", 3..6),
        ("app.log.1", 6..9),
    ] {
        write_log(&dir.path().join(name), lines);
    }
    for name in ["app.log.3", "app.log.2"] {
        let mut gzip = std::process::Command::new("gzip");
        assert!(gzip.arg(dir.path().join(name)).status().unwrap().success());
    }
    write_log(&dir.path().join("app.log"), 9..12);
    let _agent = Agent::start(&broker, vec![file(&dir.path().join("app.log"))]);
    let expected: Vec<String> = (0..12).map(|i| format!("line {i}")).collect();
    assert_eq!(messages(&ask(&broker, "r1", "")), expected);
    // A file that only claims to be compressed is named, and costs nothing else.
    fs::write(dir.path().join("app.log.4.gz"), "no gzip").unwrap();
    let answers = ask(&broker, "r2", "");
    assert_eq!(messages(&answers), expected);
    assert!(
        done(&answers).notes[0].contains("app.log.4.gz"),
        "{answers:?}"
    );
}

#[test]
fn time_level_text_and_lines_select() {
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("app.log");
    write_log(&log, 0..100);
    let _agent = Agent::start(&broker, vec![file(&log)]);
    // The last line is an hour old.
    for (id, rest, expected) in [
        ("time", r#""from":"-62m""#, "98 99"),
        ("to", r#""from":"-63m","to":"-61m""#, "97 98"),
        ("level", r#""level":"ERROR","lines":2"#, "95 98"),
        ("text", r#""text":"LINE 9""#, ""),
        ("any-case", r#""text":"line 9","lines":3"#, "97 98 99"),
        ("newest", r#""lines":4"#, "96 97 98 99"),
    ] {
        let answers = ask(&broker, id, rest);
        let messages = messages(&answers).join(" ").replace("line ", "");
        assert_eq!(messages, expected, "{id}");
    }
    let limited = ask(&broker, "limited", r#""lines":1"#);
    assert_eq!(done(&limited).limited.as_deref(), Some("lines"));
    assert_eq!(done(&limited).progress.matched, 100);
}

#[test]
fn only_configured_sources_are_read_and_the_others_are_named() {
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret.log");
    fs::write(&secret, "hidden\n").unwrap();
    let log = dir.path().join("app.log");
    fs::write(&log, "seen\n").unwrap();
    let _agent = Agent::start(&broker, vec![file(&log)]);
    let answers = ask(&broker, "r1", r#""sources":["secret"]"#);
    assert!(failure(&answers).contains("app"), "{answers:?}");
    let path = secret.display();
    let answers = ask(&broker, "r2", &format!(r#""sources":["{path}"]"#));
    assert!(failure(&answers).contains("never by path"), "{answers:?}");
    let answers = ask(&broker, "r3", &format!(r#""path":"{path}""#));
    assert!(failure(&answers).contains("`path`"), "{answers:?}");
    assert_eq!(
        messages(&ask(&broker, "r4", r#""sources":["app"]"#)),
        ["seen"]
    );
}

#[test]
fn a_request_that_comes_twice_is_done_once() {
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("app.log");
    fs::write(&log, "one\n").unwrap();
    let _agent = Agent::start(&broker, vec![file(&log)]);
    ask(&broker, "r1", "");
    broker.request(r#"{"id":"r1"}"#);
    let answers = broker.wait(|state| {
        let answers = state.responses("r1");
        let last = |r: &&Response| r.state.is_last();
        (answers.iter().filter(last).count() == 2).then_some(answers)
    });
    assert!(done(&answers).repeated);
    let chunks = answers
        .iter()
        .filter(|r| matches!(r.state, State::Chunk { .. }));
    assert_eq!(chunks.count(), 1);
}

#[test]
fn answers_survive_lost_connections_in_order() {
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("app.log");
    let lines: Vec<String> = (0..20_000)
        .map(|i| format!("a line of some length {i}"))
        .collect();
    fs::write(&log, lines.join("\n")).unwrap();
    let _agent = Agent::start(&broker, vec![file(&log)]);
    broker.request(r#"{"id":"r1","lines":20000}"#);
    for chunks in [1, 3, 6] {
        broker.wait(|state| (state.responses("r1").len() > chunks + 2).then_some(()));
        broker.drop_connections();
    }
    assert_eq!(messages(&answers(&broker, "r1")), lines);
}

#[test]
fn a_long_request_can_be_cancelled_and_the_next_one_is_done() {
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    // A journalctl that never ends.
    let program = dir.path().join("journalctl");
    let script = "#!/bin/sh\nwhile :; do printf 'MESSAGE=m\\nSYSLOG_IDENTIFIER=app\\n\\n'; done\n";
    fs::write(&program, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&program, mode).unwrap();
    let journal = JournalOptions {
        program,
        ..JournalOptions::default()
    };
    let _agent = Agent::start(&broker, vec![Arc::new(JournalHistory::new(journal))]);
    broker.request(r#"{"id":"r1"}"#);
    broker.wait(|state| (state.responses("r1").len() > 1).then_some(()));
    broker.request(r#"{"id":"r2","type":"status"}"#);
    broker.wait(|state| (!state.responses("r2").is_empty()).then_some(()));
    broker.request(r#"{"id":"r1","type":"cancel"}"#);
    assert_eq!(failure(&answers(&broker, "r1")), "cancelled");
    let answers = answers(&broker, "r2");
    let status = done(&answers).status.as_ref().unwrap();
    assert_eq!(status["mood"], "good");

    let answers = ask(&broker, "r3", r#""deadline_s":1"#);
    assert!(failure(&answers).contains("longer than 1 s"), "{answers:?}");
}

#[test]
fn the_journal_is_read_back_by_unit_time_and_priority() {
    let Some(mut journal) = Journal::new("the_journal_is_read_back") else {
        return;
    };
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    journal.write(&[
        (now - 7200, "nginx.service", 3, "too early"),
        (now - 600, "nginx.service", 3, "upstream is down"),
        (now - 599, "sshd.service", 3, "another unit"),
        (now - 598, "nginx.service", 7, "probing"),
        (now - 597, "nginx.service", 4, "slow"),
    ]);
    let broker = Broker::start();
    let options = JournalOptions {
        program: journal.program(),
        ..JournalOptions::default()
    };
    let _agent = Agent::start(&broker, vec![Arc::new(JournalHistory::new(options))]);
    let answers = ask(
        &broker,
        "r1",
        r#""sources":["nginx"],"from":"-1h","level":"WARN""#,
    );
    assert_eq!(messages(&answers), ["upstream is down", "slow"]);
    let event = &events(&answers)[0];
    assert_eq!(
        (&event["source"], &event["level"]),
        (&json!("nginx"), &json!("ERROR"))
    );
    let all = ask(&broker, "r2", "");
    assert_eq!(messages(&all).len(), 5);
}

#[test]
fn events_can_be_asked_for_on_the_ordinary_way() {
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("app.log");
    fs::write(&log, "one\ntwo\n").unwrap();
    let _agent = Agent::start(&broker, vec![file(&log)]);
    let answers = ask(&broker, "r1", r#""deliver":"logs""#);
    assert_eq!(done(&answers).progress.sent, 2);
    assert!(messages(&answers).is_empty());
    // Successful means that they are durable.
    let events = broker.state(|state| state.events());
    let seen: Vec<_> = events.iter().map(|(s, e)| (&**s, &*e.message)).collect();
    assert_eq!(seen, [("app", "one"), ("app", "two")]);
    assert!(events.iter().all(|(_, e)| e.attributes["request"] == "r1"));
}

#[test]
fn a_file_that_cannot_be_read_is_a_reason_and_not_an_empty_answer() {
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("app.log");
    fs::create_dir(&folder).unwrap();
    let other = dir.path().join("other.log");
    fs::write(&other, "one\n").unwrap();
    let _agent = Agent::start(&broker, vec![file(&folder), file(&other)]);
    let answers = ask(&broker, "r1", r#""sources":["app"]"#);
    assert!(
        failure(&answers).contains("not a regular file"),
        "{answers:?}"
    );
    let answers = ask(&broker, "r2", "");
    assert_eq!(messages(&answers), ["one"]);
    assert!(done(&answers).notes[0].contains("not a regular file"));
}

#[test]
fn what_one_request_may_have_is_bounded() {
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("app.log");
    let lines: Vec<String> = (0..1000).map(|i| format!("line {i}")).collect();
    fs::write(&log, lines.join("\n")).unwrap();
    let options = RequestOptions {
        max_lines: 500,
        max_bytes: 20_000,
        ..RequestOptions::default()
    };
    let _agent = Agent::with(builder(&broker), vec![file(&log)], options);
    let answers = ask(&broker, "r1", r#""lines":1000000"#);
    let done = done(&answers);
    assert_eq!(done.limited.as_deref(), Some("bytes"));
    assert!(
        done.progress.sent > 50 && done.progress.sent < 200,
        "{done:?}"
    );
    assert_eq!(messages(&answers)[0], "line 500");
}

/// Another past with every reading: numbers of lines, from and to.
struct Wandering(Mutex<Vec<std::ops::Range<u64>>>);

impl History for Wandering {
    fn sources(&self) -> Vec<String> {
        vec!["app".into()]
    }

    fn covers(&self, _source: &str) -> Covers {
        Covers::Yes
    }

    fn read(&self, _span: Span, out: mpsc::Sender<Block>) -> Reading<'_> {
        let lines = self.0.lock().unwrap().remove(0);
        let past = |number: u64| Past {
            record: Record::new("app", Severity::INFO, format!("line {number}")).at(1 + number),
            estimated: false,
        };
        let block = Block {
            lines: lines.end - lines.start,
            records: lines.map(past).collect(),
        };
        Box::pin(async move {
            let _ = out.send(block).await;
            Ok(())
        })
    }
}

#[test]
fn what_comes_or_goes_between_counting_and_sending_is_neither_too_much_nor_passed_over_in_silence()
{
    let broker = Broker::start();
    let readings = vec![0..100, 0..150, 0..100, 80..100];
    let history = Arc::new(Wandering(Mutex::new(readings)));
    let _agent = Agent::start(&broker, vec![history]);
    let answers = ask(&broker, "more", r#""lines":10"#);
    let expected: Vec<String> = (90..100).map(|number| format!("line {number}")).collect();
    assert_eq!(messages(&answers), expected);
    let answers = ask(&broker, "gone", r#""lines":50"#);
    assert_eq!(messages(&answers), Vec::<String>::new());
    let notes = done(&answers).notes.join(";");
    assert!(notes.contains("50 lines were removed before"), "{notes}");
}

#[test]
fn what_is_kept_for_an_error_can_be_seen_without_one() {
    let broker = Broker::start();
    let on_error = builder(&broker).upload(Upload {
        mode: Some(UploadMode::OnError),
        ..Upload::default()
    });
    let agent = Agent::with(on_error, Vec::new(), RequestOptions::default());
    for (severity, message) in [(Severity::DEBUG, "probing"), (Severity::INFO, "info")] {
        agent.publisher.emit(Record::new("app", severity, message));
    }
    for id in ["r1", "r2"] {
        assert_eq!(messages(&ask(&broker, id, r#""type":"ring""#)), ["probing"]);
    }
    let other = ask(&broker, "r3", r#""type":"ring","sources":["nginx"]"#);
    assert!(messages(&other).is_empty());

    let broker = Broker::start();
    let _agent = Agent::start(&broker, Vec::new());
    let none = ask(&broker, "r1", r#""type":"ring""#);
    assert!(failure(&none).contains("not on-error"), "{none:?}");
}

#[test]
fn queued_events_leave_on_a_flush() {
    let broker = Broker::start();
    let agent = Agent::start(&broker, Vec::new());
    assert!(
        done(&ask(&broker, "r1", r#""type":"flush""#))
            .notes
            .is_empty()
    );
    let record = Record::new("app", Severity::INFO, "m");
    agent.publisher.emit(record);
    ask(&broker, "r2", r#""type":"flush""#);
    assert_eq!(broker.state(|state| state.messages()), ["m"]);
    let nothing = ask(&broker, "r3", "");
    assert!(failure(&nothing).contains("nothing to read"), "{nothing:?}");
}
