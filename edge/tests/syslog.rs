//! The syslog source against the real thing: util-linux's logger and rsyslog.

#![allow(clippy::unwrap_used)]

mod support {
    pub(crate) mod agent;
    #[path = "mod.rs"]
    pub(crate) mod broker;
}

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;
use support::{
    agent::{self, Running},
    broker::{self as support_broker, Broker},
};
use thinglog_edge::agent::{SyslogListeners, SyslogOptions};
use thinglog_schemas::{Severity, batch::Entry};

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// Starts the source and waits until it receives.
fn start(broker: &Broker, options: SyslogOptions) -> (Running, Addresses) {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let running = agent::run(
        agent::publisher(broker.address),
        async move |sink, cancel| {
            let listeners = SyslogListeners::bind(options)?;
            let addresses = Addresses {
                udp: listeners.udp(),
                tcp: listeners.tcp(),
            };
            sender.send(addresses).unwrap();
            listeners.run(sink, cancel).await;
            Ok(())
        },
    );
    let addresses = receiver.recv_timeout(support_broker::LIMIT).unwrap();
    (running, addresses)
}

struct Addresses {
    udp: Option<SocketAddr>,
    tcp: Option<SocketAddr>,
}

fn logger(arguments: &[&str]) {
    let status = Command::new("logger").args(arguments).status().unwrap();
    assert!(status.success(), "logger {arguments:?}: {status}");
}

fn events(broker: &Broker, count: usize) -> Vec<(String, Entry)> {
    broker.wait(|state| Some(state.events()).filter(|events| events.len() >= count))
}

#[test]
fn logger_is_understood_over_every_transport_and_in_both_formats() {
    if !support_broker::have("logger", "bsdutils") {
        return;
    }
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("log");
    let (running, at) = start(
        &broker,
        SyslogOptions {
            udp: Some(any_port()),
            tcp: Some(any_port()),
            datagram: Some(socket.clone()),
            ..SyslogOptions::default()
        },
    );
    let udp = at.udp.unwrap().port().to_string();
    let tcp = at.tcp.unwrap().port().to_string();
    let local = socket.to_str().unwrap();
    let transports: [&[&str]; 4] = [
        &["--udp", "--server", "127.0.0.1", "--port", &udp],
        &["--tcp", "--server", "127.0.0.1", "--port", &tcp],
        &[
            "--tcp",
            "--octet-count",
            "--server",
            "127.0.0.1",
            "--port",
            &tcp,
        ],
        &["--socket", local],
    ];
    let mut sent = 0;
    for transport in transports {
        for format in ["--rfc5424", "--rfc3164"] {
            let common = [
                "-p",
                "local3.err",
                "-t",
                "pump",
                "--id=4242",
                format,
                "too hot: 91 °C",
            ];
            logger(&[transport, &common].concat());
            sent += 1;
            let all = events(&broker, sent);
            let (source, event) = &all[sent - 1];
            let seen = (&**source, event.severity, &*event.message);
            assert_eq!(
                seen,
                ("pump", Severity::ERROR, "too hot: 91 °C"),
                "{transport:?}"
            );
            assert_eq!(event.attributes["facility"], "local3");
            assert_eq!(event.attributes["pid"], 4242);
            assert!(!event.attributes.contains_key("host"), "{event:?}");
        }
    }
    logger(&[
        "--tcp",
        "--octet-count",
        "--server",
        "127.0.0.1",
        "--port",
        &tcp,
        "-t",
        "pump",
        "--rfc5424=notq",
        "--sd-id",
        "pump@32473",
        "--sd-param",
        "celsius=\"91\"",
        "--msgid",
        "HOT",
        "two\nlines",
    ]);
    let all = events(&broker, sent + 1);
    let event = &all[sent].1;
    assert_eq!(event.message, "two\nlines");
    assert_eq!(event.attributes["sd.pump@32473.celsius"], "91");
    assert_eq!(event.attributes["msgid"], "HOT");
    running.stop();
    assert!(!socket.exists());
}

#[test]
fn what_is_no_syslog_arrives_as_it_is() {
    let broker = Broker::start();
    let (running, at) = start(
        &broker,
        SyslogOptions {
            tcp: Some(any_port()),
            ..SyslogOptions::default()
        },
    );
    let mut stream = std::net::TcpStream::connect(at.tcp.unwrap()).unwrap();
    stream
        .write_all(b"hello\n{\"level\":\"error\",\"msg\":\"hot\",\"celsius\":91}\n\xff\xfe\n<13>\n<999>x\n")
        .unwrap();
    drop(stream);
    let all = events(&broker, 5);
    let messages: Vec<&str> = all.iter().map(|(_, event)| &*event.message).collect();
    assert_eq!(messages, ["hello", "hot", "\u{fffd}\u{fffd}", "", "<999>x"]);
    assert_eq!(all[1].1.attributes["celsius"], json!(91));
    assert!(all.iter().all(|(source, _)| source == "syslog"));
    running.stop();
}

/// A real rsyslog, fed over a socket of its own, that forwards with a queue.
struct Rsyslog {
    dir: tempfile::TempDir,
    child: Child,
}

