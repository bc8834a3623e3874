//! TLS by rustls over ring: authorities and the device's own certificate from PEM files.

use std::{path::Path, sync::Arc};

use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName,
        pem::{self, PemObject},
    },
    version::{TLS12, TLS13},
};

use super::{
    Tls,
    credentials::{CredentialError, Files},
};

/// What a connection needs, from files that were read before.
pub(super) fn client_config(tls: &Tls, files: &Files) -> Result<ClientConfig, CredentialError> {
    let provider = Arc::new(default_provider());
    let roots = match &tls.ca {
        Some(path) => authorities(path, files.bytes(path))?,
        None => system_authorities()?,
    };
    let fail = |error: &dyn std::fmt::Display| CredentialError::Tls(error.to_string());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| fail(&error))?;
    let builder = builder.with_root_certificates(roots);
    if let Some(name) = &tls.server_name {
        ServerName::try_from(name.as_str()).map_err(|_| {
            CredentialError::Tls(format!("{name:?} is neither a host name nor an IP address"))
        })?;
    }
    let Some((certificate, key)) = &tls.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(certificate, files.bytes(certificate))?;
    let private = PrivateKeyDer::from_pem_slice(files.bytes(key))
        .map_err(|error| CredentialError::unusable(key, explain(error, "private key")))?;
    builder
        .with_client_auth_cert(chain, private)
        .map_err(|error| CredentialError::unusable(key, unfit(&error, certificate)))
}

fn authorities(path: &Path, bytes: &[u8]) -> Result<RootCertStore, CredentialError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, bytes)? {
        roots
            .add(certificate)
            .map_err(|error| CredentialError::unusable(path, error.to_string()))?;
    }
    Ok(roots)
}

fn system_authorities() -> Result<RootCertStore, CredentialError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems carry certificates that no one can read any more.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})"));
        return Err(CredentialError::Tls(format!(
            "this system has no certificate authorities{}; install them (Debian: ca-certificates), \
             or name a file with the broker's own",
            why.unwrap_or_default()
        )));
    }
    Ok(roots)
}

fn certificates(
    path: &Path,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let fail = |error| CredentialError::unusable(path, explain(error, "certificate"));
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(fail)?;
    if certificates.is_empty() {
        return Err(fail(pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

fn explain(error: pem::Error, what: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("it holds no {what} in PEM"),
        error => format!("it is no PEM file: {error}"),
    }
}

fn unfit(error: &rustls::Error, certificate: &Path) -> String {
    let certificate = certificate.display();
    match error {
        rustls::Error::InconsistentKeys(_) => format!("it is not the key of {certificate}"),
        error => format!("it does not go with {certificate}: {error}"),
    }
}
