//! A syslog server: a real rsyslog, with a proxy in front of it that makes connections fail.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::certificates::Certificates;
use crate::common::{PATIENCE, Running, free_port, until};
use crate::harness::{Bench, Fault, Got, Subject};
use crate::tcp_proxy::TcpProxy;

/// An rsyslog that writes what it gets to a file: host, program, priority, structured data and text,
/// with tabs between.
struct Rsyslog {
    child: Child,
    folder: tempfile::TempDir,
    tcp: u16,
    udp: u16,
}

impl Rsyslog {
    /// `None` where it is not installed, unless in CI. `more` is put before its inputs.
    fn start(more: &str) -> Option<Rsyslog> {
        let folder = tempfile::tempdir().unwrap();
        let (tcp, udp) = (free_port(), free_port());
        let path = folder.path();
        let config = format!(
            "global(workDirectory=\"{path}\" maxMessageSize=\"64k\")\n\
             main_queue(queue.timeoutEnqueue=\"60000\")\n\
             {more}\n\
             module(load=\"imudp\")\n\
             input(type=\"imtcp\" port=\"{tcp}\" address=\"127.0.0.1\")\n\
             input(type=\"imudp\" port=\"{udp}\" address=\"127.0.0.1\")\n\
             template(name=\"line\" type=\"string\" string=\"%hostname%\\t%app-name%\\t%pri%\\t\
             %structured-data%\\t%msg%\\n\")\n\
             action(type=\"omfile\" file=\"{path}/got\" template=\"line\")\n",
            path = path.display()
        );
        std::fs::write(path.join("rsyslog.conf"), config).unwrap();
        let Some(child) = spawn(path) else {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI must have rsyslog installed"
            );
            eprintln!("SKIPPED: rsyslog is not installed");
            return None;
        };
        let server = Rsyslog {
            child,
            folder,
            tcp,
            udp,
        };
        server.wait_until_up();
        Some(server)
    }

    fn resume(&mut self) {
        self.child = spawn(self.folder.path()).unwrap();
        self.wait_until_up();
    }

    /// Ends it as an operator would: it writes what it has.
    fn stop(&mut self) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }

    fn wait_until_up(&self) {
        let deadline = std::time::Instant::now() + 3 * PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", self.tcp)).is_err() {
            assert!(
                std::time::Instant::now() < deadline,
                "rsyslog does not come up"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("got")
    }

    /// Complete lines, taken apart.
    fn lines(&self) -> Vec<Vec<String>> {
        let text = std::fs::read_to_string(self.file()).unwrap_or_default();
        let end = text.rfind('\n').map_or(0, |at| at + 1);
        let lines = text[..end].lines();
        lines
            .map(|line| line.splitn(5, '\t').map(str::to_owned).collect())
            .collect()
    }

    fn got(&self) -> Vec<Got> {
        // Its own messages have no structured data.
        let lines = self.lines().into_iter().filter(|line| line[3] != "-");
        let got = lines.map(|line| Got {
            device: line[0].clone(),
            message: line[4].clone(),
        });
        got.collect()
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &Path) -> Option<Child> {
    ["rsyslogd", "/usr/sbin/rsyslogd"]
        .iter()
        .find_map(|program| {
            Command::new(program)
                .arg("-n")
                .arg("-f")
                .arg(folder.join("rsyslog.conf"))
                .arg("-i")
                .arg(folder.join("pid"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .ok()
        })
}

const PLAIN: &str = "module(load=\"imtcp\")";

pub(crate) struct Syslog {
    server: Rsyslog,
    proxy: TcpProxy,
}

impl Subject for Syslog {
    async fn start() -> Option<Syslog> {
        let server = Rsyslog::start(PLAIN)?;
        let proxy = TcpProxy::start(server.tcp).await;
        Some(Syslog { server, proxy })
    }

    fn config(&self) -> Value {
        json!({
            "type": "syslog",
            "server": format!("tcp://{}", self.proxy.address),
            "timeout_ms": 1000,
            "batch": {"max_events": Self::MAX_EVENTS, "max_bytes": 64 << 10, "max_age_ms": 50},
            "retry": {"from_ms": 5, "max_ms": 50},
            "memory_bytes": 10 << 20,
        })
    }

    fn got(&self) -> Vec<Got> {
        self.server.got()
    }

    fn fail(&self, fault: Fault) -> bool {
        let can = matches!(fault, Fault::Unavailable | Fault::Hang | Fault::Reset);
        if can {
            self.proxy.fail(fault);
        }
        can
    }

    async fn stop(&mut self) {
        self.proxy.close().await;
        self.server.stop();
    }

    async fn resume(&mut self) {
        self.server.resume();
        self.proxy.listen().await;
    }
}

crate::contract!(Syslog);

/// A router that delivers to the subject with these changes of its configuration.
async fn router(bench: &Bench<Syslog>, changes: Value) -> Running {
    let mut subject = bench.subject.config();
    for (key, value) in changes.as_object().unwrap() {
        subject[key] = value.clone();
    }
    let mut config = bench.config();
    let subject = serde_json::from_value(subject).unwrap();
    config.destinations.insert("subject".into(), subject);
    Running::start(config).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_kept_and_datagrams_deliver_as_well() {
    let Some(mut bench) = Bench::<Syslog>::start().await else {
        return;
    };
    let kept = router(&bench, json!({"confirm": false})).await;
    for _ in 0..3 {
        bench.publish("lamp-1", 60).await;
        bench.exactly().await;
    }
    kept.stop().await;
    let server = format!("udp://127.0.0.1:{}", bench.subject.server.udp);
    let datagrams = router(&bench, json!({"server": server})).await;
    bench.publish("lamp-1", 20).await;
    bench.exactly().await;
    datagrams.stop().await;
}

/// What rsyslog reads out of a message is what was put in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_part_of_a_message_is_understood() {
    let Some(mut bench) = Bench::<Syslog>::start().await else {
        return;
    };
    let router = router(&bench, json!({"facility": "local3"})).await;
    let event = json!({"level": "warn", "message": "odd ] \" é", "room": "a \"b\" [c]"});
    bench
        .device
        .publish("thinglog/logs/lamp-1/app", event.to_string())
        .await;
    let of_device = |line: &Vec<String>| line[0] == "lamp-1";
    until("the message is there", || {
        bench.subject.server.lines().iter().any(of_device)
    })
    .await;
    let mut lines = bench.subject.server.lines();
    lines.retain(of_device);
    // local3 is 19, a warning 4.
    let expected = [
        "lamp-1",
        "app",
        "156",
        r#"[thinglog@32473 severity="13"][attributes@32473 room="a \"b\" [c\]"]"#,
        "odd ] \" é",
    ];
    assert_eq!(lines, [expected]);
    router.stop().await;
}

/// Whether rsyslog can do TLS here; in CI it must.
fn can_tls() -> bool {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten();
    let module = Path::new("rsyslog/lmnsd_gtls.so");
    let found = folders
        .flatten()
        .any(|folder| folder.path().join(module).exists());
    assert!(
        found || std::env::var_os("CI").is_none(),
        "CI must have rsyslog-gnutls installed"
    );
    if !found {
        eprintln!("SKIPPED: rsyslog-gnutls is not installed");
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_the_server_must_be_who_it_says() {
    if !can_tls() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let files = Certificates::make(folder.path());
    let more = format!(
        "global(defaultNetstreamDriver=\"gtls\" defaultNetstreamDriverCAFile=\"{ca}\" \
         defaultNetstreamDriverCertFile=\"{certificate}\" defaultNetstreamDriverKeyFile=\"{key}\")\n\
         module(load=\"imtcp\" StreamDriver.Name=\"gtls\" StreamDriver.Mode=\"1\" \
         StreamDriver.Authmode=\"anon\")",
        ca = files.ca.display(),
        certificate = files.certificate.display(),
        key = files.key.display()
    );
    let (Some(mut bench), Some(server)) = (Bench::<Syslog>::start().await, Rsyslog::start(&more))
    else {
        return;
    };
    let address = format!("tls://127.0.0.1:{}", server.tcp);
    let stranger = router(&bench, json!({"server": address, "tls": {"ca": files.ca}})).await;
    bench.publish("lamp-1", 60).await;
    until("the wrong name is told", || {
        let parts = stranger.health.parts();
        let reason = parts.get("subject").cloned().flatten();
        reason.is_some_and(|reason| reason.contains("certificate"))
    })
    .await;
    stranger.stop().await;
    let tls = json!({"ca": files.ca, "server_name": "localhost"});
    let router = router(&bench, json!({"server": address, "tls": tls})).await;
    until("all events are there", || server.got().len() == 60).await;
    assert_eq!(server.got(), bench.sent);
    router.stop().await;
}
