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

use crate::config::ClientConfig;

/// TLS as configured; the error names key, file and reason.
pub(crate) fn config(config: &ClientConfig) -> Result<TlsConfig, String> {
    let provider = Arc::new(default_provider());
    let builder = TlsConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if config.insecure {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        builder.with_root_certificates(roots(config.ca.as_deref())?)
    };
    let (Some(certificate), Some(key)) = (&config.certificate, &config.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates("http.certificate", certificate)?;
    let named = |reason: String| format!("http.key: {}: {reason}", key.display());
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| named(error.to_string()))?;
    builder
        .with_client_auth_cert(chain, private)
        .map_err(|error| named(error.to_string()))
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match file {
        // A system without any: connections fail with the reason, plain HTTP does without.
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
        Some(file) => {
            for certificate in certificates("http.ca", file)? {
                roots
                    .add(certificate)
                    .map_err(|error| format!("http.ca: {}: {error}", file.display()))?;
            }
        }
    }
    Ok(roots)
}

fn certificates(key: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let named = |reason: String| format!("{key}: {}: {reason}", file.display());
    let read = CertificateDer::pem_file_iter(file).map_err(|error| named(error.to_string()))?;
    let read = read.collect::<Result<Vec<_>, _>>();
    let certificates = read.map_err(|error| named(error.to_string()))?;
    match certificates.is_empty() {
        true => Err(named("it holds no certificate in PEM".into())),
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
