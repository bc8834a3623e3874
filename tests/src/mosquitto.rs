//! Mosquitto's command line clients: what operators have at hand, so what must work.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// Whether the clients are there. Without them a test is skipped, loudly; with `CI=true` it fails.
pub fn installed(test: &str) -> bool {
    let found = |name: &str| Command::new(name).arg("--help").output().is_ok();
    if found("mosquitto_pub") && found("mosquitto_sub") {
        return true;
    }
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(
        !ci,
        "mosquitto_pub and mosquitto_sub are missing (Debian: mosquitto-clients)"
    );
    eprintln!("SKIPPED {test}: no mosquitto_pub and mosquitto_sub (Debian: mosquitto-clients)");
    false
}

/// The versions of MQTT, as the clients call them.
pub const VERSIONS: [&str; 2] = ["mqttv311", "mqttv5"];

fn client(name: &str, broker: SocketAddr) -> Command {
    let mut command = Command::new(name);
    command.args([
        "-h",
        &broker.ip().to_string(),
        "-p",
        &broker.port().to_string(),
    ]);
    command
}

/// Publishes `payload` at QoS 1 and waits for the acknowledgement.
#[track_caller]
pub fn publish(broker: SocketAddr, topic: &str, payload: &[u8], more: &[&str]) {
    if let Err(complaint) = try_publish(broker, topic, payload, more) {
        panic!("mosquitto_pub: {complaint}");
    }
}

/// The same where it may fail: with what the client says then.
pub fn try_publish(
    broker: SocketAddr,
    topic: &str,
    payload: &[u8],
    more: &[&str],
) -> Result<(), String> {
    let mut command = client("mosquitto_pub", broker);
    command
        .args(["-q", "1", "-t", topic, "-s"])
        .args(more)
        .stdin(Stdio::piped());
    let mut child = command
        .stderr(Stdio::piped())
        .spawn()
        .expect("mosquitto_pub");
    // A client that cannot connect may end before it reads.
    let _ = child.stdin.take().expect("stdin").write_all(payload);
    let output = child.wait_with_output().expect("mosquitto_pub");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() && complaint.is_empty() {
        Ok(())
    } else {
        Err(complaint)
    }
}

/// Removes a retained message, by an empty one.
#[track_caller]
pub fn remove_retained(broker: SocketAddr, topic: &str) {
    let mut command = client("mosquitto_pub", broker);
    let status = command
        .args(["-q", "1", "-r", "-n", "-t", topic])
        .status()
        .expect("mosquitto_pub");
    assert!(status.success());
}

/// The retained message of a topic, if one comes within a second.
pub fn retained(broker: SocketAddr, topic: &str) -> Option<String> {
    let mut command = client("mosquitto_sub", broker);
    let output = command
        .args(["-t", topic, "-C", "1", "-W", "1"])
        .output()
        .expect("mosquitto_sub");
    let text = String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned();
    (!text.is_empty()).then_some(text)
}

/// A running `mosquitto_sub`. Dropping it ends it.
pub struct Watch {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Watch {
    /// Subscribes; `more` are options of mosquitto_sub besides host, port and topic.
    pub fn start(broker: SocketAddr, topic: &str, more: &[&str]) -> Watch {
        let mut command = client("mosquitto_sub", broker);
        command
            .args(["-t", topic])
            .args(more)
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("mosquitto_sub");
        let output = BufReader::new(child.stdout.take().expect("stdout"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                sink.lock().expect("lines").push(line);
            }
        });
        Watch { child, lines }
    }

    /// What it has printed so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("lines").clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
