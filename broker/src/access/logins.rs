//! Who somebody is, for parts of the process that are no MQTT clients: the same users and the same
//! brakes on guessing.

use std::{net::IpAddr, sync::Arc};

use thinglog_schemas::Topics;

use super::{Access, Auth, Credentials, FileError, Grant, Login, throttle::Named};
use crate::{clock, codec::Reason};

/// Proves who somebody is, by the files of [`Auth`]. Cheap to clone.
#[derive(Clone)]
pub struct Logins(Arc<Access>);

/// Somebody who proved who they are.
#[derive(Clone, Debug)]
pub struct Known {
    /// The user, the device, or whom the issuer's token names.
    pub name: Arc<str>,
    /// Role and groups.
    pub grant: Grant,
    login: Login,
}

/// Somebody who did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// What they showed is wrong; the reason may be told.
    Wrong(&'static str),
    /// Too many try at once, or this address failed too often.
    Busy(&'static str),
}

impl Known {
    fn of(login: Login) -> Option<Known> {
        Some(Known {
            name: login.principal.clone()?,
            grant: login.grant.clone(),
            login,
        })
    }
}

impl Logins {
    /// Reads the files (blocking); `root` is that of the topics that the rules are about.
    pub fn open(config: &Auth, root: &Topics) -> Result<Logins, FileError> {
        Access::open(config, root).map(|access| Logins(Arc::new(access)))
    }

    pub(crate) fn of(access: Arc<Access>) -> Logins {
        Logins(access)
    }

    /// Reads the files again (blocking); one that cannot be used changes nothing.
    pub fn reload(&self) -> Result<(), FileError> {
        self.0.reload()
    }

    /// Finds out who shows this password or token from `address`; a token of an issuer needs no user
    /// name. Failures are held up, more and more: the future may take seconds.
    pub async fn check(
        &self,
        username: Option<&str>,
        password: &str,
        address: IpAddr,
    ) -> Result<Known, Unknown> {
        if !self.0.config.asks() {
            self.refused(address).await;
            return Err(Unknown::Wrong("nobody has a password or a token here"));
        }
        let shown = Credentials {
            username,
            password: Some(password.as_bytes()),
            certificate: None,
        };
        let login = self
            .0
            .login(shown, address)
            .await
            .map_err(|error| match error.reason {
                Reason::ServerBusy => Unknown::Busy(error.text),
                _ => Unknown::Wrong(error.text),
            })?;
        Known::of(login).ok_or(Unknown::Wrong("no user name and password"))
    }

    /// Somebody who proved who they are, as the files are now: with the role and groups of today, or
    /// `None` when user, password, token or key are there no more or the token has expired.
    pub fn still(&self, known: &Known) -> Option<Known> {
        if known.login.expires.is_some_and(|end| end <= clock::now()) {
            return None;
        }
        self.0.judge(&known.login).ok().and_then(Known::of)
    }

    /// Counts a failure from `address` of a proof that is checked elsewhere, and holds up its answer.
    pub async fn refused(&self, address: IpAddr) {
        self.0.regret(address, Named::Yes).await;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::access::{password, token};

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn users_and_devices_are_known_with_role_and_groups_and_forgotten_by_a_reload() {
        let dir = tempfile::tempdir().unwrap();
        let (passwords, tokens) = (dir.path().join("passwords"), dir.path().join("tokens"));
        let hash = password::hash(b"wonder").unwrap();
        let alice = format!("alice:{hash}:role=operator,group=eu\n");
        fs::write(&passwords, alice).unwrap();
        let (text, token) = token::add("", "lamp", false).unwrap();
        fs::write(&tokens, text).unwrap();
        let auth = Auth {
            passwords: Some(passwords.clone()),
            tokens: Some(tokens),
            ..Auth::default()
        };
        let logins = Logins::open(&auth, &Topics::new("thinglog").unwrap()).unwrap();
        let known = logins.check(Some("alice"), "wonder", HERE).await.unwrap();
        assert_eq!(
            (&*known.name, known.grant.to_string().as_str()),
            ("alice", "role=operator,group=eu")
        );
        let lamp = logins.check(Some("lamp"), &token, HERE).await.unwrap();
        assert_eq!(lamp.grant.to_string(), "role=device");
        for (user, password) in [
            (Some("alice"), "wrong"),
            (Some("lamp"), "wonder"),
            (None, &*token),
            (None, "x"),
        ] {
            let refused = logins.check(user, password, HERE).await;
            assert!(
                matches!(refused, Err(Unknown::Wrong(_))),
                "{user:?}: {refused:?}"
            );
        }
        let role_of = |known| logins.still(known).map(|known| known.grant.to_string());
        fs::write(&passwords, format!("alice:{hash}:role=admin\n")).unwrap();
        logins.reload().unwrap();
        assert_eq!(role_of(&known).as_deref(), Some("role=admin"));
        fs::write(&passwords, "").unwrap();
        logins.reload().unwrap();
        assert!(logins.check(Some("alice"), "wonder", HERE).await.is_err());
        assert_eq!(role_of(&known), None);
        assert_eq!(role_of(&lamp).as_deref(), Some("role=device"));
    }

    #[tokio::test]
    async fn where_nobody_has_a_login_nobody_is_let_in() {
        let logins = Logins::open(&Auth::default(), &Topics::new("thinglog").unwrap()).unwrap();
        let refused = logins.check(Some("alice"), "", HERE).await;
        assert!(matches!(refused, Err(Unknown::Wrong(_))));
    }
}
