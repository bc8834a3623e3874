//! The agent as people run it: the real binary against a broker.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use support::Broker;
use thinglog_schemas::Severity;

fn agent(address: SocketAddr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thinglog-edge"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("THINGLOG_") {
            command.env_remove(name);
        }
    }
    command
        .args(["--broker", &address.to_string(), "--device", "lamp-7"])
        .args([
            "--flush",
            "20ms",
            "--reconnect",
            "10ms",
            "--reconnect-max",
            "50ms",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(command: &mut Command) -> Output {
    command.spawn().unwrap().wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn send_signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn a_command_keeps_its_output_and_exit_code_and_its_lines_are_published() {
    let broker = Broker::start();
    let script = "echo out; echo err >&2; exit 7";
    let output = run(agent(broker.address).args(["run", "--", "sh", "-c", script]));
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(text(&output.stdout), "out\n");
    assert_eq!(text(&output.stderr), "err\n");
    let mut events = broker.state(|state| state.events());
    events.sort_by_key(|(_, entry)| entry.severity);
    let seen: Vec<_> = events
        .iter()
        .map(|(source, entry)| (&**source, entry.severity, &*entry.message))
        .collect();
    let expected = [
        ("sh", Severity::INFO, "out"),
        ("sh", Severity::ERROR, "err"),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_command_is_not_held_up_by_a_broker_that_is_away() {
    // Far more than memory holds.
    let output = run(agent(Broker::reserve())
        .args(["--memory-bytes", "256KiB", "--flush-timeout", "50ms"])
        .args(["run", "--", "seq", "200000"]));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout).lines().count(), 200_000);
    let stderr = text(&output.stderr);
    assert!(stderr.contains("events were not delivered"), "{stderr}");
    assert!(stderr.contains("events were dropped"), "{stderr}");
}

#[test]
fn what_a_command_said_while_the_broker_was_away_arrives_from_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    let address = Broker::reserve();
    let spooled = |broker| {
        let mut command = agent(broker);
        command.arg("--spool").arg(dir.path());
        command
    };
    let output = run(spooled(address).args(["run", "--", "echo", "kept"]));
    assert_eq!(output.status.code(), Some(0));
    assert!(
        !text(&output.stderr).contains("not"),
        "{}",
        text(&output.stderr)
    );

    let broker = Broker::at(address);
    let mut later = spooled(address)
        .args(["run", "--", "sleep", "60"])
        .spawn()
        .unwrap();
    broker.wait(|state| state.messages().contains(&"kept".to_owned()).then_some(()));
    send_signal(&later, rustix::process::Signal::TERM);
    assert_eq!(later.wait().unwrap().code(), Some(128 + 15));
}

#[test]
fn a_stderr_that_nobody_reads_any_more_costs_neither_exit_code_nor_lines() {
    let broker = Broker::start();
    let script = "read go; echo err >&2; exit 7";
    let mut command = agent(broker.address);
    command.args(["run", "--", "sh", "-c", script]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(broker.state(|state| state.messages()), ["err"]);
}

#[test]
fn signals_reach_the_command() {
    let broker = Broker::start();
    let script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done";
    let mut child = agent(broker.address)
        .args(["run", "--", "sh", "-c", script])
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(stdout.next().unwrap().unwrap(), "ready");
    send_signal(&child, rustix::process::Signal::TERM);
    assert_eq!(stdout.next().unwrap().unwrap(), "bye");
    let status = child.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(3), None));
    assert_eq!(broker.state(|state| state.messages()), ["ready", "bye"]);
}

#[test]
fn an_output_that_nobody_reads_does_not_keep_the_agent_from_ending() {
    let broker = Broker::start();
    // More than the pipe to the reader holds, and less than both pipes together.
    let dir = tempfile::tempdir().unwrap();
    let done = dir.path().join("done");
    let mut child = agent(broker.address)
        .env("DONE", &done)
        .args(["run", "--", "sh", "-c", r#"seq 1 18000; : > "$DONE""#])
        .spawn()
        .unwrap();
    let deadline = Instant::now() + support::LIMIT;
    let status = loop {
        if done.exists() {
            send_signal(&child, rustix::process::Signal::TERM);
        }
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("still there");
        }
        thread::sleep(Duration::from_millis(50));
    };
    // The command's own end, or by the signal when that came first.
    assert!(matches!(status.code(), Some(0 | 143)), "{status}");
}

#[test]
fn a_command_that_does_not_exist_is_127() {
    let broker = Broker::start();
    let output = run(agent(broker.address).args(["run", "--", "/no/such/program"]));
    assert_eq!(output.status.code(), Some(127));
    assert!(text(&output.stderr).contains("/no/such/program"));
}

#[test]
fn what_a_command_leaves_running_does_not_keep_the_agent() {
    let broker = Broker::start();
    let output =
        run(agent(broker.address).args(["run", "--", "sh", "-c", "sleep 600 & echo done"]));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(broker.state(|state| state.messages()), ["done"]);
}

#[test]
fn a_pipe_publishes_every_line_and_recognises_json() {
    let broker = Broker::start();
    let mut child = agent(broker.address)
        .args(["--source", "app", "pipe", "--echo"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let input = "plain\n{\"level\":\"error\",\"msg\":\"hot\",\"celsius\":91}\nlast without newline";
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), input);
    let events = broker.state(|state| state.events());
    assert_eq!(
        broker.state(|state| state.messages()),
        ["plain", "hot", "last without newline"]
    );
    assert_eq!(events[1].1.severity, Severity::ERROR);
    assert_eq!(events[1].1.attributes["celsius"], 91);
    assert!(events.iter().all(|(source, _)| source == "app"));
}

#[test]
fn what_a_pipe_could_not_deliver_is_counted_and_exit_code_3() {
    let mut child = agent(Broker::reserve())
        .args(["--flush-timeout", "50ms", "pipe"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"one\ntwo\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("2 events were not delivered"));
}

#[test]
fn files_are_followed_and_a_restart_repeats_and_misses_nothing() {
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("app.log");
    let state = dir.path().join("state");
    let start = || {
        agent(broker.address)
            .arg("--state")
            .arg(&state)
            .arg("file")
            .arg(&log)
            .spawn()
            .unwrap()
    };
    let stop = |mut child: Child| {
        send_signal(&child, rustix::process::Signal::TERM);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    };
    let arrived = |count: usize| {
        broker.wait(|state| (state.messages().len() >= count).then_some(()));
    };
    let write = |text: &str| {
        let mut file = fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    write("one\ntwo\n");
    let child = start();
    arrived(2);
    stop(child);
    write("three\n");
    fs::rename(&log, dir.path().join("app.log.1")).unwrap();
    write("four\n");
    let child = start();
    arrived(4);
    write("five\n");
    arrived(5);
    stop(child);
    assert_eq!(
        broker.state(|state| state.messages()),
        ["one", "two", "three", "four", "five"]
    );
    let sources = broker.state(|state| state.events());
    assert!(sources.iter().all(|(source, _)| source == "app"));
}

#[test]
fn file_lines_wait_in_the_file_while_the_broker_is_away() {
    let address = Broker::reserve();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("app.log");
    let lines: Vec<String> = (0..20_000).map(|i| format!("line {i}")).collect();
    fs::write(&log, lines.join("\n") + "\n").unwrap();
    let mut child = agent(address)
        .args(["--memory-bytes", "64KiB", "file"])
        .arg(&log)
        .spawn()
        .unwrap();
    let broker = Broker::at(address);
    broker.wait(|state| (state.messages().len() == lines.len()).then_some(()));
    assert_eq!(broker.state(|state| state.messages()), lines);
    send_signal(&child, rustix::process::Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn without_a_journal_the_message_says_what_to_do_instead() {
    let output = run(agent(Broker::reserve()).env("PATH", "/nonexistent").args([
        "--flush-timeout",
        "10ms",
        "journal",
    ]));
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("thinglog-edge file"), "{stderr}");
}

#[test]
fn a_spool_in_use_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start();
    let mut first = agent(broker.address)
        .arg("--spool")
        .arg(dir.path())
        .args(["run", "--", "sleep", "60"])
        .spawn()
        .unwrap();
    broker.wait(|state| (!state.connects.is_empty()).then_some(()));
    let second = run(agent(broker.address)
        .arg("--spool")
        .arg(dir.path())
        .arg("pipe"));
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("another process uses this spool"));
    send_signal(&first, rustix::process::Signal::TERM);
    first.wait().unwrap();
}

#[test]
fn a_wrong_option_is_exit_code_2_and_completions_are_printed() {
    let address = Broker::reserve();
    let output = run(agent(address).args(["--level", "loud", "pipe"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("DISABLED, ERROR, WARN, INFO or DEBUG"));
    let output = run(agent(address).args(["completions", "bash"]));
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("thinglog-edge"));
}
