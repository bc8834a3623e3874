//! An authority, certificates of the broker and of clients, and clients that use them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use thinglog_broker::TlsConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore, SupportedProtocolVersion,
        crypto::ring::{default_provider, sign::any_supported_type},
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
        sign::{CertifiedKey, SingleCertAndKey},
        version::{TLS12, TLS13},
    },
};

pub(crate) const BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

/// A certificate with its key.
pub(crate) struct Identity {
    pub(crate) der: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Each has a name of its own, as authorities have.
        let name = format!("authority {:02x?}", &key.public_key_raw()[1..5]);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        Authority {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for a common name, valid for `localhost`.
    pub(crate) fn issue(&self, name: &str) -> Identity {
        self.issue_with(name, |_| {})
    }

    /// The same, changed.
    pub(crate) fn issue_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            key,
        }
    }

    pub(crate) fn write(&self, path: &Path) -> PathBuf {
        fs::write(path, &self.pem).unwrap();
        path.to_owned()
    }

    /// A certificate without extensions, which makes it one of version 1, by openssl with files in `dir`;
    /// `None` where there is no openssl.
    pub(crate) fn issue_version_1(&self, dir: &Path) -> Option<Identity> {
        let key = KeyPair::generate().unwrap();
        fs::write(dir.join("client.key"), key.serialize_pem()).unwrap();
        fs::write(dir.join("signer.key"), self.issuer.key().serialize_pem()).unwrap();
        let ca = self.write(&dir.join("signer.pem"));
        let openssl = |args: &[&str]| {
            let run = Command::new("openssl").current_dir(dir).args(args).output();
            let output = run.ok()?;
            assert!(output.status.success(), "{output:?}");
            Some(output.stdout)
        };
        let request = ["req", "-new", "-key", "client.key", "-subj", "/CN=lamp-7"];
        let request = openssl(&[&request[..], &["-out", "client.csr"]].concat())?;
        assert!(request.is_empty());
        let (ca, sign) = (ca.to_str().unwrap(), ["x509", "-req", "-in", "client.csr"]);
        let signer = ["-CA", ca, "-CAkey", "signer.key", "-outform", "DER"];
        let der = openssl(&[&sign[..], &signer].concat())?;
        Some(Identity {
            der: der.into(),
            pem: String::new(),
            key,
        })
    }

    /// Does the handshake as a client that trusts this authority.
    pub(crate) async fn connect<S>(
        &self,
        stream: S,
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<&Identity>,
    ) -> std::io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => config.with_no_client_auth(),
            Some(identity) => {
                let key = PrivatePkcs8KeyDer::from(identity.key.serialize_der());
                let key = any_supported_type(&PrivateKeyDer::from(key)).unwrap();
                // Not looked at before it is shown: it may be one that nobody takes.
                let shown = CertifiedKey::new(vec![identity.der.clone()], key);
                config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown)))
            }
        };
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }
}

impl Identity {
    /// Writes it where a broker is told to look for it.
    pub(crate) fn write(&self, dir: &Path) -> TlsConfig {
        let config = TlsConfig {
            listen: Some("127.0.0.1:0".parse().unwrap()),
            certificate: dir.join("broker.pem"),
            key: dir.join("broker.key"),
            ..TlsConfig::default()
        };
        fs::write(&config.certificate, &self.pem).unwrap();
        fs::write(&config.key, self.key.serialize_pem()).unwrap();
        config
    }
}