impl Rsyslog {
    fn forwarding(actions: &str) -> Rsyslog {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        let config = format!(
            r#"
global(workDirectory="{at}" maxMessageSize="64k")
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{at}/in" RateLimit.Interval="0" UseSpecialParser="off")
{actions}
"#
        );
        let file = dir.path().join("rsyslog.conf");
        fs::write(&file, config).unwrap();
        let child = Command::new("/usr/sbin/rsyslogd")
            .arg("-n")
            .arg("-f")
            .arg(&file)
            .arg("-i")
            .arg(dir.path().join("pid"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let rsyslog = Rsyslog { dir, child };
        wait_for(&rsyslog.socket());
        rsyslog
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("in")
    }

    /// Numbered messages, as fast as rsyslog takes them.
    fn feed(&self, numbers: std::ops::Range<u32>) {
        let lines = self.dir.path().join("lines");
        let text: String = numbers.map(|n| format!("message {n}\n")).collect();
        fs::write(&lines, text).unwrap();
        let socket = self.socket();
        let (socket, lines) = (socket.to_str().unwrap(), lines.to_str().unwrap());
        logger(&[
            "--socket",
            socket,
            "-t",
            "feed",
            "-p",
            "daemon.warning",
            "-f",
            lines,
        ]);
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for(path: &Path) {
    let deadline = Instant::now() + support_broker::LIMIT;
    while !path.exists() {
        assert!(Instant::now() < deadline, "{} never came", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn tcp_action(port: u16, framing: &str, template: &str) -> String {
    format!(
        r#"*.* action(type="omfwd" target="127.0.0.1" port="{port}" protocol="tcp" TCP_Framing="{framing}"
template="{template}" queue.type="LinkedList" queue.size="200000" action.resumeRetryCount="-1" action.resumeInterval="1")"#
    )
}

/// The numbers that arrived from [`Rsyslog::feed`], checked for everything else.
fn numbers(all: &[(String, Entry)]) -> Vec<u32> {
    let number = |(source, event): &(String, Entry)| {
        assert_eq!((&**source, event.severity), ("feed", Severity::WARN));
        assert_eq!(event.attributes["facility"], "daemon");
        let number = event.message.strip_prefix("message ");
        number
            .unwrap_or_else(|| panic!("{event:?}"))
            .parse()
            .unwrap()
    };
    all.iter().map(number).collect()
}

#[test]
fn rsyslog_forwards_thousands_over_tcp_and_none_is_lost() {
    if !support_broker::have("rsyslogd", "rsyslog") {
        return;
    }
    for (framing, template) in [
        ("octet-counted", "RSYSLOG_SyslogProtocol23Format"),
        ("traditional", "RSYSLOG_TraditionalForwardFormat"),
    ] {
        let broker = Broker::start();
        let (running, at) = start(
            &broker,
            SyslogOptions {
                tcp: Some(any_port()),
                ..SyslogOptions::default()
            },
        );
        let port = at.tcp.unwrap().port();
        let rsyslog = Rsyslog::forwarding(&tcp_action(port, framing, template));
        rsyslog.feed(0..5000);
        let all = events(&broker, 5000);
        assert_eq!(numbers(&all), (0..5000).collect::<Vec<u32>>(), "{framing}");
        drop(rsyslog);
        running.stop();
    }
}

#[test]
fn rsyslog_keeps_what_comes_while_the_agent_is_restarted() {
    if !support_broker::have("rsyslogd", "rsyslog") {
        return;
    }
    let broker = Broker::start();
    let options = |tcp| SyslogOptions {
        tcp: Some(tcp),
        ..SyslogOptions::default()
    };
    let (running, at) = start(&broker, options(any_port()));
    let address = at.tcp.unwrap();
    let template = "RSYSLOG_SyslogProtocol23Format";
    let rsyslog = Rsyslog::forwarding(&tcp_action(address.port(), "octet-counted", template));
    rsyslog.feed(0..3000);
    // In the middle of them.
    events(&broker, 1);
    running.stop();
    rsyslog.feed(3000..6000);
    let (running, _) = start(&broker, options(address));
    let all = events(&broker, 6000);
    assert_eq!(numbers(&all), (0..6000).collect::<Vec<u32>>());
    drop(rsyslog);
    running.stop();
}

#[test]
fn rsyslog_forwards_over_udp_and_to_a_socket() {
    if !support_broker::have("rsyslogd", "rsyslog") {
        return;
    }
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("log");
    let (running, at) = start(
        &broker,
        SyslogOptions {
            udp: Some(any_port()),
            datagram: Some(socket.clone()),
            ..SyslogOptions::default()
        },
    );
    let port = at.udp.unwrap().port();
    let actions = format!(
        r#"module(load="omuxsock")
$OMUxSockSocket {}
*.* :omuxsock:
*.* action(type="omfwd" target="127.0.0.1" port="{port}" protocol="udp")"#,
        socket.display(),
    );
    let rsyslog = Rsyslog::forwarding(&actions);
    // Few enough for any buffer on the way.
    rsyslog.feed(0..50);
    let mut arrived = numbers(&events(&broker, 100));
    arrived.sort_unstable();
    let twice: Vec<u32> = (0..50).flat_map(|n| [n, n]).collect();
    assert_eq!(arrived, twice);
    drop(rsyslog);
    running.stop();
}
