//! What an operator may set of NATS JetStream.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::remote::{Secret, check_login, check_timeout};
use super::{ConfigError, TlsKeys};
use crate::destinations::address::Address;
use crate::routes::template::Template;

/// Ways to reach a NATS server, and their usual port.
pub(crate) const NATS_SCHEMES: [(&str, u16); 2] = [("nats", 4222), ("tls", 4222)];

/// Events as messages to a stream of NATS JetStream, see `destinations/nats`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsConfig {
    /// `nats://HOST[:PORT]` or, with TLS, `tls://HOST[:PORT]`; port 4222. Of several, any one.
    pub servers: Vec<String>,
    /// Where events are published, see [`crate::routes::template`]: `logs.{{device}}.{{source}}`. A
    /// stream must be there that takes it. Places other than device, source, level, severity and times
    /// in numbers end with the filter `url`.
    pub subject: String,
    /// The stream that must take them; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// User name to log in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Its password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// A token to log in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// A file of credentials (`.creds`: JWT and seed) to log in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<PathBuf>,
    /// For `tls`.
    #[serde(default)]
    pub tls: TlsKeys,
    /// Longest wait for a connection, and for the next acknowledgement, milliseconds; 10,000.
    #[serde(default = "super::remote::ten_seconds")]
    pub timeout_ms: u64,
}

impl NatsConfig {
    /// Whether connections are to be encrypted.
    pub(crate) fn is_tls(&self) -> bool {
        self.servers.iter().any(|server| server.starts_with("tls:"))
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.servers.is_empty() {
            return Err(ConfigError::new("servers", "at least one is needed"));
        }
        let mut schemes = Vec::new();
        for server in &self.servers {
            let address = Address::parse(server, &NATS_SCHEMES)
                .map_err(|reason| ConfigError::new("servers", reason))?;
            schemes.push(address.scheme);
        }
        schemes.dedup();
        if schemes.len() > 1 {
            let reason = "either all of them nats:// or all tls://";
            return Err(ConfigError::new("servers", reason));
        }
        match self.is_tls() {
            true => self.tls.validate()?,
            false => self.tls.refuse("tls")?,
        }
        if self.tls.server_name.is_some() {
            let reason = "cannot be chosen here: a server's certificate must have the host's name";
            return Err(ConfigError::new("tls.server_name", reason));
        }
        self.check_login()?;
        check_timeout(self.timeout_ms, 1)?;
        self.check_subject()
            .map_err(|reason| ConfigError::new("subject", reason))
    }

    fn check_login(&self) -> Result<(), ConfigError> {
        check_login(self.username.as_ref(), self.password.as_ref())?;
        let ways = [
            self.username.is_some(),
            self.token.is_some(),
            self.credentials.is_some(),
        ];
        if ways.iter().filter(|given| **given).count() > 1 {
            let reason = "one of user name, token and credentials";
            return Err(ConfigError::new("username", reason));
        }
        Ok(())
    }

    fn check_subject(&self) -> Result<(), String> {
        let subject = Template::parse(&self.subject)?;
        if !subject.is_safe_in_topics() {
            return Err(
                "every place but device, source, level, severity and times in \
                        numbers ends with the filter url, as {{message|url}}"
                    .into(),
            );
        }
        if self.subject.is_empty() || self.subject.starts_with('$') {
            return Err("is empty or opens with $, where the server's own subjects are".into());
        }
        match self.subject.contains(['*', '>']) {
            true => Err("a subject to publish to has none of * and >".into()),
            false => Ok(()),
        }
    }
}
