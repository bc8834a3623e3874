//! What an operator may set of TLS where it is not HTTP.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Whom to believe, and with what to be believed. Files are read anew with every connection, so that
/// they can be changed in place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsKeys {
    /// Authorities of the server's certificate, PEM; absent: those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The router's own certificate, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The name that the server's certificate must have; absent: the host that is connected to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Believe any certificate. Whoever is in between then reads and changes everything.
    pub insecure: bool,
}

impl TlsKeys {
    /// Checks what belongs together; keys are those below `tls`.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |key: &str, reason: &str| Err(ConfigError::new(format!("tls.{key}"), reason));
        if self.certificate.is_some() != self.key.is_some() {
            return wrong("certificate", "certificate and key go together");
        }
        if self.insecure && self.ca.is_some() {
            return wrong("insecure", "believes any certificate, so ca has no use");
        }
        Ok(())
    }

    /// For servers that are spoken to in the clear: nothing of this may be set.
    pub(crate) fn refuse(&self, scheme: &str) -> Result<(), ConfigError> {
        if *self == TlsKeys::default() {
            return Ok(());
        }
        let reason = format!("has no use without TLS; write {scheme}:// or remove it");
        Err(ConfigError::new("tls", reason))
    }
}
