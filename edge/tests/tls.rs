//! What a publisher asks for before anything is said in MQTT: which address, which name, and whose
//! authorities it believes.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use support::{Broker, LIMIT};
use thinglog_edge::{Builder, Publisher, Record, Tls};
use thinglog_schemas::Severity;
use tokio_rustls::rustls::{
    ServerConfig, StreamOwned,
    crypto::ring::default_provider,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::Acceptor,
};

/// A broker that knows as much MQTT as it takes to be connected to, behind TLS, for these names.
struct Secure {
    address: SocketAddr,
    /// Its authority, PEM.
    authority: PathBuf,
    /// Of every connection that was made, the name that was asked for.
    asked: Receiver<Option<String>>,
}

impl Secure {
    fn start(folder: &Path, ip: &str, names: &[&str]) -> Secure {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = folder.join("authority.pem");
        std::fs::write(&authority, issuer.pem()).unwrap();

        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key);
        let config = Arc::new(config.unwrap());

        let (sender, asked) = sync_channel(16);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut acceptor = Acceptor::default();
                let accepted = loop {
                    acceptor.read_tls(&mut stream).unwrap();
                    if let Some(accepted) = acceptor.accept().map_err(|(error, _)| error).unwrap() {
                        break accepted;
                    }
                };
                let name = accepted.client_hello().server_name().map(str::to_owned);
                let connection = accepted.into_connection(config.clone());
                let connection = connection.map_err(|(error, _)| error).unwrap();
                let mut stream = StreamOwned::new(connection, stream);
                let mut connect = [0; 4096];
                if stream.read(&mut connect).is_ok_and(|read| read > 0) {
                    // MQTT 5: CONNACK, no session, success, no properties.
                    let _ = stream.write_all(&[0x20, 3, 0, 0, 0]);
                    let _ = stream.flush();
                    let _ = sender.send(name);
                }
            }
        });
        Secure {
            address,
            authority,
            asked,
        }
    }

    /// The name that the next connection asks for.
    fn asked(&self) -> Option<String> {
        self.asked.recv_timeout(LIMIT).expect("a connection")
    }
}

fn builder(url: &str) -> Builder {
    Publisher::builder("lamp-7")
        .broker_url(&url.parse().unwrap())
        .backoff(Duration::from_millis(10), Duration::from_millis(50))
        .linger(Duration::ZERO)
}

/// Whether this machine has IPv6 on loopback.
fn has_ipv6() -> bool {
    let there = TcpListener::bind((IpAddr::V6(Ipv6Addr::LOCALHOST), 0)).is_ok();
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(there || !ci, "no IPv6 on loopback");
    if !there {
        eprintln!("SKIPPED: no IPv6 on loopback");
    }
    there
}

#[test]
fn the_name_of_a_server_is_asked_for_and_what_its_certificate_must_be_valid_for() {
    let folder = tempfile::tempdir().unwrap();
    let secure = Secure::start(folder.path(), "127.0.0.1", &["broker.example.com"]);
    let url = format!("mqtts://localhost:{}", secure.address.port());
    let tls = Tls::new().ca(&secure.authority);
    let named = tls.clone().server_name("broker.example.com");
    let publisher = builder(&url).tls(named).start().unwrap();
    assert_eq!(secure.asked().as_deref(), Some("broker.example.com"));
    drop(publisher);

    // Without it the host is asked for, and this certificate is not valid for that.
    let publisher = builder(&url).tls(tls).start().unwrap();
    publisher.emit(Record::new("app", Severity::INFO, "never"));
    assert!(!publisher.flush_blocking(Duration::from_millis(500)));
    assert_eq!(publisher.counters().connects, 0);
}

#[test]
fn an_ipv6_address_is_connected_to_with_and_without_tls() {
    if !has_ipv6() {
        return;
    }
    let broker = Broker::at("[::1]:0".parse().unwrap());
    let publisher = builder(&format!("mqtt://{}", broker.address))
        .start()
        .unwrap();
    publisher.emit(Record::new("app", Severity::INFO, "hello"));
    assert!(publisher.flush_blocking(LIMIT));
    assert_eq!(broker.state(|state| state.messages()), ["hello"]);

    let folder = tempfile::tempdir().unwrap();
    let secure = Secure::start(folder.path(), "::1", &["::1"]);
    let tls = Tls::new().ca(&secure.authority);
    let url = format!("mqtts://{}", secure.address);
    let publisher = builder(&url).tls(tls).start().unwrap();
    assert_eq!(secure.asked(), None, "nobody asks for an address by name");
    drop(publisher);
}

#[test]
fn mqtts_alone_believes_the_authorities_of_the_system() {
    let folder = tempfile::tempdir().unwrap();
    let secure = Secure::start(folder.path(), "127.0.0.1", &["localhost"]);
    let url = format!("mqtts://localhost:{}", secure.address.port());
    let mut agent = Command::new(env!("CARGO_BIN_EXE_thinglog-edge"))
        .args(["--broker", &url, "--device", "lamp-7", "pipe"])
        .env("SSL_CERT_FILE", &secure.authority)
        .env_remove("SSL_CERT_DIR")
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(secure.asked().as_deref(), Some("localhost"));
    agent.kill().unwrap();
    agent.wait().unwrap();
}
