//! The container source before an engine that has troubles of its own, which no real one has when it
//! is told to: a server that answers as engines do, and fails where they may.

#![allow(clippy::unwrap_used)]

mod support {
    pub(crate) mod agent;
    #[path = "mod.rs"]
    pub(crate) mod broker;
}

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use support::{agent, broker::Broker};
use thinglog_edge::agent::{DockerOptions, NameFrom, run_docker_source};

const ID: &str = "ab12";

/// Serves one container with one line in its log, that goes on if it is `running`. Of each kind of question
/// as many are answered by 500 as `failures` say: inspections, logs.
fn engine(socket: &Path, running: bool, failures: [usize; 2]) {
    let listener = UnixListener::bind(socket).unwrap();
    let failures = Arc::new(Mutex::new(failures));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let failures = failures.clone();
            thread::spawn(move || answer(stream, running, &failures));
        }
    });
}

fn answer(mut stream: UnixStream, running: bool, failures: &Mutex<[usize; 2]>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let asked = lines.next().unwrap().unwrap();
    while !lines.next().unwrap().unwrap().is_empty() {}
    let container = format!(
        r#"{{"Id":"{ID}","Name":"/one","Config":{{"Tty":false,"Image":"i","Labels":{{}}}},"State":{{"Running":{running}}}}}"#
    );
    let log = b"2026-11-21T09:30:01.000000001Z hello\n";
    let mut frame = vec![1, 0, 0, 0, 0, 0, 0, log.len() as u8];
    frame.extend_from_slice(log);
    let (kind, body) = match &asked {
        asked if asked.contains("/containers/json") => {
            (None, format!(r#"[{{"Id":"{ID}"}}]"#).into())
        }
        asked if asked.contains("/events") => return wait(&stream),
        // As Podman, which ends it before its first line was read when the container has ended.
        asked if asked.contains("follow=1") && !running => (Some(1), Vec::new()),
        asked if asked.contains("/logs") => (Some(1), frame),
        _ => (Some(0), container.into_bytes()),
    };
    let fails = kind.is_some_and(|kind| {
        let left = &mut failures.lock().unwrap()[kind];
        let fails = *left > 0;
        *left = left.saturating_sub(1);
        fails
    });
    let head = match fails {
        true => "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_owned(),
        false if kind == Some(1) => "HTTP/1.1 200 OK\r\n\r\n".to_owned(),
        false => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()),
    };
    let _ = stream.write_all(head.as_bytes());
    if !fails {
        let _ = stream.write_all(&body);
        // It goes on.
        if kind == Some(1) && running {
            wait(&stream);
        }
    }
}

/// Until the other side closes.
fn wait(stream: &UnixStream) {
    let _ = BufReader::new(stream).read_line(&mut String::new());
}

/// Whether the line of the container comes.
fn follow(running: bool, failures: [usize; 2]) {
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("engine.sock");
    engine(&socket, running, failures);
    let options = DockerOptions {
        socket,
        source_from: NameFrom::Name,
        ..DockerOptions::default()
    };
    let agent = agent::run(
        agent::publisher(broker.address),
        async move |sink, cancel| run_docker_source(sink, options, cancel).await,
    );
    let events = broker.wait(|state| Some(state.events()).filter(|events| !events.is_empty()));
    assert_eq!(events[0].1.message, "hello", "{failures:?}");
    agent.stop();
}

#[test]
fn a_container_is_followed_although_the_engine_failed_to_tell_of_it_at_first() {
    for failures in [[2, 0], [0, 2], [1, 1]] {
        follow(true, failures);
    }
}

#[test]
fn the_log_of_a_container_that_has_ended_is_read_to_its_end() {
    follow(false, [0, 0]);
}
