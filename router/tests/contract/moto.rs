//! moto, which stands in for services of AWS (https://docs.getmoto.org, server mode).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{PATIENCE, free_port};

/// A server with everything in its memory. It ends with the value.
pub(crate) struct Moto {
    child: Child,
    pub(crate) port: u16,
}

impl Moto {
    /// `None` where it is not installed, unless in CI.
    pub(crate) async fn start() -> Option<Moto> {
        let port = free_port();
        let Some(child) = spawn(port) else {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI must have moto installed: tests/run does it"
            );
            eprintln!("SKIPPED: moto is not installed; tests/run does it");
            return None;
        };
        let moto = Moto { child, port };
        moto.wait_until_up().await;
        Some(moto)
    }

    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, empty.
    pub(crate) async fn resume(&mut self) {
        self.child = spawn(self.port).unwrap();
        self.wait_until_up().await;
    }

    async fn wait_until_up(&self) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "moto does not come up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a request of a service; status and body.
    pub(crate) fn ask(&self, service: &str, head: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let (first, headers) = head.split_once("\r\n").unwrap_or((head, ""));
        let text = format!(
            "{first} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {}\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/eu-central-1/{service}/\
             aws4_request, SignedHeaders=host, Signature=0\r\n{headers}\r\n",
            body.len()
        );
        stream.write_all(text.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&answer[..end]);
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer[end + 4..].to_vec())
    }

    /// The messages of a log stream, as JSON; none if there is no such stream.
    pub(crate) fn log_events(&self, group: &str, stream: &str) -> Vec<Value> {
        let head = "POST /\r\nX-Amz-Target: Logs_20140328.GetLogEvents\r\n\
                    Content-Type: application/x-amz-json-1.1\r\n";
        let body = json!({
            "logGroupName": group, "logStreamName": stream, "limit": 10_000, "startFromHead": true,
        });
        let (status, answer) = self.ask("logs", head, body.to_string().as_bytes());
        if status != 200 {
            return Vec::new();
        }
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        let events = answer["events"].as_array().unwrap().iter();
        let message = |event: &Value| serde_json::from_str(event["message"].as_str().unwrap());
        events.map(|event| message(event).unwrap()).collect()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16) -> Option<Child> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    Command::new(target.join("clients/aws/bin/moto_server"))
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()
}
