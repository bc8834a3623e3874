//! A broker whose clients log in, with its files.

#![allow(dead_code)]

use std::{fs, path::PathBuf};

use thinglog_broker::{
    Config,
    access::{Auth, Grant, Jwt, password, token},
};

use crate::{
    harness::Running,
    login::{Client, Login},
};

pub(crate) const SECRET: &str = "a secret of more than thirty-two bytes";
/// Files of a broker with an admin `root` and a user `alice`, whose rights are the ACL file's, both
/// with the password `secret`; and devices `lamp` and `door`.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) lamp: String,
    pub(crate) door: String,
}

impl Site {
    pub(crate) fn new(acl: &str) -> Site {
        let dir = tempfile::tempdir().unwrap();
        let (tokens, lamp) = token::add("", "lamp", false).unwrap();
        let (tokens, door) = token::add(&tokens, "door", false).unwrap();
        let site = Site { dir, lamp, door };
        site.write("tokens", &tokens);
        site.write(
            "passwords",
            &users(&[("root", "role=admin"), ("alice", "")]),
        );
        site.write("acl", acl);
        site.write("keys", SECRET);
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            data: self.path("data"),
            auth: Auth {
                passwords: Some(self.path("passwords")),
                tokens: Some(self.path("tokens")),
                acl: Some(self.path("acl")),
                jwt: Some(Jwt {
                    keys: self.path("keys"),
                    ..Jwt::default()
                }),
                anonymous: false,
            },
            ..Config::default()
        }
    }

    pub(crate) async fn start(&self) -> Running {
        Running::start_with(self.config()).await
    }

    /// The device's login.
    pub(crate) fn lamp(&self, level: u8) -> Login<'_> {
        Login::new(level, "lamp", &self.lamp)
    }
}

/// The text of a password file; everybody's password is `secret`.
pub(crate) fn users(users: &[(&str, &str)]) -> String {
    let hash = password::hash(b"secret").unwrap();
    users.iter().fold(String::new(), |text, (user, grant)| {
        let grant: Grant = grant.parse().unwrap();
        let secret = password::Secret::Hash(hash.clone());
        password::set(&text, user, secret, Some(&grant)).unwrap()
    })
}

pub(crate) fn root(level: u8) -> Login<'static> {
    Login::new(level, "root", "secret")
}

pub(crate) fn alice(level: u8) -> Login<'static> {
    Login::new(level, "alice", "secret")
}

pub(crate) async fn connect(login: Login<'_>, broker: &Running) -> Client {
    login.connect(broker.address).await.unwrap_or_else(|code| {
        panic!("{} was refused: {code:#x}", login.id);
    })
}
