//! What an operator may set of destinations that deliver by requests over a network: batches,
//! retries, dead letters, HTTP.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// How events are gathered into requests. A request goes as soon as one of the limits is reached;
/// what the service itself limits holds in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Most events of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_events: Option<usize>,
    /// Most bytes of a request, before compression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<usize>,
    /// Longest wait of an event for others, milliseconds; 0: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u64>,
}

/// When a request that failed is tried again: after a random part of a time that doubles with every
/// failure, and never before the other side asked for it (`Retry-After`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// The time after the first failure, milliseconds.
    pub from_ms: u64,
    /// The longest time, milliseconds.
    pub max_ms: u64,
    /// Seconds after which the events of a request become dead letters; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub give_up_s: Option<u64>,
}

impl Default for RetryConfig {
    fn default() -> Self {
        RetryConfig {
            from_ms: 200,
            max_ms: 30_000,
            give_up_s: None,
        }
    }
}

/// Events that the other side refuses for good, kept in `<data>/router/<name>/dead/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLetterConfig {
    /// Most bytes on disk.
    pub max_bytes: u64,
    /// What happens when that is used up.
    pub on_full: OnFull,
}

impl Default for DeadLetterConfig {
    fn default() -> Self {
        DeadLetterConfig {
            max_bytes: 256 << 20,
            on_full: OnFull::DropOldest,
        }
    }
}

/// What happens when there is no room for another dead letter. What is lost is logged and counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFull {
    /// The oldest ones are lost.
    #[default]
    DropOldest,
    /// The new one is lost.
    DropNewest,
    /// Nothing is lost: the destination stands still until there is room.
    Wait,
}

/// What holds for every destination that delivers by requests, defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Delivery {
    pub(crate) batch: BatchConfig,
    pub(crate) retry: RetryConfig,
    pub(crate) dead_letters: DeadLetterConfig,
    pub(crate) concurrency: usize,
    pub(crate) memory_bytes: Option<usize>,
}

impl Delivery {
    pub(super) const CONCURRENCY: usize = 4;
    /// More of them only fill memory.
    const MOST_CONCURRENCY: usize = 256;

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let positive = [
            ("batch.max_events", self.batch.max_events),
            ("batch.max_bytes", self.batch.max_bytes),
            ("concurrency", Some(self.concurrency)),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == Some(0)) {
            return Err(ConfigError::new(*key, "must be at least 1"));
        }
        if self.concurrency > Self::MOST_CONCURRENCY {
            let reason = format!("must be at most {}", Self::MOST_CONCURRENCY);
            return Err(ConfigError::new("concurrency", reason));
        }
        if self.retry.from_ms == 0 || self.retry.from_ms > self.retry.max_ms {
            let reason = "must be at least 1 and at most retry.max_ms";
            return Err(ConfigError::new("retry.from_ms", reason));
        }
        if self.dead_letters.max_bytes < 1 << 20 {
            let reason = "must be at least 1048576 (1 MiB)";
            return Err(ConfigError::new("dead_letters.max_bytes", reason));
        }
        Ok(())
    }
}

/// Checks the address of a service below which its paths are.
pub(super) fn check_base_url(url: &str) -> Result<(), ConfigError> {
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme));
    let reason = match rest {
        None => format!("{url:?} opens neither with http:// nor with https://"),
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{url:?} names no host"),
        Some(rest) if rest.contains(['?', '#']) || rest.contains(char::is_whitespace) => {
            format!("{url:?} is more than an address and a path")
        }
        Some(_) => return Ok(()),
    };
    Err(ConfigError::new("url", reason))
}

/// How a service is reached over HTTP. Proxies are those of the environment (`HTTPS_PROXY`,
/// `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientConfig {
    /// Longest wait for an answer, milliseconds.
    pub timeout_ms: u64,
    /// Longest wait for a connection, milliseconds.
    pub connect_timeout_ms: u64,
    /// Headers of every request.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Headers whose values stand in files, for keys and tokens.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers_file: BTreeMap<String, PathBuf>,
    /// User of basic authentication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Its password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// A bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// Authorities of the server's certificate, PEM; absent: those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The router's own certificate, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Believe any certificate. Whoever is in between then reads and changes everything.
    pub insecure: bool,
}

impl Default for ClientConfig {
    fn default() -> Self {
        ClientConfig {
            timeout_ms: 30_000,
            connect_timeout_ms: 10_000,
            headers: BTreeMap::new(),
            headers_file: BTreeMap::new(),
            username: None,
            password: None,
            token: None,
            ca: None,
            certificate: None,
            key: None,
            insecure: false,
        }
    }
}

impl ClientConfig {
    /// Checks what belongs together; keys are those below `http`.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |key: &str, reason: &str| Err(ConfigError::new(format!("http.{key}"), reason));
        if self.timeout_ms == 0 || self.connect_timeout_ms == 0 {
            return wrong("timeout_ms", "must be at least 1");
        }
        check_login(self.username.as_ref(), self.password.as_ref())
            .map_err(|error| ConfigError::new(format!("http.{}", error.key), error.reason))?;
        if self.username.is_some() && self.token.is_some() {
            return wrong("token", "either a user name or a token");
        }
        if self.certificate.is_some() != self.key.is_some() {
            return wrong("certificate", "certificate and key go together");
        }
        if self.insecure && self.ca.is_some() {
            return wrong("insecure", "believes any certificate, so ca has no use");
        }
        Ok(())
    }
}

/// A secret: the text itself, or `{ file = "PATH" }` with the text, whose last line break does not
/// count.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Secret {
    /// The text.
    Text(String),
    /// A file that holds it.
    #[serde(rename_all = "snake_case")]
    File {
        /// Where it is.
        file: PathBuf,
    },
}

impl Secret {
    /// The text, read where it stands.
    pub(crate) fn read(&self) -> std::io::Result<String> {
        match self {
            Secret::Text(text) => Ok(text.clone()),
            Secret::File { file } => read_secret(file),
        }
    }
}

/// The text of a file without its last line break; an error names the file.
pub(crate) fn read_secret(file: &std::path::Path) -> std::io::Result<String> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        std::io::Error::new(error.kind(), format!("{}: {error}", file.display()))
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Text(_) => f.write_str("…"),
            Secret::File { file } => write!(f, "the text in {}", file.display()),
        }
    }
}

/// How bodies are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Not at all.
    None,
    /// `Content-Encoding: gzip`.
    #[default]
    Gzip,
    /// `Content-Encoding: zstd`.
    Zstd,
}
/// What is on unless it is turned off.
pub(super) fn yes() -> bool {
    true
}

/// In milliseconds.
pub(super) fn ten_seconds() -> u64 {
    10_000
}

/// In milliseconds.
pub(super) fn half_a_minute() -> u64 {
    30_000
}

/// A wait of some milliseconds, and no fewer than `least`.
pub(super) fn check_timeout(ms: u64, least: u64) -> Result<(), ConfigError> {
    match ms < least {
        true => Err(ConfigError::new(
            "timeout_ms",
            format!("must be at least {least}"),
        )),
        false => Ok(()),
    }
}

/// A user name with a password, or neither.
pub(super) fn check_login(
    username: Option<&String>,
    password: Option<&Secret>,
) -> Result<(), ConfigError> {
    match username.is_some() == password.is_some() {
        true => Ok(()),
        false => Err(ConfigError::new(
            "username",
            "user name and password go together",
        )),
    }
}
