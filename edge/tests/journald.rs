//! The journal source on real journals: files written by systemd-journal-remote, and a systemd-journald
//! of the test's own, which rotates and removes its files when it is told to. Rounds of SIGKILL:
//! `THINGLOG_KILL_ROUNDS` (default 6).

#![allow(clippy::unwrap_used)]

mod support {
    pub(crate) mod agent;
    #[path = "mod.rs"]
    pub(crate) mod broker;
}

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use support::{
    agent::{self, Program, Running},
    broker::{
        Broker,
        journal::{Journal, Journald, until},
    },
};
use thinglog_edge::agent::{JournalOptions, JournalStart, StateDir, run_journal_source};
use thinglog_schemas::{Severity, batch::Entry};

const AT: u64 = 1_767_225_600;

fn start(broker: &Broker, options: JournalOptions) -> Running {
    agent::run(
        agent::publisher(broker.address),
        async move |sink, cancel| run_journal_source(sink, options, cancel).await,
    )
}

fn events(broker: &Broker, count: usize) -> Vec<(String, Entry)> {
    broker.wait(|state| Some(state.events()).filter(|events| events.len() >= count))
}

fn messages(events: &[(String, Entry)]) -> Vec<&str> {
    events.iter().map(|(_, event)| &*event.message).collect()
}

/// What arrives with these options, up to an entry `last`, which is written afterwards.
fn carried(journal: &mut Journal, options: JournalOptions) -> Vec<(String, Entry)> {
    let broker = Broker::start();
    let running = start(
        &broker,
        JournalOptions {
            program: journal.program(),
            start: Some(JournalStart::Beginning),
            ..options
        },
    );
    journal.write(&[(AT + 1_000, "last.service", 0, "last")]);
    let is_last = |(_, event): &(String, Entry)| event.message == "last";
    let mut all = broker.wait(|state| Some(state.events()).filter(|e| e.iter().any(is_last)));
    running.stop();
    all.retain(|event| !is_last(event));
    all
}

fn read(json: &str) -> JournalOptions {
    serde_json::from_str(json).unwrap()
}

