//! Reads again, while the broker serves, what an operator may change.

use std::sync::Arc;

use crate::{access::FileError, hub::Hub};

/// What could not be read again; the broker goes on with what it had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// Users, tokens, keys or rules.
    #[error("who may do what stays as it was: {0}")]
    Access(#[from] FileError),
}

/// Reads files again while the broker runs. Cheap to clone; may outlive the broker.
#[derive(Clone)]
pub struct Reload {
    hub: Arc<Hub>,
}

impl Reload {
    pub(crate) fn new(hub: Arc<Hub>) -> Reload {
        Reload { hub }
    }

    /// Reads everything again (blocking), each on its own; gives what could not be.
    #[must_use = "what could not be read is for the log"]
    pub fn reload(&self) -> Vec<ReloadError> {
        let mut errors = Vec::new();
        match self.hub.access.reload() {
            Ok(()) => self.hub.renew_everybody(),
            Err(error) => errors.push(error.into()),
        }
        errors
    }
}
