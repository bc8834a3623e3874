//! The kernel log source, on the kernel's own device and on a pipe with recorded text.

#![allow(clippy::unwrap_used)]

mod support {
    pub(crate) mod agent;
    #[path = "mod.rs"]
    pub(crate) mod broker;
}

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use support::{
    agent::{self, Program, Running},
    broker::Broker,
};
use thinglog_edge::agent::{KmsgOptions, StateDir, run_kmsg_source};
use thinglog_schemas::Severity;

fn start(broker: &Broker, options: KmsgOptions) -> Running {
    agent::run(
        agent::publisher(broker.address),
        async move |sink, cancel| run_kmsg_source(sink, options, cancel).await,
    )
}

/// Whether the kernel's log can be read and written here; else a test is skipped and says so.
fn have_kmsg() -> bool {
    let device = File::options().read(true).write(true).open("/dev/kmsg");
    let error = device.err();
    if let Some(error) = &error {
        eprintln!("SKIPPED: /dev/kmsg cannot be used here: {error}");
    }
    error.is_none()
}

/// Writes a record into the kernel's log. It takes ten of each that opens it in five seconds.
fn say(text: &str) {
    let mut device = File::options().write(true).open("/dev/kmsg").unwrap();
    device
        .write_all(format!("<28>{text}\n").as_bytes())
        .unwrap();
}

#[test]
fn what_the_kernel_says_arrives_and_a_restart_neither_repeats_nor_misses_it() {
    if !have_kmsg() {
        return;
    }
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let options = || KmsgOptions {
        state: Some(StateDir::open(dir.path()).unwrap()),
        ..KmsgOptions::default()
    };
    let mark = format!("thinglog test {}", std::process::id());
    let say = |text: &str| say(&format!("{mark} {text}"));
    let said = |count: usize| {
        broker.wait(|state| {
            let events = state.events().into_iter();
            let ours: Vec<_> = events
                .filter(|(_, e)| e.message.starts_with(&mark))
                .collect();
            (ours.len() >= count).then_some(ours)
        })
    };
    say("one");
    let running = start(&broker, options());
    said(1);
    say("two");
    said(2);
    running.stop();
    say("three \\ é");
    let running = start(&broker, options());
    let ours = said(3);
    running.stop();
    let messages: Vec<&str> = ours
        .iter()
        .map(|(_, e)| &e.message[mark.len() + 1..])
        .collect();
    assert_eq!(messages, ["one", "two", "three \\ é"]);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    for (source, event) in &ours {
        assert_eq!((&**source, event.severity), ("kernel", Severity::WARN));
        assert_eq!(event.attributes["facility"], "daemon");
        assert!(event.time.abs_diff(now) < 60_000_000_000, "{}", event.time);
    }
}

#[test]
fn an_agent_that_is_killed_goes_on_where_its_spool_ends() {
    if !have_kmsg() {
        return;
    }
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let mark = format!("thinglog kill {}", std::process::id());
    let said = |count: usize| {
        broker.wait(|state| {
            let mut messages = state.messages();
            messages.retain(|message| message.starts_with(&mark));
            (messages.len() >= count).then_some(messages)
        })
    };
    let mut expected = Vec::new();
    for round in 0..5 {
        let agent = Program::start(dir.path(), broker.address, "kind = \"kmsg\"");
        for number in 0..40 {
            let message = format!("{mark} {round} {number}");
            say(&message);
            expected.push(message);
            if number == 20 {
                said(expected.len() - 10);
            }
        }
        drop(agent);
    }
    let agent = Program::start(dir.path(), broker.address, "kind = \"kmsg\"");
    let messages = said(expected.len());
    drop(agent);
    assert_eq!(messages, expected);
}

/// A pipe that stands in for the device, and its writer.
fn pipe(dir: &Path) -> (PathBuf, File) {
    let path = dir.join("kmsg");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let writer = File::options().read(true).write(true).open(&path).unwrap();
    (path, writer)
}

#[test]
fn overwritten_records_are_counted_across_a_restart() {
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let (path, mut writer) = pipe(dir.path());
    let options = || KmsgOptions {
        path: path.clone(),
        state: Some(StateDir::open(dir.path().join("state")).unwrap()),
        ..KmsgOptions::default()
    };
    let arrived =
        |count: usize| broker.wait(|state| Some(state.messages()).filter(|all| all.len() >= count));
    let running = start(&broker, options());
    writer.write_all(b"6,10,1000000,-;one\n").unwrap();
    writer
        .write_all(b"6,11,1000001,-;two\n SUBSYSTEM=acpi\n")
        .unwrap();
    arrived(2);
    running.stop();
    writer.write_all(b"6,11,1000001,-;two\n").unwrap();
    writer.write_all(b"4,20,2000000,-;three\n").unwrap();
    let running = start(&broker, options());
    let messages = arrived(4);
    running.stop();
    let lost = "8 kernel messages were overwritten before they were read";
    assert_eq!(messages, ["one", "two", lost, "three"]);
    let events = broker.state(|state| state.events());
    assert_eq!(events[1].1.attributes["subsystem"], "acpi");
    assert_eq!(events[2].1.attributes["lost"], 8);
    assert_eq!(events[2].1.severity, Severity::WARN);
}
