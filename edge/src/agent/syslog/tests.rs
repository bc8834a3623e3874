use proptest::prelude::*;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

fn reader(options: SyslogOptions) -> Reader {
    Reader::new(Arc::new(options))
}

fn read(options: SyslogOptions, message: &str, peer: Peer) -> Record {
    let line = Line {
        bytes: message.as_bytes(),
        truncated: false,
    };
    reader(options).record(line, peer)
}

fn far() -> Peer {
    Peer::Network("192.0.2.7".parse().unwrap())
}

fn attributes(record: Record) -> serde_json::Value {
    record.attributes.into()
}

const MESSAGE: &str = "<27>Nov 21 09:30:01 gate nginx[12]: hot";

#[test]
fn the_program_names_the_source() {
    let record = read(SyslogOptions::default(), MESSAGE, far());
    assert_eq!((&*record.source, &*record.message), ("nginx", "hot"));
    assert_eq!(record.severity, Severity::ERROR);
    let expected = json!({"facility": "daemon", "host": "gate", "pid": 12});
    assert_eq!(attributes(record), expected);

    let odd = "<13>1 - gate my/app - - - hot";
    let record = read(SyslogOptions::default(), odd, far());
    assert_eq!(&*record.source, "my%2Fapp");
    assert_eq!(record.attributes["identifier"], "my/app");
}

#[test]
fn the_source_may_be_the_host_or_the_same_for_all() {
    let host = SyslogOptions {
        source_from: SourceFrom::Host,
        ..SyslogOptions::default()
    };
    let record = read(host.clone(), MESSAGE, far());
    assert_eq!(&*record.source, "gate");
    assert_eq!(record.attributes["identifier"], "nginx");
    assert_eq!(&*read(host, "hello", far()).source, "192.0.2.7");
    let fixed = SyslogOptions {
        source: Some("net".into()),
        ..SyslogOptions::default()
    };
    let record = read(fixed, MESSAGE, far());
    assert_eq!(&*record.source, "net");
    assert_eq!(record.attributes["identifier"], "nginx");
}

#[test]
fn who_does_not_say_its_host_is_known_by_its_address() {
    let record = read(SyslogOptions::default(), "<13>hello", far());
    assert_eq!((&*record.source, &*record.message), ("syslog", "hello"));
    assert_eq!(record.attributes["host"], "192.0.2.7");
    for near in [
        Peer::Local,
        Peer::Network("::ffff:127.0.0.1".parse().unwrap()),
    ] {
        let record = read(SyslogOptions::default(), "hello", near);
        assert!(!record.attributes.contains_key("host"), "{near:?}");
    }
}

