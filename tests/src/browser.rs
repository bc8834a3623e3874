//! Chromium without a screen, and pages that connect with MQTT.js and report what happened.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use tempfile::TempDir;

use crate::wait;

/// The page: connects to the broker named in its query and reports every step.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><script src="/mqtt.js"></script><script>
let last = Promise.resolve();
const report = (text) => { last = last.then(() => fetch("/report", { method: "POST", body: text })); };
const url = new URLSearchParams(location.search).get("broker");
const client = mqtt.connect(url, { protocolVersion: 5, reconnectPeriod: 0, clientId: "page" });
client.on("connect", () => report("connected"));
client.on("error", (error) => report("error " + error.message));
client.on("close", () => report("closed"));
client.on("message", (topic, message) => {
  report("received " + topic + " " + message);
  client.publish("answers/page", "seen " + message, { qos: 1 }, () => report("published"));
});
client.subscribe("news/#", { qos: 1 }, (error) => report(error ? "not subscribed" : "subscribed"));
</script>"#;

/// MQTT.js from npm as one file for browsers; `tests/run` puts it in the target directory.
fn mqtt_js() -> PathBuf {
    let own = std::env::current_exe().expect("the path of the test");
    let target = own
        .ancestors()
        .nth(3)
        .expect("target/<profile>/deps/<test>");
    target.join("clients/node_modules/mqtt/dist/mqtt.min.js")
}

/// Whether browser and library are there. Without them a test is skipped, loudly; with `CI=true` it
/// fails.
pub fn installed(test: &str) -> bool {
    let chromium = Command::new("chromium").arg("--version").output();
    let missing = match (chromium.is_ok(), mqtt_js().exists()) {
        (true, true) => return true,
        (false, _) => "no chromium (Debian: chromium)".to_owned(),
        (true, false) => format!("no {} (tests/run gets it from npm)", mqtt_js().display()),
    };
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!ci, "{missing}");
    eprintln!("SKIPPED {test}: {missing}");
    false
}

/// A web server of one page, and what the page reported.
pub struct Pages {
    /// Where it serves.
    pub address: SocketAddr,
    reports: Arc<Mutex<Vec<String>>>,
}

impl Pages {
    /// Serves until the test ends.
    pub fn serve() -> Pages {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let reports = Arc::new(Mutex::new(Vec::new()));
        let sink = reports.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sink = sink.clone();
                thread::spawn(move || answer(stream, &sink));
            }
        });
        Pages { address, reports }
    }

    /// The page's address under a host name, for a broker.
    pub fn url(&self, host: &str, broker: &str) -> String {
        format!("http://{host}:{}/?broker={broker}", self.address.port())
    }

    /// What pages have reported so far.
    pub fn reports(&self) -> Vec<String> {
        self.reports.lock().expect("reports").clone()
    }

    /// Waits for a report.
    #[track_caller]
    pub fn wait_for(&self, report: &str) {
        wait::until(&format!("the page to report {report:?}"), || {
            self.reports()
                .iter()
                .any(|text| text == report)
                .then_some(())
        });
    }
}

/// Answers one request and closes.
fn answer(stream: TcpStream, reports: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.read_line(&mut request).ok()?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let path = request.split(' ').nth(1)?;
    let (kind, content) = match path.split('?').next()? {
        "/" => ("text/html", PAGE.as_bytes().to_vec()),
        "/mqtt.js" => ("text/javascript", fs::read(mqtt_js()).ok()?),
        "/report" => {
            let text = String::from_utf8_lossy(&body).into_owned();
            reports.lock().expect("reports").push(text);
            ("text/plain", Vec::new())
        }
        _ => ("text/plain", Vec::new()),
    };
    let mut stream = reader.into_inner();
    let length = content.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&content).ok()
}

/// A browser with one page open. Dropping it ends it.
pub struct Browser {
    child: Child,
    _profile: TempDir,
}

impl Browser {
    /// Opens a page; `more` are flags of Chromium.
    pub fn open(url: &str, more: &[&str]) -> Browser {
        let profile = tempfile::tempdir().expect("a temporary directory");
        let child = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
            ])
            .args(["--no-first-run", "--disable-background-networking"])
            .args([
                "--disable-component-update",
                "--disable-sync",
                "--disable-dev-shm-usage",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            // Keeps it open, and prints nothing of interest.
            .arg("--remote-debugging-port=0")
            .args(more)
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromium");
        Browser {
            child,
            _profile: profile,
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
