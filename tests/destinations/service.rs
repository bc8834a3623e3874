//! A web service that takes events: a small HTTP server that notes what it was sent.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use thinglog_tests::site::free_address;

/// The service; it listens from [`Service::listen`] on.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// How often each event came, by its id.
    events: Mutex<HashMap<String, u64>>,
    /// Refuses requests with `poison` in a message.
    is_strict: AtomicBool,
}

impl Service {
    pub(crate) fn new() -> Service {
        Service {
            address: free_address(),
            state: Arc::default(),
        }
    }

    /// Begins to listen, for as long as the process lives.
    pub(crate) fn listen(&self) {
        let listener = TcpListener::bind(self.address).expect("a free port");
        let state = Arc::clone(&self.state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                // A connection that breaks is the other side's affair.
                std::thread::spawn(move || drop(serve(stream, &state)));
            }
        });
    }

    pub(crate) fn refuse_poison(&self, refuse: bool) {
        self.state.is_strict.store(refuse, Ordering::Relaxed);
    }

    /// Events it has, each counted once.
    pub(crate) fn count(&self) -> usize {
        self.state.events.lock().unwrap().len()
    }

    /// Whether it has an event.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.state.events.lock().unwrap().contains_key(id)
    }
}

/// Requests of one connection, one after the other.
fn serve(stream: TcpStream, state: &State) -> std::io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(std::io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let events: Vec<Value> = serde_json::from_slice(&body)?;
        let is_poison = |event: &Value| event["message"].to_string().contains("poison");
        if state.is_strict.load(Ordering::Relaxed) && events.iter().any(is_poison) {
            out.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 6\r\n\r\npoison")?;
            continue;
        }
        let mut seen = state.events.lock().unwrap();
        for event in &events {
            let id = event["id"].as_str().expect("an event has an id");
            *seen.entry(id.to_owned()).or_default() += 1;
        }
        drop(seen);
        out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    }
}
