//! A web service that takes notifications: a small HTTP server that notes what it was sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use thinglog_tests::site::free_address;

/// The service; it listens from [`Hook::listen`] on.
pub(crate) struct Hook {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Its lines before the body, in small letters.
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Hook {
    pub(crate) fn new() -> Hook {
        Hook {
            address: free_address(),
            requests: Arc::default(),
        }
    }

    /// The same, and it listens.
    pub(crate) fn listening() -> Hook {
        let hook = Hook::new();
        hook.listen();
        hook
    }

    /// Begins to listen, for as long as the process lives.
    pub(crate) fn listen(&self) {
        let listener = TcpListener::bind(self.address).expect("a free port");
        let requests = Arc::clone(&self.requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let requests = Arc::clone(&requests);
                // A connection that breaks is the other side's affair.
                std::thread::spawn(move || drop(serve(stream, &requests)));
            }
        });
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Notifications, each once, by their ids.
    pub(crate) fn notifications(&self) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        for request in self.requests() {
            if !all.iter().any(|known| known["id"] == request.body["id"]) {
                all.push(request.body);
            }
        }
        all
    }
}

/// Requests of one connection, one after the other.
fn serve(stream: TcpStream, requests: &Mutex<Vec<Request>>) -> std::io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.to_ascii_lowercase();
            if line.trim_end().is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(std::io::Error::other)?;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body = serde_json::from_slice(&body)?;
        requests.lock().unwrap().push(Request { head, body });
        out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    }
}
