use std::fs;

use rcgen::{CertificateParams, DnType, KeyPair};

use super::*;

struct Files {
    dir: tempfile::TempDir,
    config: TlsConfig,
}

/// A certificate for `localhost` and its key, in files.
fn files() -> Files {
    let dir = tempfile::tempdir().unwrap();
    let config = TlsConfig {
        certificate: dir.path().join("broker.pem"),
        key: dir.path().join("broker.key"),
        ..TlsConfig::default()
    };
    let files = Files { dir, config };
    files.renew();
    files
}

impl Files {
    fn renew(&self) {
        let (certificate, key) = make(&["localhost"]);
        fs::write(&self.config.certificate, certificate).unwrap();
        fs::write(&self.config.key, key).unwrap();
    }

    fn error(&self) -> ConfigError {
        Tls::load(&self.config).err().unwrap()
    }
}

fn make(names: &[&str]) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for name in names {
        params.distinguished_name.push(DnType::CommonName, *name);
    }
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn what_cannot_be_used_is_named_with_its_file_and_reason() {
    let files = files();
    Tls::load(&files.config).unwrap();
    let foreign_key = make(&["localhost"]).1;
    let cases: [(&str, &Path, &str, &str); 6] = [
        (
            "tls.certificate",
            &files.config.certificate,
            "",
            "holds no certificate",
        ),
        (
            "tls.certificate",
            &files.config.certificate,
            &foreign_key,
            "holds no certificate",
        ),
        (
            "tls.certificate",
            &files.config.certificate,
            "-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n",
            "is no PEM file",
        ),
        ("tls.key", &files.config.key, "", "holds no private key"),
        (
            "tls.key",
            &files.config.key,
            &foreign_key,
            "is not the key of broker.tls.certificate",
        ),
        (
            "tls.key",
            &files.config.key,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "does not go with",
        ),
    ];
    for (key, path, content, reason) in cases {
        let good = fs::read(path).unwrap();
        fs::write(path, content).unwrap();
        let error = files.error();
        assert_eq!(error.key, key, "{error}");
        assert!(
            error.reason.contains(&path.display().to_string()),
            "{error}"
        );
        assert!(error.reason.contains(reason), "{error}");
        fs::write(path, good).unwrap();
    }
}

#[test]
fn a_missing_file_is_named() {
    let mut files = files();
    let missing = files.dir.path().join("nowhere.pem");
    files.config.client_ca = Some(missing.clone());
    let error = files.error();
    assert_eq!(error.key, "tls.client_ca");
    assert!(
        error.reason.contains("nowhere.pem: No such file"),
        "{error}"
    );
    files.config.client_ca = None;
    files.config.certificate = missing;
    assert_eq!(files.error().key, "tls.certificate");
}

#[test]
fn a_reload_takes_all_or_nothing() {
    let files = files();
    let tls = Tls::load(&files.config).unwrap();
    let serving = || Arc::as_ptr(tls.acceptor.read().config());
    let first = serving();
    fs::write(&files.config.key, make(&["localhost"]).1).unwrap();
    assert_eq!(tls.reload().unwrap_err().key, "tls.key");
    assert_eq!(serving(), first, "the old certificate serves on");
    files.renew();
    tls.reload().unwrap();
    assert_ne!(serving(), first);
}

#[test]
fn a_certificate_names_exactly_one_client() {
    let name = |names: &[&str]| common_name(&der(&make(names).0));
    assert_eq!(name(&["lamp-7"]).as_deref(), Some("lamp-7"));
    assert_eq!(name(&["Лампа 7"]).as_deref(), Some("Лампа 7"));
    assert_eq!(name(&[]), None);
    assert_eq!(name(&[""]), None);
    assert_eq!(name(&["lamp\n7"]), None);
    assert_eq!(name(&[&"x".repeat(MAX_NAME + 1)]), None);
    assert_eq!(
        common_name(&CertificateDer::from(vec![0x30, 3, 1, 2])),
        None
    );
}

#[test]
fn sessions_are_resumed_only_where_no_certificate_is_asked_for() {
    let mut files = files();
    let load = |config: &TlsConfig| Tls::load(config).unwrap().acceptor.read().config().clone();
    assert!(load(&files.config).ticketer.enabled());
    files.config.client_ca = Some(files.config.certificate.clone());
    let server = load(&files.config);
    assert!(!server.ticketer.enabled());
    assert_eq!(server.send_tls13_tickets, 0);
    assert!(!server.session_storage.can_cache());
}