#[test]
fn entries_are_chosen_by_unit_priority_and_field() {
    let Some(mut journal) = Journal::new("entries_are_chosen") else {
        return;
    };
    journal.write(&[
        (AT, "nginx.service", 6, "one"),
        (AT + 1, "nginx.service", 4, "two"),
        (AT + 2, "db.service", 3, "three"),
        (AT + 3, "app-1.service", 5, "four"),
        (AT + 4, "app-2.service", 2, "five"),
    ]);
    for (options, expected) in [
        ("{}", &["one", "two", "three", "four", "five"][..]),
        (r#"{"units": ["nginx", "last"]}"#, &["one", "two"]),
        (r#"{"units": ["app-*", "last"]}"#, &["four", "five"]),
        (r#"{"exclude_units": ["app-*", "db"]}"#, &["one", "two"]),
        (r#"{"identifiers": ["db", "last"]}"#, &["three"]),
        (r#"{"priority": "err"}"#, &["three", "five"]),
        (r#"{"priority": "0..2"}"#, &["five"]),
        (r#"{"matches": ["PRIORITY=4", "PRIORITY=0"]}"#, &["two"]),
    ] {
        let all = carried(&mut journal, read(options));
        assert_eq!(messages(&all), expected, "{options}");
    }
    let all = carried(
        &mut journal,
        read(r#"{"fields": ["_HOSTNAME"], "source": "sys"}"#),
    );
    let (source, two) = &all[1];
    assert_eq!((&**source, two.severity), ("sys", Severity::WARN));
    assert_eq!(two.attributes["hostname"], "lamp-7");
    assert_eq!(two.attributes["identifier"], "nginx");
    assert_eq!(two.time, (AT + 1) * 1_000_000_000 + 2_000);
}

#[test]
fn what_is_not_text_or_too_long_arrives_as_far_as_it_can() {
    let Some(mut journal) = Journal::new("what_is_not_text_or_too_long") else {
        return;
    };
    let huge = vec![b'x'; 3 << 20];
    journal.write_fields(&[
        ("MESSAGE", b"two\nlines\0\xff"),
        ("SYSLOG_IDENTIFIER", b"app"),
    ]);
    journal.write_fields(&[("MESSAGE", &huge), ("DATA", &huge), ("_PID", b"77")]);
    journal.write_fields(&[("SYSLOG_IDENTIFIER", b"silent"), ("PRIORITY", b"x")]);
    let all = carried(&mut journal, read(r#"{"fields": ["DATA"]}"#));
    assert_eq!(all.len(), 3);
    assert_eq!(
        (&*all[0].0, &*all[0].1.message),
        ("app", "two\nlines\0\u{fffd}")
    );
    let long = &all[1].1;
    assert_eq!((long.message.len(), long.truncated), (256 << 10, true));
    assert_eq!(long.attributes["pid"], 77);
    assert_eq!(long.attributes["data"].as_str().unwrap().len(), 4096);
    let (source, silent) = &all[2];
    assert_eq!(
        (&**source, &*silent.message, silent.truncated),
        ("silent", "", false)
    );
}

#[test]
fn a_first_start_begins_where_it_is_told_and_is_never_a_first_start_again() {
    let Some(mut journal) = Journal::new("a_first_start_begins") else {
        return;
    };
    let numbers = |journal: &mut Journal, from: u64, to: u64| {
        for n in from..to {
            journal.write(&[(AT + n, "app.service", 6, &n.to_string())]);
        }
    };
    numbers(&mut journal, 0, 4);
    for (options, first) in [
        (r#"{"start": "beginning"}"#, 0),
        (r#"{"lines": 2}"#, 2),
        (r#"{"lines": 0}"#, 4),
        (r#"{"start": "end"}"#, 4),
    ] {
        let broker = Broker::start();
        let dir = tempfile::tempdir().unwrap();
        let mut journal = journal.copy();
        let options = || JournalOptions {
            program: journal.program(),
            state: Some(StateDir::open(dir.path()).unwrap()),
            ..read(options)
        };
        let expected = |to: u64| (first..to).map(|n| n.to_string()).collect::<Vec<_>>();
        let running = start(&broker, options());
        events(&broker, expected(4).len());
        // The place stands before the first event does.
        until("the place to be remembered", || {
            fs::read_dir(dir.path()).unwrap().flatten().next()
        });
        running.stop();
        let (before, after) = (options(), options());
        numbers(&mut journal, 4, 6);
        let running = start(&broker, before);
        events(&broker, expected(6).len());
        running.stop();
        start(&broker, after).stop();
        let all = broker.state(|state| state.events());
        assert_eq!(messages(&all), expected(6));
    }
}

#[test]
fn a_journalctl_that_dies_is_started_again_where_it_was() {
    let Some(mut journal) = Journal::new("a_journalctl_that_dies") else {
        return;
    };
    // Without its file journalctl only fails, which is another test's.
    journal.write(&[(AT, "a.service", 6, "begin")]);
    let broker = Broker::start();
    let options = JournalOptions {
        program: journal.program(),
        start: Some(JournalStart::Beginning),
        ..JournalOptions::default()
    };
    let running = start(&broker, options);
    for round in 1..4usize {
        let lines: Vec<String> = (0..5).map(|n| format!("{round} {n}")).collect();
        let entries: Vec<_> = lines
            .iter()
            .map(|l| (AT + round as u64, "a.service", 6, &**l))
            .collect();
        journal.write(&entries);
        events(&broker, 1 + 5 * round);
        let readers = journal.readers();
        assert_eq!(readers.len(), 1);
        let pid = rustix::process::Pid::from_raw(readers[0].cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    journal.write(&[(AT + 9, "a.service", 6, "end")]);
    let all = events(&broker, 17);
    running.stop();
    let lines = (1..4).flat_map(|round| (0..5).map(move |n| format!("{round} {n}")));
    let expected = ["begin".to_owned()].into_iter().chain(lines);
    let expected: Vec<String> = expected.chain(["end".to_owned()]).collect();
    assert_eq!(messages(&all), expected);
    assert!(journal.readers().is_empty(), "it ends with the source");
}

#[test]
fn a_journalctl_that_only_fails_is_an_error_that_says_why() {
    let broker = Broker::start();
    let options = JournalOptions {
        directory: Some("/nonexistent/journal".into()),
        ..JournalOptions::default()
    };
    if Journal::new("a_journalctl_that_only_fails").is_none() {
        return;
    }
    let error = start(&broker, options).failure().to_string();
    assert!(error.contains("/nonexistent/journal"), "{error}");
    assert!(error.contains("No such file"), "{error}");
}

/// Says numbers as several programs, each its own, while `go` holds; returns how many each said.
fn chatter(journald: &Journald, programs: u32, go: &AtomicBool, said: &AtomicU32) {
    while go.load(Relaxed) {
        let number = said.load(Relaxed);
        for program in 0..programs {
            // Some say much, some little, so that they leave at different times.
            if number.is_multiple_of(program * program + 1) {
                journald.say(&format!("p{program}"), &format!("p{program} {number}"));
            }
        }
        said.store(number + 1, Relaxed);
        std::thread::sleep(Duration::from_micros(300));
    }
}

#[test]
fn an_agent_that_is_killed_loses_and_repeats_nothing_of_any_of_many_sources() {
    let Some(journald) = Journald::start("an_agent_that_is_killed") else {
        return;
    };
    let rounds = std::env::var("THINGLOG_KILL_ROUNDS");
    let rounds: usize = rounds.map_or(6, |rounds| rounds.parse().unwrap());
    const PROGRAMS: u32 = 7;
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let source = format!(
        "kind = \"journal\"\nnamespace = \"{}\"\nstart = \"beginning\"\nexclude_identifiers = [\"systemd-journald\"]",
        journald.namespace
    );
    let (go, said) = (AtomicBool::new(true), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| chatter(&journald, PROGRAMS, &go, &said));
        for round in 0..rounds {
            let agent = Program::start(dir.path(), broker.address, &source);
            let before = broker.state(|state| state.events().len());
            events(&broker, before + 200 + 137 * round);
            match round % 3 {
                0 => broker.drop_connections(),
                1 => journald.tell(&["--rotate"]),
                _ => {}
            }
            std::thread::sleep(Duration::from_millis(getrandom::u64().unwrap() % 700));
            drop(agent);
        }
        go.store(false, Relaxed);
    });
    let said = said.load(Relaxed);
    journald.say("p0", "end");
    let agent = Program::start(dir.path(), broker.address, &source);
    broker.wait(|state| state.messages().iter().any(|m| m == "end").then_some(()));
    let count = |program: u32| said.div_ceil(program * program + 1) as usize;
    let total: usize = (0..PROGRAMS).map(count).sum();
    let all = events(&broker, total + 1);
    drop(agent);
    for program in 0..PROGRAMS {
        let name = format!("p{program}");
        let own = all
            .iter()
            .filter(|(source, e)| *source == name && e.message != "end");
        let own: Vec<&str> = own.map(|(_, event)| &*event.message).collect();
        let expected = (0..said).filter(|n| n.is_multiple_of(program * program + 1));
        let expected: Vec<String> = expected.map(|n| format!("{name} {n}")).collect();
        assert_eq!(own, expected);
    }
    assert_eq!(all.len(), total + 1, "nothing else, and nothing twice");
}

fn of_namespace(journald: &Journald, state: &Path) -> JournalOptions {
    JournalOptions {
        namespace: Some(journald.namespace.clone()),
        start: Some(JournalStart::Beginning),
        exclude_identifiers: vec!["systemd-journald".into()],
        state: Some(StateDir::open(state).unwrap()),
        ..JournalOptions::default()
    }
}

#[test]
fn rotation_loses_nothing_and_what_was_removed_unread_is_declared() {
    let Some(journald) = Journald::start("rotation_loses_nothing") else {
        return;
    };
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let running = start(&broker, of_namespace(&journald, dir.path()));
    for n in 0..30 {
        journald.say("app", &n.to_string());
        if n % 10 == 5 {
            journald.tell(&["--rotate"]);
        }
    }
    events(&broker, 30);
    running.stop();
    // Removed while it was read to the end: nothing is missing.
    journald.tell(&["--rotate"]);
    journald.tell(&["--vacuum-files=1"]);
    let running = start(&broker, of_namespace(&journald, dir.path()));
    journald.say("app", "30");
    let all = events(&broker, 31);
    running.stop();
    let expected: Vec<String> = (0..31).map(|n| n.to_string()).collect();
    assert_eq!(messages(&all), expected);

    // Removed before anybody read it.
    for n in 0..5 {
        journald.say("app", &format!("unread {n}"));
    }
    journald.tell(&["--rotate"]);
    journald.tell(&["--vacuum-files=1"]);
    journald.say("app", "after");
    let running = start(&broker, of_namespace(&journald, dir.path()));
    let all = events(&broker, 33);
    running.stop();
    let (source, gap) = &all[31];
    assert_eq!((&**source, gap.severity), ("thinglog", Severity::WARN));
    assert!(
        gap.message.contains("removed before they were read"),
        "{}",
        gap.message
    );
    let lost = gap.attributes["lost"].as_u64().unwrap();
    assert!(
        (5..20).contains(&lost),
        "journald's own are among them: {lost}"
    );
    assert_eq!(all[32].1.message, "after");
    // Said once.
    let running = start(&broker, of_namespace(&journald, dir.path()));
    journald.say("app", "later");
    let all = events(&broker, 34);
    running.stop();
    assert_eq!(all[33].1.message, "later");
}

#[test]
fn a_journal_that_was_begun_anew_is_read_from_its_beginning_and_the_gap_declared() {
    let Some(mut journal) = Journal::new("a_journal_that_was_begun_anew") else {
        return;
    };
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let options = |journal: &Journal| JournalOptions {
        program: journal.program(),
        start: Some(JournalStart::Beginning),
        state: Some(StateDir::open(dir.path()).unwrap()),
        ..JournalOptions::default()
    };
    journal.write(&[(AT, "app.service", 6, "before")]);
    let running = start(&broker, options(&journal));
    events(&broker, 1);
    running.stop();
    fs::remove_file(journal.file()).unwrap();
    journal.write(&[(AT + 5, "app.service", 6, "new")]);
    let running = start(&broker, options(&journal));
    let all = events(&broker, 3);
    running.stop();
    assert_eq!(all[1].0, "thinglog");
    assert!(all[1].1.message.contains("nobody knows how many"));
    assert_eq!(all[2].1.message, "new");
    assert!(!all[1].1.attributes.contains_key("lost"));
}

#[test]
fn what_the_agent_itself_says_to_the_journal_is_not_carried() {
    let Some(mut journal) = Journal::new("what_the_agent_itself_says") else {
        return;
    };
    let broker = Broker::start();
    let line = |run: &str, message: &str| {
        [
            ("_COMM", b"thinglog-edge".to_vec()),
            ("SYSLOG_IDENTIFIER", b"thinglog-edge".to_vec()),
            ("_SYSTEMD_INVOCATION_ID", run.as_bytes().to_vec()),
            ("MESSAGE", message.as_bytes().to_vec()),
        ]
    };
    let write = |journal: &mut Journal, run: &str, message: &str| {
        let fields = line(run, message);
        let fields: Vec<(&str, &[u8])> = fields.iter().map(|(k, v)| (*k, &**v)).collect();
        journal.write_fields(&fields);
    };
    write(&mut journal, "this", "own");
    write(&mut journal, "other", "of another agent");
    let program = journal.program();
    let source = format!("kind = \"journal\"\nprogram = {program:?}\nstart = \"beginning\"");
    let dir = tempfile::tempdir().unwrap();
    let agent = Program::with(
        dir.path(),
        broker.address,
        &source,
        &[("INVOCATION_ID", "this")],
    );
    let all = events(&broker, 1);
    assert_eq!(messages(&all), ["of another agent"]);
    drop(agent);
    // Unless it is to be.
    let source = format!("{source}\nexclude_own = false");
    let dir = tempfile::tempdir().unwrap();
    let agent = Program::with(
        dir.path(),
        broker.address,
        &source,
        &[("INVOCATION_ID", "this")],
    );
    let all = events(&broker, 3);
    assert_eq!(messages(&all)[1..], ["own", "of another agent"]);
    drop(agent);
}
