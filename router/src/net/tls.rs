//! TLS by rustls over ring: authorities of the system or of a file, an own certificate, and, loudly,
//! nothing at all.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig as TlsConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::config::{ClientConfig, TlsKeys};

/// Whom to believe, and with what to be believed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trust<'a> {
    /// The key of the configuration that these stand below.
    pub(crate) key: &'a str,
    pub(crate) ca: Option<&'a Path>,
    pub(crate) certificate: Option<&'a Path>,
    pub(crate) private_key: Option<&'a Path>,
    pub(crate) insecure: bool,
}

impl<'a> Trust<'a> {
    /// What stands below `http`.
    #[cfg_attr(not(feature = "http-client"), allow(dead_code))]
    pub(crate) fn of_http(config: &'a ClientConfig) -> Trust<'a> {
        Trust {
            key: "http",
            ca: config.ca.as_deref(),
            certificate: config.certificate.as_deref(),
            private_key: config.key.as_deref(),
            insecure: config.insecure,
        }
    }

    /// What stands below `tls`.
    pub(crate) fn of_tls(config: &'a TlsKeys) -> Trust<'a> {
        Trust {
            key: "tls",
            ca: config.ca.as_deref(),
            certificate: config.certificate.as_deref(),
            private_key: config.key.as_deref(),
            insecure: config.insecure,
        }
    }

    /// An error about one of its files.
    fn wrong(&self, key: &str, file: &Path, reason: impl std::fmt::Display) -> String {
        format!("{}.{key}: {}: {reason}", self.key, file.display())
    }
}

/// TLS as configured; the error names key, file and reason.
pub(crate) fn config(trust: Trust<'_>) -> Result<TlsConfig, String> {
    let provider = Arc::new(default_provider());
    let builder = TlsConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if trust.insecure {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        builder.with_root_certificates(roots(trust)?)
    };
    let (Some(certificate), Some(key)) = (trust.certificate, trust.private_key) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(trust, "certificate", certificate)?;
    let wrong = |error| trust.wrong("key", key, error);
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(error.to_string()))?;
    builder
        .with_client_auth_cert(chain, private)
        .map_err(|error| wrong(error.to_string()))
}

fn roots(trust: Trust<'_>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match trust.ca {
        // A system without any: connections fail with the reason, plain ones do without.
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
        Some(file) => {
            for certificate in certificates(trust, "ca", file)? {
                roots
                    .add(certificate)
                    .map_err(|error| trust.wrong("ca", file, error))?;
            }
        }
    }
    Ok(roots)
}

fn certificates(
    trust: Trust<'_>,
    key: &str,
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error| trust.wrong(key, file, error);
    let read = CertificateDer::pem_file_iter(file).map_err(|error| wrong(error.to_string()))?;
    let read = read.collect::<Result<Vec<_>, _>>();
    let certificates = read.map_err(|error| wrong(error.to_string()))?;
    match certificates.is_empty() {
        true => Err(wrong("it holds no certificate in PEM".into())),
        false => Ok(certificates),
    }
}

/// Believes any certificate, but nobody without its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
