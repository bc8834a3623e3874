//! Reads again, while the broker serves, what an operator may change.

use std::sync::Arc;

use crate::{access::FileError, config::ConfigError, hub::Hub, listen::Tls};

/// What could not be read again; the broker goes on with what it had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// Users, tokens, keys or rules.
    #[error("who may do what stays as it was: {0}")]
    Access(#[from] FileError),
    /// Certificates or keys of TLS.
    #[error("the certificates stay as they were: {0}")]
    Tls(#[from] ConfigError),
}

/// Reads files again while the broker runs. Cheap to clone; may outlive the broker.
#[derive(Clone)]
pub struct Reload {
    hub: Arc<Hub>,
    tls: Option<Arc<Tls>>,
}

impl Reload {
    pub(crate) fn new(hub: Arc<Hub>, tls: Option<Arc<Tls>>) -> Reload {
        Reload { hub, tls }
    }

    /// Reads everything again (blocking), each on its own; gives what could not be.
    #[must_use = "what could not be read is for the log"]
    pub fn reload(&self) -> Vec<ReloadError> {
        let mut errors = Vec::new();
        match self.hub.access.reload() {
            Ok(()) => self.hub.renew_everybody(),
            Err(error) => errors.push(error.into()),
        }
        // Connections go on with the certificates they began with.
        if let Some(Err(error)) = self.tls.as_ref().map(|tls| tls.reload()) {
            errors.push(error.into());
        }
        errors
    }
}
