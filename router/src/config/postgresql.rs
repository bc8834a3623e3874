//! What an operator may set of PostgreSQL and TimescaleDB.

use serde::{Deserialize, Serialize};

use super::remote::{Secret, check_timeout};
use super::{ConfigError, TlsKeys};
use crate::destinations::address::Address;

/// The words that open an address; both mean the same.
const SCHEMES: [(&str, u16); 2] = [("postgresql", 5432), ("postgres", 5432)];
/// Most bytes of a name (PostgreSQL, "Identifiers and Key Words").
const LONGEST_NAME: usize = 63;

/// Events as rows of a table of PostgreSQL or TimescaleDB, see `destinations/postgresql`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresqlConfig {
    /// Server and database, `postgresql://HOST[:PORT]/DATABASE`; port 5432.
    pub url: String,
    /// The table, `NAME` or `SCHEMA.NAME`, spelled as it stands in the database; `thinglog_events`.
    #[serde(default = "usual_table")]
    pub table: String,
    /// Whether a table that is not there is created; true.
    #[serde(default = "super::remote::yes")]
    pub create: bool,
    /// Whether the table that is created becomes a hypertable of TimescaleDB; false.
    #[serde(default)]
    pub hypertable: bool,
    /// The role to log in as.
    pub username: String,
    /// Its password; absent: none, for logins by certificate or trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Whether connections are encrypted, and the server's certificate is checked.
    #[serde(default)]
    pub sslmode: SslMode,
    /// For `verify-full`.
    #[serde(default)]
    pub tls: TlsKeys,
    /// Longest wait for a connection, and for the answer to a statement, milliseconds; 30,000.
    #[serde(default = "super::remote::half_a_minute")]
    pub timeout_ms: u64,
}

/// What libpq calls `sslmode`, as far as it is safe or says that it is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// No encryption.
    Disable,
    /// Encrypted, and the server's certificate must be of a known authority and of the host.
    #[default]
    VerifyFull,
}

fn usual_table() -> String {
    "thinglog_events".into()
}

impl PostgresqlConfig {
    /// Where the server is, and the database; the error says what is wrong with `url`.
    pub(crate) fn place(&self) -> Result<(Address, String), String> {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        if rest.contains('@') {
            return Err("name and password stand in username and password, not here".into());
        }
        if rest.contains('?') {
            return Err("has no parameters; sslmode and the others are keys beside it".into());
        }
        let wrong = || format!("{:?} is not postgresql://HOST[:PORT]/DATABASE", self.url);
        let (_, database) = rest.split_once('/').ok_or_else(wrong)?;
        let server = &self.url[..self.url.len() - database.len() - 1];
        if database.is_empty() || database.contains(['/', '\0']) {
            return Err(wrong());
        }
        let address = Address::parse(server, &SCHEMES)?;
        Ok((address, database.to_owned()))
    }

    /// The table as it stands in a statement, each name in quotes; the error says what is wrong with
    /// `table`.
    pub(crate) fn quoted_table(&self) -> Result<String, String> {
        let names: Vec<&str> = self.table.split('.').collect();
        if names.len() > 2 {
            return Err(format!("{:?} is not NAME or SCHEMA.NAME", self.table));
        }
        for name in &names {
            let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            let is_word = |c: char| c.is_ascii_alphanumeric() || "_$".contains(c);
            if !begins || !name.chars().all(is_word) || name.len() > LONGEST_NAME {
                return Err(format!(
                    "{name:?} is not a letter or _ and up to 62 more of A-Z a-z 0-9 _ $"
                ));
            }
        }
        let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        Ok(quoted.join("."))
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |key: &'static str| move |reason: String| ConfigError::new(key, reason);
        self.place().map_err(wrong("url"))?;
        self.quoted_table().map_err(wrong("table"))?;
        if self.hypertable && !self.create {
            let reason = "is made of a table when that is created, and create = false";
            return Err(ConfigError::new("hypertable", reason));
        }
        if self.username.is_empty() || self.username.contains('\0') {
            return Err(ConfigError::new("username", "must not be empty"));
        }
        match self.sslmode {
            SslMode::VerifyFull => self.tls.validate()?,
            SslMode::Disable if self.tls != TlsKeys::default() => {
                let reason = "has no use with sslmode = \"disable\"; remove one of them";
                return Err(ConfigError::new("tls", reason));
            }
            SslMode::Disable => {}
        }
        check_timeout(self.timeout_ms, 1)?;
        Ok(())
    }
}
