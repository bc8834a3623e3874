//! Who may call HTTP: the users of the broker's files, and the holders of access keys.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use parking_lot::RwLock;
use thinglog_broker::access::{FileError, Grant, Known, Logins, Role, Unknown};
use thinglog_router::http::{
    self, Caller,
    authenticate::{AccessKey, Answer, Authenticate, Denied, Shown, SignedIn},
};

use crate::access::keys::Keys;

/// Knows users and keys.
pub(crate) struct SignIn {
    logins: Logins,
    file: Option<PathBuf>,
    keys: RwLock<Keys>,
}

impl SignIn {
    /// Reads the file of keys, if there is one (blocking).
    pub(crate) fn open(logins: Logins, file: Option<PathBuf>) -> Result<Arc<SignIn>, FileError> {
        let keys = file.as_deref().map(Keys::read).transpose()?;
        Ok(Arc::new(SignIn {
            logins,
            file,
            keys: RwLock::new(keys.unwrap_or_default()),
        }))
    }

    /// Reads the file of keys again (blocking); one that cannot be used changes nothing.
    pub(crate) fn reload(&self) -> Result<(), FileError> {
        if let Some(file) = &self.file {
            let keys = Keys::read(file)?;
            *self.keys.write() = keys;
        }
        Ok(())
    }
}

fn caller(name: &str, grant: Grant) -> Caller {
    let role = match grant.role {
        Some(Role::Admin) => http::Role::Admin,
        Some(Role::Operator) => http::Role::Operator,
        Some(Role::Device | Role::Router) | None => http::Role::Other,
    };
    Caller {
        name: name.into(),
        role,
        groups: grant.groups,
    }
}

fn as_caller(known: &Known) -> Caller {
    caller(&known.name, known.grant.clone())
}

impl Authenticate for SignIn {
    fn sign_in<'a>(
        &'a self,
        shown: Shown<'a>,
        address: IpAddr,
    ) -> Answer<'a, Result<SignedIn, Denied>> {
        let (user, password) = match shown {
            Shown::Password { user, password } => (Some(user), password),
            Shown::Bearer(token) => (None, token),
        };
        Box::pin(async move {
            let known = self.logins.check(user, password, address).await;
            let known = known.map_err(|unknown| match unknown {
                Unknown::Wrong(reason) => Denied::Wrong(reason),
                Unknown::Busy(reason) => Denied::Busy(reason),
            })?;
            let logins = self.logins.clone();
            Ok(SignedIn {
                caller: as_caller(&known),
                still: Arc::new(move || logins.still(&known).as_ref().map(as_caller)),
            })
        })
    }

    fn access_key(&self, id: &str) -> Option<AccessKey> {
        let keys = self.keys.read();
        let key = keys.get(id)?;
        Some(AccessKey {
            secret: key.secret.clone(),
            caller: caller(&key.user, key.grant.clone()),
        })
    }

    fn refused(&self, address: IpAddr) -> Answer<'_, ()> {
        Box::pin(self.logins.refused(address))
    }
}
