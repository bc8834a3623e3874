//! What an operator may set of who may connect: `[broker.auth]`.

use std::path::PathBuf;

use serde::Deserialize;

/// Who may connect. With no key set nobody is asked who they are, which only listeners on loopback
/// may do; with any set, a client without a name is refused unless `anonymous` says otherwise.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// File of users with passwords that people choose: `thinglog passwd`.
    pub passwords: Option<PathBuf>,
    /// File of devices with tokens: `thinglog device add`.
    pub tokens: Option<PathBuf>,
    /// File of rules in mosquitto's syntax, beside what roles allow.
    pub acl: Option<PathBuf>,
    /// Tokens of an issuer.
    pub jwt: Option<Jwt>,
    /// Clients without user name and password may connect (default false); they may do what the
    /// ACL file says before its first `user`.
    pub anonymous: bool,
}

/// Tokens of an issuer, which clients send as their password.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Jwt {
    /// File of keys: a JWKS, a public key (PEM), or a shared secret of at least 32 bytes.
    pub keys: PathBuf,
    /// What `iss` has to be.
    pub issuer: Option<String>,
    /// What `aud` has to name one of.
    pub audience: Vec<String>,
    /// The claim that names the principal (default `sub`).
    pub principal: String,
    /// The claim that names its role; without one every bearer is a device.
    pub role: Option<String>,
    /// The claim that lists the groups of an operator.
    pub groups: Option<String>,
}

impl Default for Jwt {
    fn default() -> Self {
        Jwt {
            keys: PathBuf::new(),
            issuer: None,
            audience: Vec::new(),
            principal: "sub".into(),
            role: None,
            groups: None,
        }
    }
}

impl Auth {
    /// Whether there is a way to prove who one is.
    pub fn asks(&self) -> bool {
        self.passwords.is_some() || self.tokens.is_some() || self.jwt.is_some()
    }

    /// Whether anything limits what a client may do.
    pub fn is_on(&self) -> bool {
        self.asks() || self.acl.is_some()
    }

    /// What cannot stand, by key.
    pub(crate) fn validate(&self) -> Result<(), (&'static str, String)> {
        if let Some(jwt) = &self.jwt {
            if jwt.keys.as_os_str().is_empty() {
                let reason = "must name the file with the issuer's keys: a JWKS, a public key (PEM) or a shared secret";
                return Err(("auth.jwt.keys", reason.into()));
            }
            if jwt.principal.is_empty() {
                return Err((
                    "auth.jwt.principal",
                    "must name a claim, as in \"sub\"".into(),
                ));
            }
        }
        Ok(())
    }
}
