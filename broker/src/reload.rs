//! Reads again, while the broker serves, what an operator may change.

use std::sync::Arc;

use tokio::task::{JoinError, spawn_blocking};

use crate::{access::FileError, hub::Hub};

/// What could not be read again; the broker goes on with what it had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// Users, tokens, keys or rules.
    #[error("who may do what stays as it was: {0}")]
    Access(#[from] FileError),
    /// Reading did not come to its end.
    #[error("the files were not read: {0}")]
    Unread(#[from] JoinError),
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

    /// Reads everything again, each on its own; gives what could not be. Clients that lost a right they
    /// use are disconnected soon after.
    pub async fn run(&self) -> Vec<ReloadError> {
        let hub = self.hub.clone();
        let reading = spawn_blocking(move || {
            hub.access.reload()?;
            hub.renew_everybody();
            Ok(())
        });
        let read = reading.await.map_err(ReloadError::from);
        read.and_then(|read| read).err().into_iter().collect()
    }
}
