//! A rate that waits: each file is held to it at its own cost.

#![allow(clippy::unwrap_used)]

mod support {
    pub(crate) mod agent;
    #[path = "mod.rs"]
    pub(crate) mod broker;
}

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use support::{
    agent::{self, Program, Running},
    broker::Broker,
};
use thinglog_edge::agent::{FilesOptions, RuleOptions, StateDir, run_files_source};

fn append(path: &Path, word: &str, numbers: std::ops::Range<u32>) {
    let text: String = numbers.map(|n| format!("{word} {n}\n")).collect();
    let file = File::options().create(true).append(true).open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

fn numbered(word: &str, numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|n| format!("{word} {n}")).collect()
}

/// Both files are of one source.
fn start(broker: &Broker, dir: &Path, rate: Option<&str>) -> Running {
    let options = FilesOptions {
        source: "app".into(),
        state: Some(StateDir::open(dir.join("state")).unwrap()),
        ..FilesOptions::new([dir.join("*.log").to_string_lossy()])
    };
    let rules = RuleOptions {
        rate: rate.map(|rate| rate.parse().unwrap()),
        burst: rate.map(|_| 3),
        ..RuleOptions::default()
    };
    agent::run(
        agent::publisher(broker.address),
        async move |sink, cancel| {
            let sink = sink.clone().with_rules(&rules).unwrap();
            run_files_source(&sink, options, cancel).await
        },
    )
}

fn of(broker: &Broker, word: &str, count: usize) -> Vec<String> {
    broker.wait(|state| {
        let mut messages = state.messages();
        messages.retain(|message| message.starts_with(word));
        (messages.len() >= count).then_some(messages)
    })
}

#[test]
fn a_file_above_its_rate_holds_up_no_other_file_of_its_set() {
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    // Much more than is read of it at a time.
    append(&at("noisy.log"), "noisy", 0..20_000);
    let running = start(&broker, dir.path(), Some("1/h"));
    assert_eq!(of(&broker, "noisy", 3), numbered("noisy", 0..3));
    for n in 0..3 {
        append(&at("quiet.log"), "quiet", n..n + 1);
        of(&broker, "quiet", n as usize + 1);
    }
    // Also one that comes to be now.
    append(&at("later.log"), "later", 0..3);
    of(&broker, "later", 3);
    running.stop();
    assert_eq!(of(&broker, "noisy", 3).len(), 3);

    // What was held is read later, once and in order.
    let running = start(&broker, dir.path(), None);
    assert_eq!(of(&broker, "noisy", 20_000), numbered("noisy", 0..20_000));
    running.stop();
    assert_eq!(of(&broker, "quiet", 3), numbered("quiet", 0..3));
    assert_eq!(of(&broker, "later", 3), numbered("later", 0..3));
}

#[test]
fn a_rate_is_kept_and_nothing_is_lost_to_it() {
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    append(&dir.path().join("a.log"), "a", 0..300);
    append(&dir.path().join("b.log"), "b", 0..300);
    let running = start(&broker, dir.path(), Some("1000/s"));
    assert_eq!(of(&broker, "a", 300), numbered("a", 0..300));
    assert_eq!(of(&broker, "b", 300), numbered("b", 0..300));
    running.stop();
}

#[test]
fn a_file_that_waited_for_its_rate_is_read_on_without_a_new_line() {
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    // Several times what is read of a file at a time.
    append(&dir.path().join("a.log"), "a", 0..5_000);
    let running = start(&broker, dir.path(), Some("5000/s"));
    assert_eq!(of(&broker, "a", 5_000), numbered("a", 0..5_000));
    running.stop();
}

#[test]
fn an_agent_that_is_killed_above_its_rate_loses_and_repeats_nothing() {
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let source = |rate: &str| {
        format!(
            "kind = \"file\"\npaths = [\"{}/*.log\"]\n{rate}",
            logs.display()
        )
    };
    for name in ["a", "b", "c"] {
        append(&logs.join(format!("{name}.log")), name, 0..2_000);
    }
    for round in 1..5 {
        let limited = source("rate = \"400/s\"\nburst = 50");
        let agent = Program::start(dir.path(), broker.address, &limited);
        of(&broker, "a", 60 * round);
        drop(agent);
    }
    let agent = Program::start(dir.path(), broker.address, &source(""));
    for name in ["a", "b", "c"] {
        assert_eq!(of(&broker, name, 2_000), numbered(name, 0..2_000));
    }
    drop(agent);
}