#[test]
fn options_are_read_and_unknown_ones_refused() {
    let text = r#"{"udp": "127.0.0.1:514", "datagram": "/dev/log", "source_from": "host", "parse": "text", "timezone": "UTC", "idle": "1h", "max_message": "8KiB"}"#;
    let options: SyslogOptions = serde_json::from_str(text).unwrap();
    assert_eq!(options.udp.map(|address| address.port()), Some(514));
    assert_eq!(options.source_from, SourceFrom::Host);
    assert_eq!(options.longest(), 8 << 10);
    assert_eq!(options.idle.0.as_secs(), 3600);
    let error = serde_json::from_str::<SyslogOptions>(r#"{"port": 514}"#).unwrap_err();
    assert!(error.to_string().contains("`tcp`"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_received_is_an_error_that_names_it() {
    let error = SyslogListeners::bind(SyslogOptions::default()).unwrap_err();
    assert!(error.to_string().contains("set udp, tcp"), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let options = SyslogOptions {
        tcp: Some(address),
        ..SyslogOptions::default()
    };
    let error = SyslogListeners::bind(options).unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

/// A source on TCP without a broker, and where it is.
fn listening(options: SyslogOptions) -> (Sink, SyslogListeners, SocketAddr) {
    let publisher = crate::Publisher::builder("lamp-7").broker("127.0.0.1", 1);
    let options = SyslogOptions {
        tcp: Some(([127, 0, 0, 1], 0).into()),
        ..options
    };
    let listeners = SyslogListeners::bind(options).unwrap();
    let address = listeners.tcp().unwrap();
    (publisher.start().unwrap().into(), listeners, address)
}

/// Polls until `done`, at most as long as no test takes.
async fn until(mut done: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn beyond_the_limit_connections_are_closed_and_a_free_place_is_given_again() {
    let (sink, listeners, address) = listening(SyslogOptions {
        max_connections: 1,
        ..SyslogOptions::default()
    });
    let cancel = CancellationToken::new();
    let running = listeners.run(&sink, cancel.clone());
    let accepted = || sink.publisher().counters().accepted;
    let using = async {
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(b"<13>one\n").await.unwrap();
        until(|| accepted() == 1).await;
        let mut second = TcpStream::connect(address).await.unwrap();
        assert_eq!(second.read(&mut [0]).await.unwrap(), 0);
        drop(first);
        until(|| {
            let mut third = std::net::TcpStream::connect(address).unwrap();
            let _ = std::io::Write::write_all(&mut third, b"<13>two\n");
            accepted() > 1
        })
        .await;
        cancel.cancel();
    };
    tokio::join!(running, using);
}

#[tokio::test]
async fn what_is_on_the_way_when_the_source_ends_is_still_read() {
    let (sink, listeners, address) = listening(SyslogOptions::default());
    let cancel = CancellationToken::new();
    let using = async {
        let mut sender = TcpStream::connect(address).await.unwrap();
        sender.write_all(b"<13>one\n").await.unwrap();
        until(|| sink.publisher().counters().accepted == 1).await;
        sender
            .write_all("<13>x\n".repeat(2000).as_bytes())
            .await
            .unwrap();
        cancel.cancel();
        // Told to end.
        assert_eq!(sender.read(&mut [0]).await.unwrap(), 0);
        sender.write_all(b"<13>last").await.unwrap();
    };
    tokio::join!(listeners.run(&sink, cancel.clone()), using);
    assert_eq!(sink.publisher().counters().accepted, 2002);
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let (sink, listeners, address) = listening(SyslogOptions {
        idle: Time(Duration::ZERO),
        ..SyslogOptions::default()
    });
    let cancel = CancellationToken::new();
    let using = async {
        let mut sender = TcpStream::connect(address).await.unwrap();
        assert_eq!(sender.read(&mut [0]).await.unwrap(), 0);
        cancel.cancel();
    };
    tokio::join!(listeners.run(&sink, cancel.clone()), using);
}

#[tokio::test]
async fn what_the_kernel_dropped_becomes_an_event() {
    let publisher = crate::Publisher::builder("lamp-7").broker("127.0.0.1", 1);
    let sink: Sink = publisher.start().unwrap().into();
    let listeners = SyslogListeners::bind(SyslogOptions {
        udp: Some(([127, 0, 0, 1], 0).into()),
        ..SyslogOptions::default()
    })
    .unwrap();
    let Some(_) = drops::Drops::of(listeners.udp.as_ref().unwrap()) else {
        eprintln!("SKIP: this system has no /proc/net/udp");
        return;
    };
    let cancel = CancellationToken::new();
    let address = listeners.udp().unwrap();
    // The source counts from when it runs on.
    let sending = async {
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..20_000 {
            sender.send_to(&[b'x'; 1000], address).unwrap();
        }
        cancel.cancel();
    };
    tokio::join!(listeners.run(&sink, cancel.clone()), sending);
    let accepted = sink.publisher().counters().accepted;
    assert!(accepted > 1 && accepted < 20_000, "{accepted}");
}

proptest! {
    #[test]
    fn whatever_comes_is_taken(bytes in any::<Vec<u8>>(), like in "(<[0-9]{1,3}>)?(1 )?(Nov 21 09:30:01 |- )?([a-z]{0,4} ){0,5}\\[?[ -~é\u{feff}\0]{0,30}") {
        let mut reader = reader(SyslogOptions::default());
        for bytes in [&bytes[..], like.as_bytes()] {
            for peer in [Peer::Local, far()] {
                let record = reader.record(Line { bytes, truncated: false }, peer);
                prop_assert!(name::is_valid(&record.source));
            }
        }
    }
}
