//! TLS by rustls over ring, versions 1.2 and 1.3: certificates from PEM files, replaced while clients
//! are connected, and the name in a client's certificate.

use std::{io, path::Path, sync::Arc};

use parking_lot::RwLock;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, CertificateError, RootCertStore, ServerConfig,
        crypto::{
            CryptoProvider,
            ring::{Ticketer, default_provider},
        },
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{self, PemObject},
        },
        server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
        version::{TLS12, TLS13},
    },
    server::TlsStream,
};
use tracing::{debug, info, warn};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::config::TlsConfig;
use crate::{clock, config::ConfigError};

/// Longest common name taken; RFC 5280 allows 64 characters.
const MAX_NAME: usize = 256;

/// What the encrypted listeners share.
pub(crate) struct Tls {
    config: TlsConfig,
    acceptor: RwLock<TlsAcceptor>,
}

impl Tls {
    /// Reads the files (blocking).
    pub(crate) fn load(config: &TlsConfig) -> Result<Tls, ConfigError> {
        Ok(Tls {
            acceptor: RwLock::new(acceptor(config)?),
            config: config.clone(),
        })
    }

    /// Reads the files again (blocking) for the connections to come. If they cannot be used, those
    /// read last stay.
    pub(crate) fn reload(&self) -> Result<(), ConfigError> {
        let acceptor = acceptor(&self.config)?;
        *self.acceptor.write() = acceptor;
        Ok(())
    }

    /// Does the handshake: the stream, and the name in the client's certificate if it showed one. Else
    /// the reason, `None` if the client left.
    pub(crate) async fn handshake(
        &self,
        stream: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Option<Arc<str>>), Option<&'static str>> {
        let acceptor = self.acceptor.read().clone();
        let stream = acceptor
            .accept(stream)
            .await
            .map_err(|error| reason(&error))?;
        let certificates = stream.get_ref().1.peer_certificates();
        let Some(certificate) = certificates.and_then(<[_]>::first) else {
            return Ok((stream, None));
        };
        match common_name(certificate) {
            Some(name) => Ok((stream, Some(name))),
            None => Err(Some("client certificate without one common name")),
        }
    }
}

/// Why a handshake failed, in the words of the metrics; `None` if the client left.
fn reason(error: &io::Error) -> Option<&'static str> {
    debug!(%error, "a TLS handshake failed");
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner? {
        rustls::Error::NoCertificatesPresented => Some("no client certificate"),
        rustls::Error::InvalidCertificate(error) => Some(unaccepted(error)),
        rustls::Error::InvalidMessage(_) => Some("not TLS"),
        rustls::Error::AlertReceived(_) => Some("TLS refused by the client"),
        _ => Some("TLS handshake failed"),
    }
}

/// Why a client's certificate was not accepted.
fn unaccepted(error: &CertificateError) -> &'static str {
    use CertificateError as E;
    match error {
        E::UnknownIssuer => "client certificate of an authority not in tls.client_ca",
        E::Expired | E::ExpiredContext { .. } => "client certificate has expired",
        E::NotValidYet | E::NotValidYetContext { .. } => "client certificate is not valid yet",
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            "client certificate is not meant for clients"
        }
        E::BadEncoding => "client certificate cannot be read",
        E::BadSignature => "client certificate with a wrong signature",
        E::UnhandledCriticalExtension => "client certificate with an unknown critical extension",
        E::Revoked => "client certificate was revoked",
        other => unaccepted_otherwise(&format!("{other:?}")),
    }
}

/// The same for what rustls passes on by name.
fn unaccepted_otherwise(name: &str) -> &'static str {
    const KNOWN: [(&str, &str); 4] = [
        (
            "UnsupportedCertVersion",
            "client certificate is not X.509 version 3",
        ),
        (
            "CaUsedAsEndEntity",
            "client certificate is that of an authority",
        ),
        (
            "UnsupportedSignatureAlgorithm",
            "client certificate with a signature of a kind not taken",
        ),
        (
            "PathLenConstraintViolated",
            "client certificate by more authorities in between than allowed",
        ),
    ];
    let known = KNOWN.iter().find(|(part, _)| name.contains(part));
    known.map_or("client certificate not accepted", |(_, text)| text)
}

/// Everything that new connections need, from the files.
fn acceptor(config: &TlsConfig) -> Result<TlsAcceptor, ConfigError> {
    let provider = Arc::new(default_provider());
    let fail = |key, path: &Path, reason: &dyn std::fmt::Display| ConfigError {
        key,
        reason: format!("{}: {reason}", path.display()),
    };
    let certificates = read_certificates("tls.certificate", &config.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&config.key)
        .map_err(|error| fail("tls.key", &config.key, &explain(error, "private key")))?;
    let verifier = config
        .client_ca
        .as_deref()
        .map(|path| verifier(path, !config.requires_certificates(), provider.clone()))
        .transpose()?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| fail("tls", Path::new("rustls"), &error))?;
    let builder = match &verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
        None => builder.with_no_client_auth(),
    };
    announce(&certificates, &config.certificate);
    let mut server = builder
        .with_single_cert(certificates, key)
        .map_err(|error| fail("tls.key", &config.key, &unfit(&error)))?;
    if verifier.is_some() {
        // A resumed session would not show its certificate again, valid or not by then.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
    } else {
        server.ticketer =
            Ticketer::new().map_err(|error| fail("tls", Path::new("tickets"), &error))?;
    }
    Ok(TlsAcceptor::from(Arc::new(server)))
}

/// Checks client certificates by the authorities in a file.
fn verifier(
    path: &Path,
    is_optional: bool,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, ConfigError> {
    let fail = |reason: String| ConfigError {
        key: "tls.client_ca",
        reason: format!("{}: {reason}", path.display()),
    };
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates("tls.client_ca", path)? {
        roots
            .add(certificate)
            .map_err(|error| fail(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if is_optional {
        builder.allow_unauthenticated()
    } else {
        builder
    };
    builder.build().map_err(|error| fail(error.to_string()))
}

fn read_certificates(
    key: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let fail = |error| ConfigError {
        key,
        reason: format!("{}: {}", path.display(), explain(error, "certificate")),
    };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(fail)?;
    if certificates.is_empty() {
        return Err(fail(pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

fn explain(error: pem::Error, what: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("holds no {what} in PEM"),
        pem::Error::Io(error) => error.to_string(),
        error => format!("is no PEM file: {error}"),
    }
}

fn unfit(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => "is not the key of broker.tls.certificate".to_owned(),
        error => format!("does not go with broker.tls.certificate: {error}"),
    }
}

/// Says what clients will see, and whether they will take it.
fn announce(certificates: &[CertificateDer<'_>], path: &Path) {
    let Some((_, certificate)) = certificates
        .first()
        .and_then(|der| X509Certificate::from_der(der).ok())
    else {
        return;
    };
    let (file, validity) = (path.display(), certificate.validity());
    let (subject, expires) = (certificate.subject(), validity.not_after);
    if expires.timestamp() < (clock::now() / 1_000_000_000) as i64 {
        warn!(%file, %subject, %expires, "the certificate has expired; clients will refuse it");
    } else {
        info!(%file, %subject, %expires, "certificate read");
    }
}

/// The one common name of a certificate.
fn common_name(certificate: &CertificateDer<'_>) -> Option<Arc<str>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?;
    let is_usable =
        !name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control);
    (is_usable && names.next().is_none()).then(|| name.into())
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
